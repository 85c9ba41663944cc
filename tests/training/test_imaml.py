"""Implicit MAML against the closed form of linear regression, and against unrolled MAML."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import conjugate_gradient, imaml, implicit, neumann, proximal, unrolled

from ..optim.trees import assert_close


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything in double precision."""
    with jax.enable_x64(True):
        yield


RANDOM = np.random.default_rng(0)
TASKS = {
    half: {"x": RANDOM.normal(size=(3, size, 4)).astype(np.float32), "y": RANDOM.normal(size=(3, size, 1))}
    for half, size in (("support", 3), ("query", 5))
}
START = np.array([[1.0], [-1.0], [0.5], [0.2]])
STRENGTH = 0.7


def linear(w: Any, batch: Any, key: Any) -> Any:
    return 0.5 * jnp.mean((batch["x"] @ w - batch["y"]) ** 2)


def by_hand() -> tuple[Any, Any]:
    """The loss and meta-gradient of linear regression, with the matrices of each task written down."""
    losses, slopes = [], []
    for task in range(3):
        (x, y), (query_x, query_y) = ((TASKS[half]["x"][task], TASKS[half]["y"][task]) for half in TASKS)
        x, query_x = x.astype(float), query_x.astype(float)
        matrix = x.T @ x / len(x) + STRENGTH * np.eye(4)
        adapted = np.linalg.solve(matrix, x.T @ y / len(x) + STRENGTH * START)
        rest = query_x @ adapted - query_y
        losses.append(0.5 * np.mean(rest**2))
        slopes.append(STRENGTH * np.linalg.solve(matrix, query_x.T @ rest / len(query_x)))
    return np.mean(losses), np.mean(slopes, axis=0)


BACKWARD: dict[str, Any] = {
    "conjugate gradient": implicit(conjugate_gradient(4)),
    "neumann": implicit(neumann(300, 0.3)),
    "unrolled": unrolled(),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("backward", BACKWARD.values(), ids=BACKWARD.keys())
def test_the_gradient_of_linear_regression_is_that_of_the_closed_form(backward: Any):
    meta_loss = imaml(linear, optim.sgd(0.3), 300, regularization=STRENGTH, backward=backward)
    found = jax.jit(jax.value_and_grad(meta_loss))(START, TASKS)
    assert_close(found, by_hand(), rtol=1e-9, atol=1e-12)


NET = nets.mlp(5, 1, activation=jnp.tanh)


def curved(params: Any, batch: Any, key: Any) -> Any:
    noise = 0.0 if key is None else 0.1 * jax.random.normal(key, batch["x"].shape)
    return training.squared_error(NET.apply(params, batch["x"].astype(float) + noise), batch["y"])


@pytest.mark.usefixtures("float64")
def test_it_is_unrolled_maml_of_the_regularised_loss_where_steps_are_many():
    params = jax.tree.map(lambda leaf: leaf.astype(float), NET.init(jax.random.key(1), jnp.ones(4)))
    found, expected = (
        jax.jit(jax.value_and_grad(imaml(curved, optim.sgd(0.1), 400, regularization=2.0, backward=backward)))
        for backward in (implicit(conjugate_gradient(31)), unrolled())
    )
    assert_close(found(params, TASKS), expected(params, TASKS), rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_unrolled_it_is_maml_of_a_loss_that_knows_where_it_began():
    params = jax.tree.map(lambda leaf: leaf.astype(float), NET.init(jax.random.key(1), jnp.ones(4)))
    task = jax.tree.map(lambda leaf: leaf[:1], TASKS)

    def meta_loss(start: Any) -> Any:
        def held(params: Any, batch: Any, key: Any) -> Any:
            pairs = zip(*map(jax.tree.leaves, (params, start)), strict=True)
            return curved(params, batch, key) + batch["on"] * sum(jnp.sum((a - b) ** 2) for a, b in pairs)

        marked = {"support": task["support"] | {"on": jnp.ones(1)}, "query": task["query"] | {"on": jnp.zeros(1)}}
        return training.maml(held, optim.adam(0.1), 4)(start, marked, jax.random.key(5))

    ours = imaml(curved, optim.adam(0.1), 4, regularization=2.0, backward=unrolled())
    found = jax.jit(jax.value_and_grad(ours))(params, task, jax.random.key(5))
    assert_close(found, jax.jit(jax.value_and_grad(meta_loss))(params), rtol=1e-9, atol=1e-12)


def test_it_trains_in_a_step_like_any_loss():
    params, tx = NET.init(jax.random.key(1), jnp.ones(4)), optim.adam(1e-2)
    meta_loss = imaml(curved, optim.sgd(0.1), 16, regularization=2.0)
    step = jax.jit(training.step(meta_loss, tx))
    train_state, losses = training.init(params, tx), []
    for _ in range(30):
        train_state, metrics = step(train_state, TASKS)
        losses.append(metrics["loss"])
    assert losses[-1] < 0.9 * losses[0]


def test_tasks_may_be_closed_over_under_vmap():
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[:, ::-1]]), TASKS)
    meta_loss = imaml(linear, optim.sgd(0.3), 20, regularization=STRENGTH)
    slope = lambda tasks: jax.grad(lambda w: meta_loss(w, tasks))(jnp.asarray(START))  # noqa: E731
    found = jax.jit(jax.vmap(slope))(several)
    for index in range(2):
        assert_close(found[index], slope(jax.tree.map(lambda leaf, index=index: leaf[index], several)))


def test_it_prints_and_compares_as_its_call():
    loss = imaml(linear, optim.sgd(0.1), 2, regularization=1.0)
    assert repr(loss) == "imaml(linear, sgd(0.1), 2, regularization=1.0)"
    assert {loss} == {imaml(linear, optim.sgd(0.1), 2, regularization=1.0, backward=implicit(conjugate_gradient(5)))}


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"^imaml: expected regularization to be at least 0, got -1\.0$"):
        imaml(linear, optim.sgd(0.1), 2, regularization=-1.0)
    with pytest.raises(ValueError, match=r"^proximal: expected regularization to be at least 0, got -1$"):
        proximal(linear, -1)
    with pytest.raises(ValueError, match=r"^imaml: expected inner_steps to be an integer of at least 0, got -2$"):
        imaml(linear, optim.sgd(0.1), -2, regularization=1.0)
    with pytest.raises(TypeError, match=r"^imaml: expected tx to be a link such as optim\.adam\(1e-3\), got 0\.1$"):
        imaml(linear, 0.1, 2, regularization=1.0)  # pyright: ignore[reportArgumentType]


def test_tasks_and_losses_of_another_kind_are_refused():
    meta_loss = imaml(linear, optim.sgd(0.1), 2, regularization=1.0)
    with pytest.raises(
        ValueError, match=r"^imaml: expected tasks to be \{'support': batch, 'query': batch\}, got list"
    ):
        meta_loss(START, [1, 2])
    with pytest.raises(ValueError, match=r"^imaml: expected support and query of one structure, got PyTreeDef"):
        meta_loss(START, TASKS | {"query": TASKS["query"]["x"]})
    message = "imaml: expected loss_fn to return a scalar loss, got shape (4, 1). Take its mean."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        imaml(lambda w, batch, key: w, optim.sgd(0.1), 2, regularization=1.0)(START, TASKS)
