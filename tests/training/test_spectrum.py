"""Lanczos, quadrature and random probes against dense matrices."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from renga import nets, training

LIKE = {"b": jnp.zeros(3), "w": jnp.zeros((3, 4))}
KEY = jax.random.key(0)


def matrix_of(eigenvalues: np.ndarray, seed: int = 0) -> np.ndarray:
    """A symmetric matrix of given eigenvalues."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return (q * eigenvalues) @ q.T


def matvec_of(matrix: np.ndarray, like: Any) -> Any:
    """Products with a matrix, of trees."""
    unravel = ravel_pytree(like)[1]
    return lambda vector: unravel(jnp.asarray(matrix) @ ravel_pytree(vector)[0])


def wide(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def test_eigenvalues_of_a_networks_hessian_equal_those_of_the_matrix_written_out():
    with jax.enable_x64(True):
        x = np.sin(np.arange(24.0)).reshape(8, 3)
        net = nets.mlp(3, 1, activation=jnp.tanh)
        params = wide(net.init(KEY, x))
        loss = lambda params: jnp.mean((net.apply(params, x) - np.cos(3 * x[:, :1])) ** 2)  # noqa: E731
        flat, unravel = ravel_pytree(params)
        dense = np.linalg.eigh(jax.hessian(lambda flat: loss(unravel(flat)))(flat))
        hvp = training.hvp(loss)
        find = jax.jit(lambda params: training.top_eigenvalues(lambda v: hvp(params, v), params, KEY, num=16))
        found = find(params)
        np.testing.assert_allclose(found.values, dense[0][::-1], rtol=1e-9, atol=1e-12)
        top = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], found.vectors))[0]
        np.testing.assert_allclose(abs(top @ dense[1][:, -1]), 1, rtol=1e-9)


def test_few_steps_find_the_top_of_a_large_matrix_and_say_how_well():
    with jax.enable_x64(True):
        eigenvalues = np.concatenate([np.linspace(-1, 1, 197), [3.0, 5.0, 9.0]])
        matrix = matrix_of(eigenvalues)
        found = training.top_eigenvalues(lambda v: matrix @ v, jnp.zeros(200), KEY, num=3, num_steps=30)
        np.testing.assert_allclose(found.values, [9, 5, 3], rtol=1e-8)
        residuals = np.linalg.norm(matrix @ found.vectors.T - found.vectors.T * found.values, axis=0)
        np.testing.assert_allclose(found.residuals, residuals, atol=1e-10)
        coarse = training.top_eigenvalues(lambda v: matrix @ v, jnp.zeros(200), KEY, num=2, num_steps=6)
        distances = [min(abs(eigenvalues - value)) for value in coarse.values]
        assert all(distance <= bound + 1e-12 for distance, bound in zip(distances, coarse.residuals, strict=True))


def test_eigenvectors_stay_orthonormal_in_half_the_precision():
    matrix = matrix_of(np.concatenate([[1e3], np.geomspace(1e-3, 1, 99)])).astype(np.float32)
    found = training.top_eigenvalues(lambda v: jnp.asarray(matrix) @ v, jnp.zeros(100), KEY, num=60, num_steps=60)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(60), atol=1e-4)
    np.testing.assert_allclose(found.values[0], 1e3, rtol=1e-5)


def test_eigenvalues_that_repeat_are_found_each_time():
    with jax.enable_x64(True):
        matrix = matrix_of(np.array([2.0, 2.0, 2.0, 1.0, 1.0, 0.0]))
        found = training.top_eigenvalues(lambda v: jnp.asarray(matrix) @ v, jnp.zeros(6), KEY, num=6)
        np.testing.assert_allclose(found.values, [2, 2, 2, 1, 1, 0], atol=1e-9)
        zero = training.top_eigenvalues(lambda v: 0 * v, jnp.zeros(4), KEY, num=4)
        np.testing.assert_array_equal(zero.values, np.zeros(4))


