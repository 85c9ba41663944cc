"""Leading axes are a batch, any number of them and none, of any size: for every network of the registry."""

import functools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from renga import nets

from .kit import KEY, variables
from .made import Made, make, over

Batch = tuple[int, ...]


def examples(made: Made, batch: Batch) -> np.ndarray:
    """Which examples of the case make up a batch of this shape."""
    size = jax.tree.leaves(made.inputs)[0].shape[made.case.in_axis]
    return 3 * np.arange(np.prod(batch, dtype=int)).reshape(batch) % size


def pick(tree: Any, chosen: np.ndarray, axis: Any) -> Any:
    """A batch of the chosen examples; what has no axes is shared by all."""
    axes = jax.tree.broadcast(axis, tree)
    return jax.tree.map(lambda leaf, axis: np.take(np.asarray(leaf), chosen, axis) if leaf.ndim else leaf, tree, axes)


def structs(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def given(made: Made, batch: Batch) -> tuple[tuple, dict[str, Any]]:
    """Inputs and keywords with these leading axes."""
    chosen = examples(made, batch)
    return pick(made.inputs, chosen, made.case.in_axis), pick(made.arrays, chosen, 0)


@functools.cache
def shapes(name: str, batch: Batch) -> tuple[Any, Any]:
    """What `init` makes for a batch, and what `apply` returns."""
    made = make(name)
    inputs, arrays = structs(given(made, batch))
    made_for = jax.eval_shape(lambda key: variables(made.net, key, *inputs, **arrays, **made.flags), KEY)
    return made_for, jax.eval_shape(made.run, made_for, inputs, arrays)


def assert_shapes_follow(made: Made, batch: Batch) -> None:
    """That outputs have the leading axes of the inputs, and parameters and state are those for one example."""

    def widened(axis: int, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leaf.shape[:axis], *batch, *leaf.shape[axis + 1 :]), leaf.dtype)

    of_one, one = shapes(made.name, (1,))
    axes = jax.tree.broadcast(made.case.out_axis, one)
    assert shapes(made.name, batch) == (of_one, jax.tree.map(widened, axes, one))


def test_a_batch_equals_its_examples(made: Made):
    def apply(inputs: tuple, arrays: dict[str, Any]) -> Any:
        return made.run(made.variables, inputs, arrays)

    axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, made.arrays)
    over_examples = jax.vmap(apply, (made.case.in_axis, axes), made.case.out_axis)
    together = made.jitted(*made.variables, *made.inputs, **made.keywords)
    together = together[0] if isinstance(made.net, nets.StatefulNet) else together
    assert_close(together, jax.jit(over_examples)(made.inputs, made.arrays))


@over("shapes")
@hypothesis.settings(derandomize=True, deadline=None, database=None, max_examples=5)
@hypothesis.given(batch=st.lists(st.integers(1, 3), max_size=3).map(tuple))
@hypothesis.example(batch=())
def test_any_leading_axes_are_those_of_the_outputs_and_none_of_the_parameters(made: Made, batch: Batch):
    assert_shapes_follow(made, batch)


@over("empty batches")
@pytest.mark.parametrize("batch", [(0,), (2, 0)])
def test_an_empty_batch_has_empty_outputs(made: Made, batch: Batch):
    assert_shapes_follow(made, batch)


@over("shapes")
def test_a_batch_with_three_leading_axes_equals_its_examples(made: Made):
    batch = (2, 1, 3)
    inputs, arrays = given(made, batch)
    found = made.jitted(*made.variables, *inputs, **arrays, **made.flags)
    whole = made.jitted(*made.variables, *made.inputs, **made.keywords)
    if isinstance(made.net, nets.StatefulNet):
        found, whole = found[0], whole[0]
    assert_close(found, pick(whole, examples(made, batch), made.case.out_axis))


def assert_close(tree: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), tree, other)
