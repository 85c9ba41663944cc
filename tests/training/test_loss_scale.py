"""Losses in float16 under a scale, against float32, and how the scale moves."""

import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import nets, optim, training
from renga.training import LossScale, loss_scale, loss_scaled

from ..optim.trees import assert_close, assert_same

X = np.sin(np.arange(48.0, dtype=np.float32)).reshape(16, 3)
BATCH = {"x": X, "y": np.cos(3 * X[:, :1])}
NET = nets.mlp(8, 1, activation=jnp.tanh)
HALF = nets.cast(NET, compute="float16", outputs="float32")
PARAMS = NET.init(jax.random.key(0), X)
SMALL = 2.0**-22  # of which the gradients of a float16 network are nearly all below float16's smallest number


def loss_of(net: Any, factor: float = SMALL) -> Any:
    return lambda params, batch, key: factor * training.squared_error(net.apply(params, batch["x"]), batch["y"])


def start(tx: Any, params: Any = PARAMS, initial: float = 2.0**15, state: Any = None) -> training.TrainState:
    return training.init(params, tx, state=loss_scale(initial, state=state))


def run(loss_fn: Any, tx: Any, num_steps: int, **options: Any) -> Any:
    step = jax.jit(training.step(loss_scaled(loss_fn, **options), tx, stateful=True))
    train_state, rows = start(tx), []
    for _ in range(num_steps):
        train_state, metrics = step(train_state, BATCH)
        rows.append(metrics)
    return train_state, rows


def plain(loss_fn: Any, tx: Any, num_steps: int) -> Any:
    step, train_state = jax.jit(training.step(loss_fn, tx)), training.init(PARAMS, tx)
    for _ in range(num_steps):
        train_state, _ = step(train_state, BATCH)
    return train_state


def test_float16_gradients_that_vanish_without_a_scale_are_those_of_float32_with_it():
    expected = jax.grad(loss_of(NET))(PARAMS, BATCH, None)
    without = jax.grad(loss_of(HALF))(PARAMS, BATCH, None)
    found = jax.grad(loss_scaled(loss_of(HALF)), has_aux=True)(PARAMS, loss_scale(), BATCH)[0]
    norms = [optax.tree.norm(jax.tree.map(jnp.subtract, grads, expected)) for grads in (without, found)]
    size = optax.tree.norm(expected)
    assert norms[0] > 0.05 * size
    assert norms[1] < 0.005 * size


def test_training_in_float16_ends_near_training_in_float32():
    tx = optim.skip_not_finite(optim.adam(0.03, eps=1e-14))
    found, rows = run(loss_of(HALF), tx, 60)
    expected = plain(loss_of(NET), tx, 60)
    losses = [loss_of(NET, 1.0)(params, BATCH, None) for params in (PARAMS, found.params, expected.params)]
    assert losses[1] < 0.1 * losses[0]
    assert losses[1] == pytest.approx(losses[2].item(), rel=0.05)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((found.params, rows)))


def test_in_float32_a_power_of_two_changes_no_bit():
    loss_fn = loss_of(NET, 1.0)
    value, grads = jax.jit(jax.value_and_grad(loss_fn))(PARAMS, BATCH, None)
    (loss, _), found = jax.jit(jax.value_and_grad(loss_scaled(loss_fn), has_aux=True))(PARAMS, loss_scale(), BATCH)
    assert_same((loss, found), (value, grads))


@pytest.mark.parametrize(
    "tx",
    [
        optim.chain(optim.clip_by_global_norm(0.1), optim.adam(0.1)),
        optim.chain(optim.sam(0.5), optim.sgd(0.1)),
        optim.accumulate(optim.adam(0.1), 2),
        optim.skip_not_finite(optim.chain(optim.sam(0.5), optim.clip(0.01), optim.adam(0.1))),
    ],
    ids=repr,
)
def test_links_see_the_gradient_of_the_loss_itself(tx):
    found, rows = run(loss_of(NET, 1.0), tx, 4, double_every=2)
    assert_close(found.params, plain(loss_of(NET, 1.0), tx, 4).params)
    assert [row["loss_scale"].item() for row in rows] == [2.0**15, 2.0**15, 2.0**16, 2.0**16]


def by_factor(params: Any, batch: Any, key: Any) -> Any:
    return jnp.sum(params.astype("float16") * batch)


def test_the_scale_is_halved_at_overflow_and_doubled_after_so_many_good_ones():
    tx = optim.skip_not_finite(optim.sgd(1.0))
    step = jax.jit(training.step(loss_scaled(by_factor, double_every=2), tx, stateful=True))
    train_state, seen = start(tx, jnp.zeros(2), 2.0**15), []
    for factor in (1, 4, 1, 1, 1, 4):  # 4 * 2^15 is beyond float16, 4 * 2^14 is not finite either: 65504 is the largest
        train_state, metrics = step(train_state, jnp.float16(factor))
        seen.append((metrics["loss_scale"].item() / 2**14, metrics["overflow"].item(), train_state.params[0].item()))
    assert seen == [(2, 0, -1), (2, 1, -1), (1, 0, -2), (1, 0, -3), (2, 0, -4), (2, 1, -4)]
    assert train_state.opt_state.skipped == 2
    assert (train_state.state.scale, train_state.state.good) == (2**14, 0)


