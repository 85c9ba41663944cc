"""Replay buffers against lists in Python, and what they draw against the chances it should have."""

import functools
import pickle
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from renga.training import rl

KEY = jax.random.key(0)
EXAMPLE = {"obs": jax.ShapeDtypeStruct((2,), jnp.float32), "t": jnp.int32(0)}


def steps(start: int, num: int, num_envs: int | None = None) -> dict[str, jax.Array]:
    """Steps that say when, and in which environment, they were: `t = 100 * env + time`."""
    time = start + jnp.arange(num)
    if num_envs is not None:
        time = time[:, None] + 100 * jnp.arange(num_envs)
    return {"obs": jnp.stack([time, -time], -1).astype(jnp.float32), "t": time.astype(jnp.int32)}


def filled(buffer: Any, *nums: int) -> Any:
    state, start = buffer.init(EXAMPLE), 0
    for num in nums:
        state, start = buffer.add(state, steps(start, num, getattr(buffer, "num_envs", None))), start + num
    return state


def likely(counts: np.ndarray, chances: Any = None) -> bool:
    expected = None if chances is None else np.asarray(chances) / np.sum(chances) * counts.sum()
    return bool(chisquare(counts, expected).pvalue > 1e-3)


@pytest.mark.parametrize("capacity", [1, 5, 8])
def test_a_buffer_keeps_the_last_steps_however_they_come(capacity: int):
    buffer, kept, start = rl.replay(capacity), deque(maxlen=capacity), 0
    add = jax.jit(buffer.add)
    state = buffer.init(EXAMPLE)
    for num in (1, 3, 0, 2, 5, 8, 17, 4, 1):
        state = add(state, steps(start, num))
        kept.extend(range(start, start + num))
        start += num
        assert state.size == len(kept)
        oldest_first = (int(state.position) - len(kept) + np.arange(len(kept))) % capacity
        assert buffer.take(state, jnp.asarray(oldest_first))["t"].tolist() == list(kept)
        np.testing.assert_array_equal(state.data["obs"][:, 0], state.data["t"])


def test_every_step_is_drawn_as_often_as_another_and_no_place_without_one():
    buffer = rl.replay(10)
    sample = jax.jit(buffer.sample, static_argnums=2)
    for nums, expected in (((7,), range(7)), ((7, 6), range(3, 13))):
        found = sample(filled(buffer, *nums), KEY, 4000)
        values, counts = np.unique(found["t"], return_counts=True)
        assert values.tolist() == list(expected)
        assert likely(counts)
        np.testing.assert_array_equal(found["obs"][:, 1], -found["t"])


def test_every_environment_is_drawn_as_often_as_another():
    buffer = rl.replay(4, num_envs=3)
    found = buffer.sample(filled(buffer, 5), KEY, 6000)["t"]
    values, counts = np.unique(found, return_counts=True)
    assert values.tolist() == [100 * env + time for env in range(3) for time in range(1, 5)]
    assert likely(counts)


@pytest.mark.parametrize("num_envs", [None, 2])
def test_sequences_are_steps_of_one_environment_in_a_row_and_never_pass_the_newest(num_envs: int | None):
    buffer = rl.replay(10, num_envs=num_envs)
    sample = jax.jit(functools.partial(buffer.sample, sequence_length=4), static_argnums=2)
    for nums, first, last in (((6,), 0, 5), ((6, 7), 3, 12), ((6, 7, 7), 10, 19)):
        found = sample(filled(buffer, *nums), KEY, 3000)["t"]
        assert found.shape == (4, 3000)
        assert bool((jnp.diff(found, axis=0) == 1).all())
        starts, counts = np.unique(found[0], return_counts=True)
        every = [100 * env + start for env in range(num_envs or 1) for start in range(first, last - 2)]
        assert starts.tolist() == every
        assert likely(counts)


def test_a_sequence_may_be_all_there_is():
    buffer = rl.replay(5)
    found = buffer.sample(filled(buffer, 7), KEY, 3, sequence_length=5)["t"]
    assert found.T.tolist() == [[2, 3, 4, 5, 6]] * 3


BUFFERS: dict[str, Any] = {"replay": rl.replay(6), "prioritized_replay": rl.prioritized_replay(6)}


