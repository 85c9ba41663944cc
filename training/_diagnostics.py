"""What a game is like where it stands: whether its field rotates, and what each side could still gain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from .._call import recording
from ..optim import oracle
from ._checks import check_count
from ._players import check_player, loss_of
from ._returned import LossFn, loss_metrics, whole_form
from ._state import TrainState, check_link
from ._unroll import descend


class RitzValues(NamedTuple):
    """Eigenvalues of a matrix as a few products show them.

    Attributes:
      values: `[steps]`, complex, the largest in size first.
      residuals: how far `A @ v` is from `value * v`, `[steps]`, for a vector of length 1.
    """

    values: jax.Array
    residuals: jax.Array


def field_jvp(loss_fn: LossFn) -> Callable[..., Any]:
    """The Jacobian of a game's field times a vector.

    Args:
      loss_fn: a game without metrics or state, here and in all that follows: of one with a state,
        `lambda players, batch, key: loss_fn(players, state, batch, key)[0]`.
    Returns:
      `(players, vector, batch=None, key=None) -> J @ vector`, of trees like the players.

    >>> value = zero_sum(lambda p, batch, key: p["x"] * p["y"], minimize="x", maximize="y")
    >>> players, along = ({"x": jnp.array(a), "y": jnp.array(b)} for a, b in ((1.0, 1.0), (2.0, 3.0)))
    >>> {name: part.item() for name, part in field_jvp(value)(players, along).items()}
    {'x': 3.0, 'y': -2.0}
    """

    def product(players: Any, vector: Any, batch: Any = None, key: jax.Array | None = None) -> Any:
        return jax.jvp(lambda players: oracle(lambda p: loss_fn(p, batch, key), players).grads, (players,), (vector,))[
            1
        ]

    return product


def ritz_values(matvec: Callable[[Any], Any], like: Any, key: jax.Array, *, num_steps: int = 20) -> RitzValues:
    """Eigenvalues of a matrix that need not be symmetric, by Arnoldi with full re-orthogonalisation.

    Those at the edge of the spectrum are found first. Where products span a space that the matrix does not leave, the
    search goes on from a new random vector. Where the field of a game has a Jacobian with large imaginary
    parts beside its real ones, it rotates: descent circles, or leaves. For symmetric matrices there is
    `top_eigenvalues`.

    Source: Arnoldi 1951, https://doi.org/10.1090/qam/42792; of games, Mescheder, Nowozin, Geiger 2017,
    https://arxiv.org/abs/1705.10461, section 3.

    Args:
      matvec: `vector -> A @ vector`, such as `lambda v: field_jvp(loss_fn)(players, v, batch, key)`.
      like: a tree of the structure, shapes and dtypes of the vectors.
      key: of the vector to start from.
      num_steps: products; as many as there are numbers in `like` if that is fewer, and then all values are found.
    Returns:
      A `RitzValues(values, residuals)`. JAX computes eigenvalues of such matrices on CPUs and GPUs.
    Raises:
      ValueError: if `num_steps` is below 1.
      TypeError: if `like` is complex: the field of such players is linear over the real numbers only.

    >>> turn = lambda v: jnp.array([[0.0, 1.0], [-1.0, 0.0]]) @ v
    >>> ritz_values(turn, jnp.zeros(2), jax.random.key(0)).values.imag.round(4).tolist()
    [1.0, -1.0]
    """
    check_count("ritz_values", "num_steps", num_steps, at_least=1)
    flat, unravel = ravel_pytree(like)
    if jnp.issubdtype(flat.dtype, jnp.complexfloating):
        raise TypeError(
            f"ritz_values: expected vectors of real numbers, got {flat.dtype}. Give both parts as real ones."
        )
    steps, dtype = min(num_steps, flat.size), jnp.promote_types(flat.dtype, jnp.float32)
    tiny = 10 * jnp.finfo(flat.dtype).eps

    def fresh(index: Any, basis: jax.Array) -> jax.Array:
        drawn = jax.random.normal(jax.random.fold_in(key, index), flat.shape, dtype)
        return _unit(_parts(drawn, basis)[1])

    def one(carry: Any, index: jax.Array) -> Any:
        basis, hessenberg = carry
        image = ravel_pytree(matvec(unravel(basis[index].astype(flat.dtype))))[0].astype(dtype)
        along, left = _parts(image, basis)
        length = jnp.linalg.norm(left)
        ended = length <= tiny * jnp.linalg.norm(image)
        vector = lax.cond(ended, lambda: fresh(index + 1, basis), lambda: _unit(left))
        column = along.at[index + 1].set(jnp.where(ended, 0, length))
        return (basis.at[index + 1].set(vector), hessenberg.at[:, index].set(column)), None

    basis = jnp.zeros((steps + 1, flat.size), dtype)
    begin = (basis.at[0].set(fresh(0, basis)), jnp.zeros((steps + 1, steps), dtype))
    (_, hessenberg), _ = lax.scan(one, begin, jnp.arange(steps))
    values, vectors = jnp.linalg.eig(hessenberg[:steps])
    order = jnp.argsort(-jnp.abs(values))
    return RitzValues(values[order], jnp.abs(hessenberg[steps, steps - 1] * vectors[steps - 1])[order])


def _parts(vector: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How much of each vector of a basis is in a vector, and what is left of it: twice is enough."""
    along, left = jnp.zeros(len(basis), vector.dtype), vector
    for _ in range(2):
        part = jnp.matmul(basis, left, precision="highest")
        along, left = along + part, left - jnp.matmul(part, basis, precision="highest")
    return along, left


