"""Rates for each parameter and each step, against sums by hand."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim

GRADS = {"w": np.array([1.0, 2.0]), "deep": {"b": np.array(3.0), "c": np.array([4.0, 5.0])}}


def test_a_rate_stands_for_all_below_it():
    tx: Any = optim.scale_by_rates({"w": jnp.array([1.0, 10.0]), "deep": 0.5})
    updates, _ = tx.update(GRADS, tx.init(GRADS))
    np.testing.assert_allclose(updates["w"], [-1, -20])
    np.testing.assert_allclose(updates["deep"]["b"], -1.5)
    np.testing.assert_allclose(updates["deep"]["c"], [-2, -2.5])


def test_a_rate_of_each_step_is_taken_in_turn_and_the_last_stays():
    tx: Any = optim.scale_by_step_rates({"w": np.array([[1.0, 1.0], [2.0, 3.0]]), "deep": [1.0, 2.0, 4.0]})
    state, w, b = tx.init(GRADS), [], []
    for _ in range(4):
        updates, state = tx.update(GRADS, state)
        w.append(updates["w"].tolist())
        b.append(updates["deep"]["b"].item())
    assert w == [[-1, -2], [-2, -6], [-2, -6], [-2, -6]]
    assert b == [-3, -6, -12, -12]


def test_halves_stay_halves():
    tx: Any
    grads = {"w": jnp.ones(2, jnp.bfloat16)}
    for tx in (optim.scale_by_rates({"w": np.ones(2)}), optim.scale_by_step_rates({"w": [0.5]})):
        assert tx.update(grads, tx.init(grads))[0]["w"].dtype == jnp.bfloat16


def test_rates_of_another_tree_or_without_steps_are_refused():
    tx: Any = optim.scale_by_rates({"w": 1.0, "other": 1.0})
    message = (
        "scale_by_rates: expected rates that begin as the updates do, PyTreeDef({'deep': {'b': *, 'c': *}, 'w': *})"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        tx.update(GRADS, tx.init(GRADS))
    with pytest.raises(
        ValueError,
        match=r"^scale_by_step_rates: expected rates/w with an axis of steps in front, got shape \(\)$",
    ):
        optim.scale_by_step_rates({"w": 1.0})
    with pytest.raises(
        ValueError, match=r"^scale_by_step_rates: expected rates with an axis of steps in front, got shape \(0,\)$"
    ):
        optim.scale_by_step_rates(np.zeros(0))


def test_rates_larger_than_what_they_scale_are_refused():
    tx: Any = optim.scale_by_rates({"b": np.full(4, 0.1)})
    message = "scale_by_rates: expected rates that broadcast to updates of shape (), got shape (4,)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tx.update({"b": jnp.array(1.0)}, tx.init({"b": jnp.array(1.0)}))


def test_parts_without_arrays_have_no_rates():
    params = ((jnp.ones((2, 2)), jnp.ones(2)), (), (jnp.ones(3),))
    rates = ((jnp.full(5, 0.1), jnp.full(5, 0.2)), (), (jnp.full(5, 0.3),))
    tx: Any = optim.scale_by_step_rates(rates)
    updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_allclose(updates[2][0], -0.3, rtol=1e-6)
