"""What a loss function returned, in one form whatever its flags."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LossFn = Callable[..., Any]


def parts(
    name: str, result: Any, state: Any, *, has_aux: bool, stateful: bool, games: bool = False
) -> tuple[Any, tuple[Any, dict]]:
    """What a loss returned, as `(loss, (state, metrics))`.

    Args:
      name: who asks, as the error begins.
      result: what the loss returned.
      state: what went in; it comes back where the loss has none.
      has_aux: whether metrics are expected.
      stateful: whether state and metrics are expected.
      games: whether the loss may be a dict of the players'.
    Raises:
      TypeError: if the result is not of this form, or the loss no scalar.
    """
    loss, metrics = result, {}
    if stateful:
        if not (_is_pair(result) and _is_pair(result[1])):
            raise TypeError(
                f"{name}: expected loss_fn to return (loss, (state, metrics)) with stateful=True, {_got(result)}"
            )
        loss, (state, metrics) = result
    elif has_aux:
        if not _is_pair(result):
            raise TypeError(f"{name}: expected loss_fn to return (loss, metrics) with has_aux=True, {_got(result)}")
        loss, metrics = result
    elif not jax.tree_util.all_leaves([result]) and not (games and isinstance(result, dict)):
        raise TypeError(
            f"{name}: expected loss_fn to return a scalar, {_got(result)}. Give has_aux=True or stateful=True."
        )
    if games and isinstance(loss, dict):
        shapes = {player: jnp.shape(value) for player, value in loss.items()}
        if set(shapes.values()) != {()}:
            raise TypeError(f"{name}: expected a scalar loss of every player, got shapes {shapes}. Take their means.")
    elif jnp.shape(loss) != ():
        raise TypeError(
            f"{name}: expected loss_fn to return a scalar loss, got shape {jnp.shape(loss)}. Take its mean."
        )
    if not isinstance(metrics, dict) or "loss" in metrics:
        raise TypeError(f"{name}: expected metrics to be a dict without the name 'loss', got {metrics!r}")
    return loss, (state, metrics)


def scalar(name: str, loss: Any) -> jax.Array:
    """The loss, if it is one number.

    Raises:
      TypeError: if it is not.
    """
    if not jax.tree_util.all_leaves([loss]) or jnp.shape(loss) != ():
        shapes = jax.tree.map(jnp.shape, loss)
        raise TypeError(f"{name}: expected loss_fn to return a scalar, got shape {shapes}. Take its mean.")
    return loss


def whole_form(name: str, loss_fn: LossFn, has_aux: bool, stateful: bool, *, games: bool = False) -> LossFn:
    """`(params, state, batch, key) -> (loss, (state, metrics))` from a loss of any form, a game's on request."""

    def whole(params: Any, state: Any, batch: Any, key: jax.Array | None) -> tuple[Any, tuple[Any, dict]]:
        args = (params, state, batch, key) if stateful else (params, batch, key)
        return parts(name, loss_fn(*args), state, has_aux=has_aux, stateful=stateful, games=games)

    return whole


def in_form(whole: LossFn, has_aux: bool, stateful: bool) -> LossFn:
    """A loss in the whole form as one of the form that the flags say, with `key=None` by default."""

    def with_state(params: Any, state: Any, batch: Any, key: jax.Array | None = None) -> Any:
        return whole(params, state, batch, key)

    def with_aux(params: Any, batch: Any, key: jax.Array | None = None) -> Any:
        loss, (_, metrics) = whole(params, None, batch, key)
        return loss, metrics

    def plain(params: Any, batch: Any, key: jax.Array | None = None) -> Any:
        return whole(params, None, batch, key)[0]

    return with_state if stateful else with_aux if has_aux else plain


def loss_metrics(loss: Any) -> dict[str, jax.Array]:
    """A loss as a metric; of a game, every player's."""
    return {f"loss/{player}": value for player, value in loss.items()} if isinstance(loss, dict) else {"loss": loss}


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _got(result: Any) -> str:
    return f"got {jax.tree.map(jnp.shape, result)!r} (shapes)"
