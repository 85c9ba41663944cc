"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .._lapack import in_turn
from ._link import check_count, check_not_negative, check_positive, check_share, link
from ._trees import root, square, wide


class SoapState(NamedTuple):
    """State of `soap`, but for its learning rate.

    Attributes:
      step: updates made so far, `[]` of int32.
      leaves: what is kept of each parameter, a `SoapMoments`.
    """

    step: jax.Array
    leaves: Any


class SoapMoments(NamedTuple):
    """What `soap` keeps of a parameter, in float32 at least.

    Attributes:
      mean: of the gradients, shape of the parameter.
      square: mean of the squared gradients in the eigenbasis, shape of the parameter.
      factors: for each axis that is rotated, `[size, size]`: the mean product of the gradient with itself along all
        other axes.
      bases: of the same shapes: the eigenvectors of the factors in columns, those of the largest values first.
    """

    mean: jax.Array
    square: jax.Array
    factors: tuple[jax.Array, ...]
    bases: tuple[jax.Array, ...]


@link
def soap(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    precondition_frequency: int = 10,
    max_precondition_size: int = 10_000,
) -> optax.GradientTransformation:
    """SOAP: Adam in the slowly changing eigenbasis of Shampoo's preconditioner.

    A matrix is rotated on both sides, an array of more axes along each of them; scalars and vectors are Adam's, and
    nothing is rotated along axes longer than `max_precondition_size`. As in the authors' program, the first gradient
    only makes the first basis, by an eigendecomposition: the first update is zero, and means begin after it. The basis
    is refreshed after an update, by one step of the power iteration and a QR decomposition, its vectors sorted by their
    values, and the squares with them. Derivatives do not pass through the choice of the basis.

    Where a gradient has no part along a vector but by rounding, it is taken to have none: the program makes whole steps
    of such noise where gradients are of low rank.

    Source: Vyas et al. 2024, https://arxiv.org/abs/2409.11321, algorithms 3 and 4, with Adam's correction of bias; the
    first step and the order of the vectors are those of https://github.com/nikhilvyas/SOAP.

    Args:
      learning_rate: at least 0; or a schedule. The authors' is 3e-3.
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares, and of the preconditioner.
      eps: added to the root of the squares, above 0.
      weight_decay: share of the parameters that is subtracted, times the learning rate, from the first update on; at
        least 0. Where it is not 0, `update` needs `params`.
      precondition_frequency: steps from one basis to the next, at least 1.
      max_precondition_size: length of an axis that is rotated, at most; at least 1.
    Returns:
      A link. For a matrix `[m, n]` it holds `2 m n + 2 m^2 + 2 n^2` numbers.
    Raises:
      ValueError: if a number is out of its range.

    >>> tx = soap(1e-2)
    >>> state = tx.init({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})[0]
    >>> [basis.shape for basis in state.leaves["w"].bases], state.leaves["b"].bases
    ([(2, 2), (3, 3)], ())
    """
    check_not_negative("soap", "learning_rate", learning_rate)
    check_share("soap", "b1", b1)
    check_share("soap", "b2", b2)
    check_positive("soap", "eps", eps)
    check_not_negative("soap", "weight_decay", weight_decay)
    check_count("soap", "precondition_frequency", precondition_frequency)
    check_count("soap", "max_precondition_size", max_precondition_size)

    def axes_of(shape: tuple[int, ...]) -> list[int]:
        return [axis for axis, size in enumerate(shape) if len(shape) > 1 and 1 < size <= max_precondition_size]

    def begin(leaf: Any) -> SoapMoments:
        def zeros(*shape: int) -> jax.Array:
            return jnp.zeros(shape, jnp.promote_types(leaf.dtype, jnp.float32))

        sizes = [leaf.shape[axis] for axis in axes_of(leaf.shape)]
        factors, bases = (tuple(zeros(size, size) for size in sizes) for _ in range(2))
        return SoapMoments(zeros(*leaf.shape), zeros(*leaf.shape), factors, bases)

    def init(params: Any) -> SoapState:
        return SoapState(jnp.zeros((), jnp.int32), jax.tree.map(begin, params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        step = state.step
        turns = jnp.where(step == 0, 0, jnp.where(step % precondition_frequency == 0, 1, 2))
        bias1, bias2 = (1 - decay ** jnp.maximum(step, 1) for decay in (b1, b2))

        def one(update: Any, held: SoapMoments) -> _Moved:
            g, axes, first = wide(update), axes_of(update.shape), step == 0
            turned = _into(g, held.bases, axes)
            mean = jnp.where(first, 0, b1 * held.mean + (1 - b1) * g)
            second = jnp.where(first, 0, b2 * held.square + (1 - b2) * jnp.square(turned))
            scaled = _into(mean, held.bases, axes) / bias1 / (root(second / bias2) + eps)
            moved = _turned(scaled, held.bases, axes, back=True).astype(update.dtype)
            products = zip(held.factors, axes, strict=True)
            factors = tuple(b2 * factor + (1 - b2) * _product(g, axis) for factor, axis in products)
            second, bases = _refreshed(turns, second, lax.stop_gradient(factors), held.bases, axes)
            return _Moved(moved, SoapMoments(mean, second, factors, bases))

        both = jax.tree.map(one, updates, state.leaves)
        moved, leaves = (_every(both, part) for part in ("step", "kept"))
        return moved, SoapState(jnp.asarray(optax.safe_increment(step)), leaves)

    # A number of exactly zero needs no parameters; one that is injected may become another.
    decays = not isinstance(weight_decay, int | float) or weight_decay > 0
    decay = optax.add_decayed_weights(weight_decay) if decays else optax.identity()
    rotated = optax.GradientTransformationExtraArgs(init, update)
    return optax.chain(rotated, decay, optax.scale_by_learning_rate(learning_rate))


_eigenvectors = in_turn(lambda matrix: jnp.linalg.eigh(matrix)[1])
_orthonormal = in_turn(lambda matrix: jnp.linalg.qr(matrix)[0])


class _Moved(NamedTuple):
    """An update of a parameter, and what is kept of it."""

    step: jax.Array
    kept: SoapMoments


def _every(both: Any, part: str) -> Any:
    return jax.tree.map(lambda leaf: getattr(leaf, part), both, is_leaf=lambda node: isinstance(node, _Moved))


def _into(x: jax.Array, bases: tuple[jax.Array, ...], axes: list[int]) -> jax.Array:
    """An array in the eigenbasis, without what is there by rounding only: Adam would make whole steps of it."""
    turned = _turned(x, bases, axes)
    noise = 32 * jnp.finfo(x.dtype).eps * root(square(x)) if bases else 0
    return jnp.where(jnp.abs(turned) > noise, turned, 0)


def _turned(x: jax.Array, bases: tuple[jax.Array, ...], axes: list[int], *, back: bool = False) -> jax.Array:
    """An array in the eigenbasis, or back from there."""
    for basis, axis in zip(bases, axes, strict=True):
        x = jnp.moveaxis(jnp.tensordot(x, basis, ((axis,), (1 if back else 0,))), -1, axis)
    return x


def _product(x: jax.Array, axis: int) -> jax.Array:
    """The products of the slices of an axis with each other, `[size, size]`."""
    others = [each for each in range(x.ndim) if each != axis]
    return jnp.tensordot(x, x, (others, others))


def _refreshed(
    turns: jax.Array, second: jax.Array, factors: tuple[jax.Array, ...], bases: tuple[jax.Array, ...], axes: list[int]
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The bases of the next step, and the squares in their order: 0 makes them, 1 refreshes them, 2 leaves them."""

    def made() -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return second, tuple(_eigenvectors(factor)[:, ::-1] for factor in factors)

    def refreshed() -> tuple[jax.Array, tuple[jax.Array, ...]]:
        ordered, found = second, []
        for factor, basis, axis in zip(factors, bases, axes, strict=True):
            powers = factor @ basis
            order = jnp.argsort(-jnp.sum(basis * powers, 0))
            ordered = jnp.take(ordered, order, axis)
            found.append(_orthonormal(powers[:, order]))
        return ordered, tuple(found)

    if not bases:
        return second, bases
    return lax.switch(turns, (made, refreshed, lambda: (second, bases)))
