"""The digits, trained by as many processes as there are: run by `test_sharding.py`.

python -m tests.training.over_processes STEPS DIRECTORY [DIES_AT]
"""

import json
import os
import re
import signal
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from sklearn.datasets import load_digits

from renga import nets, optim, training

NET = nets.mlp(32, 10)
TX = optim.adam(1e-2)


def loss_fn(params: Any, batch: Any, key: None) -> jax.Array:
    return training.cross_entropy(NET.apply(params, batch["x"]), batch["y"])


def feed() -> training.Batches:
    x, y = load_digits(return_X_y=True)
    return training.batches({"x": x.astype("float32") / 16, "y": y}, 32, key=jax.random.key(0))


def run(num_steps: int, **options: Any) -> Any:
    """Trains; of the batches each process reads its rows."""
    batches: Any = feed()
    if "mesh" in options:
        batches = training.local_batches(batches, options["mesh"])
        assert next(iter(batches))["x"].shape == (32 // jax.process_count(), 64)
    train_state = training.init(NET.init(jax.random.key(1), jnp.ones(64)), TX)
    step = training.step(loss_fn, TX)
    return training.fit(step, train_state, batches, num_steps=num_steps, report_every=10, progress=False, **options)


def main(num_steps: int, directory: str, dies_at: int | None) -> None:
    """Trains on all devices, and prints a line a report."""
    jax.config.update("jax_disable_most_optimizations", True)
    training.initialize_distributed()
    training.initialize_distributed()
    if jax.process_count() == 2:
        own = jax.process_index()
        again = (
            f"initialize_distributed: expected process {own} of 2, as when it was first called, got process 0 of 3. "
            "Call it once."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(again)}$"):
            training.initialize_distributed("localhost:1", 3, 0)

    def tell_or_die(row: Any, train_state: Any) -> None:
        if jax.process_index() == 0:
            print(json.dumps(row), flush=True)
        elif row["step"] == dies_at:
            while not checkpoints.steps:  # the other process is still writing
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)

    mesh, rules = jax.make_mesh((4,), ("data",)), training.fully_sharded(min_size=1)
    checkpoints = training.Checkpoints(directory)
    options: dict[str, Any] = {"checkpoints": checkpoints, "checkpoint_every": 10, "on_report": tell_or_die}
    train_state, _ = run(num_steps, mesh=mesh, rules=rules, **options)
    moments = jax.tree.leaves(train_state.opt_state[0].mu)
    for moment, own in zip(moments, jax.tree.leaves(train_state.params), strict=True):
        assert moment.sharding.is_equivalent_to(own.sharding, own.ndim)
    assert any(not moment.is_fully_replicated for moment in moments)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if sys.argv[3:] else None)
