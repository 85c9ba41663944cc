"""Environments of gymnasium as they run on the host: stepped in order, never on their own."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np


class Host:
    """So many environments, with the number of the state that they are in.

    Args:
      make_env: makes one.
      size: how many to make.

    Attributes:
      size: how many there are.
      action_space: gymnasium's, of the first.
      observation_space: gymnasium's, of the first.
    """

    def __init__(self, make_env: Callable[[], Any], size: int):
        self.size, self.count = size, 0
        self.envs = [_made(make_env) for _ in range(size)]
        self.action_space, self.observation_space = self.envs[0].action_space, self.envs[0].observation_space
        weakref.finalize(self, _close, self.envs)

    def reset(self, seeds: Any) -> tuple[Any, np.int32]:
        """New episodes everywhere."""
        return self._stacked([self._begin(*each) for each in zip(self.envs, np.asarray(seeds), strict=True)])

    def restart(self, count: Any, seeds: Any, ended: Any) -> tuple[Any, np.int32]:
        """New episodes where they have ended, elsewhere an observation of zeros."""
        self._check(count)
        blank = over(self.observation_space, _zeros)
        each = zip(self.envs, np.asarray(seeds), np.asarray(ended), strict=True)
        return self._stacked([self._begin(env, seed) if over else blank for env, seed, over in each])

    def step(self, count: Any, actions: Any) -> tuple[Any, ...]:
        """A step everywhere: observations, rewards, terminated, truncated, and the number of the new state."""
        self._check(count)
        observations, ends = [], []
        actions = over(self.action_space, _to_host, actions)
        for index, env in enumerate(self.envs):
            action = over(self.action_space, lambda space, each, index=index: each[index], actions)
            obs, reward, terminated, truncated, _ = env.step(action)
            observations.append(over(self.observation_space, _from_host, obs))
            ends.append((reward, terminated, truncated))
        rewards, terminated, truncated = zip(*ends, strict=True)
        obs, number = self._stacked(observations)
        return obs, np.array(rewards, float), np.array(terminated, bool), np.array(truncated, bool), number

    def _begin(self, env: Any, seed: Any) -> Any:
        return over(self.observation_space, _from_host, env.reset(seed=int(seed))[0])

    def _check(self, count: Any) -> None:
        if int(count) != self.count:
            raise RuntimeError(
                f"from_gymnasium: expected the host's latest state, number {self.count}, got number {int(count)}. "
                "An environment on the host cannot go back: begin again with reset, or make another one."
            )

    def _stacked(self, observations: list[Any]) -> tuple[Any, np.int32]:
        self.count += 1
        return over(self.observation_space, _stack, *observations), np.int32(self.count)


def _made(make_env: Callable[[], Any]) -> Any:
    """An environment that does not reset by itself."""
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError("from_gymnasium: gymnasium is not installed: pip install 'renga[rl]'") from error
    made = make_env() if callable(make_env) else make_env
    if not isinstance(made, gymnasium.Env):
        raise TypeError(
            f"from_gymnasium: expected a function that makes an environment of gymnasium, got {made!r} of it. "
            "Write lambda: gymnasium.make('CartPole-v1'); for several, num_envs."
        )
    layer = made
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, gymnasium.wrappers.Autoreset):
            raise TypeError(
                "from_gymnasium: expected an environment that does not reset by itself, got one in Autoreset. "
                "Leave that wrapper out: episodes begin anew by restart_env."
            )
        layer = layer.env
    return made


def _close(envs: list[Any]) -> None:
    for env in envs:
        env.close()


def over(space: Any, fn: Callable[..., Any], *values: Any) -> Any:
    """`fn(space, *values)` at each leaf of gymnasium's dicts and tuples of spaces, as dicts and tuples."""
    if not hasattr(space, "spaces"):
        return fn(space, *values)
    if isinstance(space.spaces, dict):
        return {name: over(part, fn, *(value[name] for value in values)) for name, part in space.spaces.items()}
    return tuple(over(part, fn, *(value[i] for value in values)) for i, part in enumerate(space.spaces))


def _start(space: Any) -> Any:
    """Where the numbers of gymnasium's `Discrete` begin; ours begin at 0."""
    return space.start if hasattr(space, "n") and not space.shape else 0


def _to_host(space: Any, action: Any) -> Any:
    return np.asarray(action).astype(space.dtype) + _start(space)


def _from_host(space: Any, obs: Any) -> Any:
    return np.asarray(obs, space.dtype) - _start(space)


def _zeros(space: Any) -> Any:
    return np.zeros(space.shape, space.dtype)


def _stack(space: Any, *observations: Any) -> Any:
    return np.stack(observations)
