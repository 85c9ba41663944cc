"""From a rollout to what is learned from: ends at known steps, recurrent policies, replay within one program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renga import nets, training
from renga.training import rl

KEY = jax.random.key(0)
NUM_STEPS, NUM_ENVS = 17, 4


def counting() -> training.Environment:
    """Episodes of 4 steps that terminate and of 6 that are cut off, whose observations count the steps."""

    def reset_env(key: jax.Array, params: Any) -> Any:
        state = {"time": jnp.zeros(()), "cut": jax.random.bernoulli(key)}
        return jnp.zeros(1), state

    def step_env(key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        state = {**state, "time": state["time"] + 1}
        return state["time"][None], state, 1 + state["time"], ~state["cut"] & (state["time"] == 4), {}

    return training.Environment(reset_env, step_env, lambda state, params: state["cut"] & (state["time"] == 6))


CELL = nets.gru_cell(6)
NET, HEAD = nets.rnn(CELL, return_carry=True), nets.linear(3)


def initial_carry(params: Any, obs: jax.Array) -> jax.Array:
    return CELL.initial_carry(params["cell"], obs)


def policy(params: Any, carry: jax.Array, obs: jax.Array, key: jax.Array) -> Any:
    after, hidden = CELL.step(params["cell"], carry, obs)
    action, log_prob = rl.categorical(HEAD.apply(params["head"], hidden)).sample_and_log_prob(key)
    return after, (action, {"carry": carry, "log_prob": log_prob})


PARAMS = {
    "cell": CELL.init(jax.random.key(1), jnp.ones((NUM_ENVS, 1))),
    "head": jax.tree.map(lambda leaf: 3 * leaf, HEAD.init(jax.random.key(2), jnp.ones((NUM_ENVS, 6)))),
}


def collected() -> training.Trajectory:
    env = rl.vectorize(counting(), NUM_ENVS)
    collect = training.rollout(env, policy, NUM_STEPS, initial_carry=initial_carry, has_aux=True)
    state = collect.init(KEY, PARAMS)
    state, _ = collect(PARAMS, state)  # so that the trajectory begins within episodes
    return collect(PARAMS, state)[1]


TRAJECTORY = jax.jit(collected)()


def test_advantages_over_a_rollout_are_those_of_each_episode_alone():
    seen = TRAJECTORY
    value = lambda obs: jnp.sin(obs[..., 0])  # noqa: E731
    flags = {"terminated": seen.terminated, "truncated": seen.truncated}
    assert min(int(flag.sum()) for flag in flags.values()) > 1
    found = rl.gae(seen.reward, value(seen.obs), value(seen.next_obs), **flags, discount=0.9, decay=0.8)
    for env in range(NUM_ENVS):
        begin = 0
        for time in range(NUM_STEPS):
            if not (seen.ended[time, env] or time == NUM_STEPS - 1):
                continue
            values = np.asarray(value(seen.obs[begin : time + 1, env]))
            after = 0.0 if seen.terminated[time, env] else float(value(seen.next_obs[time, env]))
            errors = np.asarray(seen.reward[begin : time + 1, env]) + 0.9 * np.append(values[1:], after) - values
            alone = [sum(0.72 ** np.arange(len(errors) - t) * errors[t:]) for t in range(len(errors))]
            np.testing.assert_allclose(found.advantages[begin : time + 1, env], alone, rtol=1e-5)
            begin = time + 1


def again(packed: rl.Packed, **options: Any) -> jax.Array:
    hidden, _ = NET.apply(PARAMS["cell"], packed.data.obs, carry=packed.carries, **options)
    return rl.categorical(HEAD.apply(PARAMS["head"], hidden)).log_prob(packed.data.action)


def test_log_probabilities_from_packed_sequences_are_those_of_collection():
    seen = TRAJECTORY
    carries, seen = seen.aux["carry"], seen._replace(aux=seen.aux["log_prob"])
    packed = rl.pack_episodes(seen, seen.first, 3, num_sequences=40, carries=carries)
    assert packed.mask.sum() == NUM_STEPS * NUM_ENVS
    found = jnp.where(packed.mask, again(packed, lengths=packed.mask.sum(-1)), 0)
    np.testing.assert_allclose(found, packed.data.aux, atol=1e-5)
    packed = rl.chunks(seen, 5, carries=carries)
    found = jnp.where(packed.mask, again(packed, reset=packed.data.first), 0)
    np.testing.assert_allclose(found, packed.data.aux, atol=1e-5)
    rows = rl.minibatches(KEY, packed, 2, axes=1)
    per_row = jax.vmap(lambda rows: again(rows, reset=rows.data.first))(rows)
    np.testing.assert_allclose(jnp.where(rows.mask, per_row, 0), rows.data.aux, atol=1e-5)


def test_sequences_from_replay_within_a_scan_are_pieces_of_the_trajectory():
    env = rl.vectorize(counting(), NUM_ENVS)
    collect = training.rollout(env, policy, 5, initial_carry=initial_carry, has_aux=True)
    buffer = rl.replay(12, num_envs=NUM_ENVS)

    @jax.jit
    def run(key: jax.Array) -> Any:
        start = collect.init(key, PARAMS)
        shapes = jax.eval_shape(collect, PARAMS, start)[1]
        example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), shapes)

        def learn(carry: Any, sample_key: jax.Array) -> Any:
            rollout_state, replay_state = carry
            rollout_state, seen = collect(PARAMS, rollout_state)
            replay_state = buffer.add(replay_state, seen)
            return (rollout_state, replay_state), buffer.sample(replay_state, sample_key, 64, sequence_length=5)

        return jax.lax.scan(learn, (start, buffer.init(example)), jax.random.split(key, 6))[1]

    drawn = run(KEY)
    goes_on = ~drawn.ended[:, :-1]
    np.testing.assert_array_equal(drawn.next_obs[:, :-1, :, 0][goes_on], drawn.obs[:, 1:, :, 0][goes_on])
    np.testing.assert_array_equal(drawn.first[:, 1:], drawn.ended[:, :-1])
    one = rl.n_step(drawn.reward[3], terminated=drawn.terminated[3], truncated=drawn.truncated[3], discount=0.9)
    final = rl.take_step(drawn.next_obs[3], one.last)
    np.testing.assert_array_equal(final[:, 0], drawn.obs[3, 0, :, 0] + one.last + 1)
    terminated = rl.take_step(drawn.terminated[3], one.last)
    expected = jnp.where(terminated, 0, 0.9 ** (one.last + 1))
    np.testing.assert_allclose(one.discounts, expected, rtol=1e-5)
