"""Reptile against a loop by hand."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import nets, optim, training
from renga.training import reptile

from ..optim.trees import assert_close

NET = nets.mlp(5, 1, activation=jnp.tanh)
X = np.sin(np.arange(2 * 3 * 4 * 2, dtype=np.float32)).reshape(2, 3, 4, 2)
TASKS = {"x": X, "y": np.cos(3 * X[..., :1])}
PARAMS = NET.init(jax.random.key(0), X)


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    noise = 0.0 if key is None else 0.1 * jax.random.normal(key, batch["x"].shape)
    return training.squared_error(NET.apply(params, batch["x"] + noise), batch["y"])


def by_hand(inner: Any, key: Any = None) -> tuple[Any, Any]:
    """The mean loss met, and the mean way back from where the tasks led."""
    losses, ways = [], []
    slopes = jax.jit(jax.value_and_grad(loss_fn))
    for task in range(2):
        params, opt_state = PARAMS, inner.init(PARAMS)
        own = None if key is None else jax.random.split(key, 2)[task]
        for index in range(3):
            batch = {name: leaf[task, index] for name, leaf in TASKS.items()}
            loss, grads = slopes(params, batch, None if own is None else jax.random.fold_in(own, index))
            updates, opt_state = inner.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            losses.append(loss)
        ways.append(optax.tree.sub(PARAMS, params))
    return np.mean(losses), optax.tree.scale(0.5, optax.tree.add(*ways))


@pytest.mark.parametrize("inner", [optim.sgd(0.1), optim.adam(0.1, b1=0.0)], ids=["sgd", "adam"])
@pytest.mark.parametrize("key", [None, jax.random.key(3)], ids=["without key", "with key"])
def test_the_gradient_is_the_mean_way_back_from_the_adapted_parameters(inner: Any, key: Any):
    found = jax.jit(jax.value_and_grad(reptile(loss_fn, inner, 3)))(PARAMS, TASKS, key)
    assert_close(found, by_hand(inner, key))
    assert_close(jax.jit(reptile(loss_fn, inner, 3))(PARAMS, TASKS, key), found[0])


def test_a_step_of_sgd_goes_a_share_of_the_way_to_where_the_tasks_led():
    tx = optim.sgd(0.25)
    found, metrics = jax.jit(training.step(reptile(loss_fn, optim.sgd(0.1), 3), tx))(training.init(PARAMS, tx), TASKS)
    loss, way = by_hand(optim.sgd(0.1))
    assert_close(found.params, jax.tree.map(lambda p, w: p - 0.25 * w, PARAMS, way))
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)


def test_one_inner_step_gives_the_joint_gradient_times_the_rate():
    first = jax.tree.map(lambda leaf: leaf[:, :1], TASKS)
    joint = jax.grad(loss_fn)(PARAMS, jax.tree.map(lambda leaf: leaf[:, 0], TASKS), None)
    found = jax.grad(reptile(loss_fn, optim.sgd(0.1), 1))(PARAMS, first)
    assert_close(found, optax.tree.scale(0.1, joint))


def test_an_inner_chain_may_look_elsewhere():
    inner = optim.chain(optim.sam(0.1), optim.sgd(0.1))
    found = jax.grad(reptile(loss_fn, inner, 3))(PARAMS, TASKS)
    ways = []
    for task in range(2):
        params = PARAMS
        for index in range(3):
            batch = {name: leaf[task, index] for name, leaf in TASKS.items()}
            grads = jax.grad(loss_fn)(params, batch, None)
            norm = optax.tree.norm(grads)
            climbed = jax.tree.map(lambda p, g, norm=norm: p + 0.1 * g / norm, params, grads)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss_fn)(climbed, batch, None))
        ways.append(optax.tree.sub(PARAMS, params))
    assert_close(found, optax.tree.scale(0.5, optax.tree.add(*ways)), rtol=1e-4, atol=1e-6)


def test_tasks_and_rates_may_be_closed_over_under_vmap():
    tasks = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[:, ::-1]]), TASKS)
    rates = jnp.array([0.1, 0.2])
    slope = lambda rate, tasks: jax.grad(lambda p: reptile(loss_fn, optim.sgd(rate), 3)(p, tasks))(PARAMS)  # noqa: E731
    found = jax.jit(jax.vmap(slope))(rates, tasks)
    for index in range(2):
        one = slope(rates[index], jax.tree.map(lambda leaf, index=index: leaf[index], tasks))
        assert_close(jax.tree.map(lambda leaf, index=index: leaf[index], found), one)


def test_labels_may_be_integers():
    classify = lambda params, batch, key: training.cross_entropy(batch["x"] @ params, batch["y"])  # noqa: E731
    tasks = {"x": X, "y": np.zeros((2, 3, 4), np.int32)}
    slope = jax.grad(reptile(classify, optim.sgd(0.1), 3))(jnp.zeros((2, 5)), tasks)
    assert slope.shape == (2, 5)


def test_it_prints_and_compares_as_its_call():
    loss = reptile(loss_fn, optim.sgd(0.1), 3)
    assert repr(loss) == "reptile(loss_fn, sgd(0.1), 3)"
    assert {loss} == {reptile(loss_fn, optim.sgd(0.1), 3)}


SHAPED = "reptile: expected arrays of tasks [tasks, 3, ...], a minibatch for each inner step, got "


@pytest.mark.parametrize(
    ("tasks", "found"),
    [
        ({"x": X[:, 0, 0, 0], "y": X}, "x: (2,), y: (2, 3)"),
        ({"x": X[:, :2]}, "x: (2, 2)"),
        ({"x": X, "y": X[:1]}, "x: (2, 3), y: (1, 3)"),
        (1.0, "tasks: ()"),
        ({}, "no array"),
    ],
    ids=["no axis of steps", "fewer steps", "fewer tasks", "a number", "nothing"],
)
def test_tasks_without_the_two_axes_are_refused(tasks: Any, found: str):
    with pytest.raises(ValueError, match=f"^{re.escape(SHAPED + found)}$"):
        reptile(loss_fn, optim.sgd(0.1), 3)(PARAMS, tasks)


def test_a_loss_that_is_not_a_scalar_is_refused():
    with pytest.raises(TypeError, match=r"^reptile: expected loss_fn to return a scalar loss, got shape \(4, 2\)\. "):
        reptile(lambda params, batch, key: batch["x"], optim.sgd(0.1), 3)(PARAMS, TASKS)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"^reptile: expected inner_steps to be an integer of at least 1, got 0$"):
        reptile(loss_fn, optim.sgd(0.1), 0)
    with pytest.raises(TypeError, match=r"^reptile: expected tx to be a link such as optim\.adam\(1e-3\), got 0\.1$"):
        reptile(loss_fn, 0.1, 3)  # pyright: ignore[reportArgumentType]
