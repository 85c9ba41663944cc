"""Links that correct the gradients of a game by their Jacobian, which they meet only in products with vectors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._link import at, check_count, check_not_negative, check_share, link
from ._oracle import GradFn, check_players, need
from ._trees import add, combine, conjugate, dot, over, square


@link
def consensus(gamma: optax.ScalarOrSchedule = 1.0) -> optax.GradientTransformationExtraArgs:
    """Adds `gamma J^T g` to the gradients `g` of a game: all players also want the gradients to vanish.

    On the bilinear game `f = xy`, a step of `chain(consensus(gamma), sgd(eta))` makes the distance to the solution
    `sqrt((1 - eta gamma)^2 + eta^2)` times as long: 0.905539 at 0.1, 0.707107 at 0.5. Where the game has no
    potential it may find points that are no solutions.

    Source: Mescheder, Nowozin, Geiger 2017, https://arxiv.org/abs/1705.10461, algorithm 1.

    Args:
      gamma: weight of the correction, at least 0; or a schedule.
    Returns:
      A link whose `update` needs `params` and `grad_fn`.
    Raises:
      ValueError: if `gamma` is negative.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> chain(consensus(0.5), rmsprop(1e-3))
    chain(consensus(gamma=0.5), rmsprop(0.001))
    """
    check_not_negative("consensus", "gamma", gamma)

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: GradFn | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        need("consensus", params=params, grad_fn=grad_fn)
        weight, state = _scheduled(gamma, state)
        return add(updates, _backward(grad_fn, params)(updates), weight), state

    return optax.GradientTransformationExtraArgs(_counting(gamma), update)


@link
def symplectic_adjustment(
    strength: optax.ScalarOrSchedule = 1.0, *, align: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Adds `lambda A^T g` to the gradients `g` of a game, with `A = (J - J^T) / 2` its rotation.

    With `align` the sign of `lambda` is that of `(g . h) (A^T g . h) / size + 0.1`, with `h = J^T g` and `size` the
    number of parameters: the one that draws to stable points and away from others. On the bilinear game `f = xy` it is
    `consensus(strength)`.

    Source: Balduzzi et al. 2018, https://arxiv.org/abs/1802.05642, algorithms 1 and 2.

    Args:
      strength: the size of `lambda`, at least 0; or a schedule.
      align: whether the sign is chosen.
    Returns:
      A link whose `update` needs `params` and `grad_fn`.
    Raises:
      ValueError: if `strength` is negative.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> chain(symplectic_adjustment(), rmsprop(1e-3))
    chain(symplectic_adjustment(), rmsprop(0.001))
    """
    check_not_negative("symplectic_adjustment", "strength", strength)

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: GradFn | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        need("symplectic_adjustment", params=params, grad_fn=grad_fn)
        weight, state = _scheduled(strength, state)
        back, ahead = _backward(grad_fn, params)(updates), _forward(grad_fn, params)(updates)
        rotation = combine(lambda t, f: (t - f) / 2, back, ahead)  # A^T g
        if align:
            # J^T g is the gradient of |g|^2 / 2. The authors' program divides by how many arrays there are.
            size = sum(leaf.size for leaf in jax.tree.leaves(updates))
            weight = weight * jnp.where(dot(updates, back) * dot(rotation, back) / max(size, 1) + 0.1 >= 0, 1, -1)
        return add(updates, rotation, weight), state

    return optax.GradientTransformationExtraArgs(_counting(strength), update)


