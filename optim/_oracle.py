"""The gradient at other parameters: what links that look elsewhere ask for, over their own parameters."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._trees import conjugate

GradFn = Callable[[Any], Any]


class Oracle(NamedTuple):
    """What a loss is at some parameters, and how to ask for it at others.

    Attributes:
      value: the loss; of a game, a dict of every player's.
      grads: its gradient, which points where the loss rises, of complex parameters too; of a game, a dict of every
        player's, of its own loss with respect to its own parameters.
      aux: what the loss returned beside its value; None without `has_aux`.
      extra: the keyword arguments of `update`: `value`, `grad`, `value_fn` and `grad_fn`.
    """

    value: Any
    grads: Any
    aux: Any
    extra: dict[str, Any]


def oracle(loss_fn: Callable[[Any], Any], params: Any, *, has_aux: bool = False) -> Oracle:
    """A loss, its gradient, and the keyword arguments that hand both to links that look elsewhere.

    Under masks and partitions, Optax's too, `value_fn` and `grad_fn` are functions of a link's own parameters: what it
    does not see is filled in. `loss_fn` may be a game: it then returns a dict of losses, one for each player, and
    `params` is a dict of the players' parameters.

    Args:
      loss_fn: `loss_fn(params) -> loss`, a scalar or a dict of scalars; with `has_aux`, `(loss, aux)`.
      params: where.
      has_aux: whether `loss_fn` returns something beside the loss.
    Returns:
      An `Oracle(value, grads, aux, extra)`.
    Raises:
      TypeError: if the loss is neither a scalar nor a dict of scalars.
      ValueError: if the players of the losses are not those of the parameters.

    >>> tx = chain(extragradient(sgd(0.1)))
    >>> params = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
    >>> game = lambda params: {"x": params["x"] * params["y"], "y": -params["x"] * params["y"]}
    >>> found = oracle(game, params)
    >>> updates, _ = tx.update(found.grads, tx.init(params), params, **found.extra)
    >>> {player: round(update.item(), 3) for player, update in updates.items()}
    {'x': -0.11, 'y': 0.09}
    """
    full = loss_fn if has_aux else lambda params: (loss_fn(params), None)
    value, grads, aux = value_and_grads(full, params)

    # Optax's line searches refuse an argument that value_fn does not take, so it takes grad_fn.
    def value_fn(own: Any, grad_fn: Any = None) -> Any:
        return full(fill(own, params))[0]

    def grad_fn(own: Any) -> Any:
        return punch(value_and_grads(full, fill(own, params))[1], own)

    return Oracle(value, grads, aux, {"value": value, "grad": grads, "value_fn": value_fn, "grad_fn": grad_fn})


def value_and_grads(full: Callable[[Any], tuple[Any, Any]], params: Any) -> tuple[Any, Any, Any]:
    """The value, gradient and auxiliary output of `full(params) -> (loss or losses, aux)`."""
    whole = [path for path, leaf in jax.tree_util.tree_leaves_with_path(params) if not _is_inexact(leaf)]
    if whole:
        found = ", ".join(jax.tree_util.keystr(path, simple=True, separator="/") for path in whole)
        raise TypeError(f"oracle: expected parameters of floating-point numbers, got others at {found}")
    values, pull, aux = jax.vjp(full, params, has_aux=True)
    if not isinstance(values, dict):
        _check_scalar(values, "a scalar loss, or a dict of them")
        return values, conjugate(pull(jnp.ones_like(values))[0]), aux
    check_players("oracle", values, params)
    for player, value in values.items():
        _check_scalar(value, f"a scalar loss of the player {player!r}")

    # A pull with zeros for all losses but one would go back through all of them, once for each player.
    values, push, aux = jax.linearize(full, params, has_aux=True)

    def gradient(player: str) -> Any:
        pull_own = jax.linear_transpose(lambda tangent: push(tangent)[player], params)
        return conjugate(pull_own(jnp.ones_like(values[player]))[0][player])

    return values, {player: gradient(player) for player in params}, aux


def check_players(name: str, losses: Any, params: Any) -> None:
    """Refuses losses, or options, of other players than those of the parameters.

    Raises:
      ValueError: naming who asks, with the players of both.
    """
    if not isinstance(losses, Mapping):
        raise ValueError(
            f"{name}: expected the players of a game, a dict, got {type(losses).__name__}. A game's parameters are a "
            "dict, {'player': its parameters}."
        )
    if not isinstance(params, dict) or set(losses) != set(params):
        found = sorted(params) if isinstance(params, dict) else type(params).__name__
        raise ValueError(
            f"{name}: expected parameters of the players {sorted(losses)}, got {found}. "
            "A game's parameters are a dict, {'player': its parameters}."
        )


def need(name: str, **given: Any) -> None:
    """Refuses to go on without what a link looks elsewhere with.

    Raises:
      TypeError: with the line to write.
    """
    missing = [argument for argument, value in given.items() if value is None]
    if missing:
        raise TypeError(
            f"{name}: expected {' and '.join(given)} in update, got no {' and no '.join(missing)}. "
            "training.step passes them; a loop of your own writes found = optim.oracle(loss_fn, params) and "
            "tx.update(found.grads, opt_state, params, **found.extra)."
        )


def over_own(extra: Mapping[str, Any], params: Any) -> dict[str, Any]:
    """Extra arguments whose functions of parameters fill the holes that a wrapper makes, from `params`."""
    value_fn, grad_fn = extra.get("value_fn"), extra.get("grad_fn")
    filled = dict(extra)
    if value_fn is not None:
        # Line searches hand value_fn what its signature takes.
        filled["value_fn"] = functools.wraps(value_fn)(
            lambda own, *args, **kw: value_fn(fill(own, params), *args, **kw)
        )
    if grad_fn is not None:
        filled["grad_fn"] = lambda own: punch(grad_fn(fill(own, params)), own)
    return filled


def fill(own: Any, params: Any) -> Any:
    """A masked link's parameters, completed by those that it does not see."""
    return jax.tree.map(lambda mine, all_of: all_of if is_hole(mine) else mine, own, params, is_leaf=is_hole)


def punch(grads: Any, own: Any) -> Any:
    """Gradients of a masked link's parameters, with its holes."""
    return jax.tree.map(lambda mine, grad: mine if is_hole(mine) else grad, own, grads, is_leaf=is_hole)


def is_hole(leaf: Any) -> bool:
    """Whether a mask hides what stands here."""
    return isinstance(leaf, optax.MaskedNode)


def _is_inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def _check_scalar(value: Any, wanted: str) -> None:
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        found = f"{value.dtype} {value.shape}" if hasattr(value, "shape") else type(value).__name__
        raise TypeError(f"oracle: expected {wanted}, got {found}")
