"""The metrics of steps between two reports, which stay on the device."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROWS = 256


class Record(NamedTuple):
    """Metrics of single steps, written by the compiled steps themselves.

    To fetch a number costs half of a small step, and to keep an array for each a tenth.

    Attributes:
      count: how many steps are in it, `[]` of int32.
      columns: `{name: [ROWS]}`.
    """

    count: jax.Array
    columns: dict[str, jax.Array]

    def noting(self, metrics: dict[str, jax.Array]) -> "Record":
        """The record with one more step, each metric `[]`."""
        columns = {name: self.columns[name].at[self.count].set(value) for name, value in metrics.items()}
        return Record(self.count + 1, columns)


class Seen:
    """Metrics of steps in their order, fetched when they are asked for.

    Attributes:
      record: what the next single step writes its metrics into; None where none is begun.
    """

    def __init__(self, fetched: dict[str, np.ndarray] | None = None):
        self.record: Record | None = None
        self._groups: list[dict[str, Any]] = [fetched] if fetched else []
        self._count = 0  # of the record, without a look at the device

    def __bool__(self) -> bool:
        return bool(self._groups or self._count)

    def add_one(self, record: Record) -> None:
        """Takes a record with one more step in it."""
        self.record = record
        self._count += 1
        if self._count == ROWS:
            self._close()

    def add_several(self, metrics: dict[str, Any]) -> None:
        """Adds the metrics of several steps, each `[steps]`."""
        self._close()
        self._groups.append(metrics)

    def columns(self) -> dict[str, np.ndarray]:
        """Metrics of each step, `{name: [steps]}` of float64, fetched."""
        self._close()
        self._groups[:] = jax.device_get(self._groups)
        names = self._groups[0] if self._groups else ()
        return {name: np.concatenate([group[name].astype(np.float64) for group in self._groups]) for name in names}

    def clear(self) -> None:
        """Forgets them."""
        self._groups.clear()
        self.record, self._count = None, 0

    def _close(self) -> None:
        if self.record is not None and self._count:
            columns = self.record.columns
            if self._count < ROWS:  # fetched, since a slice would be compiled for every length
                columns = {name: np.asarray(column)[: self._count] for name, column in columns.items()}
            self._groups.append(columns)
        self.record, self._count = None, 0


def empty_record(metrics: dict[str, jax.ShapeDtypeStruct], near: jax.Array) -> Callable[[], Record]:
    """Makes records without steps, on the devices of an array that steps carry along.

    It is compiled, since one is made at every report: from arrays of NumPy that takes ten times as long.
    """
    dtypes = tuple((name, metric.dtype) for name, metric in metrics.items())
    return _compiled(dtypes, near.sharding if near.committed else None)


@functools.lru_cache
def _compiled(dtypes: tuple[tuple[str, Any], ...], sharding: Any) -> Callable[[], Record]:
    columns = lambda: {name: jnp.zeros(ROWS, dtype) for name, dtype in dtypes}  # noqa: E731
    return jax.jit(lambda: Record(jnp.zeros((), jnp.int32), columns()), out_shardings=sharding)