@link
def lola(alpha: optax.ScalarOrSchedule, *, shaping: bool = True) -> optax.GradientTransformationExtraArgs:
    """Gradients of players who know that the others learn: learning with opponent-learning awareness.

    Each player's gradient is that of its loss after a step `alpha` of all others, to first order; with `shaping`
    also through that step. Without, players only look ahead, and stable points stay fixed points.

    On the bilinear game `f = xy`, with the same step for all, the distance to the solution becomes
    `sqrt((1 - 2 eta^2)^2 + eta^2)` times as long: 0.985089 at 0.1, 0.707107 at 0.5. Without shaping it is that of
    `extragradient`: 0.995038 and 0.901388.

    Source: Foerster et al. 2018, https://arxiv.org/abs/1709.04326; in the form of Letcher et al. 2019,
    https://openreview.net/forum?id=SyGjjsC5tQ: `(I - alpha H_o) g - alpha chi`.

    Args:
      alpha: the step that the others are taken to make, at least 0; or a schedule.
      shaping: whether the players shape the steps of the others.
    Returns:
      A link whose `update` needs `params`, a dict of players, `grad_fn`, and with `shaping` `value_fn`, which returns
      the players' losses; `oracle` passes all of them.
    Raises:
      ValueError: if `alpha` is negative; from `update`, if the losses are those of other players.
      TypeError: from `update`, if an argument is missing.

    >>> chain(lola(0.1), sgd(0.1))
    chain(lola(0.1), sgd(0.1))
    """

    def shaped(updates: Any, ahead: Any, chi: Any, rate: Any) -> Any:
        return add(ahead, chi, -rate)

    return _aware("lola", alpha, shaped if shaping else None)


@link
def sos(alpha: optax.ScalarOrSchedule, *, a: float = 0.5, b: float = 0.1) -> optax.GradientTransformationExtraArgs:
    """Stable opponent shaping: as `lola`, with as much shaping as keeps it stable.

    Source: Letcher et al. 2019, https://openreview.net/forum?id=SyGjjsC5tQ, algorithm 1.

    Args:
      alpha: the step that the others are taken to make, at least 0; or a schedule.
      a: how far shaping may turn the players from looking ahead, at least 0 and below 1.
      b: norm of the gradient below which shaping fades, at least 0 and below 1.
    Returns:
      A link whose `update` needs `params`, a dict of players, `grad_fn`, and `value_fn`, which returns their losses.
    Raises:
      ValueError: if `alpha` is negative, or `a` or `b` is not at least 0 and below 1; from `update`, if the losses are
        those of other players.
      TypeError: from `update`, if an argument is missing.

    >>> chain(sos(1.0), sgd(1.0))
    chain(sos(1.0), sgd(1.0))
    """
    check_share("sos", "a", a)
    check_share("sos", "b", b)

    def shaped(updates: Any, ahead: Any, chi: Any, rate: Any) -> Any:
        turn, size = -rate * dot(chi, ahead), square(updates)
        stays = jnp.where(turn >= 0, 1, jnp.minimum(1, -a * over(square(ahead), turn)))
        fades = jnp.where(size < b**2, size, 1)
        return add(ahead, chi, -rate * jnp.minimum(stays, fades))

    return _aware("sos", alpha, shaped)


@link
def competitive(
    learning_rate: optax.ScalarOrSchedule, *, tolerance: float = 1e-6, max_steps: int = 100
) -> optax.GradientTransformationExtraArgs:
    """Competitive gradient descent: every player's best answer to the others' own, in the local bilinear game.

    The updates `d` solve `(I + eta H_o) d = -eta g`, `H_o` being the Jacobian of the gradients without each player's
    own block, by conjugate gradients on its normal equations: one product with `H_o` and one with its transpose a
    step. On the bilinear game `f = xy` the distance to the solution becomes `1 / sqrt(1 + eta^2)` times as long a step,
    whatever `eta`: 0.995037 at 0.1, 0.894427 at 0.5.

    Source: Schaefer, Anandkumar 2019, https://arxiv.org/abs/1905.12103, algorithm 1; for more players, Ma et al. 2021,
    https://arxiv.org/abs/2102.09224.

    Args:
      learning_rate: eta, at least 0; or a schedule.
      tolerance: of the residual, relative to the right-hand side.
      max_steps: of conjugate gradients, at least 1.
    Returns:
      A link whose `update` needs `params`, a dict of players, and `grad_fn`. It returns steps, not gradients.
    Raises:
      ValueError: if `learning_rate` is negative or `max_steps` below 1; from `update`, if players do not match.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> competitive(0.1)
    competitive(0.1)
    """
    check_not_negative("competitive", "learning_rate", learning_rate)
    check_not_negative("competitive", "tolerance", tolerance)
    check_count("competitive", "max_steps", max_steps)

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: GradFn | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        need("competitive", params=params, grad_fn=grad_fn)
        check_players("competitive", updates, params)
        rate, state = _scheduled(learning_rate, state)
        forward, backward = _forward(grad_fn, params), _backward(grad_fn, params)

        def matrix(step: Any) -> Any:
            return add(step, _others(forward, step), rate)

        def transposed(step: Any) -> Any:
            return add(step, _others(backward, step), rate)

        target = transposed(combine(lambda g: -rate * g, updates))
        steps, _ = jax.scipy.sparse.linalg.cg(
            lambda step: transposed(matrix(step)), target, tol=tolerance, maxiter=max_steps
        )
        return steps, state

    return optax.GradientTransformationExtraArgs(_counting(learning_rate), update)


