"""Normalisation, exact also where the mean is far larger than the spread."""

import jax
import jax.numpy as jnp
from jax import lax

from ._check import at_least_float32, check_arrays, check_last_axis, dtype_for
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import ones, zeros
from ._keys import child_key
from ._net import Net, StatefulNet, layer


@layer
def layer_norm(
    *,
    eps: float = 1e-5,
    scale: bool = True,
    offset: bool = True,
    scale_init: Initializer = ones,
    offset_init: Initializer = zeros,
) -> Net:
    """Brings the last axis of each example to mean 0 and variance 1, then scales and shifts it.

    Source: Ba, Kiros, Hinton 2016, https://arxiv.org/abs/1607.06450, equation 3.

    Args:
      eps: added to the variance.
      scale: whether to multiply by a learned vector.
      offset: whether to add a learned vector.
      scale_init: `scale_init(key, shape, dtype) -> scale`.
      offset_init: `offset_init(key, shape, dtype) -> offset`.
    Returns:
      A net from `[..., features]` to the same with float32 params `{"scale": [features], "offset": [features]}`.
    Raises:
      ShapeError: if the last axis is not the one that the parameters were made for.

    >>> net = layer_norm()
    >>> x = jnp.array([[1.0, 2.0, 3.0]])
    >>> net.apply(net.init(jax.random.key(0), x), x).round(2).tolist()
    [[-1.2200000286102295, 0.0, 1.2200000286102295]]
    """
    check_eps("layer_norm", eps)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_last_axis(x)
        return _init_affine(key, x, scale and scale_init, offset and offset_init)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        _check_affine(params, x, scale, offset)
        centred, _ = _centred(x, (-1,))
        return _affine(params, centred, jnp.square(centred).mean(-1, keepdims=True), eps, dtype_for(x))

    return Net(init, apply)


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
) -> Net:
    """Brings each channel to mean 0 and variance 1 over the batch, then scales and shifts it.

    In training the mean and variance are those of the batch: of all axes but the last, and of the mapped
    axes named. They also move the running statistics, `new = decay_rate * old + (1 - decay_rate) * batch`,
    which stand in for them otherwise. The running variance is the biased one, as in Flax and Haiku.

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
      A stateful net from `[..., channels]` to the same with float32 params
      `{"scale": [channels], "offset": [channels]}` and state `{"mean": [channels], "var": [channels]}`.
    Raises:
      ShapeError: if the channels are not those that the parameters were made for, or if there is no batch
        to take statistics of in training.

    >>> net = batch_norm()
    >>> x = jnp.array([[1.0], [3.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> y, state = net.apply(params, state, x, train=True)
    >>> y.round(2).tolist(), round(state["mean"].item(), 4)
    ([[-1.0], [1.0]], 0.2)
    """
    check_eps("batch_norm", eps)
    if not 0 <= decay_rate <= 1:
        raise ValueError(f"batch_norm: expected decay_rate in [0, 1], got {decay_rate!r}")

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> tuple[dict, dict]:
        check_last_axis(x)
        state = {"mean": jnp.zeros(x.shape[-1], jnp.float32), "var": jnp.ones(x.shape[-1], jnp.float32)}
        return _init_affine(key, x, scale and scale_init, offset and offset_init), state

    def apply(params: dict, state: dict, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict]:
        x = jnp.asarray(x)
        _check_affine(params, x, scale, offset)
        check_arrays(state, {"mean": (x.shape[-1],), "var": (x.shape[-1],)}, "state")
        if not train:
            centred = x.astype(at_least_float32(dtype_for(x))) - state["mean"]
            return _affine(params, centred, state["var"], eps, dtype_for(x)), state
        if x.ndim < 2 and axis_name is None:
            raise ShapeError(
                "a batch [..., channels] to take statistics of in training",
                f"{x.shape}",
                "Give axis_name= the name of the axis that jax.vmap maps.",
            )
        axes = tuple(range(x.ndim - 1))
        centred, mean = _centred(x, axes, axis_name)
        var = _mean(jnp.square(centred), axes, axis_name)
        batch = {"mean": mean.reshape(-1), "var": var.reshape(-1)}
        state = jax.tree.map(lambda old, new: decay_rate * old + (1 - decay_rate) * new.astype(old.dtype), state, batch)
        return _affine(params, centred, var, eps, dtype_for(x)), state

    return StatefulNet(init, apply)


def check_eps(name: str, eps: float) -> None:
    """Refuses an `eps` that does not keep a constant input finite.

    Raises:
      ValueError: naming the layer.
    """
    if not eps > 0:
        raise ValueError(f"{name}: expected eps above 0, got {eps!r}")


def _centred(
    x: jax.Array, axes: tuple[int, ...], axis_name: str | tuple[str, ...] | None = None
) -> tuple[jax.Array, jax.Array]:
    """`x` less its mean over the axes, and the mean: what a first mean over many numbers rounds off, a second finds."""
    x = x.astype(at_least_float32(dtype_for(x)))
    rough = lax.stop_gradient(_mean(x, axes, axis_name))
    x = x - rough
    rest = _mean(x, axes, axis_name)
    return x - rest, rough + rest


def _mean(x: jax.Array, axes: tuple[int, ...], axis_name: str | tuple[str, ...] | None) -> jax.Array:
    mean = x.mean(axes, keepdims=True)
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _init_affine(
    key: jax.Array, x: jax.ShapeDtypeStruct, scale_init: Initializer | bool, offset_init: Initializer | bool
) -> dict:
    inits = {"scale": scale_init, "offset": offset_init}
    return {
        name: init(child_key(key, name), (x.shape[-1],), jnp.float32) for name, init in inits.items() if callable(init)
    }


def _check_affine(params: dict, x: jax.Array, scale: bool, offset: bool) -> None:
    wanted = {"scale": scale, "offset": offset}
    check_arrays(params, {name: (None,) for name, used in wanted.items() if used})
    check_last_axis(x)
    for array in params.values():
        check_last_axis(x, array.shape[0])


def _affine(params: dict, centred: jax.Array, var: jax.Array, eps: float, dtype: jnp.dtype) -> jax.Array:
    factor = lax.rsqrt(var + eps)
    y = centred * (factor * params["scale"] if "scale" in params else factor)
    return (y + params["offset"] if "offset" in params else y).astype(dtype)
