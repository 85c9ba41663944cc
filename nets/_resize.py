"""The same values on other axes, or on more positions."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from ._check import at_least_float32, check_size, check_spatial, dtype_for
from ._errors import ShapeError
from ._net import Net, layer
from ._windows import Sizes, check_positions, read_sizes


@layer
def flatten(num_axes: int = 3) -> Net:
    """Makes one axis of the last ones; three are those of an image.

    Channels vary fastest. Torch's `Flatten` of an image has them slowest; `convert` reorders what reads it.

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


@layer
def upsample(factor: Sizes, *, method: Literal["nearest", "linear"] = "nearest") -> Net:
    """So many positions for each, along every spatial axis.

    "nearest" repeats the value. "linear" interpolates between the centres of the positions, and holds the
    value beyond the outer ones: torch's `Upsample`, "bilinear" with `align_corners=False`.

    Args:
      factor: positions made of each, along each spatial axis. An integer is the same for two.
      method: "nearest" or "linear".
    Returns:
      A net from `[..., *spatial, channels]` to the same with more positions, without parameters.
    Raises:
      ShapeError: if the input has too few axes, or no position.

    >>> upsample((2,))(jnp.array([[1.0], [2.0]])).ravel().tolist()
    [1.0, 1.0, 2.0, 2.0]
    >>> upsample((2,), method="linear")(jnp.array([[1.0], [2.0]])).ravel().tolist()
    [1.0, 1.25, 1.75, 2.0]
    """
    factors = read_sizes("upsample", "factor", factor)
    num = len(factors)
    if method not in ("nearest", "linear"):
        raise ValueError(f"upsample: expected method to be 'nearest' or 'linear', got {method!r}")

    def nearest(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_spatial(x, num)
        for axis, times in zip(range(-num - 1, -1), factors, strict=True):
            x = jnp.repeat(x, times, axis)
        return x

    def linear(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_positions(x, num)
        spatial = (length * times for length, times in zip(x.shape[-num - 1 : -1], factors, strict=True))
        shape = (*x.shape[: -num - 1], *spatial, x.shape[-1])
        dtype = dtype_for(x)
        return jax.image.resize(x.astype(at_least_float32(dtype)), shape, "linear").astype(dtype)

    return Net(None, nearest if method == "nearest" else linear)
