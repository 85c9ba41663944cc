"""Environments of gymnasium, which run on the host, inside a compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

from .._checks import check_count
from .._environment import Environment, where
from ._host import Host, over
from ._spaces import Box, Discrete


class GymnasiumState(NamedTuple):
    """What of an environment on the host is known on the device.

    Attributes:
      number: which of the host's states this is, `[]`: only the latest can be stepped from.
      truncated: whether the episode was cut off here, `[*batch]`.
    """

    number: jax.Array
    truncated: jax.Array


def from_gymnasium(make_env: Callable[[], Any], num_envs: int | None = None) -> Environment:
    """One of gymnasium's environments, or several in turn, on the host: it stands in a `rollout` under `jax.jit`.

    Each step of the program calls the host, in order, and waits for it: that takes some 0.1 ms beside the steps of the
    environments. These are made here, once, and belong to what is returned, which is no value: two of them are never
    equal. `reset_env` begins an episode in all of them, `restart_env` in those where it has ended; both seed the host's
    random numbers from their key. A state can be stepped from once, as the host cannot go back: a step from any but the
    latest state fails, so that a reset ends what was before it. There is no gradient through the host.

    Args:
      make_env: makes an environment, `lambda: gymnasium.make("CartPole-v1")`; it must not reset by itself.
      num_envs: how many to make, stepped one after the other and with a leading axis as if vectorized; one without
        that axis unless given.
    Returns:
      An environment with the converted spaces of one of them: boxes, also for what is multi-discrete or multi-binary,
      `Discrete` from 0, and dicts and tuples of them. What steps return beside, their `info`, stays on the host.
    Raises:
      ImportError: if gymnasium is not installed.
      TypeError: if `make_env` does not return one of its environments, or one that resets by itself; for spaces that
        no arrays are in.
      ValueError: for a count below 1; when stepped, under `jax.vmap`.
      RuntimeError: when stepped from a state that is not the latest, through JAX.

    >>> import gymnasium
    >>> env = rl.from_gymnasium(lambda: gymnasium.make("CartPole-v1"), 3)
    >>> obs, state = env.reset(jax.random.key(0))
    >>> obs, state, reward, *ends, info = env.step(jax.random.key(1), state, jnp.array([0, 1, 1]))
    >>> obs.shape, reward.tolist(), env.action_space()
    ((3, 4), [1.0, 1.0, 1.0], Discrete(2))
    """
    if num_envs is not None:
        check_count("from_gymnasium", "num_envs", num_envs, at_least=1)
    host = Host(make_env, num_envs or 1)
    batch = () if num_envs is None else (num_envs,)
    action_space, observation_space = (over(space, _space) for space in (host.action_space, host.observation_space))
    flag, counted = jax.ShapeDtypeStruct((host.size,), bool), jax.ShapeDtypeStruct((), jnp.int32)

    def seen() -> Any:
        """What the host returns of observations; the dtypes depend on whether there are 64 bits."""

        def one(space: Any) -> Any:
            return jax.ShapeDtypeStruct((host.size, *space.shape), jax.dtypes.canonicalize_dtype(space.dtype))

        return over(host.observation_space, one)

    def call(function: Callable[..., Any], result: Any, *args: Any) -> Any:
        return io_callback(function, result, *jax.tree.map(_unmapped, args), ordered=True)

    def outer(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.reshape(leaf, (*batch, *leaf.shape[1:])), tree)

    def inner(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.reshape(leaf, (host.size, *jnp.shape(leaf)[len(batch) :])), tree)

    def reset_env(key: jax.Array, params: None) -> tuple[Any, GymnasiumState]:
        obs, count = call(host.reset, (seen(), counted), _seeds(key, host.size))
        return outer(obs), GymnasiumState(count, jnp.zeros(batch, bool))

    def step_env(key: jax.Array, state: GymnasiumState, action: Any, params: None) -> Any:
        reward = jax.ShapeDtypeStruct((host.size,), jnp.result_type(float))
        results = (seen(), reward, flag, flag, counted)
        _check_actions(action_space, action, batch)
        obs, reward, terminated, truncated, count = call(host.step, results, state.number, inner(action))
        state = GymnasiumState(count, outer(truncated))
        return outer(obs), state, outer(reward), outer(terminated), {}

    def restart_env(key: jax.Array, ended: jax.Array, obs: Any, state: GymnasiumState, params: None) -> Any:
        def begin() -> tuple[Any, jax.Array]:
            args = (state.number, _seeds(key, host.size), inner(ended))
            began, count = call(host.restart, (seen(), counted), *args)
            return where(ended, outer(began), obs), count

        obs, count = lax.cond(jnp.any(ended), begin, lambda: (obs, state.number))
        return obs, GymnasiumState(count, state.truncated & ~ended)

    return Environment(
        reset_env,
        step_env,
        lambda state, params: state.truncated,
        action_space=action_space,
        observation_space=observation_space,
        restart_env=restart_env,
    )


def _space(space: Any) -> Any:
    """One of gymnasium's spaces as ours."""
    from gymnasium import spaces

    match space:
        case spaces.Discrete():
            return Discrete(int(space.n))
        case spaces.Box():
            return Box(space.low, space.high, space.shape, space.dtype)
        case spaces.MultiDiscrete():
            return Box(space.start, space.start + space.nvec - 1, space.shape, space.dtype)
        case spaces.MultiBinary():
            return Box(0, 1, space.shape, space.dtype)
    raise TypeError(
        f"from_gymnasium: expected spaces of arrays, or dicts and tuples of them, got {space}. "
        "Wrap the environment so that it has one, say in gymnasium.wrappers.FlattenObservation."
    )


def _seeds(key: jax.Array, num: int) -> jax.Array:
    return jax.random.bits(key, (num,), jnp.uint32)


def _check_actions(spaces: Any, action: Any, batch: tuple[int, ...]) -> None:
    wanted = jax.tree.map(lambda space: (*batch, *space.shape), spaces)
    given = jax.tree.map(jnp.shape, action)
    if wanted != given:
        raise ValueError(f"from_gymnasium: expected an action of shape {wanted}, got one of {given}")


@custom_vmap
def _unmapped(leaf: jax.Array) -> jax.Array:
    """What it is given, or an error under `jax.vmap`."""
    return leaf


@_unmapped.def_vmap
def _refused(axis_size: int, in_batched: Any, leaf: Any) -> Any:
    raise ValueError(
        f"from_gymnasium: expected no jax.vmap around an environment on the host, got one of size {axis_size}. "
        f"Make so many of them: from_gymnasium(make_env, num_envs={axis_size})."
    )
