"""Steps of a chain on a loss, through which gradients go."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ..optim import differentiable, oracle

UNROLLED = 5


class Descent(NamedTuple):
    """What steps of a chain led to.

    Attributes:
      params: the parameters after the last step.
      losses: before each step, `[num_steps]`.
      aux: what the loss returned beside them, stacked.
      seen: `look(params, index)` after each step, stacked; None if nobody looked.
    """

    params: Any
    losses: jax.Array
    aux: Any
    seen: Any


def descend(
    loss_fn: Callable[[Any, jax.Array], tuple[jax.Array, Any]],
    inner: optax.GradientTransformation,
    params: Any,
    num_steps: int,
    *,
    first_order: bool | float | jax.Array = False,
    truncate: int | None = None,
    checkpoint: bool = False,
    look: Callable[[Any, jax.Array], Any] = lambda params, index: None,
) -> Descent:
    """Takes steps of a chain on a loss.

    Args:
      loss_fn: `loss_fn(params, index) -> (loss, aux)` of the step `index`.
      inner: the chain; derivatives of zero stand in where it takes a root of zero.
      params: where to start.
      num_steps: how many steps.
      first_order: the share of the inner gradients' own derivatives that is left out; True for all.
      truncate: gradients go through so many steps, the last ones. What came before counts as a constant shift of the
        parameters.
      checkpoint: whether inner steps are computed again in the backward pass, in groups of about the root of their
        number.
      look: `look(params, index)` after the step `index`.
    """
    tx, constant = differentiable(inner), _constant(first_order)

    def one(carry: Any, index: jax.Array) -> tuple[Any, tuple[jax.Array, Any, Any]]:
        params, opt_state = carry
        found = oracle(lambda params: loss_fn(params, index), params, has_aux=True)
        extra = {name: constant(value) for name, value in found.extra.items()}
        updates, opt_state = tx.update(extra["grad"], opt_state, params, **extra)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), (found.value, found.aux, look(params, index))

    carry, first = (params, tx.init(params)), 0 if truncate is None else max(num_steps - truncate, 0)
    traces = []
    if first:

        def early(carry: Any, index: jax.Array) -> tuple[Any, tuple[jax.Array, Any, Any]]:
            (moved, opt_state), (loss, aux, _) = lax.stop_gradient(one(carry, index))
            return (moved, opt_state), (loss, aux, look(_shifted(params, moved), index))

        (moved, opt_state), trace = lax.scan(early, carry, np.arange(first))
        carry, traces = (_shifted(params, moved), opt_state), [trace]
    carry, late = _scanned(one, carry, np.arange(first, num_steps), checkpoint=checkpoint)
    losses, aux, seen = jax.tree.map(lambda *parts: jnp.concatenate(parts), *traces, late)
    return Descent(carry[0], losses, aux, seen)


def _shifted(params: Any, moved: Any) -> Any:
    """Parameters where they were moved to, their derivatives those of where they began."""
    return jax.tree.map(lambda old, new: old + lax.stop_gradient(new - old), params, moved)


def _constant(first_order: bool | float | jax.Array) -> Callable[[Any], Any]:
    """Makes trees, and functions that return them, constant to the share that is wanted; their values stay."""
    if first_order is False:
        return lambda value: value

    def leaf(value: Any) -> Any:
        still = lax.stop_gradient(value)
        return still if first_order is True else (still + (1 - first_order) * (value - still)).astype(still.dtype)

    def constant(value: Any) -> Any:
        if callable(value):
            return lambda *args, **kwargs: jax.tree.map(leaf, value(*args, **kwargs))
        return jax.tree.map(leaf, value)

    return constant


def _scanned(one: Any, carry: Any, indices: np.ndarray, *, checkpoint: bool) -> Any:
    """A scan; with `checkpoint`, one over groups whose inside is computed again when it is gone through backwards."""
    if not checkpoint and not 0 < len(indices) <= UNROLLED:
        return lax.scan(one, carry, indices)
    if not checkpoint:  # a scan of a few small steps costs more than they do, even an unrolled one
        traces = []
        for index in indices:
            carry, trace = one(carry, index)
            traces.append(trace)
        return carry, jax.tree.map(lambda *each: jnp.stack(each), *traces)
    size = max(math.isqrt(len(indices)), 1)
    whole = len(indices) - len(indices) % size
    body = jax.checkpoint(one)
    carry, outer = lax.scan(
        jax.checkpoint(lambda carry, group: lax.scan(body, carry, group)), carry, indices[:whole].reshape(-1, size)
    )
    carry, rest = lax.scan(body, carry, indices[whole:])
    together = jax.tree.map(
        lambda group, last: jnp.concatenate([group.reshape(-1, *last.shape[1:]), last]), outer, rest
    )
    return carry, together
