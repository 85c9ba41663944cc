"""Batches taken in parts, against whole ones."""

import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import microbatch

from ..optim.trees import assert_close

X = np.sin(np.arange(72.0, dtype=np.float32)).reshape(24, 3)
BATCH = {"x": X, "y": np.cos(3 * X[:, :1])}
NET = nets.mlp(8, 1, activation=jnp.tanh)
PARAMS = NET.init(jax.random.key(0), X)
CONVOLVED = nets.serial(nets.conv(4, 3), jnp.tanh, lambda x: x.mean((-3, -2)), nets.linear(1))


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    return training.squared_error(NET.apply(params, batch["x"]), batch["y"])


def loss_and_metrics(params: Any, batch: Any, key: Any) -> Any:
    predicted = NET.apply(params, batch["x"])
    return training.squared_error(predicted, batch["y"]), {
        "mean": predicted.mean(),
        "spread": (predicted**2).mean(),
        "count": jnp.int32(len(batch["x"])),
    }


@pytest.mark.parametrize("num_parts", [1, 2, 3, 8, 24])
def test_loss_and_gradient_are_those_of_the_whole_batch(num_parts):
    found = jax.jit(jax.value_and_grad(microbatch(loss_fn, num_parts)))(PARAMS, BATCH)
    assert_close(found, jax.value_and_grad(loss_fn)(PARAMS, BATCH, None), rtol=1e-6, atol=1e-7)


def test_in_float64_they_agree_to_rounding_under_any_key_free_loss():
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), (PARAMS, BATCH))
        found = jax.value_and_grad(microbatch(loss_fn, 6))(*wide)
        assert_close(found, jax.value_and_grad(loss_fn)(*wide, None), rtol=1e-12, atol=1e-14)
        assert found[0].dtype == jnp.float64


def test_metrics_are_means_over_the_parts():
    loss, metrics = jax.jit(microbatch(loss_and_metrics, 4, has_aux=True))(PARAMS, BATCH)
    expected_loss, expected = loss_and_metrics(PARAMS, BATCH, None)
    assert_close((loss, metrics), (expected_loss, expected | {"count": 6.0}), rtol=1e-6, atol=1e-7)


def test_the_state_of_a_network_goes_from_part_to_part():
    net = nets.serial(nets.linear(4), nets.batch_norm(), jnp.tanh, nets.linear(1))

    def stateful(params: Any, state: Any, batch: Any, key: Any) -> Any:
        predicted, state = net.apply(params, state, batch["x"], train=True)
        return training.squared_error(predicted, batch["y"]), (state, {"mean": predicted.mean()})

    params, state = net.init(jax.random.key(0), X)
    both = jax.value_and_grad(microbatch(stateful, 3, stateful=True), has_aux=True)
    (loss, (after, metrics)), grads = jax.jit(both)(params, state, BATCH)
    rows = []
    for number in range(3):
        part = {name: leaf[number::3] for name, leaf in BATCH.items()}
        (value, (state, row)), own = jax.value_and_grad(stateful, has_aux=True)(params, state, part, None)
        rows.append((value, row, own))
    expected = jax.tree.map(lambda *leaves: sum(leaves) / 3, *rows)
    assert_close((loss, metrics, grads), expected, rtol=1e-5, atol=1e-6)
    assert_close(after, state)


def test_every_part_has_a_key_of_its_own():
    noisy = lambda w, batch, key: jnp.mean(w * batch + jax.random.normal(key))  # noqa: E731
    key = jax.random.key(3)
    found = microbatch(noisy, 2)(1.0, jnp.zeros(4), key)
    expected = np.mean([jax.random.normal(jax.random.fold_in(key, number)) for number in range(2)])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("tx", [optim.adam(0.1), optim.chain(optim.sam(0.5), optim.sgd(0.1))], ids=repr)
def test_a_run_is_that_on_whole_batches_to_a_millionth(tx):
    def run(loss: Any) -> Any:
        step, train_state = jax.jit(training.step(loss, tx)), training.init(PARAMS, tx)
        for _ in range(5):
            train_state, _ = step(train_state, BATCH)
        return train_state.params

    assert_close(run(microbatch(loss_fn, 4)), run(loss_fn), rtol=1e-6, atol=1e-6)


