"""Gradients of tasks made to agree, against the published algorithm in NumPy."""

import pickle
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim
from renga.optim import agreement

from .trees import assert_close, types

PARAMS = {"b": jnp.zeros(2), "w": jnp.zeros((3, 2))}


def gradients(num_tasks: int, seed: int = 0) -> dict[str, jax.Array]:
    drawn = np.random.default_rng(seed)
    return {name: jnp.asarray(drawn.normal(size=(num_tasks, *leaf.shape))) for name, leaf in PARAMS.items()}


def published(rows: np.ndarray, orders: list[list[int]]) -> np.ndarray:
    """The sum of the projected gradients `[tasks, numbers]`: algorithm 1, each task with its order of the others."""
    projected = rows.copy()
    for task, order in enumerate(orders):
        for other in order:
            along = projected[task] @ rows[other]
            if other != task and along < 0:
                projected[task] -= along / (rows[other] @ rows[other]) * rows[other]
    return projected.sum(0)


def flat(tree: Any, num_axes: int = 0) -> np.ndarray:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(*leaf.shape[:num_axes], -1) for leaf in leaves], -1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 5])
def test_without_a_key_tasks_meet_in_their_order(num_tasks: int, reduce: Literal["sum", "mean"]):
    for seed in range(3):
        grads = gradients(num_tasks, seed)
        update, _ = agreement(reduce=reduce).update(grads, agreement().init(PARAMS), PARAMS)
        expected = published(flat(grads, 1), [list(range(num_tasks))] * num_tasks)
        np.testing.assert_allclose(flat(update), expected / (num_tasks if reduce == "mean" else 1), rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_with_a_key_every_task_draws_its_own_order_at_every_step():
    grads, tx = gradients(4, seed=1), agreement(key=3)
    state: Any = tx.init(PARAMS)
    found = []
    for _ in range(3):
        now, after = jax.random.split(state.key)
        orders = [jax.random.permutation(key, 4).tolist() for key in jax.random.split(now, 4)]
        update, state = tx.update(grads, state)
        np.testing.assert_allclose(flat(update), published(flat(grads, 1), orders), rtol=1e-9)
        assert (jax.random.key_data(state.key) == jax.random.key_data(after)).all()
        found.append(flat(update))
    assert not np.allclose(found[0], found[1])
    assert_close(tx.init(PARAMS), agreement(key=jax.random.key(3)).init(PARAMS))


def test_gradients_that_agree_are_added_up():
    grads = {name: jnp.abs(leaf) for name, leaf in gradients(3).items()}
    update, _ = agreement().update(grads, agreement().init(PARAMS))
    assert_close(update, jax.tree.map(lambda leaf: leaf.sum(0), grads))


def test_two_opposite_gradients_cancel_and_a_zero_one_is_finite():
    grads = jnp.array([[1.0, 2.0], [-1.0, -2.0], [0.0, 0.0]])

    def total(size: Any) -> Any:
        update: Any = agreement().update(size * grads, agreement().init(grads[0]), grads[0])[0]
        return update.sum()

    assert abs(total(1.0)) < 1e-6
    assert all(jnp.isfinite(jax.grad(total)(size)) for size in (0.0, 1.0))


def test_the_update_loses_no_task_of_two():
    for seed in range(20):
        grads = gradients(2, seed)
        update, _ = agreement(reduce="mean").update(grads, agreement().init(PARAMS))
        assert (flat(grads, 1) @ flat(update) > -1e-5).all()


def test_it_stands_first_in_a_chain_of_a_jitted_step():
    def losses(params: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sum(jnp.square(params - 1)), jnp.sum(jnp.square(params[0] + 1))])

    tx, params = optim.chain(agreement(key=0, reduce="mean"), optim.adam(0.1)), jnp.zeros(3)
    state = tx.init(params)
    step = jax.jit(lambda params, state: tx.update(jax.jacrev(losses)(params), state, params))
    for _ in range(100):
        updates, state = step(params, state)
        params = params + updates
    np.testing.assert_allclose(params[1:], 1, atol=0.05)  # the tasks quarrel about the first only
    assert abs(params[0]) < 1.1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_comes_out_as_it_went_in(dtype: str):
    grads = jax.tree.map(lambda leaf: leaf.astype(dtype), gradients(3))
    update, _ = agreement().update(grads, agreement().init(PARAMS))
    assert types(update) == types(jax.tree.map(lambda leaf: leaf[0], grads))


def test_it_prints_compares_hashes_and_pickles_as_its_call():
    tx = agreement(key=3, reduce="mean")
    assert repr(tx) == "agreement(key=3, reduce='mean')"
    assert (tx, hash(tx)) == (agreement(key=3, reduce="mean"), hash(pickle.loads(pickle.dumps(tx))))


@pytest.mark.parametrize(
    ("grads", "params", "message"),
    [
        (
            jnp.ones((2, 3)),
            jnp.ones((2, 3)),
            "[tasks, ...] for parameters [...], got shapes [(2, 3)] for [(2, 3)]. Write",
        ),
        (
            jnp.ones(()),
            None,
            "got shapes [()]. Write agreement() first in a chain, and jax.jacrev(losses)(params) where",
        ),
        ({"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))}, None, "got shapes [(2, 3), (3, 3)]. Write agreement() first"),
    ],
)
def test_gradients_without_one_axis_of_tasks_are_refused(grads: Any, params: Any, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        agreement().update(grads, agreement().init(params), params)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match=r"^agreement: expected reduce 'sum' or 'mean', got 'max'$"):
        agreement(reduce="max")  # pyright: ignore[reportArgumentType]
