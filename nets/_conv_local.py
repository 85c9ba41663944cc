"""Convolutions that share no weights; channels last, any number of batch axes."""

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ._check import check_arrays, check_size, check_spatial, dtype_for, spatial_axes
from ._conv import ConvPadding, extended, read_conv_windows
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import lecun_normal, zeros
from ._keys import child_key
from ._net import Net, layer
from ._windows import Sizes, Windows, batch_axes_of, check_positions, one_batch_axis


@layer
def conv_local(
    features: int,
    kernel: Sizes,
    *,
    stride: Sizes = 1,
    padding: ConvPadding = "same",
    dilation: Sizes = 1,
    bias: bool = True,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """Convolution with weights of its own at every position of the output.

    Args:
      features: channels of the output.
      kernel: sizes of the window; its length is the number of spatial axes. An integer is a square in two.
      stride: as for `conv`.
      padding: as for `conv`.
      dilation: as for `conv`.
      bias: whether `b` is added.
      w_init: `w_init(key, shape, dtype) -> w`, called for each position with `[*kernel, in, features]`.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., *spatial, in]` to `[..., *out, features]` with float32 params
      `{"w": [*out, *kernel, in, features], "b": [*out, features]}`.
    Raises:
      ShapeError: as for `conv`, and if the spatial axes are not those that the parameters were made for.

    >>> net = conv_local(4, 3, padding="valid")
    >>> images = jnp.ones((2, 8, 8, 1))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 6, 6, 4)
    """
    check_size("conv_local", "features", features)
    windows = read_conv_windows("conv_local", kernel, stride, padding, dilation)
    sizes, num = windows.sizes, len(windows.sizes)

    def check_params(params: dict, positions: tuple[int | None, ...]) -> None:
        check_arrays(
            params, {"w": (*positions, *sizes, None, features)} | ({"b": (*positions, features)} if bias else {})
        )

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_positions(x, num)
        positions = jax.eval_shape(lambda x: _patches(x, windows), x).shape[1:-2]
        keys = jax.random.split(child_key(key, "w"), math.prod(positions))
        w = jax.vmap(lambda key: w_init(key, (*sizes, x.shape[-1], features), jnp.float32))(keys)
        params = {"w": w.reshape(*positions, *w.shape[1:])}
        return params | ({"b": b_init(child_key(key, "b"), (*positions, features), jnp.float32)} if bias else {})

    def apply(params: dict, x: jax.Array) -> jax.Array:
        check_params(params, (None,) * num)
        x, w = jnp.asarray(x), params["w"]
        check_params(params, w.shape[:num])
        check_spatial(x, num, w.shape[-2])
        check_positions(x, num)
        dtype = dtype_for(x, w)
        patches = _patches(x.astype(dtype), windows)
        if patches.shape[1:-2] != w.shape[:num]:
            raise ShapeError(f"{spatial_axes(num)} that give {w.shape[:num]} positions", f"{x.shape}")
        w = w.reshape(*w.shape[:num], -1, *w.shape[-2:]).astype(dtype)
        y = batch_axes_of(x, jnp.einsum("n...ki,...kif->n...f", patches, w), num)
        return y + params["b"].astype(dtype) if bias else y

    return Net(init, apply)


def _patches(x: jax.Array, windows: Windows) -> jax.Array:
    """The elements of every window: `[batch, *out, prod(kernel), in]`."""
    num = len(windows.sizes)
    wide, pads = extended(x, windows)
    wide = one_batch_axis(wide, num)
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(wide.shape[1:-1], windows.spans, windows.strides, pads)
    wide = jnp.pad(wide, [(0, 0), *pads, (0, 0)])
    axes = zip(wide.shape[1:-1], windows.spans, windows.strides, strict=True)
    ends = [(size - span) // stride * stride + 1 for size, span, stride in axes]
    if any(end < 1 for end in ends):
        raise ShapeError(f"{spatial_axes(num)} that hold the window {windows.sizes}", f"{x.shape}")

    def element(place: tuple[int, ...]) -> jax.Array:
        starts = [at * step for at, step in zip(place, windows.dilations, strict=True)]
        cuts = [slice(at, at + end, step) for at, end, step in zip(starts, ends, windows.strides, strict=True)]
        return wide[(slice(None), *cuts)]

    return jnp.stack([element(place) for place in itertools.product(*map(range, windows.sizes))], -2)