def drawn(buffer: Any, state: Any, key: jax.Array) -> Any:
    return buffer.sample(state, key, 3) if isinstance(buffer, rl.Replay) else buffer.sample(state, key, 3, beta=0.5)


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS.keys())
def test_many_buffers_under_vmap_are_each_what_it_is_alone(buffer: Any):
    def run(key: jax.Array, start: Any) -> Any:
        def step(state: Any, time: Any) -> Any:
            state = buffer.add(state, {"obs": jnp.stack([time, time + 0.5])[:, None], "t": jnp.stack([time, time])})
            return state, drawn(buffer, state, jax.random.fold_in(key, time.astype(int)))

        example = {"obs": jnp.zeros(1), "t": jnp.zeros(())}
        return jax.lax.scan(step, buffer.init(example), start + jnp.arange(7.0))

    keys, starts = jax.random.split(KEY, 3), jnp.array([0.0, 10.0, 20.0])
    together = jax.jit(jax.vmap(run))(keys, starts)
    for seed in range(3):
        alone = jax.jit(run)(keys[seed], starts[seed])
        jax.tree.map(lambda one, all: np.testing.assert_allclose(one, all[seed], rtol=1e-6), alone, together)  # noqa: B023


@pytest.mark.parametrize(
    "buffer", [rl.replay(1 << 16), rl.prioritized_replay(1 << 16)], ids=["replay", "prioritized_replay"]
)
def test_a_donated_buffer_is_changed_in_place_alone_and_in_a_scan(buffer: Any):
    state = jax.eval_shape(buffer.init, EXAMPLE)
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))

    def learn(state: Any, key: jax.Array) -> Any:
        state = buffer.add(state, steps(0, 8))
        found = drawn(buffer, state, key)
        if isinstance(found, rl.PrioritizedSample):
            state = buffer.update(state, found.indices, found.items["obs"][:, 0])
        return state, jax.tree.map(jnp.sum, found)

    def loop(state: Any, keys: jax.Array) -> Any:
        return jax.lax.scan(learn, state, keys)

    for function, keys in ((learn, KEY), (loop, jax.random.split(KEY, 10))):
        memory = jax.jit(function, donate_argnums=0).lower(state, keys).compile().memory_analysis()
        assert memory is not None
        assert memory.alias_size_in_bytes > 0.99 * num_bytes
        assert memory.temp_size_in_bytes < num_bytes / 100


def test_buffers_are_values():
    assert rl.replay(5, num_envs=2) == rl.replay(5, num_envs=2) != rl.replay(5)
    assert len({rl.prioritized_replay(5), rl.prioritized_replay(5)}) == 1
    assert pickle.loads(pickle.dumps(rl.prioritized_replay(5))) == rl.prioritized_replay(5)


def check_tree(state: Any, priorities: np.ndarray) -> None:
    leaves = len(state.tree) // 2
    np.testing.assert_allclose(state.tree[leaves : leaves + len(priorities)], priorities, rtol=1e-5)
    assert bool((state.tree[leaves + len(priorities) :] == 0).all())
    assert state.total == state.tree[1]
    nodes = np.arange(1, leaves)
    np.testing.assert_array_equal(state.tree[nodes], state.tree[2 * nodes] + state.tree[2 * nodes + 1])


@pytest.mark.parametrize("num_envs", [None, 3])
@pytest.mark.parametrize("capacity", [1, 6, 8])
def test_priorities_are_those_of_a_list(capacity: int, num_envs: int | None):
    buffer = rl.prioritized_replay(capacity, alpha=0.7, eps=0.01, num_envs=num_envs)
    envs, draw = num_envs or 1, np.random.default_rng(0)
    state, position, largest = buffer.init(EXAMPLE), 0, 1.0
    expected = np.zeros((capacity, envs))
    add, update = jax.jit(buffer.add), jax.jit(buffer.update)
    for num in (1, 3, 2, 5, 10):
        state = add(state, steps(0, num, num_envs))
        expected[(position + np.arange(num)) % capacity] = largest**0.7
        position = (position + num) % capacity
        indices, priorities = draw.integers(0, min(int(state.size), capacity) * envs, 4), draw.uniform(0, 3, 4)
        state = update(state, indices, priorities)
        for index in set(indices.tolist()):  # of one that is there twice the larger counts
            expected.reshape(-1)[index] = (priorities[indices == index].max() + 0.01) ** 0.7
        largest = max(largest, priorities.max() + 0.01)
        check_tree(state, expected.reshape(-1))
        assert state.largest == pytest.approx(largest)


