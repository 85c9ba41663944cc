"""Grouped leaves against the chain on every leaf by itself."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import optim
from renga.optim import Groups, grouped

from .trees import assert_close, assert_same, types

SHAPES = [(3,), (2, 3), (), (5,), (40, 50), (1, 4)]


def many(num: int = 150, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Small leaves of several shapes, a large one and one of no numbers."""
    keys = jax.random.split(jax.random.key(0), num)
    leaves = {f"p{i:03}": jax.random.normal(key, SHAPES[i % len(SHAPES)], dtype) for i, key in enumerate(keys)}
    return leaves | {"large": jnp.ones((30, 1000), dtype), "none": jnp.ones((0, 3), dtype)}


LINKS: dict[str, Callable[[], Any]] = {
    "adam": lambda: optim.adam(0.1),
    "adamw": lambda: optim.adamw(0.1, weight_decay=0.1),
    "momentum": lambda: optim.sgd(0.1, momentum=0.9),
    "clipped by the global norm": lambda: optim.chain(optim.clip_by_global_norm(0.5), optim.adam(0.1)),
    "optimistic_gradient": lambda: optim.optimistic_gradient(0.1),
    "lion": lambda: optim.lion(0.1),
    "Optax's adam": lambda: optax.adam(0.1),
    "skip_not_finite": lambda: optim.skip_not_finite(optim.adam(0.1)),
    "accumulate": lambda: optim.accumulate(optim.adam(0.1), 2),
}


def moments_of(tx: Any, params: Any) -> Any:
    return tx.init(params).inner[0].mu


