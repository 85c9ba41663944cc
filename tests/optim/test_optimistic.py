"""Optimistic gradient descent against its equation, Optax, and its known rates on the game f = xy."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import optim

from .trees import assert_same

GRADS = np.array([[0.3, -1.2], [1.1, 0.4], [-0.7, 2.0], [0.9, 0.1], [0.2, -0.5]])


def updates_for(tx: Any, grads: Any, params: Any = None) -> Any:
    """The updates that a link makes of a sequence of gradients."""
    opt_state = tx.init(grads[0] if params is None else params)
    return lax.scan(lambda state, g: tx.update(g, state, params)[::-1], opt_state, jnp.asarray(grads))[1]


def play(tx: Any, num_steps: int = 400) -> np.ndarray:
    """Points `x + iy` of the game f = xy, in which x descends and y ascends, from (1, 1) on."""

    def body(carry: Any, _: None) -> Any:
        point, opt_state = carry
        updates, opt_state = tx.update(jnp.stack([point[1], -point[0]]), opt_state, point)
        return (point + updates, opt_state), point + updates

    start = jnp.ones(2)
    points = lax.scan(body, (start, tx.init(start)), None, num_steps)[1]
    return np.concatenate([[1 + 1j], np.asarray(points) @ [1, 1j]])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("first_step", "before_first"), [("same", GRADS[0]), ("zero", np.zeros(2))])
def test_it_makes_the_steps_of_its_equation(first_step: Any, before_first: np.ndarray):
    previous = np.stack([before_first, *GRADS[:-1]])
    found = updates_for(optim.optimistic_gradient(0.1, first_step=first_step), GRADS)
    np.testing.assert_allclose(found, -2 * 0.1 * GRADS + 0.1 * previous, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("rate", [0.1, optim.cosine_decay_schedule(0.1, 4)], ids=["constant", "schedule"])
def test_with_the_same_first_step_it_is_bitwise_optaxs(rate: Any):
    ours, theirs = optim.optimistic_gradient(rate), optax.optimistic_gradient_descent(rate)
    assert_same(updates_for(ours, GRADS), updates_for(theirs, GRADS))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("first_step", "before_first"), [("same", GRADS[0]), ("zero", np.zeros(2))])
def test_a_schedule_weighs_both_gradients_of_its_step(first_step: Any, before_first: np.ndarray):
    previous = np.stack([before_first, *GRADS[:-1]])
    t = np.arange(5.0)[:, None]
    rate, alpha, beta = 0.1 * (t + 1), 1 + t, 2 - 0.25 * t
    tx = optim.optimistic_gradient(
        lambda step: 0.1 * (step + 1),
        alpha=lambda step: 1 + step,
        beta=lambda step: 2 - 0.25 * step,
        first_step=first_step,
    )
    expected = -rate * ((alpha + beta) * GRADS - beta * previous)
    np.testing.assert_allclose(updates_for(tx, GRADS), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("first_step", ["same", "zero"])
def test_on_the_bilinear_game_it_contracts_at_the_known_rate(first_step: Any):
    # A point is a sum of two powers, of the roots of z^2 - (1 - 2i eta) z - i eta. At eta = 0.1 the smaller root is
    # 0.1006 long: after 100 steps nothing of it is left, and the norm shrinks by the larger one at every step.
    norms = np.abs(play(optim.optimistic_gradient(0.1, first_step=first_step)))
    assert (norms[400] / norms[100]) ** (1 / 300) == pytest.approx(0.994936, abs=1e-6)
    np.testing.assert_allclose(norms[101:] / norms[100:-1], 0.994936, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_on_the_bilinear_game_gradient_descent_grows_at_the_known_rate():
    norms = np.abs(play(optim.sgd(0.1)))
    np.testing.assert_allclose(norms[1:] / norms[:-1], 1.004988, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_at_the_best_step_size_it_contracts_at_the_known_rate():
    # At eta = 1/2 both roots are (1 - i)/2, so that the norm shrinks as t 0.707107^t. The roots are those of the
    # recurrence z[t + 1] = p z[t] + q z[t - 1] that the measured points obey.
    points = play(optim.optimistic_gradient(0.5))
    scale = np.abs(points[1:-1])
    rows = np.stack([points[1:-1], points[:-2]], 1) / scale[:, None]
    (p, q), *_ = np.linalg.lstsq(rows, points[2:] / scale)
    np.testing.assert_allclose(rows @ [p, q], points[2:] / scale, atol=1e-12)
    assert np.abs(np.roots([1, -p, -q])) == pytest.approx(0.707107, abs=1e-6)


@pytest.mark.usefixtures("float64")
def test_it_converges_below_and_diverges_above_the_known_step_size():
    below, above = (np.abs(play(optim.optimistic_gradient(eta))) for eta in (0.5716, 0.5831))
    assert below[400] < 0.1 * below[100]
    assert above[400] > 10 * above[100]


@pytest.mark.parametrize("params_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("grads_dtype", [jnp.float32, jnp.bfloat16])
def test_the_state_has_the_dtype_of_parameters_and_updates_that_of_gradients(params_dtype: Any, grads_dtype: Any):
    tx: Any = optim.optimistic_gradient(0.1)
    grads = jnp.asarray(GRADS, grads_dtype)
    state = tx.init(jnp.zeros(2, params_dtype))
    for g in grads:
        updates, state = tx.update(g, state)
        assert (updates.dtype, state.previous.dtype, state.step.dtype) == (grads_dtype, params_dtype, jnp.int32)
    assert state.step == len(grads)


def test_a_negative_learning_rate_is_refused():
    with pytest.raises(ValueError, match=r"^optimistic_gradient: expected learning_rate of at least 0, got -0\.1$"):
        optim.optimistic_gradient(-0.1)


def test_an_unknown_first_step_is_refused():
    with pytest.raises(ValueError, match=r"^optimistic_gradient: expected first_step 'same' or 'zero', got 'none'$"):
        optim.optimistic_gradient(0.1, first_step="none")  # pyright: ignore[reportArgumentType]
