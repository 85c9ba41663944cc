"""MAML against exact values, finite differences, loops by hand, and itself in other forms."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import nets, optim, training
from renga.training import adapt, inner_states, maml, multi_step_weights

from ..optim.by_hand import QUICKLY
from ..optim.registry import LINKS
from ..optim.test_pairs import ALONE
from .oracles import meta_gradients

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything in double precision."""
    with jax.enable_x64(True):
        yield


def product(w: Any, x: Any, key: Any) -> jax.Array:
    return 0.5 * (x @ w) ** 2


START = np.array([2.0, 3.0, 5.0])
FIRST, SECOND = np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0, 6.0]])


def test_the_gradient_is_that_of_torchmetas_test():
    loss, grad = jax.value_and_grad(maml(product, optim.sgd(0.5), 1))(START, {"support": FIRST, "query": SECOND})
    assert loss == 49612.5
    np.testing.assert_array_equal(grad, [3780, 8505, 13230])


def test_the_first_order_gradient_is_that_of_torchmetas_test():
    tasks = {"support": SECOND, "query": FIRST}
    loss, grad = jax.value_and_grad(maml(product, optim.sgd(0.5), 1, first_order=True))(START, tasks)
    assert loss == 340312.5
    np.testing.assert_array_equal(grad, [-825, -1650, -2475])


NET = nets.mlp(5, 5, 1, activation=jnp.tanh)


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    return training.squared_error(NET.apply(params, batch["x"]), batch["y"])


def some(dtype: Any = float, num_tasks: int = 3, net: Any = NET) -> tuple[Any, Any]:
    """Parameters and tasks."""
    keys = jax.random.split(jax.random.key(0), 4)
    tasks = {}
    for part, (first, second) in {"support": keys[:2], "query": keys[2:]}.items():
        x = jax.random.normal(first, (num_tasks, 4, 2), dtype)
        tasks[part] = {"x": x, "y": jnp.sin(x[..., :1] * jax.random.normal(second, (num_tasks, 1, 1), dtype))}
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), net.init(jax.random.key(1), jnp.ones(2)))
    return params, tasks


def slopes(loss: Any, params: Any, tasks: Any) -> tuple[Any, Any]:
    """The derivative along a direction, and its central difference."""
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(1.0, leaf.size + 1)).reshape(leaf.shape), params)

    def value(t: Any) -> Any:
        return loss(jax.tree.map(lambda p, v: p + t * v, params, along), tasks, None)

    found = jax.jit(jax.grad(value), compiler_options=QUICKLY)(0.0)
    after, small = jax.jit(value, compiler_options=QUICKLY), 1e-5
    return found, (after(small) - after(-small)) / (2 * small)


