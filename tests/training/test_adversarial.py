"""Attacks on linear losses, whose worst inputs are known, and training under them."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from renga import nets, optim, training
from renga.training import adversarial, awp, fgsm, pgd

W = jnp.array([3.0, -4.0, 0.0])
X = jax.random.normal(jax.random.key(0), (5, 3))


def linear(x: jax.Array) -> jax.Array:
    return jnp.sum(x @ W)


@pytest.mark.parametrize("random_start", [False, True])
def test_the_worst_of_a_linear_loss_is_a_corner_of_the_box(random_start: bool):
    moved = pgd(0.1, 20, random_start=random_start)(linear, X, jax.random.key(1))
    np.testing.assert_allclose(moved[:, :2], (X + 0.1 * jnp.sign(W))[:, :2], rtol=1e-5)
    assert jnp.all(jnp.abs(moved - X) <= 0.1 + 1e-6)
    np.testing.assert_allclose(fgsm(0.1)(linear, X, None), X + 0.1 * jnp.sign(W), rtol=1e-6)


@pytest.mark.parametrize("random_start", [False, True])
def test_the_worst_of_a_linear_loss_is_along_the_slope_of_the_ball(random_start: bool):
    moved = pgd(0.1, 200, step_size=0.05, norm="l2", random_start=random_start)(linear, X, jax.random.key(1))
    np.testing.assert_allclose(moved, X + 0.1 * W / 5, atol=2e-3)
    np.testing.assert_allclose(jnp.linalg.norm(moved - X, axis=-1), 0.1, rtol=1e-4)


def test_random_starts_fill_the_ball():
    attack = pgd(2.0, 1, step_size=0.0, norm="l2")
    moved = attack(lambda x: jnp.sum(x**2), jnp.zeros((4000, 3)), jax.random.key(0))
    radii = jnp.linalg.norm(moved, axis=-1)
    assert jnp.all(radii <= 2.0 + 1e-5)
    assert jnp.mean(radii < 1) == pytest.approx(1 / 8, abs=0.02)  # the share of the volume


@pytest.mark.parametrize("attack", [fgsm(0.5, bounds=(0.0, 1.0)), pgd(0.5, 5, bounds=(0.0, 1.0))])
def test_bounds_hold(attack: Any):
    moved = attack(linear, jnp.clip(X, 0, 1), jax.random.key(0))
    assert jnp.all((moved >= 0) & (moved <= 1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_where_the_loss_is_flat_nothing_moves_and_nothing_is_nan(norm: Any):
    moved = pgd(0.1, 3, norm=norm, random_start=False)(lambda x: 0.0 * jnp.sum(x), X, None)
    np.testing.assert_array_equal(moved, X)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_small_slopes_are_followed_as_far_as_large_ones(dtype: Any):
    x = jnp.zeros((2, 4), dtype)
    for scale in (1.0, 1e-4 if dtype == jnp.float16 else 1e-25):
        moved = pgd(0.1, 3, norm="l2", random_start=False)(lambda x, scale=scale: jnp.sum(scale * x), x, None)
        np.testing.assert_allclose(moved, 0.05, rtol=2e-3)
    w = awp(0.1)(lambda w: jnp.sum(1e-25 * w), jnp.ones(4))
    np.testing.assert_allclose(w, 1.1, rtol=1e-6)


@pytest.mark.parametrize("attack", [lambda epsilon: fgsm(epsilon), lambda epsilon: pgd(epsilon, 2, random_start=False)])
def test_a_radius_that_is_traced_keeps_the_inputs_in_their_precision(attack: Any):
    x = X.astype(jnp.bfloat16)
    moved = jax.jit(lambda epsilon: attack(epsilon)(lambda x: jnp.sum(x), x, None))(jnp.float32(0.5))
    assert moved.dtype == jnp.bfloat16
    np.testing.assert_array_equal(moved, x + jnp.bfloat16(0.5))
    weights = jax.jit(lambda gamma: awp(gamma, num_steps=2)(jnp.sum, x))(jnp.float32(0.5))
    assert weights.dtype == jnp.bfloat16
    bounded = jax.jit(lambda low: pgd(0.5, 2, random_start=False, bounds=(low, 9.0))(jnp.sum, X, None))(0.0)
    np.testing.assert_allclose(bounded, jnp.clip(X + 0.5, 0, 9), rtol=1e-6)


def test_numpy_inputs_of_double_precision_are_taken_as_jax_takes_them():
    x = np.ones((2, 2))
    for attack in (fgsm(0.5), pgd(0.5, 2, random_start=False)):
        moved = attack(jnp.sum, x, None)  # pyright: ignore[reportArgumentType]
        assert moved.dtype == jnp.float32
        np.testing.assert_array_equal(moved, 1.5)


def test_complex_weights_go_up_the_loss_too():
    away = lambda w: jnp.abs(w[0] - 2j) ** 2  # noqa: E731
    moved = awp(0.1)(away, jnp.array([1.0 + 0j]))
    np.testing.assert_allclose(moved[0], 1 + 0.1 * (1 - 2j) / 5**0.5, rtol=1e-5)


def test_derivatives_through_an_attack_are_finite_where_an_example_has_no_slope():
    def masked(w: jax.Array, batch: Any, key: Any) -> jax.Array:
        return jnp.sum(jnp.tanh(batch["x"] @ w) ** 2 * jnp.array([0.0, 1.0]))

    loss = adversarial(masked, pgd(0.01, 3, norm="l2", random_start=False), through_attack=True)
    slope = jax.grad(lambda x: loss(W, {"x": x}))(X[:2])
    assert jnp.all(jnp.isfinite(slope))
    assert jnp.all(slope[0] == 0)


def square_loss(w: jax.Array, batch: Any, key: Any) -> jax.Array:
    return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)


def test_the_loss_under_attack_of_linear_regression_is_known():
    batch = {"x": X, "y": jnp.zeros(5)}
    found, slope = jax.value_and_grad(adversarial(square_loss, fgsm(0.1)))(W, batch)
    moved = X + 0.1 * jnp.sign(X @ W)[:, None] * jnp.sign(W)
    expected, at = jax.value_and_grad(square_loss)(W, {**batch, "x": moved}, None)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, at, rtol=1e-5)
    np.testing.assert_allclose(found, jnp.mean((jnp.abs(X @ W) + 0.1 * 7) ** 2), rtol=1e-5)


def test_an_attack_on_a_network_with_statistics_leaves_them_to_the_loss():
    net = nets.serial(nets.linear(4), nets.batch_norm(), nets.linear(1))
    params, state = net.init(jax.random.key(0), X)

    def loss_fn(params: Any, state: Any, batch: Any, key: Any) -> Any:
        outputs, state = net.apply(params, state, batch["x"], train=True)
        return jnp.mean((outputs[:, 0] - batch["y"]) ** 2), (state, {"mean": jnp.mean(outputs)})

    tx = optim.sgd(0.1)
    step = jax.jit(training.step(adversarial(loss_fn, pgd(0.1, 3), stateful=True), tx, stateful=True))
    train_state = training.init(params, tx, state=state, key=jax.random.key(1))
    train_state, metrics = step(train_state, {"x": X, "y": jnp.ones(5)})
    assert set(metrics) == {"loss", "mean"}
    changed = jax.tree.map(lambda a, b: jnp.any(a != b), train_state.state, state)
    assert any(jax.tree.leaves(changed))


def test_a_loss_under_attack_is_its_call():
    loss = adversarial(square_loss, pgd(0.1, 5))
    assert repr(loss) == "adversarial(square_loss, pgd(0.1, 5))"
    assert loss == adversarial(square_loss, pgd(0.1, 5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fgsm(-0.1), "fgsm: expected epsilon to be at least 0, got -0.1"),
        (lambda: pgd(-1, 1), "pgd: expected epsilon to be at least 0, got -1"),
        (lambda: pgd(0.1, 1, step_size=-0.1), "pgd: expected step_size to be at least 0, got -0.1"),
        (lambda: pgd(0.1, 1, bounds=(1, 0)), "pgd: expected bounds (low, high) with low below high, got (1, 0)"),
        (lambda: fgsm(0.1, bounds=(1, 1)), "fgsm: expected bounds (low, high) with low below high, got (1, 1)"),
        (lambda: pgd(0.1, 0), "pgd: expected num_steps to be an integer of at least 1, got 0"),
        (lambda: pgd(0.1, 1, norm="l1"), "pgd: expected norm to be one of linf, l2, got 'l1'"),  # pyright: ignore[reportArgumentType]
        (
            lambda: pgd(0.1, 1)(linear, X, None),
            "pgd: expected a key for its random start, got None. Give one, or random_start=False.",
        ),
        (
            lambda: adversarial(square_loss, fgsm(0.1))(W, {"z": X}),
            "adversarial: expected a batch with 'x', got ['z']",
        ),
    ],
)
def test_attacks_that_cannot_be_are_refused(build: Any, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build()


def curved_loss(params: Any, batch: Any, key: Any) -> jax.Array:
    return jnp.mean((jnp.tanh(batch["x"] @ params["w"]) * params["scale"] - batch["y"]) ** 2)


PARAMS = {"w": W / 3, "scale": jnp.array(2.0)}
BATCH = {"x": X, "y": jnp.ones(5)}


def test_one_step_in_one_array_is_sam_of_the_same_radius():
    def of_w(w: jax.Array, batch: Any, key: Any) -> jax.Array:
        return curved_loss({**PARAMS, "w": w}, batch, key)

    w, rho = PARAMS["w"], 0.1 * float(jnp.linalg.norm(PARAMS["w"]))
    found = jax.grad(adversarial(of_w, None, weights=awp(0.1)))(w, BATCH)
    link = optim.sam(rho)

    def grad_fn(params: jax.Array) -> jax.Array:
        return jax.grad(of_w)(params, BATCH, None)

    expected: Any = link.update(grad_fn(w), link.init(w), w, grad_fn=grad_fn)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_every_array_moves_by_its_share_of_its_own_norm():
    moved = awp(0.1, num_steps=4)(lambda params: curved_loss(params, BATCH, None), PARAMS)
    for name, start in PARAMS.items():
        np.testing.assert_allclose(jnp.linalg.norm(moved[name] - start), 0.1 * jnp.linalg.norm(start), 1e-5)
    only = awp(0.1, weights="scale")(lambda params: curved_loss(params, BATCH, None), PARAMS)
    np.testing.assert_array_equal(only["w"], PARAMS["w"])
    assert only["scale"] != PARAMS["scale"]


def test_weights_are_attacked_on_the_inputs_that_were_found():
    found = adversarial(curved_loss, fgsm(0.2), weights=awp(0.1))(PARAMS, BATCH)
    x = fgsm(0.2)(lambda x: curved_loss(PARAMS, {**BATCH, "x": x}, None), X, None)
    worse = {**BATCH, "x": x}
    moved = awp(0.1)(lambda params: curved_loss(params, worse, None), PARAMS)
    np.testing.assert_allclose(found, curved_loss(moved, worse, None), rtol=1e-6)
    assert found > adversarial(curved_loss, fgsm(0.2))(PARAMS, BATCH) > curved_loss(PARAMS, BATCH, None)


def test_weights_where_the_loss_is_flat_stay_and_nothing_is_nan():
    flat = adversarial(lambda params, batch, key: 0.0 * jnp.sum(params), None, weights=awp(0.1, num_steps=2))
    assert jax.grad(flat)(jnp.zeros(3), None).tolist() == [0, 0, 0]


def test_derivatives_go_through_the_attacks_on_request():
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(float), PARAMS)
        batch = {"x": X.astype(float), "y": jnp.ones(5)}
        attack = pgd(0.1, 3, norm="l2", random_start=False)
        whole = adversarial(curved_loss, attack, weights=awp(0.05, num_steps=2), through_attack=True)
        check_grads(lambda params: whole(params, batch), (params,), order=1, modes=("rev",), rtol=1e-5)
        constant = adversarial(curved_loss, attack, weights=awp(0.05, num_steps=2))
        np.testing.assert_allclose(whole(params, batch), constant(params, batch))
        assert abs(jax.grad(whole)(params, batch)["scale"] - jax.grad(constant)(params, batch)["scale"]) > 1e-4


def refused(message: str) -> Any:
    return pytest.raises(ValueError, match=f"^{re.escape(message)}")


def test_no_attack_at_all_and_weights_that_are_not_there_are_refused():
    with refused("adversarial: expected an attack, on inputs or on weights, got None for both"):
        adversarial(curved_loss, None)
    with refused("awp: expected gamma to be at least 0, got -0.1"):
        awp(-0.1)
    worse = adversarial(curved_loss, None, weights=awp(0.1, weights="**/kernel"))
    with refused("awp: weights: expected a pattern that matches a path, got '**/kernel'. There are"):
        worse(PARAMS, BATCH)
