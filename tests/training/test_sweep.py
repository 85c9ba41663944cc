"""Sweeps against one run after another, and what changing their values costs."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import loop, sweep

from ..optim.trees import assert_close

NET = nets.mlp(6, 1)
X = jnp.linspace(-1, 1, 16)[:, None]
OVER = {"learning_rate": [0.01, 0.03, 0.1, 0.3], "rho": [0.0, 0.1]}


def loss_fn(params: Any, batch: jax.Array, key: Any) -> jax.Array:
    return training.squared_error(NET.apply(params, batch), jnp.sin(3 * batch))


def train(values: dict[str, Any], key: jax.Array) -> Any:
    """Training by SAM over Adam, whose radius and rate are arguments."""
    tx = optim.chain(optim.sam(values["rho"]), optim.adam(values["learning_rate"]))
    init_key, order_key = jax.random.split(key)
    run = loop(training.step(loss_fn, tx), lambda key: jax.random.choice(key, X, (4,)), 10)
    train_state, metrics = run(training.init(NET.init(init_key, X), tx), order_key)
    return train_state.params, {"loss": metrics["loss"][-1], "losses": metrics["loss"]}


def quadratic(values: dict[str, Any], key: jax.Array) -> Any:
    found = (values["x"] - 2.0) ** 2 + values.get("y", 0.0)
    return {"x": values["x"]}, {"loss": found}


@pytest.fixture(scope="module")
def swept() -> training.Sweep:
    return sweep(train, OVER, seeds=4)


def test_32_members_equal_32_solo_runs(swept):
    solo, members = jax.jit(train), 0
    for rate in OVER["learning_rate"]:
        for rho in OVER["rho"]:
            for seed in range(4):
                values = {"learning_rate": jnp.float32(rate), "rho": jnp.float32(rho)}
                params, metrics = solo(values, jax.random.key(seed))
                found = swept.member(members)
                assert_close((found.results, found.metrics), (params, metrics), 1e-6)
                assert found.values["learning_rate"] == jnp.float32(rate)
                assert found.values["rho"] == jnp.float32(rho)
                assert found.values["seed"] == seed
                members += 1
    assert members == 32 == len(swept.metrics["loss"])


def test_other_values_and_seeds_compile_nothing():
    traces = []

    def run(values: dict[str, Any], key: jax.Array) -> Any:
        traces.append(1)
        return quadratic(values, key)

    sweep(run, {"x": [0.0, 1.0], "y": [5.0]}, seeds=3)
    num = len(traces)
    found = sweep(run, {"x": [2.0, 7.0], "y": [1.0]}, seeds=[9, 4, 6])
    assert len(traces) - num <= 1  # a look at what it is made of, no compilation
    np.testing.assert_array_equal(found.metrics["loss"], [1, 1, 1, 26, 26, 26])
    np.testing.assert_array_equal(found.values["seed"], [9, 4, 6, 9, 4, 6])
    before = len(traces)
    sweep(run, {"x": [3.0, 8.0], "y": [0.0]}, seeds=3, members_at_once=6)
    assert len(traces) == before


@pytest.mark.parametrize("size", [1, 5, 32, 100])
def test_members_come_in_parts_as_they_come_together(swept, size):
    parts = sweep(train, OVER, seeds=4, members_at_once=size)
    assert_close(parts, swept, 1e-6)


def test_parts_are_one_program_also_where_the_last_is_smaller():
    traces = []

    def run(values: dict[str, Any], key: jax.Array) -> Any:
        traces.append(1)
        return quadratic(values, key)

    found = sweep(run, {"x": jnp.arange(7.0)}, members_at_once=3)
    assert len(traces) == 1
    np.testing.assert_array_equal(found.results["x"], np.arange(7))


def test_a_run_that_convolves_goes_by_itself_on_a_cpu():
    def run(values: dict[str, Any], key: jax.Array) -> Any:
        kernel = values["scale"] * jnp.ones((2, 2, 1, 1))
        y = jax.lax.conv_general_dilated(
            jnp.ones((1, 3, 3, 1)), kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return None, {"sum": y.sum()}

    def goes_alone(**options: int) -> bool:
        traced = jax.make_jaxpr(lambda: sweep(run, {"scale": [1.0, 2.0]}, **options).metrics)()
        return "f32[1,2,2,1] = conv_general_dilated" in str(traced)

    np.testing.assert_allclose(sweep(run, {"scale": [1.0, 2.0]}).metrics["sum"], [16, 32])
    assert not goes_alone(members_at_once=2)
    assert goes_alone() == (jax.default_backend() == "cpu")


def test_the_best_member_is_finite(swept):
    best = swept.best("loss")
    assert best.metrics["loss"] == swept.metrics["loss"].min()
    assert swept.best("loss", "max").metrics["loss"] == swept.metrics["loss"].max()
    found = sweep(lambda values, key: (None, {"loss": jnp.log(values["x"])}), {"x": [-1.0, 0.0, 2.0, 3.0]})
    assert found.best("loss").values["x"] == 2
    assert found.best("loss", "max").values["x"] == 3


def test_rows_over_seeds_are_means_and_standard_deviations(swept):
    table = swept.over_seeds("loss")
    losses = np.asarray(swept.metrics["loss"]).reshape(8, 4)
    np.testing.assert_allclose(table["mean"], losses.mean(1), rtol=1e-6)
    np.testing.assert_allclose(table["spread"], losses.std(1, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(table["learning_rate"], np.repeat(OVER["learning_rate"], 2))
    np.testing.assert_allclose(table["rho"], np.tile(OVER["rho"], 4))
    alone = sweep(quadratic, {"x": [1.0]}).over_seeds("loss")
    assert np.isnan(alone["spread"]).all()


def test_without_values_it_is_over_seeds():
    found = sweep(lambda values, key: (None, {"draw": jax.random.normal(key)}), {}, seeds=[3, 1])
    np.testing.assert_array_equal(found.metrics["draw"], [jax.random.normal(jax.random.key(seed)) for seed in (3, 1)])


def test_it_can_be_compiled_differentiated_and_mapped():
    def best(target: jax.Array) -> jax.Array:
        def run(values: dict[str, Any], key: jax.Array) -> Any:
            return None, {"loss": (values["x"] - target) ** 2}

        found = sweep(run, {"x": [0.0, 1.0]}, seeds=2)
        return found.best("loss").metrics["loss"] + found.over_seeds("loss")["mean"].sum()

    assert jax.jit(best)(1.5) == pytest.approx(0.25 + 2.25 + 0.25)
    assert jax.grad(best)(1.5) == pytest.approx(1 + 3 + 1)
    np.testing.assert_allclose(jax.vmap(best)(jnp.array([0.0, 1.5])), [1.0, 2.75])
    slope = jax.grad(lambda x: sweep(quadratic, {"x": [x, 2 * x]}).metrics["loss"].sum())(3.0)
    assert slope == pytest.approx(2 * 1 + 2 * 4 * 2)


def test_values_keep_their_dtypes():
    with jax.enable_x64(True):
        found = sweep(quadratic, {"x": [0.1]})
        assert found.metrics["loss"].dtype == jnp.float64
        assert float(found.metrics["loss"][0]) == (0.1 - 2) ** 2
    seen = sweep(lambda values, key: (values, {}), {"count": [1, 2], "on": [True, False]}).results
    assert seen["count"].dtype == jnp.int32
    assert seen["on"].tolist() == [True, True, False, False][::2] * 2


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        (
            {"x": []},
            {},
            "sweep: expected over['x'] to be a list of one number or more, got [].",
        ),
        (
            {"x": 0.5},
            {},
            "sweep: expected over['x'] to be a list of one number or more, got 0.5.",
        ),
        (
            {"x": "0.5"},
            {},
            "sweep: expected over['x'] to be a list of one number or more, got '0.5'.",
        ),
        (
            {"x": ["adam", "sgd"]},
            {},
            "sweep: expected over['x'] to be a list of numbers, got ['adam', 'sgd']. What is no number shapes the "
            "program: sweep over it in Python.",
        ),
        (
            {"x": [[1.0], [2.0]]},
            {},
            "sweep: expected over['x'] to be a list of numbers, got [[1.0], [2.0]]. What is no number shapes the "
            "program: sweep over it in Python.",
        ),
        (
            {"seed": [1, 2]},
            {},
            "sweep: expected names of hyper-parameters in over, got 'seed'. Give seeds as seeds=[...].",
        ),
        ({"x": [1.0]}, {"seeds": 0}, "sweep: expected seeds to be an integer of at least 1, got 0"),
        (
            {"x": [1.0]},
            {"seeds": [1, 1]},
            "sweep: expected seeds to be different integers in [0, 2**32), got [1, 1].",
        ),
        ({"x": [1.0]}, {"seeds": [-1]}, "sweep: expected seeds to be different integers in [0, 2**32), got [-1]."),
        ({"x": [1.0]}, {"seeds": []}, "sweep: expected seeds to be different integers in [0, 2**32), got []."),
        (
            {"x": [1.0]},
            {"members_at_once": 0},
            "sweep: expected members_at_once to be an integer of at least 1, got 0",
        ),
    ],
)
def test_bad_arguments_are_refused(over, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sweep(quadratic, over, **options)


@pytest.mark.parametrize(
    ("run", "given"),
    [
        (lambda values, key: values["x"], "an array"),
        (lambda values, key: (values, {}, None), "a tuple of 3"),
        (lambda values, key: (None, values["x"]), "a tuple of 2"),
        (lambda values, key: [None, {}], "a list"),
    ],
)
def test_a_run_that_returns_something_else_is_refused(run, given):
    with pytest.raises(TypeError) as caught:
        sweep(run, {"x": [1.0]})
    message = f"sweep: expected run(values, key) to return (result, metrics), metrics a dict, got {given}."
    assert str(caught.value).split("\n")[0] == message


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda found: found.best("los"),
            "best: expected one of the metrics loss, losses, got 'los'.",
        ),
        (lambda found: found.best("loss", "least"), "best: expected mode to be 'min' or 'max', got 'least'."),
        (
            lambda found: found.over_seeds("losses"),
            "over_seeds: expected metrics/losses to be a scalar for each member, got shape (10,). Return one of its "
            "elements, or its mean, as a metric of its own.",
        ),
    ],
)
def test_a_metric_that_cannot_be_compared_is_refused(swept, ask, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ask(swept)


def test_a_member_that_there_is_not_is_refused():
    found = sweep(quadratic, {"x": [1.0, 2.0, 3.0]})
    assert found.member(-1).values["x"] == 3
    for index in (3, -4):
        message = f"member: expected index to be in [-3, 2], got {index}."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            found.member(index)
