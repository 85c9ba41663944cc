"""Mixtures of experts: each token goes through a few of many networks."""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._check import at_least_float32, check_size, dtype_for
from ._define import Initializer, define
from ._errors import ShapeError, shape_of
from ._initializers import lecun_normal
from ._linear import linear
from ._net import Net, layer
from ._stack import ensemble


class Routing(NamedTuple):
    """How tokens were sent to experts, over all tokens given.

    Attributes:
      load_loss: `[]`, to be added to the loss with a small factor: `num_experts * sum of share * mean of
        probability` over experts (Fedus et al. 2021, equation 4). It is 1 if all experts are chosen alike.
        Without any token it is 0, as the others are.
      z_loss: `[]`, the mean squared `logsumexp` of the router's logits (Zoph et al. 2022,
        https://arxiv.org/abs/2202.08906): a small factor of it keeps them small.
      share: `[num_experts]`, each expert's share of all choices, dropped ones included; the sum is 1.
      dropped: `[]`, the share of choices that found their expert full.
    """

    load_loss: jax.Array
    z_loss: jax.Array
    share: jax.Array
    dropped: jax.Array


@layer
def mixture_of_experts(
    expert: Net,
    num_experts: int,
    *,
    top_k: int = 2,
    gates: Literal["chosen", "all"] = "chosen",
    capacity_factor: float | None = None,
    router_init: Initializer = lecun_normal(),
) -> Net:
    """Sends each token to the `top_k` experts that a linear router gives the largest logits, and adds what they return.

    The experts' outputs are weighted by a softmax of the logits, in at least float32: over those of the
    chosen experts, so that the weights add up to 1 (Shazeer et al., equations 3 to 5, without noise), or over
    those of all experts (Fedus et al., equations 1 and 2).

    Without a capacity every expert computes every token, and the result is exact. With one, each expert has
    room for `ceil(capacity_factor * top_k * tokens / num_experts)` tokens of each group, and computes as
    many. First choices of all tokens come before second ones, and earlier tokens before later ones; a choice
    that finds its expert full adds zero. Room that is left over holds zeros, which an expert with statistics
    sees.

    Source: Shazeer et al. 2017, https://arxiv.org/abs/1701.06538; Fedus, Zoph, Shazeer 2021,
    https://arxiv.org/abs/2101.03961; groups as in Lepikhin et al. 2020, https://arxiv.org/abs/2006.16668.

    Args:
      expert: a network from `[..., features]` to one array `[..., out]`.
      num_experts: how many there are, each with parameters (and state, and key) of its own.
      top_k: how many each token goes to.
      gates: "chosen" or "all", what the softmax is over. With `top_k=1` it is to be "all": over one it is 1,
        and the router would not learn.
      capacity_factor: None for no capacity, else the room of all experts as a multiple of all choices.
      router_init: `router_init(key, shape, dtype) -> w` of the router.
    Returns:
      A net from `[..., features]` to `([..., out], Routing)`; with a capacity from `[..., tokens, features]`,
      each group of tokens by itself. Params `{"router": {"w": [features, num_experts]}, "experts": ...}`, those
      of the expert with a leading axis of `num_experts`.
    Raises:
      ShapeError: if the input has too few axes, or the expert returns anything else than one vector a token.

    >>> net = mixture_of_experts(mlp(8, 4), 3)
    >>> x = jnp.ones((2, 5, 4))
    >>> params = net.init(jax.random.key(0), x)
    >>> y, routing = net.apply(params, x)
    >>> y.shape, routing.share.sum().item()
    ((2, 5, 4), 1.0)
    """
    _check_arguments(expert, num_experts, top_k, gates, capacity_factor)
    run_experts = _on_all if capacity_factor is None else functools.partial(_on_chosen, capacity_factor)
    in_axes, least = (None, 1) if capacity_factor is None else (0, 2)

    @define
    def mixture(
        x: jax.Array,
        *,
        router=linear(num_experts, bias=False, w_init=router_init),
        experts=ensemble(expert, num_experts, in_axes=in_axes),
    ):
        x = jnp.asarray(x)
        if x.ndim < least or x.shape[-1] < 1:
            raise ShapeError(f"an input [..., {'tokens, ' * (least - 1)}features]", f"{x.shape}")
        logits = router(x.astype(at_least_float32(x.dtype)))
        x = x.astype(dtype_for(x, logits))
        largest, indices = lax.top_k(logits, top_k)
        log_sum = jax.nn.logsumexp(largest if gates == "chosen" else logits, -1, keepdims=True)
        choices = jax.nn.one_hot(indices, num_experts, dtype=logits.dtype)
        y, dropped = run_experts(experts, x, choices, jnp.exp(largest - log_sum))
        return y, _routing(logits, choices, dropped)

    return mixture


