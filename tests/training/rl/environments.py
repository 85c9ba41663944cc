"""Environments for the laws, and how they are played."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from renga import training
from renga.training import rl


def counter(end: int) -> training.Environment:
    """Observes how many steps there were, rewards by that, is terminated after `end`; actions are added."""

    def reset_env(key, params):
        return jnp.zeros(1), jnp.zeros(1)

    def step_env(key, state, action, params):
        state = state + 1 + action
        return state, state, state[0], state[0] >= end, {}

    return training.Environment(reset_env, step_env, action_space=rl.Box(-1.0, 0.0, ()))


def half(obs: jax.Array) -> jax.Array:
    return obs / 2


def tower() -> training.Environment:
    """Every wrapper, around and inside of `vectorize`."""
    env = rl.time_limit(rl.clip_actions(rl.pendulum()), 5)
    env = rl.vectorize(rl.frame_stack(rl.normalize_observations(rl.scale_actions(env)), 2), 3)
    env = rl.normalize_rewards(rl.transform_observations(rl.time_limit(env, 4), half), 0.9)
    return rl.transform_rewards(rl.frame_stack(rl.normalize_observations(env), 2), half)


OURS: dict[str, Callable[[], training.Environment]] = {
    "cart_pole": rl.cart_pole,
    "pendulum": rl.pendulum,
    "recall": lambda: rl.recall(3, 2),
    "navigation": rl.navigation,
    "time_limit": lambda: rl.time_limit(rl.cart_pole(), 5),
    "time_limit, twice": lambda: rl.time_limit(rl.time_limit(rl.pendulum(), 3), 5),
    "time_limit of vectorize": lambda: rl.time_limit(rl.vectorize(rl.cart_pole(), 3), 5),
    "transform_observations": lambda: rl.transform_observations(rl.recall(3, 1), half, rl.Box(0.0, 0.5, (4,))),
    "transform_rewards": lambda: rl.transform_rewards(rl.pendulum(), half),
    "scale_actions": lambda: rl.scale_actions(rl.pendulum()),
    "clip_actions": lambda: rl.clip_actions(rl.navigation()),
    "vectorize": lambda: rl.vectorize(rl.cart_pole(), 3),
    "vectorize, twice": lambda: rl.vectorize(rl.vectorize(rl.pendulum(), 2), 3),
    "frame_stack": lambda: rl.frame_stack(rl.cart_pole(), 3),
    "frame_stack of vectorize": lambda: rl.frame_stack(rl.vectorize(rl.recall(3, 1), 4), 2),
    "normalize_observations": lambda: rl.normalize_observations(rl.cart_pole()),
    "normalize_observations of vectorize": lambda: rl.normalize_observations(rl.vectorize(rl.cart_pole(), 3)),
    "normalize_rewards": lambda: rl.normalize_rewards(rl.navigation(), 0.9),
    "normalize_rewards of vectorize": lambda: rl.normalize_rewards(rl.vectorize(rl.recall(2, 0), 3), 0.9),
    "tower": tower,
}


def batch_of(env: training.Environment) -> tuple[int, ...]:
    """The axes of a vectorized environment."""

    def truncated(key: jax.Array) -> jax.Array:
        return jnp.asarray(env.is_truncated(env.reset(key)[1], env.default_params))

    return jax.eval_shape(truncated, jax.random.key(0)).shape


def play(env: training.Environment, key: jax.Array, num_steps: int = 12, params: Any = None) -> Any:
    """Random actions: `((obs, state), (obs, state, action, reward, terminated, truncated, info) of every step)`."""
    reset_key, run_key = jax.random.split(key)
    space, batch = env.action_space(params), batch_of(env)

    def one(carry: Any, key: jax.Array) -> Any:
        act_key, step_key = jax.random.split(key)
        action = space.sample(act_key, batch) if batch else space.sample(act_key)
        obs, state, *rest = env.step(step_key, carry[1], action, params)
        return (obs, state), (obs, state, action, *rest)

    start = jax.tree.map(strong, env.reset(reset_key, params))
    return start, lax.scan(one, start, jax.random.split(run_key, num_steps))[1]


def strong(leaf: Any) -> jax.Array:
    """An array whose dtype does not give way."""
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else lax.convert_element_type(leaf, leaf.dtype)
