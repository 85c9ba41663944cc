"""Patterns on paths of parameters made into axes of a mesh."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from .._patterns import matching
from ._checks import path_of

Axes = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Largest:
    """The largest axis of an array that a mesh's axes divide; of equal ones the last.

    Attributes:
      axes: of the mesh.
      min_size: arrays with fewer numbers, and those that have no such axis, are whole on every device.
    """

    axes: Axes
    min_size: int = 1


Spec = PartitionSpec | Largest


def specs_of(params: Any, mesh: Mesh, patterns: Sequence[tuple[str, Spec]]) -> Any:
    """Which axes of each parameter are spread over which axes of a mesh.

    Raises:
      ValueError: as `ShardingRules` says.
    """
    shapes = {path_of(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    chosen: dict[str, Spec] = {}
    for pattern, spec in reversed(patterns if shapes else ()):
        chosen |= dict.fromkeys(matching(shapes, (pattern,), "ShardingRules"), spec)
    missed = [path for path in shapes if path not in chosen]
    if missed:
        raise ValueError(
            f"ShardingRules: expected a pattern for every parameter, got none for {missed}. Add '**' for the rest."
        )
    found = {path: _spec(path, shape, chosen[path], mesh) for path, shape in shapes.items()}
    return jax.tree_util.tree_map_with_path(lambda path, leaf: found[path_of(path)], params)


def _spec(path: str, shape: tuple[int, ...], spec: Spec, mesh: Mesh) -> PartitionSpec:
    if isinstance(spec, Largest):
        return _of_largest(path, shape, spec, mesh)
    _check_fits(path, shape, spec, mesh)
    return spec


def _of_largest(path: str, shape: tuple[int, ...], wanted: Largest, mesh: Mesh) -> PartitionSpec:
    parts = check_axes(repr(path), as_axes(wanted.axes), mesh)
    fitting = [place for place, size in enumerate(shape) if size and size % parts == 0]
    if math.prod(shape) < wanted.min_size or not fitting:
        return PartitionSpec()
    place = max(fitting, key=lambda place: (shape[place], place))
    return PartitionSpec(*[None] * place, wanted.axes)


def _check_fits(path: str, shape: tuple[int, ...], spec: Any, mesh: Mesh) -> None:
    if len(spec) > len(shape):
        raise ValueError(
            f"ShardingRules: expected a spec of at most {len(shape)} axes for {path!r} {list(shape)}, got {spec}. "
            "Name its path before the pattern that matches it."
        )
    named = [axis for axes in spec if axes is not None for axis in as_axes(axes)]
    if len(set(named)) < len(named):
        raise ValueError(
            f"ShardingRules: expected each axis of the mesh once for {path!r}, got {spec}. "
            "Spread one axis of the parameter over it."
        )
    for place, axes in enumerate(spec):
        parts = check_axes(repr(path), as_axes(axes), mesh) if axes is not None else 1
        if shape[place] % parts:
            raise ValueError(
                f"ShardingRules: expected axis {place} of {path!r} {list(shape)} to be a multiple of the {parts} "
                f"devices along {axes!r}, got {shape[place]}. Spread another axis, or none."
            )


def as_axes(axes: Axes) -> tuple[str, ...]:
    """A mesh's axes as a tuple."""
    return tuple(axes) if isinstance(axes, tuple) else (axes,)


def check_axes(place: str, axes: tuple[str, ...], mesh: Mesh) -> int:
    """How many devices axes of a mesh have together.

    Raises:
      ValueError: for an axis that the mesh does not have.
    """
    for axis in axes:
        if axis not in mesh.shape:
            raise ValueError(
                f"ShardingRules: expected axes of the mesh, {mesh.axis_names}, for {place}, got {axis!r}. "
                "Name axes that the mesh has, or make a mesh with this one."
            )
    return math.prod(mesh.shape[axis] for axis in axes)