def test_the_scale_stays_between_one_and_two_to_the_24():
    loss = loss_scaled(lambda w, x, key: w * x, double_every=1)
    least = loss(1.0, loss_scale(1.0), jnp.inf)[1][0]
    most = loss(1.0, loss_scale(2.0**24), 1.0)[1][0]
    assert (least.scale, most.scale) == (1, 2**24)


def test_the_state_of_a_network_goes_on_and_stays_where_the_gradient_overflows():
    net = nets.serial(nets.linear(4), nets.batch_norm(), jnp.tanh, nets.linear(1))

    def loss_fn(params: Any, state: Any, batch: Any, key: Any) -> Any:
        predicted, state = net.apply(params, state, batch["x"], train=True)
        return training.squared_error(predicted, batch["y"]), (state, {"mean": predicted.mean()})

    params, state = net.init(jax.random.key(0), X)
    tx = optim.skip_not_finite(optim.sgd(0.1))
    step = jax.jit(training.step(loss_scaled(loss_fn, stateful=True), tx, stateful=True))
    found, metrics = step(start(tx, params, state=state), BATCH)
    expected, plain_metrics = jax.jit(training.step(loss_fn, tx, stateful=True))(
        training.init(params, tx, state=state), BATCH
    )
    assert_close((found.params, found.state.state), (expected.params, expected.state))
    assert_close({name: metrics[name] for name in plain_metrics}, plain_metrics)
    after, metrics = step(found, BATCH | {"x": jnp.full_like(X, jnp.inf)})
    assert metrics["overflow"] == 1
    assert_same((after.params, after.state.state), (found.params, found.state.state))


def test_metrics_of_the_loss_come_through_unscaled():
    loss = loss_scaled(lambda w, x, key: (w * x, {"twice": 2 * w * x}), has_aux=True)
    _, (_, metrics) = loss(3.0, loss_scale(8.0), 2.0)
    assert {name: float(value) for name, value in metrics.items()} == {"twice": 12, "loss_scale": 8, "overflow": 0}


def test_a_loss_under_a_scale_is_mapped_and_differentiated_under_jit_in_float64():
    with jax.enable_x64(True):
        w, x = jnp.array([0.5, 2.0]), jnp.array(3.0)
        loss = loss_scaled(lambda w, x, key: jnp.cosh(w * x), has_aux=False)
        grads = jax.jit(jax.vmap(lambda w: jax.grad(loss, has_aux=True)(w, loss_scale(), x)[0]))(w)
        np.testing.assert_allclose(grads, 3 * np.sinh(3 * np.array(w)), rtol=1e-14)
        assert grads.dtype == jnp.float64


def test_fit_reports_the_scale_and_takes_the_run_up(tmp_path):
    tx = optim.skip_not_finite(optim.adam(0.01))
    step = training.step(loss_scaled(loss_of(HALF), double_every=3), tx, stateful=True)
    feed = training.batches(BATCH, 4, key=jax.random.key(1))
    saved = training.Checkpoints(tmp_path)
    training.fit(step, start(tx), feed, num_steps=5, report_every=5, checkpoints=saved, progress=False)
    resumed, history = training.fit(
        step, start(tx), feed, num_steps=10, report_every=5, checkpoints=saved, progress=False
    )
    whole, rows = training.fit(step, start(tx), feed, num_steps=10, report_every=5, progress=False)
    assert_same((resumed.params, resumed.state), (whole.params, whole.state))
    assert history == rows
    assert sorted(rows[0]) == ["loss", "loss_scale", "overflow", "step"]


def test_it_prints_compares_hashes_and_pickles_as_its_call():
    made = [loss_scaled(by_factor, double_every=5) for _ in range(2)]
    assert made[0] == made[1] == pickle.loads(pickle.dumps(made[0]))
    assert hash(made[0]) == hash(made[1])
    assert repr(made[0]) == "loss_scaled(by_factor, double_every=5)"


@pytest.mark.parametrize("initial", [3.0, 0.5, 2.0**25, 0, float("nan"), True, "1"])
def test_a_scale_that_is_no_such_power_of_two_is_refused(initial):
    message = (
        f"loss_scale: expected initial to be a power of two from 1 to 2^24, got {initial!r}. Other factors round every "
        "gradient."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss_scale(initial)


def test_counts_other_states_and_half_parameters_are_refused():
    message = "loss_scaled: expected double_every to be an integer of at least 1, got 0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss_scaled(by_factor, double_every=0)
    message = (
        "loss_scaled: expected the state of a loss scale, got NoneType. "
        "Write training.init(params, tx, state=training.loss_scale())."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        loss_scaled(by_factor)(jnp.zeros(2), None, 1.0)  # pyright: ignore[reportArgumentType]
    message = (
        "loss_scaled: expected parameters of float32, got float16 at a/w. Their gradients would be lost when they are "
        "divided: nets.cast(net, compute='float16') casts them in apply."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        loss_scaled(lambda params, batch, key: jnp.sum(params["a"]["w"]))(
            {"a": {"w": jnp.zeros(2, "float16")}}, loss_scale(), None
        )


def test_the_state_is_a_pytree_of_arrays():
    assert isinstance(loss_scale(), LossScale)
    assert [leaf.dtype for leaf in jax.tree.leaves(loss_scale())] == [jnp.float32, jnp.int32]