def test_steps_are_drawn_in_proportion_to_the_power_of_their_priorities():
    buffer = rl.prioritized_replay(12, alpha=0.6, eps=0.0)
    priorities = np.array([1.0, 0.0, 2.0, 8.0, 0.1, 5.0, 0.0, 3.0, 0.5, 1.0])
    state = buffer.add(buffer.init(EXAMPLE), steps(0, 10))
    state = buffer.update(state, jnp.arange(10), jnp.asarray(priorities))
    sample = jax.jit(buffer.sample, static_argnums=2)
    mapped = jax.vmap(lambda key: sample(state, key, 1, beta=0.4))(jax.random.split(KEY, 5000))  # no strata
    counts = np.bincount(np.asarray(mapped.indices)[:, 0], minlength=10)
    chances = priorities**0.6 / np.sum(priorities**0.6)
    assert counts[priorities == 0].tolist() == [0, 0]
    assert likely(counts[priorities > 0], chances[priorities > 0])
    found = sample(state, KEY, 1000, beta=0.4)
    np.testing.assert_array_equal(found.items["t"], found.indices)
    counts = np.bincount(np.asarray(found.indices), minlength=10)
    assert np.abs(counts - 1000 * chances).max() < 2  # each of the equal shares has its own
    weights = (10 * chances[np.asarray(found.indices)]) ** -0.4
    np.testing.assert_allclose(found.weights, weights / weights.max(), rtol=1e-4)


def test_a_weighted_mean_over_prioritised_samples_is_that_over_even_ones():
    buffer = rl.prioritized_replay(8, eps=0.0)
    state = buffer.add(buffer.init(EXAMPLE), steps(0, 8))
    state = buffer.update(state, jnp.arange(8), jnp.arange(1.0, 9.0))
    found = buffer.sample(state, KEY, 20_000, beta=1.0)
    mean = jnp.sum(found.weights * found.items["t"]) / jnp.sum(found.weights)
    assert mean == pytest.approx(3.5, abs=0.01)


def test_a_new_step_takes_the_place_and_the_priority_of_the_oldest():
    buffer = rl.prioritized_replay(4, alpha=1.0, eps=0.0)
    state = buffer.add(buffer.init(EXAMPLE), steps(0, 4))
    state = buffer.update(state, jnp.arange(4), jnp.array([0.0, 0.0, 7.0, 0.0]))
    state = buffer.add(state, steps(4, 1))
    check_tree(state, np.array([7.0, 0.0, 7.0, 0.0]))
    assert set(buffer.sample(state, KEY, 50, beta=0.0).items["t"].tolist()) == {4, 2}
    assert state.size == 4


def test_a_priority_that_is_not_finite_counts_as_the_largest_so_far():
    buffer = rl.prioritized_replay(3, alpha=1.0, eps=0.0)
    state = buffer.add(buffer.init(EXAMPLE), steps(0, 3))
    state = buffer.update(state, jnp.arange(3), jnp.array([jnp.nan, jnp.inf, 0.5]))
    check_tree(state, np.array([1.0, 1.0, 0.5]))
    assert state.largest == 1


def test_what_rounding_leaves_over_is_not_drawn_from_a_place_without_a_step():
    buffer = rl.prioritized_replay(1000, alpha=1.0, eps=0.0)
    state = buffer.add(buffer.init(EXAMPLE), steps(0, 700))
    state = buffer.update(state, jnp.arange(700), 10.0 ** jax.random.uniform(KEY, (700,), minval=-6, maxval=6))
    sample = jax.jit(buffer.sample, static_argnums=2)
    found = jax.vmap(lambda key: sample(state, key, 100, beta=1.0))(jax.random.split(KEY, 100))
    assert int(found.indices.max()) < 700
    assert bool(jnp.isfinite(found.weights).all())


