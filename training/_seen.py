"""The metrics of steps between two reports, which stay on the device."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROWS = 256


@dataclasses.dataclass(frozen=True)
class Columns:
    """What is in a record of single steps.

    A record is one array of 32-bit words, `[ROWS + 1, words]` of int32, to which every compiled step adds a row with
    its metrics; the last row says how many did. To fetch each number alone costs half of a small step, and to keep an
    array for each a tenth.

    Attributes:
      dtypes: the metrics' names, in order, and the dtypes that they are kept in: no number loses a bit.
      sharding: where records lie; None for the default device.
    """

    dtypes: tuple[tuple[str, np.dtype], ...]
    sharding: jax.sharding.Sharding | None

    @classmethod
    def of(cls, metrics: dict[str, Any], near: jax.Array) -> "Columns":
        """Those for metrics of such dtypes, on the devices of an array that steps carry along."""
        dtypes = tuple((name, _kept(metrics[name].dtype)) for name in sorted(metrics))
        return cls(dtypes, near.sharding if near.committed else None)

    def empty(self) -> jax.Array:
        """A record without steps."""
        width = sum(dtype.itemsize // 4 for _, dtype in self.dtypes)
        return _zeros((ROWS + 1, max(1, width)), self.sharding)()

    def read(self, record: np.ndarray, count: int) -> dict[str, np.ndarray]:
        """`{name: [count]}` of a record that was fetched."""
        found, begin = {}, 0
        for name, dtype in self.dtypes:
            end = begin + dtype.itemsize // 4
            found[name] = np.ascontiguousarray(record[:count, begin:end]).view(dtype)[:, 0]
            begin = end
        return found


def noted(record: jax.Array, metrics: dict[str, jax.Array]) -> jax.Array:
    """A record with one more step, whose metrics are `[]`."""
    count, words = record[ROWS, 0], [_words(metrics[name]) for name in sorted(metrics)]
    if words:
        record = lax.dynamic_update_slice(record, jnp.concatenate(words)[None], (count, 0))
    return record.at[ROWS, 0].set(count + 1)


class Seen:
    """Metrics of steps in their order, fetched when they are asked for.

    Attributes:
      record: what the next single step writes its metrics into; None where none is begun.
    """

    def __init__(self, fetched: dict[str, np.ndarray] | None = None):
        self.record: jax.Array | None = None
        self._columns: Columns | None = None
        self._count = 0  # of the record, without a look at the device
        self._closed: list[Callable[[], dict[str, np.ndarray]]] = [lambda: fetched] if fetched else []

    def __bool__(self) -> bool:
        return bool(self._closed or self._count)

    def add_one(self, record: jax.Array, columns: Columns) -> None:
        """Takes a record with one more step in it."""
        self.record = record
        self._columns = columns
        self._count += 1
        if self._count == ROWS:
            self._close()

    def add_several(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of several steps, each `[steps]`."""
        self._close()
        self._closed.append(functools.partial(jax.device_get, metrics))

    def columns(self) -> dict[str, np.ndarray]:
        """Metrics of each step, `{name: [steps]}` of float64, fetched."""
        self._close()
        groups = [get() for get in self._closed]
        names = groups[0] if groups else ()
        found = {name: np.concatenate([group[name].astype(np.float64) for group in groups]) for name in names}
        self._closed[:] = [lambda: found] if groups else []
        return found

    def clear(self) -> None:
        """Forgets them."""
        self._closed.clear()
        self.record, self._count = None, 0

    def _close(self) -> None:
        if self.record is not None and self._columns is not None and self._count:
            read, record, count = self._columns.read, self.record, self._count
            self._closed.append(lambda: read(np.asarray(record), count))
        self.record, self._count = None, 0


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
