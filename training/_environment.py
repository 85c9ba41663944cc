"""What an environment is: gymnax's functions of one episode, as a value."""

import functools
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from .._call import Call, Recorded, recording

Constructor = TypeVar("Constructor", bound=Callable[..., Any])


class Environment(Recorded):
    """An environment: pure functions of an episode, by gymnax's names, as a value.

    It prints, compares, hashes and pickles as the call that made it, where a constructor is marked `@environment`.
    Observations, states and actions are any pytrees of arrays. Episodes do not restart by themselves in `reset_env` and
    `step_env`; `rollout` sees to that, and so does `step`.

    Args:
      reset_env: `(key, params) -> (obs, state)`, the start of an episode.
      step_env: `(key, state, action, params) -> (obs, state, reward, terminated, info)`. `terminated`: the episode is
        over by its own rules, and nothing is to be expected after it. `info` is a dict.
      is_truncated: `(state, params) -> truncated`: the episode is cut off here, by a limit of time say, though it could
        go on. Never, unless given. Of many environments in one, as `rl.vectorize` makes them, an array as `terminated`.
      default_params: what `params` is unless something else is given: numbers of the environment such as a mass.
      action_space: the space of actions: `shape`, `dtype` and `sample(key)`, as `rl.Discrete` and `rl.Box` have.
      observation_space: the space of observations.
      restart_env: `(key, ended, obs, state, params) -> (obs, state)`: a new episode where one has ended, and otherwise
        what was given. Unless given, that of `reset_env`; for what outlives an episode, such as running statistics.

    >>> def reset_env(key, params):
    ...     return jnp.zeros(()), jnp.zeros(())
    >>> def step_env(key, state, action, params):
    ...     return state + action, state + action, -jnp.abs(state + action), False, {}
    >>> walk = Environment(reset_env, step_env, lambda state, params: state > 1)
    >>> obs, state = walk.reset(jax.random.key(0))
    >>> obs, state, reward, terminated, truncated, info = walk.step(jax.random.key(1), state, 2.0)
    >>> obs.item(), reward.item(), terminated.item(), truncated.item(), info["final_observation"].item()
    (0.0, -2.0, False, True, 2.0)
    """

    call: Call | None
    reset_env: Callable[..., Any]
    step_env: Callable[..., Any]
    is_truncated: Callable[..., Any]
    restart_env: Callable[..., Any]
    default_params: Any
    _action_space: Any
    _observation_space: Any

    def __init__(
        self,
        reset_env: Callable[..., Any],
        step_env: Callable[..., Any],
        is_truncated: Callable[..., Any] | None = None,
        *,
        default_params: Any = None,
        action_space: Any = None,
        observation_space: Any = None,
        restart_env: Callable[..., Any] | None = None,
    ):
        restart_env = restart_env or functools.partial(_restart, reset_env)
        given = {"reset_env": reset_env, "step_env": step_env, "is_truncated": is_truncated or _never}
        given["restart_env"] = restart_env
        for name, function in given.items():
            if not callable(function):
                raise TypeError(f"Environment: expected {name} to be a function, got {function!r}")
        spaces = {"_action_space": action_space, "_observation_space": observation_space}
        for name, value in {**given, **spaces, "default_params": default_params, "call": None}.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r}: an environment is a value and cannot be changed; build another one")

    def action_space(self, params: Any = None) -> Any:
        """The space of actions, or None where none was given."""
        return self._space_of(self._action_space, params)

    def observation_space(self, params: Any = None) -> Any:
        """The space of observations, or None where none was given."""
        return self._space_of(self._observation_space, params)

    def _space_of(self, space: Any, params: Any) -> Any:
        return space(self.default_params if params is None else params) if callable(space) else space

    def reset(self, key: jax.Array, params: Any = None) -> tuple[Any, Any]:
        """The start of an episode: `(obs, state)`."""
        return self.reset_env(key, self.default_params if params is None else params)

    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """A step that begins a new episode where one ends, as gymnax's.

        Returns:
          `(obs, state, reward, terminated, truncated, info)`; where the episode ended, `obs` and `state` are those of
          the next one and `info["final_observation"]` is the last of this.
        """
        params = self.default_params if params is None else params
        step_key, reset_key = jax.random.split(key)
        final, state, reward, terminated, info = self.step_env(step_key, state, action, params)
        terminated, truncated = jnp.asarray(terminated), jnp.asarray(self.is_truncated(state, params))
        obs, state = self.restart_env(reset_key, terminated | truncated, final, state, params)
        return obs, state, jnp.asarray(reward), terminated, truncated, {**info, "final_observation": final}


def environment(constructor: Constructor) -> Constructor:
    """Marks a function that returns an `Environment`: the environment then is the call that made it.

    Args:
      constructor: a function that returns an `Environment`.
    Returns:
      The same function, with the same signature.

    >>> @environment
    ... def still(size: int) -> Environment:
    ...     obs = jnp.zeros(size)
    ...     return Environment(lambda key, params: (obs, ()), lambda *_: (obs, (), 0.0, False, {}))
    >>> still(3), still(3) == still(size=3)
    (still(3), True)
    """

    def wrap(made: Any, call: Call) -> Environment:
        if not isinstance(made, Environment):
            raise TypeError(
                f"{call.name}: expected a function marked @environment to return an Environment, got {made!r}"
            )
        again = object.__new__(Environment)
        for name, value in {**vars(made), "call": call}.items():
            object.__setattr__(again, name, value)
        return again

    return recording(constructor, wrap)


def environment_of(name: str, env: Any) -> Environment:
    """An environment of these functions, wherever they come from.

    Raises:
      TypeError: naming who asked, if it has no `reset_env` and `step_env`.
    """
    if isinstance(env, Environment):
        return env
    missing = [each for each in ("reset_env", "step_env") if not callable(getattr(env, each, None))]
    if missing:
        raise TypeError(
            f"{name}: expected an environment with gymnax's functions reset_env and step_env, got {env!r} without "
            f"{' and '.join(missing)}. An Environment is made of them; rl.from_brax adapts brax's."
        )
    return Environment(
        env.reset_env,
        env.step_env,
        getattr(env, "is_truncated", None),
        default_params=getattr(env, "default_params", None),
        action_space=getattr(env, "action_space", None),
        observation_space=getattr(env, "observation_space", None),
    )


def where(chosen: jax.Array, new: Any, old: Any) -> Any:
    """Leaves of `new` where chosen, else of `old`; the axes of `chosen` are the first of every leaf."""

    def one(new: Any, old: Any) -> jax.Array:
        old = jnp.asarray(old)
        mask = jnp.reshape(chosen, (*jnp.shape(chosen), *[1] * (old.ndim - jnp.ndim(chosen))))
        if jnp.issubdtype(old.dtype, jax.dtypes.prng_key) or isinstance(new, jax.Array):
            return jnp.where(mask, new, old)
        return jnp.where(mask, jnp.asarray(new, old.dtype), old)

    return jax.tree.map(one, new, old)


def _restart(reset_env: Callable[..., Any], key: jax.Array, ended: jax.Array, obs: Any, state: Any, params: Any) -> Any:
    if jnp.ndim(ended):
        return where(ended, reset_env(key, params), (obs, state))
    # Alone, an environment draws a beginning only where it needs one; `jax.vmap` makes a choice of it.
    return lax.cond(ended, lambda: where(ended, reset_env(key, params), (obs, state)), lambda: (obs, state))


def _never(state: Any, params: Any) -> bool:
    return False
