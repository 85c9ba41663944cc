"""Tasks to learn from, drawn on the device from a key: sinusoids, and episodes of any labelled arrays."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._call import recording
from ._checks import check_count
from ._data import num_examples

Sample = Callable[[jax.Array, int], dict[str, Any]]


@recording
def sinusoids(
    shots: int,
    *,
    queries: int | None = None,
    amplitude: tuple[float, float] = (0.1, 5.0),
    phase: tuple[float, float] = (0.0, math.pi),
    frequency: tuple[float, float] = (1.0, 1.0),
    inputs: tuple[float, float] = (-5.0, 5.0),
    support_from: Any = None,
    query_at: Any = None,
) -> Sample:
    """Tasks of regression: `y = amplitude * sin(frequency * x - phase)`, its numbers drawn uniformly for each task.

    Source: Finn, Abbeel, Levine 2017, https://arxiv.org/abs/1703.03400, section 5.1, whose protocol the defaults are.
    With `frequency=(0.8, 1.2)` and `phase=(-pi, 0)` they are those of Li et al. 2017, https://arxiv.org/abs/1707.09835.

    Args:
      shots: examples in the support of a task.
      queries: examples in its query; as many as `shots` unless given.
      amplitude: the smallest and the largest.
      phase: likewise.
      frequency: likewise.
      inputs: the range that `x` is drawn from uniformly.
      support_from: `[points]`: inputs of which the support has `shots` different ones, in random order, instead of any
        in the range. With as many points as shots, that is all of them.
      query_at: `[queries]`: the inputs of every query, instead of random ones.
    Returns:
      `sample(key, num_tasks) -> {"support": {"x", "y"}, "query": {"x", "y"}}`, arrays `[tasks, shots, 1]` and
      `[tasks, queries, 1]`. It is pure, and goes under `jax.jit` with a fixed number of tasks. It prints, compares and
      hashes as the call that made it.
    Raises:
      ValueError: for counts out of range, a range that is no pair in order, fewer points in `support_from` than shots,
        and if both `queries` and `query_at` are given.

    >>> tasks = sinusoids(10)(jax.random.key(0), 25)
    >>> tasks["support"]["x"].shape, tasks["query"]["y"].shape
    ((25, 10, 1), (25, 10, 1))
    """
    check_count("sinusoids", "shots", shots, at_least=1)
    ranges = {"amplitude": amplitude, "phase": phase, "frequency": frequency, "inputs": inputs}
    for name, ends in ranges.items():
        if np.shape(ends) != (2,) or not ends[0] <= ends[1]:
            raise ValueError(f"sinusoids: expected {name} as two numbers in their order, got {ends}")
    if queries is not None and query_at is not None:
        raise ValueError("sinusoids: expected queries or query_at, got both. The inputs in query_at say how many.")
    support_x = _anywhere(shots, inputs) if support_from is None else _some_of(support_from, shots)
    if query_at is None:
        count = shots if queries is None else queries
        check_count("sinusoids", "queries", count, at_least=1)
        query_x = _anywhere(count, inputs)
    else:
        query_x = _always(query_at)

    def sample(key: jax.Array, num_tasks: int) -> dict[str, Any]:
        task_key, support_key, query_key = jax.random.split(key, 3)
        draws = jax.random.uniform(task_key, (3, num_tasks, 1, 1))
        height, shift, speed = (_within(range, draw) for range, draw in zip(ranges.values(), draws, strict=False))

        def labelled(x: jax.Array) -> dict[str, jax.Array]:
            return {"x": x, "y": height * jnp.sin(speed * x - shift)}

        return {
            "support": labelled(support_x(support_key, num_tasks)),
            "query": labelled(query_x(query_key, num_tasks)),
        }

    return sample


@recording
def episodes(data: dict[str, Any], *, ways: int, shots: int, queries: int, classes: Any = None) -> Sample:
    """Tasks of classification: some classes, and some examples of each to learn them from and to be asked about.

    Every choice of classes is as likely as another, and so is every choice of different examples of a class, however
    many it has.

    Source: Vinyals et al. 2016, https://arxiv.org/abs/1606.04080, section 2.2.

    Args:
      data: `{"x": [examples, ...], "y": [examples]}`; `y` are the classes, integers. Other arrays `[examples, ...]` of
        the dict go along.
      ways: classes in a task.
      shots: examples of each class in the support.
      queries: examples of each class in the query, none of which is in the support.
      classes: the classes to draw from, such as a part of `split_classes`; all unless given.
    Returns:
      `sample(key, num_tasks) -> {"support": batch, "query": batch}`, each with the arrays of `data`,
      `[tasks, ways * shots, ...]` and `[tasks, ways * queries, ...]`, class by class, and `y` from 0 to `ways - 1`. It
      is pure, and goes under `jax.jit` with a fixed number of tasks. It prints, compares and hashes as the call that
      made it.
    Raises:
      ValueError: for counts out of range, arrays that differ in their first axis, labels that are no integers
        `[examples]`, fewer classes than ways, and a class with fewer examples than `shots + queries`.

    >>> data = {"x": jnp.arange(12.0)[:, None], "y": jnp.array([7, 8, 9] * 4)}
    >>> tasks = episodes(data, ways=2, shots=1, queries=3)(jax.random.key(0), 5)
    >>> tasks["support"]["x"].shape, tasks["query"]["y"][0].tolist()
    ((5, 2, 1), [0, 0, 0, 1, 1, 1])
    """
    for name, count in {"ways": ways, "shots": shots, "queries": queries}.items():
        check_count("episodes", name, count, at_least=1)
    if not isinstance(data, dict) or "y" not in data:
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"episodes: expected data to be a dict of arrays with labels 'y', got {found}")
    labels, own = _labels("episodes", data["y"]), shots + queries
    num_examples("episodes", data)
    order, starts, sizes = _by_class(labels, own, ways, classes)
    arrays = {name: jnp.asarray(array) for name, array in data.items() if name != "y"}
    answers = {half: np.repeat(np.arange(ways), num) for half, num in (("support", shots), ("query", queries))}

    def of_class(key: jax.Array, place: jax.Array) -> jax.Array:
        return order[starts[place] + _different(key, sizes[place], own)]

    def task(key: jax.Array) -> dict[str, Any]:
        class_key, example_key = jax.random.split(key)
        chosen = _different(class_key, len(sizes), ways)
        found = jax.vmap(of_class)(jax.random.split(example_key, ways), chosen)
        halves = {"support": found[:, :shots].reshape(-1), "query": found[:, shots:].reshape(-1)}
        return {
            half: {name: array[examples] for name, array in arrays.items()} | {"y": jnp.asarray(answers[half])}
            for half, examples in halves.items()
        }

    return lambda key, num_tasks: jax.vmap(task)(jax.random.split(key, num_tasks))


def split_classes(labels: Any, shares: Sequence[float], key: jax.Array) -> list[np.ndarray]:
    """The classes of labels in parts that have none in common: to train on, to choose by, to test on.

    Args:
      labels: integers `[examples]`.
      shares: of the classes that go to each part, with a sum of 1.
      key: decides which.
    Returns:
      The classes of each part, sorted, as integers.
    Raises:
      ValueError: if the labels are no integers `[examples]`, the shares do not sum to 1, or a part gets no class.

    >>> [part.tolist() for part in split_classes([3, 1, 4, 1, 5, 9], (0.6, 0.4), jax.random.key(0))]
    [[1, 3, 9], [4, 5]]
    """
    classes = np.unique(_labels("split_classes", labels))
    if min(shares, default=0.0) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"split_classes: expected shares of at least 0 with a sum of 1, got {tuple(shares)}")
    ends = np.round(np.cumsum(shares) * len(classes)).astype(int)
    if 0 in np.diff(ends, prepend=0):
        raise ValueError(
            f"split_classes: expected a class for each of {len(shares)} parts, got {len(classes)} classes and shares "
            f"{tuple(shares)}"
        )
    mixed = classes[np.asarray(jax.random.permutation(key, len(classes)))]
    return [np.sort(part) for part in np.split(mixed, ends[:-1])]


def _within(range: tuple[float, float], draw: jax.Array) -> jax.Array:
    low, high = range
    return low + (high - low) * draw


def _anywhere(num: int, range: tuple[float, float]) -> Callable[[jax.Array, int], jax.Array]:
    return lambda key, num_tasks: _within(range, jax.random.uniform(key, (num_tasks, num, 1)))


def _always(points: Any) -> Callable[[jax.Array, int], jax.Array]:
    points = _points("query_at", points)
    return lambda key, num_tasks: jnp.broadcast_to(_floats(points)[:, None], (num_tasks, len(points), 1))


def _some_of(points: Any, num: int) -> Callable[[jax.Array, int], jax.Array]:
    points = _points("support_from", points)
    if len(points) < num:
        raise ValueError(f"sinusoids: expected at least shots = {num} points in support_from, got {len(points)}")

    def chosen(key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, _floats(points))[:num, None]

    return lambda key, num_tasks: jax.vmap(chosen)(jax.random.split(key, num_tasks))


def _floats(points: np.ndarray) -> jax.Array:
    return jnp.asarray(points, jnp.result_type(float))


def _points(name: str, points: Any) -> np.ndarray:
    array = np.asarray(points, float)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"sinusoids: expected {name} with a shape [points], got {array.shape}")
    return array


def _labels(name: str, labels: Any) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name}: expected labels to be integers [examples], got {labels.dtype}{list(labels.shape)}")
    return labels


def _by_class(labels: np.ndarray, own: int, ways: int, classes: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The examples in the order of their classes; where each class begins, and how many it has."""
    order = np.argsort(labels, kind="stable")
    found, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    if classes is not None:
        wanted = np.unique(classes)
        if unknown := sorted(set(wanted.tolist()) - set(found.tolist())):
            raise ValueError(f"episodes: expected classes that are among the labels, got {unknown}")
        kept = np.isin(found, wanted)
        found, starts, sizes = found[kept], starts[kept], sizes[kept]
    if len(found) < ways:
        raise ValueError(f"episodes: expected at least ways = {ways} classes, got {len(found)}")
    if min(sizes) < own:
        raise ValueError(
            f"episodes: expected at least shots + queries = {own} examples of each class, got {min(sizes)} of class "
            f"{found[np.argmin(sizes)]}"
        )
    return jnp.asarray(order), jnp.asarray(starts), jnp.asarray(sizes)


def _different(key: jax.Array, size: Any, num: int) -> jax.Array:
    """So many different integers from 0 to `size - 1`, in random order, at a cost that does not grow with `size`.

    Source: Floyd's algorithm, Bentley and Floyd 1987, https://doi.org/10.1145/30401.315746.
    """
    draw_key, order_key = jax.random.split(key)
    largest = size - num + jnp.arange(num)
    draws = jax.random.randint(draw_key, (num,), 0, largest + 1)

    def place(index: Any, found: jax.Array) -> jax.Array:
        return found.at[index].set(jnp.where((found == draws[index]).any(), largest[index], draws[index]))

    return jax.random.permutation(order_key, lax.fori_loop(0, num, place, jnp.full(num, -1)))
