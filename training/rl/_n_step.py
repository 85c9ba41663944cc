"""Transitions over several steps, from sequences."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._backwards import checked


class NStep(NamedTuple):
    """Several steps as one.

    Attributes:
      rewards: their discounted sum, up to the end of the episode, `[...]`.
      discounts: of the value of the last next observation, 0 after a termination, `[...]`.
      last: which step is the last one of it, `[...]`, int32: that at which the episode ends, or that of the sequence.
    """

    rewards: jax.Array
    discounts: jax.Array
    last: jax.Array


def n_step(rewards: ArrayLike, *, terminated: ArrayLike, truncated: ArrayLike, discount: ArrayLike) -> NStep:
    """Sequences as single transitions of their first steps: a target is `rewards + discounts * value`.

    The value is that of the next observation of the step `last`, which `take_step` picks: one for each sequence, where
    `n_step_returns` needs one for each step.

    Source: Sutton, Barto 2018, http://incompleteideas.net/book/the-book-2nd.html, equation 7.1.

    Args:
      rewards: `[time, ...]`, such as a sample of a replay buffer has with `sequence_length`.
      terminated: `[time, ...]`, Booleans: the episode is over after the step, and nothing is to be expected.
      truncated: `[time, ...]`, Booleans: the episode was cut off after the step.
      discount: one number, or one for each reward.
    Returns:
      `NStep(rewards, discounts, last)`.
    Raises:
      ValueError: for what has not the shape of `rewards`, and rates out of range.
      TypeError: for flags that are not Booleans.

    >>> rewards, cut, never = jnp.ones(3), jnp.array([False, True, False]), jnp.zeros(3, bool)
    >>> found = n_step(rewards, terminated=never, truncated=cut, discount=0.5)
    >>> found.rewards.item(), found.discounts.item(), found.last.item()
    (1.5, 0.25, 1)
    """
    flags = {"terminated": terminated, "truncated": truncated}
    steps = checked("n_step", rewards, {}, flags=flags, rates={"discount": discount})
    of_it = jnp.cumsum(steps.ended, 0) - steps.ended == 0
    reached = jnp.cumprod(jnp.where(of_it, steps.discount, 1), 0)
    before = jnp.concatenate((jnp.ones_like(reached[:1]), reached[:-1]))
    total = jnp.sum(jnp.where(of_it, before * steps.rewards, 0), 0)
    return NStep(total, reached[-1], jnp.sum(of_it, 0, dtype=jnp.int32) - 1)


def take_step(data: Any, steps: ArrayLike) -> Any:
    """One step of each sequence.

    Args:
      data: a pytree of arrays `[time, batch..., ...]`.
      steps: which step, integers `[batch...]`.
    Returns:
      A pytree of arrays `[batch..., ...]`.

    >>> take_step({"obs": jnp.array([[1, 2], [3, 4], [5, 6]])}, jnp.array([2, 0]))["obs"].tolist()
    [5, 2]
    """
    steps = jnp.asarray(steps)
    places = jnp.ix_(*(jnp.arange(num) for num in steps.shape))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[steps, *places], data)
