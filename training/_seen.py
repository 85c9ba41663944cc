"""The metrics of steps between two reports, which stay on the device."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Dtypes = tuple[tuple[str, np.dtype], ...]
ROWS = 256


@functools.partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=["dtypes"])
@dataclasses.dataclass(frozen=True)
class Record:
    """Metrics of single steps, which the compiled steps write themselves.

    To fetch each number alone costs half of a small step, and to keep an array for each a tenth.

    Attributes:
      rows: 32-bit words, `[ROWS + 1, words]` of int32, a row for each step; the last row says how many did write.
      dtypes: the metrics' names, in order, and the dtypes that they are kept in: no number loses a bit.
    """

    rows: jax.Array
    dtypes: Dtypes

    def read(self, count: int) -> dict[str, np.ndarray]:
        """`{name: [count]}`, fetched."""
        rows, found, begin = np.asarray(self.rows), {}, 0
        for name, dtype in self.dtypes:
            end = begin + dtype.itemsize // 4
            found[name] = np.ascontiguousarray(rows[:count, begin:end]).view(dtype)[:, 0]
            begin = end
        return found


def empty_record(metrics: dict[str, Any], near: jax.Array) -> Callable[[], Record]:
    """Makes records without steps, for metrics of such dtypes, on the devices of an array that steps carry along."""
    dtypes = _kept_of(metrics)
    width = sum(dtype.itemsize // 4 for _, dtype in dtypes)
    zeros = _zeros((ROWS + 1, max(1, width)), near.sharding if near.committed else None)
    return lambda: Record(zeros(), dtypes)


class OtherMetricsError(Exception):
    """Metrics that a record was not made for; raised while a step is traced."""


def noted(record: Record, metrics: dict[str, jax.Array]) -> Record:
    """A record with one more step, whose metrics are `[]`.

    Raises:
      OtherMetricsError: if they are not those that it was made for.
    """
    if _kept_of(metrics) != record.dtypes:
        raise OtherMetricsError
    words, rows = [_words(metrics[name]) for name in sorted(metrics)], record.rows
    count = rows[ROWS, 0]
    if words:
        rows = lax.dynamic_update_slice(rows, jnp.concatenate(words)[None], (count, jnp.zeros_like(count)))
    return Record(rows.at[ROWS, 0].set(count + 1), record.dtypes)


class Seen:
    """Metrics of steps in their order, fetched when they are asked for.

    Attributes:
      record: what the next single step writes its metrics into; None where none is begun.
    """

    def __init__(self, fetched: dict[str, np.ndarray] | None = None):
        self.record: Record | None = None
        self._count = 0  # of the record, without a look at the device
        self._closed: list[Callable[[], dict[str, np.ndarray]]] = [lambda: fetched] if fetched else []

    def __bool__(self) -> bool:
        return bool(self._closed or self._count)

    def add_one(self, record: Record) -> None:
        """Takes a record with one more step in it."""
        self.record = record
        self._count += 1
        if self._count == ROWS:
            self.close()

    def add_several(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of several steps, each `[steps]`."""
        self.close()
        self._closed.append(functools.partial(jax.device_get, metrics))

    def columns(self) -> dict[str, np.ndarray]:
        """Metrics of each step, `{name: [steps]}` of float64, fetched.

        Raises:
          ValueError: if some steps have other metrics than others.
        """
        self.close()
        groups = [get() for get in self._closed]
        names = groups[0] if groups else {}
        if other := next((group for group in groups if group.keys() != names.keys()), None):
            raise ValueError(
                "fit: expected the same metrics of all steps between two reports, got "
                f"{', '.join(names) or 'none'} and {', '.join(other) or 'none'}."
            )
        found = {name: np.concatenate([group[name].astype(np.float64) for group in groups]) for name in names}
        self._closed[:] = [lambda: found] if groups else []
        return found

    def clear(self) -> None:
        """Forgets them."""
        self._closed.clear()
        self.record, self._count = None, 0

    def close(self) -> None:
        """Puts the record aside; the next single step needs another."""
        if self.record is not None and self._count:
            self._closed.append(functools.partial(self.record.read, self._count))
        self.record, self._count = None, 0


def _kept_of(metrics: dict[str, Any]) -> Dtypes:
    return tuple((name, _kept(metrics[name].dtype)) for name in sorted(metrics))


def _kept(dtype: Any) -> np.dtype:
    """A dtype of whole words that has every number of another."""
    if dtype.itemsize >= 4:
        return np.dtype(dtype)
    return np.dtype(np.float32 if jnp.issubdtype(dtype, jnp.floating) else np.int32)


def _words(metric: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(metric.astype(_kept(metric.dtype)), jnp.int32).reshape(-1)


@functools.lru_cache
def _zeros(shape: tuple[int, ...], sharding: Any) -> Callable[[], jax.Array]:
    """Compiled, since a record is made at every report: from an array of NumPy it takes ten times as long."""
    return jax.jit(functools.partial(jnp.zeros, shape, jnp.int32), out_shardings=sharding)
