"""Laws of all environments, and each against gymnasium, gymnax or a formula."""

import functools
import itertools
import pickle
from typing import Any

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers import purerl
from jax.test_util import check_grads

from renga import training
from renga.training import rl
from renga.training._environment import environment_of

from ...optim.trees import assert_close, assert_same, types
from .environments import OURS, batch_of, play

GYMNAX = ("CartPole-v1", "Pendulum-v1", "Breakout-MinAtar", "MountainCar-v0")
ALL = OURS | {name: lambda name=name: environment_of("test", gymnax.make(name)[0]) for name in GYMNAX}
KEY = jax.random.key(0)


@functools.cache
def player(name: str) -> Any:
    """An environment and a program that plays it."""
    env = ALL[name]()
    return env, jax.jit(lambda key: play(env, key, 24))


@functools.cache
def played(name: str) -> Any:
    """What one run of that program returns."""
    return player(name)[1](KEY)


@pytest.mark.parametrize("name", ALL)
def test_a_scan_takes_what_a_step_returns(name):
    env, (start, (obs, state, _, reward, terminated, truncated, info)) = player(name)[0], played(name)
    assert types(jax.tree.map(lambda leaf: leaf[0], (obs, state))) == types(start)
    batch = batch_of(env)
    assert reward.shape == terminated.shape == truncated.shape == (24, *batch)
    assert jnp.issubdtype(reward.dtype, jnp.floating)
    assert terminated.dtype == truncated.dtype == bool
    assert types(info["final_observation"]) == types(obs)


@pytest.mark.parametrize("name", ALL)
def test_many_under_vmap_equal_each_alone(name):
    keys = jnp.stack([KEY, *jax.random.split(KEY, 2)])
    together = jax.jit(jax.vmap(lambda key: play(player(name)[0], key, 24)))(keys)
    for i, key in enumerate(keys):
        alone = player(name)[1](key)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_environments_are_the_call_that_made_them(name):
    env, again = OURS[name](), OURS[name]()
    assert env == again
    assert hash(env) == hash(again)
    assert repr(env) == repr(again)
    assert repr(env).startswith(("transform_rewards" if name == "tower" else name).split(" ")[0].rstrip(","))


def test_different_environments_are_not_equal():
    assert len({made() for made in OURS.values()}) == len(OURS)


@pytest.mark.parametrize("name", OURS)
def test_environments_pickle(name):
    env = OURS[name]()
    assert pickle.loads(pickle.dumps(env)) == env


@pytest.mark.parametrize("name", ALL)
def test_what_is_observed_is_in_the_space(name):
    env, ((obs, _), (seen, *_, info)) = player(name)[0], played(name)
    space = env.observation_space()
    if space is not None:
        contains = space.contains if name in OURS else jax.vmap(space.contains)
        for each in (obs[None], seen, info["final_observation"]):
            assert jnp.all(contains(each))
        assert obs.shape[len(batch_of(env)) :] == tuple(space.shape)


@pytest.mark.parametrize("name", ALL)
def test_the_last_observation_is_kept_where_an_episode_ends_and_the_next_begins_elsewhere(name):
    _, (obs, *_, terminated, truncated, info) = played(name)
    ended = np.asarray(terminated | truncated)
    final = np.asarray(info["final_observation"])
    np.testing.assert_allclose(final[~ended], np.asarray(obs)[~ended], rtol=1e-4, atol=1e-5)  # it may be fused twice
    if "normalize" not in name and name not in ("tower", "recall"):
        assert all(np.any(a != b) for a, b in zip(final[ended], np.asarray(obs)[ended], strict=True))


@pytest.mark.parametrize("name", OURS)
def test_nothing_changes_where_no_episode_has_ended(name):
    env, (start, _) = player(name)[0], played(name)
    never = jnp.zeros(batch_of(env), bool)
    assert_same(jax.jit(lambda obs, state: env.restart_env(KEY, never, obs, state, env.default_params))(*start), start)


