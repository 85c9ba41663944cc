"""Diagnostics of games against dense algebra and closed forms."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from renga import nets, optim, training
from renga.training import zero_sum


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything in double precision."""
    with jax.enable_x64(True):
        yield


CRITIC = nets.mlp(3, 1, activation=jnp.tanh)


def value(players: Any, batch: Any, key: Any) -> jax.Array:
    moved = jnp.tanh(batch @ players["gen"])
    return jnp.mean(CRITIC.apply(players["critic"], batch) - CRITIC.apply(players["critic"], moved))


GAME = zero_sum(value, minimize="gen", maximize="critic")


def some() -> tuple[Any, Any]:
    batch = jax.random.normal(jax.random.key(0), (6, 2), float)
    critic = jax.tree.map(lambda leaf: leaf.astype(float), CRITIC.init(jax.random.key(1), batch))
    return {"gen": jnp.array([[0.5, -0.2], [0.1, 0.9]]), "critic": critic}, batch


def dense(players: Any, batch: Any) -> np.ndarray:
    flat, unravel = ravel_pytree(players)
    field = lambda flat: ravel_pytree(optim.oracle(lambda p: GAME(p, batch), unravel(flat)).grads)[0]  # noqa: E731
    return np.asarray(jax.jacobian(field)(flat))


@pytest.mark.usefixtures("float64")
def test_products_are_those_of_the_dense_jacobian():
    players, batch = some()
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(1.0, leaf.size + 1)).reshape(leaf.shape), players)
    found = ravel_pytree(training.field_jvp(GAME)(players, along, batch))[0]
    np.testing.assert_allclose(found, dense(players, batch) @ ravel_pytree(along)[0], rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("float64")
def test_as_many_products_as_numbers_give_all_eigenvalues():
    matrix = jax.random.normal(jax.random.key(0), (9, 9), float)
    found = training.ritz_values(lambda v: matrix @ v, jnp.zeros(9), jax.random.key(1), num_steps=30)
    expected = np.linalg.eigvals(matrix)
    for eigenvalue in np.asarray(found.values):
        assert np.min(np.abs(expected - eigenvalue)) < 1e-9
    assert np.all(found.residuals < 1e-9)


@pytest.mark.usefixtures("float64")
def test_residuals_bound_the_distance_for_a_rotation():
    angles = jnp.linspace(0.1, 3.0, 20)
    turn = lambda v: jnp.stack([angles * v[1], -angles * v[0]])  # noqa: E731
    found = training.ritz_values(turn, jnp.zeros((2, 20)), jax.random.key(1), num_steps=16)
    first = found.values[0]
    assert abs(first.real) < 1e-9
    assert np.min(np.abs(np.concatenate([1j * angles, -1j * angles]) - first)) <= found.residuals[0] + 1e-12
    assert abs(first) == pytest.approx(3.0, abs=1e-2)


@pytest.mark.usefixtures("float64")
def test_a_space_that_products_do_not_leave_ends_the_search():
    found = training.ritz_values(lambda v: 2 * v, jnp.zeros(5), jax.random.key(1), num_steps=5)
    assert jnp.all(jnp.isfinite(found.values))
    assert found.values[0] == pytest.approx(2)


def test_the_gap_of_a_quadratic_game_is_known():
    def quadratic(players: Any, batch: Any, key: Any) -> jax.Array:
        x, y = players["x"], players["y"]
        return jnp.sum(x**2 / 2 + x * y - y**2 / 2)

    gap = training.duality_gap(
        zero_sum(quadratic, minimize="x", maximize="y"), optim.sgd(0.5), 60, minimize="x", maximize="y"
    )
    x, y = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
    np.testing.assert_allclose(gap({"x": x, "y": y}), jnp.sum(x**2 + y**2), rtol=1e-5)  # x^2 + y^2, by hand
    assert gap({"x": jnp.zeros(2), "y": jnp.zeros(2)}) == 0


def test_the_turn_is_nothing_on_a_bowl_and_a_right_angle_on_a_saddle_of_products():
    bowl = training.game({p: lambda players, batch, key, p=p: players[p] ** 2 for p in "xy"})
    players = {"x": jnp.array(3.0), "y": jnp.array(4.0)}
    metrics = training.field_metrics(bowl)(players)
    assert metrics["turn"] == pytest.approx(0, abs=1e-3)
    assert (metrics["norm/x"], metrics["norm/y"], metrics["loss/x"]) == (6, 8, 9)
    still = training.field_metrics(bowl)({"x": jnp.array(0.0), "y": jnp.array(0.0)})
    assert jnp.isfinite(still["turn"])


def test_lengths_of_moves_add_up_to_that_of_a_circle():
    product = zero_sum(lambda p, batch, key: p["x"] * p["y"], minimize="x", maximize="y")
    tx = optim.optimistic_gradient(0.001)
    step = training.tracked(training.step(product, tx))
    train_state = training.init({"x": jnp.array(1.0), "y": jnp.array(0.0)}, tx)
    _, metrics = jax.lax.scan(lambda s, _: step(s, None), train_state, None, 1000)
    lengths = np.hypot(metrics["moved/x"], metrics["moved/y"])
    assert lengths.sum() == pytest.approx(1.0, rel=1e-3)  # one radian
