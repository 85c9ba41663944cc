"""What a rollout carries, and what it leaves to be learnt from."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class RolloutState(NamedTuple):
    """Where a rollout stands: all that it needs to go on.

    Attributes:
      obs: what the policy sees next.
      env_state: the environment's state.
      carry: of a recurrent policy; otherwise `()`.
      first: whether `obs` begins an episode, `[*batch]`.
      episode_return: the rewards of this episode so far, `[*batch]`.
      episode_length: its steps so far, `[*batch]`.
      step: how many steps have been made.
      key: what all random numbers are drawn from.
      env_params: parameters of the environment, or None for its own.
    """

    obs: Any
    env_state: Any
    carry: Any
    first: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    step: jax.Array
    key: jax.Array
    env_params: Any = None


class Trajectory(NamedTuple):
    """What happened in a rollout, time first; `batch` are the axes of a vectorized environment.

    Attributes:
      obs: what the policy saw, `[time, *batch, ...]`.
      action: what it did.
      reward: what that brought, `[time, *batch]`.
      terminated: whether the episode ended there by its own rules: nothing is to be expected after.
      truncated: whether it was cut off there: the value of `next_obs` is still to be expected.
      next_obs: what followed the action; at an episode's end its last observation, not the next one's first.
      first: whether `obs` begins an episode: there a recurrent policy starts from its initial carry.
      aux: what the policy gave beside the action; otherwise None.
      info: what the environment gave beside.
      episode_return: the rewards of the episode up to and with this step.
      episode_length: its steps up to and with this one.
    """

    obs: Any
    action: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_obs: Any
    first: jax.Array
    aux: Any
    info: Any
    episode_return: jax.Array
    episode_length: jax.Array

    @property
    def ended(self) -> jax.Array:
        """Where an episode ended, in either way, `[time, *batch]`."""
        return self.terminated | self.truncated

    @property
    def ends(self) -> dict[str, jax.Array]:
        """Both kinds of end by name, as the functions of returns take them: `rl.gae(..., **trajectory.ends)`."""
        return {"terminated": self.terminated, "truncated": self.truncated}


def episode_metrics(trajectory: Trajectory) -> dict[str, jax.Array]:
    """Mean return and length of the episodes that ended in a trajectory.

    Args:
      trajectory: of any rollout, with any axes of its own in front, those of `jax.vmap` say.
    Returns:
      `{"episodes": how many ended, "return": their mean return, "length": their mean length}`, scalars; the means are
      NaN where none ended.

    >>> from renga.training import rl
    >>> collect = rollout(rl.cart_pole(), lambda params, obs, key: jnp.array(1), 100)
    >>> _, trajectory = collect(None, collect.init(jax.random.key(0), None))
    >>> metrics = episode_metrics(trajectory)
    >>> metrics["episodes"].item(), metrics["return"].item(), metrics["length"].item()
    (11, 9.0, 9.0)
    """
    ended = trajectory.ended
    num = jnp.sum(ended)
    means = {"return": trajectory.episode_return, "length": trajectory.episode_length}
    return {"episodes": num} | {name: jnp.sum(jnp.where(ended, each, 0)) / num for name, each in means.items()}
