"""Observations and rewards on a scale of 1, by statistics that run along."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._environment import Environment, environment, environment_of, where
from ._running import RunningStatistics, begun, given, merged, standardized
from ._wrapping import altered, batch_of, restarted


class NormalizedObservationsState(NamedTuple):
    """The environment's state, and the statistics of observations."""

    env_state: Any
    statistics: RunningStatistics


class NormalizedRewardsState(NamedTuple):
    """The environment's state, the discounted sum of rewards in the episode `[*batch]`, and the statistics of these."""

    env_state: Any
    discounted: jax.Array
    statistics: RunningStatistics


@environment
def normalize_observations(
    env: Any, *, statistics: RunningStatistics | None = None, update: bool = True, eps: float = 1e-8
) -> Environment:
    """Observations minus their running mean, over their running standard deviation.

    The statistics outlive episodes, and contain every observation that the policy or a bootstrap sees. Around a
    vectorized environment they are one for all; inside, `vectorize(normalize_observations(env), n)`, each has its own.

    Source: Chan, Golub, LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115, equation 2.1, for the merge of a
    batch. These are the values of gymnasium's `NormalizeObservation`, but that nothing is expected beforehand: that
    shifts the variance of observations far from 0.

    Args:
      env: an environment.
      statistics: where to begin, such as `observation_statistics` of a state that was trained with.
      update: whether what is seen changes them; not for evaluation.
      eps: added to the variance.
    Returns:
      An environment whose state is a `NormalizedObservationsState`.
    Raises:
      TypeError: for no environment.
      ValueError: when reset, for statistics of other shapes.

    >>> env = rl.normalize_observations(rl.vectorize(rl.cart_pole(), 8))
    >>> obs, state = env.reset(jax.random.key(0))
    >>> learnt = rl.observation_statistics(state)
    >>> learnt.mean.shape, learnt.num_seen.round().item(), obs.std().round(1).item()
    ((4,), 8.0, 1.0)
    >>> evaluated = rl.normalize_observations(rl.cart_pole(), statistics=learnt, update=False)
    """
    env = environment_of("normalize_observations", env)

    def seen(state: Any, statistics: RunningStatistics, obs: Any, weights: jax.Array) -> Any:
        statistics = merged(statistics, obs, weights) if update else statistics
        return standardized(obs, statistics, eps), NormalizedObservationsState(state, statistics)

    def reset_env(key: jax.Array, params: Any) -> tuple[Any, NormalizedObservationsState]:
        obs, state = env.reset_env(key, params)
        batch = batch_of(env, state, params)
        fresh = begun(jax.tree.map(lambda leaf: jnp.asarray(leaf)[(0,) * len(batch)], obs), 0.0)
        fresh = given("normalize_observations", statistics, fresh)
        return seen(state, fresh, obs, jnp.ones(batch, bool))

    def step_env(key: jax.Array, state: NormalizedObservationsState, action: Any, params: Any) -> Any:
        obs, env_state, reward, terminated, info = env.step_env(key, state.env_state, action, params)
        obs, state = seen(env_state, state.statistics, obs, jnp.ones(jnp.shape(terminated), bool))
        return obs, state, reward, terminated, info

    def restart_env(key: jax.Array, ended: jax.Array, obs: Any, state: NormalizedObservationsState, params: Any) -> Any:
        first, env_state = restarted(env, key, ended, state.env_state, params)
        first, state = seen(env_state, state.statistics, first, ended)
        return where(ended, first, obs), state

    return altered(
        env,
        reset_env=reset_env,
        step_env=step_env,
        is_truncated=lambda state, params: env.is_truncated(state.env_state, params),
        restart_env=restart_env,
        observation_space=None,
    )


