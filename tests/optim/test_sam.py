"""Sharpness-aware minimisation against closed forms and loops in NumPy."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import optim, training

from .trees import assert_close, assert_same

A = {"u": np.array([[1.0, 0.5], [-0.3, 2.0], [0.7, -0.4]]), "v": np.array([[0.2], [1.5], [-0.8]])}
TARGET = np.array([0.4, -0.2, 0.3])
START = {"u": np.array([0.9, -0.6]), "v": np.array([1.2])}


def loss_fn(params: dict, batch: Any = None, key: Any = None) -> jax.Array:
    """A strictly convex loss of two vectors, `sum(log(cosh(z)) - target * z)` with `z = A_u u + A_v v`."""
    u, v, target = (jnp.asarray(constant, jnp.result_type(params["u"])) for constant in (A["u"], A["v"], TARGET))
    z = u @ params["u"] + v @ params["v"]
    return jnp.sum(jnp.logaddexp(z, -z) - target * z)


def grad(params: dict) -> dict:
    """Its gradient, in NumPy."""
    z = A["u"] @ params["u"] + A["v"] @ params["v"]
    return {name: A[name].T @ (np.tanh(z) - TARGET) for name in params}


def climb(params: dict, grads: dict, rho: float) -> dict:
    """`params + rho * grads / norm(grads)`, in NumPy."""
    norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
    return {name: params[name] + rho * grads.get(name, 0) / norm for name in params}


def run(tx: Any, params: Any = START, num_steps: int = 5, loss_fn: Callable[..., Any] = loss_fn) -> Any:
    """Parameters after some steps of a loop as one writes it by hand."""
    opt_state = tx.init(params)
    for _ in range(num_steps):
        updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params, grad_fn=jax.grad(loss_fn))
        params = optax.apply_updates(params, updates)
    return params


def quadratic(curvature: float) -> Callable[[jax.Array], jax.Array]:
    return lambda x: 0.5 * curvature * jnp.sum(x**2)


def step_length(tx: Any, params: jax.Array, loss_fn: Callable[..., Any]) -> float:
    return jnp.linalg.norm(run(tx, params, 1, loss_fn) - params).item()


@pytest.mark.usefixtures("float64")
def test_it_ends_in_the_two_cycle_of_a_quadratic():
    eta, curvature, rho = 0.1, 3.0, 0.2
    tx = optim.chain(optim.sam(rho), optim.sgd(eta))
    step = training.step(lambda x, batch, key: quadratic(curvature)(x), tx)

    def body(train_state: training.TrainState, batch: None) -> tuple[training.TrainState, jax.Array]:
        train_state = step(train_state, batch)[0]
        return train_state, train_state.params

    xs = lax.scan(body, training.init(jnp.array(1.0), tx), None, 200)[1]
    size = eta * curvature * rho / (2 - eta * curvature)
    assert round(size, 7) == 0.0352941
    np.testing.assert_allclose(jnp.abs(xs[-10:]), size, rtol=1e-12)
    np.testing.assert_array_equal(jnp.sign(xs[-10:-1]), -jnp.sign(xs[-9:]))


def test_a_zero_gradient_gives_a_zero_step():
    at_minimum = {"u": jnp.zeros(2), "v": jnp.zeros(3)}
    loss_fn = lambda params: sum(quadratic(3.0)(leaf) for leaf in params.values())  # noqa: E731
    assert_same(run(optim.chain(optim.sam(0.2), optim.sgd(0.1)), at_minimum, 2, loss_fn), at_minimum)


def test_the_derivative_of_a_step_from_a_zero_gradient_is_finite():
    def after(x: jax.Array, rho: jax.Array, eta: jax.Array) -> jax.Array:
        return quadratic(1.0)(run(optim.chain(optim.sam(rho), optim.sgd(eta)), x, 2, quadratic(3.0)) - 1.0)

    grads = jax.grad(after, (0, 1, 2))(jnp.zeros(2), 0.2, 0.1)
    np.testing.assert_allclose(grads[0], -((1 - 0.1 * 3) ** 2) * np.ones(2), rtol=1e-6)  # the perturbation is constant
    assert jax.tree.map(float, grads[1:]) == (0.0, 0.0)


@pytest.mark.usefixtures("float64")
def test_the_derivative_through_steps_is_that_of_finite_differences():
    def after(rho: Any) -> jax.Array:
        return loss_fn(run(optim.chain(optim.sam(rho), optim.sgd(0.1)), num_steps=3))

    difference = (after(0.3 + 1e-6) - after(0.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(after)(0.3), difference, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_over_sgd_it_equals_a_loop_in_numpy():
    params = START
    for _ in range(5):
        grads = grad(climb(params, grad(params), rho=0.3))
        params = {name: params[name] - 0.1 * grads[name] for name in params}
    assert_close(run(optim.chain(optim.sam(0.3), optim.sgd(0.1))), params, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_over_adam_it_equals_a_loop_in_numpy():
    params, eta, b1, b2, eps = START, 0.1, 0.9, 0.999, 1e-8
    m = v = {name: 0.0 for name in params}
    for t in range(1, 6):
        grads = grad(climb(params, grad(params), rho=0.3))
        m = {name: b1 * m[name] + (1 - b1) * grads[name] for name in params}
        v = {name: b2 * v[name] + (1 - b2) * grads[name] ** 2 for name in params}
        for name in params:
            ratio = (m[name] / (1 - b1**t)) / (np.sqrt(v[name] / (1 - b2**t)) + eps)
            params = params | {name: params[name] - eta * ratio}
    assert_close(run(optim.chain(optim.sam(0.3), optim.adam(eta))), params, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_with_a_schedule_every_step_has_its_own_radius():
    params = START
    for rho in (0.4, 0.3, 0.2, 0.1, 0.0):
        grads = grad(climb(params, grad(params), rho))
        params = {name: params[name] - 0.1 * grads[name] for name in params}
    tx = optim.chain(optim.sam(optim.linear_schedule(0.4, 0.0, 4)), optim.sgd(0.1))
    assert_close(run(tx), params, rtol=1e-6)  # Optax computes schedules in float32


def test_with_radius_zero_it_is_the_base():
    assert_same(run(optim.chain(optim.sam(0.0), optim.adam(0.1))), run(optim.adam(0.1)))


def test_its_state_shows_how_far_it_looked():
    tx: Any = optim.sam(0.3)
    state = tx.init(START)
    assert_same(state, optim.SharpnessState(jnp.zeros((), jnp.int32), jnp.zeros(()), ()))
    for step in (1, 2):
        _, state = tx.update(grad(START), state, START, grad_fn=jax.grad(loss_fn))
        assert state.step == step
        assert state.perturbation_norm == pytest.approx(0.3, rel=1e-6)
    nothing = jax.tree.map(np.zeros_like, START)
    assert tx.update(nothing, state, START, grad_fn=jax.grad(loss_fn))[1].perturbation_norm == 0


def test_the_length_of_the_incoming_updates_does_not_matter():
    scaled = optim.chain(optim.scale(1e-3), optim.sam(0.3), optim.sgd(0.1))
    assert_close(run(scaled), run(optim.chain(optim.sam(0.3), optim.sgd(0.1))))


@pytest.mark.usefixtures("float64")
def test_a_clip_before_it_does_not_bound_the_step_and_one_after_it_does():
    params, loss_fn = jnp.array([0.6, 0.8]), quadratic(10.0)  # a gradient of length 10, or 10.5 at radius 0.05
    clip, sam, sgd = optim.clip_by_global_norm(0.01), optim.sam(0.05), optim.sgd(0.01)
    assert step_length(optim.chain(clip, sam, sgd), params, loss_fn) == pytest.approx(0.105, rel=1e-9)
    assert step_length(optim.chain(sam, clip, sgd), params, loss_fn) == pytest.approx(1e-4, rel=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "tx",
    [
        optim.chain(optim.masked(optim.sam(0.3), {"u": True, "v": False}), optim.sgd(0.1)),
        optim.chain(optax.masked(optim.sam(0.3), {"u": True, "v": False}), optim.sgd(0.1)),
        optim.partition(
            {"sam": optim.chain(optim.sam(0.3), optim.sgd(0.1)), "plain": optim.sgd(0.1)}, {"u": "sam", "v": "plain"}
        ),
    ],
    ids=["masked", "masked by Optax", "partition"],
)
def test_in_a_mask_it_perturbs_only_what_it_sees(tx: Any):
    params = START
    for _ in range(5):
        grads = grad(params)
        grads["u"] = grad(climb(params, {"u": grads["u"]}, rho=0.3))["u"]
        params = {name: params[name] - 0.1 * grads[name] for name in params}
    step = training.step(loss_fn, tx)
    train_state = training.init(START, tx)
    for _ in range(5):
        train_state, _ = step(train_state, None)
    assert_close(train_state.params, params, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_two_parts_of_a_partition_may_each_have_their_own():
    tx = optim.partition(
        {"u": optim.chain(optim.sam(0.3), optim.sgd(0.1)), "v": optim.chain(optim.sam(0.1), optim.sgd(0.2))},
        {"u": "u", "v": "v"},
    )
    train_state, _ = training.step(loss_fn, tx)(training.init(START, tx), None)
    grads = grad(START)
    expected = {
        "u": START["u"] - 0.1 * grad(climb(START, {"u": grads["u"]}, rho=0.3))["u"],
        "v": START["v"] - 0.2 * grad(climb(START, {"v": grads["v"]}, rho=0.1))["v"],
    }
    assert_close(train_state.params, expected, rtol=1e-12)


def test_a_guard_against_infinities_leaves_it_out_where_the_gradient_is_not_finite():
    tx = optim.chain(optim.apply_if_finite(optim.sam(0.3), 3), optim.sgd(0.1))
    infinite = jax.tree.map(lambda leaf: leaf * jnp.inf, START)
    updates, _ = tx.update(infinite, tx.init(START), START, grad_fn=jax.grad(loss_fn))
    assert_same(updates, jax.tree.map(lambda leaf: -0.0 * jnp.asarray(leaf), START))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_of_half_precision_keep_their_dtype(dtype: Any):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), START)
    seen = []

    def grad_fn(params: Any) -> Any:
        seen.append(params)
        return jax.grad(loss_fn)(params)

    tx = optim.sam(0.3)
    updates, _ = tx.update(jax.grad(loss_fn)(params), tx.init(params), params, grad_fn=grad_fn)
    assert {leaf.dtype for leaf in jax.tree.leaves((seen, updates))} == {jnp.dtype(dtype)}
    assert_close(seen[0], jax.tree.map(lambda leaf: leaf.astype(dtype), climb(START, grad(START), 0.3)), rtol=1e-2)


def test_a_norm_beyond_the_range_of_float16_is_found():
    params = jnp.zeros(2, jnp.float16)
    large = jnp.array([3e4, 4e4], jnp.float16)
    tx: Any = optim.sam(0.5)
    seen, _ = tx.update(large, tx.init(params), params, grad_fn=lambda params: params)
    np.testing.assert_allclose(seen, np.array([0.3, 0.4], np.float16), rtol=1e-3)


def test_complex_parameters_climb_along_the_incoming_updates():
    tx: Any = optim.sam(0.5)
    params = jnp.array([1.0 + 1.0j])
    seen, _ = tx.update(jnp.array([3.0 + 4.0j]), tx.init(params), params, grad_fn=lambda params: params)
    np.testing.assert_allclose(seen, [1.3 + 1.4j], rtol=1e-6)


@pytest.mark.parametrize("missing", ["grad_fn", "params"])
def test_what_is_missing_in_update_is_said_with_the_line_to_write(missing: str):
    tx = optim.chain(optim.sam(0.05), optim.sgd(0.1))
    given: dict[str, Any] = {"params": START, "grad_fn": jax.grad(loss_fn)}
    line = "tx.update(found.grads, opt_state, params, **found.extra)"
    with pytest.raises(
        TypeError, match=rf"^sam: expected params and grad_fn in update, got no {missing}\. .*{re.escape(line)}"
    ):
        tx.update(grad(START), tx.init(START), **(given | {missing: None}))


@pytest.mark.parametrize("rho", [-0.1, -1, float("nan")])
def test_a_negative_radius_is_refused(rho: float):
    with pytest.raises(ValueError, match=rf"^sam: expected rho of at least 0, got {rho}$"):
        optim.sam(rho)