@pytest.mark.parametrize("name", OURS)
def test_numbers_are_float64_where_these_are_enabled(name):
    with jax.enable_x64(True):
        env = OURS[name]()
        start, steps = jax.eval_shape(lambda: play(env, KEY))
    floats = [leaf.dtype for leaf in jax.tree.leaves((start, steps)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float64")}


def reference(name: str, state: Any, actions: Any) -> Any:
    """Observations, rewards and ends by gymnasium, from a state of its."""
    env: Any = gymnasium.make(name).unwrapped
    env.reset()
    env.state = np.asarray(state, np.float64)
    steps = [env.step(action) for action in actions]
    return [np.stack(each) for each in zip(*(step[:3] for step in steps), strict=True)], env.state


def unrolled(env: training.Environment, state: Any, actions: Any) -> Any:
    def one(state: Any, action: Any) -> Any:
        obs, state, reward, terminated, _ = env.step_env(KEY, state, action, env.default_params)
        return state, (obs, reward, terminated)

    state, steps = jax.lax.scan(one, state, actions)
    return list(steps), state


@pytest.mark.parametrize("seed", range(5))
def test_cart_pole_is_that_of_gymnasium(seed):
    draws = np.random.default_rng(seed)
    start, actions = draws.uniform(-0.05, 0.05, 4), draws.integers(0, 2, 40)
    last = 1 + next(i for i in range(40) if reference("CartPole-v1", start, actions[: i + 1])[0][2][-1] or i == 39)
    expected, end = reference("CartPole-v1", start, actions[:last])
    with jax.enable_x64(True):
        state = rl.CartPoleState(*map(jnp.float64, start), time=jnp.zeros((), jnp.int32))
        found, state = jax.jit(lambda state: unrolled(rl.cart_pole(), state, jnp.asarray(actions[:last])))(state)
        np.testing.assert_allclose(jnp.stack(state[:4]), end, rtol=1e-10)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[2], expected[2])


@pytest.mark.parametrize("seed", range(5))
def test_pendulum_is_that_of_gymnasium(seed):
    draws = np.random.default_rng(seed)
    start, actions = draws.uniform(-4, 4, 2), draws.uniform(-3, 3, (60, 1))
    expected, end = reference("Pendulum-v1", start, actions)
    with jax.enable_x64(True):
        state = rl.PendulumState(*map(jnp.float64, start), time=jnp.zeros((), jnp.int32))
        found, state = jax.jit(lambda state: unrolled(rl.pendulum(), state, jnp.asarray(actions)))(state)
        np.testing.assert_allclose(jnp.stack(state[:2]), end, rtol=1e-9)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9)
    assert not found[2].any()


@pytest.mark.parametrize(("name", "env"), [("CartPole-v1", rl.cart_pole()), ("Pendulum-v1", rl.pendulum())])
def test_limits_and_spaces_are_those_of_gymnasium(name, env):
    theirs = gymnasium.make(name)
    assert theirs.spec is not None
    assert env.default_params.max_steps_in_episode == theirs.spec.max_episode_steps
    assert env.action_space().shape == theirs.action_space.shape
    space: Any = theirs.observation_space
    np.testing.assert_allclose(env.observation_space().high, space.high)
    np.testing.assert_allclose(env.observation_space().low, space.low)


