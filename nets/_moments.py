"""Means and variances that are exact also where the mean is far larger than the spread, and what norms share."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._check import at_least_float32, check_arrays, dtype_for
from ._define import Initializer
from ._errors import ShapeError
from ._keys import child_key

AxisName = str | tuple[str, ...] | None


def moments(
    x: jax.Array, axes: tuple[int, ...], axis_name: AxisName = None, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The input less its mean, the mean, and the variance over some axes, which stay with size 1.

    What a first mean over many numbers rounds off, a second one finds: it is taken of the input less the first.
    There the mean is small beside the spread, so the variance may be the mean square less the squared mean; the
    mean square stands before the mean because XLA on CPUs compiles deep networks faster so.

    Args:
      x: the input, taken in float32 at least.
      axes: to reduce over.
      axis_name: names of mapped axes to reduce over as well.
      mask: which values count, of a shape that broadcasts to that of `x`; the others must be finite.
    Returns:
      `(centred, mean, var)`.
    """
    x = x.astype(at_least_float32(dtype_for(x)))
    rough = lax.stop_gradient(_mean(x, axes, axis_name, mask))
    near = x - rough
    square = _mean(jnp.square(near), axes, axis_name, mask)
    rest = _mean(near, axes, axis_name, mask)
    var = square - jnp.square(rest)
    # That of a constant may round to less than zero. Maximum would halve its derivative at zero.
    return near - rest, rough + rest, jnp.where(var < 0, 0, var)


def _mean(x: jax.Array, axes: tuple[int, ...], axis_name: AxisName, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        mean = x.mean(axes, keepdims=True)
        return mean if axis_name is None else lax.pmean(mean, axis_name)
    total, count = x.sum(axes, keepdims=True, where=mask), mask.astype(x.dtype).sum(axes, keepdims=True)
    if axis_name is not None:
        total, count = lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1)


def affine(params: dict, centred: jax.Array, var: jax.Array, eps: float, dtype: Any) -> jax.Array:
    """`centred / sqrt(var + eps)`, times `scale` and plus `offset` where there are such parameters."""
    factor = lax.rsqrt(var + eps)
    y = centred * (factor * params["scale"] if "scale" in params else factor)
    return (y + params["offset"] if "offset" in params else y).astype(dtype)


def init_affine(key: jax.Array, shape: tuple[int, ...], **inits: Initializer | None) -> dict:
    """Arrays of one shape by name, for each initializer that is not None."""
    return {name: init(child_key(key, name), shape, jnp.float32) for name, init in inits.items() if init is not None}


def check_affine(params: dict, x: jax.Array, num_axes: int, **used: bool) -> None:
    """Refuses parameters other than those used, or of other sizes than the trailing axes of `x`.

    Raises:
      ShapeError: with the shapes expected and given.
    """
    check_arrays(params, {name: (None,) * num_axes for name, wanted in used.items() if wanted})
    check_trailing(x, num_axes)
    for array in params.values():
        check_trailing(x, num_axes, array.shape)


def check_trailing(x: Any, num_axes: int, sizes: tuple[int, ...] | None = None) -> None:
    """Refuses an input of complex numbers, or without so many trailing axes (of these sizes).

    Raises:
      ShapeError: with the dtype or the shape that was given.
    """
    check_real(x)
    trailing = tuple(x.shape[-num_axes:])
    if len(trailing) < num_axes or 0 in trailing or (sizes is not None and trailing != sizes):
        wanted = ["any"] * (num_axes - 1) + ["features"] if sizes is None else map(str, sizes)
        raise ShapeError(f"an input [..., {', '.join(wanted)}]", f"{tuple(x.shape)}")


def check_real(x: Any) -> None:
    """Refuses complex numbers.

    Raises:
      ShapeError: with the dtype and shape that were given.
    """
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ShapeError("an input of real numbers", f"{x.dtype} {tuple(x.shape)}")


def is_number(given: Any) -> bool:
    """Whether it is a real number, or an array, which may be one."""
    return isinstance(given, numbers.Real) or hasattr(given, "dtype")


def check_eps(name: str, eps: float) -> None:
    """Refuses an `eps` that does not keep a constant input finite.

    Raises:
      ValueError: naming the layer.
    """
    if not is_number(eps) or not eps > 0:
        raise ValueError(f"{name}: expected eps above 0, got {eps!r}")
