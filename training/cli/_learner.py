"""What a learner is to a run: where it begins, an update, and how it acts once it has learnt."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._state import TrainState
from .._trajectory import Trajectory


class Learner(NamedTuple):
    """A learner, by functions.

    Attributes:
      begin: `key -> TrainState`; what it carries beside parameters is in `state`, with `state["seen"]`.
      step: `(train_state, batch) -> (train_state, metrics)`, an update; there is nothing in the batch.
      act: `(params, obs, key) -> action`, or with a carry, for evaluation: without chance.
      initial_carry: of `act`, or None.
      frames: steps of environments an update.
    """

    begin: Callable[[jax.Array], TrainState]
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    act: Callable[..., Any]
    initial_carry: Callable[..., Any] | None
    frames: int


class Seen(NamedTuple):
    """Means over the episodes that ended last: 0 until one has."""

    returns: jax.Array
    lengths: jax.Array


class NoBatches:
    """An endless feed of nothing, for steps that make their own data; it can be taken up anywhere."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[np.ndarray]:
        """The feed from a step on."""
        while True:
            yield np.zeros(0, np.float32)


def nothing_seen() -> Seen:
    """Before the first episode has ended."""
    return Seen(jnp.zeros(()), jnp.zeros(()))


def seen_after(seen: Seen, trajectory: Trajectory, decay: float = 0.9) -> Seen:
    """Moving means of returns and lengths, by updates in which an episode ended."""
    num = jnp.sum(trajectory.ended)

    def moved(old: jax.Array, each: jax.Array) -> jax.Array:
        new = jnp.sum(jnp.where(trajectory.ended, each, 0)) / jnp.maximum(num, 1)
        kept = jnp.where(seen.lengths > 0, decay, 0.0)
        return jnp.where(num > 0, kept * old + (1 - kept) * new, old).astype(old.dtype)

    return Seen(moved(seen.returns, trajectory.episode_return), moved(seen.lengths, trajectory.episode_length))
