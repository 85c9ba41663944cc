"""The compiled loop against a loop by hand, in two parts, and over seeds."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim, training
from renga.training import loop

from ..optim.trees import assert_close, assert_same

TX = optim.adam(0.1)
KEY = jax.random.key(7)


def loss_fn(w: jax.Array, batch: jax.Array, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    noise = jax.random.normal(key, w.shape, w.dtype)
    return jnp.mean((w + 0.1 * noise - batch) ** 2), {"mean": batch.mean()}


def sample(key: jax.Array) -> jax.Array:
    return jax.random.normal(key, (4, 2)) + 1


STEP = training.step(loss_fn, TX, has_aux=True)


def start(seed: Any = 0) -> training.TrainState:
    key = jax.random.key(seed)
    return training.init(jax.random.normal(key, (2,)), TX, key=key)


def test_it_is_the_step_on_a_new_batch_each_time():
    train_state, metrics = jax.jit(loop(STEP, sample, 6, report_every=3))(start(), KEY)
    by_hand, rows, step = start(), [], jax.jit(STEP)
    for index in range(6):
        by_hand, row = step(by_hand, sample(jax.random.fold_in(KEY, index)))
        rows.append(row)
    assert_close(train_state, by_hand, 1e-6)
    assert sorted(metrics) == ["loss", "mean"]
    for name, found in metrics.items():
        each = np.array([row[name] for row in rows])
        np.testing.assert_allclose(found, each.reshape(2, 3).mean(1), rtol=1e-6)
    assert len({float(row["mean"]) for row in rows}) == 6


def test_a_run_in_two_parts_is_the_same_run():
    whole, metrics = jax.jit(loop(STEP, sample, 6))(start(), KEY)
    part = jax.jit(loop(STEP, sample, 3))
    middle, first = part(start(), KEY)
    end, second = part(middle, KEY)
    assert_same(end, whole)
    np.testing.assert_array_equal(np.concatenate([first["loss"], second["loss"]]), metrics["loss"])


def test_seeds_train_side_by_side_as_they_do_alone():
    run = loop(STEP, sample, 4)
    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(run))(jax.vmap(start)(jnp.arange(3)), keys)
    for seed in range(3):
        assert_close(jax.tree.map(lambda leaf: leaf[seed], together), run(start(seed), keys[seed]), 1e-6)  # noqa: B023


def test_a_loop_can_be_differentiated():
    def last_loss(w: jax.Array) -> jax.Array:
        return loop(STEP, sample, 2)(training.init(w, TX, key=KEY), KEY)[1]["loss"][-1]

    with jax.enable_x64(True):
        w, along, small = jnp.array([0.3, -0.2]), jnp.array([1.0, 0.5]), 1e-5
        expected = (last_loss(w + small * along) - last_loss(w - small * along)) / (2 * small)
        np.testing.assert_allclose(jax.grad(last_loss)(w) @ along, expected, rtol=1e-6)


def test_loops_built_alike_are_equal_and_say_how_they_were_built():
    run = loop(STEP, sample, 6, report_every=3)
    assert run == loop(training.step(loss_fn, TX, has_aux=True), sample, 6, report_every=3)
    assert hash(run) == hash(loop(STEP, sample, 6, report_every=3))
    assert run != loop(STEP, sample, 6)
    assert repr(run) == "loop(step(loss_fn, adam(0.1), has_aux=True), sample, 6, report_every=3)"


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"num_steps": 0}, "loop: expected num_steps to be an integer of at least 1, got 0"),
        ({"report_every": 2.0}, "loop: expected report_every to be an integer of at least 1, got 2.0"),
        (
            {"report_every": 4},
            "loop: expected report_every to divide num_steps = 6, got 4. The rest of the steps would have no report.",
        ),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loop(STEP, sample, **{"num_steps": 6, **counts})
