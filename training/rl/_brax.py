"""Environments with brax's interface, brax's own, MuJoCo Playground's and yours."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._environment import Environment, environment
from ._spaces import Box


@environment
def from_brax(env: Any) -> Environment:
    """An environment of brax's `reset(key) -> State` and `step(state, action) -> State`.

    A new episode begins from a newly drawn state and the last observation of the old one is kept, so leave out brax's
    `AutoResetWrapper`, which does neither, and its `VmapWrapper` for `vectorize`. Its `EpisodeWrapper` is welcome: the
    time limit of it is taken as a truncation. Without it episodes have no end but their own; `time_limit` gives one.

    Args:
      env: an environment that has `reset`, `step`, `observation_size` and `action_size`.
    Returns:
      An environment whose state is brax's, with actions `[action_size]` in [-1, 1], brax's metrics as `info`, and no
      parameters.
    Raises:
      TypeError: for anything else, and for an environment in a wrapper that resets by itself or maps.

    >>> import types
    >>> class Still:
    ...     observation_size, action_size = 3, 1
    ...     def reset(self, key):
    ...         return types.SimpleNamespace(obs=jnp.ones(3), reward=0.0, done=0.0, metrics={}, info={})
    ...     def step(self, state, action):
    ...         return state
    >>> env = rl.from_brax(Still())
    >>> env.reset(jax.random.key(0))[0].shape, env.action_space()
    ((3,), Box(-1.0, 1.0, (1,)))
    """
    _check(env)

    def step_env(key: jax.Array, state: Any, action: Any, params: None) -> Any:
        # brax's wrappers write into the dicts of the state that they are given: these must not be the caller's.
        state = env.step(jax.tree.map(lambda leaf: leaf, state), action)
        over = jnp.asarray(state.done, bool) & ~_cut_off(state)
        return state.obs, state, state.reward, over, dict(state.metrics)

    def reset_env(key: jax.Array, params: None) -> tuple[Any, Any]:
        state = env.reset(key)
        return state.obs, state

    return Environment(
        reset_env,
        step_env,
        lambda state, params: _cut_off(state),
        action_space=lambda params: Box(-1.0, 1.0, (env.action_size,)),
        observation_space=lambda params: _observation_space(env.observation_size),
    )


def _cut_off(state: Any) -> jax.Array:
    """Whether the episode reached its wrapper's time limit, which brax counts as done."""
    return jnp.asarray(state.info.get("truncation", jnp.zeros_like(state.done)), bool)


def _observation_space(size: Any) -> Any:
    if isinstance(size, Mapping):
        return {name: _observation_space(part) for name, part in size.items()}
    return Box(-jnp.inf, jnp.inf, (size,) if isinstance(size, int) else tuple(size))


def _check(env: Any) -> None:
    missing = [name for name in ("reset", "step", "observation_size", "action_size") if not hasattr(env, name)]
    if missing:
        raise TypeError(
            f"from_brax: expected an environment with brax's interface, got {env!r} without {' and '.join(missing)}"
        )
    layer, refused = env, {"AutoResetWrapper": "episodes begin anew by themselves", "VmapWrapper": "use vectorize"}
    while layer is not None:
        if (name := type(layer).__name__) in refused:
            raise TypeError(f"from_brax: expected an environment without {name}. Leave it out: {refused[name]}.")
        layer = vars(layer).get("env")
