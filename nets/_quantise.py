"""Vectors replaced by the nearest of a table of codes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from ._average import check_decay, debiased, moved
from ._check import at_least_float32, check_arrays, check_last_axis, check_size, dtype_for
from ._define import Initializer
from ._initializers import variance_scaling
from ._keys import child_key
from ._linear import rows_of
from ._moments import check_eps
from ._net import Net, StatefulNet, layer

_nearby = variance_scaling(1.0, "fan_in", "uniform", in_axis=-1, out_axis=-2)


class Quantisation(NamedTuple):
    """What a quantiser says beside its output.

    Attributes:
      loss: `[...]`, of each vector; its mean is to be added to the loss that is minimised.
      codes: integers `[...]`, which code each vector became.
      perplexity: `[]`, how many codes are in use: the exponential of the entropy of their shares in the batch.
    """

    loss: jax.Array
    codes: jax.Array
    perplexity: jax.Array


@layer
def vector_quantise(num_codes: int, *, commitment: float = 0.25, w_init: Initializer = _nearby) -> Net:
    """Replaces each vector by the nearest code of a learned table.

    Gradients pass to the input as if it had not been replaced. The loss moves the codes to the vectors that
    became them, and by `commitment` times as much the vectors to their codes:
    `mean((stop(x) - w)^2) + commitment * mean((x - stop(w))^2)` over the features, with `w` the code.

    Source: van den Oord, Vinyals, Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937, section 3.2; means in
    place of sums.

    Args:
      num_codes: how many codes there are.
      commitment: the weight of the second term.
      w_init: `w_init(key, shape, dtype) -> w`.
    Returns:
      A net from `[..., features]` to `(quantised, Quantisation)`, `quantised` as the input, with float32 params
      `{"w": [num_codes, features]}`.
    Raises:
      ShapeError: if the last axis is not the one that the parameters were made for.

    >>> net = vector_quantise(2)
    >>> params = {"w": jnp.array([[0.0, 0.0], [1.0, 1.0]])}
    >>> y, info = net.apply(params, jnp.array([[0.9, 0.7], [0.1, 0.2]]))
    >>> y.tolist(), info.codes.tolist(), info.perplexity.item()
    ([[1.0, 1.0], [0.0, 0.0]], [1, 0], 2.0)
    """
    check_size("vector_quantise", "num_codes", num_codes)
    _check_commitment("vector_quantise", commitment)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_last_axis(x)
        return {"w": w_init(child_key(key, "w"), (num_codes, x.shape[-1]), jnp.float32)}

    def apply(params: dict, x: jax.Array) -> tuple[jax.Array, Quantisation]:
        check_arrays(params, {"w": (num_codes, None)})
        x, w = jnp.asarray(x), params["w"]
        check_last_axis(x, w.shape[-1])
        x = x.astype(dtype_for(x, w))
        codes = _nearest(x, w)
        moving = jnp.square(rows_of(w, codes) - lax.stop_gradient(_wide(x))).mean(-1)
        y, committed = _straight_through(x, w, codes)
        return y, Quantisation(moving + commitment * committed, codes, _perplexity(_shares(_chosen(codes, num_codes))))

    return Net(init, apply)


@layer
def vector_quantise_ema(
    num_codes: int,
    *,
    commitment: float = 0.25,
    decay: float = 0.99,
    eps: float = 1e-5,
    axis_name: str | tuple[str, ...] | None = None,
    w_init: Initializer = _nearby,
) -> StatefulNet:
    """Replaces each vector by the nearest code of a table that follows the vectors by moving averages.

    As `vector_quantise`, but the table is state, and only the second term of its loss is left. In training
    each code that a vector of the batch became becomes the mean of all that did, over moving averages without
    bias of their number and their sum; the others stay. The output is that of the table before.

    Source: van den Oord, Vinyals, Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937, appendix A.1, with the
    division and the `eps` of Haiku's `VectorQuantizerEMA`; there a code that no vector becomes any more turns to
    zero as its number falls below `eps`, and one that none ever became does so at the first step.

    Args:
      num_codes: how many codes there are.
      commitment: the weight of the loss.
      decay: the share of the averages that is kept at each step, in [0, 1).
      eps: added to the number of vectors of each code.
      axis_name: names of axes of `jax.vmap` or `jax.shard_map` that belong to the batch.
      w_init: `w_init(key, shape, dtype) -> w`.
    Returns:
      A stateful net from `[..., features]` to `(quantised, Quantisation)`, `quantised` as the input, without
      params, with float32 state `{"w": [num_codes, features], "number": [num_codes],
      "sum": [num_codes, features], "weight": []}`: the table, the two averages, and the weight of what is in
      them.
    Raises:
      ShapeError: if the last axis is not the one that the state was made for.

    >>> net = vector_quantise_ema(2)
    >>> x = jnp.array([[0.9, 0.7], [0.1, 0.2]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> state["w"] = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> (y, info), state = net.apply(params, state, x, train=True)
    >>> y.tolist(), jnp.allclose(state["w"], x[::-1], atol=1e-4).item()
    ([[1.0, 1.0], [0.0, 0.0]], True)
    """
    name = "vector_quantise_ema"
    check_size(name, "num_codes", num_codes)
    _check_commitment(name, commitment)
    check_decay(name, decay)
    check_eps(name, eps)

    def shapes(features: int | None) -> dict[str, tuple]:
        return {"w": (num_codes, features), "number": (num_codes,), "sum": (num_codes, features), "weight": ()}

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> tuple[dict, dict]:
        check_last_axis(x)
        w = w_init(child_key(key, "w"), (num_codes, x.shape[-1]), jnp.float32)
        return {}, {name: jnp.zeros(shape, w.dtype) for name, shape in shapes(x.shape[-1]).items()} | {"w": w}

    def apply(params: dict, state: dict, x: jax.Array, *, train: bool) -> tuple[tuple[jax.Array, Quantisation], dict]:
        check_arrays(params, {})
        check_arrays(state, shapes(None), "state")
        x = jnp.asarray(x)
        check_last_axis(x, state["w"].shape[-1])
        check_arrays(state, shapes(x.shape[-1]), "state")
        x = x.astype(dtype_for(x, state["w"]))
        codes = _nearest(x, state["w"])
        y, committed = _straight_through(x, state["w"], codes)
        chosen = _chosen(codes, num_codes)
        shares = _shares(chosen)
        if train:
            shares = shares if axis_name is None else lax.pmean(shares, axis_name)
            state = _followed(state, chosen, lax.stop_gradient(_wide(x)), decay, eps, axis_name)
        return (y, Quantisation(commitment * committed, codes, _perplexity(shares))), state

    return StatefulNet(init, apply)


def _nearest(x: jax.Array, w: jax.Array) -> jax.Array:
    """The index of the nearest row of `w`: integers `[...]` from `[..., features]`.

    Distances are taken from the middle of the table: far from zero, squares differ by less than they are rounded.
    """
    x, w = lax.stop_gradient((_wide(x), w))
    middle = w.mean(0)
    products = jnp.einsum("...d,nd->...n", x - middle, w - middle, precision=lax.Precision.HIGHEST)
    return jnp.argmin(jnp.square(w - middle).sum(-1) - 2 * products, -1)


def _straight_through(x: jax.Array, w: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The codes, with gradients to `x` as if it were returned; and the squared distance that `x` keeps from them."""
    rows = lax.stop_gradient(rows_of(w, codes))
    x = x.astype(dtype_for(x, w))
    # Not x + (rows - x), which rounds: what is returned is a code, to the last bit.
    return rows.astype(x.dtype) + (x - lax.stop_gradient(x)), jnp.square(_wide(x) - rows).mean(-1)


def _followed(
    state: dict, chosen: jax.Array, x: jax.Array, decay: float, eps: float, axis_name: str | tuple[str, ...] | None
) -> dict:
    """The state one step later."""
    new = {"number": chosen.sum(0), "sum": _sums(chosen, x.reshape(-1, x.shape[-1]))}
    new = new if axis_name is None else lax.psum(new, axis_name)
    before = {"average": {name: state[name] for name in new}, "weight": state["weight"]}
    after = moved(before, new, decay)
    average = debiased(after)
    number, total = average["number"], average["sum"]
    smoothed = (number + eps) / (number.sum() + len(number) * eps) * number.sum()
    w = jnp.where(new["number"][:, None] > 0, total / smoothed[:, None], state["w"])
    return {"w": w, **after["average"], "weight": after["weight"]}


def _sums(chosen: jax.Array, x: jax.Array) -> jax.Array:
    """The sum of the vectors that became each code; on a mesh of explicit axes, of all its devices."""
    spec = jax.typeof(x).sharding.spec
    everywhere = PartitionSpec(None, spec[-1]) if any(spec) else None
    return jnp.einsum("nc,nd->cd", chosen, x, precision=lax.Precision.HIGHEST, out_sharding=everywhere)


def _chosen(codes: jax.Array, num_codes: int) -> jax.Array:
    return jax.nn.one_hot(codes.reshape(-1), num_codes, dtype=jnp.float32)


def _shares(chosen: jax.Array) -> jax.Array:
    """The share of vectors that became each code: zeros where there are none."""
    return chosen.sum(0) / max(len(chosen), 1)


def _perplexity(shares: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1))))


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(at_least_float32(dtype_for(x)))


def _check_commitment(name: str, commitment: float) -> None:
    if not commitment >= 0:
        raise ValueError(f"{name}: expected commitment of at least 0, got {commitment!r}")
