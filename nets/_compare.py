"""Two trees of parameters side by side: what one lacks, and where shapes, dtypes and values differ."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import _table
from ._paths import flatten_params

_NUMBERS = ("entries", "max abs", "max rel")


class Difference(NamedTuple):
    """One path at which two trees of parameters differ.

    Attributes:
      path: where.
      kind: `"missing"` from the second tree, `"extra"` in it, `"shape"`, `"dtype"` or `"value"`; the first that holds.
      first: dtype and shape in the first tree.
      second: dtype and shape in the second tree.
      num_entries: how many entries differ by more than the tolerance, where values were compared.
      max_abs: the largest difference of two entries.
      max_rel: the largest difference of two entries relative to that of the second tree.
    """

    path: str
    kind: str
    first: str
    second: str
    num_entries: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0


class Comparison(tuple[Difference, ...]):
    """Where two trees of parameters differ: empty, and so false, if they do not; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        return _table.text(*self._cells(), right=_NUMBERS) if self else "no difference"

    __repr__ = __str__

    def __rich__(self) -> Any:
        return _table.rich(*self._cells(), right=_NUMBERS) if self else str(self)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows; the numbers only where values differ."""
        valued = any(row.kind == "value" for row in self)
        head = ["path", "differs", "first", "second", *(_NUMBERS if valued else ())]
        return head, [[*row[:4], *(_numbers(row) if valued else ())] for row in self]


def compare(first: Any, second: Any, *, rtol: float = 0.0, atol: float = 0.0) -> Comparison:
    """Where two trees of parameters differ, as a table that one can read.

    Values differ where `|first - second| > atol + rtol * |second|`; NaN equals NaN.

    Args:
      first: nested dicts and lists of arrays, or of `jax.ShapeDtypeStruct`s, which have no values to compare.
      second: the same.
      rtol: difference relative to the second tree that is let pass.
      atol: difference that is let pass.
    Returns:
      A tuple of `Difference(path, kind, first, second, num_entries, max_abs, max_rel)`, empty if there is none.

    >>> first = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
    >>> print(compare(first, {"w": first["w"].at[0, 0].add(0.5), "scale": first["b"]}))
    path   differs  first           second          entries  max abs  max rel
    -----  -------  --------------  --------------  -------  -------  -------
    w      value    float32 (2, 2)  float32 (2, 2)        1      0.5    0.333
    b      missing  float32 (2,)    -
    scale  extra    -               float32 (2,)
    >>> bool(compare(first, first))
    False
    """
    ours, theirs = flatten_params(first), flatten_params(second)
    rows = [_difference(path, ours.get(path), theirs.get(path), rtol, atol) for path in {**ours, **theirs}]
    return Comparison(row for row in rows if row is not None)


def _numbers(row: Difference) -> list[str]:
    if row.kind != "value":
        return [""] * 3
    return [f"{row.num_entries:,}", f"{row.max_abs:.3g}", f"{row.max_rel:.3g}"]


def _difference(path: str, first: Any, second: Any, rtol: float, atol: float) -> Difference | None:
    shown = (path, _in_words(first), _in_words(second))
    if first is None or second is None:
        return Difference(path, "extra" if first is None else "missing", *shown[1:])
    if isinstance(first, dict | list) or isinstance(second, dict | list):
        return None if shown[1] == shown[2] else Difference(path, "shape", *shown[1:])
    if np.shape(first) != np.shape(second):
        return Difference(path, "shape", *shown[1:])
    if _dtype(first) != _dtype(second):
        return Difference(path, "dtype", *shown[1:])
    if isinstance(first, jax.ShapeDtypeStruct) or isinstance(second, jax.ShapeDtypeStruct):
        return None
    count, max_abs, max_rel = _distance(_numpy(first), _numpy(second), rtol, atol)
    return Difference(path, "value", *shown[1:], count, max_abs, max_rel) if count else None


def _distance(first: np.ndarray, second: np.ndarray, rtol: float, atol: float) -> tuple[int, float, float]:
    """How many entries differ by more than the tolerance, and the largest absolute and relative differences."""
    same = first == second  # before they are made wide: float64 does not hold every integer
    first, second = _wide(first), _wide(second)
    same |= np.isnan(first) & np.isnan(second)
    with np.errstate(all="ignore"):
        apart = np.where(same, 0, np.abs(first - second))
        relative = np.where(same, 0, apart / np.abs(second))
        near = (apart > 0) & np.isfinite(apart) & (apart <= atol + rtol * np.abs(second))
    return int((~same & ~near).sum()), float(apart.max(initial=0)), float(relative.max(initial=0))


def _numpy(array: Any) -> np.ndarray:
    if jnp.issubdtype(jnp.result_type(array), jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array)


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _dtype(leaf: Any) -> Any:
    """The dtype as it stands: JAX would call NumPy's float64 a float32."""
    return getattr(leaf, "dtype", None) or jnp.result_type(leaf)


def _in_words(leaf: Any) -> str:
    if leaf is None:
        return "-"
    return "nothing" if isinstance(leaf, dict | list) else f"{_dtype(leaf)} {tuple(np.shape(leaf))}"
