"""Every network of the registry, on a batch spread over four devices, against one device: run by `test_meshes.py`.

    python -m tests.nets.laws_over_meshes Auto|Explicit [NETWORK ...]

Prints the names of the networks whose outputs, states or gradients differ, and why.
"""

import sys
import traceback
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from renga import nets

from .kit import KEY, Case, floats, values, variables
from .made import flags, graded
from .registry import NETS

NUM_DEVICES = 4
CASES = NETS | {
    "attention, block by block": Case(lambda: nets.attention(2, causal=True), floats(2, 130, 4)),
    "attention, several loops": Case(lambda: nets.attention(2), floats(2, 4200, 2), long=True),
}


def with_batch_of_four(tree: Any, axis: int) -> Any:
    """Inputs, or their shapes, with as many examples as there are devices."""

    def of(leaf: Any) -> Any:
        if not hasattr(leaf, "shape") or leaf.ndim <= axis:
            return leaf
        shape = (*leaf.shape[:axis], NUM_DEVICES, *leaf.shape[axis + 1 :])
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(shape, leaf.dtype)
        return np.take(np.asarray(leaf), np.arange(NUM_DEVICES) % leaf.shape[axis], axis)

    return jax.tree.map(of, tree)


def spread(tree: Any, mesh: Any, axis: int) -> Any:
    """Arrays with their batch over the devices; those without one are everywhere."""

    def of(leaf: Any) -> Any:
        spec = PartitionSpec(*[None] * axis, "data") if leaf.ndim > axis else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(of, tree)


def differs(name: str, mesh: Any) -> str | None:
    """Why a network is not the same over a mesh."""
    case = CASES[name]
    net, inputs = case.build(), values(with_batch_of_four(case.inputs, case.in_axis))
    keywords = values(with_batch_of_four(dict(case.keywords), 0))
    fixed = flags(keywords)
    arrays = {name: value for name, value in keywords.items() if name not in fixed}
    made, run = variables(net, KEY, *inputs, **keywords), graded(net, fixed)
    try:
        expected = run(made, inputs, arrays, train=True)
        with jax.set_mesh(mesh):
            found = run(made, spread(inputs, mesh, case.in_axis), spread(arrays, mesh, 0), train=True)
        jax.tree.map(_compare, found, expected)
    except Exception as error:
        traceback.print_exc()
        return f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    finally:
        jax.clear_caches()
    return None


def _compare(one: Any, other: Any) -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-4, atol=1e-4)


def main(kind: str, *names: str) -> None:
    """Runs the networks of these names, or every one that the law of meshes holds for."""
    assert jax.device_count() == NUM_DEVICES
    jax.config.update("jax_disable_most_optimizations", True)
    mesh = jax.make_mesh((NUM_DEVICES,), ("data",), axis_types=(getattr(AxisType, kind),))
    exempt = {name for name, case in CASES.items() if kind == "Explicit" and "meshes" in case.exempt}
    for name in names or CASES.keys() - exempt:
        why = differs(name, mesh)
        if why:
            print(why, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
