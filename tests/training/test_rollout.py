"""Rollouts: a loop by hand, episodes that end at known steps, halves, many at once, derivatives, refusals."""

import functools
import pickle
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from renga import nets, training
from renga.training import rl

from ..optim.trees import assert_close, assert_same

KEY = jax.random.key(3)


TRACED = []


class Clock(NamedTuple):
    """The state of `clock`."""

    time: jax.Array
    start: jax.Array


@training.environment
def clock(terminates: int = 5, cut: int = 100) -> training.Environment:
    """Counts from a random number; ends by itself after `terminates` steps, and is cut off after `cut`."""

    def reset_env(key: jax.Array, params: Any) -> tuple[Any, Clock]:
        start = jax.random.uniform(key)
        return {"time": jnp.zeros(()), "start": start}, Clock(jnp.array(0), start)

    def step_env(key: jax.Array, state: Clock, action: jax.Array, params: Any) -> tuple[Any, ...]:
        state = state._replace(time=state.time + 1)
        obs = {"time": state.time.astype(float), "start": state.start}
        return obs, state, action * jax.random.uniform(key), state.time >= terminates, {"time": state.time}

    return training.Environment(reset_env, step_env, lambda state, params: state.time >= cut)


def policy(params: jax.Array, obs: Any, key: jax.Array) -> tuple[jax.Array, Any]:
    return params + obs["time"] + jax.random.normal(key), {"seen": obs["time"]}


def counted(params: Any, obs: Any, key: jax.Array) -> jax.Array:
    TRACED.append("counted")
    return params


def collected(num_steps: int = 12, env: Any = None, **options: Any) -> Any:
    collect = training.rollout(env or clock(), policy, num_steps, has_aux=True, **options)
    return jax.jit(collect)(1.0, collect.init(KEY, 1.0))


def test_it_is_the_loop_by_hand():
    env, collect = clock(), training.rollout(clock(), policy, 12, has_aux=True)
    start = collect.init(KEY, 1.0)
    obs, state, rows = start.obs, start.env_state, []
    for step in range(12):
        act_key, step_key, reset_key = (
            jax.random.fold_in(jax.random.fold_in(start.key, step), use) for use in range(3)
        )
        action, _ = policy(jnp.array(1.0), obs, act_key)
        next_obs, state, reward, terminated, _ = env.step_env(step_key, state, action, None)
        rows.append((obs["time"], obs["start"], action, reward, next_obs["time"], terminated))
        obs = next_obs
        if terminated:
            obs, state = env.reset_env(reset_key, None)
    _, seen = collect(1.0, start)
    found = seen.obs["time"], seen.obs["start"], seen.action, seen.reward, seen.next_obs["time"], seen.terminated
    for one, other in zip(found, zip(*rows, strict=True), strict=True):
        np.testing.assert_allclose(one, np.stack(other), 1e-6)


