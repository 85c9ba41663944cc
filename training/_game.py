"""Games: a loss for each player, of which each follows its own gradient."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from .._call import recording
from ._checks import check_count
from ._players import check_player, check_states, loss_of, own_state
from ._returned import LossFn, in_form, whole_form
from ._state import check_link
from ._unroll import descend

Players = str | tuple[str, ...]


@recording
def game(losses: Mapping[str, LossFn], *, has_aux: bool = False, stateful: bool = False) -> LossFn:
    """A game from the losses of its players: goes where a loss goes, and each player descends its own.

    `step(game({...}), tx)` moves all players at once along the field of their gradients, `alternating` one after
    another. All losses are given the same batch and key, so that XLA computes what they have in common once.

    Args:
      losses: for each player `loss(players, batch, key) -> loss`, a scalar, of everyone's parameters, a dict; with
        `has_aux` and `stateful` as for `step`.
      has_aux: whether the losses return metrics.
      stateful: whether the losses take and return states: a dict, for each player that has one, its own. A player's
        new state is that which its own loss returns.
    Returns:
      `(players, batch, key) -> {player: loss}`; with `has_aux`, and metrics `{"name/player": ...}`; with `stateful`,
      `(players, state, batch, key) -> (losses, (state, metrics))`. It prints, compares and hashes as the call that
      made it.
    Raises:
      ValueError: without losses; when called, for a state that is no player's.
      TypeError: when called, if a loss does not return what the flags say, or not its player's state.

    >>> losses = {"x": lambda p, batch, key: p["x"] * p["y"], "y": lambda p, batch, key: -p["x"] * p["y"]}
    >>> tx = optim.extragradient(optim.sgd(0.1))
    >>> train_state = init({"x": jnp.array(1.0), "y": jnp.array(1.0)}, tx)
    >>> train_state, metrics = step(game(losses), tx)(train_state, None)
    >>> {name: value.item() for name, value in metrics.items()}
    {'loss/x': 1.0, 'loss/y': -1.0}
    """
    if not losses:
        raise ValueError("game: expected a loss for each player, got none")
    wholes = {player: whole_form(f"game: {player}", loss, has_aux, stateful) for player, loss in losses.items()}

    def field(players: Any, state: Any, batch: Any, key: jax.Array | None) -> Any:
        if stateful:
            check_states("game", state, wholes)
        found = {player: whole(players, state, batch, key) for player, whole in wholes.items()}
        values = {player: value for player, (value, _) in found.items()}
        metrics = {f"{name}/{p}": each for p, (_, (_, own)) in found.items() for name, each in own.items()}
        states = {player: own_state("game", player, found[player][1][0]) for player in state} if stateful else state
        return values, (states, metrics)

    return in_form(field, has_aux, stateful)


@recording
def zero_sum(
    loss_fn: LossFn, *, minimize: Players, maximize: Players, has_aux: bool = False, stateful: bool = False
) -> LossFn:
    """A game of one value, which some players minimize and the others maximize.

    Args:
      loss_fn: `loss_fn(players, batch, key) -> value`, a scalar; with `has_aux` and `stateful` as for `step`.
      minimize: the player, or players, whose loss is the value.
      maximize: those whose loss is minus the value.
      has_aux: whether `loss_fn` returns metrics.
      stateful: whether `loss_fn` takes and returns a state.
    Returns:
      As for `game`, from one evaluation of `loss_fn`; metrics keep their names.
    Raises:
      ValueError: if a player is on both sides, or a side is empty.
      TypeError: when called, if `loss_fn` does not return what the flags say.

    >>> value = lambda players, batch, key: players["x"] * players["y"]
    >>> zero_sum(value, minimize="x", maximize="y")({"x": 2.0, "y": 3.0}, None)
    {'x': 6.0, 'y': -6.0}
    """
    sides = [(name,) if isinstance(name, str) else tuple(name) for name in (minimize, maximize)]
    if not all(sides) or set(sides[0]) & set(sides[1]):
        raise ValueError(
            f"zero_sum: expected players on both sides, none of them on both, got minimize={minimize!r}, "
            f"maximize={maximize!r}"
        )
    whole = whole_form("zero_sum", loss_fn, has_aux, stateful)

    def field(players: Any, state: Any, batch: Any, key: jax.Array | None) -> Any:
        value, beside = whole(players, state, batch, key)
        return dict.fromkeys(sides[0], value) | dict.fromkeys(sides[1], -value), beside

    return in_form(field, has_aux, stateful)


@recording
def unroll_player(
    loss_fn: LossFn,
    player: str,
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    has_aux: bool = False,
    stateful: bool = False,
) -> LossFn:
    """The game in which the others see where a player's next steps lead, and how their own moves change that.

    Everyone else's loss is taken after `num_steps` of a chain on the player's own, and differentiated through them;
    the player itself is where it is.

    Source: Metz, Poole, Pfau, Sohl-Dickstein 2017, https://arxiv.org/abs/1611.02163, equations 7 to 10.

    Args:
      loss_fn: a game.
      player: whose steps are unrolled, such as the discriminator.
      tx: the chain that makes these steps, from a new state.
      num_steps: how many; with none, the game is as it was.
      has_aux: as for `game`.
      stateful: as for `game`. Steps ahead leave states as they are.
    Returns:
      A game.
    Raises:
      ValueError: if `num_steps` is negative; when called, if there is no such player, or a state is no player's.
      TypeError: if `tx` is no chain; when called, if `loss_fn` is no game, or a player's state is not returned.

    >>> value = zero_sum(lambda p, batch, key: p["x"] * p["y"], minimize="x", maximize="y")
    >>> ahead = unroll_player(value, "y", optim.sgd(0.5), 1)
    >>> {name: loss.item() for name, loss in ahead({"x": jnp.array(2.0), "y": jnp.array(3.0)}, None).items()}
    {'x': 8.0, 'y': -6.0}
    """
    return _ahead("unroll_player", loss_fn, player, tx, num_steps, has_aux, stateful, lambda moved: moved)


@recording
def best_response(
    loss_fn: LossFn,
    player: str,
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    has_aux: bool = False,
    stateful: bool = False,
) -> LossFn:
    """The game in which the others answer where a player's next steps lead, and take that for given.

    As `unroll_player`, but not differentiated through. With many steps the others descend their loss under the
    player's best response: at an optimum of the player's own loss in a zero-sum game, the same slope (Danskin).

    Args:
      loss_fn: a game.
      player: who responds.
      tx: the chain that makes its steps, from a new state.
      num_steps: how many; with none, the game is as it was.
      has_aux: as for `game`.
      stateful: as for `game`.
    Returns:
      A game.
    Raises:
      ValueError: if `num_steps` is negative; when called, if there is no such player, or a state is no player's.
      TypeError: if `tx` is no chain; when called, if `loss_fn` is no game, or a player's state is not returned.

    >>> value = zero_sum(lambda p, batch, key: p["x"] * p["y"] - p["y"] ** 2 / 2, minimize="x", maximize="y")
    >>> answered = best_response(value, "y", optim.sgd(0.5), 50)
    >>> players = {"x": jnp.array(2.0), "y": jnp.array(0.0)}
    >>> round(jax.grad(lambda x: answered({**players, "x": x}, None)["x"])(players["x"]).item(), 3)
    2.0
    """
    return _ahead("best_response", loss_fn, player, tx, num_steps, has_aux, stateful, jax.lax.stop_gradient)


def _ahead(
    name: str,
    loss_fn: LossFn,
    player: str,
    tx: optax.GradientTransformation,
    num_steps: int,
    has_aux: bool,
    stateful: bool,
    seen: Callable[[Any], Any],
) -> LossFn:
    check_link(name, tx)
    check_count(name, "num_steps", num_steps, at_least=0)
    if num_steps == 0:
        return loss_fn
    whole = whole_form(name, loss_fn, has_aux, stateful, games=True)

    def field(players: Any, state: Any, batch: Any, key: jax.Array | None) -> Any:
        check_player(name, player, players)
        if stateful:
            check_states(name, state, players)

        def own_loss(own: Any, _: Any) -> Any:
            return loss_of(name, player, whole({**players, player: own}, state, batch, key)[0]), None

        moved = seen(descend(own_loss, tx, players[player], num_steps).params)
        now, (new, metrics) = whole(players, state, batch, key)
        later, (other, _) = whole({**players, player: moved}, state, batch, key)
        values = {each: (now if each == player else later)[each] for each in now}
        if stateful:
            state = {each: own_state(name, each, new if each == player else other) for each in state}
        return values, (state, metrics)

    return in_form(field, has_aux, stateful)
