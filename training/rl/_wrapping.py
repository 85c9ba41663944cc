"""What wrappers of environments have in common."""

from typing import Any

import jax
import jax.numpy as jnp

from .._environment import Environment


def altered(env: Environment, **changed: Any) -> Environment:
    """An environment with some of its functions or spaces changed."""
    functions = ("reset_env", "step_env", "is_truncated", "restart_env")
    kept = {name: getattr(env, name) for name in (*functions, "default_params", "action_space", "observation_space")}
    return Environment(**(kept | changed))


def batch_of(env: Environment, state: Any, params: Any) -> tuple[int, ...]:
    """The axes that stand before those of one environment: `()`, or `(n,)` where n were vectorized."""
    return jax.eval_shape(lambda: jnp.asarray(env.is_truncated(state, params))).shape


def restarted(env: Environment, key: jax.Array, ended: jax.Array, state: Any, params: Any) -> tuple[Any, Any]:
    """What `env.restart_env` returns when its observation is not at hand; what it is where none ended is undefined."""
    shapes = jax.eval_shape(lambda: env.reset_env(key, params)[0])
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return env.restart_env(key, ended, blank, state, params)


def bounds(name: str, env: Environment, params: Any = None) -> tuple[Any, Any]:
    """The bounds of an environment's actions.

    Raises:
      TypeError: naming the wrapper, if they are in no box.
    """
    space = env.action_space(params)
    if not hasattr(space, "low") or not hasattr(space, "high"):
        raise TypeError(f"{name}: expected an environment whose actions are in a box, got {space!r}")
    return space.low, space.high
