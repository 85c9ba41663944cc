"""Distributions of actions against torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga.training import rl

torch = pytest.importorskip("torch")
distributions = torch.distributions

DRAW = np.random.default_rng(0)
LOGITS, MEAN, SCALE = DRAW.normal(size=(4, 3)), DRAW.normal(size=(4, 3)), DRAW.uniform(0.2, 2, size=(4, 3))
NORMAL = distributions.Normal(torch.tensor(MEAN), torch.tensor(SCALE))


def test_a_categorical_is_torchs():
    theirs, actions = distributions.Categorical(logits=torch.tensor(LOGITS)), np.array([0, 2, 1, 1])
    with jax.enable_x64(True):
        ours = rl.categorical(LOGITS)
        np.testing.assert_allclose(ours.log_prob(actions), theirs.log_prob(torch.tensor(actions)), rtol=1e-12)
        np.testing.assert_allclose(ours.entropy(), theirs.entropy(), rtol=1e-6)  # torch clips probabilities


def test_a_normal_is_torchs():
    theirs, actions = distributions.Independent(NORMAL, 1), DRAW.normal(size=(4, 3))
    with jax.enable_x64(True):
        ours = rl.normal(MEAN, SCALE)
        np.testing.assert_allclose(ours.log_prob(actions), theirs.log_prob(torch.tensor(actions)), rtol=1e-12)
        np.testing.assert_allclose(ours.entropy(), theirs.entropy(), rtol=1e-12)


def test_a_tanh_normal_and_its_derivatives_are_torchs():
    transforms = [distributions.TanhTransform(), distributions.AffineTransform(1.0, 4.0)]
    actions = DRAW.uniform(-2.9, 4.9, size=(4, 3))
    mean = torch.tensor(MEAN, requires_grad=True)
    base = distributions.Normal(mean, torch.tensor(SCALE))
    theirs = distributions.Independent(distributions.TransformedDistribution(base, transforms), 1)
    expected = theirs.log_prob(torch.tensor(actions))
    expected.sum().backward()
    with jax.enable_x64(True):

        def log_prob(mean: jax.Array) -> jax.Array:
            return rl.tanh_normal(mean, SCALE, low=-3.0, high=5.0).log_prob(actions)

        np.testing.assert_allclose(log_prob(jnp.asarray(MEAN)), expected.detach(), rtol=1e-9)
        slopes = jax.grad(lambda mean: log_prob(mean).sum())(jnp.asarray(MEAN))
        np.testing.assert_allclose(slopes, mean.grad, rtol=1e-9)