@pytest.mark.parametrize(("name", "env"), [("CartPole-v1", rl.cart_pole()), ("Pendulum-v1", rl.pendulum())])
def test_steps_are_those_of_gymnax(name, env):
    theirs = environment_of("test", gymnax.make(name)[0])
    obs, state = env.reset(KEY)
    _, gymnax_state = theirs.reset(KEY)
    values = {field: getattr(state, field) for field in state._fields if field != "time"}
    gymnax_state = gymnax_state.replace(**values)
    ours, gymnaxs = (jax.jit(each.step) for each in (env, theirs))
    for key in jax.random.split(KEY, 20):
        action = env.action_space().sample(key)
        obs, state, *found, info = ours(key, state, action)
        _, gymnax_state, *expected, gymnax_info = gymnaxs(key, gymnax_state, action)
        np.testing.assert_allclose(info["final_observation"], gymnax_info["final_observation"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.array(found, float), np.array(expected, float), rtol=1e-5, atol=1e-6)
        if found[1]:
            break
        np.testing.assert_array_equal(obs, info["final_observation"])


@pytest.mark.parametrize("name", ["cart_pole", "pendulum"])
def test_episodes_begin_as_those_of_gymnasium(name):
    env = OURS[name]()
    _, state = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 20000))
    drawn = np.stack(state[:-1])
    high = np.full(4, 0.05) if name == "cart_pole" else np.array([np.pi, 1])
    quantiles = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(
        np.quantile(drawn, quantiles, axis=1) / high, np.tile(2 * quantiles[:, None] - 1, len(high)), atol=0.03
    )
    assert np.all(np.abs(drawn) <= high[:, None])
    np.testing.assert_allclose(np.corrcoef(drawn), np.eye(len(high)), atol=0.03)


@pytest.mark.parametrize(("name", "limit"), [("cart_pole", 500), ("pendulum", 200), ("navigation", 100)])
def test_the_time_limit_truncates_and_does_not_terminate(name, limit):
    env = OURS[name]()
    _, state = env.reset(KEY)
    action = jnp.zeros(env.action_space().shape, env.action_space().dtype)
    for time, cut in ((limit - 2, False), (limit - 1, True)):
        *_, terminated, truncated, info = env.step(KEY, state._replace(time=jnp.int32(time)), action)
        assert not terminated
        assert truncated == cut
    assert_close(info["final_observation"], env.step_env(KEY, state, action, env.default_params)[0])


def test_parameters_can_be_mapped_over_and_cut_episodes_short():
    env = rl.cart_pole()
    limits = jnp.array([2, 3, 4])
    _, steps = jax.vmap(lambda limit: play(env, KEY, 8, rl.CartPoleParams(max_steps_in_episode=limit)))(limits)
    np.testing.assert_array_equal(steps[5].sum(1), [4, 2, 2])


@pytest.mark.parametrize("name", ["cart_pole", "pendulum", "navigation"])
def test_gradients_through_steps_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        env = OURS[name]()
        _, state = env.reset(KEY)
        floats = {
            field: jnp.asarray(value, jnp.float64)
            for field, value in env.default_params._asdict().items()
            if "max_steps" not in field and "threshold" not in field and field != "radius"
        }
        actions = jax.random.uniform(KEY, (4, *env.action_space().shape), minval=0.01, maxval=0.05)

        def total(actions: jax.Array, floats: Any) -> jax.Array:
            now, params, value = state, env.default_params._replace(**floats), jnp.zeros(())
            for action in actions:
                obs, now, reward, _, _ = env.step_env(KEY, now, action, params)
                value = value + reward + jnp.sum(jnp.sin(obs))
            return value

        check_grads(jax.jit(total), (actions, floats), order=1, modes=["rev"], rtol=1e-5)
        assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(jax.grad(total)(actions, floats)))


@pytest.mark.parametrize(("num_cues", "delay"), [(3, 2), (2, 0)])
def test_recall_rewards_the_cue_once_and_a_guess_is_right_once_in_so_many(num_cues, delay):
    env = rl.recall(num_cues, delay)
    shown, state = jax.vmap(env.reset)(jax.random.split(KEY, 50))
    cues = jnp.argmax(shown, -1)
    assert set(cues.tolist()) == set(range(num_cues))
    answers = {"remembered": cues} | {str(guess): jnp.full(50, guess) for guess in range(num_cues)}
    totals = {}
    for name, answer in answers.items():
        now, rewards, ends, seen = state, [], [], []
        for _ in range(delay + 2):
            obs, now, reward, terminated, _ = jax.vmap(env.step_env, (None, 0, 0, None))(KEY, now, answer, None)
            rewards.append(reward)
            ends.append(terminated)
            seen.append(obs)
        assert np.array(ends).tolist() == [[False] * 50] * (delay + 1) + [[True] * 50]
        assert not np.any(rewards[:-1])
        assert np.array(seen[:delay]).sum() == 0
        np.testing.assert_array_equal(seen[delay], np.tile(np.eye(num_cues + 1)[-1], (50, 1)))
        totals[name] = np.asarray(rewards[-1])
    assert totals.pop("remembered").tolist() == [1.0] * 50
    np.testing.assert_array_equal(sum(totals.values()), np.ones(50))


