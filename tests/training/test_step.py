"""One training step against loops written by hand, and the errors of steps and train states."""

import functools
import pickle
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import nets, optim, training

from ..optim.trees import assert_close, assert_same

X = np.sin(np.arange(24.0, dtype=np.float32)).reshape(8, 3)
BATCH = {"x": X, "y": np.cos(3 * X[:, :1])}
NET = nets.mlp(4, 1, activation=jnp.tanh)
PARAMS = NET.init(jax.random.key(0), X)
NORMED = nets.serial(nets.linear(4), nets.batch_norm(), jnp.tanh, nets.linear(1))
DROPPED = nets.serial(nets.linear(8), nets.dropout(0.5), nets.linear(1))


def loss_fn(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
    return training.squared_error(NET.apply(params, batch["x"]), batch["y"])


def loss_and_metrics(params: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
    predicted = NET.apply(params, batch["x"])
    return training.squared_error(predicted, batch["y"]), {
        "mean": predicted.mean(),
        "bias": params["layers"][1]["b"][0],
    }


def stateful_loss(params: Any, state: Any, batch: Any, key: jax.Array | None) -> Any:
    predicted, state = NORMED.apply(params, state, batch["x"], train=True)
    return training.squared_error(predicted, batch["y"]), (state, {"mean": predicted.mean()})


def dropout_loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
    return training.squared_error(DROPPED.apply(params, batch["x"], key=key, train=True), batch["y"])


def noisy_loss(params: jax.Array, batch: None, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    noise = jax.random.normal(key, params.shape)
    return jnp.sum(jnp.cosh(params) + noise * params**2), {"noise": noise[0]}


def run(step: Callable[..., Any], train_state: training.TrainState, num_steps: int = 3) -> Any:
    """The train state and metrics of some steps on one batch."""
    compiled, metrics = jax.jit(step), []
    for _ in range(num_steps):
        train_state, row = compiled(train_state, BATCH)
        metrics.append(row)
    return train_state, metrics


def by_hand(tx: Any, loss_fn: Callable[[Any], jax.Array], params: Any, num_steps: int = 3, **extra: Any) -> Any:
    """Parameters, state of the chain and losses, from Optax and a loop."""
    opt_state, losses = tx.init(params), []

    @jax.jit
    def one(params: Any, opt_state: Any) -> Any:
        value, grads = jax.value_and_grad(loss_fn)(params)
        given = {"value": value, "grad": grads} if extra else {}
        updates, opt_state = tx.update(grads, opt_state, params, **given, **extra)
        return optax.apply_updates(params, updates), opt_state, value

    for _ in range(num_steps):
        params, opt_state, value = one(params, opt_state)
        losses.append(value)
    return params, opt_state, losses


def test_a_step_equals_value_and_grad_and_optax_by_hand():
    links = [optim.clip_by_global_norm(0.1), optim.adam(0.1)]
    tx = optim.chain(*links)
    train_state, metrics = run(training.step(loss_fn, tx), training.init(PARAMS, tx))
    expected = by_hand(optax.chain(*links), lambda params: loss_fn(params, BATCH, None), PARAMS)
    assert_close((train_state.params, train_state.opt_state, [row["loss"] for row in metrics]), expected)
    assert train_state.step == 3
    assert train_state.key is None
    assert train_state.state is None


def test_any_optax_transformation_will_do():
    bare = optax.GradientTransformation(
        lambda params: (), lambda updates, state, params=None: (jax.tree.map(lambda g: -0.1 * g, updates), state)
    )
    ours, optaxs, plain = (
        run(training.step(loss_fn, tx), training.init(PARAMS, tx))[0].params
        for tx in (optim.sgd(0.1), optax.sgd(0.1), bare)
    )
    assert_same(optaxs, ours)
    assert_same(plain, ours)


def test_metrics_are_those_of_the_parameters_before_the_update():
    tx = optim.sgd(0.1)
    step = training.step(loss_and_metrics, tx, has_aux=True)
    train_state = training.init(PARAMS, tx)
    _, metrics = step(train_state, BATCH)
    loss, aux = loss_and_metrics(PARAMS, BATCH, None)
    assert_close(metrics, {"loss": loss} | aux)
    without, _ = run(training.step(loss_fn, tx), train_state)
    assert_close(run(step, train_state)[0], without)


def test_the_state_of_a_network_goes_from_step_to_step():
    tx = optim.sgd(0.1)
    params, state = NORMED.init(jax.random.key(0), X)
    train_state = training.init(params, tx, state=state)
    found, metrics = run(training.step(stateful_loss, tx, stateful=True), train_state)
    opt_state = tx.init(params)
    for row in metrics:
        (loss, (state, aux)), grads = jax.value_and_grad(stateful_loss, has_aux=True)(params, state, BATCH, None)
        assert_close(row, {"loss": loss} | aux)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    assert_close((found.params, found.state), (params, state))


def test_with_sam_the_state_is_that_of_the_first_pass_and_both_passes_start_from_one_state():
    tx, rho = optim.chain(optim.sam(0.5), optim.sgd(0.1)), 0.5
    params, state = NORMED.init(jax.random.key(0), X)
    found, _ = training.step(stateful_loss, tx, stateful=True)(training.init(params, tx, state=state), BATCH)
    grad_fn = jax.grad(lambda params: stateful_loss(params, state, BATCH, None)[0])
    grads = grad_fn(params)
    assert_close(found.state, stateful_loss(params, state, BATCH, None)[1][0])
    climbed = jax.tree.map(lambda p, g: p + rho * g / optax.tree.norm(grads), params, grads)
    assert_close(found.params, jax.tree.map(lambda p, g: p - 0.1 * g, params, grad_fn(climbed)))


def test_every_step_has_its_own_key_made_of_the_root_key_and_its_number():
    tx, key = optim.sgd(0.1), jax.random.key(7)
    step = training.step(noisy_loss, tx, has_aux=True)
    found, metrics = run(step, training.init(jnp.ones(3), tx, key=key))
    expected = [jax.random.normal(jax.random.fold_in(key, t), (3,))[0] for t in range(3)]
    np.testing.assert_allclose([row["noise"] for row in metrics], expected, rtol=1e-6)
    assert found.key is not None
    assert found.key == key


def test_dropout_differs_by_step_and_comes_back_with_the_key():
    tx = optim.set_to_zero()  # so that losses differ by their masks alone
    step, params = training.step(dropout_loss, tx), DROPPED.init(jax.random.key(0), X)
    _, first = run(step, training.init(params, tx, key=jax.random.key(1)))
    _, again = run(step, training.init(params, tx, key=jax.random.key(1)))
    _, other = run(step, training.init(params, tx, key=jax.random.key(2)))
    assert first == again
    assert len({row["loss"].item() for row in [*first, *other]}) == 6


def test_the_second_gradient_of_sam_is_on_the_same_key_and_batch():
    tx, key, params = optim.chain(optim.sam(0.5), optim.sgd(0.1)), jax.random.key(7), jnp.array([0.3, -0.2, 0.9])
    found, _ = run(training.step(noisy_loss, tx, has_aux=True), training.init(params, tx, key=key))
    for t in range(3):
        noise = jax.random.normal(jax.random.fold_in(key, t), (3,))
        grad_fn = lambda x, noise=noise: jnp.sinh(x) + 2 * noise * x  # noqa: E731
        grads = grad_fn(params)
        params = params - 0.1 * grad_fn(params + 0.5 * grads / jnp.linalg.norm(grads))
    assert_close(found.params, params)


class Seen(NamedTuple):
    """What a link was handed, as state."""

    value: Any
    grad: Any
    value_elsewhere: Any
    grad_elsewhere: Any


def looking_at(elsewhere: Callable[[Any], Any]) -> optax.GradientTransformationExtraArgs:
    """A link that keeps what a step hands to it; it hands on something else."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        assert set(extra) == {"value", "grad", "value_fn", "grad_fn"}
        there = elsewhere(params)
        seen = Seen(extra["value"], extra["grad"], extra["value_fn"](there), extra["grad_fn"](there))
        return jax.tree.map(jnp.zeros_like, updates), seen

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def test_links_are_handed_value_and_grad_and_the_functions_on_the_same_batch():
    halved = functools.partial(jax.tree.map, lambda leaf: leaf / 2)
    tx = optim.chain(optim.scale(7.0), looking_at(halved))
    found, _ = training.step(loss_and_metrics, tx, has_aux=True)(training.init(PARAMS, tx), BATCH)
    value_and_grad = jax.value_and_grad(loss_fn)
    expected = Seen(*value_and_grad(PARAMS, BATCH, None), *value_and_grad(halved(PARAMS), BATCH, None))
    assert_close(found.opt_state[1], expected)
    assert_same(found.params, PARAMS)


def test_a_masked_link_is_handed_functions_of_its_own_parameters():
    first_only = {"layers": [True, False]}
    tx = optim.masked(looking_at(functools.partial(jax.tree.map, lambda leaf: leaf / 2)), first_only)
    found, _ = training.step(loss_fn, tx)(training.init(PARAMS, tx), BATCH)
    layers = PARAMS["layers"]
    halved = {"layers": [jax.tree.map(lambda leaf: leaf / 2, layers[0]), layers[1]]}
    value, grads = jax.value_and_grad(loss_fn)(halved, BATCH, None)
    seen = found.opt_state.inner_state
    assert_close(seen.value_elsewhere, value)
    assert_close(seen.grad_elsewhere["layers"][0], grads["layers"][0])
    assert jax.tree.leaves(seen.grad_elsewhere["layers"][1]) == []


LINE_SEARCHES: dict[str, optax.GradientTransformationExtraArgs] = {
    "polyak_sgd": optim.polyak_sgd(max_learning_rate=0.5),
    "lbfgs": optim.lbfgs(memory_size=2),
    "backtracking": optim.chain(optim.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=15)),
}


@pytest.mark.parametrize("tx", LINE_SEARCHES.values(), ids=LINE_SEARCHES.keys())
def test_optaxs_line_searches_work_unchanged(tx: Any):
    params = jnp.array([1.5, -0.7])

    def banana(params: Any, batch: Any = None, key: None = None) -> jax.Array:
        return (1 - params[0]) ** 2 + 5 * (params[1] - params[0] ** 2) ** 2

    found, metrics = run(training.step(banana, tx), training.init(params, tx), 5)
    expected, _, losses = by_hand(tx, banana, params, 5, value_fn=banana)
    assert_close((found.params, [row["loss"] for row in metrics]), (expected, losses))
    assert losses[-1] < 0.2 * losses[0]


def test_a_line_search_may_stand_in_a_partition_that_masks_its_arguments():
    links: dict[Any, Any] = {"all": optim.lbfgs(memory_size=2), "none": optim.set_to_zero()}
    labels = {"layers": ["all", "none"]}
    tx = optim.partition(links, labels, mask_compatible_extra_args=True)
    found, _ = run(training.step(loss_fn, tx), training.init(PARAMS, tx))
    last = PARAMS["layers"][1]
    first_alone = lambda first: loss_fn({"layers": [first, last]}, BATCH, None)  # noqa: E731
    expected, _, _ = by_hand(links["all"], first_alone, PARAMS["layers"][0], value_fn=first_alone)
    assert_close(found.params, {"layers": [expected, last]}, rtol=1e-4, atol=1e-5)


def test_a_step_leaves_what_it_is_given():
    tx = optim.adam(0.1)
    train_state = training.init(PARAMS, tx, key=jax.random.key(0))
    before = jax.tree.map(jnp.copy, train_state)
    step = training.step(loss_fn, tx)
    first, again = step(train_state, BATCH), step(train_state, BATCH)
    assert_same(train_state, before)
    assert_same(first, again)


def test_a_step_can_be_scanned():
    tx = optim.chain(optim.sam(0.1), optim.adam(0.1))
    step = training.step(dropout_loss, tx)
    train_state = training.init(DROPPED.init(jax.random.key(0), X), tx, key=jax.random.key(1))
    found, metrics = run(step, train_state)
    scanned, stacked = lax.scan(step, train_state, jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), BATCH))
    assert_close(scanned, found)
    assert_close(stacked["loss"], jnp.stack([row["loss"] for row in metrics]))


def test_a_step_can_be_mapped_over_seeds():
    tx = optim.chain(optim.sam(0.1), optim.adam(0.1))
    step = training.step(dropout_loss, tx)

    def start(key: jax.Array) -> training.TrainState:
        init_key, root_key = jax.random.split(key)
        return training.init(DROPPED.init(init_key, X), tx, key=root_key)

    keys = jax.random.split(jax.random.key(0), 2)
    mapped = jax.jit(jax.vmap(step, (0, None)))(jax.vmap(start)(keys), BATCH)
    compiled = jax.jit(step)
    for seed, key in enumerate(keys):
        one = jax.tree.map(lambda leaf: leaf[seed], mapped)  # noqa: B023 - called at once
        assert_close(one, compiled(start(key), BATCH))


def test_equal_steps_are_equal_and_are_not_traced_again():
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def call(step: Callable[..., Any], train_state: Any, batch: Any) -> Any:
        traced.append(step)
        return step(train_state, batch)

    steps = [
        training.step(loss_and_metrics, optim.chain(optim.sam(0.1), optim.sgd(0.1)), has_aux=True) for _ in range(2)
    ]
    steps.append(pickle.loads(pickle.dumps(steps[0])))
    for step in steps:
        call(step, training.init(PARAMS, optim.chain(optim.sam(0.1), optim.sgd(0.1))), BATCH)
    assert len(traced) == len(set(steps)) == 1
    assert repr(steps[0]) == "step(loss_and_metrics, chain(sam(0.1), sgd(0.1)), has_aux=True)"
    assert steps[0] != training.step(loss_and_metrics, optim.sgd(0.1), has_aux=True)
    assert training.step(loss_fn, optim.sgd(0.1)) != training.step(dropout_loss, optim.sgd(0.1))


def test_a_dict_of_losses_that_are_no_players_is_refused():
    step = training.step(lambda params, batch, key: {"l": loss_fn(params, batch, key)}, optim.sgd(0.1))
    with pytest.raises(ValueError, match=r"expected parameters of the players \['l'\], got \["):
        step(training.init(PARAMS, optim.sgd(0.1)), BATCH)


STATE = {"count": jnp.zeros(())}
ADVICE = "(shapes). Give has_aux=True or stateful=True."
RETURNS: dict[str, tuple[dict, Any, str]] = {
    "two things": ({}, lambda loss: (loss, {}), f"return a scalar, got ((), {{}}) {ADVICE}"),
    "a list": ({}, lambda loss: [loss, {}], f"return a scalar, got [(), {{}}] {ADVICE}"),
    "a dict for a pair": (
        {"has_aux": True},
        lambda loss: {"l": loss},
        "return (loss, metrics) with has_aux=True, got {'l': ()} (shapes)",
    ),
    "nothing": ({}, lambda loss: None, f"return a scalar, got None {ADVICE}"),
    "a vector": ({}, lambda loss: jnp.stack([loss, loss]), "return a scalar loss, got shape (2,). Take its mean."),
    "no metrics": ({"has_aux": True}, lambda loss: loss, "return (loss, metrics) with has_aux=True, got () (shapes)"),
    "three things": (
        {"has_aux": True},
        lambda loss: (loss, {"a": loss}, STATE),
        "return (loss, metrics) with has_aux=True, got ((), {'a': ()}, {'count': ()}) (shapes)",
    ),
    "a vector and metrics": (
        {"has_aux": True},
        lambda loss: (jnp.stack([loss, loss]), {}),
        "return a scalar loss, got shape (2,). Take its mean.",
    ),
    "no state": (
        {"stateful": True},
        lambda loss: (loss, {"a": loss}),
        "return (loss, (state, metrics)) with stateful=True, got ((), {'a': ()}) (shapes)",
    ),
    "a state that is not in a pair": (
        {"stateful": True},
        lambda loss: (loss, STATE, {}),
        "return (loss, (state, metrics)) with stateful=True, got ((), {'count': ()}, {}) (shapes)",
    ),
}


@pytest.mark.parametrize(("flags", "returned", "message"), RETURNS.values(), ids=RETURNS.keys())
def test_a_loss_that_does_not_return_what_its_flags_say_is_refused(flags: dict, returned: Any, message: str):
    step = training.step(lambda params, *rest: returned(jnp.sum(params)), optim.sgd(0.1), **flags)
    train_state = training.init(jnp.ones(3), optim.sgd(0.1), state=STATE)
    with pytest.raises(TypeError, match=rf"(?m)^step: expected loss_fn to {re.escape(message)}$"):
        step(train_state, None)


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [(3.0, "3.0"), (None, "None"), ({"loss": 3.0}, "{'loss': 3.0}")],
    ids=["number", "None", "loss"],
)
def test_metrics_that_are_no_dict_or_hide_the_loss_are_refused(metrics: Any, shown: str):
    step = training.step(lambda params, batch, key: (jnp.sum(params), metrics), optim.sgd(0.1), has_aux=True)
    expected = f"step: expected metrics to be a dict without the name 'loss', got {shown}"
    with pytest.raises(TypeError, match=f"(?m)^{re.escape(expected)}$"):
        step(training.init(jnp.ones(3), optim.sgd(0.1)), None)


@pytest.mark.parametrize("wrong", [optim.adam, None, 1e-3], ids=["uncalled", "None", "number"])
def test_what_is_no_link_is_refused(wrong: Any):
    message = f"expected tx to be a link such as optim.adam(1e-3), got {wrong!r}"
    with pytest.raises(TypeError, match=f"^init: {re.escape(message)}$"):
        training.init(PARAMS, wrong)
    with pytest.raises(TypeError, match=f"^step: {re.escape(message)}$"):
        training.step(loss_fn, wrong)


def test_parameters_together_with_state_are_refused():
    expected = "init: expected params, got a pair of dicts, as a stateful network's init returns. Write params, state ="
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}"):
        training.init(NORMED.init(jax.random.key(0), X), optim.sgd(0.1))


def test_a_missing_grad_fn_cannot_happen_in_a_step_but_missing_gradients_of_sam_do_elsewhere():
    tx = optim.chain(optim.sam(0.1), optim.sgd(0.1))
    with pytest.raises(TypeError, match=r"^sam: expected params and grad_fn in update, got no grad_fn\."):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_the_first_train_state_is_at_step_zero():
    tx = optim.adam(0.1)
    train_state = training.init(PARAMS, tx, state=STATE, key=jax.random.key(3))
    assert_same(train_state, training.TrainState(PARAMS, tx.init(PARAMS), STATE, jnp.int32(0), jax.random.key(3)))