INNER: dict[str, Any] = {
    "sgd": optim.sgd(0.1),
    "momentum": optim.sgd(0.1, momentum=0.9),
    "sam": optim.chain(optim.sam(0.1), optim.sgd(0.1)),
    "adam": optim.adam(0.1),
    "extragradient": optim.extragradient(optim.sgd(0.1)),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("inner_steps", [1, 5, 6])
def test_the_gradient_equals_finite_differences(inner: str, inner_steps: int):
    found, expected = slopes(maml(loss_fn, INNER[inner], inner_steps), *some())
    np.testing.assert_allclose(found, expected, rtol=1e-6)


ORACLES = json.loads(meta_gradients.PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("library", ORACLES)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("inner_steps", [1, 2, 5])
def test_the_gradient_is_that_of_other_libraries(library: str, first_order: bool, inner_steps: int):
    def squared(params: Any, batch: Any, key: Any) -> jax.Array:
        w1, b1, w2, b2, w3, b3 = (params[name] for name in meta_gradients.SHAPES)
        hidden = jax.nn.relu(jax.nn.relu(batch["x"] @ w1 + b1) @ w2 + b2)
        return jnp.mean((hidden @ w3 + b3 - batch["y"]) ** 2)

    meta_loss = maml(squared, optim.sgd(meta_gradients.RATE), inner_steps, first_order=first_order)
    params = meta_gradients.params()
    loss, slope = jax.jit(jax.value_and_grad(meta_loss))(params, meta_gradients.tasks())
    expected_loss, expected = ORACLES[library][f"{inner_steps} {'first' if first_order else 'second'}"]
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    found = np.concatenate([slope[name].reshape(-1) for name in meta_gradients.SHAPES])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.usefixtures("float64")
def test_a_loss_of_every_step_is_a_sum_of_losses_of_fewer_steps():
    params, tasks = some()
    weights = (0.2, 0.5, 0.3)
    found = maml(loss_fn, INNER["momentum"], 3, query_weights=weights)(params, tasks)
    alone = [maml(loss_fn, INNER["momentum"], steps)(params, tasks) for steps in (1, 2, 3)]
    np.testing.assert_allclose(found, np.dot(weights, alone), rtol=1e-12)


def test_no_inner_step_is_the_plain_loss_to_the_bit():
    params, tasks = some(jnp.float32)
    plain = lambda params: jnp.mean(jax.vmap(lambda batch: loss_fn(params, batch, None))(tasks["query"]))  # noqa: E731
    found = jax.jit(jax.value_and_grad(maml(loss_fn, optim.sgd(0.1), 0)))(params, tasks)
    jax.tree.map(np.testing.assert_array_equal, found, jax.jit(jax.value_and_grad(plain))(params))


@pytest.mark.usefixtures("float64")
def test_first_order_is_the_gradient_at_the_adapted_parameters():
    params, tasks = some()
    found = jax.jit(jax.grad(maml(loss_fn, INNER["momentum"], 3, first_order=True)))(params, tasks)
    total = jax.tree.map(jnp.zeros_like, params)
    for index in range(3):
        task = jax.tree.map(lambda leaf, index=index: leaf[index], tasks)
        adapted = adapt(loss_fn, INNER["momentum"], 3)(params, task["support"]).params
        total = optax.tree.add(total, optax.tree.scale(1 / 3, jax.grad(loss_fn)(adapted, task["query"], None)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, total)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("first_order", [False, True])
def test_groups_of_tasks_and_checkpoints_change_nothing(first_order: bool):
    params, tasks = some(num_tasks=5)

    def found(**options: Any) -> Any:
        meta_loss = maml(loss_fn, INNER["adam"], 7, first_order=first_order, **options)
        return jax.jit(jax.value_and_grad(meta_loss), compiler_options=QUICKLY)(params, tasks)

    plain = found()
    for options in ({"tasks_at_once": 2}, {"checkpoint": True}, {"truncate": 7}, {"truncate": 9}):
        other = found(**options)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), plain, other)


@pytest.mark.usefixtures("float64")
def test_a_truncated_gradient_goes_through_the_last_steps_from_where_the_first_led():
    params, tasks = some(num_tasks=1)
    support = jax.tree.map(lambda leaf: leaf[0], tasks["support"])
    moved = adapt(loss_fn, optim.sgd(0.1), 3)(params, support).params
    expected = jax.grad(maml(loss_fn, optim.sgd(0.1), 2))(moved, tasks)
    found = jax.grad(maml(loss_fn, optim.sgd(0.1), 5, truncate=2))(params, tasks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


@pytest.mark.usefixtures("float64")
def test_losses_on_early_queries_keep_their_own_slope_where_the_steps_before_are_cut_off():
    square = lambda w, batch, key: jnp.sum((w - batch) ** 2)  # noqa: E731
    tasks = {"support": jnp.array([1.0, 2.0]), "query": jnp.array([3.0, 4.0])}
    w, moved = jnp.array(0.0), jnp.array([0.2, 0.4])  # a step of 0.1 on each support
    found = jax.grad(maml(square, optim.sgd(0.1), 2, query_weights=[1.0, 0.0], truncate=1))(w, tasks)
    np.testing.assert_allclose(found, jnp.mean(2 * (moved - tasks["query"])), rtol=1e-12)  # -6.4
    weights = (0.2, 0.5, 0.3)
    params, batches = some()
    whole = jax.value_and_grad(maml(loss_fn, optim.sgd(0.1), 3, query_weights=weights))(params, batches)
    cut = jax.value_and_grad(maml(loss_fn, optim.sgd(0.1), 3, query_weights=weights, truncate=3))(params, batches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), cut, whole)
    shorter, _ = jax.value_and_grad(maml(loss_fn, optim.sgd(0.1), 3, query_weights=weights, truncate=1))(
        params, batches
    )
    np.testing.assert_allclose(shorter, whole[0], rtol=1e-10)


def test_a_share_of_first_order_keeps_half_precision_in_a_scan():
    params, tasks = some(jnp.bfloat16)
    slope = jax.grad(maml(loss_fn, optim.adam(0.1), 7, first_order=jnp.float32(0.5)))(params, tasks)
    assert {leaf.dtype for leaf in jax.tree.leaves(slope)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.usefixtures("float64")
def test_a_step_of_complex_reptile_goes_to_where_the_task_led():
    distance = lambda w, target, key: jnp.abs(w - target) ** 2  # noqa: E731
    tx = optim.sgd(1.0)
    step = training.step(training.reptile(distance, optim.sgd(0.25), 1), tx)
    train_state, _ = step(training.init(jnp.array(0j), tx), jnp.array([[1 + 1j]]))
    np.testing.assert_allclose(train_state.params, 0.5 + 0.5j, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_what_is_not_adapted_stays_and_is_learnt_all_the_same():
    params, tasks = some()
    name = list(params)[-1]
    support = jax.tree.map(lambda leaf: leaf[0], tasks["support"])
    moved = adapt(loss_fn, optim.sgd(0.1), 3, adapted=f"{name}/**")(params, support).params
    for layer in params:
        same = jax.tree.all(jax.tree.map(lambda a, b: jnp.all(a == b), moved[layer], params[layer]))
        assert same == (layer != name)
    found, expected = slopes(maml(loss_fn, optim.adam(0.1), 3, adapted=f"{name}/**"), params, tasks)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    slope = jax.grad(maml(loss_fn, optim.sgd(0.1), 3, adapted=f"{name}/**"))(params, tasks)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(slope))


def test_losses_fall_along_an_adaptation():
    params, tasks = some(jnp.float32)
    support = jax.tree.map(lambda leaf: leaf[0], tasks["support"])
    found = adapt(loss_fn, optim.sgd(0.1), 20)(params, support)
    assert found.losses.shape == (20,)
    np.testing.assert_allclose(found.losses[0], loss_fn(params, support, None), rtol=1e-6)
    assert jnp.all(jnp.diff(found.losses) < 0)
    assert loss_fn(found.params, support, None) < found.losses[-1]


def test_no_inner_step_adapts_nothing():
    params, tasks = some(jnp.float32)
    support = jax.tree.map(lambda leaf: leaf[0], tasks["support"])
    found = adapt(loss_fn, optim.sgd(0.1), 0)(params, support)
    assert found.losses.shape == (0,)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_each_task_and_each_step_has_its_own_key():
    noisy = lambda w, batch, key: w * jax.random.normal(key)  # noqa: E731
    tasks = {"support": jnp.zeros((2, 1)), "query": jnp.zeros((2, 1))}
    key = jax.random.key(3)
    found = maml(noisy, optim.sgd(1.0), 2)(jnp.array(0.0), tasks, key)
    expected = []
    for own in jax.random.split(key, 2):
        first, second, last = (jax.random.normal(jax.random.fold_in(own, index)) for index in range(3))
        expected.append(-(first + second) * last)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-6)


def test_it_trains_in_a_step_like_any_loss():
    params, tasks = some(jnp.float32)
    tx = optim.chain(optim.sam(0.01), optim.adam(1e-2))
    step = jax.jit(training.step(maml(loss_fn, optim.sgd(0.1), 2), tx))
    train_state, losses = training.init(params, tx), []
    for _ in range(20):
        train_state, metrics = step(train_state, tasks)
        losses.append(metrics["loss"])
    assert losses[-1] < 0.8 * losses[0]


def test_it_prints_and_compares_as_its_call():
    loss = maml(loss_fn, optim.sgd(0.1), 2, adapted="head/**")
    assert repr(loss) == "maml(loss_fn, sgd(0.1), 2, adapted='head/**')"
    assert (loss, hash(loss)) == (maml(loss_fn, optim.sgd(0.1), 2, adapted="head/**"), hash(loss))
    assert loss != maml(loss_fn, optim.sgd(0.1), 2)


def test_tasks_may_be_closed_over_under_vmap():
    params, tasks = some(jnp.float32)
    rates = jnp.array([0.01, 0.1])
    found = jax.vmap(lambda rate: maml(loss_fn, optim.sgd(rate), 2)(params, tasks))(rates)
    alone = [maml(loss_fn, optim.sgd(rate), 2)(params, tasks) for rate in (0.01, 0.1)]
    np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_learning_rates_are_learnt_as_arrays_of_the_chain():
    params, tasks = some(jnp.float32)
    slope = jax.grad(lambda rate: maml(loss_fn, optim.sgd(rate), 2)(params, tasks))(0.01)
    assert slope < 0  # larger steps would lead further


def rates_like(params: Any, rate: float) -> Any:
    return jax.tree.map(
        lambda leaf: jnp.full_like(leaf, rate) + 0.01 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )


@pytest.mark.usefixtures("float64")
def test_a_rate_of_each_parameter_is_learnt_with_it():
    params, tasks = some()
    learnt = {"params": params, "inner": rates_like(params, 0.1)}
    found, expected = slopes(maml(loss_fn, optim.scale_by_rates, 3), learnt, tasks)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_the_slope_of_a_rate_is_minus_the_query_gradient_times_that_of_the_support():
    params, tasks = some(num_tasks=1)
    learnt = {"params": params, "inner": rates_like(params, 0.1)}
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    support = jax.grad(loss_fn)(params, task["support"], None)
    moved = jax.tree.map(lambda p, rate, g: p - rate * g, params, learnt["inner"], support)
    query = jax.grad(loss_fn)(moved, task["query"], None)
    for first_order in (False, True):  # a first order leaves out the Hessian, not the rates
        found = jax.grad(maml(loss_fn, optim.scale_by_rates, 1, first_order=first_order))(learnt, tasks)["inner"]
        jax.tree.map(lambda a, g, h: np.testing.assert_allclose(a, -g * h, rtol=1e-9), found, query, support)


@pytest.mark.usefixtures("float64")
def test_a_rate_of_each_step_and_array_is_learnt():
    params, tasks = some()
    learnt = {"params": params, "inner": jax.tree.map(lambda leaf: jnp.array([0.1, 0.2, 0.05]), params)}
    meta_loss = maml(loss_fn, optim.scale_by_step_rates, 3)
    found, expected = slopes(meta_loss, learnt, tasks)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    by_hand = {"params": params, "inner": 0.1}
    same = maml(loss_fn, lambda rate: optim.sgd(lambda count: rate * jnp.array([1.0, 2.0, 0.5])[count]), 3)
    np.testing.assert_allclose(meta_loss(learnt, tasks, None), same(by_hand, tasks, None), rtol=1e-10)


def test_learnt_arrays_adapt_as_they_were_trained():
    params, tasks = some(jnp.float32)
    support = jax.tree.map(lambda leaf: leaf[0], tasks["support"])
    found = adapt(loss_fn, optim.sgd, 2)({"params": params, "inner": 0.1}, support)
    expected = adapt(loss_fn, optim.sgd(0.1), 2)(params, support)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


@pytest.mark.usefixtures("float64")
def test_a_context_is_adapted_alone_from_zero():
    def with_context(params: Any, batch: Any, key: Any) -> jax.Array:
        context = jnp.broadcast_to(params["context"], (*batch["x"].shape[:-1], 2))
        return loss_fn(params["net"], {"x": context * batch["x"], "y": batch["y"]}, key)

    params, tasks = some()
    params = {"net": params, "context": jnp.array([1.0, 0.5])}
    found, expected = slopes(maml(with_context, optim.sgd(1.0), 2, adapted="context"), params, tasks)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    support = jax.tree.map(lambda leaf: leaf[0], tasks["support"])
    moved = adapt(with_context, optim.sgd(1.0), 1, adapted="context")(params, support).params
    slope = jax.grad(with_context)(params, support, None)["context"]
    np.testing.assert_allclose(moved["context"], params["context"] - slope, rtol=1e-10)
    jax.tree.map(np.testing.assert_array_equal, moved["net"], params["net"])


@pytest.mark.usefixtures("float64")
def test_an_order_between_has_its_share_of_the_second_derivatives():
    params, tasks = some()

    def slope(share: Any) -> Any:
        return jax.grad(maml(loss_fn, optim.sgd(0.1), 1, first_order=share))(params, tasks)

    second, first, between = slope(False), slope(True), slope(0.3)
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, 0.7 * b + 0.3 * c, rtol=1e-9), between, second, first)
    annealed = jax.jit(slope)(jnp.array(0.3))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), annealed, between)


