"""Means over a data set."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import training

X = np.cumsum(np.arange(7.0, dtype=np.float32))
TRACED = []


def moments(scale: jax.Array, batch: Any) -> dict[str, jax.Array]:
    TRACED.append(batch["x"].shape)
    x = scale * batch["x"]
    return {"mean": x.mean(), "square": jnp.square(x).mean()}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 6, 7, 8, 1000])
def test_every_example_counts_once_whatever_the_batch_size(batch_size: int):
    found = training.evaluate(moments, jnp.float32(2.0), data={"x": X}, batch_size=batch_size)
    assert found == pytest.approx({"mean": (2 * X).mean(), "square": ((2 * X) ** 2).mean()}, rel=1e-6)
    assert {type(value) for value in found.values()} == {float}


def test_a_size_of_a_batch_is_compiled_once():
    TRACED.clear()
    jax.clear_caches()
    for _ in range(2):
        training.evaluate(moments, jnp.float32(1.0), data={"x": X}, batch_size=3)
    assert TRACED == [(3,), (1,)]


def test_parameters_and_state_come_before_the_batch():
    found = training.evaluate(
        lambda params, state, batch: {"sum": params + state + batch.mean()},
        1.0,
        10.0,
        data=np.full(3, 100.0, np.float32),
    )
    assert found == {"sum": 111.0}


def test_shares_of_right_answers_are_exact():
    labels = np.arange(1000) % 3
    logits = np.eye(3, dtype=np.float32)[np.where(np.arange(1000) < 7, (labels + 1) % 3, labels)]
    found = training.evaluate(
        lambda batch: {"accuracy": training.accuracy(batch["logits"], batch["labels"])},
        data={"logits": logits, "labels": labels.astype(np.int32)},
        batch_size=128,
    )
    assert found == {"accuracy": pytest.approx(0.993, rel=1e-7)}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.bool_])
def test_metrics_of_few_bits_are_summed_in_full(dtype: Any):
    found = training.evaluate(lambda batch: {"one": jnp.ones((), dtype)}, data=np.zeros(600, np.float32), batch_size=1)
    assert found == {"one": 1.0}


@pytest.mark.parametrize(
    ("num", "batch_size"), [(0, 4), (3, 0), (3, -1)], ids=["no examples", "batches of none", "batches of less"]
)
def test_nothing_to_take_a_mean_of_is_refused(num: int, batch_size: int):
    expected = f"evaluate: expected examples and a batch_size of at least 1, got {num} and {batch_size}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        training.evaluate(moments, 1.0, data={"x": X[:num]}, batch_size=batch_size)


def test_a_metric_that_is_no_scalar_is_refused():
    with pytest.raises(ValueError, match=r"^evaluate: expected metrics/x to be a scalar, got shape \(4,\)$"):
        training.evaluate(lambda batch: batch, data={"x": X}, batch_size=4)


def test_metrics_that_are_no_dict_are_refused():
    with pytest.raises(TypeError, match="evaluate: expected metrics_fn to return a dict, got "):
        training.evaluate(lambda batch: batch["x"].mean(), data={"x": jnp.ones(3)})  # pyright: ignore[reportArgumentType]
