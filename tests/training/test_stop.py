"""`fit` with `stop`: a run that ends by its history, stopped and taken up too."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim, training

from ..optim.trees import assert_same

TX = optim.adam(0.1)
STEP = training.step(lambda w, x, key: jnp.mean((w - x) ** 2), TX)
FEED = training.batches(np.sin(np.arange(16.0, dtype=np.float32)), 4, key=jax.random.key(1))
STOP = training.early_stop("loss", patience=3, min_change=0.05)


def fit(**options: Any) -> Any:
    options = {"num_steps": 400, "report_every": 10, "progress": False, "stop": STOP} | options
    return training.fit(STEP, training.init(jnp.array(3.0), TX), FEED, **options)


def test_a_run_ends_at_the_report_that_says_so():
    found, history = fit()
    assert found.step < 400
    assert [STOP(history[:count]) for count in range(len(history) + 1)] == [False] * len(history) + [True]
    expected, _ = fit(num_steps=found.step.item(), stop=None)
    assert_same(found, expected)


def test_a_run_that_is_taken_up_ends_where_the_undisturbed_one_does(tmp_path):
    def kill(row: dict[str, float], train_state: Any) -> None:
        if row["step"] == 40:
            raise KeyboardInterrupt

    found, history = fit()
    saved = training.Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoints=saved, checkpoint_every=7, on_report=kill)
    for every in (13, 100):  # the second time there is nothing left to do
        resumed, rows = fit(checkpoints=saved, checkpoint_every=every)
        assert_same(resumed, found)
        assert rows == history
