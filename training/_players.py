"""What is asked of players: that they are there, with a loss and a state of their own."""

from collections.abc import Iterable
from typing import Any

import jax


def check_player(name: str, player: str, players: Any) -> None:
    """Refuses a player that is not there.

    Raises:
      ValueError: naming who asks, and the players.
    """
    if not isinstance(players, dict) or player not in players:
        found = sorted(players) if isinstance(players, dict) else type(players).__name__
        raise ValueError(f"{name}: expected {player!r} to be one of the players, got {found}")


def loss_of(name: str, player: str, losses: Any) -> jax.Array:
    """A player's loss among those of a game.

    Raises:
      TypeError: if it is not there, or there is no game.
    """
    if not isinstance(losses, dict) or player not in losses:
        found = f"those of {sorted(losses)}" if isinstance(losses, dict) else "one loss"
        raise TypeError(f"{name}: expected a game with a loss of {player!r}, got {found}. Write game or zero_sum.")
    return losses[player]


def check_states(name: str, state: Any, players: Iterable[str]) -> None:
    """Refuses a state that is not made of players' own: nobody would take it along.

    Raises:
      ValueError: naming who asks, the players, and what there is.
    """
    if not isinstance(state, dict) or not set(state) <= set(players):
        found = sorted(state) if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"{name}: expected a state of players, a dict with names of {sorted(players)}, got {found}. "
            "Write training.init(players, tx, state={'player': its state})."
        )


def own_state(name: str, player: str, states: Any) -> Any:
    """A player's state among those that its loss returned.

    Raises:
      TypeError: if it is not there.
    """
    if not isinstance(states, dict) or player not in states:
        found = sorted(states) if isinstance(states, dict) else type(states).__name__
        raise TypeError(f"{name}: {player}: expected loss_fn to return states with that of {player!r}, got {found}")
    return states[player]
