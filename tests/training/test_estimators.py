"""Estimated gradients: without bias on a quadratic, as losses, and their errors."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim, training

A = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 3.0]], np.float32)
PARAMS = {"w": jnp.array([1.0, -2.0]), "b": [jnp.array(0.5)]}
KEY = jax.random.key(0)


def quadratic(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
    x = jnp.concatenate([params["w"], params["b"][0][None]])
    return 0.5 * x @ jnp.asarray(A) @ x + (0 if batch is None else batch @ x)


def stepped(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
    return jnp.sum(jnp.floor(10 * params["w"]) ** 2) + 0 * params["b"][0]


ESTIMATES = {
    "forward_gradient": training.forward_gradient(quadratic, num_probes=2),
    "evolution_strategies": training.evolution_strategies(quadratic, scale=0.1, num_pairs=2),
    "evolution_strategies, one pair at a time": training.evolution_strategies(
        quadratic, scale=0.1, num_pairs=2, pairs_at_once=1
    ),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_mean_gradient_on_a_quadratic_is_the_gradient_within_three_sigma(name):
    batch = jnp.array([0.3, -1.0, 2.0])
    draw = jax.jit(jax.vmap(lambda key: jax.grad(ESTIMATES[name])(PARAMS, batch, key)))
    drawn = draw(jax.random.split(KEY, 4000))
    exact = jax.grad(quadratic)(PARAMS, batch, None)
    for draws, wanted in zip(jax.tree.leaves(drawn), jax.tree.leaves(exact), strict=True):
        assert np.all(abs(draws.mean(0) - wanted) < 3 * draws.std(0) / np.sqrt(4000))
        assert np.all(draws.std(0) > 0)


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_value_is_that_of_the_loss(name):
    np.testing.assert_allclose(ESTIMATES[name](PARAMS, None, KEY), quadratic(PARAMS, None, None), rtol=1e-6)


def test_a_forward_gradient_never_points_uphill():
    loss = training.forward_gradient(quadratic)
    exact = jax.grad(quadratic)(PARAMS, None, None)
    drawn = jax.vmap(lambda key: jax.grad(loss)(PARAMS, None, key))(jax.random.split(KEY, 100))
    along = drawn["w"] @ exact["w"] + drawn["b"][0] * exact["b"][0]
    assert jnp.all(along >= 0)


def test_pairs_at_once_change_nothing():
    one, both = (ESTIMATES[name] for name in list(ESTIMATES)[1:])
    for a, b in zip(*(jax.tree.leaves(jax.grad(loss)(PARAMS, None, KEY)) for loss in (one, both)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_evolution_strategies_estimate_the_gradient_of_a_smoothed_staircase():
    loss = training.evolution_strategies(stepped, scale=0.3, num_pairs=4000)
    found = jax.jit(jax.grad(loss))(PARAMS, None, KEY)
    np.testing.assert_allclose(found["w"], 200 * PARAMS["w"] - 10, rtol=0.15)  # of the mean of floor(x)^2, (x - 1/2)^2
    assert not np.any(jax.grad(stepped)(PARAMS, None, None)["w"])


@pytest.mark.parametrize("name", ["forward_gradient", "evolution_strategies"])
def test_a_step_descends_by_estimates(name):
    tx = optim.sgd(0.05)
    train_state = training.init(PARAMS, tx, key=KEY)
    step = jax.jit(training.step(ESTIMATES[name], tx))
    for _ in range(200):
        train_state, _ = step(train_state, None)
    assert quadratic(train_state.params, None, None) < 0.05 * quadratic(PARAMS, None, None)


def test_the_loss_and_the_probes_have_keys_of_their_own():
    noise = lambda w, batch, key: jnp.sum(w * jax.random.normal(key, w.shape))  # noqa: E731
    loss_key, _ = jax.random.split(KEY)
    for estimate in (
        training.forward_gradient(noise, num_probes=3000),
        training.evolution_strategies(noise, scale=0.1, num_pairs=3000),
    ):
        found = jax.grad(estimate)(PARAMS["w"], None, KEY)
        np.testing.assert_allclose(found, jax.random.normal(loss_key, (2,)), atol=0.15)


def test_gradients_keep_the_dtype_of_the_parameters():
    halved = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    for loss in ESTIMATES.values():
        assert {leaf.dtype for leaf in jax.tree.leaves(jax.grad(loss)(halved, None, KEY))} == {jnp.dtype("bfloat16")}


def test_equal_estimates_are_equal():
    assert training.forward_gradient(quadratic, num_probes=2) == ESTIMATES["forward_gradient"]
    assert hash(training.forward_gradient(quadratic)) != hash(ESTIMATES["forward_gradient"])
    assert repr(ESTIMATES["evolution_strategies"]).startswith("evolution_strategies(")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: training.forward_gradient(quadratic, num_probes=0),
            "forward_gradient: expected num_probes to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.evolution_strategies(quadratic, scale=0.0, num_pairs=1),
            "evolution_strategies: expected scale above 0, got 0.0.",
        ),
        (
            lambda: training.evolution_strategies(quadratic, scale=0.1, num_pairs=0),
            "evolution_strategies: expected num_pairs to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.evolution_strategies(quadratic, scale=0.1, num_pairs=2, pairs_at_once=0),
            "evolution_strategies: expected pairs_at_once to be an integer of at least 1, got 0",
        ),
        (
            lambda: ESTIMATES["forward_gradient"](PARAMS, None, None),
            "forward_gradient: expected a key, got None. Give one to training.init(params, tx, key=key).",
        ),
        (
            lambda: ESTIMATES["evolution_strategies"](PARAMS, None, None),
            "evolution_strategies: expected a key, got None. Give one to training.init(params, tx, key=key).",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("name", ["forward_gradient", "evolution_strategies"])
def test_a_loss_that_is_not_scalar_is_refused(name):
    options = {} if name == "forward_gradient" else {"scale": 0.1, "num_pairs": 2}
    loss = getattr(training, name)(lambda w, batch, key: w, **options)
    message = f"{name}: expected loss_fn to return a scalar, got shape (2,). Take its mean."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}(\n|$)"):  # JAX may add a note on tracebacks
        loss(PARAMS["w"], None, KEY)


@pytest.mark.parametrize("name", ["forward_gradient", "evolution_strategies"])
def test_complex_parameters_are_refused(name):
    options = {"scale": 0.1, "num_pairs": 2} if name == "evolution_strategies" else {}
    loss = getattr(training, name)(lambda w, batch, key: jnp.abs(w) ** 2, **options)
    with pytest.raises(TypeError, match=rf"^{name}: expected real parameters, got complex64 at ''\. Take real and "):
        jax.grad(loss)(jnp.array(1j), None, jax.random.key(0))
