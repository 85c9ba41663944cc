"""SOAP against the published algorithm, written out in NumPy."""

import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import optim
from renga.optim import soap

from .trees import assert_close, types


def published(grads: list[np.ndarray], rate: float, frequency: int) -> list[np.ndarray]:
    """The updates of a matrix, as the paper has them and the authors' program begins: algorithm 3 and 4."""
    first, *rest = grads
    (m, n), b, eps = first.shape, 0.95, 1e-8
    left, right = (1 - b) * first @ first.T, (1 - b) * first.T @ first
    ql, qr = (np.linalg.eigh(each)[1][:, ::-1] for each in (left, right))
    mean, square, updates = np.zeros((m, n)), np.zeros((m, n)), [np.zeros((m, n))]
    for t, g in enumerate(rest, start=1):
        turned = ql.T @ g @ qr
        mean, square = b * mean + (1 - b) * g, b * square + (1 - b) * turned**2
        scaled = (ql.T @ mean @ qr / (1 - b**t)) / (np.sqrt(square / (1 - b**t)) + eps)
        updates.append(-rate * ql @ scaled @ qr.T)
        left, right = b * left + (1 - b) * g @ g.T, b * right + (1 - b) * g.T @ g
        if t % frequency == 0:
            by_row = np.argsort(-np.diag(ql.T @ left @ ql))
            by_column = np.argsort(-np.diag(qr.T @ right @ qr))
            square = square[by_row][:, by_column]
            ql, qr = np.linalg.qr(left @ ql[:, by_row])[0], np.linalg.qr(right @ qr[:, by_column])[0]
    return updates


def updates_of(tx: Any, grads: list[Any], params: Any = None) -> list[Any]:
    state, found = tx.init(grads[0] if params is None else params), []
    for g in grads:
        update, state = tx.update(g, state, params)
        found.append(update)
    return found


