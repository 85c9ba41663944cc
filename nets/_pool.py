"""Pools over windows of one to three spatial axes; channels last, any number of batch axes."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._check import at_least_float32, check_spatial, check_windows, dtype_for
from ._moments import check_real
from ._net import Net, layer
from ._windows import Padding, Sizes, Windows, batch_axes_of, one_batch_axis, per_axis, read_padding, read_sizes

# Every element of a window is a comparison in the program: beyond these, a loop over windows compiles sooner.
_LARGEST_TILE = 16


@layer
def max_pool(window: Sizes, *, stride: Sizes | None = None, padding: Padding = "valid") -> Net:
    """The largest value of each window; its gradient goes to the first of equals.

    What torch calls `ceil_mode` is padding after the input, `padding=((0, rest), ...)`.

    Args:
      window: sizes of the window; its length is the number of spatial axes. An integer is a square in two.
      stride: step between windows; the window's sizes unless given.
      padding: as for `conv`. What is added never wins.
    Returns:
      A net from `[..., *spatial, channels]` to the same with fewer positions, without parameters.
    Raises:
      ShapeError: if the input has too few axes, or is smaller than a window, or is complex.

    >>> max_pool(2)(jnp.ones((5, 8, 8, 3))).shape
    (5, 4, 4, 3)
    """
    windows = _read("max_pool", window, stride, padding)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        return _extreme_pool(jnp.asarray(x), windows, lax.max, lax.ge)

    return Net(None, apply)


@layer
def min_pool(window: Sizes, *, stride: Sizes | None = None, padding: Padding = "valid") -> Net:
    """The smallest value of each window; its gradient goes to the first of equals.

    Args:
      window: as for `max_pool`.
      stride: as for `max_pool`.
      padding: as for `max_pool`.
    Returns:
      A net from `[..., *spatial, channels]` to the same with fewer positions, without parameters.
    Raises:
      ShapeError: if the input has too few axes, or is smaller than a window, or is complex.

    >>> min_pool((2,))(jnp.array([[3.0], [1.0], [2.0], [5.0]])).tolist()
    [[1.0], [2.0]]
    """
    windows = _read("min_pool", window, stride, padding)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        return _extreme_pool(jnp.asarray(x), windows, lax.min, lax.le)

    return Net(None, apply)


@layer
def avg_pool(
    window: Sizes, *, stride: Sizes | None = None, padding: Padding = "valid", count_padding: bool = False
) -> Net:
    """The mean of each window.

    Args:
      window: as for `max_pool`.
      stride: as for `max_pool`.
      padding: as for `max_pool`.
      count_padding: whether what padding adds counts as zeros, torch's default there, or is left out.
    Returns:
      A net from `[..., *spatial, channels]` to the same with fewer positions, without parameters.
    Raises:
      ShapeError: if the input has too few axes, or is smaller than a window.

    >>> avg_pool(2)(jnp.ones((5, 8, 8, 3))).shape
    (5, 4, 4, 3)
    """
    windows = _read("avg_pool", window, stride, padding)
    num = len(windows.sizes)

    def sums(x: jax.Array) -> jax.Array:
        return _reduce_windows(x, windows, lax.add, np.zeros((), x.dtype))

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_spatial(x, num)
        dtype = dtype_for(x)
        ones = jnp.ones((*x.shape[-num - 1 : -1], 1), at_least_float32(dtype))
        # A window of nothing but padding has a mean of 0, and not 0 / 0.
        counts = math.prod(windows.sizes) if count_padding else jnp.maximum(sums(ones), 1)
        return (sums(x.astype(ones.dtype)) / counts).astype(dtype)

    return Net(None, apply)


def worst(dtype: Any, wins: Callable) -> np.ndarray:
    """The value that every other one of this dtype wins over."""
    if dtype == np.bool_:
        return np.array(wins is lax.le)
    if jnp.issubdtype(dtype, jnp.integer):
        limits = jnp.iinfo(dtype)
        return np.array(limits.min if wins is lax.ge else limits.max, dtype)
    return np.array(-np.inf if wins is lax.ge else np.inf, dtype)


def _read(name: str, window: Any, stride: Any, padding: Any) -> Windows:
    sizes = read_sizes(name, "window", window)
    strides = sizes if stride is None else per_axis(name, "stride", stride, len(sizes))
    pads = read_padding(name, padding, len(sizes))
    if not isinstance(pads, str) and any(max(pair) >= size for pair, size in zip(pads, sizes, strict=True)):
        raise ValueError(f"{name}: expected padding smaller than the window {sizes}, got {padding!r}")
    return Windows(sizes, strides, (1,) * len(sizes), pads)


def _pads(shape: tuple[int, ...], windows: Windows) -> Any:
    if isinstance(windows.padding, str):
        return lax.padtype_to_pads(shape, windows.sizes, windows.strides, windows.padding.upper())
    return windows.padding


def _extreme_pool(x: jax.Array, windows: Windows, better: Callable, wins: Callable) -> jax.Array:
    num = len(windows.sizes)
    check_real(x)
    check_spatial(x, num)
    padded = any(map(any, _pads(x.shape[-num - 1 : -1], windows)))
    tiled = windows.strides == windows.sizes and not padded and math.prod(windows.sizes) <= _LARGEST_TILE
    if not tiled or not jnp.issubdtype(x.dtype, jnp.floating):
        return _reduce_windows(x, windows, better, worst(x.dtype, wins))
    y = batch_axes_of(x, _winner(_tiles(one_batch_axis(x, num), windows.sizes), better, wins), num)
    check_windows(x, y, windows.sizes)
    return y


def _reduce_windows(x: jax.Array, windows: Windows, reduce: Any, start: np.ndarray) -> jax.Array:
    num = len(windows.sizes)
    check_spatial(x, num)
    pads = ((0, 0), *_pads(x.shape[-num - 1 : -1], windows), (0, 0))
    y = lax.reduce_window(one_batch_axis(x, num), start, reduce, (1, *windows.sizes, 1), (1, *windows.strides, 1), pads)
    check_windows(x, y, windows.sizes)
    return batch_axes_of(x, y, num)


def _tiles(x: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """`[batch, *spatial, channels]` as `[batch, count, size, count, size, ..., channels]`, without the rest."""
    for axis in range(len(sizes), 0, -1):
        size = sizes[axis - 1]
        count = x.shape[axis] // size
        whole = lax.slice_in_dim(x, 0, count * size, axis=axis)
        x = whole.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    return x


def _elements(tiles: jax.Array) -> list[jax.Array]:
    """The elements of all tiles, `[batch, count, count, ..., channels]` each, in the order of a window."""
    every = slice(None)
    places = itertools.product(*(range(size) for size in tiles.shape[2:-1:2]))
    return [tiles[(every, *itertools.chain(*((every, at) for at in place)))] for place in places]


# XLA's own derivative of a maximum over windows scatters one window after the other, many times slower on a CPU than
# comparing every element with its window's winner. The two agree to the bit, for equals and NaNs too. This one is
# the derivative of a choice, so it has every order, forward and backward.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _winner(tiles: jax.Array, better: Callable, wins: Callable) -> jax.Array:
    return functools.reduce(better, _elements(tiles))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _winner_kept(tiles: jax.Array, better: Callable, wins: Callable) -> jax.Array:
    """The same. What a gradient needs again is computed once this way: XLA merges comparisons into whatever reads them.

    The transpose of a pool's output, which the gradient of the kernel after it takes, was five times slower merged.
    """
    window = [size if axis in _axes_of_tiles(tiles) else 1 for axis, size in enumerate(tiles.shape)]
    found = lax.reduce_window(tiles, worst(tiles.dtype, wins), better, window, [1] * tiles.ndim, "VALID")
    return lax.squeeze(found, _axes_of_tiles(tiles))


def _axes_of_tiles(tiles: jax.Array) -> tuple[int, ...]:
    return tuple(range(2, tiles.ndim - 1, 2))


@_winner.defjvp
@_winner_kept.defjvp
def _winner_jvp(better: Callable, wins: Callable, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (tiles,), (moved,) = primals, tangents
    best, *others = _elements(tiles)
    winner = jnp.zeros_like(best, jnp.int8)
    for place, other in enumerate(others, 1):
        kept = wins(best, other)
        best, winner = jnp.where(kept, best, other), jnp.where(kept, winner, jnp.int8(place))
    axes = _axes_of_tiles(tiles)
    places = np.arange(len(others) + 1, dtype=np.int8)
    places = places.reshape([size if axis in axes else 1 for axis, size in enumerate(tiles.shape)])
    chosen = jnp.expand_dims(winner, axes) == places
    return _winner_kept(tiles, better, wins), jnp.where(chosen, moved, 0).sum(axes)
