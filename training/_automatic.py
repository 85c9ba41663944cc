"""Programs that say nothing of where their products lie, under meshes whose axes ask for it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec


def in_automatic_axes(
    function: Callable[..., Any], lies: Callable[..., Any] = lambda results, *args: PartitionSpec()
) -> Callable[..., Any]:
    """A function of arrays in which XLA decides what lies where, whatever the axes of the mesh that it is called under.

    A `vmap` over tasks with a key each, a product of per-example factors: under explicit axes these would ask their
    author where every result is to lie, and their author does not know the mesh.

    Args:
      function: pure, of pytrees of arrays.
      lies: `lies(results, *args)`, specs of the results, or of whole subtrees of them; shapes of the results are given.
        Whole on every device unless given.
    Returns:
      The same function where no axis is explicit.
    """

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        mesh = jax.sharding.get_abstract_mesh()
        kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
        axes = tuple(name for name, kind in kinds if kind == AxisType.Explicit)
        if not axes:
            return function(*args, **named)
        args = inspect.signature(function).bind(*args, **named).args
        with jax.sharding.use_abstract_mesh(_with_automatic(mesh, axes)):
            results = jax.eval_shape(function, *jax.tree.map(_shape_of, args))
        return jax.sharding.auto_axes(function, axes=axes, out_sharding=lies(results, *args))(*args)

    return call


def spec_of(leaf: Any) -> PartitionSpec:
    """Where an array lies, as far as its type says."""
    return jax.typeof(leaf).sharding.spec


def _with_automatic(mesh: AbstractMesh, axes: tuple[str, ...]) -> AbstractMesh:
    return mesh.update_axis_types(dict.fromkeys(axes, AxisType.Auto))


def _shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    kind = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=kind.weak_type)
