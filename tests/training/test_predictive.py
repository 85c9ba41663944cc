"""What ensembles say against loops and closed forms."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import training

LOGITS = np.asarray(jax.random.normal(jax.random.key(0), (4, 3, 5)) * 3)


def test_every_part_of_a_class_prediction_equals_its_definition():
    found = training.predict_classes(LOGITS)
    each = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    mean = each.mean(0)
    entropy = -(mean * np.log(mean)).sum(-1)
    pairs = [LOGITS[i].argmax(-1) != LOGITS[j].argmax(-1) for i, j in itertools.combinations(range(4), 2)]
    np.testing.assert_allclose(found.probs, mean, rtol=1e-5)
    np.testing.assert_allclose(found.variance, each.var(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.entropy, entropy, rtol=1e-5)
    np.testing.assert_allclose(
        found.mutual_information, entropy + (each * np.log(each)).sum(-1).mean(0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(found.disagreement, np.mean(pairs, 0), atol=1e-6)


def test_members_that_say_the_same_disagree_on_nothing():
    found = training.predict_classes(np.stack([LOGITS[0]] * 3))
    np.testing.assert_allclose(found.mutual_information, 0, atol=1e-6)
    np.testing.assert_allclose(found.variance, 0, atol=1e-12)
    np.testing.assert_allclose(found.disagreement, 0, atol=1e-6)


def test_one_member_and_certain_members_give_finite_numbers_and_derivatives():
    certain = jnp.array([[[0.0, -jnp.inf], [1e4, -1e4]]])
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in training.predict_classes(certain))
    slopes = jax.grad(lambda x: training.predict_classes(x).mutual_information.sum())(jnp.array(LOGITS) * 1e3)
    assert bool(jnp.all(jnp.isfinite(slopes)))


def test_the_variance_of_a_mixture_is_that_of_its_draws():
    means, variances = jnp.array([0.0, 3.0]), jnp.array([1.0, 4.0])
    noise = jax.random.normal(jax.random.key(0), (100_000, 2)) * jnp.sqrt(variances) + means
    found = training.predict_values(means, variances)
    np.testing.assert_allclose(found.mean, noise.mean(), atol=0.03)
    np.testing.assert_allclose(found.variance, noise.var(), rtol=0.02)
    np.testing.assert_allclose(training.predict_values(means).variance, 2.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: training.predict_classes(jnp.ones(3)),
            "predict_classes: expected logits [members, ..., classes], got (3,). Stack those of the members.",
        ),
        (
            lambda: training.predict_values(jnp.ones(())),
            "predict_values: expected values [members, ...], got (). Stack the members'.",
        ),
        (
            lambda: training.predict_values(jnp.ones((2, 3)), jnp.ones(2)),
            "predict_values: expected variances of the shape of values, (2, 3), got (2,). Give each member's own.",
        ),
    ],
)
def test_outputs_without_members_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
