"""Transposed convolutions over one to three spatial axes; channels last, any number of batch axes."""

from typing import Any

import jax
import jax.numpy as jnp

from ._check import check_arrays, check_size, check_spatial, spatial_axes
from ._conv import check_groups, init_kernel, slide
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import lecun_normal, zeros
from ._net import Net, layer
from ._windows import Padding, Sizes, Windows, per_axis, read_windows


@layer
def conv_transpose(
    features: int,
    kernel: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "same",
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
    transpose_kernel: bool = True,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """The transpose of `conv` with the same arguments: each position is spread over a window of the output.

    Without bias it is the adjoint, as a linear map, of the `conv` from `features` channels to those of the
    input with the same `w`. A `size` becomes `size * stride` with "same",
    `size * stride + max(span - stride, 0)` with "valid", both as in `lax.conv_transpose` and Flax, and
    `(size - 1) * stride + span - before - after + output_padding` with numbers, as in torch; `span` is
    `dilation * (kernel - 1) + 1`.

    Args:
      features: channels of the output.
      kernel: sizes of the window; its length is the number of spatial axes. An integer is a square in two.
      stride: step between windows in the output, for each axis or for all.
      padding: that of the `conv`: "same", "valid", or what is cut from each side of the output as an integer
        or as pairs `(before, after)`.
      output_padding: positions added at the end of the output, for each axis or for all; it picks one of the
        sizes that the `conv` takes to the same one. With numbers for padding only.
      dilation: distance between the elements of a window, for each axis or for all.
      groups: the channels are split into so many groups that do not see each other.
      bias: whether `b` is added.
      transpose_kernel: whether `w` is that of the `conv`, as in torch and in Flax with
        `transpose_kernel=True`. Otherwise it slides over the input with `stride - 1` zeros put between its
        positions, which turns the window about and swaps its channels: the default of JAX and Flax.
      w_init: `w_init(key, shape, dtype) -> w`, called with the shape `[*kernel, in / groups, features]`,
        whichever way `w` is kept: the fan-in is that of the map itself.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., *spatial, in]` to `[..., *spatial, features]` with float32 params
      `{"w": [*kernel, features / groups, in], "b": [features]}`; with `transpose_kernel=False`
      `w` is `[*kernel, in / groups, features]`.
    Raises:
      ShapeError: if the input has too few axes, or not the channels that the parameters were made for, or
        nothing is left of the output.

    >>> net = conv_transpose(3, 4, stride=2)
    >>> images = jnp.ones((2, 8, 8, 16))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 16, 16, 3)
    """
    check_size("conv_transpose", "features", features)
    check_size("conv_transpose", "groups", groups)
    windows = read_windows("conv_transpose", kernel, stride, padding, dilation)
    sizes, num = windows.sizes, len(windows.sizes)
    cuts = _cuts(windows, _read_extra(windows, output_padding))
    if features % groups:
        raise ValueError(f"conv_transpose: expected features to be a multiple of groups = {groups}, got {features}")

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_spatial(x, num)
        check_groups(x, num, groups)
        params = init_kernel(key, (*sizes, x.shape[-1] // groups, features), w_init, bias and b_init)
        return params | {"w": _turned(params["w"], groups)} if transpose_kernel else params

    def apply(params: dict, x: jax.Array) -> jax.Array:
        channels = (features // groups, None) if transpose_kernel else (None, features)
        check_arrays(params, {"w": (*sizes, *channels)} | ({"b": (features,)} if bias else {}))
        x, w = jnp.asarray(x), params["w"]
        check_spatial(x, num, w.shape[-1] if transpose_kernel else w.shape[-2] * groups)
        if transpose_kernel:
            check_groups(x, num, groups)
            params = params | {"w": _turned(w, groups)}
        _check_output(x, windows, cuts)
        pads = tuple(
            (span - 1 - before, span - 1 - after) for span, (before, after) in zip(windows.spans, cuts, strict=True)
        )
        options = {"lhs_dilation": windows.strides, "rhs_dilation": windows.dilations}
        return slide(params, x, num, groups, window_strides=(1,) * num, padding=pads, **options)

    return Net(init, apply)


def _read_extra(windows: Windows, output_padding: Any) -> tuple[int, ...]:
    extra = per_axis("conv_transpose", "output_padding", output_padding, len(windows.sizes), at_least=0)
    if any(extra) and isinstance(windows.padding, str):
        raise ValueError(
            f"conv_transpose: expected padding to be numbers where output_padding is given, got {windows.padding!r}"
        )
    limits = tuple(map(max, windows.strides, windows.dilations))
    if any(more >= limit for more, limit in zip(extra, limits, strict=True)):
        raise ValueError(
            f"conv_transpose: expected output_padding smaller than the stride or the dilation, {limits}, "
            f"got {output_padding!r}"
        )
    return extra


def _cuts(windows: Windows, extra: tuple[int, ...]) -> list[tuple[int, int]]:
    """What is cut from the whole output, `(size - 1) * stride + span`, before and after; less than 0 is added."""
    if not isinstance(windows.padding, str):
        return [(before, after - more) for (before, after), more in zip(windows.padding, extra, strict=True)]
    overlaps = [span - stride for span, stride in zip(windows.spans, windows.strides, strict=True)]
    if windows.padding == "valid":
        return [(0, min(overlap, 0)) for overlap in overlaps]
    return [(max(overlap, 0) // 2, overlap - max(overlap, 0) // 2) for overlap in overlaps]


def _turned(w: jax.Array, groups: int) -> jax.Array:
    """The kernel of a convolution's transpose, `[*kernel, in / groups, out]` to `[*kernel, out / groups, in]`."""
    *sizes, into, out = w.shape
    split = jnp.flip(w, tuple(range(len(sizes)))).reshape(*sizes, into, groups, out // groups)
    return split.swapaxes(-1, -3).reshape(*sizes, out // groups, groups * into)


def _check_output(x: jax.Array, windows: Windows, cuts: list[tuple[int, int]]) -> None:
    num = len(windows.sizes)
    axes = zip(x.shape[-num - 1 : -1], windows.strides, windows.spans, cuts, strict=True)
    if any(size < 1 or (size - 1) * stride + span <= sum(cut) for size, stride, span, cut in axes):
        raise ShapeError(f"{spatial_axes(num)} of which the padding leaves something", f"{x.shape}")
