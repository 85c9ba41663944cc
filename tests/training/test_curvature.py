"""Products with curvature matrices against the matrices written out, and their errors."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from renga import nets, training

from ..optim.trees import assert_close

X = np.sin(np.arange(18.0)).reshape(6, 3)
BATCH = {"x": X, "label": np.arange(6) % 2, "y": np.cos(3 * X[:, :2]), "bit": (X[:, :2] > 0).astype(np.float64)}
NET = nets.mlp(4, 2, activation=jnp.tanh)


def outputs_fn(params: Any, batch: Any, key: Any = None) -> jax.Array:
    return NET.apply(params, batch["x"])


def cross_entropy(outputs: jax.Array, batch: Any, key: Any = None) -> jax.Array:
    return training.cross_entropy(outputs, batch["label"])


def squared_error(outputs: jax.Array, batch: Any, key: Any = None) -> jax.Array:
    return training.squared_error(outputs, batch["y"])


def bits(outputs: jax.Array, batch: Any, key: Any = None) -> jax.Array:
    return training.binary_cross_entropy(outputs, batch["bit"])


def loss_fn(params: Any, batch: Any, key: Any = None) -> jax.Array:
    return cross_entropy(outputs_fn(params, batch), batch)


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


def start() -> tuple[Any, Any]:
    """Parameters and a vector like them."""
    params = NET.init(jax.random.key(0), X)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    return wide, jax.tree.map(lambda leaf: jnp.sin(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), wide)


def flat(function: Callable[[Any], Any], params: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    vector, unravel = ravel_pytree(params)
    return vector, lambda vector: function(unravel(vector))


def written_out(outputs: Callable[[Any], jax.Array], output_loss: Callable[[jax.Array], jax.Array], params: Any) -> Any:
    """`J.T @ H @ J`, by hand."""
    vector, function = flat(lambda params: outputs(params).ravel(), params)
    rows = jax.jacrev(function)(vector)
    shape = outputs(params).shape
    curve = jax.hessian(lambda ravelled: output_loss(ravelled.reshape(shape)))(function(vector))
    return rows.T @ curve @ rows


def assert_product(found: Any, matrix: jax.Array, vector: Any) -> None:
    np.testing.assert_allclose(ravel_pytree(found)[0], matrix @ ravel_pytree(vector)[0], rtol=1e-9, atol=1e-12)


def test_a_hessian_vector_product_equals_the_hessian_and_a_finite_difference():
    params, vector = start()
    found = jax.jit(training.hvp(loss_fn))(params, vector, BATCH, None)
    x, function = flat(lambda params: loss_fn(params, BATCH), params)
    assert_product(found, jax.hessian(function)(x), vector)
    grad, v = jax.grad(function), ravel_pytree(vector)[0]
    difference = (grad(x + 1e-5 * v) - grad(x - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(ravel_pytree(found)[0], difference, rtol=1e-6, atol=1e-9)


def test_a_hessian_vector_product_goes_through_an_lstm():
    net = nets.serial(nets.rnn(nets.lstm_cell(2)), nets.linear(1))
    x = X[None]
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), net.init(jax.random.key(0), x))
    loss = lambda params: jnp.mean(net.apply(params, x) ** 2)  # noqa: E731
    vector = jax.tree.map(jnp.ones_like, params)
    here, function = flat(loss, params)
    difference = (
        jax.grad(function)(here + 1e-5 * jnp.ones_like(here)) - jax.grad(function)(here - 1e-5 * jnp.ones_like(here))
    ) / 2e-5
    np.testing.assert_allclose(ravel_pytree(training.hvp(loss)(params, vector))[0], difference, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("output_loss", [cross_entropy, squared_error, bits])
def test_a_gauss_newton_product_equals_the_matrix_by_hand(output_loss):
    params, vector = start()
    matrix = written_out(lambda p: outputs_fn(p, BATCH), lambda outputs: output_loss(outputs, BATCH), params)
    assert_product(jax.jit(training.ggn_vp(outputs_fn, output_loss))(params, vector, BATCH, None), matrix, vector)


def test_gauss_newton_is_the_hessian_for_a_linear_network_with_squared_error():
    net = nets.linear(2)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), net.init(jax.random.key(0), X))
    vector = jax.tree.map(jnp.ones_like, params)
    outputs = lambda params, batch: net.apply(params, batch["x"])  # noqa: E731
    ggn = training.ggn_vp(outputs, squared_error)(params, vector, BATCH)
    hessian = training.hvp(lambda params, batch: squared_error(outputs(params, batch), batch))(params, vector, BATCH)
    assert_close(ggn, hessian, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("family", "output_loss", "times"),
    [("categorical", cross_entropy, 1), ("bernoulli", bits, 2), ("normal", squared_error, 1)],
)
def test_the_fisher_product_is_the_gauss_newton_product_of_the_matching_loss(family, output_loss, times):
    params, vector = start()
    found = jax.jit(training.fisher_vp(outputs_fn, family))(params, vector, BATCH, None)
    wanted = training.ggn_vp(outputs_fn, output_loss)(params, vector, BATCH, None)
    assert_close(found, jax.tree.map(lambda leaf: times * leaf, wanted), rtol=1e-9, atol=1e-12)


def test_the_fisher_matrix_is_the_expectation_over_what_the_model_draws():
    params, vector = start()
    x, function = flat(lambda params: outputs_fn(params, BATCH), params)
    scores = jax.jacrev(lambda x: jax.nn.log_softmax(function(x)))(x)
    matrix = jnp.einsum("nc,nci,ncj->ij", jax.nn.softmax(function(x)), scores, scores) / len(X)
    assert_product(training.fisher_vp(outputs_fn)(params, vector, BATCH), matrix, vector)


def test_the_empirical_fisher_product_equals_a_loop_over_examples():
    params, vector = start()
    matrix = 0.0
    for index in range(len(X)):
        example = jax.tree.map(lambda leaf, index=index: leaf[index : index + 1], BATCH)
        x, function = flat(lambda params, example=example: loss_fn(params, example), params)
        slope = jax.grad(function)(x)
        matrix += jnp.outer(slope, slope) / len(X)
    found = jax.jit(training.empirical_fisher_vp(loss_fn))(params, vector, BATCH, None)
    assert_product(found, jnp.asarray(matrix), vector)


PRODUCTS = {
    "hvp": training.hvp(loss_fn),
    "ggn_vp": training.ggn_vp(outputs_fn, cross_entropy),
    "fisher_vp": training.fisher_vp(outputs_fn),
    "empirical_fisher_vp": training.empirical_fisher_vp(loss_fn),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_linear_symmetric_and_batch_over_vectors(name):
    params, vector = start()
    product = lambda vector: PRODUCTS[name](params, vector, BATCH)  # noqa: E731
    other = jax.tree.map(jnp.cos, vector)
    dot = lambda a, b: ravel_pytree(a)[0] @ ravel_pytree(b)[0]  # noqa: E731
    np.testing.assert_allclose(dot(other, product(vector)), dot(vector, product(other)), rtol=1e-9)
    both = jax.vmap(product)(jax.tree.map(lambda a, b: jnp.stack([a, b]), vector, other))
    assert_close(jax.tree.map(lambda leaf: leaf[1], both), product(other), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_work_in_lists_and_in_half_the_precision(name):
    params, vector = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start())
    found = PRODUCTS[name](params, jax.tree.map(lambda leaf: leaf.astype(jnp.float64), vector), BATCH)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    assert jax.tree.structure(found) == jax.tree.structure(params)


def test_equal_products_are_equal():
    assert training.hvp(loss_fn) == training.hvp(loss_fn)
    assert hash(training.ggn_vp(outputs_fn, bits)) == hash(training.ggn_vp(outputs_fn, bits))
    assert training.fisher_vp(outputs_fn, "normal") != training.fisher_vp(outputs_fn)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_vector_unlike_the_parameters_is_refused(name):
    params, vector = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    message = (
        f"{name}: expected a vector like params, with shape (3,) at 'b', got shape (2,). "
        "Make it with jax.tree.map over params."
    )
    constant = {
        "hvp": training.hvp(lambda params: params["w"].sum()),
        "ggn_vp": training.ggn_vp(lambda params: params["w"], jnp.sum),
        "fisher_vp": training.fisher_vp(lambda params: params["w"]),
        "empirical_fisher_vp": training.empirical_fisher_vp(lambda params, x: params["w"].sum()),
    }[name]
    args = (jnp.ones(2),) if name == "empirical_fisher_vp" else ()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        constant(params, vector, *args)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ({"w": 1.0}, "with shape () at 'b', got nothing. "),
        ({"w": 1.0, "b": 1.0, "c": 1.0}, "with nothing at 'c', got shape (). "),
        ([1.0, 1.0], "with shape () at 'b', got nothing. "),
    ],
)
def test_a_vector_of_another_structure_is_refused_with_the_path(vector, message):
    message = f"hvp: expected a vector like params, {message}Make it with jax.tree.map over params."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.hvp(lambda params: params["w"] * params["b"])({"w": 1.0, "b": 2.0}, vector)


def test_a_tuple_for_a_list_is_refused():
    message = (
        "hvp: expected a vector like params, PyTreeDef([*]), got PyTreeDef((*,)). "
        "Make it with jax.tree.map over params."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.hvp(lambda params: params[0] ** 2)([1.0], (1.0,))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("hvp", lambda w: training.hvp(lambda w: w)(w, w)),
        ("ggn_vp", lambda w: training.ggn_vp(lambda w: w, lambda outputs: outputs)(w, w)),
        ("empirical_fisher_vp", lambda w: training.empirical_fisher_vp(lambda w, x: w)(w, w, w)),
    ],
)
def test_a_loss_that_is_not_scalar_is_refused(name, call):
    message = f"{name}: expected loss_fn to return a scalar, got shape (2,). Take its mean."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}(\n|$)"):  # JAX may add a note on tracebacks
        call(jnp.ones(2))


def test_an_unknown_family_is_refused():
    message = "fisher_vp: expected family to be one of ['bernoulli', 'categorical', 'normal'], got 'poisson'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.fisher_vp(outputs_fn, "poisson")  # pyright: ignore[reportArgumentType]
