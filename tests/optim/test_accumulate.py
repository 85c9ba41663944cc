"""Accumulation against steps on the whole batch, and finite checks against Optax's."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import optim

from .trees import assert_close, assert_same, types

PARAMS = {"b": jnp.array([0.3, -0.2]), "w": jnp.array([[0.3, 0.9], [-0.2, -0.9], [0.4, 0.8]])}
BAD = [jnp.nan, jnp.inf, -jnp.inf]


def gradients(num: int, seed: int = 0) -> list[Any]:
    """Gradients of `PARAMS`, one for each micro-batch."""
    keys = jax.random.split(jax.random.key(seed), num)
    return [optax.tree.random_like(key, PARAMS) for key in keys]


def spoilt(grads: Any, value: float) -> Any:
    return grads | {"w": grads["w"].at[1, 1].set(value)}


def mean(grads: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), 0), *grads)


def run(tx: Any, given: list[Any], **extra: Any) -> tuple[Any, Any]:
    """Parameters and state after an update for each gradient."""
    params, state, update = PARAMS, tx.init(PARAMS), jax.jit(functools.partial(tx.update, **extra))
    for grads in given:
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def chain_of(name: str) -> Any:
    return {
        "sgd": optim.sgd(0.1),
        "adam": optim.adam(0.1),
        "adamw": optim.chain(optim.clip_by_global_norm(0.5), optim.adamw(0.1)),
        "noisy": optim.noisy_sgd(0.1, key=3),
    }[name]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "noisy"])
def test_accumulating_equals_steps_with_the_means(name: str):
    given = gradients(12)
    means = [mean(given[start : start + 4]) for start in (0, 4, 8)]
    params, state = run(optim.accumulate(chain_of(name), 4), given)
    assert_close((params, state.inner), run(chain_of(name), means))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_accumulating_good_gradients_equals_optaxs_multi_steps(name: str):
    given = gradients(9)
    steps: Any = optax.MultiSteps(chain_of(name), 4)
    assert_close(run(optim.accumulate(chain_of(name), 4), given)[0], run(steps, given)[0])


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", [0, 1, 3])
def test_a_bad_micro_batch_is_left_out_of_its_window_and_of_no_other(where: int, bad: float):
    given = gradients(8)
    means = [mean([grads for index, grads in enumerate(given[:4]) if index != where]), mean(given[4:])]
    given[where] = spoilt(given[where], bad)
    params, state = run(optim.accumulate(optim.adam(0.1), 4), given)
    assert_close((params, state.inner), run(optim.adam(0.1), means))


@pytest.mark.parametrize("bad", BAD)
def test_a_window_without_a_good_micro_batch_changes_nothing(bad: float):
    given = gradients(6)
    bad_window = [spoilt(grads, bad) for grads in given[2:4]]
    params, state = run(optim.accumulate(optim.adam(0.1), 2), [*given[:2], *bad_window, *given[4:]])
    assert_close((params, state.inner), run(optim.adam(0.1), [mean(given[:2]), mean(given[4:])]))


def test_updates_are_zero_within_a_window_and_the_chains_state_stays():
    tx: Any = optim.accumulate(optim.adam(0.1), 3)
    state: Any = tx.init(PARAMS)
    for grads in gradients(2):
        updates, after = tx.update(grads, state, PARAMS)
        assert_same(updates, optax.tree.zeros_like(PARAMS))
        assert_same(after.inner, state.inner)
        state = after
    assert int(state.seen) == int(state.good) == 2


def test_extra_arguments_reach_the_chain():
    given = [jax.tree.map(lambda leaf: leaf * 0.1, PARAMS)] * 2
    found = run(optim.accumulate(optim.polyak_sgd(), 2), given, value=jnp.array(0.5))[0]
    assert_close(found, run(optim.polyak_sgd(), given[:1], value=jnp.array(0.5))[0])


def test_the_buffer_may_be_wider_than_the_gradients():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    tx: Any = optim.accumulate(optim.sgd(1.0), 64, dtype="float32")
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1 / 3), half)
    last, state = lax.scan(lambda state, _: tx.update(grads, state, half)[::-1], tx.init(half), None, 64)
    assert {leaf.dtype for leaf in jax.tree.leaves(last.mean)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(last.mean["b"], float(grads["b"][0]), rtol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("bfloat16")}


def test_many_models_accumulate_side_by_side_each_with_its_own_bad_micro_batch():
    tx: Any = optim.accumulate(optim.adam(0.1), 2)
    given = [gradients(4, seed) for seed in (1, 2)]
    given[1][2] = spoilt(given[1][2], jnp.nan)
    apart = [run(tx, each) for each in given]

    def steps(given: Any) -> Any:
        def body(carry: Any, grads: Any) -> Any:
            updates, state = tx.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return lax.scan(body, (PARAMS, tx.init(PARAMS)), given)[0]

    stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
    together = jax.vmap(steps)(jax.tree.map(stack, *(jax.tree.map(stack, *each) for each in given)))
    assert_close(together, jax.tree.map(stack, *apart))


def test_derivatives_pass_through_windows():
    tx: Any = optim.accumulate(optim.sgd(0.5), 2)

    def after(x: jax.Array) -> jax.Array:
        state = tx.init(x)
        for _ in range(4):
            updates, state = tx.update(2 * x, state, x)
            x = x + updates
        return x

    np.testing.assert_allclose(jax.grad(after)(1.0), (1 - 0.5 * 2) ** 2, atol=1e-7)


def test_what_accumulate_refuses_says_what_to_write():
    with pytest.raises(ValueError, match=r"integer of at least 1, got 0"):
        optim.accumulate(optim.sgd(0.1), 0)
    with pytest.raises(ValueError, match=re.escape("chain(sam(0.05), accumulate(adam(1e-3), 4))")):
        optim.accumulate(optim.sam(0.05), 4)
    with pytest.raises(ValueError, match=re.escape("chain(sam(0.05), accumulate(adam(1e-3), 4))")):
        optim.accumulate(optax.chain(optim.sam(0.05), optax.sgd(0.1)), 4)
    with pytest.raises(TypeError, match="to be a link such as adam"):
        optim.accumulate(3, 4)  # pyright: ignore[reportArgumentType]


def test_gradients_of_tasks_are_accumulated_after_they_agree():
    tx: Any = optim.accumulate(optim.chain(optim.agreement(), optim.sgd(1.0)), 2)
    tasks, params = {"w": jnp.ones((3, 4))}, {"w": jnp.ones(4)}
    with pytest.raises(ValueError, match=re.escape("shape (4,) at w, got (3, 4). What takes gradients of tasks")):
        tx.update(tasks, tx.init(params), params)
    tx = optim.chain(optim.agreement(), optim.accumulate(optim.sgd(1.0), 2))
    state = tx.init(params)
    _, state = tx.update(tasks, state, params)
    updates, _ = tx.update(tasks, state, params)
    np.testing.assert_allclose(updates["w"], -3.0)


@pytest.mark.parametrize("sharpness", [optim.friendly_sam(0.1), optim.look_sam(0.1, every=2)], ids=repr)
@pytest.mark.parametrize("bad", range(3))
def test_what_sharpness_links_remember_survives_a_bad_micro_batch(sharpness: Any, bad: int):
    tx: Any = optim.chain(sharpness, optim.accumulate(optim.sgd(0.1), 2))
    params: Any = {"w": jnp.array([1.0, -2.0])}
    state = tx.init(params)
    for step in range(8):
        scale = jnp.nan if step == bad else 1.0
        grad_fn = lambda params, scale=scale: jax.tree.map(lambda w: scale * w, params)  # noqa: E731
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert jnp.abs(params["w"]).max() < 2 * 0.9**3


def many_kinds() -> optax.GradientTransformationExtraArgs:
    """A link whose state has a leaf of each kind, all of which change at every step."""

    def init(params: Any) -> Any:
        return {
            "bool": jnp.array(True),
            "int": jnp.array(0, jnp.int8),
            "key": jax.random.key(0),
            "raw": jax.random.PRNGKey(0),
            "none": None,
            "hole": optax.MaskedNode(),
            "half": jnp.zeros((), jnp.bfloat16),
            "same": jax.tree.map(jnp.zeros_like, params),
            "twice": jax.tree.map(jnp.zeros_like, params),
        }

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return updates, state | {
            "bool": ~state["bool"],
            "int": state["int"] + jnp.int8(1),
            "key": jax.random.split(state["key"])[0],
            "raw": jax.random.split(state["raw"])[0],
            "half": state["half"] + jnp.bfloat16(1),
            "same": updates,
            "twice": updates,
        }

    return optax.GradientTransformationExtraArgs(init, update)


def test_state_of_every_kind_of_leaf_is_kept_where_an_update_is_skipped():
    tx: Any = optim.skip_not_finite(many_kinds())
    (good,) = gradients(1)
    before: Any = tx.init(PARAMS)
    updates, after = jax.jit(tx.update)(good, before, PARAMS)
    assert types(after) == types(before)
    assert_same((updates, after.inner), many_kinds().update(good, before.inner))
    for bad in BAD:
        updates, kept = jax.jit(tx.update)(spoilt(good, bad), after, PARAMS)
        assert_same(updates, optax.tree.zeros_like(PARAMS))
        assert_same(kept.inner, after.inner)
        assert int(kept.skipped) == int(kept.in_a_row) == 1


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "noisy", "momentum", "optimistic", "noop", "lbfgs"])
@pytest.mark.parametrize("limit", [1, 2])
def test_skipping_equals_optaxs_apply_if_finite(name: str, limit: int):
    others = {
        "momentum": optim.sgd(0.1, momentum=0.9),
        "optimistic": optim.optimistic_gradient(0.1),
        "noop": optim.identity(),
        "lbfgs": optim.lbfgs(0.1, linesearch=None),
    }
    tx = others[name] if name in others else chain_of(name)
    given = gradients(8)
    for index in (0, 3, 5, 6):
        given[index] = spoilt(given[index], jnp.nan)  # two in a row are skipped or, at a limit of 1, the second is not
    ours, theirs = optim.skip_not_finite(tx, most_in_a_row=limit), optax.apply_if_finite(tx, limit)
    (params, state), (other, their_state) = run(ours, given), run(theirs, given)
    assert_close((params, state.inner), (other, their_state.inner_state))
    assert int(state.in_a_row) == int(their_state.notfinite_count)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [0, 17, 4095])
def test_one_number_that_is_not_finite_is_found(bad: float, place: int):
    tx: Any = optim.skip_not_finite(optim.sgd(1.0))
    grads = jnp.ones(4096).at[place].set(bad)
    for update in (tx.update, jax.jit(tx.update)):
        updates, state = update(grads, tx.init(grads), grads)
        assert not jnp.any(updates)
        assert int(state.skipped) == 1


def test_numbers_near_the_largest_are_finite():
    tx: Any = optim.skip_not_finite(optim.sgd(1.0))
    grads = jnp.full(4096, jnp.finfo(jnp.float32).max)
    assert int(tx.update(grads, tx.init(grads), grads)[1].skipped) == 0


@pytest.mark.parametrize("chain", [optim.chain, optax.chain])
def test_what_a_link_finds_elsewhere_is_checked_wherever_it_stands(chain: Any):
    tx: Any = optim.skip_not_finite(chain(optim.sam(0.1), optim.adam(0.1)))
    params = jnp.ones(2)
    updates, state = tx.update(params, tx.init(params), params, grad_fn=lambda params: params * jnp.nan)
    assert (state.skipped, jnp.abs(updates).max()) == (1, 0)


def test_what_a_link_finds_elsewhere_is_checked_too():
    tx: Any = optim.skip_not_finite(optim.chain(optim.sam(0.1), optim.adam(0.1)))
    (grads,) = gradients(1)
    state: Any = tx.init(PARAMS)
    found = spoilt(grads, jnp.nan)
    updates, after = tx.update(grads, state, PARAMS, grad_fn=lambda params: found)
    assert_same(updates, optax.tree.zeros_like(PARAMS))
    assert_same(after.inner, state.inner)


def test_skipping_under_vmap_chooses_for_each():
    tx: Any = optim.skip_not_finite(optim.adam(0.1))
    grads = jnp.array([[1.0, 2.0], [jnp.nan, 1.0]])
    updates, state = jax.vmap(lambda grads: tx.update(grads, tx.init(grads), grads))(grads)
    np.testing.assert_allclose(updates, [[-0.1, -0.1], [0, 0]], rtol=1e-5)
    assert state.skipped.tolist() == [0, 1]


def test_what_skip_not_finite_refuses_says_why():
    with pytest.raises(ValueError, match=r"integer of at least 1, got 0"):
        optim.skip_not_finite(optim.sgd(0.1), most_in_a_row=0)
