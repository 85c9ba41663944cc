"""Steps that are not made where they would leave NaN, and a loop that stops there."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import alternating, fit, game, guarded

TX = optim.by_player({"generator": optim.adam(0.1), "critic": optim.sgd(0.1, momentum=0.5)})


def generator_loss(players: Any, batch: jax.Array, key: Any) -> jax.Array:
    return jnp.log(batch) * (players["generator"] ** 2 + players["critic"])


def critic_loss(players: Any, batch: jax.Array, key: Any) -> jax.Array:
    return (players["critic"] - 1) ** 2


GAME = game({"generator": generator_loss, "critic": critic_loss})


def begin() -> training.TrainState:
    players = {"generator": jnp.array(1.0), "critic": jnp.array(0.0)}
    return training.init(players, TX, key=jax.random.key(0))


def equal(first: Any, second: Any) -> bool:
    def raw(leaf: Any) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    same = jax.tree.map(lambda one, other: np.array_equal(raw(one), raw(other)), first, second)
    return jax.tree.all(same)


@pytest.mark.parametrize("step", [training.step(GAME, TX), alternating(GAME, TX, {"critic": 2, "generator": 1})])
def test_a_guarded_step_is_the_step_where_all_is_finite(step):
    after, metrics = jax.jit(step)(begin(), jnp.array(2.0))
    same, more = jax.jit(guarded(step))(begin(), jnp.array(2.0))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(close, same._replace(key=None), after._replace(key=None))
    jax.tree.map(close, {name: more[name] for name in metrics}, metrics)
    assert {name: more[name].item() for name in more.keys() - metrics} == {"broken/generator": 0, "broken/critic": 0}


@pytest.mark.parametrize("batch", [-1.0, 0.0])
def test_a_step_that_would_break_a_player_is_not_made_and_names_it(batch):
    step = guarded(alternating(GAME, TX, {"critic": 1, "generator": 1}))
    before, _ = step(begin(), jnp.array(2.0))
    after, metrics = step(before, jnp.array(batch))
    assert equal(after, before)
    assert (metrics["broken/generator"].item(), metrics["broken/critic"].item()) == (1, 0)


def test_statistics_that_break_are_those_of_their_player():
    net = nets.serial(nets.batch_norm(), nets.linear(1))
    params, state = net.init(jax.random.key(0), jnp.ones((2, 1)))

    def loss(players: Any, state: Any, batch: Any, key: Any) -> Any:
        _, own = net.apply(players["critic"], state["critic"], batch, train=True)
        return 0.0 * jnp.sum(players["critic"]["linear"]["b"]), ({"critic": own}, {})

    rest: Any = lambda players, state, batch, key: (players["rest"] ** 2, ({}, {}))  # noqa: E731
    losses = game({"critic": loss, "rest": rest}, stateful=True)
    tx = optim.sgd(0.1)
    begin = training.init({"critic": params, "rest": jnp.array(1.0)}, tx, state={"critic": state})
    after, metrics = guarded(training.step(losses, tx, stateful=True))(begin, jnp.array([[jnp.nan], [1.0]]))
    assert (metrics["broken/critic"].item(), metrics["broken/rest"].item()) == (1, 0)
    assert equal(after, begin)


def test_fit_stops_with_the_name_of_the_player_and_the_last_good_state():
    step = guarded(alternating(GAME, TX, {"critic": 1, "generator": 1}))
    feed = [jnp.array(2.0)] * 13 + [jnp.array(-1.0)] * 27
    seen = []
    with pytest.raises(training.NotFiniteError) as caught:
        fit(
            step, begin(), feed, num_steps=40, report_every=10, progress=False,
            on_report=lambda row, train_state: seen.append((row, train_state.step.item())),
        )  # fmt: skip
    message = (
        "fit: expected finite players, got generator with NaN or infinity. A smaller learning rate, or a clip of its "
        "gradient, may help; the last good train state is of step 13."
    )
    assert str(caught.value) == message
    assert caught.value.players == ("generator",)
    assert [(sorted(row), step) for row, step in seen] == [
        (["loss/critic", "loss/generator", "step"], n) for n in (10, 13)
    ]
    assert np.isnan(seen[1][0]["loss/generator"])
    before, _ = fit(step, begin(), feed[:13], num_steps=13, progress=False)
    assert equal(caught.value.train_state, before)


def test_a_run_in_two_parts_is_the_run_in_one_bitwise():
    step = guarded(alternating(GAME, TX, {"critic": 2, "generator": 1}))
    feed = training.batches(jnp.linspace(1.0, 3.0, 24), 1, key=jax.random.key(1))
    squeezed = lambda train_state, batch: step(train_state, batch[0])  # noqa: E731
    whole, _ = fit(squeezed, begin(), feed, num_steps=17, progress=False)
    part, _ = fit(squeezed, begin(), feed, num_steps=9, progress=False)
    rest, _ = fit(squeezed, part, feed, num_steps=8, progress=False)
    assert equal(rest, whole)


def test_players_that_are_no_dict_are_refused():
    step = guarded(training.step(lambda w, batch, key: w**2, optim.sgd(0.1)))
    message = "guarded: expected a dict of players, got ArrayImpl"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        step(training.init(jnp.array(1.0), optim.sgd(0.1)), None)


def test_a_guarded_step_prints_compares_and_hashes_as_its_call():
    made = [guarded(training.step(GAME, TX)) for _ in range(2)]
    assert made[0] == made[1]
    assert hash(made[0]) == hash(made[1])
    assert repr(made[0]) == f"guarded({training.step(GAME, TX)!r})"
