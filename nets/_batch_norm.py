"""Normalisation over the examples of a batch."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._check import at_least_float32, check_arrays, check_last_axis, dtype_for
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import ones, zeros
from ._moments import AxisName, affine, check_affine, check_eps, check_real, init_affine, is_number, moments
from ._net import StatefulNet, layer


@layer
def batch_norm(
    *,
    decay_rate: float = 0.9,
    eps: float = 1e-5,
    axis_name: str | tuple[str, ...] | None = None,
    scale: bool = True,
    offset: bool = True,
    scale_init: Initializer = ones,
    offset_init: Initializer = zeros,
) -> StatefulNet:
    """Brings each channel to mean 0 and variance 1 over the batch, then scales and shifts it.

    In training the mean and variance are those of the batch: of all axes but the last, and of the mapped
    axes named. They also move the running statistics, `new = decay_rate * old + (1 - decay_rate) * batch`,
    which stand in for them otherwise. The running variance is the biased one, as in Flax and Haiku.

    A mask tells padding from data: values where it is False are taken as zeros, and count in no statistics.
    A batch in which nothing counts leaves the running statistics as they are.

    Source: Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithms 1 and 2.

    Args:
      decay_rate: the share of the running statistics that is kept at each step, in [0, 1].
      eps: added to the variance.
      axis_name: names of axes of `jax.vmap` or `jax.shard_map` that belong to the batch.
      scale: whether to multiply by a learned vector.
      offset: whether to add a learned vector.
      scale_init: `scale_init(key, shape, dtype) -> scale`.
      offset_init: `offset_init(key, shape, dtype) -> offset`.
    Returns:
      A stateful net from `x [..., channels]` to the same with float32 params
      `{"scale": [channels], "offset": [channels]}` and state `{"mean": [channels], "var": [channels]}`. All
      of `x` counts unless booleans `mask= [...]` are given, which broadcast to all axes of `x` but the last.
    Raises:
      ShapeError: if the channels are not those that the parameters were made for, if the mask does not fit, if
        there is no batch to take statistics of in training, or if the input is complex.

    >>> net = batch_norm()
    >>> x = jnp.array([[1.0], [3.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> y, state = net.apply(params, state, x, train=True)
    >>> y.round(2).tolist(), round(state["mean"].item(), 4)
    ([[-1.0], [1.0]], 0.2)
    """
    check_eps("batch_norm", eps)
    if not is_number(decay_rate) or not 0 <= decay_rate <= 1:
        raise ValueError(f"batch_norm: expected decay_rate in [0, 1], got {decay_rate!r}")
    inits = {"scale": scale_init if scale else None, "offset": offset_init if offset else None}

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> tuple[dict, dict]:
        check_last_axis(x)
        check_real(x)
        size = x.shape[-1:]
        return init_affine(key, size, **inits), {"mean": jnp.zeros(size, "float32"), "var": jnp.ones(size, "float32")}

    def apply(
        params: dict, state: dict, x: jax.Array, *, mask: jax.Array | None = None, train: bool
    ) -> tuple[jax.Array, dict]:
        x = jnp.asarray(x)
        check_affine(params, x, 1, scale=scale, offset=offset)
        check_arrays(state, {"mean": x.shape[-1:], "var": x.shape[-1:]}, "state")
        mask = None if mask is None else _counted(mask, x)
        dtype = dtype_for(x, *params.values(), *state.values())
        x = x.astype(dtype) if mask is None else jnp.where(mask, x.astype(dtype), 0)
        if not train:
            centred = x.astype(at_least_float32(dtype)) - state["mean"]
            return affine(params, centred, state["var"], eps, dtype), state
        if x.ndim < 2 and axis_name is None:
            raise ShapeError(
                "a batch [..., channels] to take statistics of in training",
                f"{x.shape}",
                "Give axis_name= the name of the axis that jax.vmap maps.",
            )
        centred, mean, var = moments(x, tuple(range(x.ndim - 1)), axis_name, mask)
        batch = {"mean": mean.reshape(-1), "var": var.reshape(-1)}
        counts = x.size > 0 if mask is None else _any(mask, x, axis_name)

        def moved(old: jax.Array, new: jax.Array) -> jax.Array:
            new = decay_rate * old + (1 - decay_rate) * new.astype(old.dtype)
            return new if counts is True else jnp.where(counts, new, old)

        return affine(params, centred, var, eps, dtype), jax.tree.map(moved, state, batch)

    return StatefulNet(init, apply)


def _any(mask: jax.Array, x: jax.Array, axis_name: AxisName) -> jax.Array:
    """Whether anything of the batch counts."""
    found = mask.any() if x.size else jnp.zeros((), bool)
    return found if axis_name is None else lax.pmax(found.astype(jnp.int32), axis_name) > 0


def _counted(mask: Any, x: jax.Array) -> jax.Array:
    """The mask with the axes of `x`, of size 1 where it is channels."""
    mask, wanted = jnp.asarray(mask), x.shape[:-1]
    fits = mask.ndim <= len(wanted) and all(
        given in (1, size) for given, size in zip(mask.shape[::-1], wanted[::-1], strict=False)
    )
    if mask.dtype != bool or not fits:
        raise ShapeError(f"a mask of booleans that broadcasts to {wanted}", f"{mask.dtype} {mask.shape}")
    return jnp.broadcast_to(mask, wanted)[..., None]
