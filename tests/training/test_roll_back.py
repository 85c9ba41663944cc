"""Runs that go back where they would leave NaN, and the other policies beside it."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import roll_back, with_roll_back

from ..optim.trees import assert_close, assert_same

TX = optim.chain(optim.sgd(0.1, momentum=0.5), optim.ema_params(0.9))
X = jnp.sin(jnp.arange(8.0))


def loss_fn(w: jax.Array, x: jax.Array, key: Any) -> jax.Array:
    return jnp.mean((w - x + 0.1 * jax.random.normal(key)) ** 2)


STEP = training.step(loss_fn, TX)


def begin() -> training.TrainState:
    return training.init(jnp.array(1.0), TX, key=jax.random.key(0))


def run(step: Any, train_state: Any, batches: Any) -> Any:
    compiled, rows = jax.jit(step), []
    for batch in batches:
        train_state, metrics = compiled(train_state, batch)
        rows.append(metrics)
    return train_state, rows


def test_where_all_is_finite_it_is_the_step():
    found, rows = run(roll_back(STEP, every=2), with_roll_back(begin()), X)
    expected, plain = run(STEP, begin(), X)
    assert_close((found.params, found.opt_state, found.step), (expected.params, expected.opt_state, expected.step))
    assert_close([row["loss"] for row in rows], [row["loss"] for row in plain])
    assert [row["rolled_back"].item() for row in rows] == [0] * 8
    assert found.state.state is None
    assert_close(optim.eval_params(found.opt_state, found.params), optim.eval_params(expected.opt_state, found.params))


def test_a_broken_step_goes_back_to_the_last_kept_state_and_on_with_other_keys_and_batches():
    batches = X.at[5].set(jnp.nan)
    found, rows = run(roll_back(STEP, every=2), with_roll_back(begin()), batches)
    kept, _ = run(STEP, begin(), X[:4])
    expected, _ = run(STEP, kept._replace(step=jnp.int32(6)), X[6:])
    assert_close((found.params, found.opt_state, found.step), (expected.params, expected.opt_state, expected.step))
    assert [row["rolled_back"].item() for row in rows] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert (found.state.kept_step, found.state.times) == (8, 1)


def test_what_diverges_over_several_steps_is_undone_where_skipping_changes_nothing():
    def log_loss(w: jax.Array, x: jax.Array, key: Any) -> jax.Array:
        return x * jnp.sqrt(w)  # a step too far makes w negative, finite, and every later gradient NaN

    tx = optim.sgd(1.0)
    batches = jnp.array([0.1, 0.1, 100.0, 0.1, 0.1])
    skipped, _ = run(training.step(log_loss, optim.skip_not_finite(tx)), training.init(jnp.array(4.0), tx), [])
    tx_skip = optim.skip_not_finite(tx)
    skipped, _ = run(training.step(log_loss, tx_skip), training.init(jnp.array(4.0), tx_skip), batches)
    assert skipped.params < 0
    assert skipped.opt_state.skipped == 2
    back, rows = run(
        roll_back(training.step(log_loss, tx), every=2), with_roll_back(training.init(jnp.array(4.0), tx)), batches
    )
    assert back.params > 3.8
    assert [row["rolled_back"].item() for row in rows] == [0, 0, 0, 1, 0]


def test_a_run_that_went_back_too_often_stays_where_it_was_kept():
    batches = jnp.full(8, jnp.nan).at[:2].set(X[:2])
    found, rows = run(roll_back(STEP, every=2, at_most=3), with_roll_back(begin()), batches)
    kept, _ = run(STEP, begin(), X[:2])
    assert_close((found.params, found.opt_state, found.step), (kept.params, kept.opt_state, kept.step))
    assert [row["rolled_back"].item() for row in rows] == [0, 0, 1, 1, 1, 0, 0, 0]
    name = "broken/parameters after going back 3 times"
    assert [row[name].item() for row in rows] == [0, 0, 0, 0, 0, 1, 1, 1]
    after, _ = run(roll_back(STEP, every=2, at_most=3), found, X)
    assert_same(after.params, found.params)


def test_fit_stops_and_says_how_often_it_went_back():
    feed = [X[number] for number in range(4)] + [jnp.array(jnp.inf)] * 20
    step = roll_back(STEP, every=4, at_most=2)
    with pytest.raises(training.NotFiniteError) as caught:
        training.fit(step, with_roll_back(begin()), feed, num_steps=24, report_every=8, progress=False)
    message = (
        "fit: expected finite players, got parameters after going back 2 times with NaN or infinity. A smaller "
        "learning rate, or a clip of its gradient, may help; the last good train state is of step 4."
    )
    assert str(caught.value) == message
    assert_close(caught.value.train_state.params, run(STEP, begin(), X[:4])[0].params)


def test_fit_goes_back_and_on_to_the_end_and_is_taken_up_bitwise(tmp_path):
    data = np.array(jnp.sin(jnp.arange(40.0)))
    data[17] = np.nan

    def one(train_state: Any, batch: Any) -> Any:
        return roll_back(STEP, every=3, at_most=4)(train_state, batch[0])

    feed = training.batches(data, 1, key=jax.random.key(1))
    fit = functools.partial(training.fit, one, with_roll_back(begin()), feed, report_every=10, progress=False)
    whole, history = fit(num_steps=80)
    assert np.isfinite(whole.params)
    assert whole.state.times == 2
    assert sum(row["rolled_back"] * 10 for row in history) == 2
    saved = training.Checkpoints(tmp_path)
    fit(num_steps=30, checkpoints=saved)
    resumed, rows = fit(num_steps=80, checkpoints=saved)
    assert_same((resumed.params, resumed.opt_state, resumed.state), (whole.params, whole.opt_state, whole.state))
    np.testing.assert_array_equal([row["loss"] for row in rows], [row["loss"] for row in history])


def test_statistics_of_a_network_go_back_too():
    net = nets.serial(nets.batch_norm(), nets.linear(1))

    def stateful(params: Any, state: Any, batch: Any, key: Any) -> Any:
        _, state = net.apply(params, state, batch, train=True)
        return jnp.sum(params["linear"]["w"] ** 2), (state, {})

    tx = optim.sgd(0.1)
    params, state = net.init(jax.random.key(0), jnp.ones((2, 1)))
    step = roll_back(training.step(stateful, tx, stateful=True), every=1)
    before, _ = step(with_roll_back(training.init(params, tx, state=state)), jnp.array([[1.0], [3.0]]))
    after, metrics = step(before, jnp.array([[jnp.nan], [1.0]]))
    assert metrics["rolled_back"] == 1
    assert_same((after.params, after.state.state), (before.params, before.state.state))


def test_members_of_an_ensemble_go_back_each_for_itself():
    step = jax.jit(jax.vmap(roll_back(STEP, every=1)))
    members = jax.vmap(lambda w: with_roll_back(begin()._replace(params=w)))(jnp.array([1.0, 2.0]))
    found, metrics = step(members, jnp.array([jnp.nan, 0.0]))
    assert metrics["rolled_back"].tolist() == [1, 0]
    assert found.params[0] == 1
    assert found.params[1] != 2


@pytest.mark.parametrize("wrapped", [optim.skip_not_finite(TX), optim.accumulate(TX, 1)], ids=["skip", "accumulate"])
def test_skipped_updates_are_counted_by_fit_with_one_compilation_and_the_run_goes_on(wrapped):
    feed = [x if number != 5 else jnp.array(jnp.nan) for number, x in enumerate(X)]
    train_state = training.init(jnp.array(1.0), wrapped, key=jax.random.key(0))
    found, _ = training.fit(training.step(loss_fn, wrapped), train_state, feed, num_steps=8, progress=False)
    rest = [*range(5), 6, 7]
    keyed, inner = begin(), begin()
    for number in rest:
        inner, _ = STEP(
            keyed._replace(params=inner.params, opt_state=inner.opt_state, step=jnp.int32(number)), X[number]
        )
    assert_close((found.params, found.opt_state.inner), (inner.params, inner.opt_state))
    assert getattr(found.opt_state, "skipped", 1) == 1
    assert found.step == 8


def test_it_prints_compares_and_hashes_as_its_call():
    made = [roll_back(training.step(loss_fn, TX), every=5) for _ in range(2)]
    assert made[0] == made[1]
    assert hash(made[0]) == hash(made[1])
    assert repr(made[0]) == f"roll_back({STEP!r}, every=5)"


def test_counts_and_other_train_states_are_refused():
    for name, options in (("every", {"every": 0}), ("at_most", {"every": 1, "at_most": 0})):
        message = f"roll_back: expected {name} to be an integer of at least 1, got 0"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            roll_back(STEP, **options)
    message = (
        "roll_back: expected a train state that can go back, got one whose state is NoneType. "
        "Write training.with_roll_back(training.init(params, tx))."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        roll_back(STEP, every=1)(begin(), X[0])
