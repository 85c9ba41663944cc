"""Parameters that stay in a set: what a constraint is to a gradient step."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from ._link import link


@link
def project(projection: Callable[[Any], Any]) -> optax.GradientTransformationExtraArgs:
    """Brings parameters back into a set after each step: written last in a chain, projected gradient descent.

    Source: Goldstein 1964, https://doi.org/10.1090/S0002-9904-1964-11178-2, equation 1.

    Args:
      projection: `params -> params`, the nearest point of the set, such as those of `optax.projections`. Under
        `by_player`, masks and partitions it is given the parameters of its part.
    Returns:
      A link. Its `update` wants `params`.
    Raises:
      ValueError: from `update`, without `params`.

    >>> tx = chain(sgd(1.0), project(lambda params: jax.tree.map(lambda leaf: jnp.clip(leaf, 0, 1), params)))
    >>> params = {"w": jnp.array([0.5, 0.5, 0.5])}
    >>> updates, _ = tx.update({"w": jnp.array([1.0, 0.25, -1.0])}, tx.init(params), params)
    >>> (params["w"] + updates["w"]).tolist()
    [0.0, 0.25, 1.0]
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("project: expected params, got None. Call update(updates, state, params).")
        inside = projection(optax.apply_updates(params, updates))
        return jax.tree.map(lambda to, at, given: (to - at).astype(given.dtype), inside, params, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
