"""Observations with those before them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import check_count
from .._environment import Environment, environment, environment_of, where
from ._spaces import Box
from ._wrapping import altered, batch_of, restarted


class FrameStackState(NamedTuple):
    """The environment's state, and the last observations, `[*batch, num_frames, ...]`."""

    env_state: Any
    frames: Any


@environment
def frame_stack(env: Any, num_frames: int) -> Environment:
    """The last observations of an episode as one, the oldest first.

    Where an episode begins, its first observation fills all places: no observation of another episode is seen.

    Args:
      env: an environment.
      num_frames: how many.
    Returns:
      An environment whose observations are `[num_frames, ...]`, after the batch axes of a vectorized one, and whose
      state is a `FrameStackState`.
    Raises:
      TypeError: for no environment.
      ValueError: for a count below 1.

    >>> env = rl.frame_stack(rl.cart_pole(), 3)
    >>> obs, state = env.reset(jax.random.key(0))
    >>> obs, state, *_ = env.step(jax.random.key(1), state, 1)
    >>> obs.shape, (obs[0] == obs[1]).all().item(), (obs[1] == obs[2]).all().item()
    ((3, 4), True, False)
    """
    env = environment_of("frame_stack", env)
    check_count("frame_stack", "num_frames", num_frames, at_least=1)

    def filled(obs: Any, axis: int) -> Any:
        return jax.tree.map(lambda leaf: jnp.repeat(jnp.expand_dims(leaf, axis), num_frames, axis), obs)

    def pushed(frames: Any, obs: Any, axis: int) -> Any:
        def push(frames: jax.Array, leaf: Any) -> jax.Array:
            kept = jax.lax.slice_in_dim(frames, 1, None, axis=axis)
            return jnp.concatenate([kept, jnp.expand_dims(jnp.asarray(leaf, frames.dtype), axis)], axis)

        return jax.tree.map(push, frames, obs)

    def reset_env(key: jax.Array, params: Any) -> tuple[Any, FrameStackState]:
        obs, state = env.reset_env(key, params)
        frames = filled(obs, len(batch_of(env, state, params)))
        return frames, FrameStackState(state, frames)

    def step_env(key: jax.Array, state: FrameStackState, action: Any, params: Any) -> Any:
        obs, env_state, reward, terminated, info = env.step_env(key, state.env_state, action, params)
        frames = pushed(state.frames, obs, jnp.ndim(terminated))
        return frames, FrameStackState(env_state, frames), reward, terminated, info

    def is_truncated(state: FrameStackState, params: Any) -> jax.Array:
        return env.is_truncated(state.env_state, params)

    def restart_env(key: jax.Array, ended: jax.Array, obs: Any, state: FrameStackState, params: Any) -> Any:
        first, env_state = restarted(env, key, ended, state.env_state, params)
        frames = where(ended, filled(first, jnp.ndim(ended)), state.frames)
        return frames, FrameStackState(env_state, frames)

    return altered(
        env,
        reset_env=reset_env,
        step_env=step_env,
        is_truncated=is_truncated,
        restart_env=restart_env,
        observation_space=lambda params: jax.tree.map(
            lambda space: _stacked(space, num_frames), env.observation_space(params)
        ),
    )


def _stacked(space: Any, num_frames: int) -> Any:
    """The space of so many elements of a space."""
    if not hasattr(space, "low"):
        return Box(0, space.n - 1, (num_frames,), space.dtype) if hasattr(space, "n") else None
    numpy = np if isinstance(space.low, np.ndarray | float | int) else jnp
    low, high = (numpy.broadcast_to(bound, space.shape) for bound in (space.low, space.high))
    return Box(low, high, (num_frames, *space.shape), space.dtype)
