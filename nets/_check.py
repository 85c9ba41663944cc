"""Checks of a layer's arguments, inputs and dtypes, said alike by all layers."""

from typing import Any

import jax
import jax.numpy as jnp

from ._errors import ShapeError


def check_size(name: str, argument: str, size: Any, *, at_least: int = 1) -> None:
    """Refuses a size that is not an integer of at least so much.

    Raises:
      ValueError: naming the layer, the argument, and what was given.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < at_least:
        raise ValueError(f"{name}: expected {argument} to be an integer of at least {at_least}, got {size!r}")


def check_last_axis(x: Any, size: int | None = None) -> None:
    """Refuses an input without a last axis of floats (of this size).

    Raises:
      ShapeError: with the shape that was given.
    """
    if len(x.shape) < 1 or (size is not None and x.shape[-1] != size):
        wanted = "[..., features]" if size is None else f"[..., {size}]"
        raise ShapeError(f"an input {wanted}", f"{tuple(x.shape)}")


def spatial_axes(num: int) -> str:
    """The axes of an input with so many spatial dimensions, in words."""
    return f"[..., {', '.join(('depth', 'height', 'width')[3 - num :] if num > 1 else ('length',))}, channels]"


def check_spatial(x: Any, num: int, channels: int | None = None) -> None:
    """Refuses an input without so many spatial axes and a channel axis (of this size).

    Raises:
      ShapeError: with the axes expected and the shape given.
    """
    if len(x.shape) < num + 1 or (channels is not None and x.shape[-1] != channels):
        count = "" if channels is None else f" with {channels} channels"
        raise ShapeError(f"{spatial_axes(num)}{count}", f"{tuple(x.shape)}")


def dtype_for(x: jax.Array, *params: jax.Array) -> Any:
    """The dtype to compute in: that of a floating input, else that of the parameters."""
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x.dtype
    return jnp.result_type(*params) if params else jnp.result_type(float)


def at_least_float32(dtype: Any) -> Any:
    """The dtype to take sums in: half precision is too short."""
    return jnp.promote_types(dtype, jnp.float32)
