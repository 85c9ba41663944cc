"""Batches into which each example is drawn by itself, as the accounting of private training takes for granted."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_count
from ._data import num_examples

_OVERFLOW = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class PoissonBatches:
    """An endless sequence of drawn batches of one size, from `poisson_batches`.

    Attributes:
      data: a dict of arrays `[examples, ...]`.
      rate: the chance of each example to be in a batch.
      max_size: rows of a batch, the last of which are padding.
      key: decides the draws.
      mask: name of the entry that says which rows are real.
    """

    data: dict[str, Any]
    rate: float
    max_size: int
    key: jax.Array
    mask: str

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return num_examples("poisson_batches", self.data)

    @property
    def expected_size(self) -> float:
        """Real examples in a batch, on average: `private`'s `expected_batch_size`."""
        return self.num_examples * self.rate

    def __iter__(self) -> Iterator[Any]:
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[Any]:
        """The batches from a step on, without an end.

        Args:
          step: batches to leave out.
        Yields:
          The arrays' chosen rows, `[max_size, ...]`, and the mask, `[max_size]` of booleans.
        Raises:
          ValueError: if more are drawn than a batch has rows.
        """
        while True:
            drawn = self._drawn(step)
            rows, real = np.zeros(self.max_size, int), np.arange(self.max_size) < len(drawn)
            rows[: len(drawn)] = drawn
            yield jax.tree.map(functools.partial(_padded, rows, real), self.data) | {self.mask: real}
            step += 1

    def _drawn(self, step: int) -> np.ndarray:
        chosen = jax.random.bernoulli(jax.random.fold_in(self.key, step), self.rate, (self.num_examples,))
        drawn = np.flatnonzero(np.asarray(chosen))
        if len(drawn) > self.max_size:
            raise ValueError(
                f"poisson_batches: expected at most {self.max_size} examples at step {step}, got {len(drawn)}. "
                "Give a larger max_size: leaving some out would not be what the accounting counts on."
            )
        return drawn


def poisson_batches(
    data: dict[str, Any], rate: float, *, key: jax.Array, max_size: int | None = None, mask: str = "mask"
) -> PoissonBatches:
    """An endless, seeded sequence of batches into which each example is drawn by itself.

    Batches vary in size. They are filled up to one size with zeros, and an entry of the batch says which rows are real.
    Which examples stand at a step depends on the key and the step alone, so training goes on exactly where it stopped.

    Args:
      data: a dict of arrays `[examples, ...]`, NumPy's or JAX's.
      rate: the chance of each example to be in a batch, in (0, 1].
      key: decides the draws.
      max_size: rows of a batch; such that more are drawn once in a thousand million batches, unless given.
      mask: name of the entry that says which rows are real, `[max_size]` of booleans: `private`'s `mask`.
    Returns:
      An iterable of dicts of arrays `[max_size, ...]`.
    Raises:
      ValueError: for a rate or a size out of range, for arrays that differ in their first axis, for data that is no
        dict or has an entry of the mask's name; while iterating, if more are drawn than `max_size`.

    >>> feed = poisson_batches({"x": np.arange(1000)}, 0.01, key=jax.random.key(0))
    >>> feed.expected_size, feed.max_size
    (10.0, 37)
    >>> batch = next(iter(feed))
    >>> batch["x"].shape, batch["mask"].sum().item()
    ((37,), 9)
    """
    if not isinstance(data, dict) or mask in data:
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"poisson_batches: expected data to be a dict without {mask!r}, got {found}")
    num = num_examples("poisson_batches", data)
    check_rate("poisson_batches", "rate", rate)
    if max_size is None:
        max_size = _size_for(num, rate)
    check_count("poisson_batches", "max_size", max_size, at_least=1)
    data = jax.tree.map(lambda array: array if isinstance(array, jax.Array) else np.asarray(array), data)
    return PoissonBatches(data, rate, max_size, key, mask)


def _padded(rows: np.ndarray, real: np.ndarray, array: Any) -> Any:
    """The real ones of these rows, and zeros."""
    chosen, where = array[rows], (jnp if isinstance(array, jax.Array) else np).where
    return where(real.reshape(-1, *[1] * (chosen.ndim - 1)), chosen, np.zeros((), chosen.dtype))


def check_rate(name: str, argument: str, value: Any) -> None:
    """Refuses what is no share above 0.

    Raises:
      ValueError: naming who asks, and the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 < value <= 1:
        raise ValueError(f"{name}: expected {argument} to be a number in (0, 1], got {value!r}")


def _size_for(num: int, rate: float) -> int:
    """The size that a draw exceeds with a chance below `_OVERFLOW`, by Chernoff's bound."""

    def exponent(size: int) -> float:
        share = size / num
        return num * (share * math.log(share / rate) + (1 - share) * math.log((1 - share) / (1 - rate)))

    sizes = range(math.ceil(num * rate) + 1, num)
    return next((size for size in sizes if exponent(size) > -math.log(_OVERFLOW)), num)
