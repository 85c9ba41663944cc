"""Gradients of where inner steps lead, against closed forms and finite differences, whatever way they take back."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import bilevel, conjugate_gradient, implicit, minimize, neumann, unrolled

from ..optim.trees import assert_close


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything in double precision."""
    with jax.enable_x64(True):
        yield


RANDOM = np.random.default_rng(0)
X, VALID_X = (RANDOM.normal(size=(size, 4)).astype(np.float32) for size in (12, 8))
Y, VALID_Y = ((x @ [1.0, -0.5, 0.2, 0.0] + RANDOM.normal(size=len(x))).astype(np.float32) for x in (X, VALID_X))
BATCH = {"x": X, "y": Y}


def ridge(w: Any, penalty: Any, batch: Any, key: Any) -> Any:
    """Half a mean squared error and a penalty whose logarithm is given."""
    return 0.5 * jnp.mean((batch["x"] @ w - batch["y"]) ** 2) + 0.5 * jnp.exp(penalty) * jnp.sum(w**2)


def valid_loss(w: Any) -> Any:
    return 0.5 * jnp.mean((VALID_X @ w - VALID_Y) ** 2)


def ridge_by_hand(penalty: float) -> tuple[Any, Any]:
    """The validation loss at the ridge regression, and its derivative in the logarithm of the penalty."""
    x, valid_x = X.astype(float), VALID_X.astype(float)
    matrix = x.T @ x / 12 + np.exp(penalty) * np.eye(4)
    w = np.linalg.solve(matrix, x.T @ Y / 12)
    rest = valid_x @ w - VALID_Y
    slope = valid_x.T @ rest / 8
    return 0.5 * np.mean(rest**2), -np.exp(penalty) * slope @ np.linalg.solve(matrix, w)


def dense(matvec: Any, b: Any) -> Any:
    """A solver of the user's own, that writes the matrix down."""
    return jnp.linalg.solve(jax.vmap(matvec)(jnp.eye(len(b))), b)


