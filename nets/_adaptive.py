"""Pools that divide the whole input into so many bins, or take it as one; channels last."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._check import at_least_float32, check_size, dtype_for
from ._moments import check_real
from ._net import Net, layer
from ._pool import worst
from ._windows import Sizes, check_positions, read_sizes


@layer
def adaptive_avg_pool(sizes: Sizes) -> Net:
    """The mean of each bin, where the input is divided into so many bins.

    Along an axis of `length` positions bin `i` of `size` runs from `floor(i * length / size)` to
    `ceil((i + 1) * length / size)`, as in torch: neighbours share a position where `size` does not divide it.

    Args:
      sizes: bins along each spatial axis. An integer is a square in two.
    Returns:
      A net from `[..., *spatial, channels]` to `[..., *sizes, channels]`, without parameters.
    Raises:
      ShapeError: if the input has too few axes, or no position.

    >>> adaptive_avg_pool((2,))(jnp.array([[1.0], [2.0], [6.0]])).tolist()
    [[1.5], [4.0]]
    """
    counts = read_sizes("adaptive_avg_pool", "sizes", sizes)

    def mean(bins: jax.Array, axis: int, inside: np.ndarray) -> jax.Array:
        return jnp.where(inside, bins, 0).sum(axis) / inside.sum(axis).astype(bins.dtype)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        dtype = dtype_for(x)
        return _each_axis(x.astype(at_least_float32(dtype)), counts, mean).astype(dtype)

    return Net(None, apply)


@layer
def adaptive_max_pool(sizes: Sizes) -> Net:
    """The largest value of each bin, where the input is divided into so many bins as for `adaptive_avg_pool`.

    Its gradient goes to the first of equals.

    Args:
      sizes: bins along each spatial axis. An integer is a square in two.
    Returns:
      A net from `[..., *spatial, channels]` to `[..., *sizes, channels]`, without parameters.
    Raises:
      ShapeError: if the input has too few axes, or no position, or is complex.

    >>> adaptive_max_pool((2,))(jnp.array([[1.0], [6.0], [2.0]])).tolist()
    [[6.0], [6.0]]
    """
    counts = read_sizes("adaptive_max_pool", "sizes", sizes)

    def most(bins: jax.Array, axis: int, inside: np.ndarray) -> jax.Array:
        return _largest(jnp.where(inside, bins, worst(bins.dtype, lax.ge)), axis)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_real(x)
        return _each_axis(x, counts, most)

    return Net(None, apply)


@layer
def global_avg_pool(num_axes: int = 2) -> Net:
    """The mean over all positions.

    Args:
      num_axes: how many spatial axes there are, one to three.
    Returns:
      A net from `[..., *spatial, channels]` to `[..., channels]`, without parameters.
    Raises:
      ShapeError: if the input has too few axes, or no position.

    >>> global_avg_pool()(jnp.ones((5, 8, 8, 3))).shape
    (5, 3)
    """
    _check_num_axes("global_avg_pool", num_axes)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_positions(x, num_axes)
        dtype = dtype_for(x)
        return x.astype(at_least_float32(dtype)).mean(tuple(range(-num_axes - 1, -1))).astype(dtype)

    return Net(None, apply)


@layer
def global_max_pool(num_axes: int = 2) -> Net:
    """The largest value over all positions; its gradient goes to the first of equals.

    Args:
      num_axes: how many spatial axes there are, one to three.
    Returns:
      A net from `[..., *spatial, channels]` to `[..., channels]`, without parameters.
    Raises:
      ShapeError: if the input has too few axes, or no position, or is complex.

    >>> global_max_pool(1)(jnp.array([[1.0, 5.0], [2.0, 4.0]])).tolist()
    [2.0, 5.0]
    """
    _check_num_axes("global_max_pool", num_axes)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_real(x)
        check_positions(x, num_axes)
        split = x.ndim - num_axes - 1
        return _largest(x.reshape(*x.shape[:split], math.prod(x.shape[split:-1]), x.shape[-1]), -2)

    return Net(None, apply)


def _each_axis(x: jax.Array, counts: tuple[int, ...], reduce: Callable) -> jax.Array:
    """Reduces the bins of one axis after the other: from the last, so that the first of equals comes row by row."""
    num = len(counts)
    check_positions(x, num)
    for back, count in enumerate(reversed(counts), 2):
        axis = x.ndim - back
        places, inside = _bins(x.shape[axis], count)
        inside = inside.reshape(*inside.shape, *(1,) * (back - 1))
        x = reduce(jnp.take(x, places, axis, mode="clip"), axis - x.ndim, inside)
    return x


def _bins(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of each bin `[count, longest]`, and which of them are in it."""
    bins = np.arange(count)
    start, stop = bins * length // count, -(-(bins + 1) * length // count)
    places = start[:, None] + np.arange((stop - start).max())
    return places, places < stop[:, None]


def _check_num_axes(name: str, num_axes: Any) -> None:
    check_size(name, "num_axes", num_axes)
    if num_axes > 3:
        raise ValueError(f"{name}: expected num_axes of at most 3, got {num_axes}")


def _largest(x: jax.Array, axis: int) -> jax.Array:
    """The largest value along an axis; its derivative is that of the first of equals, where `max` shares it out."""
    first = jnp.argmax(x, axis, keepdims=True)
    positions = lax.broadcasted_iota(first.dtype, x.shape, x.ndim + axis)
    return jnp.where(first == positions, x, 0).sum(axis).astype(x.dtype)
