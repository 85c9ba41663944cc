"""Ensembles against their members alone, and the errors of ensembles."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training

from ..optim.trees import assert_close, assert_same

X = np.sin(np.arange(24.0, dtype=np.float32)).reshape(8, 3)
BATCH = {"x": X, "y": np.cos(3 * X[:, :1])}
OWN = jax.tree.map(lambda leaf: np.stack([leaf, leaf[::-1] + 1, leaf * 2]), BATCH)
NET = nets.mlp(4, 1, activation=jnp.tanh)
NOISY = nets.serial(nets.linear(8), nets.dropout(0.5), nets.linear(1))
CONVOLVING = nets.serial(nets.conv(2, 3), jnp.tanh, lambda x: x.mean((-3, -2)), nets.linear(1))
NORMED = nets.serial(nets.linear(4), nets.batch_norm(), nets.linear(1))
KEYS = jax.random.split(jax.random.key(0), 3)


def loss_fn(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
    return training.squared_error(NET.apply(params, batch["x"]), batch["y"])


def noisy_loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
    return training.squared_error(NOISY.apply(params, batch["x"], key=key, train=True), batch["y"])


def convolving_loss(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
    return training.squared_error(CONVOLVING.apply(params, batch["x"]), batch["y"])


def normed_loss(params: Any, state: Any, batch: Any, key: jax.Array | None) -> Any:
    predicted, state = NORMED.apply(params, state, batch["x"], train=True)
    return training.squared_error(predicted, batch["y"]), (state, {})


def members(net: nets.Net, tx: optim.Link, x: Any = X) -> list[training.TrainState]:
    return [training.init(net.init(key, x), tx, key=jax.random.fold_in(key, 1)) for key in KEYS]


def alone(step: Any, train_states: list[training.TrainState], batches: list[Any], num_steps: int = 3) -> Any:
    """What each member comes to by itself, and its last metrics."""
    compiled, found = jax.jit(step), []
    for train_state, batch in zip(train_states, batches, strict=True):
        metrics = None
        for _ in range(num_steps):
            train_state, metrics = compiled(train_state, batch)
        found.append((train_state, metrics))
    return found


def together(step: Any, train_states: Any, batch: Any, num_steps: int = 3) -> Any:
    compiled, metrics = jax.jit(step), None
    for _ in range(num_steps):
        train_states, metrics = compiled(train_states, batch)
    return train_states, metrics


def check(step: Any, train_states: list[training.TrainState], batch: Any, *, shared: bool) -> None:
    """Members of an ensemble go as they go alone."""
    batches = [batch] * 3 if shared else nets.unstack(batch)
    expected = alone(step, train_states, batches)
    whole = training.ensemble(step, 3, batches="shared" if shared else "own")
    found, metrics = together(whole, training.join_members(train_states), batch)
    assert found.step.shape == ()
    for member, row, (wanted, wanted_row) in zip(
        training.split_members(found), nets.unstack(metrics), expected, strict=True
    ):
        assert_close((member, row), (wanted, wanted_row))


@pytest.mark.parametrize("shared", [True, False])
def test_members_equal_their_solo_runs_under_adam(shared):
    tx = optim.adam(0.1)
    check(training.step(loss_fn, tx), members(NET, tx), BATCH if shared else OWN, shared=shared)


@pytest.mark.parametrize("shared", [True, False])
def test_convolving_members_equal_their_solo_runs(shared):
    x = np.sin(np.arange(3 * 4 * 5 * 5, dtype=np.float32)).reshape(3, 4, 5, 5, 1)
    own, tx = {"x": x, "y": x[:, :, 0, 0]}, optim.sgd(0.1)
    batch = jax.tree.map(lambda leaf: leaf[0], own) if shared else own
    check(training.step(convolving_loss, tx), members(CONVOLVING, tx, x[0]), batch, shared=shared)


def test_on_cpus_convolving_members_stand_side_by_side_and_others_under_vmap():
    tx, x = optim.sgd(0.1), np.ones((4, 5, 5, 1), np.float32)
    batch = {"x": x, "y": x[:, 0, 0]}
    whole = training.ensemble(training.step(convolving_loss, tx), 3, batches="shared")
    traced = str(jax.make_jaxpr(whole)(training.join_members(members(CONVOLVING, tx, x)), batch))
    plain = training.ensemble(training.step(loss_fn, tx), 3, batches="shared")
    dense = str(jax.make_jaxpr(plain)(training.join_members(members(NET, tx)), BATCH))
    one = str(jax.make_jaxpr(training.step(loss_fn, tx))(members(NET, tx)[0], BATCH))
    num_alone = str(jax.make_jaxpr(training.step(convolving_loss, tx))(members(CONVOLVING, tx, x)[0], batch)).count(
        "conv_general_dilated["
    )
    assert traced.count("conv_general_dilated[") == 3 * num_alone
    assert dense.count("dot_general[") == one.count("dot_general[")


def test_each_member_has_its_own_dropout():
    tx = optim.sgd(0.1)
    train_states = members(NOISY, tx)
    check(training.step(noisy_loss, tx), train_states, BATCH, shared=True)
    same = [train_states[0]._replace(key=key) for key in KEYS]
    _, metrics = together(training.ensemble(training.step(noisy_loss, tx), 3, batches="shared"), _joined(same), BATCH)
    assert len(set(metrics["loss"].tolist())) == 3


def test_each_member_has_its_own_batch_statistics():
    tx = optim.sgd(0.1)
    train_states = [training.init(params, tx, state=state) for params, state in (NORMED.init(key, X) for key in KEYS)]
    check(training.step(normed_loss, tx, stateful=True), train_states, OWN, shared=False)


def test_each_member_has_its_own_learning_rate():
    tx, rates = optim.inject_hyperparams(optim.sgd(0.1)), (0.0, 0.1, 0.5)
    params = NET.init(KEYS[0], X)
    train_states = [
        training.TrainState(
            params, optim.set_hyperparams(tx.init(params), {"sgd/learning_rate": rate}), None, jnp.int32(0), None
        )
        for rate in rates
    ]
    whole = training.ensemble(training.step(loss_fn, tx), 3, batches="shared")
    found, _ = together(whole, _joined(train_states), BATCH)
    for rate, member in zip(rates, training.split_members(found), strict=True):
        plain = optim.sgd(rate)
        ((wanted, _),) = alone(training.step(loss_fn, plain), [training.init(params, plain)], [BATCH])
        assert_close(member.params, wanted.params)


def test_train_states_made_under_vmap_count_each_for_itself():
    tx = optim.sgd(0.1)
    train_states = jax.vmap(lambda key: training.init(NET.init(key, X), tx, key=jax.random.fold_in(key, 1)))(KEYS)
    whole = training.ensemble(training.step(loss_fn, tx), 3, batches="shared")
    found, metrics = together(whole, train_states, BATCH)
    expected, _ = together(whole, _joined(training.split_members(train_states)), BATCH)
    assert found.step.tolist() == [3, 3, 3]
    assert metrics["loss"].shape == (3,)
    assert_close(found.params, expected.params)


def test_fit_trains_an_ensemble_with_named_metrics():
    tx = optim.adam(0.01)
    step = training.step(loss_fn, tx)
    train_states, feed = members(NET, tx), training.batches(BATCH, 4, key=jax.random.key(3))
    run = functools.partial(training.fit, num_steps=7, steps_per_call=3, report_every=7, progress=False)
    found, (row,) = run(training.ensemble(step, 3, batches="shared", metrics="named"), _joined(train_states), feed)
    for index, (member, train_state) in enumerate(zip(training.split_members(found), train_states, strict=True)):
        wanted, (wanted_row,) = run(step, train_state, feed)
        assert_close(member, wanted)
        assert row[f"loss/{index}"] == pytest.approx(wanted_row["loss"], rel=1e-5)
    assert row["loss"] == pytest.approx(np.mean([row[f"loss/{index}"] for index in range(3)]))


def test_joining_and_splitting_are_each_others_inverse():
    train_states = members(NET, optim.adam(0.1))
    assert_same(training.split_members(_joined(train_states)), train_states)


def test_equal_ensembles_are_equal():
    step = training.step(loss_fn, optim.sgd(0.1))
    ensemble = training.ensemble(step, 3, batches="shared")
    assert ensemble == training.ensemble(training.step(loss_fn, optim.sgd(0.1)), 3, batches="shared")
    assert hash(ensemble) == hash(training.ensemble(step, 3, batches="shared"))
    assert ensemble != training.ensemble(step, 3)
    assert repr(ensemble).startswith("ensemble(step(")


def _joined(train_states: list[training.TrainState]) -> training.TrainState:
    return training.join_members(train_states)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_members": 0}, "ensemble: expected num_members to be an integer of at least 1, got 0"),
        ({"batches": "all"}, "ensemble: expected batches to be 'own' or 'shared', got 'all'."),
        ({"metrics": "mean"}, "ensemble: expected metrics to be 'each' or 'named', got 'mean'."),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    step = training.step(loss_fn, optim.sgd(0.1))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.ensemble(step, **({"num_members": 3} | given))


def test_arrays_without_an_axis_of_members_are_refused():
    tx = optim.sgd(0.1)
    whole, train_states = training.ensemble(training.step(loss_fn, tx), 3), members(NET, tx)
    message = (
        "ensemble: expected batches with a leading axis of 3 members, got (8, 3) at 'x'. "
        'Stack one for each member, or give batches="shared".'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        whole(_joined(train_states), BATCH)
    message = (
        "ensemble: expected train states with a leading axis of 3 members, got (4,) at 'params/layers/0/b'. "
        "Join them with training.join_members."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        whole(train_states[0], OWN)