@pytest.mark.usefixtures("float64")
def test_a_first_order_is_one_through_sam_as_well():
    params, tasks = some(num_tasks=1)
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    moved = adapt(loss_fn, INNER["sam"], 2)(params, task["support"]).params
    found = jax.grad(maml(loss_fn, INNER["sam"], 2, first_order=True))(params, tasks)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, jax.grad(loss_fn)(moved, task["query"], None)
    )


def test_the_weights_of_the_steps_are_those_of_mamls_plus_plus():
    np.testing.assert_allclose(multi_step_weights(5, 0.0), np.full(5, 0.2), rtol=1e-6)
    np.testing.assert_allclose(multi_step_weights(5, 0.4), [0.12] * 4 + [0.52], rtol=1e-6)
    np.testing.assert_allclose(multi_step_weights(5, 1.0), [0.006] * 4 + [0.976], rtol=1e-6)
    np.testing.assert_allclose(multi_step_weights(5, 7.0).sum(), 1, rtol=1e-6)


def test_metrics_are_means_over_the_queries():
    def measured(params: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        loss = loss_fn(params, batch, key)
        return loss, {"twice": 2 * loss}

    params, tasks = some(jnp.float32)
    for inner_steps in (0, 2):
        loss, metrics = maml(measured, optim.sgd(0.1), inner_steps, has_aux=True)(params, tasks)
        np.testing.assert_allclose(metrics["twice"], 2 * loss, rtol=1e-6)
        np.testing.assert_allclose(loss, maml(loss_fn, optim.sgd(0.1), inner_steps)(params, tasks), rtol=1e-6)
    support = jax.tree.map(lambda leaf: leaf[0], tasks["support"])
    found = adapt(measured, optim.sgd(0.1), 3, has_aux=True)(params, support)
    np.testing.assert_allclose(found.metrics["twice"], 2 * found.losses, rtol=1e-6)


NORMED = nets.serial(nets.linear(5), nets.batch_norm(), jnp.tanh, nets.linear(1))


def normed_loss(params: Any, state: Any, batch: Any, key: Any) -> Any:
    outputs, state = NORMED.apply(params, state, batch["x"], train=True)
    return training.squared_error(outputs, batch["y"]), (state, {})


def test_batch_norm_keeps_statistics_of_each_inner_step():
    _, tasks = some(jnp.float32)
    params, state = NORMED.init(jax.random.key(1), tasks["support"]["x"][0])
    states = inner_states(state, 2)
    meta_loss = maml(normed_loss, optim.sgd(0.1), 2, stateful=True)
    loss, (found, _) = jax.jit(meta_loss)(params, states, tasks)
    losses, expected = [], []
    for index in range(3):
        task = jax.tree.map(lambda leaf, index=index: leaf[index], tasks)
        own, seen = params, []
        for _ in range(2):
            (_, (after, _)), slope = jax.value_and_grad(normed_loss, has_aux=True)(own, state, task["support"], None)
            own = jax.tree.map(lambda p, g: p - 0.1 * g, own, slope)
            seen.append(after)
        last, (after, _) = normed_loss(own, state, task["query"], None)
        losses.append(last)
        expected.append(jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen, after))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)

    def check(leaf: jax.Array, *leaves: jax.Array) -> None:
        mean = np.mean(leaves, 0) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaves[0]
        np.testing.assert_allclose(leaf, mean, rtol=1e-4, atol=1e-6)

    jax.tree.map(check, found, *expected)


