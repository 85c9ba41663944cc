"""Wrappers of environments against what they should do to a counter, and against gymnasium's statistics."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers.utils import RunningMeanStd
from jax import lax

from renga import nets, training
from renga.training import rl

from ...optim.trees import assert_close, assert_same
from .environments import OURS, counter, half, play

KEY = jax.random.key(0)


def steps(env: training.Environment, num_steps: int, action: Any = 0.0, params: Any = None) -> Any:
    """`((obs, state), (obs, state, reward, terminated, truncated, info) of each step)` of one action."""
    start = env.reset(KEY, params)

    def one(state: Any, key: jax.Array) -> Any:
        found = env.step(key, state, action, params)
        return found[1], found

    return start, jax.jit(lambda state: lax.scan(one, state, jax.random.split(KEY, num_steps))[1])(start[1])


def test_a_time_limit_truncates_and_keeps_the_final_observation():
    _, (obs, state, reward, terminated, truncated, info) = steps(rl.time_limit(counter(10), 3), 7)
    assert truncated.tolist() == [False, False, True, False, False, True, False]
    assert not terminated.any()
    assert obs[:, 0].tolist() == [1, 2, 0, 1, 2, 0, 1]
    assert info["final_observation"][:, 0].tolist() == reward.tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert state.time.tolist() == [1, 2, 0, 1, 2, 0, 1]


def test_of_several_limits_the_first_counts_whatever_their_order():
    limits = [(3, 5), (5, 3)]
    for first, second in limits:
        _, (*_, truncated, _) = steps(rl.time_limit(rl.time_limit(counter(10), first), second), 7)
        assert truncated.tolist() == [False, False, True, False, False, True, False]
    env = rl.time_limit(rl.pendulum(), 3)
    _, (*_, truncated, _) = steps(env, 5, jnp.zeros(1), rl.PendulumParams(max_steps_in_episode=2))
    assert truncated.tolist() == [False, True, False, True, False]


def test_an_episode_may_be_terminated_by_the_step_that_it_is_truncated_after():
    _, (*_, terminated, truncated, _) = steps(rl.time_limit(counter(3), 3), 4)
    assert terminated.tolist() == truncated.tolist() == [False, False, True, False]


def test_episodes_of_vectorized_environments_end_each_on_its_own():
    env = rl.time_limit(rl.vectorize(counter(4), 2), 3)
    _, (obs, state, _, terminated, truncated, info) = steps(env, 5, jnp.array([0.0, 1.0]))
    assert terminated.tolist() == [[False, False], [False, True], [False, False], [False, True], [False, False]]
    assert truncated.tolist() == [[False, False], [False, False], [True, False], [False, False], [False, False]]
    assert obs[..., 0].tolist() == [[1, 2], [2, 0], [0, 2], [1, 0], [2, 2]]
    assert info["final_observation"][..., 0].tolist() == [[1, 2], [2, 4], [3, 2], [1, 4], [2, 2]]
    assert state.time.tolist() == [[1, 1], [2, 0], [0, 1], [1, 0], [2, 1]]


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        (rl.time_limit(rl.vectorize(rl.cart_pole(), 3), 5), rl.vectorize(rl.time_limit(rl.cart_pole(), 5), 3)),
        (rl.frame_stack(rl.vectorize(rl.recall(3, 1), 3), 2), rl.vectorize(rl.frame_stack(rl.recall(3, 1), 2), 3)),
        (rl.scale_actions(rl.vectorize(rl.pendulum(), 3)), rl.vectorize(rl.scale_actions(rl.pendulum()), 3)),
        (
            rl.transform_observations(rl.vectorize(rl.recall(2, 0), 3), half),
            rl.vectorize(rl.transform_observations(rl.recall(2, 0), half), 3),
        ),
    ],
    ids=["time_limit", "frame_stack", "scale_actions", "transform_observations"],
)
def test_outside_and_inside_of_vectorize_are_the_same(outside, inside):
    seen = [jax.jit(lambda env=env: play(env, KEY, 20))()[1] for env in (outside, inside)]
    (obs, _, *rest), (other_obs, _, *other_rest) = seen
    assert_close((obs, *rest), (other_obs, *other_rest))


def test_vectorized_environments_are_single_ones_with_keys_of_their_own():
    env, many = rl.time_limit(rl.cart_pole(), 4), rl.vectorize(rl.time_limit(rl.cart_pole(), 4), 3)
    actions = jnp.array([0, 1, 1])
    obs, state = many.reset(KEY)
    alone = [env.reset(key)[1] for key in jax.random.split(KEY, 3)]
    for key in jax.random.split(KEY, 6):
        obs, state, *_ = many.step(key, state, actions)
        step_key, reset_key = (jax.random.split(each, 3) for each in jax.random.split(key))
        for i in range(3):
            final, now, *_ = env.step_env(step_key[i], alone[i], actions[i], env.default_params)
            ended = env.is_truncated(now, env.default_params)
            single, alone[i] = env.restart_env(reset_key[i], ended, final, now, env.default_params)
            assert_close(obs[i], single)


def test_a_stack_begins_with_the_first_observation_and_sees_no_other_episode():
    _, (obs, _, _, terminated, _, info) = steps(rl.frame_stack(counter(3), 2), 4)
    assert terminated.tolist() == [False, False, True, False]
    assert obs[..., 0].tolist() == [[0, 1], [1, 2], [0, 0], [0, 1]]
    assert info["final_observation"][..., 0].tolist() == [[0, 1], [1, 2], [2, 3], [0, 1]]


def test_stacks_of_vectorized_environments_and_of_trees_of_observations():
    env = rl.transform_observations(rl.vectorize(counter(3), 2), lambda obs: {"count": obs, "double": 2 * obs})
    (start, _), (obs, *_, info) = steps(rl.frame_stack(env, 2), 3, jnp.array([0.0, 1.0]))
    assert start["count"].shape == (2, 2, 1)
    assert obs["double"][..., 0].tolist() == [[[0, 2], [0, 4]], [[2, 4], [0, 0]], [[0, 0], [0, 4]]]
    assert info["final_observation"]["count"][-1, ..., 0].tolist() == [[2, 3], [0, 2]]


def test_the_space_of_a_stack_has_as_many():
    assert rl.frame_stack(rl.pendulum(), 2).observation_space() == rl.Box(
        -np.array([[1, 1, 8], [1, 1, 8]]), np.array([[1, 1, 8], [1, 1, 8]])
    )


def standardized_by_gymnasium(batches: Any, masks: Any) -> tuple[list[np.ndarray], RunningMeanStd]:
    """Each batch, of which those in the mask are new, after gymnasium's statistics have seen these."""
    found, running = [], RunningMeanStd(0.0, batches[0].shape[1:])
    for batch, mask in zip(batches, masks, strict=True):
        if mask.any():
            running.update(batch[mask])
        found.append((batch - running.mean) / np.sqrt(running.var + 1e-8))
    return found, running


