"""Convolutions over one to three spatial axes; channels last, any number of batch axes."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec

from ._check import check_arrays, check_size, check_spatial, check_windows, dtype_for, spatial_axes
from ._define import Initializer, define
from ._errors import ShapeError
from ._initializers import lecun_normal, zeros
from ._keys import child_key
from ._net import Net, layer
from ._windows import Padding, Sizes, Windows, batch_axes_of, one_batch_axis, read_windows

ConvPadding = Padding | Literal["causal", "circular", "reflect"]


@layer
def conv(
    features: int,
    kernel: Sizes,
    *,
    stride: Sizes = 1,
    padding: ConvPadding = "same",
    dilation: Sizes = 1,
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
        every side, pairs `(before, after)` are added to each axis. "causal" adds all before, so that no
        output sees a later input; it is for one axis, that of time. "circular" and "reflect" continue the
        input with itself, as far as "same" at stride 1 does: torch's `padding_mode`, Flax's "CIRCULAR".
      dilation: distance between the elements of a window, for each axis or for all.
      groups: the channels are split into so many groups that do not see each other.
      bias: whether `b` is added.
      w_init: `w_init(key, shape, dtype) -> w`.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., *spatial, in]` to `[..., *spatial, features]` with float32 params
      `{"w": [*kernel, in / groups, features], "b": [features]}`.
    Raises:
      ShapeError: if the input has too few axes, or not the channels that the parameters were made for, or
        is too small for a window or for what is reflected.

    >>> net = conv(32, 3)
    >>> images = jnp.ones((2, 8, 8, 1))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 8, 8, 32)
    """
    check_size("conv", "features", features)
    check_size("conv", "groups", groups)
    windows = read_conv_windows("conv", kernel, stride, padding, dilation)
    sizes, num = windows.sizes, len(windows.sizes)
    if features % groups:
        raise ValueError(f"conv: expected features to be a multiple of groups = {groups}, got {features}")

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_spatial(x, num)
        check_groups(x, num, groups)
        return init_kernel(key, (*sizes, x.shape[-1] // groups, features), w_init, bias and b_init)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        check_arrays(params, {"w": (*sizes, None, features)} | ({"b": (features,)} if bias else {}))
        x = jnp.asarray(x)
        check_spatial(x, num, params["w"].shape[-2] * groups)
        return _convolve(params, x, windows, groups)

    return Net(init, apply)


@layer
def depthwise_conv(
    kernel: Sizes,
    *,
    multiplier: int = 1,
    stride: Sizes = 1,
    padding: ConvPadding = "same",
    dilation: Sizes = 1,
    bias: bool = True,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """Convolution of each channel by itself: `conv` with as many groups as the input has channels.

    Args:
      kernel: as for `conv`.
      multiplier: channels made of each; those of the first channel come first.
      stride: as for `conv`.
      padding: as for `conv`.
      dilation: as for `conv`.
      bias: whether `b` is added.
      w_init: `w_init(key, shape, dtype) -> w`.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., *spatial, in]` to `[..., *spatial, in * multiplier]` with float32 params
      `{"w": [*kernel, 1, in * multiplier], "b": [in * multiplier]}`.
    Raises:
      ShapeError: as for `conv`.

    >>> net = depthwise_conv(3, multiplier=2)
    >>> images = jnp.ones((2, 8, 8, 5))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 8, 8, 10)
    """
    check_size("depthwise_conv", "multiplier", multiplier)
    windows = read_conv_windows("depthwise_conv", kernel, stride, padding, dilation)
    sizes, num = windows.sizes, len(windows.sizes)

    def check_params(params: dict, features: int | None) -> None:
        check_arrays(params, {"w": (*sizes, 1, features)} | ({"b": (features,)} if bias else {}))

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_spatial(x, num)
        return init_kernel(key, (*sizes, 1, x.shape[-1] * multiplier), w_init, bias and b_init)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        check_params(params, None)
        channels = max(params["w"].shape[-1] // multiplier, 1)
        check_params(params, channels * multiplier)
        x = jnp.asarray(x)
        check_spatial(x, num, channels)
        return _convolve(params, x, windows, channels)

    return Net(init, apply)


@layer
def separable_conv(
    features: int,
    kernel: Sizes,
    *,
    multiplier: int = 1,
    stride: Sizes = 1,
    padding: ConvPadding = "same",
    dilation: Sizes = 1,
    bias: bool = True,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """Convolution of each channel by itself, then a linear map of the channels at each position.

    Source: Chollet 2017, https://arxiv.org/abs/1610.02357.

    Args:
      features: channels of the output.
      kernel: as for `conv`.
      multiplier: channels made of each before the linear map.
      stride: as for `conv`.
      padding: as for `conv`.
      dilation: as for `conv`.
      bias: whether `b` is added, after the linear map.
      w_init: `w_init(key, shape, dtype) -> w`, of both.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., *spatial, in]` to `[..., *spatial, features]` with float32 params
      `{"depthwise": {"w": [*kernel, 1, in * multiplier]},
      "pointwise": {"w": [1, ..., in * multiplier, features], "b": [features]}}`.
    Raises:
      ShapeError: as for `conv`.

    >>> net = separable_conv(16, 3)
    >>> images = jnp.ones((2, 8, 8, 5))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 8, 8, 16)
    """
    check_size("separable_conv", "features", features)
    check_size("separable_conv", "multiplier", multiplier)
    sizes = read_conv_windows("separable_conv", kernel, stride, padding, dilation).sizes
    each = depthwise_conv(
        sizes, multiplier=multiplier, stride=stride, padding=padding, dilation=dilation, bias=False, w_init=w_init
    )
    mix = conv(features, (1,) * len(sizes), bias=bias, w_init=w_init, b_init=b_init)

    @define
    def body(x: jax.Array, *, depthwise=each, pointwise=mix):
        return pointwise(depthwise(x))

    return body


def read_conv_windows(name: str, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Windows:
    """The windows of a convolution, whose padding may also continue the input.

    Raises:
      ValueError: naming the layer, the argument, and what was given.
    """
    words = ("same", "valid", "causal", "circular", "reflect")
    windows = read_windows(name, kernel, stride, padding, dilation, words)
    if windows.padding == "causal" and len(windows.sizes) > 1:
        raise ValueError(f"{name}: expected a kernel of one axis, that of time, for 'causal', got {kernel!r}")
    return windows


def check_groups(x: Any, num: int, groups: int) -> None:
    """Refuses channels that do not make so many groups.

    Raises:
      ShapeError: with the axes expected and the shape given.
    """
    if x.shape[-1] % groups:
        raise ShapeError(f"{spatial_axes(num)} with a multiple of {groups} channels", f"{tuple(x.shape)}")


def extended(x: jax.Array, windows: Windows) -> tuple[jax.Array, Any]:
    """The input with what "circular" or "reflect" adds, and the zeros still to be added, as `lax` names them.

    Raises:
      ShapeError: if the input is too small for what is reflected.
    """
    padding, spans = windows.padding, windows.spans
    if padding == "causal":
        return x, ((spans[0] - 1, 0),)
    if padding not in ("circular", "reflect"):
        return x, padding.upper() if isinstance(padding, str) else padding
    least = tuple(span // 2 + 1 if padding == "reflect" else 1 for span in spans)
    num = len(spans)
    if any(size < wanted for size, wanted in zip(x.shape[-num - 1 : -1], least, strict=True)):
        raise ShapeError(f"{spatial_axes(num)} of at least {least} positions to continue", f"{x.shape}")
    sides = [((span - 1) // 2, span // 2) for span in spans]
    mode = "wrap" if padding == "circular" else "reflect"
    return jnp.pad(x, [(0, 0)] * (x.ndim - num - 1) + sides + [(0, 0)], mode=mode), "VALID"


def init_kernel(key: jax.Array, shape: tuple[int, ...], w_init: Initializer, b_init: Initializer | bool) -> dict:
    """`{"w", "b"}` of this shape, and of its last axis."""
    w = w_init(child_key(key, "w"), shape, jnp.float32)
    return {"w": w} | ({"b": b_init(child_key(key, "b"), shape[-1:], jnp.float32)} if callable(b_init) else {})


def slide(params: dict, x: jax.Array, num: int, groups: int, **options: Any) -> jax.Array:
    """Slides `w [*kernel, in / groups, out]` over `num` spatial axes, and adds `b` where there is one."""
    dtype = dtype_for(x, params["w"])
    rows, w = one_batch_axis(x, num).astype(dtype), params["w"].astype(dtype)
    is_spread = any(jax.typeof(rows).sharding.spec)
    if is_spread and jax.typeof(w).sharding.mesh.empty:  # made outside of the mesh: its gradient asks where it lies
        w = jax.sharding.reshard(w, PartitionSpec())
    if is_spread or groups > 1:
        y = _in_axes("NSC", "SIO", "NSC", rows, w, options | {"feature_group_count": groups})
    else:
        y = convolution(rows, w, tuple(options.items()))
    y = batch_axes_of(x, y, num)
    return y + params["b"].astype(dtype) if "b" in params else y


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def convolution(rows: jax.Array, w: jax.Array, options: tuple[tuple[str, Any], ...]) -> jax.Array:
    """A convolution whose gradients are as fast inside of loops as outside.

    XLA's CPU backend is fast at convolutions with the batch first and features last, and brings others into this form,
    but only outside of loops (ConvCanonicalization in jaxlib 0.10); inside, a gradient takes 40 times as long. So the
    derivative, the same map, is written in axes whose transposes are of this form.
    """
    return _in_axes("NSC", "SIO", "NSC", rows, w, dict(options))


@functools.partial(convolution.defjvp, symbolic_zeros=True)
def _convolution_jvp(options: tuple, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (rows, w), (drows, dw) = primals, tangents
    given, y, terms = dict(options), convolution(rows, w, options), []
    if not isinstance(drows, SymbolicZero):
        terms.append(_in_axes("NSC", "SOI", "NSC", drows, jnp.swapaxes(w, -1, -2), given))
    if not isinstance(dw, SymbolicZero):
        changed = _in_axes("CSN", "ISO", "SNC", jnp.swapaxes(rows, 0, -1), jnp.moveaxis(dw, -2, 0), given)
        terms.append(jnp.moveaxis(changed, -2, 0))
    return y, sum(terms[1:], start=terms[0]) if terms else jnp.zeros_like(y)


def _in_axes(of_rows: str, of_w: str, of_y: str, rows: jax.Array, w: jax.Array, options: dict[str, Any]) -> jax.Array:
    """`lax`'s convolution of arrays whose axes are batch N, spatial S, channels C, and of `w` in I and out O."""
    lhs, rhs, out = (order.replace("S", "HWD"[: rows.ndim - 2]) for order in (of_rows, of_w, of_y))
    return lax.conv_general_dilated(rows, w, dimension_numbers=(lhs, rhs, out), **options)


def _convolve(params: dict, x: jax.Array, windows: Windows, groups: int) -> jax.Array:
    wide, pads = extended(x, windows)
    options = {"window_strides": windows.strides, "padding": pads, "rhs_dilation": windows.dilations}
    y = slide(params, wide, len(windows.sizes), groups, **options)
    check_windows(x, y, windows.sizes)
    return y