def test_one_large_step_equals_accumulating_the_parts():
    tx = optim.accumulate(optim.sgd(0.1), 4)
    step, train_state = jax.jit(training.step(loss_fn, tx)), training.init(PARAMS, tx)
    for number in range(4):
        train_state, _ = step(train_state, {name: leaf[number::4] for name, leaf in BATCH.items()})
    once = training.step(microbatch(loss_fn, 4), optim.sgd(0.1))
    expected, _ = once(training.init(PARAMS, optim.sgd(0.1)), BATCH)
    assert_close(train_state.params, expected.params, rtol=1e-6, atol=1e-7)


def test_each_part_may_be_taken_under_a_scale_and_a_scale_over_parts_is_refused():
    within = microbatch(training.loss_scaled(loss_fn, double_every=3), 3, stateful=True)
    grads, (state, _) = jax.jit(jax.grad(within, has_aux=True))(PARAMS, training.loss_scale(), BATCH)
    assert_close(grads, jax.grad(loss_fn)(PARAMS, BATCH, None), rtol=1e-6, atol=1e-7)
    assert state.scale == 2**16
    message = (
        "loss_scaled: expected a loss whose gradient is taken where it is asked for, got microbatch, which takes its "
        "own. Put the scale inside: microbatch(loss_scaled(loss_fn), ...)."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        training.loss_scaled(microbatch(loss_fn, 3))


def test_a_network_that_convolves_runs_without_a_loop_on_cpus_with_the_same_numbers():
    images, labels = jnp.sin(jnp.arange(8.0 * 25)).reshape(8, 5, 5, 1), jnp.arange(8.0)[:, None]

    def convolved(params: Any, batch: Any, key: Any) -> jax.Array:
        return training.squared_error(CONVOLVED.apply(params, batch[0]), batch[1])

    params = CONVOLVED.init(jax.random.key(0), images)
    parted = jax.grad(microbatch(convolved, 2))
    assert_close(jax.jit(parted)(params, (images, labels)), jax.grad(convolved)(params, (images, labels), None))
    assert " while" not in jax.jit(parted).lower(params, (images, labels)).as_text()


def test_half_precision_gradients_are_summed_in_single_precision():
    w, x = jnp.bfloat16(1.0), jnp.concatenate([jnp.array([256.0]), jnp.ones(255)]).astype("bfloat16")
    grad = jax.grad(microbatch(lambda w, x, key: jnp.sum(w * x), 256))(w, x)
    assert grad.dtype == jnp.bfloat16
    assert grad == jnp.bfloat16(511 / 256)


def test_it_works_under_vmap_and_with_closed_over_tracers():
    def at(scale: jax.Array) -> Any:
        return jax.grad(microbatch(lambda w, x, key: jnp.mean(scale * (w - x) ** 2), 2))(1.0, jnp.arange(4.0))

    np.testing.assert_allclose(jax.jit(jax.vmap(at))(jnp.array([1.0, 2.0])), [-1.0, -2.0], rtol=1e-6)


def test_it_prints_compares_hashes_and_pickles_as_its_call():
    made = [microbatch(loss_and_metrics, 4, has_aux=True) for _ in range(2)]
    assert made[0] == made[1] == pickle.loads(pickle.dumps(made[0]))
    assert hash(made[0]) == hash(made[1])
    assert repr(made[0]) == "microbatch(loss_and_metrics, 4, has_aux=True)"


def test_batches_that_cannot_be_divided_are_refused():
    message = (
        "microbatch: expected arrays whose leading axis 5 divides, got shape (24, 3) at x of the batch. "
        "Give batches of a multiple of 5 examples."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        microbatch(loss_fn, 5)(PARAMS, BATCH)
    message = (
        "microbatch: expected arrays whose leading axis 2 divides, got shape () at the root of the batch. "
        "Give batches of a multiple of 2 examples."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        microbatch(loss_fn, 2)(PARAMS, jnp.float32(1))


def test_counts_and_losses_of_another_form_are_refused():
    message = "microbatch: expected num_parts to be an integer of at least 1, got 0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        microbatch(loss_fn, 0)
    message = "microbatch: expected loss_fn to return a scalar loss, got shape (3,). Take its mean."
    with pytest.raises(TypeError, match=f"(?m)^{re.escape(message)}$"):
        microbatch(lambda w, x, key: w * x, 2)(1.0, jnp.arange(6.0))
