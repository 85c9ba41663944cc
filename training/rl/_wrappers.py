"""Functions from environments to environments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from .._checks import check_count
from .._environment import Environment, environment, environment_of, where
from ._spaces import Box
from ._wrapping import altered, batch_of, bounds, restarted


class TimeLimitState(NamedTuple):
    """The environment's state, and the steps since the episode began, `[*batch]`."""

    env_state: Any
    time: jax.Array


@environment
def time_limit(env: Any, num_steps: int) -> Environment:
    """Truncates every episode after so many steps, or earlier where the environment does.

    Args:
      env: an environment.
      num_steps: after how many.
    Returns:
      An environment whose state is a `TimeLimitState`. An episode may be terminated by the very step that it is
      truncated after: both are then true.
    Raises:
      TypeError: for no environment.
      ValueError: for a count below 1.

    >>> env = rl.time_limit(rl.pendulum(), 2)
    >>> obs, state = env.reset(jax.random.key(0))
    >>> for _ in range(2):
    ...     obs, state, reward, terminated, truncated, info = env.step(jax.random.key(1), state, jnp.zeros(1))
    >>> truncated.item(), terminated.item(), state.time.item()
    (True, False, 0)
    """
    env = environment_of("time_limit", env)
    check_count("time_limit", "num_steps", num_steps, at_least=1)

    def reset_env(key: jax.Array, params: Any) -> tuple[Any, TimeLimitState]:
        obs, state = env.reset_env(key, params)
        return obs, TimeLimitState(state, jnp.zeros(batch_of(env, state, params), jnp.int32))

    def step_env(key: jax.Array, state: TimeLimitState, action: Any, params: Any) -> Any:
        obs, env_state, *rest = env.step_env(key, state.env_state, action, params)
        return obs, TimeLimitState(env_state, state.time + 1), *rest

    def is_truncated(state: TimeLimitState, params: Any) -> jax.Array:
        return env.is_truncated(state.env_state, params) | (state.time >= num_steps)

    def restart_env(key: jax.Array, ended: jax.Array, obs: Any, state: TimeLimitState, params: Any) -> Any:
        obs, env_state = env.restart_env(key, ended, obs, state.env_state, params)
        return obs, TimeLimitState(env_state, jnp.where(ended, 0, state.time))

    return altered(env, reset_env=reset_env, step_env=step_env, is_truncated=is_truncated, restart_env=restart_env)


