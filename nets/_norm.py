"""Normalisation of each example by itself."""

import jax
import jax.numpy as jnp

from ._check import at_least_float32, check_size, dtype_for
from ._define import Initializer
from ._initializers import ones, zeros
from ._moments import affine, check_affine, check_eps, check_trailing, init_affine, moments
from ._net import Net, layer


@layer
def layer_norm(
    *,
    num_axes: int = 1,
    eps: float = 1e-5,
    scale: bool = True,
    offset: bool = True,
    scale_init: Initializer = ones,
    offset_init: Initializer = zeros,
) -> Net:
    """Brings the trailing axes of each example to mean 0 and variance 1, then scales and shifts them.

    Squares are summed in at least float32: deviations above about `1e19 / sqrt(features)` overflow there.

    Source: Ba, Kiros, Hinton 2016, https://arxiv.org/abs/1607.06450, equation 3.

    Args:
      num_axes: how many trailing axes belong together, at least 1.
      eps: added to the variance.
      scale: whether to multiply by a learned array.
      offset: whether to add a learned array.
      scale_init: `scale_init(key, shape, dtype) -> scale`.
      offset_init: `offset_init(key, shape, dtype) -> offset`.
    Returns:
      A net from `[..., features]` to the same with float32 params `{"scale": [features], "offset": [features]}`;
      with more axes than one, `features` stands for the sizes of all.
    Raises:
      ShapeError: if the trailing axes are not those that the parameters were made for, or the input is complex.

    >>> net = layer_norm()
    >>> x = jnp.array([[1.0, 2.0, 3.0]])
    >>> net.apply(net.init(jax.random.key(0), x), x).round(2).tolist()
    [[-1.2200000286102295, 0.0, 1.2200000286102295]]
    """
    check_size("layer_norm", "num_axes", num_axes)
    check_eps("layer_norm", eps)
    inits = {"scale": scale_init if scale else None, "offset": offset_init if offset else None}

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_trailing(x, num_axes)
        return init_affine(key, x.shape[-num_axes:], **inits)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_affine(params, x, num_axes, scale=scale, offset=offset)
        dtype = dtype_for(x, *params.values())
        centred, _, var = moments(x.astype(dtype), tuple(range(-num_axes, 0)))
        return affine(params, centred, var, eps, dtype)

    return Net(init if scale or offset else None, apply)


@layer
def rms_norm(*, num_axes: int = 1, eps: float = 1e-6, scale: bool = True, scale_init: Initializer = ones) -> Net:
    """Brings the mean square of the trailing axes of each example to 1, then scales them.

    Squares are summed in at least float32: values above about `1e19 / sqrt(features)` overflow there.

    Source: Zhang, Sennrich 2019, https://arxiv.org/abs/1910.07467; `eps` is added to the mean square.

    Args:
      num_axes: how many trailing axes belong together, at least 1.
      eps: added to the mean square.
      scale: whether to multiply by a learned array.
      scale_init: `scale_init(key, shape, dtype) -> scale`.
    Returns:
      A net from `[..., features]` to the same with float32 params `{"scale": [features]}`; with more axes than
      one, `features` stands for the sizes of all.
    Raises:
      ShapeError: if the trailing axes are not those that the parameters were made for, or the input is complex.

    >>> net = rms_norm()
    >>> x = jnp.array([[4.0, 0.0, 0.0, 0.0]])
    >>> net.apply(net.init(jax.random.key(0), x), x).round(2).tolist()
    [[2.0, 0.0, 0.0, 0.0]]
    """
    check_size("rms_norm", "num_axes", num_axes)
    check_eps("rms_norm", eps)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_trailing(x, num_axes)
        return init_affine(key, x.shape[-num_axes:], scale=scale_init if scale else None)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_affine(params, x, num_axes, scale=scale)
        dtype = dtype_for(x, *params.values())
        wide = x.astype(at_least_float32(dtype))
        square = jnp.square(wide).mean(tuple(range(-num_axes, 0)), keepdims=True)
        return affine(params, wide, square, eps, dtype)

    return Net(init if scale else None, apply)
