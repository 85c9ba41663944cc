"""Playing in turn: a training step in which the players of a game move one after another."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import optim
from .._call import recording
from ..optim import Oracle, oracle
from ._checks import check_count, path_of
from ._players import check_player, check_states, loss_of, own_state
from ._returned import LossFn, whole_form
from ._state import TrainState, check_link


@recording
def alternating(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    turns: Mapping[str, int],
    *,
    own_batches: bool = False,
    has_aux: bool = False,
    stateful: bool = False,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """A training step in which the players of a game move one after another, each seeing what came before.

    Args:
      loss_fn: a game.
      tx: `optim.by_player({...})`, a link for each player, or a chain that ends in it. What stands in front takes
        the updates of one player at a time, as a clip does; averages and lookahead go inside, to each player.
      turns: how many moves each player makes, in this order, such as `{"critic": 5, "generator": 1}`. Several are a
        scan. Who is not named stays where it is.
      own_batches: whether every array of the batch has an axis of moves in front, a batch for each; otherwise all
        moves are on one batch.
      has_aux: as for `game`.
      stateful: as for `game`, of `zero_sum` too. In its turn a player's own state alone changes.
    Returns:
      A pure function `(train_state, batch) -> (train_state, metrics)`, of a state from `init(players, tx)`. The losses
      are those before each player's last move, and so are metrics with its name, as `"accuracy/critic"`; others are of
      the last move of all. Every move has a key of its own. It prints, compares, hashes and pickles as the call that
      made it.
    Raises:
      ValueError: for turns out of range; when called, for unknown players, a batch of another number of moves, a state
        that is no player's, and links that need the updates of all players at once.
      TypeError: if `tx` has no `optim.by_player`; when called, if a player's loss, or state, is not returned.

    >>> value = zero_sum(lambda p, batch, key: p["x"] * p["y"], minimize="x", maximize="y")
    >>> tx = optim.by_player({"x": optim.sgd(0.1), "y": optim.sgd(0.1)})
    >>> players = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
    >>> train_state, _ = alternating(value, tx, {"x": 1, "y": 1})(init(players, tx), None)
    >>> {name: round(player.item(), 3) for name, player in train_state.params.items()}
    {'x': 0.9, 'y': 1.09}
    """
    check_link("alternating", tx)
    if not (isinstance(tx, optim.Link) and tx.holds("by_player")):
        raise TypeError(f"alternating: expected tx with a link for each player, optim.by_player({{...}}), got {tx!r}")
    if not turns:
        raise ValueError("alternating: expected turns such as {'critic': 5, 'generator': 1}, got none")
    for player, count in turns.items():
        check_count("alternating", f"turns[{player!r}]", count, at_least=1)
    order = tuple(turns.items())  # a dict is sorted where it goes through JAX
    num_moves = sum(turns.values())
    whole = whole_form("alternating", loss_fn, has_aux, stateful, games=True)

    def one_step(train_state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        players, opt_state, state, count, key = train_state
        step_key = None if key is None else jax.random.fold_in(key, count)
        for player in turns:
            check_player("alternating", player, players)
        if own_batches:
            _check_moves(batch, num_moves)
        if stateful:
            check_states("alternating", state, players)

        def move(player: str, carry: Any, index: Any) -> Any:
            players, opt_state, state = carry
            own_key = None if step_key is None else jax.random.fold_in(step_key, index)
            own_batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], batch) if own_batches else batch

            def own_loss(own: Any) -> Any:
                losses, beside = whole({**players, **own}, state, own_batch, own_key)
                return {player: loss_of("alternating", player, losses)}, beside

            found = oracle(own_loss, {player: players[player]}, has_aux=True)
            updates, opt_state = _updates(tx, found, opt_state, players)
            new, metrics = found.aux
            moved = optax.apply_updates({player: players[player]}, updates)
            if stateful and player in state:
                state = {**state, player: own_state("alternating", player, new)}
            return (players | moved, opt_state, state), (found.value[player], _shown(metrics, player, turns))

        carry, first, losses, metrics = (players, opt_state, state), 0, {}, {}
        for player, num in order:
            indices = np.arange(first, first + num)
            carry, (loss, last) = _moves(functools.partial(move, player), carry, indices)
            losses[f"loss/{player}"], metrics, first = loss, metrics | last, first + num
        players, opt_state, state = carry
        return TrainState(players, opt_state, state, count + 1, key), losses | metrics

    return one_step


def _updates(tx: optim.Link, found: Oracle, opt_state: Any, players: Any) -> tuple[Any, Any]:
    """One player's updates.

    Raises:
      ValueError: if links around `by_player` do not take these alone.
    """
    try:
        return tx.update(found.grads, opt_state, players, **found.extra)
    except ValueError as error:
        if tx.call is not None and tx.call.name == "by_player":
            raise
        raise ValueError(
            f"alternating: expected links around by_player that take the updates of one player at a time, got {tx!r}. "
            "Give them to each player inside by_player, or let all play at once by training.step."
        ) from error


def _shown(metrics: dict[str, Any], player: str, turns: Iterable[str]) -> dict[str, Any]:
    """Metrics without those that go by the name of another player, who has a turn to show them."""
    others = tuple(f"/{each}" for each in turns if each != player)
    return {name: value for name, value in metrics.items() if not name.endswith(others)}


def _moves(move: Callable[..., Any], carry: Any, indices: np.ndarray) -> Any:
    """Moves in turn, and what the last one showed."""
    if len(indices) == 1:
        return move(carry, indices[0])
    # A few moves are no loop: XLA's CPU backend takes many times as long over convolutions inside one.
    carry, seen = jax.lax.scan(move, carry, indices, unroll=min(len(indices), 8))
    return carry, jax.tree.map(lambda each: each[-1], seen)


def _check_moves(batch: Any, num_moves: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if jnp.shape(leaf)[:1] != (num_moves,):
            raise ValueError(
                f"alternating: expected batch/{path_of(path)} with an axis of {num_moves} moves in front, "
                f"got {jnp.shape(leaf)}"
            )
