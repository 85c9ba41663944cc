"""Normalisation of groups of channels over the spatial axes of each example."""

import jax
import jax.numpy as jnp

from ._check import check_size, dtype_for
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import ones, zeros
from ._moments import affine, check_affine, check_eps, check_trailing, init_affine, moments
from ._net import Net, layer


@layer
def group_norm(
    num_groups: int,
    *,
    num_axes: int = 2,
    eps: float = 1e-5,
    scale: bool = True,
    offset: bool = True,
    scale_init: Initializer = ones,
    offset_init: Initializer = zeros,
) -> Net:
    """Brings each group of channels of each example to mean 0 and variance 1, then scales and shifts each channel.

    Source: Wu, He 2018, https://arxiv.org/abs/1803.08494, section 3.

    Args:
      num_groups: of neighbouring channels, all of one size.
      num_axes: how many spatial axes stand before the channels: 2 for images, 0 for none.
      eps: added to the variance.
      scale: whether to multiply by a learned vector.
      offset: whether to add a learned vector.
      scale_init: `scale_init(key, shape, dtype) -> scale`.
      offset_init: `offset_init(key, shape, dtype) -> offset`.
    Returns:
      A net from `[..., *spatial, channels]` to the same with float32 params
      `{"scale": [channels], "offset": [channels]}`.
    Raises:
      ShapeError: if the channels are not those that the parameters were made for, or no multiple of the
        groups, or if axes are missing, or the input is complex.

    >>> net = group_norm(2, num_axes=0)
    >>> x = jnp.array([1.0, 3.0, 50.0, 50.0])
    >>> net.apply(net.init(jax.random.key(0), x), x).round(2).tolist()
    [-1.0, 1.0, 0.0, 0.0]
    """
    check_size("group_norm", "num_groups", num_groups)
    check_size("group_norm", "num_axes", num_axes, at_least=0)
    check_eps("group_norm", eps)
    inits = {"scale": scale_init if scale else None, "offset": offset_init if offset else None}

    def check(x: jax.Array | jax.ShapeDtypeStruct) -> None:
        check_trailing(x, 1 + num_axes)
        if x.shape[-1] % num_groups:
            raise ShapeError(f"channels in a multiple of {num_groups}", f"{tuple(x.shape)}")

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check(x)
        return init_affine(key, x.shape[-1:], **inits)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_affine(params, x, 1, scale=scale, offset=offset)
        check(x)
        dtype = dtype_for(x, *params.values())
        grouped = x.astype(dtype).reshape(*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
        centred, _, var = moments(grouped, (*range(-num_axes - 2, -2), -1))
        by_group = {name: array.reshape(num_groups, -1) for name, array in params.items()}
        return affine(by_group, centred, var, eps, dtype).reshape(x.shape)

    return Net(init if scale or offset else None, apply)


@layer
def instance_norm(
    *,
    num_axes: int = 2,
    eps: float = 1e-5,
    scale: bool = True,
    offset: bool = True,
    scale_init: Initializer = ones,
    offset_init: Initializer = zeros,
) -> Net:
    """Brings each channel of each example to mean 0 and variance 1 over space, then scales and shifts it.

    Source: Ulyanov, Vedaldi, Lempitsky 2016, https://arxiv.org/abs/1607.08022.

    Args:
      num_axes: how many spatial axes stand before the channels, at least 1.
      eps: added to the variance.
      scale: whether to multiply by a learned vector.
      offset: whether to add a learned vector.
      scale_init: `scale_init(key, shape, dtype) -> scale`.
      offset_init: `offset_init(key, shape, dtype) -> offset`.
    Returns:
      A net from `[..., *spatial, channels]` to the same with float32 params
      `{"scale": [channels], "offset": [channels]}`.
    Raises:
      ShapeError: if the channels are not those that the parameters were made for, if axes are missing, or if
        the input is complex.

    >>> net = instance_norm(num_axes=1)
    >>> x = jnp.array([[1.0, 50.0], [3.0, 50.0]])
    >>> net.apply(net.init(jax.random.key(0), x), x).round(2).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    check_size("instance_norm", "num_axes", num_axes)
    check_eps("instance_norm", eps)
    inits = {"scale": scale_init if scale else None, "offset": offset_init if offset else None}

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_trailing(x, 1 + num_axes)
        return init_affine(key, x.shape[-1:], **inits)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_affine(params, x, 1, scale=scale, offset=offset)
        check_trailing(x, 1 + num_axes)
        dtype = dtype_for(x, *params.values())
        centred, _, var = moments(x.astype(dtype), tuple(range(-num_axes - 1, -1)))
        return affine(params, centred, var, eps, dtype)

    return Net(init if scale or offset else None, apply)
