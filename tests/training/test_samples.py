"""Distances of samples against closed forms and loops."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import training

KEY = jax.random.key(0)


def test_modes_are_counted_with_the_closest_centre():
    centers = jnp.array([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    samples = jnp.array([[0.1, 0.0], [0.45, 0.0], [0.9, 0.1], [1.0, 0.0], [3.0, 3.0]])
    found = training.modes_found(samples, centers, 0.2)
    assert found.counts.tolist() == [1, 2, 0]
    assert found.found == 2
    assert found.near == pytest.approx(3 / 5)
    assert training.modes_found(samples, centers, 0.2, at_least=2).found == 1


def test_the_sliced_distance_of_a_shift_is_its_length_over_the_root_of_the_axes():
    x = jax.random.normal(KEY, (500, 4))
    shift = jnp.array([3.0, 0.0, 0.0, 4.0])
    found = training.sliced_wasserstein(x, x + shift, jax.random.key(1), num_slices=4000)
    assert found == pytest.approx(5 / 2, rel=0.03)
    assert training.sliced_wasserstein(x, x[::-1], KEY) == 0


def test_the_discrepancy_equals_a_loop_and_is_zero_on_average():
    x, y = np.asarray(jax.random.normal(KEY, (6, 2))), np.asarray(jax.random.normal(jax.random.key(1), (5, 2)))
    kernel = lambda a, b: sum(np.exp(-np.sum((a - b) ** 2) / (2 * width**2)) for width in (0.5, 2.0))  # noqa: E731
    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    expected = sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    found = training.maximum_mean_discrepancy(jnp.asarray(x), jnp.asarray(y), bandwidths=(0.5, 2.0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    pairs = jax.random.normal(KEY, (400, 2, 20, 2))
    same = jax.vmap(lambda pair: training.maximum_mean_discrepancy(pair[0], pair[1]))(pairs)
    assert abs(jnp.mean(same)) < 3 * jnp.std(same) / 20


def test_the_frechet_distance_of_gaussians_is_its_closed_form():
    x = jax.random.normal(KEY, (2000, 3))
    x = (x - x.mean(0)) @ jnp.linalg.inv(jnp.linalg.cholesky(jnp.cov(x, rowvar=False))).T  # moments exactly 0 and 1
    scales = jnp.array([2.0, 0.5, 3.0])
    found = training.frechet_distance(x, x * scales + 1.0)
    np.testing.assert_allclose(found, 3 + jnp.sum((scales - 1) ** 2), rtol=1e-4)
    assert training.frechet_distance(x, x) == pytest.approx(0, abs=1e-4)


def test_the_frechet_distance_is_that_of_roots_of_matrices_in_double_precision():
    linalg = pytest.importorskip("scipy.linalg")
    with jax.enable_x64(True):
        mix, other = jax.random.normal(KEY, (2, 5, 5), float)
        x = jax.random.normal(jax.random.key(1), (40, 5), float) @ mix
        y = jax.random.normal(jax.random.key(2), (30, 5), float) @ other + 1
        first, second = (np.cov(np.asarray(z), rowvar=False) for z in (x, y))
        expected = np.sum((np.mean(x, 0) - np.mean(y, 0)) ** 2) + np.trace(first + second)
        expected -= 2 * np.trace(linalg.sqrtm(first @ second)).real
        np.testing.assert_allclose(training.frechet_distance(x, y), expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_fewer_samples_than_features_are_at_no_distance_from_themselves(dtype: Any):
    x = 100 + jax.random.normal(KEY, (20, 64)).astype(dtype)
    assert training.frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-3)
    slope = jax.grad(lambda y: training.frechet_distance(x, y))(x + 1)
    assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: training.modes_found(jnp.ones((3, 2)), jnp.ones((4, 3)), 1.0),
            "modes_found: expected [samples, features] of as many features, got (3, 2) and (4, 3)",
        ),
        (
            lambda: training.sliced_wasserstein(jnp.ones((3, 2)), jnp.ones((4, 2)), KEY),
            "sliced_wasserstein: expected as many samples of as many features, got (3, 2) and (4, 2)",
        ),
        (
            lambda: training.maximum_mean_discrepancy(jnp.ones((1, 2)), jnp.ones((4, 2))),
            "maximum_mean_discrepancy: expected two samples or more of each, got 1 and 4",
        ),
        (
            lambda: training.sliced_wasserstein(jnp.ones(3), jnp.ones(3), KEY),
            "sliced_wasserstein: expected [samples, features] of as many features, got (3,) and (3,)",
        ),
        (
            lambda: training.frechet_distance(jnp.ones((1, 2)), jnp.ones((4, 2))),
            "frechet_distance: expected two samples or more of each, got 1 and 4",
        ),
        (
            lambda: training.frechet_distance(jnp.ones(3), jnp.ones(3)),
            "frechet_distance: expected [samples, features] of as many features, got (3,) and (3,)",
        ),
    ],
)
def test_samples_that_do_not_compare_are_refused(build: Any, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build()