def test_a_network_with_batch_norm_trains_in_a_step():
    _, tasks = some(jnp.float32)
    params, state = NORMED.init(jax.random.key(1), tasks["support"]["x"][0])
    tx = optim.adam(1e-2)
    step = jax.jit(training.step(maml(normed_loss, optim.sgd(0.1), 2, stateful=True), tx, stateful=True))
    train_state, losses = training.init(params, tx, state=inner_states(state, 2)), []
    for _ in range(20):
        train_state, metrics = step(train_state, tasks)
        losses.append(metrics["loss"])
    assert losses[-1] < losses[0]
    support = jax.tree.map(lambda leaf: leaf[0], tasks["support"])
    found = adapt(normed_loss, optim.sgd(0.1), 2, stateful=True)(train_state.params, train_state.state, support)
    assert jax.tree.structure(found.state) == jax.tree.structure(train_state.state)
    for before, after in zip(jax.tree.leaves(train_state.state), jax.tree.leaves(found.state), strict=True):
        assert before.shape == after.shape
        np.testing.assert_array_equal(before[-1], after[-1])  # for the query


def test_a_state_without_an_axis_of_steps_is_refused():
    _, tasks = some(jnp.float32)
    params, state = NORMED.init(jax.random.key(1), tasks["support"]["x"][0])
    expected = r"with an axis of 3 in front, one for each number of inner steps, got \(.*\)"
    hint = r"Make it with training\.inner_states\(state, 2\)"
    with pytest.raises(ValueError, match=rf"^maml: expected state/\S+ {expected}\. {hint}\.$"):
        maml(normed_loss, optim.sgd(0.1), 2, stateful=True)(params, state, tasks)


