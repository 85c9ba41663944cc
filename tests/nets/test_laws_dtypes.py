"""Parameters are float32, outputs follow the inputs, half precision is close to single: for every network."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from .kit import KEY, variables
from .made import Made, cast, distance, is_float, over


def dtypes(tree: Any) -> set[str]:
    """Of the floating leaves."""
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree) if is_float(leaf)}


def eps(dtype: str) -> float:
    return float(jnp.finfo(dtype).eps)


def assert_follows(made: Made, found: Any, dtype: str) -> None:
    """That the outputs are of this dtype where the first input is, and the state is in single precision."""
    y, state = found if len(made.variables) == 2 else (found, {})
    assert dtypes(y) <= {dtype if is_float(jax.tree.leaves(made.inputs)[0]) else "float32"}
    assert dtypes(state) <= {"float32"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_parameters_and_state_are_in_single_precision_for_inputs_in_any(made: Made, dtype: str):
    with jax.enable_x64(dtype == "float64"):
        inputs, arrays = cast((made.inputs, made.arrays), dtype)
        init = functools.partial(variables, made.net, **made.flags)
        assert dtypes(jax.eval_shape(init, KEY, *inputs, **arrays)) <= {"float32"}


@over("dtypes")
@pytest.mark.parametrize("train", [False, True])
def test_outputs_are_in_double_precision_where_inputs_are(made: Made, train: bool):
    with jax.enable_x64(True):
        inputs, arrays = cast((made.inputs, made.arrays), "float64")
        apply = functools.partial(made.net.apply, key=KEY, train=train, **made.flags)
        assert_follows(made, jax.eval_shape(apply, *made.variables, *inputs, **arrays), "float64")


@over("half")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_outputs_in_half_precision_are_close_to_those_in_single(made: Made, dtype: str):
    inputs, arrays = cast((made.inputs, made.arrays), dtype)
    found = made.jitted(*made.variables, *inputs, **arrays, **made.flags)
    assert_follows(made, found, dtype)
    inputs, arrays = cast((inputs, arrays), "float32")
    # Each of some layers rounds by half an eps.
    assert distance(found, made.jitted(*made.variables, *inputs, **arrays, **made.flags)) < 4 * eps(dtype)


@over("half gradients")
def test_gradients_in_half_precision_are_close_to_those_in_single(made: Made):
    rounded = cast((made.inputs, made.arrays), "bfloat16")
    train = not made.case.draws
    found, grads = made.graded(made.variables, *rounded, train=train)
    assert_follows(made, found if len(made.variables) == 2 else found[0], "bfloat16")
    assert dtypes(grads[0]) <= {"float32"}
    assert dtypes(grads[1]) <= {"bfloat16"}
    _, expected = made.graded(made.variables, *cast(rounded, "float32"), train=train)
    # A gradient may also take another branch of a kink, or of a maximum.
    assert distance(grads, expected) < 16 * eps("bfloat16")
