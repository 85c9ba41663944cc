"""Averages of parameters against explicit lists of them."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import optim

from .trees import assert_close, assert_same, types

PARAMS = {"b": jnp.array([0.3, -0.2]), "w": jnp.array([[0.3, 0.9], [-0.2, -0.9]])}


def grad_fn(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.sin(3 * leaf) + 0.3, params)


def run(tx: Any, num_steps: int = 7, params: Any = PARAMS) -> tuple[list[Any], Any]:
    """Parameters before each step and at the end, and the last state."""
    state, seen, update = tx.init(params), [params], jax.jit(tx.update)
    for _ in range(num_steps):
        updates, state = update(grad_fn(seen[-1]), state, seen[-1])
        seen.append(optax.apply_updates(seen[-1], updates))
    return seen, state


def weighted(trees: list[Any], weights: Any) -> Any:
    weights = np.asarray(weights) / np.sum(weights)
    return jax.tree.map(lambda *leaves: sum(w * x for w, x in zip(weights, leaves, strict=True)), *trees)


AVERAGES: dict[str, tuple[Callable[[], Any], Callable[[list[Any]], Any]]] = {
    "ema": (
        lambda: optim.ema_params(0.8),
        lambda seen: weighted(seen[1:], [0.8**age for age in range(len(seen) - 1)][::-1]),
    ),
    "ema from the start": (
        lambda: optim.ema_params(0.8, debias=False),
        lambda seen: weighted(seen, [0.8 ** (len(seen) - 1), *(0.2 * 0.8**age for age in range(len(seen) - 1)[::-1])]),
    ),
    "ema without decay": (lambda: optim.ema_params(0.0), lambda seen: seen[-1]),
    "mean": (optim.average_params, lambda seen: weighted(seen[1:], np.ones(len(seen) - 1))),
    "mean of some": (
        lambda: optim.average_params(start=2, every=3),
        lambda seen: weighted(seen[3::3], np.ones(len(seen[3::3]))),
    ),
}
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "our chain": lambda link: optim.chain(optim.adam(0.1), link),
    "our named chain": lambda link: optim.chain(optim.adam(0.1), average=link),
    "Optax's chain": lambda link: optax.chain(optax.adam(0.1), link),
    "skip_not_finite": lambda link: optim.skip_not_finite(optim.chain(optim.adam(0.1), link)),
    "apply_if_finite": lambda link: optax.apply_if_finite(optax.chain(optax.adam(0.1), link), 3),
    "accumulate": lambda link: optim.accumulate(optim.chain(optim.adam(0.1), link), 1),
    "a mask of all": lambda link: optax.masked(optax.chain(optax.adam(0.1), link), {"b": True, "w": True}),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_is_that_of_the_list_of_parameters(name: str, wrapper: str):
    make, expected = AVERAGES[name]
    seen, state = run(WRAPPERS[wrapper](make()))
    assert_close(seen, run(optim.adam(0.1))[0])
    assert_close(optim.eval_params(state, seen[-1]), expected(seen))


@pytest.mark.parametrize("name", AVERAGES)
def test_before_the_first_step_the_average_is_the_parameters(name: str):
    assert_same(optim.eval_params(AVERAGES[name][0]().init(PARAMS), PARAMS), PARAMS)


def test_before_its_first_step_that_counts_the_mean_is_the_parameters():
    seen, state = run(optim.chain(optim.sgd(0.1), optim.average_params(start=100)))
    assert_same(optim.eval_params(state, seen[-1]), seen[-1])


def test_parameters_that_a_mask_hides_are_evaluated_as_they_are():
    only_w = {"b": False, "w": True}
    seen, state = run(optim.chain(optim.adam(0.1), optax.masked(optim.average_params(), only_w)))
    expected = {"b": seen[-1]["b"], "w": weighted(seen[1:], np.ones(7))["w"]}
    assert_close(optim.eval_params(state, seen[-1]), expected)


@pytest.mark.parametrize("name", AVERAGES)
def test_half_precision_parameters_are_averaged_in_single_precision(name: str):
    make, expected = AVERAGES[name]
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    seen, state = run(optim.chain(optim.sgd(0.05), make()), params=half)
    average = state[1].average
    assert {leaf.dtype for leaf in jax.tree.leaves(average)} == {jnp.dtype("float32")}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), seen)
    assert_close(average, expected(wide))
    assert types(optim.eval_params(state, seen[-1])) == types(half)


def slow_and_fast(sync_period: int, alpha: float, num_steps: int = 7) -> tuple[list[Any], Any]:
    """Lookahead over sgd, written as a loop."""
    seen, slow, fast = [PARAMS], PARAMS, PARAMS
    for step in range(1, num_steps + 1):
        fast = jax.tree.map(lambda p, g: p - 0.1 * g, fast, grad_fn(fast))
        if step % sync_period == 0:
            slow = fast = jax.tree.map(lambda s, f: s + alpha * (f - s), slow, fast)
        seen.append(fast)
    return seen, slow


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sync_period", [1, 3])
def test_lookahead_equals_a_loop(sync_period: int, alpha: float):
    seen, state = run(optim.lookahead(optim.sgd(0.1), sync_period, alpha))
    expected, slow = slow_and_fast(sync_period, alpha)
    assert_close(seen, expected)
    assert_close(optim.eval_params(state, seen[-1]), slow)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("eta", [0.1, 0.5])
def test_lookahead_contracts_the_bilinear_game_at_the_known_rate(eta: float):
    tx, sync_period, alpha = optim.lookahead(optim.sgd(eta), 20, 0.5), 20, 0.5
    params: Any = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
    state, update = tx.init(params), jax.jit(tx.update)
    lengths = []
    for step in range(3 * sync_period + 1):
        if step % sync_period == 0:
            lengths.append(float(jnp.hypot(params["x"], params["y"])))
        updates, state = update({"x": params["y"], "y": -params["x"]}, state, params)
        params = optax.apply_updates(params, updates)
    rate = abs(1 - alpha + alpha * (1 - 1j * eta) ** sync_period)
    np.testing.assert_allclose(np.array(lengths[1:]) / lengths[:-1], rate, rtol=1e-9)
    assert round(rate, 3) == {0.1: 0.573, 0.5: 4.163}[eta]


def test_past_extragradient_is_evaluated_where_its_iterate_stands():
    tx: Any = optim.past_extragradient(optim.sgd(0.1))
    seen, state = run(tx)
    iterate, ahead = PARAMS, PARAMS  # z_t and z_(t+1/2)
    for _ in range(7):
        grads = grad_fn(ahead)
        iterate = jax.tree.map(lambda z, g: z - 0.1 * g, iterate, grads)
        ahead = jax.tree.map(lambda z, g: z - 0.1 * g, iterate, grads)
    assert_close(seen[-1], ahead)
    assert_close(optim.eval_params(state, seen[-1]), iterate)


def test_optaxs_schedule_free_optimizers_are_known():
    tx: Any = optax.chain(optax.clip(10.0), optax.contrib.schedule_free_sgd(0.1, b1=0.9))
    seen, state = run(tx)
    expected: Any = optax.contrib.schedule_free_eval_params(state[1], seen[-1])
    assert_close(optim.eval_params(state, seen[-1]), expected)
    assert not jnp.allclose(jax.tree.leaves(expected)[0], seen[-1]["b"])


def test_what_has_no_one_view_is_refused_with_what_to_write():
    with pytest.raises(ValueError, match=re.escape("got none. Put ema_params(0.999) at the end of the chain.")):
        optim.eval_params(optim.adam(0.1).init(PARAMS), PARAMS)
    both = optim.chain(optim.masked(optim.ema_params(), "b"), optim.ema_params())
    with pytest.raises(ValueError, match="got AverageParamsState and AverageParamsState"):
        optim.eval_params(both.init(PARAMS), PARAMS)
    two = optim.chain(optim.lookahead(optim.sgd(0.1), 2), optim.ema_params())
    with pytest.raises(ValueError, match="got LookaheadState and AverageParamsState"):
        optim.eval_params(two.init(PARAMS), PARAMS)


def test_each_group_of_a_partition_may_have_its_own_view():
    bases = {"mean": optim.chain(optim.sgd(0.1), optim.average_params()), "slow": optim.lookahead(optim.sgd(0.2), 2)}
    tx = optim.partition(bases, {"b": "mean", "**": "slow"})
    seen, state = run(tx)
    alone = {name: run(base) for name, base in bases.items()}
    found = optim.eval_params(state, seen[-1])
    for path, name in {"b": "mean", "w": "slow"}.items():
        expected = optim.eval_params(alone[name][1], alone[name][0][-1])[path]
        np.testing.assert_allclose(found[path], expected, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.9999, 0.99999, 0.999999, 0.0])
def test_an_average_of_equal_parameters_is_exact_at_any_decay(decay: float):
    tx: Any = optim.ema_params(decay)
    state = tx.init(jnp.array(1.0))
    for _ in range(3):
        _, state = tx.update(jnp.array(0.0), state, jnp.array(1.0))
        np.testing.assert_allclose(state.average, 1, rtol=1e-6)


@pytest.mark.parametrize("tx", [optim.ema_params(), optim.average_params(), optim.lookahead(optim.sgd(0.1), 2)])
def test_update_needs_params(tx: Any):
    with pytest.raises(TypeError, match=re.escape("Write tx.update(grads, opt_state, params).")):
        tx.update(PARAMS, tx.init(PARAMS))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"decay of at least 0 and below 1, got 1\.0"):
        optim.ema_params(1.0)
    with pytest.raises(ValueError, match="start to be an integer of at least 0, got -1"):
        optim.average_params(start=-1)
    with pytest.raises(ValueError, match="every to be an integer of at least 1, got 0"):
        optim.average_params(every=0)
    with pytest.raises(ValueError, match=r"slow_step_size of at least 0 and at most 1, got 1\.5"):
        optim.lookahead(optim.sgd(0.1), 5, 1.5)
    with pytest.raises(ValueError, match="sync_period to be an integer of at least 1, got 0"):
        optim.lookahead(optim.sgd(0.1), 0)
