"""Clipping by the norm of all gradients together."""

from typing import Any

import jax.numpy as jnp
import optax

from ._link import check_not_negative, link
from ._trees import combine, root, square


@link
def clip_by_global_norm(max_norm: Any) -> optax.GradientTransformationExtraArgs:
    """Scales updates down to a norm over all of them together, where theirs is above it.

    One factor is computed and multiplied where the updates are used, so that no second copy of them is made; Optax's
    function of this name divides and selects, which takes one. Up to rounding they are equal. The derivative at zero
    updates is finite.

    Source: Pascanu, Mikolov, Bengio 2013, https://arxiv.org/abs/1211.5063, algorithm 1.

    Args:
      max_norm: the largest l2 norm, at least 0.
    Returns:
      A link.
    Raises:
      ValueError: if `max_norm` is negative.

    >>> tx = clip_by_global_norm(1.0)
    >>> updates, _ = tx.update({"w": jnp.array([3.0, 4.0])}, tx.init({"w": jnp.zeros(2)}))
    >>> [round(update, 3) for update in updates["w"].tolist()]
    [0.6, 0.8]
    """
    check_not_negative("clip_by_global_norm", "max_norm", max_norm)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        norm = root(square(updates))
        inside = norm <= max_norm
        factor = jnp.where(inside, 1.0, max_norm / jnp.where(inside, 1.0, norm))
        return combine(lambda leaf: factor * leaf, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