def test_a_full_spectral_density_has_the_moments_of_its_vectors():
    with jax.enable_x64(True):
        eigenvalues = np.linspace(-1, 2, 15)
        matrix, like = matrix_of(eigenvalues), wide(LIKE)
        spectrum = training.spectral_density(matvec_of(matrix, like), like, KEY, num_steps=15, num_draws=2)
        np.testing.assert_allclose(spectrum.nodes, np.stack([eigenvalues] * 2), atol=1e-9)
        np.testing.assert_allclose(spectrum.weights.sum(-1), 1, rtol=1e-12)
        for order in range(4):
            by_hand = jnp.mean(jnp.sum(spectrum.weights * eigenvalues**order, -1))
            np.testing.assert_allclose(spectrum.moment(order), by_hand, rtol=1e-9, atol=1e-12)


def test_few_steps_have_the_exact_moments_of_a_full_run():
    with jax.enable_x64(True):
        matrix = matrix_of(np.linspace(-1, 2, 30))
        few, full = (
            training.spectral_density(lambda v: jnp.asarray(matrix) @ v, jnp.zeros(30), KEY, num_steps=steps)
            for steps in (4, 30)
        )
        for order in range(8):
            np.testing.assert_allclose(few.moment(order), full.moment(order), rtol=1e-9, atol=1e-12)


def test_moments_over_many_draws_are_the_traces_of_powers():
    eigenvalues = np.linspace(-1, 2, 30)
    matrix = jnp.asarray(matrix_of(eigenvalues), jnp.float32)
    spectrum = training.spectral_density(lambda v: matrix @ v, jnp.zeros(30), KEY, num_steps=5, num_draws=400)
    for order in (1, 2, 3):
        of_draws = jnp.sum(spectrum.weights * spectrum.nodes**order, -1)
        error = np.std(of_draws) / np.sqrt(400)
        assert abs(spectrum.moment(order) - np.mean(eigenvalues**order)) < 4 * error


def test_a_density_integrates_to_one_and_peaks_at_the_eigenvalues():
    spectrum = training.Spectrum(jnp.array([[0.0, 2.0]]), jnp.array([[0.25, 0.75]]))
    at = jnp.linspace(-2, 4, 601)
    density = spectrum.density(at, 0.1)
    np.testing.assert_allclose(jnp.sum(density) * 0.01, 1, rtol=1e-3)
    assert at[jnp.argmax(density)] == pytest.approx(2, abs=1e-5)


def test_the_diagonal_of_a_tree_is_exact():
    matrix = matrix_of(np.linspace(-1, 2, 15)).astype(np.float32)
    found = jax.jit(lambda: training.diagonal(matvec_of(matrix, LIKE), LIKE))()
    np.testing.assert_allclose(ravel_pytree(found)[0], np.diag(matrix), rtol=1e-6)
    assert jax.tree.structure(found) == jax.tree.structure(LIKE)


def test_probes_estimate_diagonal_and_trace_without_bias_and_with_the_known_variance():
    matrix = matrix_of(np.linspace(-1, 2, 15)).astype(np.float32)
    estimate = lambda key: training.diagonal_estimate(matvec_of(matrix, LIKE), LIKE, key, num_probes=4)  # noqa: E731
    found = jax.jit(jax.vmap(lambda key: ravel_pytree(estimate(key))[0]))(jax.random.split(KEY, 500))
    sigma = np.sqrt((np.sum(matrix**2, -1) - np.diag(matrix) ** 2) / 4)
    assert np.all(abs(found.mean(0) - np.diag(matrix)) < 4 * sigma / np.sqrt(500))
    np.testing.assert_allclose(found.std(0), sigma, rtol=0.15)
    trace = training.trace_estimate(matvec_of(matrix, LIKE), LIKE, KEY, num_probes=4)
    np.testing.assert_allclose(trace, ravel_pytree(estimate(KEY))[0].sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: training.top_eigenvalues(lambda v: v, jnp.zeros(3), KEY, num=4),
            "top_eigenvalues: expected num of 1 to 3, the lesser of num_steps and the size of like, got 4.",
        ),
        (
            lambda: training.spectral_density(lambda v: v, jnp.zeros(3), KEY, num_draws=0),
            "spectral_density: expected num_draws to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.diagonal_estimate(lambda v: v, jnp.zeros(3), KEY, num_probes=0),
            "diagonal_estimate: expected num_probes to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.trace_estimate(lambda v: v, jnp.zeros(3), KEY, num_probes=1.5),  # pyright: ignore[reportArgumentType]
            "trace_estimate: expected num_probes to be an integer of at least 1, got 1.5",
        ),
    ],
)
def test_counts_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