@environment
def transform_observations(env: Any, fn: Callable[[Any], Any], space: Any = None) -> Environment:
    """Observations passed through a function: flattened, clipped, a part of them.

    Args:
      env: an environment.
      fn: `observation -> observation`; of a vectorized environment it is given all of them at once.
      space: of the observations that `fn` returns; unknown unless given.
    Returns:
      An environment with the same states.
    Raises:
      TypeError: for no environment.

    >>> env = rl.transform_observations(rl.cart_pole(), lambda obs: obs[..., ::2], rl.Box(-5.0, 5.0, (2,)))
    >>> obs, state = env.reset(jax.random.key(0))
    >>> obs.shape, env.step(jax.random.key(1), state, 1)[5]["final_observation"].shape
    ((2,), (2,))
    """
    env = environment_of("transform_observations", env)

    def reset_env(key: jax.Array, params: Any) -> Any:
        obs, state = env.reset_env(key, params)
        return fn(obs), state

    def step_env(key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        obs, *rest = env.step_env(key, state, action, params)
        return fn(obs), *rest

    def restart_env(key: jax.Array, ended: jax.Array, obs: Any, state: Any, params: Any) -> Any:
        first, state = restarted(env, key, ended, state, params)
        return where(ended, fn(first), obs), state

    return altered(env, reset_env=reset_env, step_env=step_env, restart_env=restart_env, observation_space=space)


@environment
def transform_rewards(env: Any, fn: Callable[[jax.Array], jax.Array]) -> Environment:
    """Rewards passed through a function: scaled, clipped.

    Args:
      env: an environment.
      fn: `reward -> reward`; of a vectorized environment it is given all of them at once.
    Returns:
      An environment with the same states, and `info["raw_reward"]`, the reward of the innermost environment.
    Raises:
      TypeError: for no environment.

    >>> env = rl.transform_rewards(rl.pendulum(), lambda reward: reward / 8)
    >>> _, state = env.reset(jax.random.key(0))
    >>> _, _, reward, _, _, info = env.step(jax.random.key(1), state, jnp.zeros(1))
    >>> (8 * reward == info["raw_reward"]).item()
    True
    """
    env = environment_of("transform_rewards", env)

    def step_env(key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        obs, state, reward, terminated, info = env.step_env(key, state, action, params)
        return obs, state, fn(jnp.asarray(reward)), terminated, {"raw_reward": jnp.asarray(reward)} | info

    return altered(env, step_env=step_env)


@environment
def scale_actions(env: Any) -> Environment:
    """Actions in [-1, 1], stretched to the box of the environment's own.

    Actions beyond are stretched likewise: `scale_actions(clip_actions(env))` clips them.

    Args:
      env: an environment whose actions are in a box.
    Returns:
      An environment with the same states and observations.
    Raises:
      TypeError: for no environment, and one whose actions are in no box.
      ValueError: for a box without bounds.

    >>> env = rl.scale_actions(rl.pendulum())
    >>> env.action_space()
    Box(-1.0, 1.0, (1,))
    """
    env = environment_of("scale_actions", env)
    for bound in bounds("scale_actions", env):
        if not isinstance(bound, Tracer) and not np.all(np.isfinite(bound)):
            raise ValueError(
                f"scale_actions: expected actions between finite bounds, got {env.action_space()!r}. "
                "What is unbounded has no scale; leave it as it is."
            )

    def step_env(key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        low, high = bounds("scale_actions", env, params)
        return env.step_env(key, state, low + (jnp.asarray(action) + 1) * ((high - low) / 2), params)

    return altered(env, step_env=step_env, action_space=lambda params: Box(-1.0, 1.0, env.action_space(params).shape))


@environment
def clip_actions(env: Any) -> Environment:
    """Actions clipped to the box of the environment's own, for policies that do not know it.

    Args:
      env: an environment whose actions are in a box.
    Returns:
      An environment with the same states and observations.
    Raises:
      TypeError: for no environment, and one whose actions are in no box.

    >>> env = rl.clip_actions(rl.pendulum())
    >>> env.action_space()
    Box(-2.0, 2.0, (1,))
    """
    env = environment_of("clip_actions", env)
    bounds("clip_actions", env)

    def step_env(key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        return env.step_env(key, state, jnp.clip(action, *bounds("clip_actions", env, params)), params)

    return altered(env, step_env=step_env)


@environment
def vectorize(env: Any, num_envs: int) -> Environment:
    """So many environments as one: observations, states, actions, rewards and ends have them as their first axis.

    They share their parameters, and each has its own keys. The spaces stay those of one environment. It may be
    vectorized again. New episodes are computed only in steps in which one has ended, unless under `jax.vmap`.

    Args:
      env: an environment.
      num_envs: how many.
    Returns:
      An environment.
    Raises:
      TypeError: for no environment.
      ValueError: for a count below 1.

    >>> env = rl.vectorize(rl.cart_pole(), 8)
    >>> obs, state = env.reset(jax.random.key(0))
    >>> obs, state, reward, *ends, info = env.step(jax.random.key(1), state, jnp.ones(8, int))
    >>> obs.shape, reward.shape
    ((8, 4), (8,))
    """
    env = environment_of("vectorize", env)
    check_count("vectorize", "num_envs", num_envs, at_least=1)

    def over(fn: Callable[..., Any], *axes: int | None) -> Callable[..., Any]:
        return jax.vmap(fn, axes, axis_size=num_envs)

    def reset_env(key: jax.Array, params: Any) -> Any:
        return over(env.reset_env, 0, None)(jax.random.split(key, num_envs), params)

    def step_env(key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        return over(env.step_env, 0, 0, 0, None)(jax.random.split(key, num_envs), state, action, params)

    def is_truncated(state: Any, params: Any) -> jax.Array:
        return over(env.is_truncated, 0, None)(state, params)

    def restart_env(key: jax.Array, ended: jax.Array, obs: Any, state: Any, params: Any) -> Any:
        def begin() -> Any:
            keys = jax.random.split(key, num_envs)
            return over(env.restart_env, 0, 0, 0, 0, None)(keys, ended, obs, state, params)

        return lax.cond(jnp.any(ended), begin, lambda: (obs, state))

    return altered(env, reset_env=reset_env, step_env=step_env, is_truncated=is_truncated, restart_env=restart_env)
