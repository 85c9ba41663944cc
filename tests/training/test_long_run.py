"""Long runs: memory that does not grow, and losses that do not depend on how many steps a call makes."""

import gc
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training

X = np.sin(np.arange(512.0, dtype=np.float32)).reshape(64, 8)
NET = nets.mlp(16, 1)
TX = optim.adam(1e-3)
STEP = training.step(lambda params, batch, key: jnp.mean((NET.apply(params, batch) - 1) ** 2), TX)


def start() -> training.TrainState:
    return training.init(NET.init(jax.random.key(0), X), TX, key=jax.random.key(1))


def fit(num_steps: int, **options):
    feed = training.batches(X, 16, key=jax.random.key(2))
    return training.fit(STEP, start(), feed, num_steps=num_steps, progress=False, **options)


def test_losses_are_the_same_with_one_and_with_ten_steps_a_call():
    one, ten = (fit(40, steps_per_call=size, report_every=1 if size == 1 else 10)[1] for size in (1, 10))
    means = [np.mean([row["loss"] for row in one[begin : begin + 10]]) for begin in range(0, 40, 10)]
    np.testing.assert_allclose([row["loss"] for row in ten], means, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of the process from Linux")
@pytest.mark.parametrize("steps_per_call", [pytest.param(1, marks=pytest.mark.long), 10])
def test_memory_over_ten_thousand_steps_is_flat(tmp_path, steps_per_call):
    pages, arrays = [], []

    def look(row: Any) -> None:
        gc.collect()
        pages.append(int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]))
        arrays.append(len(jax.live_arrays()))

    log = training.csv_log(tmp_path / "rows.csv")
    report = training.logs(log, training.Log(look))
    fit(10_000, steps_per_call=steps_per_call, report_every=500, on_report=report)
    grown = (pages[-1] - pages[3]) * os.sysconf("SC_PAGE_SIZE")
    assert grown < 4 << 20, pages
    assert arrays[-1] == arrays[3]