@pytest.mark.parametrize("length", [1, 4])
def test_a_sequence_as_one_transition_has_the_target_of_its_first_step(length: int):
    draw, shape = np.random.default_rng(1), (length, 200)
    rewards, next_values = (jnp.asarray(draw.normal(size=shape), jnp.float32) for _ in range(2))
    flags = {name: jnp.asarray(draw.uniform(size=shape) < 0.2) for name in ("terminated", "truncated")}
    discounts = jnp.asarray(draw.uniform(0.5, 1, shape), jnp.float32)
    for discount in (0.9, discounts):
        found = jax.jit(rl.n_step)(rewards, **flags, discount=discount)
        targets = found.rewards + found.discounts * rl.take_step(next_values, found.last)
        expected = rl.discounted_returns(rewards, next_values=next_values, **flags, discount=discount)[0]
        np.testing.assert_allclose(targets, expected, rtol=1e-5, atol=1e-6)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no capacity": (lambda: rl.replay(0), "replay: expected capacity to be an integer of at least 1, got 0"),
    "no environment": (
        lambda: rl.replay(1, num_envs=0),
        "replay: expected num_envs to be an integer of at least 1, got 0",
    ),
    "a negative power": (
        lambda: rl.prioritized_replay(1, alpha=-1.0),
        "prioritized_replay: expected alpha of at least 0, got -1.0.",
    ),
    "another structure": (
        lambda: rl.replay(5).add(rl.replay(5).init({"a": 0.0}), {"b": jnp.ones(2)}),
        "Replay.add: expected items of the structure of init's example, PyTreeDef({'a': *}), got PyTreeDef({'b': *}).",
    ),
    "another shape": (
        lambda: rl.replay(5).add(
            rl.replay(5).init({"a": 0.0, "b": {"c": jnp.ones(3)}}), {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 4))}}
        ),
        "Replay.add: expected items of float32[2, 3] at 'b/c', got float32[2, 4]. Give steps as in init's example, "
        "time first.",
    ),
    "another dtype": (
        lambda: rl.replay(5).add(rl.replay(5).init({"a": 0.0}), {"a": jnp.ones(2, int)}),
        "Replay.add: expected items of float32[2] at 'a', got int32[2]. Give steps as in init's example, time first.",
    ),
    "one step without its axis": (
        lambda: rl.replay(5).add(rl.replay(5).init({"a": 0.0}), {"a": 1.0}),
        "Replay.add: expected items of float32[num] at 'a', got float32[]. Give steps as in init's example, time "
        "first.",
    ),
    "another number of environments": (
        lambda: rl.prioritized_replay(5, num_envs=2).add(
            rl.prioritized_replay(5, num_envs=2).init({"a": 0.0}), {"a": jnp.ones((4, 3))}
        ),
        "Replay.add: expected items of float32[4, 2] at 'a', got float32[4, 3]. Give steps as in init's example, time "
        "first.",
    ),
    "nothing to draw": (
        lambda: rl.replay(5).sample(rl.replay(5).init(EXAMPLE), KEY, 2),
        "Replay.sample: expected at least 1 step in the buffer, got 0. Add more before the first sample.",
    ),
    "nothing to draw by priority": (
        lambda: rl.prioritized_replay(5).sample(rl.prioritized_replay(5).init(EXAMPLE), KEY, 2, beta=0.4),
        "PrioritizedReplay.sample: expected at least 1 step in the buffer, got 0. Add more before the first sample.",
    ),
    "too few for a sequence": (
        lambda: rl.replay(5).sample(filled(rl.replay(5), 3), KEY, 2, sequence_length=4),
        "Replay.sample: expected at least 4 steps in the buffer, got 3. Add more before the first sample.",
    ),
    "sequences that never fit": (
        lambda: rl.replay(5).sample(filled(rl.replay(5), 3), KEY, 2, sequence_length=6),
        "Replay.sample: expected a sequence_length of at most the capacity, 5, got 6.",
    ),
    "no batch": (
        lambda: rl.replay(5).sample(filled(rl.replay(5), 3), KEY, 0),
        "Replay.sample: expected batch_size to be an integer of at least 1, got 0",
    ),
    "priorities for others": (
        lambda: rl.prioritized_replay(5).update(filled(rl.prioritized_replay(5), 3), jnp.arange(2), jnp.ones(3)),
        "PrioritizedReplay.update: expected a priority for each index, got shapes (2,) and (3,).",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(call: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
