"""Noise in training."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ._check import at_least_float32, check_size, dtype_for
from ._errors import NetError, ShapeError
from ._moments import is_number
from ._net import Net, layer


@layer
def dropout(rate: float, *, broadcast_axes: Sequence[int] = ()) -> Net:
    """Sets a random share of the values to zero in training, and scales the others up to keep the mean.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html, section 4; the scaling is
    done in training here.

    Args:
      rate: the share that is dropped, in [0, 1).
      broadcast_axes: axes along which values are dropped together, counted from the last, which is -1: for
        images, `(-3, -2)` drops whole channels.
    Returns:
      A net from `[...]` to the same, without parameters; it takes `key` in training. Integers become floats.
    Raises:
      NetError: in training without a key.
      ShapeError: if the input has fewer axes than the broadcast ones need.

    >>> dropout(0.5)(jnp.ones(4), key=jax.random.key(1), train=True).tolist()
    [2.0, 0.0, 2.0, 2.0]
    """
    _check_rate("dropout", rate)
    given = broadcast_axes if isinstance(broadcast_axes, Sequence) else [None]
    if not all(isinstance(axis, int) and axis < 0 for axis in given):
        raise ValueError(
            "dropout: expected broadcast_axes to be a tuple of negative integers, counted from the last axis, -1, "
            f"got {broadcast_axes!r}"
        )

    def apply(params: dict, x: jax.Array, *, key: jax.Array | None, train: bool) -> jax.Array:
        x = _floating(x)
        shape = list(x.shape)
        _check_rank(x, -min(broadcast_axes, default=0))
        for axis in broadcast_axes:
            shape[axis] = 1
        return _kept_or_zero(x, rate, tuple(shape), key) if train and rate else x

    return Net(None, apply)


@layer
def drop_path(rate: float, *, num_axes: int) -> Net:
    """Sets a random share of the examples to zero in training, and scales the others up to keep the mean.

    At the end of a residual branch it leaves the shortcut alone: stochastic depth.

    Source: Huang et al. 2016, https://arxiv.org/abs/1603.09382, section 3; the scaling is done in training
    here.

    Args:
      rate: the share that is dropped, in [0, 1).
      num_axes: how many trailing axes make an example: 3 for images, 2 for sequences, 1 for vectors.
    Returns:
      A net from `[..., *example]` to the same, without parameters; it takes `key` in training. Integers become floats.
    Raises:
      NetError: in training without a key.
      ShapeError: if the input has fewer axes than an example.

    >>> drop_path(0.5, num_axes=1)(jnp.ones((3, 2)), key=jax.random.key(1), train=True).tolist()
    [[2.0, 2.0], [0.0, 0.0], [2.0, 2.0]]
    """
    _check_rate("drop_path", rate)
    check_size("drop_path", "num_axes", num_axes)

    def apply(params: dict, x: jax.Array, *, key: jax.Array | None, train: bool) -> jax.Array:
        x = _floating(x)
        _check_rank(x, num_axes)
        shape = x.shape[:-num_axes] + (1,) * num_axes
        return _kept_or_zero(x, rate, shape, key) if train and rate else x

    return Net(None, apply)


@layer
def alpha_dropout(rate: float) -> Net:
    """Sets a random share of the values to the least of `selu` in training, and keeps mean and variance.

    What is dropped becomes `-1.758...`, the limit of `jax.nn.selu` far below zero; then all values are scaled
    and shifted, so that inputs of mean 0 and variance 1 stay so.

    Source: Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, section "New Dropout Technique".

    Args:
      rate: the share that is dropped, in [0, 1).
    Returns:
      A net from `[...]` to the same, without parameters; it takes `key` in training. Integers become floats.
    Raises:
      NetError: in training without a key.

    >>> alpha_dropout(0.5)(jnp.zeros(3), key=jax.random.key(1), train=True).round(2).tolist()
    [0.7799999713897705, -0.7799999713897705, 0.7799999713897705]
    """
    _check_rate("alpha_dropout", rate)
    least = -1.7580993408473766
    scale = 1 / math.sqrt((1 - rate) * (1 + rate * least**2))
    shift = -scale * rate * least

    def apply(params: dict, x: jax.Array, *, key: jax.Array | None, train: bool) -> jax.Array:
        x = _floating(x)
        if not train or rate == 0:
            return x
        kept = scale * x.astype(at_least_float32(x.dtype)) + shift
        return jnp.where(_kept(rate, x.shape, key), kept, scale * least + shift).astype(x.dtype)

    return Net(None, apply)


def _kept_or_zero(x: jax.Array, rate: float, shape: tuple[int, ...], key: jax.Array | None) -> jax.Array:
    return jnp.where(_kept(rate, shape, key), x / (1 - rate), 0).astype(x.dtype)


def _floating(x: jax.Array) -> jax.Array:
    """The input as an array; integers as floats, which can be scaled."""
    x = jnp.asarray(x)
    return x.astype(dtype_for(x))


def _kept(rate: float, shape: tuple[int, ...], key: jax.Array | None) -> jax.Array:
    if key is None:
        raise NetError("a key in training", "None", "Pass key= to apply.")
    return jax.random.bernoulli(key, 1 - rate, shape)


def _check_rate(name: str, rate: float) -> None:
    if not is_number(rate) or not 0 <= rate < 1:
        raise ValueError(f"{name}: expected rate, the share that is dropped, in [0, 1), got {rate!r}")


def _check_rank(x: jax.Array, num_axes: int) -> None:
    if x.ndim < num_axes:
        raise ShapeError(f"an input of at least {num_axes} axes", f"{x.shape}")
