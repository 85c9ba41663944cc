"""A transformer trained on four devices by rules alone has the losses of one: run by `test_sharding.py`."""

import re
import sys
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from renga import nets, optim, training
from renga.training._sharding import laid_out

NET = nets.transformer(24, 16, num_layers=2, num_heads=4, max_length=8)
IDS = np.random.default_rng(0).integers(0, 24, (32, 8))
TX = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(1e-2))
TENSOR_PARALLEL = {
    "blocks/attn/out/w": P(None, "model"),
    "blocks/attn/[qkv]/w": P(None, None, "model"),
    "blocks/attn/[qkv]/b": P(None, "model"),
    "blocks/mlp/up/w": P(None, None, "model"),
    "blocks/mlp/up/b": P(None, "model"),
    "blocks/mlp/down/w": P(None, "model"),
    "tokens/w": P("model"),
}
TRACED = []


def loss_fn(params: Any, batch: Any, key: jax.Array) -> jax.Array:
    TRACED.append("loss_fn")
    return training.cross_entropy(NET.apply(params, batch[:, :-1]), batch[:, 1:])


STEP = training.step(loss_fn, TX)


def start() -> training.TrainState:
    return training.init(NET.init(jax.random.key(0), IDS[:, :-1]), TX, key=jax.random.key(1))


def trained(train_state: training.TrainState, num_steps: int = 6, **options: Any) -> Any:
    feed = training.batches(IDS, 8, key=jax.random.key(2))
    return training.fit(
        STEP, train_state, feed, num_steps=num_steps, steps_per_call=2, report_every=2, progress=False, **options
    )


def assert_laid_out(train_state: training.TrainState, mesh: Any, rules: training.ShardingRules) -> None:
    """Parameters lie as the rules say, and Adam's moments as their parameters."""
    wanted = training.shardings_of(train_state, mesh, rules)
    for leaf, sharding in zip(jax.tree.leaves(train_state), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), (leaf.sharding, sharding)
    for moments in (train_state.opt_state[1][0].mu, train_state.opt_state[1][0].nu):
        for leaf, own in zip(jax.tree.leaves(moments), jax.tree.leaves(train_state.params), strict=True):
            assert leaf.sharding.is_equivalent_to(own.sharding, leaf.ndim)
            assert leaf.addressable_shards[0].data.shape == own.addressable_shards[0].data.shape


def assert_taken_up(made: training.TrainState, mesh: Any, rules: training.ShardingRules, expected: Any) -> None:
    """A run on four devices goes on on two, and on one, and has the losses of one."""
    two = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=mesh.axis_types)
    directory = tempfile.mkdtemp()
    trained(made, 2, checkpoints=training.Checkpoints(directory), mesh=mesh, rules=rules)
    taken_up, history = trained(made, 4, checkpoints=training.Checkpoints(directory), mesh=two, rules=rules)
    assert_laid_out(taken_up, two, rules)
    taken_up, history = trained(made, checkpoints=training.Checkpoints(directory))
    assert not taken_up.params["tokens"]["w"].committed
    np.testing.assert_allclose([row["loss"] for row in history], [row["loss"] for row in expected], atol=1e-5)


def assert_never_whole(mesh: Any, rules: training.ShardingRules) -> None:
    """A large train state that is made where it lies takes no device more than twice its share."""
    shape = jax.ShapeDtypeStruct((1, 512), jnp.float32)

    def make() -> training.TrainState:
        return training.init(nets.linear(512).init(jax.random.key(0), shape), TX)

    shardings = training.shardings_of(jax.eval_shape(make), mesh, rules)
    with jax.set_mesh(mesh):
        memory: Any = jax.jit(laid_out(make, mesh, shardings)).lower().compile().memory_analysis()
    whole = 3 * 4 * 512 * 513
    assert memory.output_size_in_bytes < 0.26 * whole
    assert memory.temp_size_in_bytes < 0.3 * whole


def main(axes: str, everything: bool) -> None:
    """Compares all."""
    assert jax.device_count() == 4
    jax.config.update("jax_disable_most_optimizations", True)
    made = jax.jit(start)()
    _, expected = trained(made)
    kind = getattr(AxisType, axes)
    line = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    square = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind, kind))
    cases = {
        "data-parallel": (line, training.data_parallel()),
        "fully sharded": (line, training.fully_sharded(min_size=64)),
        "tensor-parallel": (square, training.data_parallel(TENSOR_PARALLEL)),
        "both": (square, training.fully_sharded(TENSOR_PARALLEL, min_size=64)),
    }
    found: dict[str, Any] = {}
    for name, (mesh, rules) in cases.items() if everything else list(cases.items())[:3]:
        before = len(TRACED)
        found[name], history = trained(made, mesh=mesh, rules=rules)
        losses, known = ([row["loss"] for row in rows] for rows in (history, expected))
        np.testing.assert_allclose(losses, known, atol=1e-5, err_msg=name)
        assert_laid_out(found[name], mesh, rules)
        assert len(TRACED) == before + 1, name
    attn = found["tensor-parallel"].params["blocks"]["attn"]
    assert attn["q"]["w"].addressable_shards[0].data.shape == (2, 16, 2, 4)

    mesh, rules = cases["fully sharded"]
    placed = training.init_sharded(start, mesh, rules)
    assert_laid_out(placed, mesh, rules)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), placed.params, made.params)

    if everything:
        assert_never_whole(mesh, rules)
        assert_taken_up(made, mesh, rules, expected)
    uneven = (
        "fit: expected batch/x to have a multiple of 4 rows, one share for each part of the mesh along 'data', got 6. "
        "Make batches of another size."
    )
    feed = training.batches({"x": jnp.ones((12, 3))}, 6, key=jax.random.key(0))
    for batches in (feed, training.local_batches(feed, line)):
        with pytest.raises(ValueError, match=f"^{re.escape(uneven)}$"):
            training.fit(STEP, made, batches, num_steps=2, steps_per_call=1, mesh=line, progress=False)


if __name__ == "__main__":
    main(sys.argv[1], "everything" in sys.argv)
