"""The noise scale and influence against closed forms, brute force and leaving examples out."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training

KEY = jax.random.key(5)
NET = nets.mlp(5, 2)
DATA = {"x": jax.random.normal(KEY, (12, 3)), "y": jax.random.normal(KEY, (12, 2))}


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    return training.squared_error(NET.apply(params, batch["x"]), batch["y"])


def moments(rows: np.ndarray) -> tuple[float, float]:
    """Unbiased estimates of the squared norm of the mean, and of the trace of the covariance."""
    variance = rows.var(0, ddof=1).sum()
    return float((rows.mean(0) ** 2).sum() - variance / len(rows)), float(variance)


@pytest.mark.parametrize("size", [None, 5])
def test_the_noise_scale_is_that_of_all_gradients_written_out(size):
    params = NET.init(KEY, DATA["x"])
    grads = training.per_example(loss_fn)(params, DATA)
    rows = np.concatenate([np.asarray(leaf).reshape(12, -1) for leaf in jax.tree.leaves(grads)], 1).astype(np.float64)
    squared_norm, variance = moments(rows)
    found = jax.jit(training.gradient_noise_scale(loss_fn, examples_at_once=size))(params, DATA)
    np.testing.assert_allclose(found, (variance / squared_norm, squared_norm, variance), 1e-4)


def test_both_estimates_of_the_noise_scale_are_unbiased():
    def mean_loss(params: jax.Array, batch: jax.Array, key: Any) -> jax.Array:
        return jnp.mean((params - batch) ** 2) / 2

    data = 1.5 + 2.0 * jax.random.normal(KEY, (4000, 8))
    found = jax.jit(jax.vmap(training.gradient_noise_scale(mean_loss), in_axes=(None, 0)))(jnp.array(0.0), data)
    np.testing.assert_allclose(found.squared_norm.mean(), 1.5**2, 0.05)
    np.testing.assert_allclose(found.variance.mean(), 2.0**2, 0.05)


def test_influence_is_what_leaving_an_example_out_does_in_ridge_regression():
    with jax.enable_x64(True):
        keys = jax.random.split(KEY, 3)
        x = jax.random.normal(keys[0], (200, 4), jnp.float64)
        y = x @ jnp.array([1.0, -2.0, 0.5, 3.0]) + jax.random.normal(keys[1], (200,), jnp.float64)
        query = {"x": x[:3] * 1.1, "y": y[:3] + 1}

        def ridge(w: Any, batch: Any, key: Any) -> jax.Array:
            return jnp.mean((batch["x"] @ w - batch["y"]) ** 2) / 2 + 0.05 * w @ w

        def solution(keep: Any) -> jax.Array:
            inner = x[keep].T @ x[keep] / keep.sum() + 0.1 * jnp.eye(4)
            return jnp.linalg.solve(inner, x[keep].T @ y[keep] / keep.sum())

        everything = np.ones(200, bool)
        best = solution(everything)
        scores = jax.jit(training.influence(ridge, training.conjugate_gradient(4)))(best, {"x": x, "y": y}, query)
        left_out = [np.arange(200) != i for i in range(40)]
        moved = jnp.stack([ridge(solution(keep), query, None) - ridge(best, query, None) for keep in left_out])
        # Exact to first order in one over the number of examples.
        np.testing.assert_allclose(scores[:40], moved, rtol=0, atol=0.08 * float(jnp.abs(moved).max()))
        assert np.corrcoef(scores[:40], moved)[0, 1] > 0.999


def test_influence_takes_the_product_with_each_gradient():
    params = NET.init(KEY, DATA["x"])
    query = jax.tree.map(lambda leaf: leaf[:2], DATA)
    scores = training.influence(loss_fn, lambda matvec, b: b)(params, DATA, query)
    slope = jax.grad(loss_fn)(params, query, None)
    grads = training.per_example(loss_fn)(params, DATA)
    products = jax.tree.map(lambda g, s: jnp.sum((g * s).reshape(12, -1), 1), grads, slope)
    np.testing.assert_allclose(scores, sum(jax.tree.leaves(products)) / 12, 1e-5, 1e-7)


def test_a_single_example_has_no_noise_scale():
    message = "gradient_noise_scale: expected two examples or more, got 1"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.gradient_noise_scale(loss_fn)(NET.init(KEY, DATA["x"]), jax.tree.map(lambda leaf: leaf[:1], DATA))


def test_they_print_and_compare_as_their_call():
    assert training.gradient_noise_scale(loss_fn) == training.gradient_noise_scale(loss_fn)
    solver = training.conjugate_gradient(3)
    assert repr(training.influence(loss_fn, solver)) == "influence(loss_fn, conjugate_gradient(3))"