def test_tasks_over_devices_have_the_gradient_of_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    program = [sys.executable, "-m", "tests.training.over_devices"]
    result = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | flags)
    assert result.returncode == 0, result.stderr[-3000:]


def temporary_memory(inner_steps: int, **options: Any) -> tuple[float, Any]:
    """Megabytes beside arguments and results of the meta-gradient of the paper's sinusoids, and the gradient."""
    net = nets.mlp(40, 40, 1)
    key = jax.random.key(0)
    x = jax.random.uniform(key, (25, 10, 1), minval=-5, maxval=5)
    tasks = {"support": {"x": x, "y": jnp.sin(x)}, "query": {"x": -x, "y": jnp.sin(-x)}}
    squared = lambda params, batch, key: training.squared_error(net.apply(params, batch["x"]), batch["y"])  # noqa: E731
    params = net.init(key, x)
    compiled = jax.jit(jax.grad(maml(squared, optim.sgd(0.01), inner_steps, **options))).lower(params, tasks).compile()
    memory: Any = compiled.memory_analysis()
    return memory.temp_size_in_bytes / 1e6, compiled(params, tasks)


@pytest.mark.usefixtures("full_compiler")
def test_checkpoints_hold_a_tenth_of_two_hundred_steps():
    plain, expected = temporary_memory(200)
    checkpointed, found = temporary_memory(200, checkpoint=True)
    assert plain > 40
    assert checkpointed < 8
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, found, expected))
    assert difference < 1e-5 * optax.tree.norm(expected)


