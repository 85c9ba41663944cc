"""Affine and bilinear maps, lookup tables, and the networks that are made of nothing else."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ._check import at_least_float32, check_arrays, check_last_axis, check_size, dtype_for
from ._define import Initializer, define
from ._errors import ShapeError, shape_of
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
def bilinear(
    features: int, *, bias: bool = True, w_init: Initializer = lecun_normal(), b_init: Initializer = zeros
) -> Net:
    """A map of two inputs that is linear in each: `y[o] = sum over i, j of x1[i] * w[i, j, o] * x2[j] + b[o]`.

    Args:
      features: size of the last axis of `y`.
      bias: whether `b` is added.
      w_init: `w_init(key, (in1 * in2, features), dtype)` makes `w`, flattened: every output is a sum of
        `in1 * in2` terms.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., in1]` and `[..., in2]` to `[..., features]` with float32 params
      `{"w": [in1, in2, features], "b": [features]}`.
    Raises:
      ShapeError: if the leading axes of the inputs differ, or a last axis is not the one that the parameters
        were made for.

    >>> net = bilinear(3)
    >>> x1, x2 = jnp.ones((2, 4)), jnp.ones((2, 5))
    >>> net.apply(net.init(jax.random.key(0), x1, x2), x1, x2).shape
    (2, 3)
    """
    check_size("bilinear", "features", features)

    def init(key: jax.Array, x1: jax.ShapeDtypeStruct, x2: jax.ShapeDtypeStruct) -> dict:
        _check_pair(x1, x2)
        sizes = (x1.shape[-1], x2.shape[-1])
        w = w_init(child_key(key, "w"), (sizes[0] * sizes[1], features), jnp.float32)
        params = {"w": w.reshape(*sizes, features)}
        return params | ({"b": b_init(child_key(key, "b"), (features,), jnp.float32)} if bias else {})

    def apply(params: dict, x1: jax.Array, x2: jax.Array) -> jax.Array:
        check_arrays(params, {"w": (None, None, features)} | ({"b": (features,)} if bias else {}))
        x1, x2, w = jnp.asarray(x1), jnp.asarray(x2), params["w"]
        _check_pair(x1, x2, w.shape[:2])
        x1, x2 = (x.astype(jnp.promote_types(x1.dtype, x2.dtype)) for x in (x1, x2))
        dtype = dtype_for(x1, w)
        of_x1 = jnp.einsum("...i,ijo->...jo", x1.astype(dtype), w.astype(dtype))
        y = jnp.einsum("...j,...jo->...o", x2.astype(dtype), of_x1)
        return y + params["b"].astype(dtype) if bias else y

    return Net(init, apply)


def _check_pair(x1: Any, x2: Any, sizes: tuple[int, ...] | None = None) -> None:
    fits = x1.shape[:-1] == x2.shape[:-1] and all(x.shape and x.shape[-1] > 0 for x in (x1, x2))
    if not fits or (sizes is not None and (x1.shape[-1], x2.shape[-1]) != tuple(sizes)):
        in1, in2 = ("in1", "in2") if sizes is None else sizes
        given = f"{tuple(x1.shape)} and {tuple(x2.shape)}"
        raise ShapeError(f"inputs [..., {in1}] and [..., {in2}] of the same leading axes", given)


@layer
def embed(
    num_embeddings: int,
    features: int,
    *,
    w_init: Initializer = variance_scaling(1.0, "fan_in", "normal", out_axis=0),
) -> Net:
    """A learned vector for every integer: `y = w[ids]`.

    An id outside `[0, num_embeddings)` gives NaN, so that it is seen, and no gradient. `attend` goes the other
    way, from vectors to a logit for every integer, with the same weights.

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

    A language model whose output layer is its embedding:

    >>> @define
    ... def model(ids, *, tokens=embed(10, 4), hidden=linear(4)):
    ...     h = hidden(tokens(ids))
    ...     return attend(tokens.params, h)
    >>> model.apply(model.init(jax.random.key(0), ids), ids).shape
    (1, 3, 10)
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
        return rows_of(params["w"], ids)

    return Net(init, apply)


def rows_of(w: jax.Array, ids: jax.Array) -> jax.Array:
    """The rows of a table, NaN for those it does not have: `[..., features]` from integers `[...]`.

    On a mesh of explicit axes they lie as the ids do, and as the features do.
    """
    w, ids = jnp.asarray(w), jnp.asarray(ids)
    spec = (*jax.typeof(ids).sharding.spec, jax.typeof(w).sharding.spec[-1])
    options: Any = {"mode": "fill", "fill_value": jnp.nan, "wrap_negative_indices": False}
    return w.at[ids].get(out_sharding=PartitionSpec(*spec) if any(spec) else None, **options)


def attend(params: dict, x: jax.Array) -> jax.Array:
    """The logit of every integer of an `embed`, with its own weights: `x @ w.T`.

    Sums are taken in at least float32.

    Source: Press, Wolf 2017, https://arxiv.org/abs/1608.05859.

    Args:
      params: those of an `embed`; in the body of a `define`d network, `tokens.params` of its child `tokens`.
      x: vectors `[..., features]`.
    Returns:
      Logits `[..., num_embeddings]`, of the dtype of `x`.
    Raises:
      ShapeError: if these are not the parameters of an `embed` for vectors of this size.

    >>> attend({"w": jnp.eye(3, 2)}, jnp.array([1.0, 2.0])).tolist()
    [1.0, 2.0, 0.0]
    """
    w = params["w"] if isinstance(params, dict) and set(params) == {"w"} else None
    if len(getattr(w, "shape", ())) != 2:
        raise ShapeError("the parameters of an embed, w [num_embeddings, features]", shape_of(params))
    x, w = jnp.asarray(x), jnp.asarray(w)
    check_last_axis(x, w.shape[-1])
    dtype = dtype_for(x, w)
    sums = at_least_float32(dtype)
    return jnp.einsum("...d,nd->...n", x.astype(dtype), w.astype(dtype), preferred_element_type=sums).astype(dtype)


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
    def body(x: jax.Array, *, layers=[linear(size, w_init=w_init) for size in sizes]):
        for hidden in layers[:-1]:
            x = activation(hidden(x))
        return layers[-1](x)

    return body
