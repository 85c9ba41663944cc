"""Returns and advantages of trajectories on policy, exact at the ends of episodes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from .._checks import check_count
from ._backwards import backwards, checked


class Estimates(NamedTuple):
    """What to learn from at each step.

    Attributes:
      advantages: of the actions over what the values expected, `[time, ...]`: what a policy learns from.
      targets: of the values, `[time, ...]`.
    """

    advantages: jax.Array
    targets: jax.Array


def discounted_returns(
    rewards: ArrayLike,
    *,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
    next_values: ArrayLike | None = None,
) -> jax.Array:
    """The rewards to come: `G[t] = r[t] + discount * G[t + 1]`, up to the end of the episode.

    Source: Sutton, Barto 2018, http://incompleteideas.net/book/the-book-2nd.html, equation 3.9.

    Args:
      rewards: `[time, ...]`.
      terminated: `[time, ...]`, Booleans: the episode is over after the step, and nothing is to be expected.
      truncated: `[time, ...]`, Booleans: the episode was cut off after the step.
      discount: one number, or one for each reward.
      next_values: of the true next observations, `[time, ...]`, which stand for what is not known: after a truncation
        and after the last step. 0 unless given.
    Returns:
      The returns, `[time, ...]`.
    Raises:
      ValueError: for what has not the shape of `rewards`, and rates out of range.
      TypeError: for flags that are not Booleans.

    >>> rewards, ends, never = jnp.ones(4), jnp.array([False, True, False, False]), jnp.zeros(4, bool)
    >>> discounted_returns(rewards, terminated=ends, truncated=never, discount=0.5).tolist()
    [1.5, 1.0, 1.5, 1.0]
    """
    next_values = jnp.zeros_like(jnp.asarray(rewards)) if next_values is None else next_values
    return _mixed("discounted_returns", rewards, next_values, terminated, truncated, discount, 1.0)


def lambda_returns(
    rewards: ArrayLike,
    next_values: ArrayLike,
    *,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
    decay: ArrayLike,
) -> jax.Array:
    """The returns of TD(λ): means of the returns of all lengths, `(1 - decay) * decay**n` the weight of each.

    `G[t] = r[t] + discount * ((1 - decay) * next_values[t] + decay * G[t + 1])`. With a decay of 0 the values alone say
    what comes next; with 1 they do so only after a truncation and after the last step.

    Source: Sutton, Barto 2018, http://incompleteideas.net/book/the-book-2nd.html, equation 12.20 with
    state values.

    Args:
      rewards: `[time, ...]`.
      next_values: of the true next observations, `[time, ...]`.
      terminated: `[time, ...]`, Booleans: the episode is over after the step, and nothing is to be expected.
      truncated: `[time, ...]`, Booleans: the episode was cut off after the step.
      discount: one number, or one for each reward.
      decay: λ, one number, or one for each reward.
    Returns:
      The returns, `[time, ...]`.
    Raises:
      ValueError: for what has not the shape of `rewards`, and rates out of range.
      TypeError: for flags that are not Booleans.

    >>> never = jnp.zeros(3, bool)
    >>> found = lambda_returns(
    ...     jnp.ones(3), jnp.full(3, 8.0), terminated=never, truncated=never, discount=0.5, decay=0.5
    ... )
    >>> found.tolist()
    [4.0625, 4.25, 5.0]
    """
    return _mixed("lambda_returns", rewards, next_values, terminated, truncated, discount, decay)


def n_step_returns(
    rewards: ArrayLike,
    next_values: ArrayLike,
    *,
    num_steps: int,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
) -> jax.Array:
    """The rewards of the next steps, and the value of what comes after: fewer steps where the trajectory ends.

    `G[t] = r[t] + ... + discount**(n - 1) * r[t + n - 1] + discount**n * next_values[t + n - 1]`.

    Source: Sutton, Barto 2018, http://incompleteideas.net/book/the-book-2nd.html, equation 7.1.

    Args:
      rewards: `[time, ...]`.
      next_values: of the true next observations, `[time, ...]`.
      num_steps: n, at least 1; with as many as there are, the returns are the discounted ones.
      terminated: `[time, ...]`, Booleans: the episode is over after the step, and nothing is to be expected.
      truncated: `[time, ...]`, Booleans: the episode was cut off after the step.
      discount: one number, or one for each reward.
    Returns:
      The returns, `[time, ...]`.
    Raises:
      ValueError: for what has not the shape of `rewards`, and numbers out of range.
      TypeError: for flags that are not Booleans.

    >>> never = jnp.zeros(3, bool)
    >>> found = n_step_returns(
    ...     jnp.ones(3), jnp.full(3, 8.0), num_steps=2, terminated=never, truncated=never, discount=0.5
    ... )
    >>> found.tolist()
    [3.5, 3.5, 5.0]
    """
    check_count("n_step_returns", "num_steps", num_steps, at_least=1)
    flags = {"terminated": terminated, "truncated": truncated}
    steps = checked("n_step_returns", rewards, {"next_values": next_values}, flags=flags, rates={"discount": discount})
    shortest = steps.rewards + steps.expected(steps.others["next_values"])

    def longer(returns: jax.Array, _: None) -> tuple[jax.Array, None]:
        after = jnp.where(steps.last, 0, jnp.roll(returns, -1, 0))
        return jnp.where(steps.last, shortest, steps.rewards + steps.discount * after), None

    return lax.scan(longer, shortest, length=min(num_steps, len(shortest)) - 1)[0]


def gae(
    rewards: ArrayLike,
    values: ArrayLike,
    next_values: ArrayLike,
    *,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
    decay: ArrayLike,
) -> Estimates:
    """Generalised advantage estimates, and the targets of the values that go with them.

    `A[t] = r[t] + discount * next_values[t] - values[t] + discount * decay * A[t + 1]`. After a termination nothing is
    expected; after a truncation the value of the true next observation is; in both cases nothing comes back from the
    next episode. The targets, `A + values`, are `lambda_returns`. They follow the derivatives of the values:
    `jax.lax.stop_gradient` holds them fixed in a loss.

    Source: Schulman, Moritz, Levine, Jordan, Abbeel 2015, https://arxiv.org/abs/1506.02438, equation 16; truncation
    after Pardo, Tavakoli, Levdik, Kormushev 2018, https://arxiv.org/abs/1712.00378, equation 6.

    Args:
      rewards: `[time, ...]`.
      values: of the observations, `[time, ...]`.
      next_values: of the true next observations, before any restart, `[time, ...]`.
      terminated: `[time, ...]`, Booleans: the episode is over after the step, and nothing is to be expected.
      truncated: `[time, ...]`, Booleans: the episode was cut off after the step.
      discount: one number, or one for each reward.
      decay: λ, one number, or one for each reward.
    Returns:
      `Estimates(advantages, targets)`.
    Raises:
      ValueError: for what has not the shape of `rewards`, and rates out of range.
      TypeError: for flags that are not Booleans.

    >>> never, cut = jnp.zeros(3, bool), jnp.array([False, True, False])
    >>> zero, eight = jnp.zeros(3), jnp.full(3, 8.0)
    >>> found = gae(jnp.ones(3), zero, eight, terminated=never, truncated=cut, discount=0.5, decay=0.5)
    >>> found.advantages.tolist()
    [6.25, 5.0, 5.0]
    """
    steps = checked(
        "gae",
        rewards,
        {"values": values, "next_values": next_values},
        flags={"terminated": terminated, "truncated": truncated},
        rates={"discount": discount, "decay": decay},
    )
    errors = steps.rewards + steps.expected(steps.others["next_values"]) - steps.others["values"]
    advantages = backwards(steps.discount * steps.others["decay"], errors, steps.ended)
    return Estimates(advantages, advantages + steps.others["values"])


def _mixed(
    name: str,
    rewards: ArrayLike,
    next_values: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
    decay: ArrayLike,
) -> jax.Array:
    steps = checked(
        name,
        rewards,
        {"next_values": next_values},
        flags={"terminated": terminated, "truncated": truncated},
        rates={"discount": discount, "decay": decay},
    )
    decay = jnp.where(steps.last, 0, steps.others["decay"])
    terms = steps.rewards + steps.expected((1 - decay) * steps.others["next_values"])
    return backwards(steps.discount * decay, terms, steps.last)
