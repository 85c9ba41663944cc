"""Batches of arrays, in an order that depends on a key and on nothing else."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np


@runtime_checkable
class Resumable(Protocol):
    """Batches that can be taken up at any step."""

    def starting_at(self, step: int) -> Iterator[Any]:
        """The batches from a step on."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """An endless sequence of batches, from `batches`.

    Every epoch is a new permutation of the examples; those that do not fill the last batch sit it out. Which
    examples stand at a step depends on the key and the step alone, so training goes on exactly where it stopped.

    Attributes:
      data: a pytree of arrays `[examples, ...]`.
      batch_size: examples a batch.
      key: root key of the permutations.
    """

    data: Any
    batch_size: int
    key: jax.Array

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return num_examples("batches", self.data)

    @property
    def steps_per_epoch(self) -> int:
        """How many batches go through all examples once."""
        return self.num_examples // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[Any]:
        """The batches from a step on, without an end.

        Args:
          step: batches to leave out.
        Yields:
          A pytree of arrays `[batch_size, ...]`.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        while True:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(self.key, epoch), self.num_examples))
            for start in range(place, self.steps_per_epoch):
                chosen = order[start * self.batch_size : (start + 1) * self.batch_size]
                yield jax.tree.map(lambda array: array[chosen], self.data)  # noqa: B023 - called at once
            epoch, place = epoch + 1, 0


def batches(data: Any, batch_size: int, *, key: jax.Array) -> Batches:
    """An endless, seeded sequence of batches of arrays.

    Args:
      data: a pytree of arrays `[examples, ...]`, NumPy's or JAX's.
      batch_size: examples a batch, at most as many as there are.
      key: decides the order.
    Returns:
      An iterable of pytrees of arrays `[batch_size, ...]`.
    Raises:
      ValueError: if the arrays differ in their first axis, or the batch size does not fit.

    >>> data = batches({"x": np.arange(10)}, 4, key=jax.random.key(0))
    >>> data.steps_per_epoch, next(iter(data))["x"].shape
    (2, (4,))
    """
    num = num_examples("batches", data)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 1 <= batch_size <= num:
        raise ValueError(f"batches: expected batch_size to be an integer in [1, {num}], got {batch_size!r}")
    return Batches(jax.tree.map(_indexable, data), batch_size, key)


def in_order(data: Any, batch_size: int) -> Iterator[Any]:
    """The examples once, in their order; the last batch may be smaller."""
    for start in range(0, num_examples("evaluate", data), batch_size):
        yield jax.tree.map(lambda array: array[start : start + batch_size], data)  # noqa: B023 - called at once


def num_examples(name: str, data: Any) -> int:
    """The common first axis of a pytree of arrays.

    Raises:
      ValueError: if there are no arrays, or they have none in common.
    """
    sizes = {jax.tree_util.keystr(path): np.shape(leaf)[:1] for path, leaf in jax.tree_util.tree_leaves_with_path(data)}
    if len(set(sizes.values())) != 1 or () in sizes.values():
        raise ValueError(f"{name}: expected arrays [examples, ...] with as many examples each, got {sizes}")
    return next(iter(sizes.values()))[0]


def _indexable(array: Any) -> Any:
    return array if isinstance(array, jax.Array) else np.asarray(array)
