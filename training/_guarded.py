"""A run that stops when a player is no longer finite, with its name and the last good state."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._call import recording
from ._state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
_PREFIX = "broken/"


class NotFiniteError(FloatingPointError):
    """Players that are no longer finite; raised by `fit` of a `guarded` step.

    Attributes:
      players: their names.
      train_state: the last one in which everyone was finite.
    """

    def __init__(self, players: tuple[str, ...], train_state: TrainState):
        self.players, self.train_state = tuple(sorted(players)), train_state
        super().__init__(
            f"fit: expected finite players, got {', '.join(self.players)} with NaN or infinity. A smaller learning "
            f"rate, or a clip of its gradient, may help; the last good train state is of step {int(train_state.step)}."
        )


@recording
def guarded(step: Step) -> Step:
    """A step that is not made where it would leave a player with NaN or infinity.

    The train state then stays as it was, its count of steps too, and the metrics say who broke; another batch is tried
    from there. `fit` keeps these metrics to itself, and stops after a report if a player broke, with a `NotFiniteError`
    that holds the last good state. Parameters have to be finite; what is carried for them, free of NaN.
    It costs a pass over all that the state holds: a fifth of the time of a small step.

    Args:
      step: `(train_state, batch) -> (train_state, metrics)`, whose parameters are a dict: of players, of a game, or of
        a network's children.
    Returns:
      A step with further metrics `broken/player`, 1 where the player would have been left with such numbers, else 0. It
      prints, compares and hashes as the call that made it.
    Raises:
      TypeError: when called, if the parameters are no dict.

    >>> losses = {"x": lambda p, batch, key: p["x"] ** 2, "y": lambda p, batch, key: jnp.log(batch * p["y"])}
    >>> tx = optim.sgd(0.1)
    >>> safe, train_state = guarded(step(game(losses), tx)), init({"x": jnp.array(1.0), "y": jnp.array(1.0)}, tx)
    >>> train_state, metrics = safe(train_state, jnp.array(0.0))
    >>> metrics["broken/x"].item(), metrics["broken/y"].item(), train_state.step.item()
    (0.0, 1.0, 0)
    """

    def one_step(train_state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        after, metrics = step(train_state, batch)
        if not isinstance(after.params, dict):
            raise TypeError(f"guarded: expected a dict of players, got {type(after.params).__name__}")
        broken = {player: _broken(player, after) for player in after.params}
        stays = jax.tree.reduce(operator.or_, broken)
        kept = jax.tree.map(lambda old, new: new if new is old else jnp.where(stays, old, new), train_state, after)
        return kept, metrics | {f"{_PREFIX}{player}": found.astype(jnp.float32) for player, found in broken.items()}

    return one_step


def told_apart(metrics: Mapping[str, float]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Metrics without those of a guarded step, and the players that these say broke."""
    shown = {name: value for name, value in metrics.items() if not name.startswith(_PREFIX)}
    return shown, tuple(name.removeprefix(_PREFIX) for name in metrics.keys() - shown.keys() if metrics[name] > 0)


def _broken(player: str, after: TrainState) -> jax.Array:
    """Whether a player's parameters are not finite, or what belongs to it elsewhere has NaN."""
    carried = jax.tree_util.tree_leaves_with_path((after.opt_state, after.state))
    own = [leaf for path, leaf in carried if any(getattr(part, "key", None) == player for part in path)]
    found = [~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params[player]) if _is_float(leaf)]
    found += [jnp.isnan(leaf).any() for leaf in own if _is_float(leaf)]
    return jnp.any(jnp.stack(found)) if found else jnp.array(False)


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
