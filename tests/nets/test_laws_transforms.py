"""Networks go where functions go: donation, ahead-of-time compilation, export, meshes, shards."""

import functools
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from .kit import KEY
from .made import Made, loss_of, over


def assert_close(tree: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), tree, other)


A_FEW = pytest.mark.parametrize("made", ["convnet", "state in containers", "ensemble of repeats"], indirect=True)


@A_FEW
def test_a_step_compiled_ahead_that_donates_scans_branches_and_recomputes_gives_plain_gradients(made: Made):
    params, *state = made.variables

    def steps(params: Any, state: list, go: jax.Array, inputs: tuple) -> Any:
        run = jax.checkpoint(functools.partial(made.graded, train=True))

        def step(carry: tuple, _: None) -> tuple:
            params, state = carry
            (_, after), (grads, _) = run((params, *state), inputs, {})
            return (jax.tree.map(jnp.subtract, params, grads), [after] if state else []), None

        return lax.cond(go, lambda: lax.scan(step, (params, state), length=1)[0], lambda: (params, state))

    given = (params, state, np.True_, made.inputs)
    compiled = jax.jit(steps, donate_argnums=(0, 1)).lower(*given).compile()
    (_, after), (grads, _) = made.graded(made.variables, made.inputs, {}, train=True)
    expected = jax.tree.map(jnp.subtract, params, grads), [after] if state else []
    copies = jax.tree.map(jnp.copy, (params, state))
    assert_close(compiled(*copies, *given[2:]), expected)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(copies))


def exported(made: Made) -> jax.export.Exported:
    fixed = jax.jit(functools.partial(made.net.apply, **made.flags))
    run = jax.export.export(fixed, platforms=("cpu", "cuda", "tpu"))
    return run(*made.variables, *made.inputs, **made.arrays)


@over("export")
def test_a_network_can_be_exported_for_several_platforms(made: Made):
    apply = functools.partial(made.net.apply, **made.flags)
    outputs = jax.tree.leaves(jax.eval_shape(apply, *made.variables, *made.inputs, **made.arrays))
    assert [(y.shape, y.dtype) for y in exported(made).out_avals] == [(y.shape, y.dtype) for y in outputs]


@A_FEW
def test_an_exported_network_gives_what_it_gave_before(made: Made):
    given = (*made.variables, *made.inputs)
    assert_close(exported(made).call(*given), made.jitted(*given))


def spread(tree: Any, mesh: Any, axis: int | None) -> Any:
    """Shapes of arrays whose batch axis lies over the axis `data` of a mesh; those without one are everywhere."""

    def of(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec() if axis is None or leaf.ndim <= axis else PartitionSpec(*[None] * axis, "data")
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(of, tree)


@over("meshes")
def test_a_batch_may_lie_over_an_explicit_axis_of_a_mesh(made: Made):
    size = jax.tree.leaves(made.inputs)[0].shape[made.case.in_axis]
    mesh = AbstractMesh((size,), ("data",), axis_types=(AxisType.Explicit,))

    def loss(params: Any, state: list, inputs: tuple, arrays: dict[str, Any]) -> tuple[jax.Array, Any]:
        found = made.net.apply(params, *state, *inputs, key=KEY, train=True, **arrays, **made.flags)
        return loss_of(found), found

    with jax.sharding.use_abstract_mesh(mesh):
        params, *state = spread(made.variables, mesh, None)
        inputs, arrays = spread(made.inputs, mesh, made.case.in_axis), spread(made.arrays, mesh, 0)
        _, found = jax.eval_shape(jax.grad(loss, has_aux=True), params, state, inputs, arrays)
    y = found[0] if state else found
    jax.tree.map(lambda axis, leaf: assert_over(leaf, axis), jax.tree.broadcast(made.case.out_axis, y), y)


def assert_over(leaf: Any, axis: int) -> None:
    assert leaf.sharding.spec[axis] == "data", leaf.sharding.spec


@over("meshes")
def test_a_network_runs_on_shards_of_a_batch(made: Made):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    over_batch = PartitionSpec(*[None] * made.case.in_axis, "data")
    of_arrays = jax.tree.map(lambda leaf: PartitionSpec("data") if leaf.ndim else PartitionSpec(), made.arrays)
    of_outputs = jax.tree.map(lambda axis: PartitionSpec(*[None] * axis, "data"), made.case.out_axis)

    def loss(made_: tuple, inputs: tuple, arrays: dict[str, Any]) -> Any:
        found = made.run(made_, inputs, arrays)
        return lax.psum(loss_of(found), "data"), found

    specs = (PartitionSpec(), over_batch, of_arrays), (PartitionSpec(), of_outputs)
    run = jax.shard_map(jax.grad(loss, has_aux=True), mesh=mesh, in_specs=specs[0], out_specs=specs[1])
    _, found = jax.eval_shape(run, made.variables, made.inputs, made.arrays)
    assert found == jax.eval_shape(made.run, made.variables, made.inputs, made.arrays)
