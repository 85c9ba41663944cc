"""Losses of generators and critics against sums by hand and torch's functions; penalties against finite differences."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training

REAL, FAKE = np.array([0.3, -1.2, 2.0]), np.array([-0.7, 0.1, 1.5])


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything in double precision."""
    with jax.enable_x64(True):
        yield


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


EXPECTED: dict[str, tuple[Any, Any]] = {
    "non_saturating_gan": (-log_sigmoid(FAKE).mean(), -log_sigmoid(REAL).mean() - log_sigmoid(-FAKE).mean()),
    "saturating_gan": (
        log_sigmoid(REAL).mean() + log_sigmoid(-FAKE).mean(), -log_sigmoid(REAL).mean() - log_sigmoid(-FAKE).mean(),
    ),
    "wasserstein_gan": (-FAKE.mean(), FAKE.mean() - REAL.mean()),
    "hinge_gan": (-FAKE.mean(), np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean()),
    "least_squares_gan": (((FAKE - 1) ** 2).mean() / 2, ((REAL - 1) ** 2).mean() / 2 + (FAKE**2).mean() / 2),
    "relativistic_gan": (-log_sigmoid(FAKE - REAL).mean(), -log_sigmoid(REAL - FAKE).mean()),
    "relativistic_average_gan": (
        -log_sigmoid(FAKE - REAL.mean()).mean() - log_sigmoid(-(REAL - FAKE.mean())).mean(),
        -log_sigmoid(REAL - FAKE.mean()).mean() - log_sigmoid(-(FAKE - REAL.mean())).mean(),
    ),
}  # fmt: skip


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", EXPECTED)
def test_losses_are_those_of_their_papers(name: str):
    found = getattr(training, name)(jnp.asarray(REAL), jnp.asarray(FAKE))
    np.testing.assert_allclose(found, EXPECTED[name], rtol=1e-12)


@pytest.mark.parametrize("name", EXPECTED)
def test_losses_and_slopes_of_large_logits_are_finite(name: str):
    loss = lambda logits: sum(getattr(training, name)(logits, -logits))  # noqa: E731
    value, slope = jax.value_and_grad(loss)(jnp.array([300.0, -300.0]))
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(slope))


CRITIC = nets.mlp(7, 1, activation=jnp.tanh)


@pytest.mark.usefixtures("float64")
def test_penalties_are_means_of_slopes_found_by_finite_differences():
    keys = jax.random.split(jax.random.key(0), 4)
    real, fake = (jax.random.normal(key, (5, 3)) for key in keys[:2])
    params = jax.tree.map(lambda leaf: leaf.astype(float), CRITIC.init(keys[2], real))
    critic = lambda x: CRITIC.apply(params, x)  # noqa: E731

    def slopes(x: jax.Array) -> np.ndarray:
        eye = 1e-5 * jnp.eye(3)
        return np.stack([(critic(x + eye[i]) - critic(x - eye[i]))[:, 0] / 2e-5 for i in range(3)], -1)

    share = jax.random.uniform(keys[3], (5, 1), float)
    norms = np.linalg.norm(slopes(share * real + (1 - share) * fake), axis=-1)
    found = training.gradient_penalty(critic, real, fake, keys[3])
    np.testing.assert_allclose(found, ((norms - 1) ** 2).mean(), rtol=1e-7)
    found = training.gradient_penalty(critic, real, fake, keys[3], target=0.0)
    np.testing.assert_allclose(found, (norms**2).mean(), rtol=1e-7)
    np.testing.assert_allclose(training.slope_penalty(critic, real), (slopes(real) ** 2).sum(-1).mean(), rtol=1e-7)


@pytest.mark.parametrize("slope", [1e-4, 300.0])
def test_penalties_of_half_precision_neither_vanish_nor_overflow(slope: float):
    x, critic = jnp.ones((4, 2), jnp.float16), lambda x: slope * x[..., 0]
    found = training.slope_penalty(critic, x)
    np.testing.assert_allclose(found, slope**2, rtol=1e-3)
    found = training.gradient_penalty(critic, x, 0 * x, jax.random.key(0))
    np.testing.assert_allclose(found, (slope - 1) ** 2, rtol=1e-3)


def test_a_flat_critic_has_a_finite_penalty_and_a_finite_slope_of_it():
    def penalty(w: jax.Array) -> jax.Array:
        return training.gradient_penalty(lambda x: x @ w, jnp.ones((4, 2)), jnp.zeros((4, 2)), jax.random.key(0))

    value, slope = jax.value_and_grad(penalty)(jnp.zeros(2))
    assert value == 1
    assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: training.relativistic_gan(jnp.ones(3), jnp.ones(4)),
            "relativistic_gan: expected as many samples as data, got (3,) and (4,)",
        ),
        (
            lambda: training.gradient_penalty(lambda x: x[:, 0], jnp.ones((3, 2)), jnp.ones((4, 2)), jax.random.key(0)),
            "gradient_penalty: expected as many samples as data, got (3, 2) and (4, 2)",
        ),
        (
            lambda: training.slope_penalty(lambda x: x, jnp.ones((3, 2))),
            "slope_penalty: expected critic to return one value an example, got shape (3, 2)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(build: Any, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build()
