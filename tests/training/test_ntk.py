"""The neural tangent kernel, both ways, against Jacobians by hand."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training

from ..optim.trees import assert_close

X = np.sin(np.arange(15.0, dtype=np.float32)).reshape(5, 3)
NET = nets.mlp(4, 2, activation=jnp.tanh)
PARAMS = NET.init(jax.random.key(0), X)
METHODS = ("contraction", "products")


def by_hand(apply: Any, params: Any, x1: Any, x2: Any) -> jax.Array:
    """`J1 @ J2.T`, `[inputs1, inputs2, outputs, outputs]`, of vectors as outputs."""
    rows = [
        [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jax.jacrev(apply)(params, x))] for x in (x1, x2)
    ]
    return sum(jnp.einsum("aip,bjp->abij", *pair) for pair in zip(*rows, strict=True))  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_a_kernel_equals_jacobians_by_hand(method):
    found = jax.jit(training.ntk(NET.apply, method=method))(PARAMS, X[:3], X)
    assert_close(found, by_hand(NET.apply, PARAMS, X[:3], X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_kernel_of_one_set_of_inputs_is_symmetric_and_has_no_negative_eigenvalue(method):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), PARAMS)
        kernel = training.ntk(NET.apply, method=method)(params, X.astype(np.float64))
        matrix = jnp.swapaxes(kernel, 1, 2).reshape(10, 10)
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)
        assert jnp.linalg.eigvalsh(matrix)[0] > -1e-12


@pytest.mark.parametrize("method", METHODS)
def test_outputs_of_several_axes_and_of_none_keep_their_axes(method):
    net = nets.serial(nets.linear(6), lambda x: jnp.tanh(x).reshape(*x.shape[:-1], 2, 3))
    params = net.init(jax.random.key(0), X)
    flat = lambda params, x: net.apply(params, x).reshape(len(x), 6)  # noqa: E731
    kernel = training.ntk(net.apply, method=method)(params, X[:2], X)
    assert_close(kernel, by_hand(flat, params, X[:2], X).reshape(2, 5, 2, 3, 2, 3), rtol=1e-5, atol=1e-5)
    alone = lambda params, x: flat(params, x)[:, 0]  # noqa: E731
    scalar = training.ntk(alone, method=method)(params, X)
    assert_close(scalar, by_hand(lambda p, x: alone(p, x)[:, None], params, X, X)[..., 0, 0], rtol=1e-5, atol=1e-5)


def test_both_ways_agree_for_a_convolutional_network_and_an_lstm():
    images = jax.random.normal(jax.random.key(1), (3, 5, 5, 1))
    sequences = jax.random.normal(jax.random.key(1), (3, 4, 2))
    convolutional = nets.serial(nets.conv(2, 3), jnp.tanh, lambda x: x.mean((-3, -2)), nets.linear(2))
    recurrent = nets.serial(nets.rnn(nets.lstm_cell(3)), lambda x: x[..., -1, :])
    for net, x in ((convolutional, images), (recurrent, sequences)):
        params = net.init(jax.random.key(0), x)
        first, second = (training.ntk(net.apply, method=method)(params, x) for method in METHODS)
        assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_the_cheaper_way_is_chosen_by_shape():
    def chosen(net: nets.Net, x: jax.Array) -> str:
        params = net.init(jax.random.key(0), x)
        program = str(jax.make_jaxpr(training.ntk(net.apply))(params, x))
        return "products" if "scan[" in program else "contraction"

    dense = nets.mlp(8, 10)
    convolutional = nets.serial(nets.conv(8, 3), nets.conv(8, 3), lambda x: x.mean((-3, -2)), nets.linear(2))
    assert chosen(dense, jnp.ones((4, 16))) == "products"
    assert chosen(convolutional, jnp.ones((4, 16, 16, 3))) == "contraction"


def test_equal_kernels_are_equal():
    assert training.ntk(NET.apply) == training.ntk(NET.apply)
    assert hash(training.ntk(NET.apply)) != hash(training.ntk(NET.apply, method="products"))


def test_bad_input_is_refused():
    message = "ntk: expected method to be 'auto', 'contraction' or 'products', got 'fast'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.ntk(NET.apply, method="fast")  # pyright: ignore[reportArgumentType]
    message = "ntk: expected apply to return [5, ...] for inputs [5, ...], got (2,). Keep the axis of inputs in front."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.ntk(lambda params, x: NET.apply(params, x).mean(0))(PARAMS, X)