def test_episodes_end_where_they_should_and_nothing_leaks_into_the_next():
    state, seen = collected()
    assert seen.obs["time"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert seen.next_obs["time"].tolist() == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
    assert seen.terminated.nonzero()[0].tolist() == [4, 9]
    assert seen.first.nonzero()[0].tolist() == [0, 5, 10]
    assert not seen.truncated.any()
    starts = seen.obs["start"]
    assert len(set(starts.tolist())) == 3
    np.testing.assert_array_equal(seen.next_obs["start"], starts)
    np.testing.assert_array_equal(seen.aux["seen"], seen.obs["time"])
    np.testing.assert_array_equal(seen.info["time"], seen.next_obs["time"])
    assert seen.episode_length.tolist() == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
    returns = [np.cumsum(part) for part in np.split(np.asarray(seen.reward), [5, 10])]
    np.testing.assert_allclose(seen.episode_return, np.concatenate(returns), 1e-5)
    assert (state.episode_length, state.step, state.first) == (2, 12, False)


def test_truncation_is_kept_apart_from_termination():
    _, seen = collected(env=clock(terminates=5, cut=3))
    assert seen.truncated.nonzero()[0].tolist() == [2, 5, 8, 11]
    assert not seen.terminated.any()
    assert seen.ended.nonzero()[0].tolist() == [2, 5, 8, 11]
    assert seen.next_obs["time"].tolist() == [1, 2, 3] * 4
    _, both = collected(env=clock(terminates=3, cut=3))
    assert both.terminated.nonzero()[0].tolist() == both.truncated.nonzero()[0].tolist() == [2, 5, 8, 11]


def test_metrics_are_means_over_the_episodes_that_ended():
    _, seen = collected()
    metrics = training.episode_metrics(seen)
    assert (metrics["episodes"], metrics["length"]) == (2, 5)
    np.testing.assert_allclose(metrics["return"], (seen.reward[:5].sum() + seen.reward[5:10].sum()) / 2, 1e-6)
    assert np.isnan(training.episode_metrics(collected(3)[1])["return"])


@pytest.mark.parametrize("unroll", [1, 5])
def test_two_halves_are_bitwise_one_whole(unroll: int):
    end, seen = collected(12, unroll=unroll)
    collect = training.rollout(clock(), policy, 6, has_aux=True, unroll=unroll)
    half, first = jax.jit(collect)(1.0, collect.init(KEY, 1.0))
    rest, second = jax.jit(collect)(1.0, half)
    assert_same(rest, end)
    assert_same(jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second), seen)


def test_many_at_once_are_as_many_alone():
    collect = training.rollout(clock(), policy, 12, has_aux=True)
    keys = jax.random.split(KEY, 3)
    starts = jax.vmap(collect.init, (0, None))(keys, 1.0)
    together = jax.jit(jax.vmap(collect, (None, 0)))(1.0, starts)
    one = jax.jit(collect)
    alone = [one(1.0, collect.init(key, 1.0)) for key in keys]
    assert_close(together, jax.tree.map(lambda *each: jnp.stack(each), *alone), rtol=1e-6)


def recurrent(params: Any, carry: jax.Array, obs: Any, key: jax.Array) -> tuple[jax.Array, Any]:
    carry = 2 * carry + 1
    return carry, (carry * params, {"carry": carry})


def test_a_carry_begins_anew_with_every_episode():
    collect = training.rollout(
        clock(), recurrent, 12, has_aux=True, initial_carry=lambda params, obs: jnp.zeros_like(obs["time"])
    )
    state, seen = collect(1.0, collect.init(KEY, 1.0))
    assert seen.aux["carry"].tolist() == [1, 3, 7, 15, 31, 1, 3, 7, 15, 31, 1, 3]
    assert state.carry == 3


CELL = nets.gru_cell(8)


def test_log_probabilities_recomputed_from_the_stored_carry_are_those_of_collection():
    body, head = nets.rnn(CELL), nets.linear(2)
    params = {"body": body.init(KEY, jnp.zeros((1, 2))), "head": head.init(KEY, jnp.zeros(8))}

    def features(obs: Any) -> jax.Array:
        return jnp.stack([obs["time"], obs["start"]], -1)

    def act(params: Any, carry: Any, obs: Any, key: jax.Array) -> tuple[Any, Any]:
        carry, hidden = CELL.step(params["body"], carry, features(obs))
        logits = jax.nn.log_softmax(head.apply(params["head"], hidden))
        action = jax.random.categorical(key, logits)
        return carry, (action, logits[action])

    collect = training.rollout(
        clock(),
        act,
        7,
        has_aux=True,
        initial_carry=lambda params, obs: CELL.initial_carry(params["body"], features(obs)),
    )
    middle, _ = collect(params, collect.init(KEY, params))
    _, seen = collect(params, middle)
    hidden = body.apply(params["body"], features(seen.obs), carry=middle.carry, reset=seen.first)
    logits = jax.nn.log_softmax(head.apply(params["head"], hidden))
    again = jnp.take_along_axis(logits, seen.action[:, None], 1)[:, 0]
    np.testing.assert_allclose(again, seen.aux, atol=1e-5)


