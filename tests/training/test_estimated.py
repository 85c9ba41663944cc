"""Losses whose gradient is given go where losses go."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim, training
from renga.training import with_gradient


def signs(params: Any, batch: Any, key: Any) -> Any:
    loss, grads = jax.value_and_grad(lambda params: sum(jnp.sum((leaf - batch["x"]) ** 2) for leaf in params))(params)
    return loss, jax.tree.map(jnp.sign, grads)


BATCH = {"x": jnp.array(1.0), "index": jnp.arange(3)}


def test_its_gradient_is_the_given_one_times_what_it_is_multiplied_with():
    params, key = (jnp.array([3.0, -1.0]), jnp.array(0.0)), jax.random.key(0)
    loss = with_gradient(signs)
    value, slope = jax.jit(jax.value_and_grad(lambda params: 2 * loss(params, BATCH, key)))(params)
    assert value == 2 * (4 + 4 + 1)
    jax.tree.map(np.testing.assert_array_equal, slope, (np.array([2.0, -2.0]), np.array(-2.0)))


def test_batches_and_keys_count_as_constants():
    loss = with_gradient(signs)
    slope = jax.grad(lambda x: loss((jnp.array(3.0),), {"x": x}, jax.random.key(0)))(1.0)
    assert slope == 0


@pytest.mark.parametrize("kind", [jnp.float32, jnp.int32])
def test_it_may_close_over_what_is_mapped_and_compiled(kind: Any):
    def slope(scale: jax.Array) -> jax.Array:
        return jax.grad(with_gradient(lambda params, batch, key: (params, scale * 1.0)))(2.0)

    expected = [0.0, 1.0, 2.0]
    assert jax.vmap(slope)(jnp.arange(3).astype(kind)).tolist() == expected
    assert jax.jit(jax.vmap(slope))(jnp.arange(3).astype(kind)).tolist() == expected


def test_it_trains_in_a_step_with_metrics():
    def estimate(params: Any, batch: Any, key: Any) -> Any:
        loss, grads = signs(params, batch, key)
        return (loss, {"norm": jnp.abs(params[0])}), grads

    tx = optim.sgd(0.5)
    step = training.step(with_gradient(estimate, has_aux=True), tx, has_aux=True)
    train_state, metrics = jax.jit(step)(training.init((jnp.array(3.0),), tx), BATCH)
    assert train_state.params[0] == 2.5
    assert metrics["norm"] == 3


def test_it_works_in_double_and_half_precision():
    with jax.enable_x64(True):
        assert jax.grad(with_gradient(signs))((jnp.array(3.0, jnp.float64),), BATCH)[0].dtype == jnp.float64
    half = with_gradient(lambda params, batch, key: (jnp.sum(params).astype(jnp.float32), params))
    assert jax.grad(half)(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("grads", [{"v": jnp.ones(2)}, {"w": jnp.ones(3)}])
def test_grads_of_another_structure_or_shape_are_refused(grads: Any):
    found = f"got { {name: leaf.shape for name, leaf in grads.items()} }"
    message = f"with_gradient: expected grads as params are, {{'w': (2,)}}, {found}"
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.grad(with_gradient(lambda params, batch, key: (0.0, grads)))({"w": jnp.ones(2)})