def test_navigation_is_the_walk_of_the_paper():
    goal, draws = np.array([0.3, -0.2]), np.random.default_rng(0)
    env, params, position = rl.navigation(), rl.NavigationParams(goal=jnp.array(goal)), np.zeros(2)
    obs, state = env.reset(KEY, params)
    terminated = False
    np.testing.assert_array_equal(obs, position)
    for step in range(30):
        action = draws.normal(size=2) * 0.1 if step < 20 else goal - position
        position = position + np.clip(action, -0.1, 0.1)
        obs, state, reward, terminated, _ = env.step_env(KEY, state, jnp.array(action), params)
        np.testing.assert_allclose(obs, position, atol=1e-6)
        np.testing.assert_allclose(reward, -np.sum((position - goal) ** 2), rtol=1e-5, atol=1e-6)
        assert terminated == (np.linalg.norm(position - goal) < 0.01)
    assert terminated


def test_tasks_of_navigation_are_mapped_over():
    tasks = rl.navigation_tasks(KEY, 500)
    assert np.all(np.abs(tasks.goal) <= 0.5)
    np.testing.assert_allclose(np.std(np.asarray(tasks.goal), 0), 1 / np.sqrt(12), atol=0.02)
    env = rl.navigation()
    _, state = env.reset(KEY)
    rewards = jax.vmap(lambda params: env.step(KEY, state, jnp.zeros(2), params)[2])(tasks)
    np.testing.assert_allclose(rewards, -np.sum(np.asarray(tasks.goal) ** 2, 1), rtol=1e-5)


@pytest.mark.parametrize("wrapper", [purerl.FlattenObservationWrapper, purerl.LogWrapper])
def test_wrappers_of_gymnax_take_our_environments(wrapper):
    env = wrapper(rl.cart_pole())
    _, state = env.reset(KEY, env.default_params)
    given = env.step(KEY, state, 1, env.default_params)
    assert len(given) == 6
    assert_close(given[0], rl.cart_pole().step(KEY, rl.cart_pole().reset(KEY)[1], 1)[0])


