"""A link for each player of a game."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from ._link import check_link, link
from ._oracle import check_players


@link
def by_player(links: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformationExtraArgs:
    """Gives each player of a game a link of its own.

    What looks elsewhere in a player's link asks for the gradient of that player's loss where it alone has moved. Links
    that all players take at once, such as `extragradient` and `consensus`, stand around or in front:
    `chain(consensus(0.5), by_player({...}))`.

    Updates of some players alone leave the others, and their states, as they are: `training.alternating` makes them.

    Args:
      links: a link for every player.
    Returns:
      A link over the players' parameters, a dict; its state is a dict of the players' states.
    Raises:
      TypeError: if one is no link.
      ValueError: from `init` and `update`, if the parameters are of other players.

    >>> tx = by_player({"x": sgd(0.1), "y": adam(0.1)})
    >>> players = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
    >>> updates, _ = tx.update(players, tx.init(players), players)
    >>> {player: round(update.item(), 3) for player, update in updates.items()}
    {'x': -0.1, 'y': -0.1}
    """
    made = {player: check_link("by_player", player, tx) for player, tx in links.items()}

    def init(params: Any) -> dict[str, Any]:
        if not isinstance(params, dict) and not jax.tree.leaves(params):  # Optax's placeholder for parameters
            return {player: tx.init(params) for player, tx in made.items()}
        check_players("by_player", made, params)
        return {player: tx.init(params[player]) for player, tx in made.items()}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, dict[str, Any]]:
        whose = set(updates) if isinstance(updates, dict) else set()
        if not whose or not whose <= set(made):
            check_players("by_player", made, updates)
        moving = None if params is None else {player: params[player] for player in updates}
        found, state = {}, dict(state)
        for player, own in updates.items():
            now = None if moving is None else moving[player]
            found[player], state[player] = made[player].update(own, state[player], now, **_own(player, moving, extra))
        return found, state

    return optax.GradientTransformationExtraArgs(init, update)


def _own(player: str, players: Any, extra: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `update` as one player's link is given them, of a game's: its own part of each."""
    own = dict(extra)
    for name in ("value", "grad"):
        if isinstance(own.get(name), dict):
            own[name] = own[name][player]
    for name in ("value_fn", "grad_fn"):
        if own.get(name) is not None and players is not None:
            own[name] = _moving(own[name], player, players)
    return own


def _moving(field: Any, player: str, players: Any) -> Any:
    """A function of all players as one of a single player's parameters, the others staying where they are."""

    # Optax's line searches refuse an argument that value_fn does not take, so it takes grad_fn.
    def moved(own: Any, grad_fn: Any = None) -> Any:
        found = field({**players, player: own})
        return found[player] if isinstance(found, dict) else found

    return moved
