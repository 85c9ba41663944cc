"""Batches in a seeded order."""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import training

DATA = {"x": np.arange(10), "y": {"z": np.arange(20.0).reshape(10, 2)}}


def take(num_batches: int, feed: Any) -> list[Any]:
    return list(itertools.islice(feed, num_batches))


def feed(batch_size: int = 4, seed: int = 0, data: Any = DATA) -> training.Batches:
    return training.batches(data, batch_size, key=jax.random.key(seed))


def order(batches: list[Any]) -> list[int]:
    return np.concatenate([batch["x"] for batch in batches]).tolist()


def test_a_batch_is_made_of_whole_examples():
    for batch in take(5, feed()):
        assert batch["x"].shape == (4,)
        assert batch["x"].dtype == DATA["x"].dtype
        np.testing.assert_array_equal(batch["y"]["z"], DATA["y"]["z"][batch["x"]])


def test_every_epoch_is_a_new_permutation():
    epochs = [order(take(5, feed(2).starting_at(5 * epoch))) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_examples_that_do_not_fill_the_last_batch_sit_the_epoch_out():
    batches = feed(4)
    assert (batches.num_examples, batches.steps_per_epoch) == (10, 2)
    for epoch in range(4):
        seen = order(take(2, batches.starting_at(2 * epoch)))
        assert len(set(seen)) == len(seen) == 8


def test_one_batch_may_be_all_examples():
    assert sorted(order(take(1, feed(10)))) == list(range(10))


def test_the_order_depends_on_the_key_alone():
    assert order(take(7, feed(seed=0))) == order(take(7, feed(seed=0)))
    assert order(take(7, feed(seed=0))) != order(take(7, feed(seed=1)))


def test_a_second_pass_over_the_same_batches_begins_anew():
    batches = feed()
    assert order(take(3, batches)) == order(take(3, batches))


@pytest.mark.parametrize("step", [0, 1, 2, 3, 6, 7])
def test_starting_at_a_step_leaves_out_the_batches_before_it(step: int):
    assert order(take(5, feed().starting_at(step))) == order(take(step + 5, feed())[step:])


def test_arrays_of_jax_stay_with_jax_and_others_with_numpy():
    batch = next(iter(feed(data={"x": jnp.arange(10), "y": np.arange(10)})))
    assert isinstance(batch["x"], jax.Array)
    assert isinstance(batch["y"], np.ndarray)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"x": np.arange(3), "y": np.arange(4)}, "{\"['x']\": (3,), \"['y']\": (4,)}"),
        ({"x": np.arange(3), "y": np.array(4.0)}, "{\"['x']\": (3,), \"['y']\": ()}"),
        ({"x": np.array(4.0)}, "{\"['x']\": ()}"),
        ({}, "{}"),
    ],
    ids=["other lengths", "an array without axes", "only an array without axes", "nothing"],
)
def test_arrays_without_a_common_first_axis_are_refused(data: Any, shown: str):
    message = f"expected arrays [examples, ...] with as many examples each, got {shown}"
    with pytest.raises(ValueError, match=f"^batches: {re.escape(message)}$"):
        feed(data=data)
    with pytest.raises(ValueError, match=f"^evaluate: {re.escape(message)}$"):
        training.evaluate(lambda batch: {}, data=data)


@pytest.mark.parametrize("wrong", [0, -1, 11, 2.5, True, None])
def test_a_batch_size_that_does_not_fit_is_refused(wrong: Any):
    expected = f"batches: expected batch_size to be an integer in [1, 10], got {wrong!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        feed(wrong)
