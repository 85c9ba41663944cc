"""Implicit differentiation of a minimum, and solvers that know a matrix by its products alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from .._call import recording
from ._checks import check_count, path_of
from ._minimize import Backward, StepLoss
from ._unroll import UNROLLED, descend

Matvec = Callable[[Any], Any]
Solver = Callable[[Matvec, Any], Any]


@recording
def implicit(solver: Solver) -> Backward:
    """Gradients of a minimum from what holds there: the slope of the loss is zero, and stays so.

    Where the steps of `minimize` led to is taken for a minimum, however they went; a solver applies the inverse of the
    loss's second derivatives there. The memory does not grow with the number of steps, and where they began has no
    gradient. Second derivatives go through the same condition. A loss with keys is taken for stationary with the key
    of the step `num_steps`.

    Source: Bengio 2000, https://doi.org/10.1162/089976600300015187, section 2; Pedregosa 2016,
    https://arxiv.org/abs/1602.02355, equation 3.

    Args:
      solver: `solver(matvec, b) -> x` with `matvec(x)` close to `b`, vectors of as many numbers as there are
        parameters; `matvec` is linear and symmetric. `conjugate_gradient`, `neumann`, or a function of yours.
    Returns:
      A `backward` for `minimize`. It prints, compares and hashes as the call that made it.
    Raises:
      TypeError: when called, if parameters are complex numbers.

    >>> loss_fn = lambda w, penalty, target, key: (w - target) ** 2 + penalty * w**2
    >>> solve = minimize(loss_fn, optim.sgd(0.2), 50, backward=implicit(conjugate_gradient(1)))
    >>> round(jax.grad(lambda penalty: solve(jnp.array(0.0), penalty, 3.0))(0.5).item(), 4)
    -1.3333
    """

    def backward(loss_fn: StepLoss, tx: optax.GradientTransformation, params: Any, num_steps: int) -> Any:
        _check_real(params)

        def slope(params: Any) -> Any:
            return jax.grad(lambda params: loss_fn(params, num_steps)[0])(params)

        def solve(_: Any, start: Any) -> Any:
            return descend(loss_fn, tx, start, num_steps).params

        return lax.custom_root(slope, lax.stop_gradient(params), solve, solve_tangents)

    def solve_tangents(matvec: Matvec, b: Any) -> Any:
        # One vector, since JAX cannot transpose a linear solve of which some leaves alone depend on anything.
        flat, as_tree = ravel_pytree(b)

        def of_vector(vector: jax.Array) -> jax.Array:
            return ravel_pytree(matvec(as_tree(vector)))[0]

        return as_tree(lax.custom_linear_solve(of_vector, flat, solver, symmetric=True))

    return backward


@recording
def conjugate_gradient(num_steps: int, *, damping: float | jax.Array = 0.0) -> Solver:
    """Solves a positive definite system by conjugate gradients: exactly in as many steps as it has unknowns.

    Source: Hestenes, Stiefel 1952, https://doi.org/10.6028/jres.049.044, equations 3:1.

    Args:
      num_steps: how many, each with one product. Once nothing is left over, further steps change nothing.
      damping: is added to the diagonal.
    Returns:
      `(matvec, b) -> x`, of trees. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: if `num_steps` is below 1 or `damping` is negative.

    >>> matrix = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    >>> conjugate_gradient(2)(lambda x: matrix @ x, jnp.array([9.0, 8.0])).round(4).tolist()
    [2.0, 3.0]
    """
    check_count("conjugate_gradient", "num_steps", num_steps, at_least=1)
    if isinstance(damping, int | float) and damping < 0:
        raise ValueError(f"conjugate_gradient: expected damping to be at least 0, got {damping}")

    def solver(matvec: Matvec, b: Any) -> Any:
        def one(_: Any, carry: Any) -> Any:
            x, left, along, size = carry
            product = _plus(matvec(along), damping, along)
            length = _ratio(size, optax.tree.vdot(along, product))
            x, left = _plus(x, length, along), _plus(left, -length, product)
            new_size = optax.tree.vdot(left, left)
            return x, left, _plus(left, _ratio(new_size, size), along), new_size

        carry = (optax.tree.zeros_like(b), b, b, optax.tree.vdot(b, b))
        return lax.fori_loop(0, num_steps, one, carry, unroll=num_steps <= UNROLLED)[0]

    return solver


@recording
def neumann(num_terms: int, learning_rate: float | jax.Array) -> Solver:
    """Solves a positive definite system by the first terms of Neumann's series.

    With the matrix `A` and the rate `r` it is `x = sum of r (1 - r A)^k b` over `k` below `num_terms`, that is, as many
    steps of gradient descent. It converges where `r` is below 2 over the largest eigenvalue, at the share
    `1 - r * smallest eigenvalue` a term. With the rate of inner SGD at its minimum it is unrolling, truncated to as
    many steps.

    Source: Lorraine, Vicol, Duvenaud 2020, https://arxiv.org/abs/1911.02590, algorithm 3.

    Args:
      num_terms: how many, at least 1, with one product for each but the first.
      learning_rate: `r`.
    Returns:
      `(matvec, b) -> x`, of trees. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: if `num_terms` is below 1 or `learning_rate` is not positive.

    >>> neumann(3, 0.25)(lambda x: 2 * x, jnp.array(8.0)).item()
    3.5
    """
    check_count("neumann", "num_terms", num_terms, at_least=1)
    if isinstance(learning_rate, int | float) and learning_rate <= 0:
        raise ValueError(f"neumann: expected learning_rate to be above 0, got {learning_rate}")

    def solver(matvec: Matvec, b: Any) -> Any:
        def one(_: Any, carry: Any) -> Any:
            x, term = carry
            term = _plus(term, -learning_rate, matvec(term))
            return _plus(x, learning_rate, term), term

        first = _plus(optax.tree.zeros_like(b), learning_rate, b)
        return lax.fori_loop(0, num_terms - 1, one, (first, b), unroll=num_terms <= UNROLLED)[0]

    return solver


def _plus(first: Any, factor: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: a + (factor * b).astype(a.dtype), first, second)


def _ratio(above: Any, below: Any) -> jax.Array:
    """A quotient that is zero where nothing is left to divide by: the system is solved."""
    return jnp.where(below == 0, 0, above / jnp.where(below == 0, 1, below))


def _check_real(params: Any) -> None:
    found = [path_of(path) for path, leaf in jax.tree_util.tree_leaves_with_path(params) if jnp.iscomplexobj(leaf)]
    if found:
        raise TypeError(
            f"implicit: expected real parameters, got complex ones at {', '.join(name or 'params' for name in found)}. "
            "Take unrolled(), or real and imaginary parts apart."
        )