def _on_all(experts: Any, x: jax.Array, choices: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Every expert on every token.

    Args:
      experts: from `[..., features]` to `[expert, ..., out]`.
      x: `[..., features]`.
      choices: `[..., k, expert]`, one-hot.
      weights: `[..., k]`, of the choices.
    Returns:
      `[..., out]`, and the share of choices that were dropped, none.
    """
    each = _vectors(experts(x), x.shape[:-1])
    weights = jnp.einsum("...k,...ke->...e", weights, choices)
    # What an expert makes of a token that is not its own may be infinite, which zero times it is not.
    each = jnp.where(jnp.moveaxis(choices.any(-2), -1, 0)[..., None], each, 0)
    y = jnp.einsum("...e,e...f->...f", weights, each.astype(weights.dtype))
    return y.astype(each.dtype), jnp.zeros((), weights.dtype)


def _on_chosen(
    factor: float, experts: Any, x: jax.Array, choices: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Each expert on the tokens that chose it, as many as it has room for.

    Args:
      factor: the room of all experts as a multiple of all choices.
      experts: from `[expert, ..., room, features]` to `[expert, ..., room, out]`.
      x: `[..., tokens, features]`.
      choices: `[..., tokens, k, expert]`, one-hot.
      weights: `[..., tokens, k]`, of the choices.
    Returns:
      `[..., tokens, out]`, and the share of choices that were dropped.
    """
    tokens, top_k, num_experts = choices.shape[-3:]
    room = min(math.ceil(factor * top_k * tokens / num_experts), tokens)
    choices = choices.astype(jnp.int32)
    place = _places(choices)
    slots = jax.nn.one_hot(place, room, dtype=jnp.int32)
    sent = jnp.einsum("...tke,...tkc->...tec", choices, slots)
    # Rows are looked up, not summed with weights of 0 and 1: zero times what is infinite is not zero.
    token = jnp.einsum("...tec,t->...ec", sent, jnp.arange(tokens))
    given = _rows(x, token.reshape(*token.shape[:-2], num_experts * room))
    given = jnp.where(sent.any(-3)[..., None], given.reshape(*token.shape, x.shape[-1]), 0)
    each = _vectors(experts(jnp.moveaxis(given, -3, 0)), (*x.shape[:-2], room))
    returned = jnp.moveaxis(each, 0, -3)
    returned = returned.reshape(*returned.shape[:-3], num_experts * room, returned.shape[-1])
    slot = jnp.minimum(jnp.argmax(choices, -1) * room + place, num_experts * room - 1)
    back = _rows(returned, slot.reshape(*slot.shape[:-2], tokens * top_k)).reshape(*slot.shape, each.shape[-1])
    kept = place < room
    back = jnp.where(kept[..., None], back.astype(weights.dtype), 0)
    y = jnp.einsum("...tk,...tkf->...tf", weights, back)
    return y.astype(each.dtype), (~kept).sum(dtype=weights.dtype) / max(kept.size, 1)


def _rows(table: jax.Array, indices: jax.Array) -> jax.Array:
    """Rows of each table: `[..., num, features]` from `[..., rows, features]` and `[..., num]`."""
    return jnp.take_along_axis(table, indices[..., None], -2, mode="fill")


def _places(choices: jax.Array) -> jax.Array:
    """How many choices of the same expert come before each one, first ones before second: `[..., tokens, k]`."""
    by_rank = jnp.swapaxes(choices, -2, -3)
    in_turn = by_rank.reshape(*by_rank.shape[:-3], math.prod(by_rank.shape[-3:-1]), by_rank.shape[-1])
    before = (jnp.cumsum(in_turn, -2) - in_turn).reshape(by_rank.shape)
    return jnp.swapaxes((before * by_rank).sum(-1), -1, -2)


def _routing(logits: jax.Array, choices: jax.Array, dropped: jax.Array) -> Routing:
    def mean(array: jax.Array, num_kept: int) -> jax.Array:
        axes = tuple(range(array.ndim - num_kept))
        return array.sum(axes) / max(math.prod(array.shape[: array.ndim - num_kept]), 1)

    share, probability = mean(choices, 1), mean(jax.nn.softmax(logits), 1)
    z_loss = mean(jnp.square(jax.nn.logsumexp(logits, -1)), 0)
    return Routing(logits.shape[-1] * jnp.sum(share * probability), z_loss, share, dropped)


def _vectors(each: Any, leading: tuple[int, ...]) -> Any:
    """The experts' outputs; refuses all but one vector for each token."""
    if len(getattr(each, "shape", ())) != len(leading) + 2 or each.shape[1:-1] != leading:
        given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), each)
        wanted = ", ".join(map(str, (*leading, "out")))
        raise ShapeError(f"an expert that returns one array [{wanted}]", shape_of(given))
    return each


def _check_arguments(expert: Net, num_experts: int, top_k: int, gates: str, capacity_factor: float | None) -> None:
    name = "mixture_of_experts"
    if not isinstance(expert, Net):
        raise TypeError(f"{name}: expected a network, got {expert!r}")
    check_size(name, "num_experts", num_experts)
    check_size(name, "top_k", top_k)
    if top_k > num_experts:
        raise ValueError(f"{name}: expected top_k to be at most num_experts = {num_experts}, got {top_k}")
    if gates not in ("chosen", "all"):
        raise ValueError(f"{name}: expected gates to be 'chosen' or 'all', got {gates!r}")
    if top_k == 1 and gates == "chosen":
        raise ValueError(f"{name}: expected gates='all' with top_k=1, got 'chosen': the router would not learn")
    if capacity_factor is not None and not capacity_factor > 0:
        raise ValueError(f"{name}: expected capacity_factor to be None or above 0, got {capacity_factor!r}")
