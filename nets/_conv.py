"""Convolutions and pools over one to three spatial axes; channels last, any number of batch axes."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._check import at_least_float32, check_arrays, check_size, check_spatial, check_windows, dtype_for, spatial_axes
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import lecun_normal, zeros
from ._keys import child_key
from ._net import Net, layer

Padding = Literal["same", "valid"] | int | Sequence[tuple[int, int]]


@layer
def conv(
    features: int,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "same",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """Convolution over one to three spatial axes.

    Args:
      features: channels of the output.
      kernel: sizes of the window; its length is the number of spatial axes. An integer is a square in two.
      stride: step between windows, for each axis or for all.
      padding: "same" keeps `ceil(size / stride)` positions, "valid" adds nothing, an integer is added on
        every side, pairs `(before, after)` are added to each axis.
      dilation: distance between the elements of a window, for each axis or for all.
      groups: the channels are split into so many groups that do not see each other.
      bias: whether `b` is added.
      w_init: `w_init(key, shape, dtype) -> w`.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., *spatial, in]` to `[..., *spatial, features]` with float32 params
      `{"w": [*kernel, in / groups, features], "b": [features]}`.
    Raises:
      ShapeError: if the input has too few axes, or not the channels that the parameters were made for.

    >>> net = conv(32, 3)
    >>> images = jnp.ones((2, 8, 8, 1))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 8, 8, 32)
    """
    check_size("conv", "features", features)
    check_size("conv", "groups", groups)
    sizes = _window("conv", "kernel", kernel)
    num = len(sizes)
    strides, dilations = _per_axis("conv", "stride", stride, num), _per_axis("conv", "dilation", dilation, num)
    pads = _padding("conv", padding, num)
    if features % groups:
        raise ValueError(f"conv: expected features to be a multiple of groups = {groups}, got {features}")
    spatial = "HWD"[:num]
    axes = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_spatial(x, num)
        if x.shape[-1] % groups:
            raise ShapeError(f"{spatial_axes(num)} with a multiple of {groups} channels", f"{tuple(x.shape)}")
        w = w_init(child_key(key, "w"), (*sizes, x.shape[-1] // groups, features), jnp.float32)
        return {"w": w} | ({"b": b_init(child_key(key, "b"), (features,), jnp.float32)} if bias else {})

    def apply(params: dict, x: jax.Array) -> jax.Array:
        check_arrays(params, {"w": (*sizes, None, features)} | ({"b": (features,)} if bias else {}))
        x = jnp.asarray(x)
        check_spatial(x, num, params["w"].shape[-2] * groups)
        dtype = dtype_for(x, params["w"])
        y = lax.conv_general_dilated(
            _one_batch_axis(x, num).astype(dtype),
            params["w"].astype(dtype),
            strides,
            pads,
            rhs_dilation=dilations,
            dimension_numbers=axes,
            feature_group_count=groups,
        )
        y = y.reshape(*x.shape[: -num - 1], *y.shape[1:])
        check_windows(x, y, sizes)
        return y + params["b"].astype(dtype) if bias else y

    return Net(init, apply)


@layer
def max_pool(
    window: int | Sequence[int], *, stride: int | Sequence[int] | None = None, padding: Padding = "valid"
) -> Net:
    """The largest value of each window.

    Args:
      window: sizes of the window; its length is the number of spatial axes. An integer is a square in two.
      stride: step between windows; the window's sizes unless given.
      padding: as for `conv`. What is added never wins.
    Returns:
      A net from `[..., *spatial, channels]` to the same with fewer positions, without parameters.
    Raises:
      ShapeError: if the input has too few axes.

    >>> max_pool(2)(jnp.ones((5, 8, 8, 3))).shape
    (5, 4, 4, 3)
    """
    sizes, strides, pads = _pool("max_pool", window, stride, padding)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        lowest = np.iinfo(x.dtype).min if jnp.issubdtype(x.dtype, jnp.integer) else -np.inf
        return _reduce_windows(x, lax.max, np.array(lowest, x.dtype), sizes, strides, pads)

    return Net(None, apply)


@layer
def avg_pool(
    window: int | Sequence[int], *, stride: int | Sequence[int] | None = None, padding: Padding = "valid"
) -> Net:
    """The mean of each window; what padding adds is not counted.

    Args:
      window: as for `max_pool`.
      stride: as for `max_pool`.
      padding: as for `conv`.
    Returns:
      A net from `[..., *spatial, channels]` to the same with fewer positions, without parameters.
    Raises:
      ShapeError: if the input has too few axes.

    >>> avg_pool(2)(jnp.ones((5, 8, 8, 3))).shape
    (5, 4, 4, 3)
    """
    sizes, strides, pads = _pool("avg_pool", window, stride, padding)
    num = len(sizes)

    def sums(x: jax.Array) -> jax.Array:
        return _reduce_windows(x, lax.add, np.zeros((), x.dtype), sizes, strides, pads)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_spatial(x, num)
        dtype = dtype_for(x)
        ones = jnp.ones((*x.shape[-num - 1 : -1], 1), at_least_float32(dtype))
        return (sums(x.astype(ones.dtype)) / sums(ones)).astype(dtype)

    return Net(None, apply)


@layer
def flatten(num_axes: int = 3) -> Net:
    """Makes one axis of the last ones; three are those of an image.

    Args:
      num_axes: how many axes become one.
    Returns:
      A net from `[..., *axes]` to `[..., prod(axes)]`, without parameters.
    Raises:
      ShapeError: if the input has fewer axes.

    >>> flatten()(jnp.ones((5, 8, 8, 3))).shape
    (5, 192)
    """
    check_size("flatten", "num_axes", num_axes)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        if x.ndim < num_axes:
            raise ShapeError(f"an input of at least {num_axes} axes", f"{x.shape}")
        return x.reshape(*x.shape[: x.ndim - num_axes], math.prod(x.shape[x.ndim - num_axes :]))

    return Net(None, apply)


def _pool(name: str, window: Any, stride: Any, padding: Padding) -> tuple[tuple, tuple, Any]:
    sizes = _window(name, "window", window)
    strides = sizes if stride is None else _per_axis(name, "stride", stride, len(sizes))
    pads = _padding(name, padding, len(sizes))
    if not isinstance(pads, str) and any(max(pair) >= size for pair, size in zip(pads, sizes, strict=True)):
        raise ValueError(f"{name}: expected padding smaller than the window {sizes}, got {padding!r}")
    return sizes, strides, pads


def _reduce_windows(x: jax.Array, reduce: Any, start: Any, sizes: tuple, strides: tuple, pads: Any) -> jax.Array:
    num = len(sizes)
    check_spatial(x, num)
    window, steps = (1, *sizes, 1), (1, *strides, 1)
    pads = pads if isinstance(pads, str) else ((0, 0), *pads, (0, 0))
    y = lax.reduce_window(_one_batch_axis(x, num), start, reduce, window, steps, pads)
    check_windows(x, y, sizes)
    return y.reshape(*x.shape[: -num - 1], *y.shape[1:])


def _one_batch_axis(x: jax.Array, num: int) -> jax.Array:
    split = x.ndim - num - 1
    return x if split == 1 else x.reshape(math.prod(x.shape[:split]), *x.shape[split:])


def _window(name: str, argument: str, sizes: Any) -> tuple[int, ...]:
    sizes = (sizes, sizes) if isinstance(sizes, int) else sizes
    if not isinstance(sizes, Sequence) or not 1 <= len(sizes) <= 3:
        raise ValueError(f"{name}: expected {argument} for one to three spatial axes, got {sizes!r}")
    return _per_axis(name, argument, sizes, len(sizes))


def _per_axis(name: str, argument: str, sizes: Any, num: int) -> tuple[int, ...]:
    sizes = (sizes,) * num if isinstance(sizes, int) else sizes
    if not isinstance(sizes, Sequence) or len(sizes) != num:
        raise ValueError(f"{name}: expected {argument} to be an integer or {num} of them, got {sizes!r}")
    for size in sizes:
        check_size(name, argument, size)
    return tuple(sizes)


def _padding(name: str, padding: Any, num: int) -> Any:
    if padding in ("same", "valid"):
        return padding.upper()
    pairs = ((padding, padding),) * num if isinstance(padding, int) else padding
    if isinstance(pairs, Sequence) and len(pairs) == num and all(map(_is_pair, pairs)):
        return tuple(map(tuple, pairs))
    raise ValueError(
        f"{name}: expected padding to be 'same', 'valid', a number or {num} pairs (before, after), got {padding!r}"
    )


def _is_pair(pair: Any) -> bool:
    sizes = isinstance(pair, Sequence) and len(pair) == 2
    return sizes and all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in pair)
