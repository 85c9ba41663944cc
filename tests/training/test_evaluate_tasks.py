"""Scores over tasks against adapting to one after another, and what counts as diverged."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import adapt, evaluate_tasks, maml, sinusoids

NET = nets.mlp(5, 1, activation=jnp.tanh)
PARAMS = NET.init(jax.random.key(0), jnp.ones(1))
TASKS = sinusoids(4, queries=3)(jax.random.key(1), 6)
SGD = optim.sgd(0.05, momentum=0.9)


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    return training.squared_error(NET.apply(params, batch["x"]), batch["y"])


def loss_and_metrics(params: Any, batch: Any, key: Any) -> Any:
    wrong = jnp.abs(NET.apply(params, batch["x"]) - batch["y"])
    return jnp.mean(wrong**2), {"worst": wrong.max()}


def noisy_loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
    noise = 0.3 * jax.random.normal(key, batch["x"].shape)
    return training.squared_error(NET.apply(params, batch["x"] + noise), batch["y"])


def task(index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], TASKS)


@pytest.mark.parametrize("adapted", ["**", "layers/1/**"])
def test_scores_are_those_of_adapting_to_each_task_for_each_number_of_steps(adapted):
    scores = jax.jit(evaluate_tasks(loss_and_metrics, SGD, 3, adapted=adapted, has_aux=True))(PARAMS, TASKS)
    expected: dict[str, Any] = {"loss": np.zeros((6, 4)), "worst": np.zeros((6, 4))}
    for steps in range(4):
        one = jax.jit(adapt(loss_fn, SGD, steps, adapted=adapted))
        for index in range(6):
            support, query = task(index)["support"], task(index)["query"]
            loss, metrics = loss_and_metrics(one(PARAMS, support).params, query, None)
            expected["loss"][index, steps], expected["worst"][index, steps] = loss, metrics["worst"]
    for name, values in expected.items():
        np.testing.assert_allclose(scores.values[name], values, rtol=1e-5)
        np.testing.assert_allclose(scores.mean[name], values.mean(0), rtol=1e-5)
        np.testing.assert_allclose(scores.median[name], np.median(values, 0), rtol=1e-5)
        np.testing.assert_allclose(scores.interval[name], 1.96 * values.std(0) / np.sqrt(6), rtol=1e-5)
    np.testing.assert_array_equal(scores.diverged, 0)
    assert scores.mean["loss"][3] < scores.mean["loss"][0]


@pytest.mark.parametrize("inner_steps", [0, 2])
def test_the_mean_after_the_last_step_is_mamls_loss_with_the_same_key(inner_steps):
    key = jax.random.key(3)
    scores = evaluate_tasks(noisy_loss, SGD, inner_steps)(PARAMS, TASKS, key)
    assert scores.mean["loss"].shape == (inner_steps + 1,)
    expected = maml(noisy_loss, SGD, inner_steps)(PARAMS, TASKS, key)
    np.testing.assert_allclose(scores.mean["loss"][-1], expected, rtol=1e-6)


def test_groups_of_tasks_score_as_all_at_once():
    together = evaluate_tasks(loss_fn, SGD, 2)(PARAMS, TASKS)
    grouped = evaluate_tasks(loss_fn, SGD, 2, tasks_at_once=4)(PARAMS, TASKS)
    for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(grouped), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_learnt_rates_come_with_the_parameters():
    rates = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.05), PARAMS)
    learnt = {"params": PARAMS, "inner": rates}
    scores = evaluate_tasks(loss_fn, optim.scale_by_rates, 2)(learnt, TASKS)
    expected = evaluate_tasks(loss_fn, optim.sgd(0.05), 2)(PARAMS, TASKS)
    np.testing.assert_allclose(scores.values["loss"], expected.values["loss"], rtol=1e-6)


def test_every_number_of_steps_has_a_state_of_its_own():
    def loss(params: Any, state: Any, batch: Any, key: Any) -> Any:
        value = jnp.mean((params - batch - state) ** 2)
        return value, (state + 100, {"state": state})

    tasks = {"support": jnp.zeros((2, 1)), "query": jnp.ones((2, 1))}
    scores = evaluate_tasks(loss, optim.sgd(0.25), 2, stateful=True)(jnp.array(4.0), jnp.array([0.0, 1.0, 2.0]), tasks)
    np.testing.assert_array_equal(scores.values["state"][0], [0, 1, 2])
    after = np.array([4.0, 4 - 0.5 * 4, 2 - 0.5 * (2 - 0 - 1)])
    np.testing.assert_allclose(scores.mean["loss"], (after - 1 - np.arange(3)) ** 2)


def test_accuracy_over_episodes_is_a_metric_like_another():
    data = {"x": jnp.eye(4).repeat(5, 0), "y": np.repeat(np.arange(4), 5)}
    net = nets.linear(2)

    def loss(params: Any, batch: Any, key: Any) -> Any:
        logits = net.apply(params, batch["x"])
        return training.cross_entropy(logits, batch["y"]), {"accuracy": training.accuracy(logits, batch["y"])}

    tasks = training.episodes(data, ways=2, shots=1, queries=4)(jax.random.key(0), 20)
    params = jax.tree.map(jnp.zeros_like, net.init(jax.random.key(0), data["x"][0]))
    scores = evaluate_tasks(loss, optim.sgd(1.0), 1, has_aux=True)(params, tasks)
    np.testing.assert_array_equal(scores.mean["accuracy"], [0.5, 1])


def test_tasks_that_diverge_are_counted_and_leave_the_median_alone():
    def loss(w: jax.Array, given: Any, key: Any) -> jax.Array:
        return jnp.sum(given["target"] + given["rate"] * w)

    support = {"target": jnp.zeros((5, 1)), "rate": -jnp.ones((5, 1))}
    query = {"target": jnp.ones((5, 1)), "rate": jnp.array([[0.0], [0.0], [20.0], [jnp.inf], [jnp.nan]])}
    tasks = {"support": support, "query": query}
    scores = jax.jit(evaluate_tasks(loss, optim.sgd(5.0), 1))(jnp.array(1e-9), tasks)
    np.testing.assert_array_equal(scores.diverged, [2, 2])
    finite = jax.tree.map(lambda leaf: leaf[:3], tasks)
    scores = evaluate_tasks(loss, optim.sgd(5.0), 1)(jnp.array(0.0), finite)
    np.testing.assert_array_equal(scores.diverged, [0, 1])  # 101 after the step, 1 before it
    np.testing.assert_array_equal(scores.median["loss"], [1, 1])
    scores = evaluate_tasks(loss, optim.sgd(5.0), 1, diverged_above=101.0)(jnp.array(0.0), finite)
    np.testing.assert_array_equal(scores.diverged, [0, 0])


def test_a_score_that_is_not_a_number_counts_as_infinite_in_the_median():
    target = jnp.array([1.0, 2.0, jnp.nan, 3.0, jnp.nan])
    tasks = {"support": target, "query": target}
    scores = evaluate_tasks(lambda w, x, key: w * x, optim.sgd(0.1), 0)(jnp.array(1.0), tasks)
    assert scores.median["loss"].tolist() == [3.0]
    assert scores.diverged.tolist() == [2]
    assert np.isnan(scores.mean["loss"]).all()


def test_seeds_are_scored_side_by_side():
    evaluate = evaluate_tasks(loss_fn, SGD, 1)
    keys = jax.random.split(jax.random.key(5), 2)
    params = jax.vmap(lambda key: NET.init(key, jnp.ones(1)))(keys)
    together = jax.jit(jax.vmap(evaluate, (0, None)))(params, TASKS)
    alone = evaluate(jax.tree.map(lambda leaf: leaf[1], params), TASKS)
    np.testing.assert_allclose(together.mean["loss"][1], alone.mean["loss"], rtol=1e-5)


def test_evaluations_built_alike_are_equal():
    assert evaluate_tasks(loss_fn, optim.sgd(0.1), 2) == evaluate_tasks(loss_fn, optim.sgd(0.1), 2)
    assert repr(evaluate_tasks(loss_fn, optim.sgd(0.1), 2)) == "evaluate_tasks(loss_fn, sgd(0.1), 2)"


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "steps": (
        lambda: evaluate_tasks(loss_fn, SGD, -1),
        ValueError,
        "evaluate_tasks: expected inner_steps to be an integer of at least 0, got -1",
    ),
    "bound": (
        lambda: evaluate_tasks(loss_fn, SGD, 1, diverged_above=0.0),
        ValueError,
        "evaluate_tasks: expected diverged_above to be a number above 0, got 0.0",
    ),
    "groups": (
        lambda: evaluate_tasks(loss_fn, SGD, 1, tasks_at_once=0),
        ValueError,
        "evaluate_tasks: expected tasks_at_once to be an integer of at least 1, got 0",
    ),
    "tasks": (
        lambda: evaluate_tasks(loss_fn, SGD, 1)(PARAMS, {"support": TASKS["support"]}),
        ValueError,
        "evaluate_tasks: expected tasks to be {'support': batch, 'query': batch}, got ['support']",
    ),
    "inner": (
        lambda: evaluate_tasks(loss_fn, 0.1, 1),  # type: ignore
        TypeError,
        "evaluate_tasks: expected tx to be a link such as optim.adam(1e-3), got 0.1",
    ),
    "scalar": (
        lambda: evaluate_tasks(lambda params, batch, key: batch["x"], SGD, 1)(PARAMS, TASKS),
        TypeError,
        "evaluate_tasks: expected loss_fn to return a scalar loss, got shape (3, 1). Take its mean.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scored_is_refused(name):
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=rf"^{re.escape(message)}($|\n)"):
        make()


@pytest.mark.parametrize("shift", [-10.0, 0.0])
def test_losses_below_zero_have_not_diverged(shift):
    shifted = lambda w, batch, key: jnp.sum((w - batch) ** 2) + shift  # noqa: E731
    targets = {"support": jnp.array([1.0, 2.0]), "query": jnp.array([1.0, 2.0])}
    assert evaluate_tasks(shifted, optim.sgd(0.1), 2)(jnp.array(0.0), targets).diverged.tolist() == [0, 0, 0]