def run(tx: Any, params: Any, num_steps: int = 3) -> Any:
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(num_steps):
        updates, state = update(jax.tree.map(lambda leaf: jnp.sin(3 * leaf), params), state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", LINKS)
def test_grouping_changes_nothing(name: str):
    params = many(40)
    assert_close(run(grouped(LINKS[name]()), params), run(LINKS[name](), params))


def test_small_leaves_lie_end_to_end_and_large_ones_stay():
    params = many()
    moments = moments_of(grouped(optim.adam(0.1)), params)
    assert isinstance(moments, Groups)
    assert [len(group) for group in moments.layout] == [64, 64, 23]
    assert sum(group.size for group in moments.together) + 30_000 == sum(leaf.size for leaf in params.values())
    assert [leaf.shape for leaf in moments.alone] == [(30, 1000)]


def test_one_large_leaf_is_handed_on_as_it_is():
    seen = []
    own = optax.stateless(lambda updates, params: seen.append((updates, params)) or updates)
    params = jnp.ones(20_000)
    tx: Any = grouped(own)
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates is params
    assert seen[0][0].alone[0] is seen[0][1].alone[0] is params


def test_leaves_of_one_dtype_go_together_and_keep_it():
    params = many(20) | {f"half{i}": jnp.ones(4, jnp.bfloat16) for i in range(5)} | {"alone": jnp.ones(3, jnp.float16)}
    tx: Any = grouped(optim.adam(0.1))
    state: Any = tx.init(params)
    assert sorted(str(group.dtype) for group in state.inner[0].mu.together) == ["bfloat16", "float32"]
    assert types(run(tx, params)) == types(params)
    assert_close(run(tx, params), run(optim.adam(0.1), params), rtol=1e-2)


def test_excluded_leaves_stay_alone():
    params = many(12)
    moments = moments_of(grouped(optim.adam(0.1), exclude="p00*"), params)
    assert len(moments.alone) == 11
    assert_close(run(grouped(optim.adam(0.1), exclude="p00*"), params), run(optim.adam(0.1), params))
    with pytest.raises(ValueError, match="nothing/"):
        grouped(optim.adam(0.1), exclude="nothing/**").init(params)


@pytest.mark.parametrize("wrap", [optax.masked, optim.masked])
def test_it_stands_in_a_mask(wrap: Any):
    params = many(12)
    mask = {name: index % 2 == 0 for index, name in enumerate(params)}
    assert_close(run(wrap(grouped(optim.adam(0.1)), mask), params), run(wrap(optim.adam(0.1), mask), params))


def test_the_state_keeps_its_types_under_scan_cond_vmap_and_jit():
    params, tx = many(8), cast(Any, grouped(optim.adam(0.1)))
    before: Any = tx.init(params)
    assert types(jax.jit(tx.init)(params)) == types(jax.eval_shape(tx.init, params)) == types(before)
    step = lambda state: tx.update(params, state, params)  # noqa: E731
    assert types(lax.scan(lambda state, _: step(state)[::-1], before, None, 2)[0]) == types(before)
    assert types(jax.jit(lambda flag, s: lax.cond(flag, lambda: step(s)[1], lambda: s))(True, before)) == types(before)
    assert types(optax.tree.map_params(tx, lambda leaf: leaf + 1, before)) == types(before)
    stack = lambda leaf: jnp.stack([leaf, 2 * leaf])  # noqa: E731
    together = jax.vmap(lambda params: tx.update(params, tx.init(params), params)[0])(jax.tree.map(stack, params))
    assert_close(jax.tree.map(lambda leaf: leaf[0], together), step(before)[0])


def test_it_works_without_params_and_on_donated_ones():
    params, tx = many(8), grouped(optim.adam(0.1))
    assert_same(tx.update(params, tx.init(params))[0], tx.update(params, tx.init(params), params)[0])
    expected = run(tx, params, 1)
    copied = jax.tree.map(jnp.copy, params)

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.tree.map(lambda leaf: jnp.sin(3 * leaf), params), state, params)
        return optax.apply_updates(params, updates), state

    state: Any = tx.init(copied)
    assert_close(jax.jit(step, donate_argnums=(0, 1))(copied, state)[0], expected)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((copied, state)))


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (lambda: optim.lamb(0.1), "which treats a leaf as a whole. Put it before or after: chain(lamb("),
        (
            lambda: optim.chain(optim.adaptive_grad_clip(0.1), optim.sgd(0.1)),
            "Put it before or after: chain(adaptive_grad_clip(",
        ),
        (lambda: optim.skip_not_finite(optim.adafactor(0.1)), "got adafactor("),
        (lambda: optim.chain(optim.sam(0.1), optim.sgd(0.1)), "chain(sam(0.05), grouped(adam(1e-3)))"),
        (lambda: optim.masked(optim.sgd(0.1), "**/w"), "partition({"),
        (lambda: optim.adamw(0.1, mask="**/w"), "partition({"),
        (lambda: optim.chain(optim.clip(1.0), grouped(optim.sgd(0.1))), "got grouped(sgd(0.1)). Once is enough."),
        (lambda: optim.schedule_free_adamw(0.1), "got schedule_free_adamw(learning_rate=0.1). Put it around"),
        (lambda: optim.Link(*optax.chain(optim.sam(0.1), optim.sgd(0.1))), "chain(sam(0.05), grouped(adam(1e-3)))"),
        (lambda: optim.chain(optim.sgd(0.1), optim.ema_params()), "chain(grouped(adam(1e-3)), ema_params(0.999))"),
    ],
)
def test_what_is_not_element_wise_is_refused_with_what_to_write(tx: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        grouped(tx())


def test_python_numbers_are_parameters_too():
    params, grads = {"a": 1.0, "b": 2.0}, {"a": jnp.array(3.0), "b": jnp.array(4.0)}
    tx: Any = grouped(optim.sgd(0.5))
    assert_close(tx.update(grads, tx.init(params), params)[0], {"a": jnp.array(-1.5), "b": jnp.array(-2.0)})


def test_updates_of_other_parameters_are_refused():
    tx: Any = grouped(optim.sgd(0.1, momentum=0.9))
    with pytest.raises(
        ValueError, match="expected updates of the parameters that the state was made for, got 2 leaves"
    ):
        tx.update({"a": jnp.ones(2), "b": jnp.ones(2)}, tx.init(many(8)))


def instructions(tx: Any, params: Any) -> int:
    """How many there are for XLA to compile in a step."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    return jax.jit(step).lower(params, state, params).as_text().count(" = ")


def test_many_leaves_are_a_fraction_of_optaxs_instructions():
    params = {f"p{i:03}": jnp.full(10, i / 300) for i in range(300)}
    ours, theirs = (instructions(tx, params) for tx in (grouped(optim.adam(1e-3)), optax.adam(1e-3)))
    assert ours < theirs / 3


PROGRAM = """
import sys
import jax, jax.numpy as jnp, optax
jax.config.update("jax_num_cpu_devices", 4)
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from renga import optim
from renga.optim import grouped

mesh = jax.make_mesh((4,), ("data",), axis_types=(getattr(AxisType, sys.argv[1]),))
spread, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
plain = {f"p{i}": jnp.arange(8.0) + i for i in range(12)}
params = {name: jax.device_put(leaf, spread if int(name[1:]) % 2 else whole) for name, leaf in plain.items()}


def run(tx, params):
    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
        return optax.apply_updates(params, updates), state

    state: Any = tx.init(params)
    compiled = jax.jit(step).lower(params, state).compile()
    for _ in range(3):
        params, state = compiled(params, state)
    return params, state, compiled.as_text()


alone = run(optim.adam(0.1), plain)[0]
with jax.set_mesh(mesh):
    found, state, text = run(grouped(optim.adam(0.1)), params)
layout = state.inner[0].mu.layout
names = list(jax.tree.leaves({name: name for name in params}))
assert [[names[i] for i in group] for group in layout] == [[n for n in names if int(n[1:]) % 2 == 0]], layout
for name, leaf in found.items():
    assert leaf.sharding.is_equivalent_to(params[name].sharding, 1), (name, leaf.sharding)
    assert jnp.allclose(jax.device_get(leaf), alone[name], rtol=1e-5), name
assert not [kind for kind in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if kind in text]
print("never moved")
"""


@pytest.mark.parametrize("axes", ["Explicit", "Auto"])
def test_sharded_leaves_stay_where_they_are(axes: str):
    result = subprocess.run([sys.executable, "-c", PROGRAM, axes], capture_output=True, text=True, check=False)
    assert "never moved" in result.stdout, result.stderr[-3000:]


def test_a_state_of_groups_prints():
    moments = moments_of(grouped(optim.adam(0.1)), {"a": jnp.zeros(2), "b": jnp.zeros(1)})
    assert repr(moments) == "Groups((Array([0., 0., 0.], dtype=float32),), (), ((0, 1),))"
    np.testing.assert_array_equal(jax.tree.leaves(moments)[0], np.zeros(3))