@environment
def normalize_rewards(
    env: Any, discount: float, *, statistics: RunningStatistics | None = None, update: bool = True, eps: float = 1e-8
) -> Environment:
    """Rewards over the running standard deviation of the discounted sum of rewards in an episode.

    Rewards keep their sign and their zero. The statistics outlive episodes, the sum does not. They begin with the
    weight 1e-4 of a variance of 1, as gymnasium's, so the first few rewards may come out large:
    `transform_rewards(env, lambda reward: jnp.clip(reward, -10, 10))` around it bounds them.

    Source: the reward scaling of OpenAI's baselines (`VecNormalize`), as described by Engstrom et al. 2020,
    https://arxiv.org/abs/2005.12729, section 3; gymnasium's `NormalizeReward`, but that the sum also begins anew after
    a truncation.

    Args:
      env: an environment.
      discount: of the sum, that of the learner.
      statistics: where to begin, such as `reward_statistics` of a state that was trained with.
      update: whether what is seen changes them.
      eps: added to the variance.
    Returns:
      An environment whose state is a `NormalizedRewardsState`, and `info["raw_reward"]`, the reward of the innermost
      environment.
    Raises:
      TypeError: for no environment.
      ValueError: for a discount that is not between 0 and 1; when reset, for statistics of other shapes.

    >>> env = rl.normalize_rewards(rl.pendulum(), 0.99)
    >>> obs, state = env.reset(jax.random.key(0))
    >>> obs, state, reward, *ends, info = env.step(jax.random.key(1), state, jnp.zeros(1))
    >>> rl.reward_statistics(state).mean.shape, info["raw_reward"].shape
    ((), ())
    """
    env = environment_of("normalize_rewards", env)
    if not isinstance(discount, jax.Array) and not 0 <= discount <= 1:
        raise ValueError(f"normalize_rewards: expected discount to be between 0 and 1, got {discount}")

    def reset_env(key: jax.Array, params: Any) -> tuple[Any, NormalizedRewardsState]:
        obs, state = env.reset_env(key, params)
        zero = jnp.zeros(batch_of(env, state, params))
        fresh = given("normalize_rewards", statistics, begun(jnp.zeros(()), 1e-4))
        return obs, NormalizedRewardsState(state, zero, fresh)

    def step_env(key: jax.Array, state: NormalizedRewardsState, action: Any, params: Any) -> Any:
        obs, env_state, reward, terminated, info = env.step_env(key, state.env_state, action, params)
        reward = jnp.asarray(reward, state.discounted.dtype)
        discounted = discount * state.discounted + reward
        found = merged(state.statistics, discounted, jnp.ones(discounted.shape, bool)) if update else state.statistics
        scaled = reward * jax.lax.rsqrt(found.variance + eps)
        state = NormalizedRewardsState(env_state, discounted, found)
        return obs, state, scaled, terminated, {"raw_reward": reward} | info

    def restart_env(key: jax.Array, ended: jax.Array, obs: Any, state: NormalizedRewardsState, params: Any) -> Any:
        obs, env_state = env.restart_env(key, ended, obs, state.env_state, params)
        return obs, NormalizedRewardsState(env_state, jnp.where(ended, 0, state.discounted), state.statistics)

    return altered(
        env,
        reset_env=reset_env,
        step_env=step_env,
        is_truncated=lambda state, params: env.is_truncated(state.env_state, params),
        restart_env=restart_env,
    )


def observation_statistics(state: Any) -> RunningStatistics:
    """The statistics of observations, out of the state of an environment or of anything that contains it.

    Args:
      state: any pytree with the state of one `normalize_observations`, of several inside one another the outermost.
    Returns:
      `RunningStatistics`, to begin another environment with.
    Raises:
      ValueError: if there is not exactly one.

    >>> obs, state = rl.time_limit(rl.normalize_observations(rl.pendulum()), 10).reset(jax.random.key(0))
    >>> rl.observation_statistics(state).num_seen.round().item()
    1.0
    """
    return _found("observation_statistics", "normalize_observations", NormalizedObservationsState, state)


def reward_statistics(state: Any) -> RunningStatistics:
    """The statistics of discounted sums of rewards, out of the state of an environment or of what contains it.

    Args:
      state: any pytree with the state of one `normalize_rewards`, of several inside one another the outermost.
    Returns:
      `RunningStatistics`, to begin another environment with.
    Raises:
      ValueError: if there is not exactly one.

    >>> obs, state = rl.normalize_rewards(rl.pendulum(), 0.99).reset(jax.random.key(0))
    >>> rl.reward_statistics(state).variance.item()
    1.0
    """
    return _found("reward_statistics", "normalize_rewards", NormalizedRewardsState, state)


def _found(name: str, wrapper: str, kind: Any, tree: Any) -> RunningStatistics:
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    found = [leaf.statistics for leaf in leaves if isinstance(leaf, kind)]
    if len(found) != 1:
        raise ValueError(
            f"{name}: expected the state of one environment of {wrapper}, got {len(found)} of them in "
            f"{type(tree).__name__}. Give it the state that such an environment returns."
        )
    return found[0]