def relu_loss(params: Any, batch: Any, key: Any) -> jax.Array:
    """Of units half of which are never on: their gradients are zero."""
    shift = jnp.where(jnp.arange(6) % 2 == 0, -100.0, 5.0)
    hidden = jax.nn.relu(batch["x"] @ params["w"] + params["b"] + shift)
    return jnp.mean((jnp.tanh(0.1 * hidden.sum(-1)) - batch["y"][..., 0]) ** 2)


NOT_DIFFERENTIABLE = {
    "lola": "its loss is a game's",
    "sos": "as above",
    "soap": "its bases count as constants",
    "lbfgs": "its line search is a while loop",
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALONE[::2] else pytest.mark.long)
        for name in sorted(LINKS.keys() - NOT_DIFFERENTIABLE.keys())
    ],
)
def test_the_gradient_through_any_link_is_right_where_units_are_dead(name: str, monkeypatch: Any):
    monkeypatch.setattr("renga.training._unroll.UNROLLED", 0)  # one step to compile
    params = {"w": jnp.sin(jnp.arange(1.0, 13)).reshape(2, 6), "b": 0.1 + 0.1 * jnp.cos(jnp.arange(1.0, 7))}
    found, expected = slopes(maml(relu_loss, LINKS[name](), 5), params, some()[1])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-8)


