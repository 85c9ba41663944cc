"""Optax's losses as means over a batch, and the share of right answers."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike


def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Mean cross entropy between logits and integer labels, in nats.

    Args:
      logits: `[..., classes]` of floats.
      labels: `[...]` of integers in `[0, classes)`.
    Returns:
      `[]` of floats.
    Raises:
      ValueError: if the leading axes differ, or the labels are no integers.

    >>> round(cross_entropy(jnp.zeros((4, 10)), jnp.arange(4)).item(), 4)
    2.3026
    """
    _check_labels("cross_entropy", logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(labels)).mean()


def binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Mean cross entropy between logits of one class and labels in [0, 1], in nats.

    Args:
      logits: `[...]` of floats.
      labels: `[...]` of numbers in [0, 1].
    Returns:
      `[]` of floats.
    Raises:
      ValueError: if the shapes differ.

    >>> round(binary_cross_entropy(jnp.zeros(4), jnp.array([0, 1, 1, 0])).item(), 4)
    0.6931
    """
    _check_same_shape("binary_cross_entropy", logits, labels)
    return optax.sigmoid_binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels)).mean()


def squared_error(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Mean squared error.

    Args:
      predictions: `[...]` of floats.
      targets: `[...]` of numbers.
    Returns:
      `[]` of floats.
    Raises:
      ValueError: if the shapes differ: they are not broadcast.

    >>> squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])).item()
    2.0
    """
    _check_same_shape("squared_error", predictions, targets)
    return optax.squared_error(jnp.asarray(predictions), jnp.asarray(targets)).mean()


def accuracy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Share of the labels that have the largest logit.

    Args:
      logits: `[..., classes]` of floats.
      labels: `[...]` of integers in `[0, classes)`.
    Returns:
      `[]` of float32, in [0, 1].
    Raises:
      ValueError: if the leading axes differ, or the labels are no integers.

    >>> accuracy(jnp.eye(4), jnp.array([0, 1, 2, 0])).item()
    0.75
    """
    _check_labels("accuracy", logits, labels)
    return jnp.mean(jnp.argmax(jnp.asarray(logits), -1) == jnp.asarray(labels), dtype=jnp.float32)


def _check_same_shape(name: str, first: ArrayLike, second: ArrayLike) -> None:
    if jnp.shape(first) != jnp.shape(second):
        raise ValueError(f"{name}: expected two arrays of one shape, got {jnp.shape(first)} and {jnp.shape(second)}")


def _check_labels(name: str, logits: ArrayLike, labels: ArrayLike) -> None:
    if jnp.shape(logits)[:-1] != jnp.shape(labels) or not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(
            f"{name}: expected logits [..., classes] and integer labels [...], "
            f"got {jnp.shape(logits)} and {jnp.result_type(labels)} {jnp.shape(labels)}"
        )
