"""Environments with brax's interface, by a class that has it."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from renga import training
from renga.training import rl

from ...optim.trees import assert_close
from .environments import play

KEY = jax.random.key(0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    pipeline_state: Any
    obs: Any
    reward: jax.Array
    done: jax.Array
    metrics: dict[str, jax.Array]
    info: dict[str, Any]

    def replace(self, **changed: Any) -> "State":
        return dataclasses.replace(self, **changed)


class Walker:
    """Walks by the action from a drawn place; falls beyond 1."""

    observation_size: Any = 2
    action_size = 1

    def reset(self, rng: jax.Array) -> State:
        place = jax.random.uniform(rng, (), minval=-0.1, maxval=0.1)
        zero = jnp.zeros(())
        return State(place, jnp.stack([place, 0.0]), zero, zero, {"effort": zero}, {"rng": jax.random.fold_in(rng, 1)})

    def step(self, state: State, action: jax.Array) -> State:
        place = state.pipeline_state + action[0]
        state.metrics.update(effort=action[0] ** 2)
        done = (jnp.abs(place) > 1).astype(jnp.float32)
        return state.replace(pipeline_state=place, obs=jnp.stack([place, action[0]]), reward=place, done=done)


class Wrapper:
    def __init__(self, env: Any):
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


class EpisodeWrapper(Wrapper):
    """A time limit as brax's: writes into the state's dicts, and counts a truncation as done."""

    def reset(self, rng: jax.Array) -> State:
        state = self.env.reset(rng)
        state.info.update(steps=jnp.zeros(rng.shape[:-1]), truncation=jnp.zeros(rng.shape[:-1]))
        return state

    def step(self, state: State, action: jax.Array) -> State:
        state = self.env.step(state, action)
        steps = state.info["steps"] + 1
        state.info["truncation"] = jnp.where(steps >= 4, 1 - state.done, 0.0)
        state.info["steps"] = steps
        return state.replace(done=jnp.where(steps >= 4, 1.0, state.done))


class AutoResetWrapper(Wrapper):
    pass


class VmapWrapper(Wrapper):
    pass


def rolled(env: training.Environment, action: float, num_steps: int) -> Any:
    def one(state: Any, key: jax.Array) -> Any:
        found = env.step(key, state, jnp.array([action]))
        return found[1], found

    start, state = env.reset(KEY)
    return start, lax.scan(one, state, jax.random.split(KEY, num_steps))[1]


def test_episodes_end_by_their_own_rules_and_begin_from_newly_drawn_states():
    start, (obs, state, reward, terminated, truncated, info) = jax.jit(lambda: rolled(rl.from_brax(Walker()), 0.5, 8))()
    assert terminated.any()
    assert not truncated.any()
    ends = np.flatnonzero(terminated)
    final = info["final_observation"]
    assert np.all(np.abs(final[ends, 0]) > 1)
    assert np.all(np.abs(obs[ends, 0]) <= 0.1)
    assert len({*np.asarray(obs)[ends, 0].tolist(), start[0].item()}) == len(ends) + 1
    np.testing.assert_array_equal(reward, final[:, 0])
    assert info["effort"].tolist() == [0.25] * 8
    assert len({*map(tuple, jax.random.key_data(state.info["rng"]).tolist())}) == len(ends) + 1


def test_the_limit_of_an_episode_wrapper_is_a_truncation():
    env = rl.from_brax(EpisodeWrapper(Walker()))
    _, (*_, terminated, truncated, _) = rolled(env, 0.0, 9)
    assert truncated.tolist() == [False, False, False, True, False, False, False, True, False]
    assert not terminated.any()
    _, (*_, terminated, truncated, _) = rolled(env, 0.26, 4)
    assert terminated.any()
    assert not (terminated & truncated).any()


def test_without_one_time_limit_truncates():
    _, (*_, terminated, truncated, _) = rolled(rl.time_limit(rl.from_brax(Walker()), 3), 0.0, 7)
    assert truncated.tolist() == [False, False, True, False, False, True, False]
    assert not terminated.any()


def test_the_state_that_is_stepped_from_is_left_as_it_is():
    env = rl.from_brax(EpisodeWrapper(Walker()))
    _, state = env.reset(KEY)
    env.step(KEY, state, jnp.array([0.5]))
    assert (state.metrics["effort"], state.info["steps"]) == (0, 0)


def test_it_is_vectorized_normalized_and_rolled_out():
    env = rl.normalize_observations(rl.vectorize(rl.from_brax(EpisodeWrapper(Walker())), 3))
    collect = training.rollout(env, lambda params, obs, key: jax.random.uniform(key, (3, 1)), 20)
    _, trajectory = jax.jit(lambda: collect(None, collect.init(KEY, None)))()
    assert trajectory.obs.shape == (20, 3, 2)
    assert trajectory.terminated.any()
    many, alone = rl.vectorize(rl.from_brax(Walker()), 3), rl.from_brax(Walker())
    obs, _ = many.reset(KEY)
    assert_close(obs, jnp.stack([alone.reset(key)[0] for key in jax.random.split(KEY, 3)]))


def test_spaces_and_values():
    walker, pictured = Walker(), Walker()
    pictured.observation_size = {"state": 2, "pixels": (4, 4, 3)}
    env = rl.from_brax(walker)
    assert env == rl.from_brax(walker)
    assert env.action_space() == rl.Box(-1.0, 1.0, (1,))
    assert env.observation_space() == rl.Box(-jnp.inf, jnp.inf, (2,))
    assert rl.from_brax(pictured).observation_space()["pixels"].shape == (4, 4, 3)
    (obs, _), _ = play(env, KEY, 2)
    assert env.observation_space().contains(obs)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            AutoResetWrapper(EpisodeWrapper(Walker())),
            "from_brax: expected an environment without AutoResetWrapper. "
            "Leave it out: episodes begin anew by themselves.",
        ),
        (
            EpisodeWrapper(VmapWrapper(Walker())),
            "from_brax: expected an environment without VmapWrapper. Leave it out: use vectorize.",
        ),
    ],
)
def test_wrappers_that_reset_or_map_are_refused(env, message):
    with pytest.raises(TypeError) as error:
        rl.from_brax(env)
    assert str(error.value) == message


def test_what_is_no_environment_of_brax_is_refused():
    message = "from_brax: expected an environment with brax's interface, got 3 without reset and step and "
    with pytest.raises(TypeError, match=f"^{re.escape(message)}observation_size and action_size$"):
        rl.from_brax(3)
