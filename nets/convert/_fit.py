"""From a network's variables to another library's arrays by name, and back; what does not fit is listed."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._paths import paths_of
from ._entry import ConvertError
from ._walk import Library, Task, moves_of


def to_other(task: Task, variables: Any, library: Library) -> dict[str, np.ndarray]:
    """All arrays by name as the other library has them; names are paths with slashes.

    Raises:
      ConvertError: if the variables are not those of the network.
    """
    shapes, moves = moves_of(task, library)
    params, state = variables if task.net.core.stateful else (variables, {})
    arrays = paths_of({"params": params, "state": state})
    ours = {path: np.asarray(leaf) for path, leaf in arrays.items() if hasattr(leaf, "shape")}
    _check(f"{task.net!r}, our own arrays", paths_of(shapes), ours)
    found: dict[str, np.ndarray] = {}
    for move in moves:
        found |= zip(move.theirs, move.to(*(ours[ref.path][ref.blocks] for ref in move.ours)), strict=True)
    return found


def from_other(task: Task, given: Mapping[str, Any], library: Library) -> Any:
    """What `init` would make, filled with the other library's arrays.

    Raises:
      ConvertError: if any array is missing, is of another shape or kind, or belongs nowhere.
    """
    shapes, moves = moves_of(task, library)
    ours = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in paths_of(shapes).items()}
    theirs = {name: np.asarray(array) for name, array in given.items()}
    expected: dict[str, jax.ShapeDtypeStruct] = {}
    for move in moves:
        parts = (ours[ref.path][ref.blocks] for ref in move.ours)
        blank = (np.broadcast_to(np.zeros((), part.dtype), part.shape) for part in parts)
        made = (jax.ShapeDtypeStruct(array.shape, array.dtype) for array in move.to(*blank))
        expected |= zip(move.theirs, made, strict=True)
    _check(f"{task.net!r}, from {library.name}", library.shown(expected), library.shown(theirs))
    for move in moves:
        for ref, array in zip(move.ours, move.back(*(theirs[name] for name in move.theirs)), strict=True):
            ours[ref.path][ref.blocks] = array
    made = _fill(shapes, iter(ours.values()))
    return (made["params"], made["state"]) if task.net.core.stateful else made["params"]


def _fill(shapes: Any, leaves: Iterator[np.ndarray]) -> Any:
    """The tree of shapes with arrays in the order in which `paths_of` lists them."""
    if isinstance(shapes, dict):
        return {name: _fill(item, leaves) for name, item in shapes.items()}
    if isinstance(shapes, list):
        return [_fill(item, leaves) for item in shapes]
    return jnp.asarray(next(leaves))


def _check(what: str, expected: Mapping[str, Any], given: Mapping[str, np.ndarray]) -> None:
    wrong = [f"missing {name} {expected[name].shape}" for name in expected if name not in given]
    wrong += [f"extra {name} {given[name].shape}" for name in given if name not in expected]
    for name, wanted in expected.items():
        if name in given and given[name].shape != wanted.shape:
            wrong.append(f"{name}: expected {wanted.shape}, got {given[name].shape}")
        elif name in given and _kind(given[name].dtype) != _kind(wanted.dtype):
            wrong.append(f"{name}: expected {wanted.dtype}, got {given[name].dtype}")
    if wrong:
        raise ConvertError(f"{what}: {len(wrong)} arrays do not fit:\n  " + "\n  ".join(wrong))


def _kind(dtype: Any) -> str:
    """Numbers of one kind differ in precision alone."""
    kinds = {"float": jnp.floating, "integer": jnp.integer, "complex": jnp.complexfloating}
    return next((name for name, kind in kinds.items() if jnp.issubdtype(dtype, kind)), str(dtype))
