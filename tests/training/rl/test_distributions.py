"""Distributions of actions against closed forms, integrals and the frequencies of what is drawn."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from renga.training import rl

KEY = jax.random.key(0)
LOGITS = np.random.default_rng(0).normal(size=(3, 5)) * 2
MASK = np.array([[True, True, False, True, False], [True] * 5, [False, False, False, True, False]])
MEAN, SCALE = np.random.default_rng(1).normal(size=(4, 2)), np.array([0.3, 2.0])
LOW, HIGH = np.array([-1.0, 0.0]), np.array([1.0, 10.0])


def test_a_categorical_has_the_probabilities_and_the_entropy_of_a_softmax():
    probs = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    policy = rl.categorical(LOGITS + 100)
    for action in range(5):
        np.testing.assert_allclose(policy.log_prob(jnp.full(3, action)), np.log(probs[:, action]), rtol=1e-4)
    np.testing.assert_allclose(policy.entropy(), -(probs * np.log(probs)).sum(-1), rtol=1e-4)
    assert policy.mode().tolist() == LOGITS.argmax(-1).tolist()
    many = policy.log_prob(jnp.zeros((7, 3), int))  # actions of more draws stand in front
    np.testing.assert_allclose(many, jnp.broadcast_to(policy.log_prob(jnp.zeros(3, int)), (7, 3)))


def test_illegal_actions_are_never_drawn_and_legal_ones_as_often_as_they_should_be():
    policy = rl.categorical(LOGITS, MASK)
    drawn = np.asarray(jax.vmap(policy.sample)(jax.random.split(KEY, 5000)))
    weights = np.where(MASK, np.exp(LOGITS), 0)
    for row in range(3):
        counts, legal = np.bincount(drawn[:, row], minlength=5), MASK[row]
        assert counts[~legal].sum() == 0
        expected = weights[row, legal] / weights[row].sum() * 5000
        assert len(expected) == 1 or stats.chisquare(counts[legal], expected).pvalue > 1e-3


def test_illegal_actions_have_no_probability_no_entropy_and_no_derivative():
    for dtype in (jnp.float32, jnp.bfloat16):
        logits = jnp.asarray(LOGITS, dtype)

        def terms(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
            policy = rl.categorical(logits, MASK)
            return policy.entropy(), policy.log_prob(jnp.array([0, 1, 3]))

        weights = np.where(MASK, np.exp(LOGITS), 0)
        probs = weights / weights.sum(-1, keepdims=True)
        entropy, log_probs = terms(logits)
        np.testing.assert_allclose(entropy, stats.entropy(probs, axis=-1), rtol=2e-2, atol=1e-6)
        np.testing.assert_allclose(jnp.exp(log_probs), probs[range(3), [0, 1, 3]], rtol=3e-2)
        assert entropy.dtype == log_probs.dtype == jnp.float32
        illegal = rl.categorical(logits, MASK).log_prob(jnp.array([2, 0, 0]))
        assert jnp.exp(illegal)[jnp.array([0, 2])].tolist() == [0, 0]
        slopes = jax.grad(lambda logits: sum(map(jnp.sum, terms(logits))))(logits)
        assert bool(jnp.isfinite(slopes).all())
        assert slopes[~MASK].tolist() == [0.0] * int((~MASK).sum())
    nothing = rl.categorical(jnp.asarray(LOGITS), np.zeros(5, bool))
    np.testing.assert_allclose(nothing.entropy(), np.log(5), rtol=1e-6)


def test_logits_of_minus_infinity_are_illegal_actions():
    logits = jnp.where(MASK, jnp.asarray(LOGITS, jnp.float32), -jnp.inf)
    policy, masked = rl.categorical(logits), rl.categorical(LOGITS, MASK)
    np.testing.assert_allclose(policy.entropy(), masked.entropy(), rtol=1e-6)
    np.testing.assert_allclose(policy.log_prob(jnp.array([2, 0, 3])), masked.log_prob(jnp.array([2, 0, 3])), rtol=1e-6)

    def terms(policy: rl.Categorical) -> jax.Array:
        return jnp.sum(policy.entropy() + policy.log_prob(jnp.array([0, 1, 3])))

    slopes = jax.jit(jax.grad(lambda logits: terms(rl.categorical(logits))))(logits)
    wanted = jax.grad(lambda logits: terms(rl.categorical(logits, MASK)))(jnp.asarray(LOGITS, jnp.float32))
    np.testing.assert_allclose(slopes, wanted, rtol=1e-5, atol=1e-6)
    assert rl.categorical(jnp.array([0.0, 1.0, -jnp.inf]), jnp.array([True, False, True])).entropy() == 0


def test_a_normal_has_the_density_and_the_entropy_of_its_axes_together():
    policy, action = rl.normal(MEAN, SCALE), np.random.default_rng(2).normal(size=(4, 2))
    np.testing.assert_allclose(policy.log_prob(action), stats.norm.logpdf(action, MEAN, SCALE).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), np.full(4, stats.norm.entropy(0, SCALE).sum()), rtol=1e-5)
    np.testing.assert_allclose(policy.mode(), MEAN, rtol=1e-6)
    drawn = np.asarray(jax.vmap(policy.sample)(jax.random.split(KEY, 4000)))
    for axis in range(2):
        assert stats.kstest(drawn[:, 1, axis], "norm", (MEAN[1, axis], SCALE[axis])).pvalue > 1e-3
    slopes = jax.grad(lambda scale: rl.normal(jnp.zeros(2), scale).sample(KEY).sum())(jnp.ones(2))
    np.testing.assert_allclose(slopes, rl.normal(jnp.zeros(2), 1.0).sample(KEY))


def squash(before: Any) -> Any:
    return LOW + (HIGH - LOW) * (1 + np.tanh(before)) / 2


def test_a_tanh_normal_has_the_density_of_a_change_of_variables():
    with jax.enable_x64(True):
        policy = rl.tanh_normal(MEAN, SCALE, low=LOW, high=HIGH)
        before = np.random.default_rng(3).normal(size=(4, 2)) * 2
        slopes = (HIGH - LOW) / 2 / np.cosh(before) ** 2
        expected = (stats.norm.logpdf(before, MEAN, SCALE) - np.log(slopes)).sum(-1)
        np.testing.assert_allclose(policy.log_prob(squash(before)), expected, rtol=1e-10)
        np.testing.assert_allclose(policy.mode(), squash(MEAN), rtol=1e-12)
        action, log_prob = policy.sample_and_log_prob(KEY)
        np.testing.assert_array_equal(action, policy.sample(KEY))
        np.testing.assert_allclose(log_prob, policy.log_prob(action), rtol=1e-8)


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.5])
def test_the_density_of_a_tanh_normal_has_an_integral_of_1_and_the_entropy_that_follows(scale: float):
    with jax.enable_x64(True):
        policy = rl.tanh_normal(np.array([0.4]), scale, low=-2.0, high=5.0)
        before = np.linspace(0.4 - 9 * scale, 0.4 + 9 * scale, 20_001)
        before = before[np.abs(before) < 15]  # the rest of tanh is rounding
        action = -2 + 3.5 * (1 + np.tanh(before))
        density = np.exp(policy.log_prob(jnp.asarray(action)[:, None]))
        assert np.trapezoid(density, action) == pytest.approx(1, abs=1e-5)
        entropy = -np.trapezoid(np.where(density > 0, density * np.log(density + 1e-300), 0), action)
        assert policy.entropy() == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0])
def test_the_entropy_of_a_tanh_normal_is_good_to_1e_6(scale: float):
    mean = np.array([-3.0, 0.0, 0.7, 4.0])
    nodes = np.linspace(-12, 12, 200_001)
    before = mean[:, None] + scale * nodes
    slopes = 2 * (np.log(2) - before - np.logaddexp(0, -2 * before))
    expected = stats.norm.entropy(0, scale) + (slopes * stats.norm.pdf(nodes)).sum(-1) * (nodes[1] - nodes[0])
    with jax.enable_x64(True):
        np.testing.assert_allclose(rl.tanh_normal(mean[:, None], scale).entropy(), expected, rtol=0, atol=1e-6)
    single = rl.tanh_normal(jnp.asarray(mean[:, None], jnp.float32), scale)
    np.testing.assert_allclose(single.entropy(), expected, rtol=1e-5, atol=1e-5)
    slope = jax.grad(lambda scale: single._replace(scale=scale).entropy().sum())(single.scale)
    assert bool(jnp.isfinite(slope).all())


def test_log_densities_next_to_the_bounds_are_exact_in_single_precision():
    mean = jnp.array([[-30.0], [-12.0], [-8.0], [0.0], [8.0], [12.0], [30.0]])
    policy = rl.tanh_normal(mean, 0.5, low=0.0, high=3.0)
    before = np.asarray(rl.normal(mean, 0.5).sample(KEY), np.float64)  # the same draws
    log_slopes = np.log(1.5) + 2 * (np.log(2) - before - np.logaddexp(0, -2 * before))
    expected = stats.norm.logpdf(before, mean, 0.5) - log_slopes
    action, log_prob = policy.sample_and_log_prob(KEY)
    np.testing.assert_allclose(log_prob, expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(action, 1.5 * (1 + np.tanh(before)), rtol=1e-6, atol=1e-6)
    ends = jnp.array([3 - 5e-7, 3 - 3e-6, 1e-12, 1e-5], jnp.float32)[:, None]
    single = rl.tanh_normal(jnp.ones(1), 2.0, low=0.0, high=3.0).log_prob(ends)
    with jax.enable_x64(True):
        double = rl.tanh_normal(jnp.ones(1), 2.0, low=0.0, high=3.0).log_prob(np.asarray(ends, np.float64))
    near = np.asarray(ends)[:, 0] > 1e-7  # closer than a quarter of a rounding error of the range
    np.testing.assert_allclose(single[near], double[near], rtol=1e-5)


def test_actions_rounded_to_a_bound_have_finite_densities_and_derivatives():
    def log_prob(action: jax.Array, mean: jax.Array) -> jax.Array:
        return rl.tanh_normal(mean, 1.0, low=LOW, high=HIGH).log_prob(action)

    for bound in (LOW, HIGH):
        action = jnp.asarray(bound, jnp.float32)
        for mean in (jnp.zeros(2), jnp.full(2, 20.0)):
            assert bool(jnp.isfinite(log_prob(action, mean)))
            slopes = jax.grad(log_prob, (0, 1))(action, mean)
            assert all(bool(jnp.isfinite(slope).all()) for slope in slopes)
    far = rl.tanh_normal(jnp.full((1000, 1), 9.0), 1.0)
    action, exact = far.sample_and_log_prob(KEY)
    assert bool((action <= 1).all())
    assert bool(jnp.isfinite(exact).all())
    assert bool(jnp.isfinite(far.log_prob(action)).all())


def test_what_a_tanh_normal_draws_has_its_distribution():
    policy = rl.tanh_normal(jnp.array([0.3]), 0.8, low=2.0, high=3.0)
    drawn = np.asarray(jax.vmap(policy.sample)(jax.random.split(KEY, 4000)))[:, 0]
    assert stats.kstest(np.arctanh(2 * (drawn.astype(float) - 2) - 1), "norm", (0.3, 0.8)).pvalue > 1e-3


POLICIES: dict[str, tuple[Callable[[Any], rl.Distribution], Any]] = {
    "categorical": (lambda x: rl.categorical(x), jnp.asarray(LOGITS, jnp.float32)),
    "masked categorical": (lambda x: rl.categorical(x, jnp.array([True, True, False, True, True])), jnp.ones((3, 5))),
    "normal": (lambda x: rl.normal(x, 0.5), jnp.asarray(MEAN, jnp.float32)),
    "normal with its own scales": (lambda x: rl.normal(x, jnp.array([0.5, 1.0])), jnp.asarray(MEAN, jnp.float32)),
    "tanh_normal": (lambda x: rl.tanh_normal(x, 0.5, low=LOW, high=HIGH), jnp.asarray(MEAN, jnp.float32)),
}


@pytest.mark.parametrize(("make", "inputs"), POLICIES.values(), ids=POLICIES.keys())
def test_distributions_come_out_of_jit_vmap_and_scan_as_what_they_are(make: Callable[[Any], Any], inputs: jax.Array):
    whole = make(inputs)
    action = whole.sample(KEY)
    for other in (
        jax.jit(make)(inputs),
        jax.jit(jax.vmap(make))(inputs),
        jax.lax.scan(lambda carry, x: (carry, make(x)), 0, inputs)[1],
    ):
        assert type(other) is type(whole)
        np.testing.assert_allclose(other.log_prob(action), whole.log_prob(action), rtol=1e-5)
        np.testing.assert_allclose(other.sample_and_log_prob(KEY)[1], whole.log_prob(action), rtol=1e-4)
        np.testing.assert_allclose(other.entropy(), whole.entropy(), rtol=1e-5)
        np.testing.assert_array_equal(other.mode(), whole.mode())
        np.testing.assert_allclose(other.sample(KEY), action, rtol=1e-6)
    with jax.enable_x64(True):  # single precision stays what it is
        again = make(inputs)
        drawn, log_prob = again.sample_and_log_prob(KEY)
        assert jnp.issubdtype(drawn.dtype, jnp.integer) or drawn.dtype == jnp.float32
        assert log_prob.dtype == again.entropy().dtype == jnp.float32


REFUSED: dict[str, tuple[type[Exception], Callable[[], Any], str]] = {
    "logits without axes": (
        ValueError,
        lambda: rl.categorical(1.0),
        "categorical: expected logits [..., actions], got shape ().",
    ),
    "a mask of numbers": (
        TypeError,
        lambda: rl.categorical(LOGITS, np.ones(5)),
        "categorical: expected mask as Booleans, got float32.",
    ),
    "a mask of other actions": (
        ValueError,
        lambda: rl.categorical(LOGITS, np.ones(4, bool)),
        "categorical: expected mask that broadcasts to logits, (3, 5), got (4,).",
    ),
    "a mask of more": (
        ValueError,
        lambda: rl.categorical(LOGITS[0], MASK),
        "categorical: expected mask that broadcasts to logits, (5,), got (3, 5).",
    ),
    "real actions for integers": (
        TypeError,
        lambda: rl.categorical(LOGITS).log_prob(jnp.ones(3)),
        "Categorical.log_prob: expected integers, got float32.",
    ),
    "actions with an axis too many": (
        ValueError,
        lambda: rl.categorical(LOGITS).log_prob(jnp.ones((3, 1), int)),
        "Categorical.log_prob: expected an action of shape (3,), or further axes in front of it, got (3, 1).",
    ),
    "actions with an axis too few": (
        ValueError,
        lambda: rl.normal(MEAN, 1.0).log_prob(jnp.ones(4)),
        "Normal.log_prob: expected an action of shape (4, 2), or further axes in front of it, got (4,).",
    ),
    "another action": (
        ValueError,
        lambda: rl.tanh_normal(MEAN, 1.0).log_prob(jnp.ones((4, 1))),
        "TanhNormal.log_prob: expected an action of shape (4, 2), or further axes in front of it, got (4, 1).",
    ),
    "a mean without axes": (
        ValueError,
        lambda: rl.normal(0.0, 1.0),
        "normal: expected mean [..., actions], got shape ().",
    ),
    "no scale": (ValueError, lambda: rl.normal(MEAN, 0.0), "normal: expected scale above 0, got 0.0."),
    "other scales": (
        ValueError,
        lambda: rl.tanh_normal(MEAN, np.ones(3)),
        "tanh_normal: expected scale that broadcasts to mean, (4, 2), got (3,).",
    ),
    "other bounds": (
        ValueError,
        lambda: rl.tanh_normal(MEAN, 1.0, high=np.ones(3)),
        "tanh_normal: expected high that broadcasts to mean, (4, 2), got (3,).",
    ),
    "bounds out of order": (
        ValueError,
        lambda: rl.tanh_normal(MEAN, 1.0, low=1.0, high=-1.0),
        "tanh_normal: expected low below high, got 1.0 and -1.0.",
    ),
}


@pytest.mark.parametrize(("error", "call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(error: type[Exception], call: Callable[[], Any], message: str):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("make", [rl.categorical, lambda x: rl.normal(x, 1.0), lambda x: rl.tanh_normal(x, 1.0)])
def test_without_numpyro_the_extra_is_named(make: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "numpyro.distributions", None)
    with pytest.raises(ImportError, match=r"^(categorical|normal|tanh_normal): expected NumPyro, got none\. pip inst"):
        make(jnp.ones(3))


def test_importing_the_package_does_not_import_numpyro():
    program = "import sys, renga.training.rl; assert 'numpyro' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
