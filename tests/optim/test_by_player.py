"""A link for each player: as if each had stood alone."""

import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import optim

from .games import bilinear

PLAYERS: dict[str, Any] = {"x": jnp.array([1.0, -2.0]), "y": jnp.array([0.5, 3.0])}
LINKS: dict[str, Any] = {"x": optim.adam(0.1), "y": optim.sgd(0.2, momentum=0.9)}


def test_each_player_steps_as_its_link_alone():
    tx: Any = optim.by_player(LINKS)
    state = tx.init(PLAYERS)
    alone: Any = {player: link.init(PLAYERS[player]) for player, link in LINKS.items()}
    for _ in range(3):
        grads = optim.oracle(bilinear, PLAYERS).grads
        updates, state = jax.jit(tx.update)(grads, state, PLAYERS)
        for player, link in LINKS.items():
            expected, alone[player] = link.update(grads[player], alone[player], PLAYERS[player])
            np.testing.assert_allclose(updates[player], expected, rtol=1e-6)


def test_what_looks_elsewhere_in_a_players_link_moves_that_player_alone():
    tx: Any = optim.by_player({"x": optim.extragradient(optim.sgd(0.1)), "y": optim.sgd(0.1)})
    game = lambda p: {"x": jnp.sum(p["x"] ** 2 * p["y"]), "y": jnp.sum(p["y"] ** 2)}  # noqa: E731
    found = optim.oracle(game, PLAYERS)
    updates, _ = tx.update(found.grads, tx.init(PLAYERS), PLAYERS, **found.extra)
    x, y = PLAYERS["x"], PLAYERS["y"]
    ahead = x - 0.1 * 2 * x * y
    np.testing.assert_allclose(updates["x"], -0.1 * 2 * ahead * y, rtol=1e-6)
    np.testing.assert_allclose(updates["y"], -0.1 * 2 * y, rtol=1e-6)


def test_a_line_search_of_one_player_sees_its_own_loss():
    tx: Any = optim.by_player({"x": optim.polyak_sgd(), "y": optim.sgd(0.1)})
    game = lambda p: {"x": jnp.sum(p["x"] ** 2), "y": jnp.sum(p["y"] ** 2)}  # noqa: E731
    found = optim.oracle(game, PLAYERS)
    updates, _ = tx.update(found.grads, tx.init(PLAYERS), PLAYERS, **found.extra)
    np.testing.assert_allclose(updates["x"], -PLAYERS["x"] / 2, rtol=1e-6)  # loss over squared slope is 1 / 4


def test_what_all_take_at_once_stands_in_front_and_around():
    tx: Any = optim.chain(optim.consensus(1.0), optim.by_player({"x": optim.sgd(0.1), "y": optim.sgd(0.1)}))
    together = optim.chain(optim.consensus(1.0), optim.sgd(0.1))
    found = optim.oracle(bilinear, PLAYERS)
    updates, _ = tx.update(found.grads, tx.init(PLAYERS), PLAYERS, **found.extra)
    expected, _ = together.update(found.grads, together.init(PLAYERS), PLAYERS, **found.extra)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)


def test_updates_of_one_player_leave_the_others_states():
    tx: Any = optim.by_player(LINKS)
    state = tx.init(PLAYERS)
    updates, after = tx.update({"y": PLAYERS["y"]}, state, PLAYERS)
    assert set(updates) == {"y"}
    jax.tree.map(np.testing.assert_array_equal, after["x"], state["x"])
    assert jnp.any(after["y"][0].trace != state["y"][0].trace)


def test_each_player_is_evaluated_with_the_average_that_its_link_keeps():
    tx: Any = optim.by_player({"x": optim.chain(optim.sgd(0.1), optim.ema_params(0.5)), "y": optim.sgd(0.1)})
    state: Any = tx.init(PLAYERS)
    params: Any = PLAYERS
    for _ in range(2):
        updates, state = tx.update(optim.oracle(bilinear, params).grads, state, params)
        params = optax.apply_updates(params, updates)
    seen = optim.eval_params(state, params)
    np.testing.assert_array_equal(seen["x"], optim.eval_params(state["x"], params["x"]))
    assert jnp.any(seen["x"] != params["x"])
    np.testing.assert_array_equal(seen["y"], params["y"])
    both: Any = optim.chain(optim.clip(1.0), optim.by_player({p: optim.lookahead(optim.sgd(0.1), 2) for p in PLAYERS}))
    jax.tree.map(np.testing.assert_array_equal, optim.eval_params(both.init(PLAYERS), PLAYERS), PLAYERS)
    twice: Any = optim.chain(both, optim.ema_params(0.5))
    with pytest.raises(ValueError, match="got LookaheadState and LookaheadState and AverageParamsState"):
        optim.eval_params(twice.init(PLAYERS), PLAYERS)


def test_groups_that_go_by_the_names_of_parameters_keep_their_averages():
    links: Any = {name: optim.chain(optim.sgd(0.1), optim.ema_params(0.5)) for name in PLAYERS}
    tx: Any = optax.partition(links, {name: name for name in PLAYERS})
    jax.tree.map(np.testing.assert_array_equal, optim.eval_params(tx.init(PLAYERS), PLAYERS), PLAYERS)


def test_optax_finds_what_has_the_shape_of_parameters_in_its_state():
    tx: Any = optim.by_player(LINKS)
    seen: Any = optax.tree_map_params(tx, lambda leaf: leaf + 1, tx.init(PLAYERS))
    assert jnp.all(seen["x"][0].mu == 1)
    assert jnp.all(seen["y"][0].trace == 1)
    assert seen["x"][0].count == 0


def test_it_is_the_call_that_made_it():
    tx: Any = optim.by_player(LINKS)
    assert repr(tx) == "by_player({'x': adam(0.1), 'y': sgd(0.2, momentum=0.9)})"
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert optim.from_config(optim.to_config(tx)) == tx
    assert optim.chain(optim.by_player({"x": optim.sam(0.1)}), optim.sgd(0.1)).evaluates_gradient


def test_other_players_and_what_is_no_link_are_refused():
    with pytest.raises(TypeError, match=r"^by_player: expected x to be a link such as adam\(1e-3\), got 0\.1$"):
        optim.by_player({"x": 0.1})  # pyright: ignore[reportArgumentType]
    tx: Any = optim.by_player(LINKS)
    message = "by_player: expected parameters of the players ['x', 'y'], got ['x', 'z']."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        tx.init({"x": 1.0, "z": 1.0})
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        tx.update({"x": 1.0, "z": 1.0}, tx.init(PLAYERS), PLAYERS)
