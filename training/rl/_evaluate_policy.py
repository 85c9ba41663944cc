"""How well a policy does: the returns of whole episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._call import recording
from .._checks import check_count
from .._rollout import rollout
from ._wrappers import vectorize


class Episodes(NamedTuple):
    """One episode of each environment.

    Attributes:
      returns: the sum of its rewards, `[episodes]`.
      lengths: its steps, `[episodes]`.
      ended: whether it came to its end; otherwise there were too few steps, and the sum is that so far.
    """

    returns: jax.Array
    lengths: jax.Array
    ended: jax.Array


@recording
def evaluate_policy(
    env: Any,
    policy: Callable[..., Any],
    num_episodes: int,
    num_steps: int,
    *,
    initial_carry: Callable[[Any, Any], Any] | None = None,
    has_aux: bool = False,
) -> Callable[..., Episodes]:
    """Whole episodes of a policy, each alone in its environment.

    Means over the episodes that end within a rollout favour short ones; here each environment's first counts, and no
    other.

    Args:
      env: one environment; not one on the host, which cannot be mapped over.
      policy: as for `training.rollout`; it sees `num_episodes` observations at once.
      num_episodes: how many environments.
      num_steps: the most that an episode takes, such as the limit of its time.
      initial_carry: as for `training.rollout`.
      has_aux: as for `training.rollout`.
    Returns:
      `(params, key, env_params=None) -> Episodes`, pure. It prints, compares and hashes as the call that made it.
    Raises:
      TypeError: for no environment.
      ValueError: for counts below 1; and what `training.rollout` raises.

    >>> lean = lambda params, obs, key: (obs @ params > 0).astype(int)
    >>> found = rl.evaluate_policy(rl.cart_pole(), lean, 100, 500)(jnp.array([0.0, 0.3, 1.0, 1.0]), jax.random.key(0))
    >>> found.returns.shape, found.returns.min().item(), found.ended.all().item()
    ((100,), 500.0, True)
    """
    check_count("evaluate_policy", "num_episodes", num_episodes, at_least=1)
    check_count("evaluate_policy", "num_steps", num_steps, at_least=1)
    collect = rollout(vectorize(env, num_episodes), policy, num_steps, initial_carry=initial_carry, has_aux=has_aux)

    def evaluate(params: Any, key: jax.Array, env_params: Any = None) -> Episodes:
        _, seen = collect(params, collect.init(key, params, env_params))
        first = jnp.cumsum(seen.ended, 0) == seen.ended
        return Episodes(jnp.sum(jnp.where(first, seen.reward, 0), 0), jnp.sum(first, 0), jnp.any(seen.ended, 0))

    return evaluate
