"""Sequences cut from trajectories against loops, and networks run over them against the steps that were made."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets
from renga.training import rl

NUM_STEPS, NUM_ENVS = 11, 5
KEY = jax.random.key(0)
FIRST = np.random.default_rng(0).uniform(size=(NUM_STEPS, NUM_ENVS)) < 0.25
FIRST[0], FIRST[:, 1], FIRST[0, 2], FIRST[1:, 3] = True, True, False, False  # all short, one begun before, one long
TIME = 1 + np.arange(NUM_STEPS)[:, None] + 100 * np.arange(NUM_ENVS)
DATA = {"t": jnp.asarray(TIME), "obs": [jnp.stack([TIME, -TIME], -1).astype(jnp.float32)]}
CARRIES = (jnp.asarray(TIME, jnp.float32)[..., None],)


def by_hand(length: int) -> list[list[int]]:
    """The sequences that episodes make, one environment after the other."""
    found = []
    for env in range(NUM_ENVS):
        row: list[int] = []
        for time in range(NUM_STEPS):
            if row and (FIRST[time, env] or len(row) == length):
                found.append(row)
                row = []
            row.append(int(TIME[time, env]))
        found.append(row)
    return found


def check_rows(packed: rl.Packed, rows: list[list[int]], length: int) -> None:
    padded = [row + [0] * (length - len(row)) for row in rows]
    assert packed.data["t"].tolist() == padded
    np.testing.assert_array_equal(packed.data["obs"][0][..., 1], -np.array(padded))
    there = [index for index, row in enumerate(rows) if row]
    assert np.asarray(packed.carries[0])[there, 0].tolist() == [rows[index][0] for index in there]


@pytest.mark.parametrize("length", [1, 3, 4, NUM_STEPS, 20])
def test_episodes_stand_in_rows_and_go_on_in_the_next(length: int):
    rows = by_hand(length)
    pack = jax.jit(
        lambda num: rl.pack_episodes(DATA, FIRST, length, num_sequences=num, carries=CARRIES), static_argnums=0
    )
    for num in (len(rows), len(rows) + 3):
        packed = pack(num)
        check_rows(packed, rows + [[]] * (num - len(rows)), length)
        np.testing.assert_array_equal(packed.mask, packed.data["t"] > 0)
    fewer = pack(3)
    check_rows(fewer, rows[:3], length)
    assert (fewer.mask.sum() < NUM_STEPS * NUM_ENVS) == (len(rows) > 3)


@pytest.mark.parametrize(
    ("length", "stride", "burn_in"), [(4, None, 0), (4, None, 1), (5, 2, 3), (3, 5, 0), (20, 1, 2)]
)
def test_chunks_are_at_even_distances_and_reach_the_end(length: int, stride: int | None, burn_in: int):
    step = length - burn_in if stride is None else stride
    starts = [0]
    while starts[-1] + length < NUM_STEPS:
        starts.append(starts[-1] + step)
    rows = [TIME[start : start + length, env].tolist() for start in starts for env in range(NUM_ENVS)]
    cut = jax.jit(lambda: rl.chunks(DATA, length, stride=stride, burn_in=burn_in, carries=CARRIES))
    packed = cut()
    check_rows(packed, rows, length)
    expected = (packed.data["t"] > 0) & (np.arange(length) >= burn_in)
    np.testing.assert_array_equal(packed.mask, expected)
    learned = np.sort(np.asarray(packed.data["t"])[np.asarray(packed.mask)])
    if stride is None:
        assert learned.tolist() == np.sort(TIME[burn_in:].reshape(-1)).tolist()


CELL = nets.gru_cell(4)
NET = nets.rnn(CELL, return_carry=True)


def collected() -> tuple[Any, Any, Any, Any]:
    """What a recurrent policy saw, carried into each step and said, with its carry reset where episodes begin."""
    obs = jax.random.normal(KEY, (NUM_STEPS, NUM_ENVS, 3))
    params = NET.init(jax.random.key(1), obs)
    before = jax.random.normal(jax.random.key(2), (NUM_ENVS, 4))  # of episodes that began before

    def step(carry: jax.Array, at: tuple) -> Any:
        obs, first = at
        carry = jnp.where(first[:, None], CELL.initial_carry(params, obs), carry)
        after, output = CELL.step(params, carry, obs)
        return after, (carry, output)

    _, (carries, outputs) = jax.lax.scan(step, before, (obs, jnp.asarray(FIRST)))
    return params, obs, carries, outputs


def test_a_network_over_packed_episodes_says_what_the_policy_said():
    params, obs, carries, outputs = collected()
    data = {"obs": obs, "output": outputs}
    packed = rl.pack_episodes(data, FIRST, 4, num_sequences=40, carries=carries)
    ys, _ = NET.apply(params, packed.data["obs"], carry=packed.carries, lengths=packed.mask.sum(-1))
    np.testing.assert_allclose(ys, packed.data["output"], atol=1e-6)
    assert packed.mask.sum() == NUM_STEPS * NUM_ENVS


def test_a_network_over_chunks_says_what_the_policy_said_and_burning_in_gives_the_carry():
    params, obs, carries, outputs = collected()
    data = {"obs": obs, "first": jnp.asarray(FIRST), "output": outputs}
    packed = rl.chunks(data, 6, burn_in=2, carries=carries)
    obs, reset = packed.data["obs"], packed.data["first"]
    _, carry = NET.apply(params, obs[:, :2], carry=packed.carries, reset=reset[:, :2])
    ys, _ = NET.apply(params, obs[:, 2:], carry=jax.lax.stop_gradient(carry), reset=reset[:, 2:])
    said = jnp.where(packed.mask[:, 2:, None], ys, 0)
    expected = jnp.where(packed.mask[:, 2:, None], packed.data["output"][:, 2:], 0)
    np.testing.assert_allclose(said, expected, atol=1e-6)


def test_packing_is_differentiable_and_goes_under_vmap():
    def total(obs: jax.Array, first: Any) -> jax.Array:
        packed = rl.pack_episodes({"obs": obs}, first, 3, num_sequences=40)
        return jnp.sum(packed.data["obs"] ** 2)

    obs = DATA["obs"][0]
    np.testing.assert_allclose(jax.grad(total)(obs, FIRST), 2 * obs)
    two = jnp.stack([jnp.asarray(FIRST), jnp.zeros_like(FIRST)])
    pack = lambda first: rl.pack_episodes(DATA, first, 3, num_sequences=40)  # noqa: E731
    together = jax.jit(jax.vmap(pack))(two)
    for index in range(2):
        alone = pack(two[index])
        jax.tree.map(lambda one, all: np.testing.assert_array_equal(one, all[index]), alone, together)  # noqa: B023


def test_minibatches_are_all_steps_once_in_another_order_for_each_key():
    found = jax.jit(lambda key: rl.minibatches(key, DATA, 5))(KEY)
    assert found["t"].shape == (5, NUM_STEPS)
    assert np.sort(found["t"].reshape(-1)).tolist() == np.sort(TIME.reshape(-1)).tolist()
    np.testing.assert_array_equal(found["obs"][0][..., 0], found["t"])
    other = rl.minibatches(jax.random.key(1), DATA, 5)
    assert found["t"].tolist() != other["t"].tolist() != TIME.reshape(5, -1).tolist()


def test_minibatches_of_rows_keep_each_row_as_it_is():
    packed = rl.chunks(DATA, 4, carries=CARRIES)
    found = rl.minibatches(KEY, packed, 3, axes=1)
    assert found.data["t"].shape == (3, 5, 4)
    assert sorted(found.data["t"].reshape(-1, 4).tolist()) == sorted(packed.data["t"].tolist())
    np.testing.assert_array_equal(found.carries[0][..., 0], found.data["t"][..., 0])


def test_minibatches_of_sequences_are_whole_environments_in_rows_each_with_its_carry():
    found = rl.sequence_minibatches(KEY, DATA, 5, carries={"h": DATA["t"][0]})
    assert found.data["t"].shape == found.mask.shape == (5, 1, NUM_STEPS)
    rows = np.asarray(found.data["t"]).reshape(NUM_ENVS, NUM_STEPS)
    assert sorted(rows.tolist()) == sorted(TIME.T.tolist())
    np.testing.assert_array_equal(found.data["obs"][0][..., 1], -found.data["t"])
    np.testing.assert_array_equal(found.carries["h"], found.data["t"][..., 0])
    assert found.mask.all()
    assert rl.sequence_minibatches(KEY, DATA, 5).carries is None


ONES = jnp.ones((6, 4))
REFUSED: dict[str, tuple[type[Exception], Callable[[], Any], str]] = {
    "no length": (
        ValueError,
        lambda: rl.pack_episodes(DATA, FIRST, 0, num_sequences=3),
        "pack_episodes: expected length to be an integer of at least 1, got 0",
    ),
    "no rows": (
        ValueError,
        lambda: rl.pack_episodes(DATA, FIRST, 3, num_sequences=0),
        "pack_episodes: expected num_sequences to be an integer of at least 1, got 0",
    ),
    "ends as numbers": (
        TypeError,
        lambda: rl.pack_episodes(ONES, ONES, 3, num_sequences=3),
        "pack_episodes: expected first as Booleans, got float32.",
    ),
    "other ends": (
        ValueError,
        lambda: rl.pack_episodes({"a": ONES}, ONES[1:] > 0, 3, num_sequences=3),
        "pack_episodes: expected arrays [time, envs, ...] alike in the first 2 axes, got (5, 4) at 'first' and (6, 4) "
        "at 'data/a'.",
    ),
    "no environments": (
        ValueError,
        lambda: rl.chunks(jnp.ones(6), 3),
        "chunks: expected arrays [time, envs, ...] alike in the first 2 axes, got (6,) at 'data' and (6,) at 'data'.",
    ),
    "other carries": (
        ValueError,
        lambda: rl.chunks(ONES, 3, carries=ONES[:, 1:]),
        "chunks: expected arrays [time, envs, ...] alike in the first 2 axes, got (6, 4) at 'data' and (6, 3) at "
        "'carries'.",
    ),
    "all of it burn-in": (
        ValueError,
        lambda: rl.chunks(ONES, 3, burn_in=3),
        "chunks: expected burn_in to be an integer in [0, 3), got 3.",
    ),
    "standing still": (
        ValueError,
        lambda: rl.chunks(ONES, 3, stride=0),
        "chunks: expected stride to be an integer of at least 1, got 0",
    ),
    "steps that cannot be shared": (
        ValueError,
        lambda: rl.minibatches(KEY, ONES, 5),
        "minibatches: expected a number of steps that 5 minibatches share evenly, got 24. Choose num among its "
        "divisors.",
    ),
    "environments that cannot be shared": (
        ValueError,
        lambda: rl.sequence_minibatches(KEY, ONES, 3),
        "sequence_minibatches: expected a number of environments that 3 minibatches share evenly, got 4. Choose num "
        "among its divisors.",
    ),
    "carries of other environments": (
        ValueError,
        lambda: rl.sequence_minibatches(KEY, ONES, 2, carries={"h": jnp.ones((3, 2))}),
        "sequence_minibatches: expected carries of 4 environments, [envs, ...], got (3, 2) at 'carries/h'.",
    ),
    "rows that differ": (
        ValueError,
        lambda: rl.minibatches(KEY, (ONES, ONES[1:]), 1, axes=1),
        "minibatches: expected arrays [time, ...] alike in the first axis, got (5, 4) at 'data/1' and (6, 4) at "
        "'data/0'.",
    ),
    "nothing": (ValueError, lambda: rl.minibatches(KEY, {}, 2), "minibatches: expected arrays, got none."),
}


@pytest.mark.parametrize(("error", "call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(error: type[Exception], call: Callable[[], Any], message: str):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