def test_normalized_observations_are_those_of_gymnasium():
    env = rl.vectorize(rl.time_limit(rl.cart_pole(), 4), 3)
    (first, _), (obs, _, _, _, terminated, truncated, info) = play(env, KEY, 10)
    final, ended = info["final_observation"], np.asarray(terminated | truncated)
    batches, masks = [np.asarray(first, float)], [np.ones(3, bool)]
    for t in range(10):
        batches += [np.asarray(final[t], float), np.asarray(obs[t], float)]
        masks += [np.ones(3, bool), ended[t]]
    expected, running = standardized_by_gymnasium(batches, masks)
    (first, _), (obs, state, *_, info) = play(rl.normalize_observations(env), KEY, 10)
    np.testing.assert_allclose(first, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(info["final_observation"], expected[1::2], rtol=1e-4, atol=1e-4)
    wanted = np.where(ended[..., None], expected[2::2], expected[1::2])
    np.testing.assert_allclose(obs, wanted, rtol=1e-4, atol=1e-4)
    found = rl.observation_statistics(jax.tree.map(lambda leaf: leaf[-1], state))
    np.testing.assert_allclose(found.mean, running.mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.variance, running.var, rtol=1e-4)
    np.testing.assert_allclose(found.num_seen, running.count, rtol=1e-6)


def test_statistics_of_many_are_exact_where_the_mean_is_large():
    env = rl.vectorize(rl.transform_observations(rl.navigation(), lambda obs: obs + 1e4), 64)
    env = rl.normalize_observations(env)
    _, (_, state, *_) = jax.jit(lambda: play(env, KEY, 60))()
    found = rl.observation_statistics(jax.tree.map(lambda leaf: leaf[-1], state))
    (_, _), (_, _, _, _, _, _, info) = jax.jit(lambda: play(rl.vectorize(rl.navigation(), 64), KEY, 60))()
    obs = info["final_observation"]
    np.testing.assert_allclose(found.variance, np.var(np.asarray(obs).reshape(-1, 2), 0), rtol=0.03)


def test_what_is_constant_stays_finite_and_has_no_variance():
    env = rl.normalize_observations(rl.transform_observations(rl.vectorize(counter(3), 3), lambda obs: 0.7 + 0 * obs))
    _, (obs, state, *_) = steps(env, 20, jnp.zeros(3))
    found = rl.observation_statistics(state)
    np.testing.assert_allclose(found.variance, 0, atol=1e-9)
    np.testing.assert_allclose(obs, 0, atol=2e-3)


def test_normalized_rewards_are_those_of_gymnasium_with_sums_that_begin_anew():
    env = rl.vectorize(rl.time_limit(rl.pendulum(), 4), 3)
    _, (*_, raw, terminated, truncated, _) = play(env, KEY, 10)
    running, total, expected = RunningMeanStd(shape=()), np.zeros(3), []
    for reward, ended in zip(np.asarray(raw, float), np.asarray(terminated | truncated), strict=True):
        total = 0.9 * total + reward
        running.update(total)
        expected.append(reward / np.sqrt(running.var + 1e-8))
        total = np.where(ended, 0, total)
    _, (_, state, _, reward, *_, info) = play(rl.normalize_rewards(env, 0.9), KEY, 10)
    np.testing.assert_allclose(reward, expected, rtol=1e-4)
    np.testing.assert_allclose(info["raw_reward"], raw, rtol=1e-6)
    found = rl.reward_statistics(jax.tree.map(lambda leaf: leaf[-1], state))
    np.testing.assert_allclose(found.variance, running.var, rtol=1e-4)


def test_statistics_outlive_episodes_stay_frozen_and_begin_elsewhere():
    learning = rl.normalize_rewards(rl.normalize_observations(rl.vectorize(counter(3), 4)), 0.9)
    _, (_, state, *_) = steps(learning, 8, jnp.zeros(4))
    state = jax.tree.map(lambda leaf: leaf[-1], state)
    observed, rewarded = rl.observation_statistics(state), rl.reward_statistics({"anything": [state]})
    np.testing.assert_allclose([observed.num_seen, rewarded.num_seen], [4 * (1 + 8 + 2), 4 * 8], rtol=1e-4)

    env = rl.normalize_observations(counter(3), statistics=observed, update=False)
    env = rl.normalize_rewards(env, 0.9, statistics=rewarded, update=False)
    (first, _), (obs, frozen, reward, *_) = steps(env, 4)
    assert_close(rl.observation_statistics(frozen).mean, jnp.tile(observed.mean, (4, 1)))
    spread = np.sqrt(observed.variance)
    np.testing.assert_allclose(first, (0 - observed.mean) / spread, rtol=1e-5)
    np.testing.assert_allclose(obs[:, 0] * spread + observed.mean, [1, 2, 0, 1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(reward * np.sqrt(rewarded.variance), [1, 2, 3, 1], rtol=1e-5)


def test_inside_vectorize_each_environment_has_its_own_statistics():
    env = rl.vectorize(rl.normalize_observations(counter(30)), 2)
    _, (_, state, *_) = steps(env, 6, jnp.array([0.0, 1.0]))
    found = rl.observation_statistics(state)
    assert found.mean.shape == (6, 2, 1)
    np.testing.assert_allclose(found.mean[-1, :, 0], [3, 6], rtol=1e-4)


def test_statistics_may_be_traced():
    def first(shift: jax.Array) -> jax.Array:
        learnt = rl.RunningStatistics(jnp.array(9.0), shift, jnp.array([4.0]))
        return rl.normalize_observations(counter(3), statistics=learnt, update=False, eps=0.0).reset(KEY)[0]

    found = jax.vmap(first)(jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(found[:, 0], [0, -0.5])


def test_scaled_and_clipped_actions_are_those_of_the_environment():
    env, plain = rl.scale_actions(rl.clip_actions(rl.pendulum())), rl.pendulum()
    _, state = plain.reset(KEY)
    for given, wanted in ((-1.0, -2.0), (0.25, 0.5), (1.0, 2.0), (3.0, 2.0)):
        found = env.step(KEY, state, jnp.array([given]))
        assert_close(found, plain.step(KEY, state, jnp.array([wanted])))
    seen = rl.clip_actions(counter(3)).step(KEY, jnp.zeros(1), 5.0)
    assert seen[2] == 1.0


def test_bounds_of_actions_follow_the_parameters():
    env, plain = rl.scale_actions(rl.pendulum()), rl.pendulum()
    _, state = plain.reset(KEY)

    def both(torque: jax.Array) -> Any:
        params = rl.PendulumParams(max_torque=torque)
        return env.step(KEY, state, jnp.ones(1), params), plain.step(KEY, state, torque[None], params)

    assert_close(*jax.vmap(both)(jnp.array([1.0, 4.0])))


def test_rewards_pass_through_a_function_and_the_innermost_stays():
    env = rl.transform_rewards(rl.normalize_rewards(rl.transform_rewards(counter(3), lambda r: 10 * r), 0.0), half)
    _, (*_, info) = steps(env, 3)
    assert info["raw_reward"].tolist() == [1, 2, 3]


def test_a_tower_of_wrappers_is_rolled_out_in_halves_as_a_whole():
    env = OURS["tower"]()

    def policy(params: Any, obs: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (3, 1), minval=-1.5, maxval=1.5)

    whole, part = (training.rollout(env, policy, num_steps) for num_steps in (12, 6))
    start = whole.init(KEY, None)
    end, trajectory = jax.jit(whole)(None, start)
    middle, first = jax.jit(part)(None, start)
    final, second = jax.jit(part)(None, middle)
    assert_same(end, final)
    assert_same(trajectory, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second))
    assert trajectory.truncated.sum() == 9
    assert trajectory.next_obs.shape == (12, 3, 2, 2, 3)


@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_vectorized_environments_are_rolled_out(num_envs):
    env = rl.vectorize(rl.navigation(), num_envs)
    net = nets.linear(2)
    collect = training.rollout(env, lambda params, obs, key: net.apply(params, obs), 5)
    params = net.init(KEY, jnp.zeros(2))
    _, trajectory = jax.jit(collect)(params, collect.init(KEY, params))
    assert trajectory.reward.shape == (5, num_envs)


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar", "MountainCarContinuous-v0"])
def test_environments_of_gymnax_are_wrapped_and_rolled_out(name):
    inner = rl.time_limit(rl.vectorize(gymnax.make(name)[0], 3), 6)
    env = rl.normalize_rewards(rl.normalize_observations(rl.frame_stack(inner, 2)), 0.9)
    space = env.action_space()
    collect = training.rollout(env, lambda params, obs, key: jax.vmap(space.sample)(jax.random.split(key, 3)), 14)
    _, trajectory = jax.jit(lambda: collect(None, collect.init(KEY, None)))()
    ended = np.asarray(trajectory.ended)
    assert trajectory.obs.shape[:3] == (14, 3, 2)
    assert np.isfinite(trajectory.obs).all()
    assert np.asarray(trajectory.truncated).sum() >= 3
    assert trajectory.episode_length.max() == 6
    np.testing.assert_array_equal(trajectory.first[1:], ended[:-1])


def test_gradients_go_through_new_episodes_of_vectorized_environments():
    env = rl.vectorize(rl.time_limit(rl.navigation(), 2), 3)
    collect = training.rollout(env, lambda params, obs, key: params, 5)

    def loss(params: jax.Array) -> jax.Array:
        return jnp.sum(collect(params, collect.init(KEY, params))[1].reward)

    # Each of the three episodes adds minus (goal - a)^2, and, where it has a second step, minus (goal - 2 a)^2.
    action, goal = np.full((3, 2), 0.05), 0.25
    expected = 3 * 2 * (goal - action) + 2 * 4 * (goal - 2 * action)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.asarray(action)), expected, rtol=1e-5)


UNBOUNDED = training.Environment(lambda *_: (), lambda *_: (), action_space=rl.Box(-jnp.inf, 1.0, (2,)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl.time_limit(counter(3), 0), "time_limit: expected num_steps to be an integer of at least 1, got 0"),
        (lambda: rl.vectorize(counter(3), 0), "vectorize: expected num_envs to be an integer of at least 1, got 0"),
        (
            lambda: rl.frame_stack(counter(3), 0),
            "frame_stack: expected num_frames to be an integer of at least 1, got 0",
        ),
        (
            lambda: rl.normalize_rewards(counter(3), 1.5),
            "normalize_rewards: expected discount to be between 0 and 1, got 1.5",
        ),
        (
            lambda: rl.scale_actions(UNBOUNDED),
            "scale_actions: expected actions between finite bounds, got Box(-inf, 1.0, (2,))."
            " What is unbounded has no scale; leave it as it is.",
        ),
        (
            lambda: rl.scale_actions(rl.cart_pole()),
            "scale_actions: expected an environment whose actions are in a box, got Discrete(2)",
        ),
        (
            lambda: rl.clip_actions(rl.cart_pole()),
            "clip_actions: expected an environment whose actions are in a box, got Discrete(2)",
        ),
        (
            lambda: rl.observation_statistics((jnp.ones(3),)),
            "observation_statistics: expected the state of one environment of normalize_observations, got 0 of them in "
            "tuple. Give it the state that such an environment returns.",
        ),
        (
            lambda: rl.reward_statistics([rl.normalize_rewards(counter(3), 0.9).reset(KEY)] * 2),
            "reward_statistics: expected the state of one environment of normalize_rewards, got 2 of them in list. "
            "Give it the state that such an environment returns.",
        ),
        (
            lambda: rl.normalize_observations(
                counter(3),
                statistics=rl.observation_statistics(rl.vectorize(rl.normalize_observations(counter(3)), 2).reset(KEY)),
            ).reset(KEY),
            "normalize_observations: expected statistics of shapes ((), (1,), (1,)), got ((2,), (2, 1), (2, 1)). "
            "Where environments were vectorized around it, each has its own: take those of one.",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises((ValueError, TypeError)) as error:
        make()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("time_limit", lambda env: rl.time_limit(env, 3)),
        ("vectorize", lambda env: rl.vectorize(env, 3)),
        ("frame_stack", lambda env: rl.frame_stack(env, 3)),
        ("transform_observations", lambda env: rl.transform_observations(env, half)),
        ("transform_rewards", lambda env: rl.transform_rewards(env, half)),
        ("scale_actions", rl.scale_actions),
        ("clip_actions", rl.clip_actions),
        ("normalize_observations", rl.normalize_observations),
        ("normalize_rewards", lambda env: rl.normalize_rewards(env, 0.9)),
    ],
)
def test_what_is_no_environment_is_refused(name, wrap):
    with pytest.raises(TypeError, match=f"^{name}: expected an environment with gymnax's functions"):
        wrap(rl.cart_pole)
