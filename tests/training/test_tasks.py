"""Tasks: sinusoids fitted anew from their points, episodes counted, and the errors of both."""

import math
import re
from typing import Any

import jax
import numpy as np
import pytest

from renga.training import episodes, sinusoids, split_classes

KEY = jax.random.key(0)


def draw(sample: Any, num_tasks: int) -> Any:
    return jax.jit(sample, static_argnums=1)(KEY, num_tasks)


def fitted(part: Any, frequency: float = 1.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Amplitudes and phases by least squares on sine and cosine, and the largest thing left over."""
    amplitudes, phases, rest = [], [], 0.0
    for x, y in zip(np.asarray(part["x"], float)[..., 0], np.asarray(part["y"], float)[..., 0], strict=True):
        waves = np.stack([np.sin(frequency * x), -np.cos(frequency * x)], -1)
        (along, across), *_ = np.linalg.lstsq(waves, y)
        amplitudes.append(np.hypot(along, across))
        phases.append(np.arctan2(across, along))
        rest = max(rest, np.abs(waves @ [along, across] - y).max())
    return np.array(amplitudes), np.array(phases), rest


def test_a_task_is_one_sinusoid_of_the_papers_ranges():
    tasks = draw(sinusoids(10), 500)
    amplitudes, phases, rest = fitted(tasks["support"])
    assert rest < 1e-5
    np.testing.assert_allclose(fitted(tasks["query"])[0], amplitudes, rtol=1e-3)
    for found, (low, high) in ((amplitudes, (0.1, 5.0)), (phases, (0.0, math.pi))):
        assert low - 1e-4 < found.min() < low + 0.05
        assert high - 0.05 < found.max() < high + 1e-4
        assert abs(found.mean() - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * 500)
    assert abs(np.corrcoef(amplitudes, phases)[0, 1]) < 4 / np.sqrt(500)


def test_inputs_are_uniform_and_differ_between_support_and_query():
    tasks = draw(sinusoids(10, queries=7), 200)
    assert tasks["query"]["x"].shape == (200, 7, 1)
    inputs = np.asarray(tasks["support"]["x"])
    assert -5 <= inputs.min() < -4.9 < 4.9 < inputs.max() < 5
    assert abs(inputs.std() - 10 / np.sqrt(12)) < 0.1
    assert (np.asarray(tasks["query"]["x"]) != inputs[..., 0][:, None]).all()


def test_frequencies_and_ranges_are_those_given():
    tasks = draw(sinusoids(8, amplitude=(2.0, 2.0), phase=(0.5, 0.5), frequency=(3.0, 3.0), inputs=(0.0, 1.0)), 4)
    x = tasks["query"]["x"]
    assert ((x >= 0) & (x <= 1)).all()
    np.testing.assert_allclose(tasks["query"]["y"], 2 * np.sin(3 * x - 0.5), atol=1e-5)
    drawn = draw(sinusoids(40, amplitude=(1.0, 1.0), phase=(0.0, 0.0), frequency=(0.8, 1.2), inputs=(0.0, 1.0)), 50)
    frequencies = np.arcsin(drawn["support"]["y"]) / drawn["support"]["x"]
    assert np.ptp(frequencies, axis=1).max() < 1e-2
    assert 0.8 <= np.median(frequencies, 1).min() < 0.84 < 1.16 < np.median(frequencies, 1).max() <= 1.2


def test_minibatches_of_a_grid_are_all_its_points_in_an_order_of_the_tasks_own():
    grid = np.linspace(-5, 5, 50, dtype=np.float32)
    tasks = draw(sinusoids(50, support_from=grid, query_at=grid), 3)
    orders = np.asarray(tasks["support"]["x"][..., 0])
    np.testing.assert_array_equal(np.sort(orders, 1), np.stack([grid] * 3))
    assert len({order.tobytes() for order in orders}) == 3
    np.testing.assert_array_equal(tasks["query"]["x"][..., 0], np.stack([grid] * 3))
    few = np.asarray(draw(sinusoids(10, support_from=grid), 3)["support"]["x"][..., 0])
    assert all(len(set(row)) == 10 and np.isin(row, grid).all() for row in few)


LABELS = np.array([5] * 4 + [2] * 9 + [7] * 6 + [3] * 30 + [11] * 5)[np.random.default_rng(0).permutation(54)]
DATA = {"x": np.arange(54.0)[:, None], "y": LABELS, "weight": np.arange(54)}


def test_an_episode_names_its_classes_anew_and_keeps_support_and_query_apart():
    tasks = draw(episodes(DATA, ways=3, shots=1, queries=3), 200)
    support, query = (np.asarray(tasks[half]["weight"]) for half in ("support", "query"))
    assert (support.shape, query.shape) == ((200, 3), (200, 9))
    np.testing.assert_array_equal(tasks["support"]["x"][..., 0], support)
    np.testing.assert_array_equal(tasks["support"]["y"], np.tile([0, 1, 2], (200, 1)))
    np.testing.assert_array_equal(tasks["query"]["y"], np.tile([0, 0, 0, 1, 1, 1, 2, 2, 2], (200, 1)))
    for one, rest in zip(support, query, strict=True):
        assert len({*one, *rest}) == 12
        assert len(set(LABELS[one])) == 3
        np.testing.assert_array_equal(LABELS[rest], np.repeat(LABELS[one], 3))


def test_every_choice_of_classes_and_of_examples_is_as_likely_as_another():
    data = {"x": np.arange(9), "y": np.array([0] * 3 + [1] * 2 + [2] * 4)}
    num = 6000
    tasks = draw(episodes(data, ways=2, shots=1, queries=1), num)
    support, query = (np.asarray(tasks[half]["x"]) for half in ("support", "query"))
    pairs = np.unique(data["y"][support], axis=0, return_counts=True)[1]
    assert len(pairs) == 6
    assert np.abs(pairs / num - 1 / 6).max() < 5 * np.sqrt(1 / 6 * 5 / 6 / num)
    for label, size in enumerate([3, 2, 4]):
        own = np.stack([support, query], -1)[data["y"][support] == label]
        counts = np.unique(own, axis=0, return_counts=True)[1]
        assert len(counts) == size * (size - 1)
        share = 1 / len(counts)
        assert np.abs(counts / len(own) - share).max() < 5 * np.sqrt(share / len(own))


def test_only_the_classes_given_are_drawn():
    tasks = draw(episodes(DATA, ways=2, shots=2, queries=2, classes=[3, 11, 2]), 50)
    assert set(LABELS[np.asarray(tasks["query"]["weight"])].flat) == {2, 3, 11}


def test_a_class_may_be_used_up():
    tasks = draw(episodes(DATA, ways=1, shots=1, queries=3, classes=[5]), 20)
    both = np.concatenate([tasks["support"]["weight"], tasks["query"]["weight"]], 1)
    np.testing.assert_array_equal(np.sort(both, 1), np.tile(np.flatnonzero(LABELS == 5), (20, 1)))


SAMPLERS: dict[str, Any] = {
    "sinusoids": lambda: sinusoids(4, phase=(0.0, 1.0), query_at=np.linspace(-1, 1, 3)),
    "points": lambda: sinusoids(4, support_from=np.linspace(-1, 1, 5)),
    "episodes": lambda: episodes(DATA, ways=2, shots=2, queries=1),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_a_pure_function_of_the_key_that_equals_its_twin(name):
    sample, twin = SAMPLERS[name](), SAMPLERS[name]()
    assert sample == twin
    assert hash(sample) == hash(twin)
    keys = jax.random.split(KEY, 2)
    compiled = jax.jit(sample, static_argnums=1)
    alone = [compiled(key, 3) for key in keys]
    for leaf, again in zip(*map(jax.tree.leaves, (alone[0], twin(keys[0], 3))), strict=True):
        np.testing.assert_allclose(leaf, again, atol=1e-5)
    assert (alone[0]["support"]["x"] != alone[1]["support"]["x"]).any()
    together = jax.jit(jax.vmap(lambda key: sample(key, 3)))(keys)
    for leaf, one in zip(jax.tree.leaves(together), jax.tree.leaves(alone[1]), strict=True):
        np.testing.assert_allclose(leaf[1], one, atol=1e-5)


def test_sinusoids_are_of_double_precision_where_it_is_the_default():
    with jax.enable_x64(True):
        tasks = sinusoids(3, query_at=np.linspace(0, 1, 4))(jax.random.key(0), 2)
    assert {leaf.dtype for leaf in jax.tree.leaves(tasks)} == {np.dtype("float64")}


def test_classes_are_split_into_parts_that_the_key_decides():
    labels = np.repeat(np.arange(10) * 3, 4)
    parts = split_classes(labels, (0.5, 0.2, 0.3), KEY)
    assert [len(part) for part in parts] == [5, 2, 3]
    assert sorted(np.concatenate(parts)) == list(range(0, 30, 3))
    assert [part.tolist() for part in split_classes(labels, (0.5, 0.2, 0.3), KEY)] == [part.tolist() for part in parts]
    assert split_classes(labels, (0.5, 0.5), jax.random.key(1))[0].tolist() != parts[0].tolist()


def test_uneven_shares_are_rounded_and_leave_no_class_out():
    parts = split_classes(np.arange(7), (1 / 3, 1 / 3, 1 / 3), KEY)
    assert [len(part) for part in parts] == [2, 3, 2]


def given(**changed: Any) -> Any:
    """Episodes with some arguments changed."""
    return episodes(**{"data": DATA, "ways": 2, "shots": 1, "queries": 1, **changed})


REFUSED: dict[str, tuple[Any, str]] = {
    "shots": (lambda: sinusoids(0), "sinusoids: expected shots to be an integer of at least 1, got 0"),
    "queries": (
        lambda: sinusoids(1, queries=-1),
        "sinusoids: expected queries to be an integer of at least 1, got -1",
    ),
    "range": (
        lambda: sinusoids(1, phase=(1.0, 0.0)),
        "sinusoids: expected phase as two numbers in their order, got (1.0, 0.0)",
    ),
    "number": (
        lambda: sinusoids(1, amplitude=2.0),  # type: ignore
        "sinusoids: expected amplitude as two numbers in their order, got 2.0",
    ),
    "both": (
        lambda: sinusoids(1, queries=1, query_at=[0.0]),
        "sinusoids: expected queries or query_at, got both. The inputs in query_at say how many.",
    ),
    "few points": (
        lambda: sinusoids(3, support_from=[0.0, 1.0]),
        "sinusoids: expected at least shots = 3 points in support_from, got 2",
    ),
    "points": (
        lambda: sinusoids(1, query_at=[[0.0]]),
        "sinusoids: expected query_at with a shape [points], got (1, 1)",
    ),
    "ways": (lambda: given(ways=0), "episodes: expected ways to be an integer of at least 1, got 0"),
    "few classes": (lambda: given(ways=6), "episodes: expected at least ways = 6 classes, got 5"),
    "few chosen classes": (
        lambda: given(classes=[3]),
        "episodes: expected at least ways = 2 classes, got 1",
    ),
    "unknown classes": (
        lambda: given(classes=[3, 4, 1]),
        "episodes: expected classes that are among the labels, got [1, 4]",
    ),
    "few examples": (
        lambda: given(shots=2, queries=3),
        "episodes: expected at least shots + queries = 5 examples of each class, got 4 of class 5",
    ),
    "labels": (
        lambda: given(data={"x": np.zeros(3), "y": np.zeros(3)}),
        "episodes: expected labels to be integers [examples], got float64[3]",
    ),
    "no labels": (
        lambda: given(data={"x": np.zeros(3)}),
        "episodes: expected data to be a dict of arrays with labels 'y', got ['x']",
    ),
    "lengths": (
        lambda: given(data={"x": np.zeros(3), "y": np.zeros(4, int)}),
        "episodes: expected arrays [examples, ...] with as many examples each, got {\"['x']\": (3,), \"['y']\": (4,)}",
    ),
    "shares": (
        lambda: split_classes([1, 2], (0.5, 0.4), KEY),
        "split_classes: expected shares of at least 0 with a sum of 1, got (0.5, 0.4)",
    ),
    "empty part": (
        lambda: split_classes([1, 2], (0.9, 0.1), KEY),
        "split_classes: expected a class for each of 2 parts, got 2 classes and shares (0.9, 0.1)",
    ),
    "label matrix": (
        lambda: split_classes(np.zeros((2, 2), int), (1.0,), KEY),
        "split_classes: expected labels to be integers [examples], got int64[2, 2]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_tasks_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
