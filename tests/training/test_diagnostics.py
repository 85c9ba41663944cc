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
@pytest.mark.parametrize("scales", [[2, 2, 2, 2, 2], [5, 3, 3, 0, 0], [0, 0, 0]])
def test_where_products_leave_a_space_no_more_the_search_goes_on_elsewhere(scales: Any):
    found = training.ritz_values(lambda v: jnp.array(scales) * v, jnp.zeros(len(scales)), jax.random.key(1))
    np.testing.assert_allclose(found.values, scales, atol=1e-12)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_game_that_only_rotates_has_no_values_but_those_of_its_rotation():
    product = zero_sum(lambda p, batch, key: jnp.sum(p["x"] * p["y"]), minimize="x", maximize="y")
    players = {"x": jnp.ones(5), "y": jnp.ones(5)}
    found = training.ritz_values(lambda v: training.field_jvp(product)(players, v), players, jax.random.key(0))
    np.testing.assert_allclose(sorted(np.asarray(found.values), key=np.imag), [-1j] * 5 + [1j] * 5, atol=1e-9)


def test_as_many_numbers_as_a_network_has_do_not_end_the_search():
    scales = jnp.linspace(1.0, 1.1, 2_000_000)
    found = training.ritz_values(lambda v: scales * v, scales, jax.random.key(0), num_steps=3)
    at, _ = np.polynomial.legendre.leggauss(3)  # what three products see of evenly spread values
    np.testing.assert_allclose(found.values, np.sort(1.05 + 0.05 * at)[::-1], rtol=1e-3)


def test_players_in_half_precision_have_their_values():
    scales = jnp.array([1.0, 2.0, 4.0], jnp.bfloat16)
    found = training.ritz_values(lambda v: scales * v, jnp.zeros(3, jnp.bfloat16), jax.random.key(0))
    np.testing.assert_allclose(found.values, [4, 2, 1], rtol=0.02)


def test_complex_players_and_players_that_are_not_there_are_refused():
    message = r"^ritz_values: expected vectors of real numbers, got complex64\. Give both parts as real ones\.$"
    with pytest.raises(TypeError, match=message):
        training.ritz_values(lambda v: v, jnp.zeros(3, jnp.complex64), jax.random.key(0))
    gap = training.duality_gap(GAME, optim.sgd(0.1), 1, minimize="gen", maximize="disc")
    with pytest.raises(
        ValueError, match=r"^duality_gap: expected 'disc' to be one of the players, got \['critic', 'gen'\]$"
    ):
        gap(*some())
    step = training.tracked(training.step(lambda w, batch, key: w**2, optim.sgd(0.1)))
    with pytest.raises(TypeError, match=r"^tracked: expected a dict of players, got ArrayImpl$"):
        step(training.init(jnp.array(1.0), optim.sgd(0.1)), None)


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


def test_steps_that_are_too_long_find_no_gap_below_zero():
    value = zero_sum(lambda p, batch, key: p["x"] ** 2 - p["y"] ** 2, minimize="x", maximize="y")
    gap = training.duality_gap(value, optim.sgd(2.0), 5, minimize="x", maximize="y")
    assert gap({"x": jnp.array(2.0), "y": jnp.array(1.0)}) == 0


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