def _aware(
    name: str, alpha: Any, shaped: Callable[[Any, Any, Any, Any], Any] | None
) -> optax.GradientTransformationExtraArgs:
    """A link whose players look ahead to the others' steps.

    Args:
      name: of the link.
      alpha: the step that the others are taken to make; or a schedule.
      shaped: `(updates, those of looking ahead, chi, step) -> updates`; looking ahead alone if None.
    """
    check_not_negative(name, "alpha", alpha)

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        grad_fn: GradFn | None = None,
        value_fn: Callable[..., Any] | None = None,
        **extra: Any,
    ) -> tuple[Any, Any]:
        need(name, params=params, grad_fn=grad_fn, **({"value_fn": value_fn} if shaped else {}))
        rate, state = _scheduled(alpha, state)
        check_players(name, updates, params)
        ahead = add(updates, _others(_forward(grad_fn, params), updates), -rate)
        if shaped is None:
            return ahead, state
        return shaped(updates, ahead, _shaping(name, grad_fn, value_fn, params), rate), state

    return optax.GradientTransformationExtraArgs(_counting(alpha), update)


def _forward(grad_fn: Any, params: Any) -> Callable[[Any], Any]:
    """`v -> J v`, without `J`."""
    _, forward = jax.linearize(grad_fn, params)
    return lambda vector: forward(combine(lambda x, v: v, params, vector))


def _backward(grad_fn: Any, params: Any) -> Callable[[Any], Any]:
    """`v -> J^T v`, without `J`; of complex numbers as of pairs of real ones, whose transpose JAX has in conjugates."""
    grads, backward = jax.vjp(grad_fn, params)
    return lambda vector: conjugate(backward(conjugate(combine(lambda g, v: v, grads, vector)))[0])


def _others(product: Callable[[Any], Any], vector: Any) -> Any:
    """The same without each player's own block of `J`: what a player has of all others' parts of the vector."""
    return {player: product(_without(vector, player))[player] for player in vector}


def _shaping(name: str, grad_fn: Any, value_fn: Any, params: Any) -> Any:
    """`chi`: for each player, the gradient of the others' steps times its own loss's gradient with respect to them."""
    losses, pull = jax.vjp(lambda params: value_fn(params), params)
    if not isinstance(losses, dict):
        raise ValueError(
            f"{name}: expected a game, whose loss is a dict of every player's, {{'player': loss}}, got one of shape "
            f"{jnp.shape(losses)}"
        )
    check_players(name, losses, params)
    backward = _backward(grad_fn, params)

    def of(player: str) -> Any:
        along = {name: jnp.full(loss.shape, name == player, loss.dtype) for name, loss in losses.items()}
        own = conjugate(pull(along)[0])
        return backward(_without(own, player))[player]

    return {player: of(player) for player in params}


def _without(tree: dict, player: str) -> dict:
    """All others' parts, with zeros in place of a player's own."""
    return tree | {player: jax.tree.map(jnp.zeros_like, tree[player])}


class ScheduledState(NamedTuple):
    """State of a link with a schedule: how many updates it has made, `[]` of int32."""

    step: jax.Array


def _counting(value: Any) -> Callable[..., Any]:
    return lambda params: ScheduledState(jnp.zeros((), jnp.int32)) if callable(value) else optax.EmptyState()


def _scheduled(value: Any, state: Any) -> tuple[Any, Any]:
    """A hyper-parameter now, and the state after."""
    if not callable(value):
        return value, state
    return at(value, state.step), ScheduledState(jnp.asarray(optax.safe_increment(state.step)))
