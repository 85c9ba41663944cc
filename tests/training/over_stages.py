"""Blocks over the devices of a mesh in turn give what `repeat` gives on one: run by `test_pipeline.py`."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from renga import nets, optim, training

BLOCK = nets.residual(nets.layer_norm(), nets.linear(8), jnp.tanh)
NET = nets.repeat(BLOCK, 8)
X = jax.random.normal(jax.random.key(0), (24, 8))
PARAMS = NET.init(jax.random.key(1), X)
MESHES = {"four stages": ((4,), ("stage",), ()), "two by two": ((2, 2), ("data", "stage"), "data")}


def loss_of(apply, params, x):
    return jnp.sin(3 * apply(params, x)).mean()


def check(name: str, kind: str, remat: bool) -> None:
    """Outputs, gradients, and the slope of the gradient along itself."""
    sizes, names, batch = MESHES[name]
    mesh = jax.make_mesh(sizes, names, axis_types=(getattr(AxisType, kind),) * len(sizes))
    apply = training.pipelined(BLOCK, mesh, num_microbatches=6, batch=batch, remat=remat)

    def all_of(apply, params, x):
        grad = jax.grad(functools.partial(loss_of, apply), (0, 1))
        first = grad(params, x)
        return apply(params, x), first, jax.jvp(grad, (params, x), first)[1]

    expected = jax.jit(functools.partial(all_of, NET.apply))(PARAMS, X)
    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec(None if remat else "stage")))
        x = jax.device_put(X, NamedSharding(mesh, PartitionSpec(batch or None)))
        found = jax.jit(functools.partial(all_of, apply))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), found, expected)


def check_a_run(kind: str) -> None:
    """Losses of `fit`, with parameters and the optimizer's state laid out by a rule."""
    mesh = jax.make_mesh((2, 2), ("data", "stage"), axis_types=(getattr(AxisType, kind),) * 2)
    pipeline = training.pipelined(BLOCK, mesh, num_microbatches=4, batch="data")
    rules = training.ShardingRules({"**": PartitionSpec("stage")}, batch="data")
    batch, tx = {"x": np.asarray(X[:16]), "y": np.asarray(X[:16, ::-1])}, optim.adam(0.01)

    def losses(apply, **options):
        loss_fn = lambda params, batch, key: training.squared_error(apply(params, batch["x"]), batch["y"])  # noqa: E731
        train_state, history = training.fit(
            training.step(loss_fn, tx), training.init(PARAMS, tx), itertools.repeat(batch),
            num_steps=6, report_every=1, progress=False, **options,
        )  # fmt: skip
        return train_state, [row["loss"] for row in history]

    _, expected = losses(NET.apply)
    train_state, found = losses(pipeline, mesh=mesh, rules=rules)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for leaf in jax.tree.leaves((train_state.params, train_state.opt_state)):
        if leaf.ndim:
            assert leaf.sharding.spec[0] == "stage", leaf.sharding


def main() -> None:
    """All of it, on four devices."""
    assert jax.device_count() == 4
    check("four stages", "Auto", remat=True)
    check("two by two", "Explicit", remat=False)
    check("four stages", "Explicit", remat=True)  # remat: with parameters that are not laid out
    check_a_run("Auto")
    check_a_run("Explicit")


if __name__ == "__main__":
    main()