BACKWARD: dict[str, Any] = {
    "unrolled": unrolled(),
    "checkpointed": unrolled(checkpoint=True),
    "truncated": unrolled(truncate=300),
    "conjugate gradient": implicit(conjugate_gradient(4)),
    "neumann": implicit(neumann(300, 0.3)),
    "dense": implicit(dense),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("backward", BACKWARD.values(), ids=BACKWARD.keys())
@pytest.mark.parametrize("tx", [optim.sgd(0.3), optim.sgd(0.1, momentum=0.8)], ids=["sgd", "momentum"])
def test_the_ridge_hypergradient_is_that_of_the_closed_form(backward: Any, tx: Any):
    solve = minimize(ridge, tx, 600, backward=backward)
    found = jax.jit(jax.value_and_grad(lambda penalty: valid_loss(solve(jnp.zeros(4), penalty, BATCH))))(-1.0)
    np.testing.assert_allclose(found, ridge_by_hand(-1.0), rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_an_implicit_gradient_does_not_ask_which_chain_led_to_the_minimum():
    tx = optim.adam(optim.exponential_decay(0.1, 40, 0.7))
    solve = minimize(ridge, tx, 1600, backward=implicit(conjugate_gradient(4)))
    found = jax.jit(jax.value_and_grad(lambda penalty: valid_loss(solve(jnp.zeros(4), penalty, BATCH))))(-1.0)
    np.testing.assert_allclose(found, ridge_by_hand(-1.0), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_neumanns_series_is_truncated_unrolling_at_the_minimum():
    x = X.astype(float)
    start = jnp.linalg.solve(x.T @ x / 12 + np.exp(-1.0) * np.eye(4), x.T @ Y / 12)
    slopes = [
        jax.grad(lambda penalty, solve=solve: valid_loss(solve(start, penalty, BATCH)))(-1.0)
        for solve in (
            minimize(ridge, optim.sgd(0.3), 7, backward=unrolled(truncate=5)),
            minimize(ridge, optim.sgd(0.3), 7, backward=implicit(neumann(5, 0.3))),
        )
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-10)


LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 0, 1, 1, 2, 2])


def logistic(params: Any, decay: Any, batch: Any, key: Any) -> Any:
    """Cross entropy and a penalty of its own for each input."""
    penalty = jnp.sum(jnp.exp(decay["inputs"])[:, None] * params["w"] ** 2) + jnp.sum(params["b"] ** 2)
    return training.cross_entropy(batch["x"] @ params["w"] + params["b"], batch["y"]) + 0.1 * penalty


def outer_logistic(params: Any) -> Any:
    return training.cross_entropy(VALID_X @ params["w"] + params["b"], LABELS[:8])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("backward", ["unrolled", "conjugate gradient", "neumann"])
def test_weight_decay_of_a_logistic_regression_equals_finite_differences(backward: str):
    params = {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}
    ways = BACKWARD | {"conjugate gradient": implicit(conjugate_gradient(15)), "neumann": implicit(neumann(600, 0.5))}
    solve = minimize(logistic, optim.sgd(0.5), 600, backward=ways[backward])

    def loss(decay: Any) -> Any:
        return outer_logistic(solve(params, {"inputs": decay}, {"x": X, "y": LABELS}))

    decay, small = jnp.array([-1.0, 0.0, 0.3, 0.5]), 1e-5
    found = jax.jit(jax.grad(loss))(decay)
    compiled = jax.jit(jax.vmap(loss))
    ahead, behind = (compiled(decay + sign * small * jnp.eye(4)) for sign in (1, -1))
    np.testing.assert_allclose(found, (ahead - behind) / (2 * small), rtol=1e-6)


TANH = nets.mlp(3, 1, activation=jnp.tanh)
INNER: dict[str, Any] = {
    "adam": optim.adam(0.05),
    "momentum": optim.sgd(0.1, momentum=0.9),
    "sam": optim.chain(optim.sam(0.1), optim.sgd(0.1)),
}


def weighted(params: Any, weights: Any, batch: Any, key: Any) -> Any:
    """Squared errors, each with its weight."""
    return jnp.mean(weights * (TANH.apply(params, batch["x"])[:, 0] - batch["y"]) ** 2)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tx", INNER.values(), ids=INNER.keys())
def test_gradients_in_the_numbers_the_batch_and_the_start_equal_finite_differences(tx: Any):
    start = jax.tree.map(lambda leaf: leaf.astype(float), TANH.init(jax.random.key(0), X))
    solve = minimize(weighted, tx, 7, backward=unrolled(checkpoint=True))

    def loss(given: Any) -> Any:
        params, weights, batch = given
        return jnp.mean((TANH.apply(solve(params, weights, batch), VALID_X.astype(float))[:, 0] - VALID_Y) ** 2)

    given = (start, jnp.ones(12), {"x": X.astype(float), "y": Y.astype(float)})
    along = jax.tree.map(lambda leaf: np.cos(np.arange(1.0, leaf.size + 1)).reshape(leaf.shape), given)
    value = jax.jit(lambda t: loss(jax.tree.map(lambda leaf, way: leaf + t * way, given, along)))
    slopes = jax.jit(jax.grad(loss))(given)
    found = sum(jnp.vdot(slope, way) for slope, way in zip(*map(jax.tree.leaves, (slopes, along)), strict=True))
    np.testing.assert_allclose(found, (value(1e-5) - value(-1e-5)) / 2e-5, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_an_implicit_gradient_in_the_batch_equals_finite_differences():
    solve = minimize(ridge, optim.sgd(0.3), 400, backward=implicit(conjugate_gradient(4)))
    loss = jax.jit(lambda y: valid_loss(solve(jnp.zeros(4), -1.0, {"x": X, "y": y})))
    way = np.cos(np.arange(12.0))
    found = jnp.vdot(jax.grad(loss)(Y), way)
    np.testing.assert_allclose(found, (loss(Y + 1e-5 * way) - loss(Y - 1e-5 * way)) / 2e-5, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_a_truncated_gradient_is_that_of_unrolling_from_the_later_start():
    def slope(num_steps: int, start: Any, **options: Any) -> Any:
        solve = minimize(ridge, optim.sgd(0.3), num_steps, backward=unrolled(**options))
        return jax.grad(lambda penalty: valid_loss(solve(start, penalty, BATCH)))(-1.0)

    later = minimize(ridge, optim.sgd(0.3), 4)(jnp.zeros(4), -1.0, BATCH)
    np.testing.assert_allclose(slope(9, jnp.zeros(4), truncate=5), slope(5, later), rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_first_order_leaves_the_numbers_of_the_chain_alone():
    made = lambda hyper: optim.sgd(hyper["rate"])  # noqa: E731
    loss_fn = lambda w, hyper, batch, key: 0.5 * hyper["scale"] * w**2  # noqa: E731
    solve = minimize(loss_fn, made, 2, backward=unrolled(first_order=True))
    found = jax.grad(lambda hyper: solve(3.0, hyper))({"rate": 0.1, "scale": 2.0})
    np.testing.assert_allclose(found["rate"], -(6.0 + 4.8))
    assert found["scale"] == 0


@pytest.mark.usefixtures("float64")
def test_a_chain_may_be_made_of_the_numbers():
    solve = minimize(lambda w, rate, batch, key: 0.5 * w**2, optim.sgd, 3)
    found = jax.value_and_grad(lambda rate: solve(2.0, rate))(0.1)
    np.testing.assert_allclose(found, (2 * 0.9**3, -2 * 3 * 0.9**2))


def test_no_step_leads_nowhere():
    params = {"w": jnp.ones(4)}
    solve = minimize(lambda params, hyper, batch, key: jnp.sum(hyper * params["w"]), optim.adam(0.1), 0)
    assert_close(solve(params, 1.0), params)


@pytest.mark.parametrize("kind", ["unrolled", "conjugate gradient"])
def test_tasks_labels_and_keys_may_be_closed_over_under_vmap_and_jit(kind: str):
    def slope(batch: Any, key: Any) -> Any:
        def noisy(params: Any, decay: Any, _: Any, own: Any) -> Any:
            noise = 0.1 * jax.random.normal(key, params[0]["b"].shape)
            return logistic({"w": params[0]["w"], "b": params[0]["b"] + noise}, decay, batch, own)

        solve = minimize(noisy, optim.sgd(0.5), 30, backward=BACKWARD[kind])
        params = ({"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)},)
        return jax.grad(lambda decay: outer_logistic(solve(params, {"inputs": decay})[0]))(jnp.zeros(4))

    tasks = {"x": jnp.stack([X, X[::-1]]), "y": jnp.stack([LABELS, LABELS])}
    keys = jax.random.split(jax.random.key(0), 2)
    found = jax.jit(jax.vmap(slope))(tasks, keys)
    assert_close(jax.vmap(slope)(tasks, keys), found, rtol=1e-4, atol=1e-6)
    for index in range(2):
        alone = slope(jax.tree.map(lambda leaf, index=index: leaf[index], tasks), keys[index])
        assert_close(found[index], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["unrolled", "conjugate gradient"])
def test_numbers_may_be_closed_over(kind: str):
    def loss(penalty: Any) -> Any:
        inner = lambda w, hyper, batch, key: ridge(w, penalty, batch, key)  # noqa: E731
        return valid_loss(minimize(inner, optim.sgd(0.3), 200, backward=BACKWARD[kind])(jnp.zeros(4), None, BATCH))

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(-1.0), ridge_by_hand(-1.0)[1], rtol=1e-3)


def test_keys_in_the_batch_and_each_step_has_its_own_key():
    drawn = lambda key: jax.random.normal(key, dtype=jnp.float32)  # noqa: E731
    loss_fn = lambda w, hyper, batch, key: w * (hyper * drawn(key) + drawn(batch["key"]))  # noqa: E731
    own, other = jax.random.key(0), jax.random.key(1)
    found = minimize(loss_fn, optim.sgd(1.0), 2)(jnp.array(0.0), 2.0, {"key": other}, own)
    expected = -sum(2 * drawn(jax.random.fold_in(own, step)) + drawn(other) for step in range(2))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_where_the_steps_began_has_no_implicit_gradient():
    solve = minimize(ridge, optim.sgd(0.3), 3, backward=implicit(conjugate_gradient(4)))
    assert_close(jax.grad(lambda start: valid_loss(solve(start, -1.0, BATCH)))(jnp.ones(4)), jnp.zeros(4))


@pytest.mark.usefixtures("float64")
def test_second_derivatives_and_forward_ones_go_through_the_condition_too():
    solve = minimize(ridge, optim.sgd(0.3), 600, backward=implicit(conjugate_gradient(4)))
    loss = lambda penalty: valid_loss(solve(jnp.zeros(4), penalty, BATCH))  # noqa: E731
    slope = lambda penalty: ridge_by_hand(penalty)[1]  # noqa: E731
    np.testing.assert_allclose(jax.jvp(loss, (-1.0,), (1.0,))[1], slope(-1.0), rtol=1e-9)
    expected = (slope(-1.0 + 1e-5) - slope(-1.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(loss)))(-1.0), expected, rtol=1e-6)


def temporary_bytes(num_steps: int, backward: Any) -> int:
    solve = minimize(ridge, optim.sgd(0.3), num_steps, backward=backward)
    slope = jax.jit(jax.grad(lambda penalty: valid_loss(solve(jnp.zeros(4), penalty, BATCH))))
    analysis = slope.lower(-1.0).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_memory_of_an_implicit_gradient_does_not_grow_with_the_steps():
    few, many = (temporary_bytes(steps, implicit(conjugate_gradient(8))) for steps in (50, 5000))
    assert many - few < 64 + 8 * 5000  # the losses of the steps, and their numbers
    assert temporary_bytes(5000, unrolled()) > 4 * many


def outer_ridge(w: Any, penalty: Any, batch: Any, key: Any) -> Any:
    return 0.5 * jnp.mean((batch["x"] @ w - batch["y"]) ** 2)


BOTH = {"inner": BATCH, "outer": {"x": VALID_X, "y": VALID_Y}}


@pytest.mark.usefixtures("float64")
def test_inner_parameters_are_carried_warm_by_a_step():
    solve = minimize(ridge, optim.sgd(0.3), 5, backward=implicit(conjugate_gradient(4)))
    tx = optim.sgd(0.5)
    step = jax.jit(training.step(bilevel(outer_ridge, solve), tx, stateful=True))
    train_state = training.init(jnp.array(-1.0), tx, state=jnp.zeros(4))
    penalty, w = -1.0, jnp.zeros(4)
    for _ in range(3):
        train_state, metrics = step(train_state, BOTH)
        loss, slope = jax.value_and_grad(lambda penalty, w=w: valid_loss(solve(w, penalty, BATCH)))(penalty)
        w, penalty = solve(w, penalty, BATCH), penalty - 0.5 * slope
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-10)
        assert_close((train_state.params, train_state.state), (penalty, w))


@pytest.mark.usefixtures("float64")
def test_the_best_penalty_is_found():
    solve = minimize(ridge, optim.sgd(0.3), 20, backward=implicit(conjugate_gradient(4)))
    tx = optim.adam(0.1)
    step = jax.jit(training.step(bilevel(outer_ridge, solve), tx, stateful=True))
    train_state = training.init(jnp.array(-1.0), tx, state=jnp.zeros(4))
    for _ in range(150):
        train_state, _ = step(train_state, BOTH)
    grid = np.linspace(-4, 4, 801)
    best = grid[np.argmin([ridge_by_hand(penalty)[0] for penalty in grid])]
    assert abs(train_state.params - best) < 0.02


def test_the_two_losses_of_a_bilevel_one_have_keys_of_their_own():
    seen = []

    def outer(params: Any, hyper: Any, batch: Any, key: Any) -> Any:
        seen.append(key)
        return params * hyper

    def solve(params: Any, hyper: Any, batch: Any, key: Any) -> Any:
        seen.append(key)
        return params

    batch = {"inner": None, "outer": None}
    bilevel(outer, solve)(jnp.array(1.0), jnp.array(1.0), batch, jax.random.key(0))
    assert [bool(key == own) for key, own in zip(seen, jax.random.split(jax.random.key(0)), strict=True)] == [True] * 2
    bilevel(outer, solve)(jnp.array(1.0), jnp.array(1.0), batch)
    assert seen[2:] == [None, None]


def test_they_print_and_compare_as_their_calls():
    solve = minimize(ridge, optim.sgd(0.3), 5, backward=implicit(conjugate_gradient(4, damping=0.1)))
    assert repr(solve) == "minimize(ridge, sgd(0.3), 5, backward=implicit(conjugate_gradient(4, damping=0.1)))"
    assert repr(minimize(ridge, optim.sgd(0.3), 5)) == "minimize(ridge, sgd(0.3), 5)"
    alike = minimize(ridge, optim.sgd(0.3), 5, backward=implicit(conjugate_gradient(4, damping=0.1)))
    assert {bilevel(outer_ridge, solve)} == {bilevel(outer_ridge, alike)}


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"^minimize: expected num_steps to be an integer of at least 0, got -1$"):
        minimize(ridge, optim.sgd(0.3), -1)
    with pytest.raises(ValueError, match=r"^unrolled: expected truncate to be an integer of at least 1, got 0$"):
        unrolled(truncate=0)
    wrong = re.escape("minimize: expected tx to be a link such as optim.adam(1e-3), got 0.1")
    with pytest.raises(TypeError, match=f"^{wrong}$"):
        minimize(ridge, 0.1, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=f"^{wrong}$"):
        minimize(ridge, lambda hyper: hyper, 3)(jnp.zeros(4), 0.1, BATCH)


@pytest.mark.parametrize("kind", ["unrolled", "conjugate gradient"])
def test_losses_that_are_no_scalars_are_refused(kind: str):
    solve = minimize(lambda w, *rest: w, optim.sgd(0.3), 3, backward=BACKWARD[kind])
    shaped = re.escape("expected loss_fn to return a scalar loss, got shape (4,). Take its mean.")
    with pytest.raises(TypeError, match=f"^minimize: {shaped}"):
        solve(jnp.zeros(4), 0.1)
    good = minimize(ridge, optim.sgd(0.3), 3, backward=BACKWARD[kind])
    with pytest.raises(TypeError, match=f"^bilevel: {shaped}$"):
        bilevel(lambda w, *rest: w, good)(0.1, jnp.zeros(4), BOTH)


@pytest.mark.parametrize(("batch", "found"), [(BATCH, "['x', 'y']"), (X, "ndarray")], ids=["a dict", "an array"])
def test_a_batch_that_is_not_of_two_levels_is_refused(batch: Any, found: str):
    message = f"bilevel: expected batch to be {{'inner': batch, 'outer': batch}}, got {found}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bilevel(outer_ridge, minimize(ridge, optim.sgd(0.3), 3))(0.1, jnp.zeros(4), batch)