def random_matrices(num: int, *shape: int, seed: int = 0) -> list[np.ndarray]:
    drawn = np.random.default_rng(seed)
    return [drawn.normal(size=shape) + 1 for _ in range(num)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("frequency", [1, 3])
@pytest.mark.parametrize("shape", [(3, 3), (3, 4), (5, 4)])
def test_updates_of_a_matrix_are_the_published_ones(shape: tuple[int, int], frequency: int):
    grads = random_matrices(9, *shape)
    found = updates_of(soap(0.1, precondition_frequency=frequency), list(map(jnp.asarray, grads)))
    expected = published(grads, 0.1, frequency)
    np.testing.assert_allclose(np.stack(found), np.stack(expected), rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("float64")
def test_the_squares_follow_their_vectors_where_the_order_changes():
    # The second direction overtakes the first.
    grads = [np.diag([3.0, 1.0]) @ g for g in random_matrices(3, 2, 2)] + [
        np.diag([0.1, 9.0]) @ g for g in random_matrices(9, 2, 2, seed=1)
    ]
    found = updates_of(soap(0.1, precondition_frequency=2), list(map(jnp.asarray, grads)))
    np.testing.assert_allclose(np.stack(found), np.stack(published(grads, 0.1, 2)), rtol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(), (4,), (1, 1), (3, 4)])
def test_what_is_not_rotated_is_adams_after_the_first_update(shape: tuple[int, ...]):
    grads = list(map(jnp.asarray, random_matrices(6, *shape)))
    found = updates_of(soap(0.1, 0.9, 0.99, max_precondition_size=2), grads)
    assert not np.any(found[0])
    assert_close(found[1:], updates_of(optim.adam(0.1, 0.9, 0.99), grads[1:]), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_only_short_axes_are_rotated():
    state: Any = soap(0.1, max_precondition_size=3).init({"w": jnp.zeros((3, 4, 1, 2)), "b": jnp.zeros(3)})
    assert [basis.shape for basis in state[0].leaves["w"].bases] == [(3, 3), (2, 2)]
    assert state[0].leaves["b"].bases == ()
    # One rotated axis of two: the published algorithm on one side.
    grads = random_matrices(5, 2, 4)
    one_sided = updates_of(soap(0.1, max_precondition_size=2, precondition_frequency=99), list(map(jnp.asarray, grads)))
    basis = np.linalg.eigh(grads[0] @ grads[0].T)[1]
    turned = updates_of(optim.adam(0.1, 0.95, 0.95), [jnp.asarray(basis.T @ g) for g in grads[1:]])
    np.testing.assert_allclose(np.stack(one_sided[1:]), np.stack([basis @ each for each in turned]), rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_turning_the_space_turns_the_updates():
    grads = random_matrices(6, 3, 3)
    turn = np.linalg.qr(random_matrices(1, 3, 3, seed=5)[0])[0]
    plain, turned = (
        updates_of(soap(0.1, precondition_frequency=2), list(map(jnp.asarray, each)))
        for each in (grads, [turn @ g for g in grads])
    )
    np.testing.assert_allclose(np.stack(turned), np.stack([turn @ each for each in plain]), rtol=1e-6, atol=1e-9)


def test_gradients_of_low_rank_give_updates_without_noise():
    one_sided = np.array([[1.0, 0.5, 0.0], [0.2, -0.3, 0.0], [0.7, 0.1, 0.0]]).T
    grads = [jnp.asarray(one_sided @ g, "float32") for g in random_matrices(8, 3, 2)]
    for update in updates_of(soap(0.1, precondition_frequency=1), grads):
        np.testing.assert_allclose(update[2], 0, atol=1e-5)


def test_weight_decay_shrinks_the_parameters_at_the_rate():
    params = jnp.ones((2, 2))
    (first,) = updates_of(soap(0.1, weight_decay=0.5), [params], params)
    np.testing.assert_allclose(first, -0.05 * params)


def test_it_ends_far_below_adam_where_the_axes_of_the_loss_are_turned():
    keys = jax.random.split(jax.random.key(0), 3)
    left, right, target = (jax.random.normal(key, (8, 8)) for key in keys)
    left, right = (turn * jnp.geomspace(1, 1e-2, 8) @ turn.T for turn in (jnp.linalg.qr(x)[0] for x in (left, right)))

    def loss(params: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(left @ (params - target) @ right))

    def after(constructor: Any, rate: float, num_steps: int = 300) -> float:
        tx = constructor(optim.cosine_decay_schedule(rate, num_steps), 0.95, 0.95)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        params = jnp.zeros((8, 8))
        return loss(jax.lax.scan(step, (params, tx.init(params)), None, num_steps)[0][0]).item()

    best = {constructor: min(after(constructor, rate) for rate in (0.1, 0.3)) for constructor in (soap, optim.adam)}
    assert best[soap] < 0.02 * best[optim.adam]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept_in_single(dtype: str):
    params = {"w": jnp.ones((3, 2), dtype), "b": jnp.ones(2, dtype)}
    tx = soap(0.1, precondition_frequency=1)
    before = tx.init(params)
    updates, after = tx.update(params, before, params)
    assert types(after) == types(before)
    assert types(updates) == types(params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(before)} == {"int32", "float32"}


def test_numbers_may_be_injected():
    tx: Any = optim.inject_hyperparams(optim.soap(0.1))
    params = {"w": jnp.ones((3, 2))}
    state = optim.set_hyperparams(tx.init(params), {"soap/weight_decay": 0.5})
    updates, _ = tx.update(params, state, params)
    np.testing.assert_allclose(updates["w"], -0.1 * 0.5 * params["w"], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_gradients_through_it_are_finite(scale: float):
    def last(size: jax.Array) -> jax.Array:
        tx = soap(0.1, precondition_frequency=2)
        params: Any = jnp.full((3, 2), 0.3)
        state = tx.init(params)
        for _ in range(5):
            updates, state = tx.update(size * params, state, params)
            params = optax.apply_updates(params, updates)
        return jnp.sum(jnp.sin(params))

    assert jnp.isfinite(jax.grad(last)(jnp.asarray(scale)))


def test_it_prints_compares_hashes_and_pickles_as_its_call():
    tx = soap(0.1, precondition_frequency=5)
    assert repr(tx) == "soap(0.1, precondition_frequency=5)"
    assert (tx, hash(tx)) == (soap(0.1, precondition_frequency=5), hash(pickle.loads(pickle.dumps(tx))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": -1.0}, "soap: expected learning_rate of at least 0, got -1.0"),
        ({"b1": 1.0}, "soap: expected b1 of at least 0 and below 1, got 1.0"),
        ({"b2": -0.1}, "soap: expected b2 of at least 0 and below 1, got -0.1"),
        ({"eps": 0.0}, "soap: expected eps above 0, got 0.0"),
        ({"weight_decay": -0.1}, "soap: expected weight_decay of at least 0, got -0.1"),
        ({"precondition_frequency": 0}, "soap: expected precondition_frequency to be an integer of at least 1, got 0"),
        ({"max_precondition_size": 0.5}, "soap: expected max_precondition_size to be an integer of at least 1, got 0."),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: Any, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        soap(**{"learning_rate": 0.1} | arguments)
