"""What `oracle` finds and refuses."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import optim, training

PARAMS = {"x": jnp.array([1.0, -2.0]), "y": jnp.array(0.5)}


def loss(params: Any) -> Any:
    return jnp.sum(params["x"] ** 2) * params["y"]


def game(params: Any) -> Any:
    return {"x": loss(params), "y": -(loss(params) ** 2)}


def test_a_loss_its_gradient_and_what_it_returns_beside_are_found():
    found = optim.oracle(lambda params: (loss(params), {"seen": params["y"]}), PARAMS, has_aux=True)
    assert (found.value, found.aux["seen"]) == (2.5, 0.5)
    np.testing.assert_allclose(found.grads["x"], PARAMS["x"])
    np.testing.assert_allclose(found.extra["grad_fn"](PARAMS)["y"], 5.0)
    assert found.extra["value_fn"](PARAMS) == found.extra["value"]


def test_each_player_has_the_gradient_of_its_own_loss():
    grads = optim.oracle(game, PARAMS).grads
    np.testing.assert_allclose(grads["x"], jax.grad(loss)(PARAMS)["x"])
    np.testing.assert_allclose(grads["y"], jax.grad(lambda params: game(params)["y"])(PARAMS)["y"])


def test_what_a_mask_hides_is_filled_in():
    hidden = {"x": optax.MaskedNode(), "y": jnp.array(2.0)}
    extra = optim.oracle(loss, PARAMS).extra
    assert extra["value_fn"](hidden) == 10.0
    grads = extra["grad_fn"](hidden)
    assert grads["y"] == 5.0
    assert isinstance(grads["x"], optax.MaskedNode)


def size(z: Any) -> Any:
    return jnp.sum(jnp.abs(z - (1 - 2j)) ** 2)


def test_complex_gradients_point_where_the_loss_rises():
    z = jnp.array([0.3 + 0.7j, -1.0 - 0.2j])
    np.testing.assert_allclose(optim.oracle(size, z).grads, 2 * (z - (1 - 2j)), rtol=1e-6)
    np.testing.assert_allclose(optim.oracle(size, z).extra["grad_fn"](z), 2 * (z - (1 - 2j)), rtol=1e-6)


@pytest.mark.parametrize("tx", [optim.sgd(0.1), optim.chain(optim.sam(0.01), optim.sgd(0.1)), optim.adam(0.1)])
def test_a_step_of_complex_parameters_descends(tx: Any):
    step = jax.jit(training.step(lambda z, batch, key: size(z), tx))
    train_state = training.init(jnp.array([0.3 + 0.7j]), tx)
    for _ in range(100):
        train_state, _ = step(train_state, None)
    np.testing.assert_allclose(train_state.params, [1 - 2j], atol=0.05)


def test_sam_climbs_on_complex_parameters():
    z = jnp.array([1j])
    found = optim.oracle(lambda z: jnp.sum(jnp.abs(z) ** 2), z)
    tx: Any = optim.sam(0.1)
    updates, _ = tx.update(found.grads, tx.init(z), z, **found.extra)
    np.testing.assert_allclose(updates, [2.2j], rtol=1e-6)


@pytest.mark.parametrize(
    ("loss_fn", "params", "error", "message"),
    [
        (lambda params: params["x"], PARAMS, TypeError, "expected a scalar loss, or a dict of them, got float32 (2,)"),
        (lambda params: {"x": params["x"], "y": 0.0}, PARAMS, TypeError, "expected a scalar loss of the player 'x'"),
        (
            lambda params: {"x": loss(params), "z": loss(params)},
            PARAMS,
            ValueError,
            "oracle: expected parameters of the players ['x', 'z'], got ['x', 'y']. A game's parameters are a dict",
        ),
        (
            lambda params: jnp.sum(params["x"] * 1.0),
            {"x": jnp.arange(3)},
            TypeError,
            "expected parameters of floating-point numbers, got others at x",
        ),
    ],
)
def test_what_is_no_loss_or_no_parameter_is_refused(loss_fn: Any, params: Any, error: Any, message: str):
    with pytest.raises(error, match=re.escape(message)):
        optim.oracle(loss_fn, params)


def complex_game(z: Any) -> Any:
    """Two players of complex numbers, whose losses are no squares of sizes."""
    x, y = z["x"], z["y"]
    first = jnp.sum(jnp.real(x * y) + jnp.abs(x) ** 2 * jnp.imag(y) + jnp.abs(x - 1j) ** 4 / 4)
    return {"x": first, "y": jnp.sum(jnp.abs(y + x) ** 2 - jnp.imag(x * y * y))}


def as_complex(pairs: Any) -> Any:
    return jax.tree.map(lambda pair: jax.lax.complex(pair[0], pair[1]), pairs)


def as_pairs(z: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.stack([leaf.real, leaf.imag]), z)


@pytest.mark.parametrize(
    "tx",
    [
        optim.consensus(0.3),
        optim.symplectic_adjustment(0.3),
        optim.symplectic_adjustment(0.3, align=False),
        optim.lola(0.1),
        optim.lola(0.1, shaping=False),
        optim.sos(0.1),
        optim.competitive(0.1),
        optim.chain(optim.sam(0.1), optim.sgd(0.1)),
        optim.extragradient(optim.sgd(0.1)),
    ],
    ids=repr,
)
def test_a_link_of_complex_players_is_that_of_their_real_and_imaginary_parts(tx: Any):
    z = {"x": jnp.array([0.3 + 0.7j, -0.2j]), "y": jnp.array([-1.0 + 0.4j, 0.5 + 0.1j])}
    found, pairs = optim.oracle(complex_game, z), as_pairs(z)
    expected = optim.oracle(lambda pairs: complex_game(as_complex(pairs)), pairs)
    updates, _ = tx.update(found.grads, tx.init(z), z, **found.extra)
    real, _ = tx.update(expected.grads, tx.init(pairs), pairs, **expected.extra)
    for player, update in as_complex(real).items():
        np.testing.assert_allclose(updates[player], update, rtol=2e-4, atol=1e-5)
