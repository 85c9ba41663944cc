"""A linear map whose output's axes are known where it is called."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ._check import check_arrays, dtype_for
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import lecun_normal, zeros
from ._keys import child_key
from ._net import Net, layer


@layer
def projection(
    num_axes: int = 1, *, bias: bool = True, w_init: Initializer = lecun_normal(), b_init: Initializer = zeros
) -> Net:
    """Affine map of the last `num_axes` axes to axes of `sizes`, which the caller of `apply` says.

    So a layer may map back to the features of its input, whatever they are.

    Args:
      num_axes: how many of the last axes of the input it takes.
      bias: whether `b` is added.
      w_init: `w_init(key, (product of in, product of sizes), dtype)` makes `w`, flattened.
      b_init: `b_init(key, sizes, dtype) -> b`.
    Returns:
      A net from `[..., *in]` and the keyword `sizes` to `[..., *sizes]` with float32 params
      `{"w": [*in, *sizes], "b": [*sizes]}`.
    """

    def init(key: jax.Array, x: jax.ShapeDtypeStruct, *, sizes: tuple[int, ...]) -> dict:
        taken = x.shape[-num_axes:]
        w = w_init(child_key(key, "w"), (math.prod(taken), math.prod(sizes)), jnp.float32)
        params = {"w": w.reshape(*taken, *sizes)}
        return params | ({"b": b_init(child_key(key, "b"), sizes, jnp.float32)} if bias else {})

    def check(params: dict, taken: tuple[int | None, ...], sizes: tuple[int | None, ...]) -> None:
        check_arrays(params, {"w": taken + sizes} | ({"b": sizes} if bias else {}))

    def apply(params: dict, x: jax.Array, *, sizes: tuple[int, ...]) -> jax.Array:
        check(params, (None,) * num_axes, (None,) * len(sizes))
        _check_last_axes(x, params["w"].shape[:num_axes])
        check(params, (None,) * num_axes, sizes)
        dtype = dtype_for(x, params["w"])
        y = jnp.tensordot(x.astype(dtype), params["w"].astype(dtype), num_axes)
        return y + params["b"].astype(dtype) if bias else y

    return Net(init, apply)


def check_drop_rate(name: str, drop_rate: float) -> None:
    """Refuses a share that is dropped outside of [0, 1).

    Raises:
      ValueError: naming the layer.
    """
    if not 0 <= drop_rate < 1:
        raise ValueError(f"{name}: expected drop_rate, the share that is dropped, in [0, 1), got {drop_rate!r}")


def _check_last_axes(x: Any, sizes: tuple[int, ...]) -> None:
    if tuple(x.shape[-len(sizes) :]) != tuple(sizes):
        raise ShapeError(f"an input [..., {', '.join(map(str, sizes))}]", f"{tuple(x.shape)}")
