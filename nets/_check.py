"""Checks of a layer's arguments, inputs and dtypes, said alike by all layers."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import NetError, ShapeError, shape_of


def check_size(name: str, argument: str, size: Any, *, at_least: int = 1) -> None:
    """Refuses a size that is not an integer of at least so much.

    Raises:
      ValueError: naming the layer, the argument, and what was given.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < at_least:
        raise ValueError(f"{name}: expected {argument} to be an integer of at least {at_least}, got {size!r}")


def check_sizes(name: str, argument: str, sizes: Any) -> None:
    """Refuses what is not a tuple (or list) of at least one size.

    Raises:
      ValueError: naming the layer, the argument, and what was given.
    """
    if not isinstance(sizes, tuple | list) or not sizes:
        raise ValueError(f"{name}: expected {argument} to be a tuple of at least one integer, got {sizes!r}")
    for size in sizes:
        check_size(name, argument, size)


def check_array(name: str, given: Any) -> None:
    """Refuses what is not one array of numbers, or a number.

    Raises:
      ShapeError: with the name of the input and what was given.
    """
    dtype = getattr(given, "dtype", None)
    if dtype is None or not hasattr(given, "shape"):
        if not isinstance(given, bool | int | float | complex):
            raise ShapeError(f"one array as {name}", _in_words(given))
    elif not isinstance(dtype, np.dtype) or dtype.kind in "OSUMm":
        raise ShapeError(f"an array of numbers as {name}", f"{dtype} {tuple(given.shape)}")


def check_last_axis(x: Any, size: int | None = None) -> None:
    """Refuses an input without a last axis (of this size).

    Raises:
      ShapeError: with the shape that was given.
    """
    if len(x.shape) < 1 or x.shape[-1] < 1 or (size is not None and x.shape[-1] != size):
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
    if len(x.shape) < num + 1 or x.shape[-1] < 1 or (channels is not None and x.shape[-1] != channels):
        count = "" if channels is None else f" with {channels} channels"
        raise ShapeError(f"{spatial_axes(num)}{count}", f"{tuple(x.shape)}")


def check_windows(x: Any, y: Any, sizes: tuple[int, ...]) -> None:
    """Refuses an input whose spatial axes do not hold one window.

    Raises:
      ShapeError: with the window and the shape given.
    """
    if 0 in y.shape and 0 not in x.shape:
        raise ShapeError(f"{spatial_axes(len(sizes))} that hold the window {sizes}", f"{tuple(x.shape)}")


def dtype_for(x: jax.Array, *params: jax.Array) -> Any:
    """The dtype to compute in: that of a floating input, else that of the parameters."""
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x.dtype
    return jnp.result_type(*params) if params else jnp.result_type(float)


def at_least_float32(dtype: Any) -> Any:
    """The dtype to take sums in: half precision is too short."""
    wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits >= 32
    return jnp.dtype(dtype if wide else jnp.float32)


def check_arrays(
    given: Any, shapes: Mapping[str, tuple[int | None, ...]], what: Literal["parameters", "state"] = "parameters"
) -> None:
    """Refuses parameters or state other than the arrays named, of these shapes; None stands for any size.

    Raises:
      ShapeError: if a name is missing or unknown, or its array has another shape.
    """
    named = given if isinstance(given, dict) else {}
    if set(named) != set(shapes) or not all(_fits(named[name], shape) for name, shape in shapes.items()):
        expected = ", ".join(f"{name} {_sizes(shape)}" for name, shape in shapes.items()) or "none"
        raise ShapeError(f"{what} {expected}", shape_of(given), "Make them with this network's own init(key, x).")


def check_children(params: Any, names: tuple[str, ...]) -> None:
    """Refuses parameters other than a dict with just these entries.

    Raises:
      NetError: with the names expected and given.
    """
    if not isinstance(params, dict) or set(params) != set(names):
        got = str(sorted(params)) if isinstance(params, dict) else shape_of(params)
        raise NetError(f"params of {list(names)}", got, "Make them with this network's own init(key, x).")


def _in_words(given: Any) -> str:
    if given is None or isinstance(given, str):
        return repr(given)
    return f"{type(given).__name__} of shapes {shape_of(given)}"


def _fits(array: Any, shape: tuple[int | None, ...]) -> bool:
    given = getattr(array, "shape", None)
    return (
        given is not None
        and len(given) == len(shape)
        and all(w in (None, g) for g, w in zip(given, shape, strict=True))
    )


def _sizes(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