def spring() -> training.Environment:
    """A mass on a spring, pushed; ends by time after 4 steps."""

    def reset_env(key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        state = (jnp.array([0.3, -0.2]), jnp.array(0))
        return state[0], state

    def step_env(key: jax.Array, state: Any, action: jax.Array, params: Any) -> tuple[Any, ...]:
        (x, v), time = state
        x, v = x + 0.1 * v, v + 0.1 * (action - jnp.sin(x) * params)
        after = jnp.stack([x, v])
        return after, (after, time + 1), -(x**2) - 0.1 * action**2, False, {}

    return training.Environment(reset_env, step_env, lambda state, params: state[1] >= 4, default_params=2.0)


def test_the_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        collect = training.rollout(spring(), lambda w, obs, key: jnp.tanh(obs @ w), 10)

        def total(w: jax.Array, stiffness: jax.Array) -> jax.Array:
            start = collect.init(jax.random.key(0), w, stiffness)
            return collect(w, start)[1].reward.sum()

        at = (jnp.array([0.7, -0.4]), jnp.array(2.0))
        check_grads(total, at, order=2, modes=("fwd", "rev"), rtol=1e-5)


def test_parameters_of_the_environment_go_with_the_state():
    collect = training.rollout(spring(), lambda w, obs, key: jnp.tanh(obs @ w), 6)
    w, stiffness = jnp.ones(2), jnp.array([1.0, 2.0, 3.0])
    starts = jax.vmap(collect.init, (None, None, 0))(KEY, w, stiffness)
    _, seen = jax.vmap(collect, (None, 0))(w, starts)
    _, default = collect(w, collect.init(KEY, w))
    assert len(set(seen.reward[:, -1].tolist())) == 3
    np.testing.assert_allclose(seen.reward[1], default.reward, 1e-6)


@pytest.mark.parametrize("wrong", [0, 2.0, True])
def test_counts_below_one_are_refused(wrong: Any):
    with pytest.raises(ValueError, match=f"^rollout: expected num_steps to be an integer of at least 1, got {wrong}$"):
        training.rollout(clock(), policy, wrong)


def test_what_has_no_functions_of_an_environment_is_refused():
    expected = (
        "rollout: expected an environment with gymnax's functions reset_env and step_env, got 3 without reset_env"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(expected)} and step_env"):
        training.rollout(3, policy, 1)


def test_equal_rollouts_are_equal_and_do_not_compile_again():
    @functools.partial(jax.jit, static_argnums=0)
    def run(collect: training.Rollout, params: Any) -> Any:
        return collect(params, collect.init(KEY, params))

    run(training.rollout(clock(), counted, 3), 1.0)
    before = len(TRACED)
    run(training.rollout(clock(), counted, 3), 1.0)
    assert len(TRACED) == before > 0
    made = training.rollout(clock(terminates=4), policy, 3, has_aux=True)
    assert pickle.loads(pickle.dumps(made)) == made != training.rollout(clock(), policy, 3, has_aux=True)
    assert repr(made) == "rollout(clock(terminates=4), policy, 3, has_aux=True)"


class Opaque:
    """No pytree."""


SHAPE = jax.ShapeDtypeStruct((), jnp.float32)


def broken(reset: Any = lambda: (jnp.zeros(2), {"x": jnp.zeros(3)}), **changes: Any) -> training.Environment:
    """An environment that goes wrong in one place."""
    good = {"obs": jnp.zeros(2), "state": {"x": jnp.zeros(3)}, "reward": 0.0, "terminated": False}
    after = tuple((good | changes).values())
    return training.Environment(lambda key, params: reset(), lambda *_: (*after, {}), action_space=SHAPE)


@pytest.mark.parametrize(
    ("env", "action", "error"),
    [
        (
            broken(state={"x": jnp.zeros(4)}),
            1.0,
            "expected step_env to return state/x as it was given, float32[3], got float32[4]",
        ),
        (
            broken(state={"x": jnp.zeros(3), "y": 1}),
            1.0,
            "expected step_env to return state/y as it was given, nothing, got int32[]",
        ),
        (
            broken(state={"x": jnp.zeros(3, int)}),
            1.0,
            "expected step_env to return state/x as it was given, float32[3], got int32[3]",
        ),
        (broken(obs=jnp.zeros(1)), 1.0, "expected step_env to return obs as it was given, float32[2], got float32[1]"),
        (broken(reward=jnp.zeros(1)), 1.0, "expected step_env to return reward [], got float32[1]"),
        (broken(terminated=0.0), 1.0, "expected terminated to be bool, got float32[]"),
        (
            broken(),
            jnp.ones(2),
            "expected the policy to return an action [] of ShapeDtypeStruct(shape=(), dtype=float32), got float32[2]",
        ),
    ],
)
def test_what_a_step_changes_is_refused_by_path(env: Any, action: Any, error: str):
    collect = training.rollout(env, lambda params, obs, key: jnp.asarray(action), 3)
    start = collect.init(KEY, None)
    with pytest.raises(ValueError, match=f"^rollout of Environment: {re.escape(error)}$"):
        collect(None, start)


def test_floats_where_actions_are_counted_are_refused():
    env = training.Environment(
        lambda key, params: (0.0, 0.0),
        lambda *_: (0.0, 0.0, 0.0, False, {}),
        action_space=jax.ShapeDtypeStruct((), jnp.int32),
    )
    collect = training.rollout(env, lambda params, obs, key: obs, 3)
    error = "expected the policy to return integers of ShapeDtypeStruct(shape=(), dtype=int32), got float32[]"
    with pytest.raises(ValueError, match=f"^rollout of Environment: {re.escape(error)}$"):
        collect(None, collect.init(KEY, None))


def test_what_a_policy_returns_beside_an_action_without_saying_so_is_refused():
    collect = training.rollout(rl.cart_pole(), lambda params, obs, key: (jnp.array(0), {"value": obs[0]}), 3)
    expected = (
        "rollout of cart_pole(): expected the policy to return one array of Discrete(2), got ('int32[]', {'value': "
        "'float32[]'}). For what it returns beside an action there is has_aux=True."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        collect.init(KEY, None)


@pytest.mark.parametrize(
    ("options", "what"),
    [({"has_aux": True}, "(action, aux) for has_aux"), ({"initial_carry": lambda params, obs: ()}, "(carry, action)")],
)
def test_a_policy_that_does_not_return_a_pair_where_it_should_is_refused(options: dict[str, Any], what: str):
    collect = training.rollout(rl.cart_pole(), lambda *_: np.array(0), 3, **options)
    with pytest.raises(TypeError, match=f"^rollout: expected the policy to return {re.escape(what)}, got ndarray"):
        collect.init(KEY, None)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_a_carry_without_the_axes_of_the_environment_is_refused(shape: tuple[int, ...]):
    def act(params: Any, carry: Any, obs: jax.Array, key: jax.Array) -> Any:
        return carry, jnp.zeros(3, int)

    env = rl.vectorize(rl.cart_pole(), 3)
    collect = training.rollout(env, act, 3, initial_carry=lambda params, obs: {"h": jnp.zeros(shape)})
    expected = (
        "rollout of vectorize(cart_pole(), 3): expected carry/h to begin with the axes of the environment, [3], got "
        f"float32{list(shape)}. Let initial_carry take them from the observation."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        collect.init(KEY, None)


def test_a_state_that_is_no_pytree_is_refused_by_path():
    env = broken(lambda: (jnp.zeros(2), {"x": jnp.zeros(3), "inside": [Opaque()]}))
    collect = training.rollout(env, lambda params, obs, key: 0.0, 3)
    error = "rollout of Environment: expected state/inside/0 to be a pytree of arrays, got Opaque. Register its class"
    with pytest.raises(TypeError, match=f"^{re.escape(error)}"):
        collect.init(KEY, None)


def test_a_carry_that_changes_is_refused():
    collect = training.rollout(
        clock(),
        lambda params, carry, obs, key: (jnp.zeros(2), obs["time"]),
        3,
        initial_carry=lambda params, obs: jnp.zeros(3),
    )
    error = "expected the policy to return carry as it was given, float32[3], got float32[2]"
    with pytest.raises(ValueError, match=f"^rollout of clock\\(\\): {re.escape(error)}$"):
        collect(1.0, collect.init(KEY, 1.0))
