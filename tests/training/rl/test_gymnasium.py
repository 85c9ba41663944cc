"""Environments of gymnasium inside compiled programs, against loops by hand on the host."""

import gc
import sys
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import Autoreset
from jax import lax

from renga import training
from renga.training import rl
from renga.training.rl._host import Host

from ...optim.trees import assert_close, assert_same, types
from .environments import play

KEY = jax.random.key(0)


def cart_pole() -> Any:
    return gymnasium.make("CartPole-v1", max_episode_steps=12)


class Mixed(gymnasium.Env):
    """Dicts and tuples, integers that begin at 2, float64; is truncated at 4, or terminated by the action 4."""

    observation_space = spaces.Dict(
        {
            "count": spaces.Discrete(9, start=2),
            "pair": spaces.Tuple([spaces.Box(-9, 9, (2,), np.float64), spaces.MultiBinary(3)]),
            "picture": spaces.Box(0, 255, (2, 2), np.uint8),
        }
    )
    action_space = spaces.Tuple([spaces.Discrete(3, start=2), spaces.MultiDiscrete([2, 3])])

    def observed(self) -> Any:
        pair = (np.array([self.time, self.noise]), np.array([self.time % 2, 0, 1], np.int8))
        return {"count": self.time + 2, "pair": pair, "picture": np.full((2, 2), 250 + self.time, np.uint8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.noise = 0, self.np_random.normal()
        return self.observed(), {}

    def step(self, action):
        assert self.action_space.contains(tuple(action)), action
        self.time += 1
        return self.observed(), float(action[0]), bool(action[0] == 4), self.time == 4, {"ignored": "words"}


def by_hand(env: Any, seeds: Any, actions: Any) -> Any:
    """Final observations, rewards, ends and next observations; each episode begins with the next seed."""
    seeds, steps = iter(seeds), []
    obs, _ = env.reset(seed=int(next(seeds)))
    for action in actions:
        final, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            obs, _ = env.reset(seed=int(next(seeds)))
        else:
            obs = final
        steps.append((final, reward, terminated, truncated, obs))
    return [np.stack(each) for each in zip(*steps, strict=True)]


def test_steps_are_those_of_a_loop_on_the_host_seeded_by_the_keys():
    env, actions = rl.from_gymnasium(cart_pole), jax.random.bernoulli(KEY, shape=(40,)).astype(int)
    keys = jax.random.split(KEY, 41)

    @jax.jit
    def run() -> Any:
        _, state = env.reset(keys[0])
        return lax.scan(lambda state, x: (lambda found: (found[1], found))(env.step(x[0], state, x[1])), state,
                        (keys[1:], actions))[1]  # fmt: skip

    obs, _, reward, terminated, truncated, info = run()
    ended = np.asarray(terminated | truncated)
    reset_keys = [keys[0], *(jax.random.split(key)[1] for key in keys[1:][ended])]
    seeds = [jax.random.bits(key, (1,), jnp.uint32)[0] for key in reset_keys]
    final, rewards, ends, cuts, began = by_hand(cart_pole(), [*seeds, 0], np.asarray(actions))
    np.testing.assert_array_equal(info["final_observation"], final)
    np.testing.assert_array_equal(obs, began)
    np.testing.assert_array_equal(reward, rewards)
    np.testing.assert_array_equal(terminated, ends)
    np.testing.assert_array_equal(truncated, cuts)
    assert terminated.any()
    assert truncated.any()


def test_a_rollout_under_jit_is_that_of_our_cart_pole():
    host, device = rl.from_gymnasium(cart_pole, 3), rl.vectorize(rl.time_limit(rl.cart_pole(), 12), 3)

    def policy(params: Any, obs: jax.Array, key: jax.Array) -> jax.Array:
        return (obs[:, 2] + obs[:, 3] > 0).astype(int)

    collect, again = training.rollout(host, policy, 30), training.rollout(device, policy, 1)
    end, found = jax.jit(lambda: collect(None, collect.init(KEY, None)))()
    assert found.truncated.tolist() == [[t % 12 == 11] * 3 for t in range(30)]
    assert not found.terminated.any()
    np.testing.assert_array_equal(found.first[12], [True] * 3)
    np.testing.assert_array_equal(found.obs[13], found.next_obs[12])
    assert np.abs(found.obs[12]).max() < 0.05 < np.abs(found.next_obs[11]).max()
    start = again.init(KEY, None)
    for t in (0, 5, 12):
        state = rl.CartPoleState(*found.obs[t].T, time=jnp.zeros(3, jnp.int32))
        _, expected = again(None, start._replace(obs=found.obs[t], env_state=rl.TimeLimitState(state, state.time)))
        np.testing.assert_allclose(found.next_obs[t], expected.next_obs[0], rtol=1e-4, atol=1e-6)
    _, more = jax.jit(collect)(None, end)
    assert more.obs.shape == (30, 3, 4)


def test_the_same_key_gives_the_same_episodes_compiled_or_not():
    env = rl.from_gymnasium(cart_pole, 2)
    compiled, again = jax.jit(lambda: play(env, KEY, 15))(), jax.jit(lambda: play(env, KEY, 15))()
    plain = play(env, KEY, 15)
    for other in (again, plain):
        (start, (obs, _, *rest)), (other_start, (other_obs, _, *other_rest)) = compiled, other
        assert_same((start[0], obs, rest), (other_start[0], other_obs, other_rest))


def test_spaces_of_all_kinds_are_converted_both_ways():
    env = rl.from_gymnasium(Mixed)
    assert env.action_space() == (rl.Discrete(3), rl.Box([0, 0], [1, 2], (2,), int))
    assert env.observation_space()["count"] == rl.Discrete(9)
    assert repr(env.observation_space()["picture"]) == "Box(0, 255, (2, 2), uint8)"
    start, state = env.reset(KEY)
    obs = start
    assert start["count"] == 0
    actions = [(jnp.array(a), jnp.array([1, 2])) for a in (0, 1, 0, 1, 2, 0)]
    seen = []
    for action in actions:
        obs, state, *rest, info = env.step(KEY, state, action)
        assert types(obs) == types(start)
        seen.append((obs["count"].item(), *(each.item() for each in rest), info["final_observation"]["count"].item()))
    assert seen == [
        (1, 2.0, False, False, 1),
        (2, 3.0, False, False, 2),
        (3, 2.0, False, False, 3),
        (0, 3.0, False, True, 4),
        (0, 4.0, True, False, 1),
        (1, 2.0, False, False, 1),
    ]
    assert obs["picture"].tolist() == [[251, 251], [251, 251]]
    assert obs["pair"][0].dtype == jnp.float32
    with jax.enable_x64(True):
        assert env.reset(KEY)[0]["pair"][0].dtype == jnp.float64


def test_wrappers_go_around_it():
    env = rl.normalize_observations(rl.time_limit(rl.frame_stack(rl.from_gymnasium(cart_pole, 2), 2), 5))
    _, (obs, state, _, _, terminated, truncated, _) = jax.jit(lambda: play(env, KEY, 11))()
    assert obs.shape == (11, 2, 2, 4)
    assert truncated.sum() + terminated.sum() >= 4
    found = rl.observation_statistics(state)
    ended = np.cumsum(np.asarray(terminated | truncated).sum(1))
    np.testing.assert_allclose(found.num_seen, 2 * np.arange(2, 13) + ended)


def test_only_the_latest_state_can_be_stepped_from(caplog):
    env = rl.from_gymnasium(cart_pole)
    _, state = env.reset(KEY)
    _, second, *_ = env.step(KEY, state, 1)
    message = (
        r"from_gymnasium: expected the host's latest state, number 2, got number 1\. "
        r"An environment on the host cannot go back: begin again with reset, or make another one\."
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(env.step(KEY, state, 1))
    env.step(KEY, second, 1)
    env.reset(KEY)
    with pytest.raises(jax.errors.JaxRuntimeError, match="latest state, number 4, got number 2"):
        jax.block_until_ready(env.step(KEY, second, 1))


def test_two_of_them_are_two_hosts_and_not_equal():
    first, second = rl.from_gymnasium(cart_pole), rl.from_gymnasium(cart_pole)
    assert first != second
    assert first == first
    obs, state = first.reset(KEY)
    other_obs, other_state = second.reset(KEY)
    assert_close(obs, other_obs)
    assert_close(first.step(KEY, state, 1)[0], second.step(KEY, other_state, 1)[0])


def test_vmap_is_refused():
    env = rl.from_gymnasium(cart_pole)
    _, state = env.reset(KEY)
    for mapped in (
        lambda: jax.vmap(env.reset)(jax.random.split(KEY, 5)),
        lambda: jax.vmap(lambda action: env.step(KEY, state, action))(jnp.zeros(5, int)),
        lambda: rl.vectorize(env, 5).reset(KEY),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            mapped()
        assert str(error.value) == (
            "from_gymnasium: expected no jax.vmap around an environment on the host, got one of size 5. "
            "Make so many of them: from_gymnasium(make_env, num_envs=5)."
        )


def test_environments_that_reset_by_themselves_are_refused():
    with pytest.raises(TypeError) as error:
        rl.from_gymnasium(lambda: Autoreset(cart_pole()))
    assert str(error.value) == (
        "from_gymnasium: expected an environment that does not reset by itself, got one in Autoreset. "
        "Leave that wrapper out: episodes begin anew by restart_env."
    )


@pytest.mark.parametrize("given", ["CartPole-v1", lambda: 3, lambda: gymnasium.make_vec("CartPole-v1", 2)])
def test_what_makes_no_environment_is_refused(given):
    with pytest.raises(TypeError) as error:
        rl.from_gymnasium(given)
    made = given() if callable(given) else given
    assert str(error.value).startswith(
        "from_gymnasium: expected a function that makes an environment of gymnasium, got"
    )
    assert str(error.value).endswith(" of it. Write lambda: gymnasium.make('CartPole-v1'); for several, num_envs."), (
        made
    )


def test_other_spaces_counts_and_actions_are_refused():
    class Words(Mixed):
        observation_space = spaces.Text(5, charset="a")

    with pytest.raises(TypeError) as error:
        rl.from_gymnasium(Words)
    assert str(error.value) == (
        "from_gymnasium: expected spaces of arrays, or dicts and tuples of them, got Text(1, 5, charset=a). "
        "Wrap the environment so that it has one, say in gymnasium.wrappers.FlattenObservation."
    )
    with pytest.raises(ValueError, match=r"^from_gymnasium: expected num_envs to be an integer of at least 1, got 0$"):
        rl.from_gymnasium(cart_pole, 0)
    env = rl.from_gymnasium(cart_pole, 2)
    _, state = env.reset(KEY)
    with pytest.raises(ValueError, match=r"^from_gymnasium: expected an action of shape \(2,\), got one of \(\)$"):
        env.step(KEY, state, 1)


def test_environments_on_the_host_are_closed_with_what_they_belong_to():
    closed = []

    class Closing(Mixed):
        def close(self):
            closed.append(True)

    host = Host(Closing, 2)
    assert closed == []
    del host
    gc.collect()
    assert closed == [True, True]


def test_without_gymnasium_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError) as error:
        rl.from_gymnasium(cart_pole)
    assert str(error.value) == "from_gymnasium: gymnasium is not installed: pip install 'renga[rl]'"