@pytest.mark.parametrize("name", ["recall", "cart_pole", "pendulum", "navigation"])
@pytest.mark.parametrize("shape", [(3,), (1, 1)])
def test_actions_of_another_shape_are_refused(name, shape):
    env = OURS[name]()
    _, state = env.reset(KEY)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        env.step(KEY, state, jnp.zeros(shape))
    assert str(error.value) == (
        f"{name}: expected an action of shape {env.action_space().shape}, got one of {shape}. "
        "For many environments at once, vectorize this one."
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl.recall(1, 2), "recall: expected num_cues to be an integer of at least 2, got 1"),
        (lambda: rl.recall(2, -1), "recall: expected delay to be an integer of at least 0, got -1"),
        (
            lambda: rl.navigation_tasks(KEY, 0),
            "navigation_tasks: expected num_tasks to be an integer of at least 1, got 0",
        ),
        (lambda: rl.Discrete(0), "Discrete: expected n to be an integer of at least 1, got 0"),
        (lambda: rl.Discrete(True), "Discrete: expected n to be an integer of at least 1, got True"),
        (
            lambda: rl.Box(0.0, np.ones(3), (2,)),
            "Box: expected high of a shape that broadcasts to (2,), got one of (3,)",
        ),
        (lambda: rl.Box(1.0, 0.0, (2,)), "Box: expected low to be at most high, got 1.0 and 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make()
    assert str(error.value) == message


SPACES = {
    "Discrete(3)": lambda: rl.Discrete(3),
    "Box(-2.0, 2.0, (1,))": lambda: rl.Box(-2.0, 2.0, (1,)),
    "Box([0., 1.], [3., 1.], (2,))": lambda: rl.Box([0.0, 1.0], [3.0, 1.0]),
    "Box(-inf, inf, (2, 2))": lambda: rl.Box(-np.inf, np.inf, (2, 2)),
    "Box([  0., -inf, -inf], [inf,  1., inf], (3,))": lambda: rl.Box([0.0, -np.inf, -np.inf], [np.inf, 1.0, np.inf]),
    "Box(0, 255, (2, 3), uint8)": lambda: rl.Box(0, 255, (2, 3), "uint8"),
    "Box(-1, 1, (), int32)": lambda: rl.Box(-1, 1, (), int),
    "Box(False, True, (2,), bool)": lambda: rl.Box(False, True, (2,), bool),
}


@pytest.mark.parametrize("shown", SPACES)
def test_spaces_contain_what_they_sample_and_are_values(shown):
    space, again = SPACES[shown](), SPACES[shown]()
    assert repr(space) == shown
    assert space == again == pickle.loads(pickle.dumps(space))
    assert hash(space) == hash(again)
    assert len({make() for make in SPACES.values()}) == len(SPACES)
    drawn = jax.jit(lambda key: space.sample(key, (200,)))(KEY)
    assert drawn.shape == (200, *space.shape)
    assert drawn.dtype == space.dtype
    assert space.sample(KEY).shape == space.shape
    assert space.contains(drawn).shape == (200,)
    assert space.contains(drawn).all()
    with pytest.raises(AttributeError):
        space.shape = (3,)


def test_spaces_draw_every_integer_and_reach_both_bounds():
    assert set(rl.Discrete(3).sample(KEY, (50,)).tolist()) == {0, 1, 2}
    assert set(rl.Box(-1, 1, (), int).sample(KEY, (50,)).tolist()) == {-1, 0, 1}
    drawn = rl.Box([-1.0, 2.0], [1.0, 6.0]).sample(KEY, (2000,))
    np.testing.assert_allclose(drawn.mean(0), [0, 4], atol=0.1)
    np.testing.assert_allclose(drawn.std(0), np.array([2, 4]) / np.sqrt(12), rtol=0.05)


def test_spaces_do_not_contain_other_shapes_kinds_and_numbers():
    box, discrete = rl.Box(-1.0, 1.0, (2,)), rl.Discrete(2)
    assert box.contains(jnp.array([[1.0, -1.0], [1.1, 0.0], [jnp.nan, 0.0]])).tolist() == [True, False, False]
    assert not box.contains(jnp.ones(3)).any()
    assert not discrete.contains(1.0)
    assert discrete.contains(jnp.array([-1, 0, 1, 2])).tolist() == [False, True, True, False]


def test_bounds_may_be_traced():
    def drawn(torque: jax.Array) -> Any:
        space = rl.pendulum().action_space(rl.PendulumParams(max_torque=torque))
        return space.sample(KEY, (100,)), space.contains(torque[None])

    sample, inside = jax.vmap(drawn)(jnp.array([1.0, 3.0]))
    assert inside.all()
    assert np.abs(sample[0]).max() < 1 < 2.5 < np.abs(sample[1]).max() < 3


def test_spaces_given_by_a_function_see_the_default_parameters():
    env = environment_of("test", gymnax.make("CartPole-v1")[0])
    assert env.observation_space().shape == (4,)
    for name, each in itertools.product(("pendulum", "navigation"), ("action_space", "observation_space")):
        assert getattr(OURS[name](), each)() == getattr(OURS[name](), each)(OURS[name]().default_params)
