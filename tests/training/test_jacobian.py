"""Jacobians and Hessians against finite differences and JAX's own functions."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training

from ..optim.trees import assert_close

W = np.sin(np.arange(12.0, dtype=np.float32)).reshape(4, 3)
X = np.array([0.3, -0.2, 0.9], np.float32)
TREE = {"a": np.float32(0.5), "b": [X, np.sin(W)]}


def layer(x: Any, w: Any = W) -> jax.Array:
    return jnp.tanh(w @ x)


def tree_function(tree: Any) -> Any:
    a, (x, w) = tree["a"], tree["b"]
    return {"y": a * jnp.tanh(w @ x), "z": (jnp.sum(w) * a, jnp.outer(x, x))}


def wide(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("chunk", [None, 1, 2, 5, 100])
def test_a_jacobian_of_trees_equals_jaxs_own_in_every_mode_and_chunk(mode, chunk):
    with jax.enable_x64(True):
        x = wide(TREE)
        found = jax.jit(training.jacobian(tree_function, mode=mode, chunk=chunk))(x)
        assert_close(found, jax.jacrev(tree_function)(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [None, 2])
def test_a_hessian_of_trees_equals_jaxs_own(chunk):
    with jax.enable_x64(True):
        x = wide(TREE)
        found = jax.jit(training.hessian(tree_function, chunk=chunk))(x)
        assert_close(found, jax.hessian(tree_function)(x), rtol=1e-12, atol=1e-14)


def test_derivatives_equal_finite_differences():
    with jax.enable_x64(True):
        x, w, eps = wide(X), wide(W), 1e-5
        units = np.eye(3) * eps
        columns = [(layer(x + unit, w) - layer(x - unit, w)) / (2 * eps) for unit in units]
        jacobian = training.jacobian(layer)
        np.testing.assert_allclose(jacobian(x, w), np.stack(columns, -1), rtol=1e-8)
        second = [(jacobian(x + unit, w) - jacobian(x - unit, w)) / (2 * eps) for unit in units]
        np.testing.assert_allclose(training.hessian(layer)(x, w), np.stack(second, -1), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("num_outputs", "num_inputs", "forward"), [(7, 3, True), (3, 7, False), (4, 4, True)])
def test_the_mode_goes_by_the_smaller_side(num_outputs, num_inputs, forward):
    w, x = jnp.ones((num_outputs, num_inputs)), jnp.ones(num_inputs)
    chosen, by_hand = (
        str(jax.make_jaxpr(training.jacobian(layer, mode=mode))(x, w))
        for mode in ("auto", "forward" if forward else "reverse")
    )
    other = str(jax.make_jaxpr(training.jacobian(layer, mode="reverse" if forward else "forward"))(x, w))
    assert chosen == by_hand != other


def test_jacobians_with_respect_to_the_parameters_of_a_network_for_each_example():
    net = nets.mlp(4, 2, activation=jnp.tanh)
    x = jnp.asarray(W)
    params = net.init(jax.random.key(0), x)
    found = jax.vmap(training.jacobian(net.apply), (None, 0))(params, x)
    assert_close(found, jax.jacrev(net.apply)(params, x), rtol=1e-5)


def test_a_jacobian_goes_through_grad_and_closed_over_tracers():
    def total(scale: Any) -> Any:
        return jnp.sum(training.jacobian(lambda x: scale * x**3)(jnp.asarray(X)) ** 2)

    np.testing.assert_allclose(jax.jit(jax.grad(total))(2.0), 2 * 2.0 * np.sum((3 * X**2) ** 2), rtol=1e-5)


def test_equal_jacobians_are_equal():
    assert training.jacobian(layer, chunk=2) == training.jacobian(layer, chunk=2)
    assert hash(training.hessian(layer)) == hash(training.hessian(layer))
    assert training.jacobian(layer) != training.jacobian(layer, mode="reverse")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: training.jacobian(layer, mode="back"),  # pyright: ignore[reportArgumentType]
            ValueError,
            "jacobian: expected mode to be 'auto', 'forward' or 'reverse', got 'back'.",
        ),
        (
            lambda: training.jacobian(layer, chunk=0),
            ValueError,
            "jacobian: expected chunk to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.hessian(layer, chunk=True),
            ValueError,
            "hessian: expected chunk to be an integer of at least 1, got True",
        ),
        (
            lambda: training.jacobian(tree_function)({"a": 1, "b": TREE["b"]}),
            TypeError,
            "jacobian: expected x of floating-point numbers, got int32 at 'a'. Close over what is not differentiated.",
        ),
        (
            lambda: training.hessian(layer)(jnp.arange(3)),
            TypeError,
            "hessian: expected x of floating-point numbers, got int32 at ''. Close over what is not differentiated.",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_complex_outputs_are_refused():
    for transform in (training.jacobian, training.hessian):
        with pytest.raises(
            TypeError, match=r"^jacobian: expected outputs of floating-point numbers, got complex64 at ''"
        ):
            transform(lambda x: jnp.sum(x) * (1 + 2j))(jnp.ones(3))