def _unit(vector: jax.Array) -> jax.Array:
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0, length, 1)


@recording
def duality_gap(
    loss_fn: LossFn, tx: optax.GradientTransformation, num_steps: int, *, minimize: str, maximize: str
) -> Callable[..., jax.Array]:
    """What both sides of a zero-sum game of two could still gain: zero at a solution, positive elsewhere.

    Each side in turn takes steps against the other as it stands; the best of what these pass is a bound of the best
    there is, so that the gap is at least what is found.

    Source: Grnarova et al. 2019, https://arxiv.org/abs/1811.05512, definition 1.

    Args:
      loss_fn: the game, of `zero_sum`.
      tx: the chain that takes the steps, anew for each side.
      num_steps: how many.
      minimize: the player whose loss is the value.
      maximize: the other.
    Returns:
      `(players, batch=None, key=None) -> gap`, `[]`.
    Raises:
      ValueError: if `num_steps` is below 1; when called, if there are no such players.
      TypeError: if `tx` is no chain; when called, if `loss_fn` is no game.

    >>> value = zero_sum(lambda p, batch, key: p["x"] ** 2 - p["y"] ** 2, minimize="x", maximize="y")
    >>> gap = duality_gap(value, optim.sgd(0.25), 20, minimize="x", maximize="y")
    >>> round(gap({"x": jnp.array(2.0), "y": jnp.array(1.0)}).item(), 3)
    5.0
    """
    check_link("duality_gap", tx)
    check_count("duality_gap", "num_steps", num_steps, at_least=1)
    whole = whole_form("duality_gap", loss_fn, False, False, games=True)

    def gap(players: Any, batch: Any = None, key: jax.Array | None = None) -> jax.Array:
        def reached(player: str) -> jax.Array:
            check_player("duality_gap", player, players)

            def own_loss(own: Any, _: Any) -> Any:
                return loss_of("duality_gap", player, whole({**players, player: own}, None, batch, key)[0]), None

            found = descend(own_loss, tx, players[player], num_steps)
            return jnp.minimum(jnp.min(found.losses), own_loss(found.params, None)[0])

        return -reached(maximize) - reached(minimize)

    return gap


@recording
def tracked(step: Callable[[TrainState, Any], Any]) -> Callable[[TrainState, Any], Any]:
    """A step that says how far each player moved.

    Args:
      step: `(train_state, batch) -> (train_state, metrics)`, of players.
    Returns:
      A step with further metrics: `moved/player`, the length of its move, of which the sum over steps is the length of
      its path.
    Raises:
      TypeError: when called, if the parameters are no dict.

    >>> value = zero_sum(lambda p, batch, key: p["x"] * p["y"], minimize="x", maximize="y")
    >>> tx = optim.sgd(0.1)
    >>> _, metrics = tracked(step(value, tx))(init({"x": jnp.array(3.0), "y": jnp.array(4.0)}, tx), None)
    >>> {name: round(value.item(), 3) for name, value in metrics.items() if name.startswith("moved")}
    {'moved/x': 0.4, 'moved/y': 0.3}
    """

    def one_step(train_state: TrainState, batch: Any) -> Any:
        after, metrics = step(train_state, batch)
        if not isinstance(after.params, dict):
            raise TypeError(f"tracked: expected a dict of players, got {type(after.params).__name__}")
        moves = jax.tree.map(jnp.subtract, after.params, train_state.params)
        return after, metrics | {f"moved/{player}": optax.tree.norm(move) for player, move in moves.items()}

    return one_step


@recording
def field_metrics(loss_fn: LossFn) -> Callable[..., dict[str, jax.Array]]:
    """Each player's loss and the length of its gradient, and whether the field turns.

    Args:
      loss_fn: a game.
    Returns:
      `(players, batch=None, key=None) -> metrics`: `loss/player`, `norm/player`, and `turn`, the angle in radians
      between the field and how it changes along itself: 0 or pi where it is a gradient with one curvature, pi / 2 where
      it only rotates, and where there is no field, or no change, to turn.

    >>> value = zero_sum(lambda p, batch, key: p["x"] * p["y"], minimize="x", maximize="y")
    >>> metrics = field_metrics(value)({"x": jnp.array(3.0), "y": jnp.array(4.0)})
    >>> metrics["norm/x"].item(), round(metrics["turn"].item(), 4)
    (4.0, 1.5708)
    """

    def metrics(players: Any, batch: Any = None, key: jax.Array | None = None) -> dict[str, jax.Array]:
        found = oracle(lambda players: loss_fn(players, batch, key), players)
        change = field_jvp(loss_fn)(players, found.grads, batch, key)
        sizes = optax.tree.norm(found.grads) * optax.tree.norm(change)
        cosine = optax.tree.vdot(found.grads, change) / jnp.where(sizes > 0, sizes, 1)
        norms = {f"norm/{player}": optax.tree.norm(grads) for player, grads in found.grads.items()}
        return loss_metrics(found.value) | norms | {"turn": jnp.arccos(jnp.clip(cosine, -1, 1))}

    return metrics