BATCH = {"support": {"x": np.ones((2, 3)), "y": np.ones((2, 3))}, "query": {"x": np.ones((2, 3)), "y": np.ones((2, 3))}}


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        ([1, 2], ValueError, "maml: expected tasks to be {'support': batch, 'query': batch}, got list"),
        ({"support": 1}, ValueError, "maml: expected tasks to be {'support': batch, 'query': batch}, got ['support']"),
        (BATCH | {"query": np.ones((2, 3))}, ValueError, "maml: expected support and query of one structure, got "),
        (
            BATCH | {"query": {"x": np.ones((2, 3)), "y": np.ones((4, 3))}},
            ValueError,
            "an axis of as many tasks in front of every array, got query/x: 2, query/y: 4, support/x: 2, support/y: 2",
        ),
        (BATCH | {"query": {"x": np.ones((2, 3)), "y": 1.0}}, ValueError, "query/y: none"),
        (BATCH, TypeError, "maml: expected loss_fn to return a scalar loss, got shape (3,). Take its mean."),
    ],
)
def test_tasks_and_losses_of_another_kind_are_refused(tasks: Any, error: Any, message: str):
    with pytest.raises(error, match=re.escape(message)):
        maml(lambda params, batch, key: params * batch["x"], optim.sgd(0.1), 1)(jnp.array(1.0), tasks, None)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="maml: expected inner_steps to be an integer of at least 0, got -1"):
        maml(loss_fn, optim.sgd(0.1), -1)
    with pytest.raises(ValueError, match=r"adapt: expected inner_steps to be an integer of at least 0, got 1\.5"):
        adapt(loss_fn, optim.sgd(0.1), 1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="maml: expected truncate to be an integer of at least 1, got 0"):
        maml(loss_fn, optim.sgd(0.1), 3, truncate=0)
    for share in (2.0, None):
        with pytest.raises(
            ValueError, match=rf"^maml: expected first_order to be a bool or a share from 0 to 1, got {share}$"
        ):
            maml(loss_fn, optim.sgd(0.1), 3, first_order=share)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^adapt: expected \{'params': params, 'inner': what inner is made from\}"):
        adapt(loss_fn, optim.scale_by_rates, 2)(jnp.array(0.0), jnp.ones(3))
    with pytest.raises(ValueError, match=r"^maml: expected one task or more, got none$"):
        maml(loss_fn, optim.sgd(0.1), 3)({}, {"support": jnp.ones((0, 2)), "query": jnp.ones((0, 2))})
    with pytest.raises(ValueError, match=r"^lola: expected the players of a game, a dict, got "):
        maml(lambda w, b, k: jnp.sum(w * b), optim.lola(0.1), 2)(
            jnp.zeros(3), {"support": jnp.ones((2, 3)), "query": jnp.ones((2, 3))}
        )
    with pytest.raises(ValueError, match="maml: expected tasks_at_once to be an integer of at least 1, got 0"):
        maml(loss_fn, optim.sgd(0.1), 3, tasks_at_once=0)
    with pytest.raises(ValueError, match=r"maml: expected query_weights for each of 3 inner steps, got shape \(2,\)"):
        maml(loss_fn, optim.sgd(0.1), 3, query_weights=(0.5, 0.5))
    with pytest.raises(TypeError, match=re.escape("maml: expected tx to be a link such as optim.adam(1e-3), got 0.1")):
        maml(loss_fn, 0.1, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=re.escape("maml: expected {'params': params, 'inner': what inner is made")):
        maml(loss_fn, optim.sgd, 3)(*some(), None)
    with pytest.raises(ValueError, match=r"^maml: expected a pattern that matches a path, got 'head/w'. There are "):
        maml(loss_fn, optim.sgd(0.1), 3, adapted="head/w")(*some(), None)
