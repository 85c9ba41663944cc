"""An attack on weights: the worst ones near those trained, an array at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._call import recording
from .._patterns import matching
from ._checks import check_count, check_radius, path_of

WeightAttack = Callable[[Callable[[Any], jax.Array], Any], Any]


@recording
def awp(gamma: float | jax.Array, *, weights: str = "**", num_steps: int = 1) -> WeightAttack:
    """Adversarial weight perturbation: steps up the loss in the weights, each array's within so much of its own norm.

    One step of it leads where SAM would go, but for an array at a time: `v = gamma * |w| * g / |g|`. Where the slope is
    zero nothing moves.

    Source: Wu, Xia, Wang 2020, https://arxiv.org/abs/2004.05884, equations 8 to 10.

    Args:
      gamma: how far an array may move, as a share of its norm; 0.005 in the paper.
      weights: a pattern of the paths of what is moved; `"**/w"` leaves out biases.
      num_steps: how many, each of `gamma`.
    Returns:
      `attack(loss_fn, params) -> params`, with `loss_fn(params) -> loss`.
    Raises:
      ValueError: for numbers out of range; when called, for a pattern that no path matches.

    >>> awp(0.1)(lambda params: 2 * params["w"][0], {"w": jnp.array([3.0, 4.0])})["w"].tolist()
    [3.5, 4.0]
    """
    check_radius("awp", "gamma", gamma)
    check_count("awp", "num_steps", num_steps, at_least=1)

    def attack(loss_fn: Callable[[Any], jax.Array], params: Any) -> Any:
        paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        moves = matching(paths, [weights], "awp: weights")

        def one(path: Any, start: jax.Array, now: jax.Array, grad: jax.Array) -> jax.Array:
            if path_of(path) not in moves:
                return now
            length = _length(start)
            radius = jnp.asarray(gamma, length.dtype) * length
            return start + _into(now + radius * _unit(jnp.conj(grad)) - start, radius)

        def climb(_: Any, now: Any) -> Any:
            return jax.tree_util.tree_map_with_path(one, params, now, jax.grad(loss_fn)(now))

        return lax.fori_loop(0, num_steps, climb, params) if num_steps > 1 else climb(0, params)

    return attack


def _length(w: jax.Array) -> jax.Array:
    """The norm, whose derivative is finite at zero."""
    square = jnp.sum(jnp.square(jnp.abs(w)))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _unit(w: jax.Array) -> jax.Array:
    # Squares of small slopes would be zero: the largest part is brought to 1 first.
    most = lax.stop_gradient(jnp.max(jnp.abs(w), initial=0))
    w = w / jnp.where(most > 0, most, 1)
    length = _length(w)
    return w / jnp.where(length > 0, length, 1)


def _into(w: jax.Array, radius: jax.Array) -> jax.Array:
    """The nearest array of no greater norm."""
    length = _length(w)
    return jnp.where(length > radius, w * (radius / jnp.where(length > radius, length, 1)), w)
