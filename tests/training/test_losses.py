"""Losses against their definitions in NumPy."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import training

from ..optim.trees import assert_close

LOGITS: Any = 3 * np.sin(1.7 * np.arange(24.0, dtype=np.float32)).reshape(2, 3, 4)
LABELS: Any = np.array([[0, 1, 1], [2, 0, 3]])
SHARES: Any = np.cos(np.arange(24.0, dtype=np.float32)).reshape(2, 3, 4) ** 2


def test_cross_entropy_is_the_mean_surprise():
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    expected = -np.log([shares[i, j, LABELS[i, j]] for i in range(2) for j in range(3)]).mean()
    np.testing.assert_allclose(training.cross_entropy(LOGITS, LABELS), expected, rtol=1e-6)


def test_binary_cross_entropy_is_the_mean_surprise():
    ones = 1 / (1 + np.exp(-LOGITS))
    expected = -(SHARES * np.log(ones) + (1 - SHARES) * np.log(1 - ones)).mean()
    np.testing.assert_allclose(training.binary_cross_entropy(LOGITS, SHARES), expected, rtol=1e-6)
    np.testing.assert_allclose(
        training.binary_cross_entropy(LOGITS, LOGITS > 0),
        -np.log(np.where(LOGITS > 0, ones, 1 - ones)).mean(),
        rtol=1e-5,
    )


def test_squared_error_is_the_mean_of_squares():
    expected = ((LOGITS - SHARES) ** 2).mean()
    np.testing.assert_allclose(training.squared_error(LOGITS, SHARES), expected, rtol=1e-6)


def test_accuracy_is_the_share_of_right_answers():
    expected = (LOGITS.argmax(-1) == LABELS).mean()
    assert 0 < expected < 1
    np.testing.assert_allclose(training.accuracy(LOGITS, LABELS), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [training.cross_entropy, training.accuracy])
def test_one_example_needs_no_batch(loss: Callable[..., jax.Array]):
    each = [loss(LOGITS[i, j], LABELS[i, j]) for i in range(2) for j in range(3)]
    np.testing.assert_allclose(np.mean(each), loss(LOGITS, LABELS), rtol=1e-6)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_large_logits_give_finite_losses_and_gradients(size: float):
    logits, label = jnp.array([size, -size, 0.0]), jnp.array(1)
    value, grads = jax.value_and_grad(training.cross_entropy)(logits, label)
    assert_close((value, grads), (jnp.float32(2 * size), jnp.array([1.0, -1.0, 0.0])))
    value, grads = jax.value_and_grad(training.binary_cross_entropy)(logits, jnp.array([0.0, 1.0, 0.5]))
    np.testing.assert_allclose(value, (2 * size + np.log(2)) / 3, rtol=1e-6)
    assert_close(grads, jnp.array([1.0, -1.0, 0.0]) / 3)


@pytest.mark.parametrize("loss", [training.cross_entropy, training.accuracy])
@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (LABELS[:1], "int64 (1, 3)"),
        (np.eye(4)[LABELS], "float64 (2, 3, 4)"),
        (LABELS.astype(np.float32), "float32 (2, 3)"),
        (LABELS > 0, "bool (2, 3)"),
    ],
    ids=["another batch", "one-hot", "floats", "booleans"],
)
def test_labels_that_do_not_fit_the_logits_are_refused(loss: Callable[..., Any], labels: np.ndarray, shown: str):
    name, given = loss.__name__, shown.replace("64", "32")  # without x64 JAX has no more bits
    expected = f"{name}: expected logits [..., classes] and integer labels [...], got (2, 3, 4) and {given}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        loss(LOGITS, labels)


@pytest.mark.parametrize("loss", [training.binary_cross_entropy, training.squared_error])
def test_shapes_are_not_broadcast(loss: Callable[..., Any]):
    expected = f"{loss.__name__}: expected two arrays of one shape, got (2, 3, 4) and (2, 3, 1)"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        loss(LOGITS, SHARES[..., :1])
