"""Affine maps, lookup tables, and the networks that are made of nothing else."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ._check import check_arrays, check_last_axis, check_size, dtype_for
from ._define import Initializer, define
from ._errors import ShapeError
from ._initializers import lecun_normal, variance_scaling, zeros
from ._keys import child_key
from ._net import Net, layer


@layer
def linear(
    features: int, *, bias: bool = True, w_init: Initializer = lecun_normal(), b_init: Initializer = zeros
) -> Net:
    """Affine map of the last axis: `y = x @ w + b`.

    Args:
      features: size of the last axis of `y`.
      bias: whether `b` is added.
      w_init: `w_init(key, shape, dtype) -> w`.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., in]` to `[..., features]` with float32 params `{"w": [in, features], "b": [features]}`.
    Raises:
      ShapeError: if the last axis of `x` is not the one that the parameters were made for.

    >>> net = linear(3)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> net.apply(params, jnp.ones((2, 4))).shape
    (2, 3)
    """
    check_size("linear", "features", features)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_last_axis(x)
        params = {"w": w_init(child_key(key, "w"), (x.shape[-1], features), jnp.float32)}
        return params | ({"b": b_init(child_key(key, "b"), (features,), jnp.float32)} if bias else {})

    def apply(params: dict, x: jax.Array) -> jax.Array:
        check_arrays(params, {"w": (None, features)} | ({"b": (features,)} if bias else {}))
        x = jnp.asarray(x)
        check_last_axis(x, params["w"].shape[0])
        dtype = dtype_for(x, params["w"])
        y = x.astype(dtype) @ params["w"].astype(dtype)
        return y + params["b"].astype(dtype) if bias else y

    return Net(init, apply)


@layer
def embed(
    num_embeddings: int,
    features: int,
    *,
    w_init: Initializer = variance_scaling(1.0, "fan_in", "normal", out_axis=0),
) -> Net:
    """A learned vector for every integer: `y = w[ids]`.

    An id outside `[0, num_embeddings)` gives NaN, so that it is seen, and no gradient.

    Args:
      num_embeddings: how many integers have one.
      features: size of a vector.
      w_init: `w_init(key, shape, dtype) -> w`.
    Returns:
      A net from integers `[...]` to `[..., features]` with float32 params
      `{"w": [num_embeddings, features]}`.
    Raises:
      ShapeError: if the input is not of integers.

    >>> net = embed(10, 4)
    >>> ids = jnp.array([[1, 2, 3]])
    >>> net.apply(net.init(jax.random.key(0), ids), ids).shape
    (1, 3, 4)
    """
    check_size("embed", "num_embeddings", num_embeddings)
    check_size("embed", "features", features)

    def check_ids(ids: jax.Array | jax.ShapeDtypeStruct) -> None:
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ShapeError("ids [...] of integers", f"{ids.dtype} {tuple(ids.shape)}")

    def init(key: jax.Array, ids: jax.ShapeDtypeStruct) -> dict:
        check_ids(ids)
        return {"w": w_init(child_key(key, "w"), (num_embeddings, features), jnp.float32)}

    def apply(params: dict, ids: jax.Array) -> jax.Array:
        check_arrays(params, {"w": (num_embeddings, features)})
        ids = jnp.asarray(ids)
        check_ids(ids)
        options: Any = {"mode": "fill", "fill_value": jnp.nan, "wrap_negative_indices": False}
        return params["w"].at[ids].get(out_sharding=_lookup_sharding(params["w"], ids), **options)

    return Net(init, apply)


def _lookup_sharding(w: jax.Array, ids: jax.Array) -> PartitionSpec | None:
    """How looked-up vectors lie on a mesh of explicit axes: as the ids do, and as the features do."""
    spec = (*jax.typeof(ids).sharding.spec, jax.typeof(w).sharding.spec[-1])
    return PartitionSpec(*spec) if any(spec) else None


@layer
def mlp(
    *sizes: int, activation: Callable[[jax.Array], jax.Array] = jax.nn.relu, w_init: Initializer = lecun_normal()
) -> Net:
    """Linear maps with an activation between them: `mlp(40, 40, 1)`.

    Args:
      *sizes: features of each linear map; the last is that of the output.
      activation: applied after every map but the last.
      w_init: `w_init(key, shape, dtype) -> w` of every map.
    Returns:
      A net from `[..., in]` to `[..., sizes[-1]]` with params `{"layers": [{"w", "b"}, ...]}`.

    >>> net = mlp(40, 40, 1)
    >>> net.apply(net.init(jax.random.key(0), jnp.ones((5, 1))), jnp.ones((5, 1))).shape
    (5, 1)
    """
    if not sizes:
        raise ValueError("mlp: expected at least one size, got none")

    @define
    def body(x, *, layers=[linear(size, w_init=w_init) for size in sizes]):
        for hidden in layers[:-1]:
            x = activation(hidden(x))
        return layers[-1](x)

    return body
