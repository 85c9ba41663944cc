"""The metrics of steps between two reports, and the step itself, which stay on the device."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Dtypes = tuple[tuple[str, np.dtype], ...]
EmptyRecord = Callable[[jax.Array | int], "Record"]
ROWS = 256


@functools.partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=["dtypes"])
@dataclasses.dataclass(frozen=True)
class Record:
    """Metrics of single steps, which the compiled steps write themselves.

    To fetch each number alone costs half of a small step, and to keep an array for each a tenth; an array for the train
    state's step alone takes another fifteenth.

    Attributes:
      rows: 32-bit words, `[ROWS + 1, words]` of int32, a row for each step; the last row says how many did write, and
        the train state's step after them, where that is kept here.
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

    def step(self) -> jax.Array:
        """The train state's step, `[]` of int32."""
        return _step_in(self.rows)


def empty_record(metrics: dict[str, Any], near: jax.Array) -> EmptyRecord:
    """Makes records that begin at a step, for metrics of such dtypes, on the devices of an array that steps carry."""
    dtypes = _kept_of(metrics)
    width = sum(dtype.itemsize // 4 for _, dtype in dtypes)
    begin = _beginning((ROWS + 1, max(2, width)), near.sharding if near.committed else None)
    return lambda step: Record(begin(step), dtypes)


class OtherMetricsError(Exception):
    """Metrics that a record was not made for; raised while a step is traced."""


def noted(record: Record, metrics: dict[str, jax.Array], step: jax.Array | None = None) -> Record:
    """A record with one more step, whose metrics are `[]`; and the train state's step after it, if that is kept there.

    Raises:
      OtherMetricsError: if they are not those that it was made for.
    """
    if _kept_of(metrics) != record.dtypes:
        raise OtherMetricsError
    words, rows = [_words(metrics[name]) for name in sorted(metrics)], record.rows
    count = rows[ROWS, 0]
    if words:
        rows = lax.dynamic_update_slice(rows, jnp.concatenate(words)[None], (count, jnp.zeros_like(count)))
    last = [count + 1] if step is None else [count + 1, step.astype(jnp.int32)]
    return Record(rows.at[ROWS, : len(last)].set(jnp.stack(last)), record.dtypes)


class Seen:
    """Metrics of steps in their order, fetched when they are asked for.

    Attributes:
      record: what the next single step writes its metrics into; None where none is begun.
    """

    def __init__(self, fetched: dict[str, np.ndarray] | None = None):
        self.record: Record | None = None
        self._last: Record | None = None  # that was closed
        self._count = 0  # of the record, without a look at the device
        self._closed: list[Callable[[], dict[str, np.ndarray]]] = [lambda: fetched] if fetched else []

    def __bool__(self) -> bool:
        return bool(self._closed or self._count)

    @property
    def step(self) -> jax.Array:
        """The train state's step after the last single step, `[]` of int32."""
        record = self._last if self.record is None else self.record
        assert record is not None, "no single step was made"
        return record.step()

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
        """Forgets the metrics."""
        self.close()
        self._closed.clear()

    def close(self) -> None:
        """Puts the record aside; the next single step needs another."""
        if self.record is not None and self._count:
            self._closed.append(functools.partial(self.record.read, self._count))
        self.record, self._last, self._count = None, self.record or self._last, 0


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
def _beginning(shape: tuple[int, ...], sharding: Any) -> Callable[[jax.Array | int], jax.Array]:
    """Compiled, since a record is made at every report: from an array of NumPy it takes ten times as long."""
    return jax.jit(lambda step: jnp.zeros(shape, jnp.int32).at[ROWS, 1].set(step), out_shardings=sharding)


@jax.jit
def _step_in(rows: jax.Array) -> jax.Array:
    return rows[ROWS, 1]
