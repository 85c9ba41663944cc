"""A sequence through a cell, with the weight gradients of all its steps taken in one matmul.

Plain autodiff of `lax.scan` adds to the gradient of every weight at every step. Here the derivative is written
down instead, as the linear map that it is. The change of a cell's weights reaches step t as a change `eps_t` of the
pre-activations there, `eps = xs @ dw + hs @ du + db`, which one matmul makes for all steps; a linear scan then carries
it through time. JAX transposes that matmul and that scan by itself: the gradient is a reverse scan followed by
`dw = xs.T @ d_eps`. A `jax.custom_jvp`, unlike a `custom_vjp`, leaves forward mode and all orders possible.

Two choices were made on XLA's CPU backend, and `benchmarks/recurrence.py` times them beside their alternatives, in
CPU time of one core. Weight gradients after the scan: 1.1 to 1.4 times faster than plain autodiff. The input projection
`x @ w` inside the scan, not before it as textbooks have it: 1.2 to 1.5 times faster, under plain autodiff, since no
buffer of all projections is written and read again. `unroll` above 1 is 1.1 to 1.5 times slower.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from ._cell import Steps, scan_steps, where, zeros_like


class Derivative(NamedTuple):
    """A cell's step together with its derivative.

    Attributes:
      step: `(params, carry, x) -> ((carry, y), kept)`; `kept` is what the other two need of a step.
      perturb: `(params, dparams, kept, xs, dxs) -> eps`, the changes of the pre-activations at all steps. Changes
        that are known to be zero are `SymbolicZero`.
      tangent: `(params, dcarry, eps, kept) -> (dcarry, dy)` of one step, linear in `dcarry` and `eps`.
      prepare: `(params, xs) -> params` with what is made of them once for all steps, for `step` and `tangent`.
    """

    step: Callable[..., Any]
    perturb: Callable[..., Any]
    tangent: Callable[..., Any]
    prepare: Callable[..., Any]


def hoisted(cell: Derivative) -> Callable[..., Any]:
    """How a cell with a derivative goes through a sequence: the `scan` of its parts."""

    def scan(params: Any, carry: Any, initial: Any, xs: jax.Array, steps: Steps) -> tuple[Any, Any]:
        params = jax.tree.map(lambda leaf: leaf.astype(jax.tree.leaves(initial)[0].dtype), params)
        xs = xs.astype(jax.tree.leaves(initial)[0].dtype)
        return _scan(cell, steps.reverse, steps.unroll, params, carry, initial, xs, steps.alive, steps.reset)

    return scan


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _scan(
    cell: Derivative,
    reverse: bool,
    unroll: int,
    params: Any,
    carry: Any,
    initial: Any,
    xs: jax.Array,
    alive: jax.Array | None,
    reset: jax.Array | None,
) -> tuple[Any, Any]:
    steps, params = Steps(alive, reset, reverse, unroll), cell.prepare(params, xs)
    return scan_steps(lambda carry, x: cell.step(params, carry, x)[0], carry, initial, xs, steps)


@functools.partial(_scan.defjvp, symbolic_zeros=True)
def _scan_jvp(cell: Derivative, reverse: bool, unroll: int, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    params, carry, initial, xs, alive, reset = primals
    dparams, dcarry, dinitial, dxs, *_ = tangents
    prepared = cell.prepare(params, xs)

    def forward(carry: Any, at: tuple) -> tuple[Any, Any]:
        x, alive, reset = at
        before = carry if reset is None else where(reset, initial, carry)
        (after, y), kept = cell.step(prepared, before, x)
        if alive is not None:
            after, y = where(alive, after, carry), where(alive, y, zeros_like(y))
        return after, (y, kept)

    scan = functools.partial(lax.scan, reverse=reverse, unroll=unroll)
    carry_out, (ys, kept) = scan(forward, carry, (xs, alive, reset))
    eps = cell.perturb(params, dparams, kept, xs, dxs)
    # Without a checkpoint, autodiff would keep the products that `tangent` makes of `kept`, and not `kept` itself.
    tangent = jax.checkpoint(cell.tangent, prevent_cse=False)
    dcarry, dinitial = _instantiated(dcarry, carry), _instantiated(dinitial, initial)

    def linear(dcarry: Any, at: tuple) -> tuple[Any, Any]:
        eps, kept, alive, reset = at
        before = dcarry if reset is None else where(reset, dinitial, dcarry)
        after, dy = tangent(prepared, before, eps, kept)
        if alive is not None:
            after, dy = where(alive, after, dcarry), where(alive, dy, zeros_like(dy))
        return after, dy

    return (carry_out, ys), scan(linear, dcarry, (eps, kept, alive, reset))


def changes(*products: tuple[Any, Any], bias: Any, num: int) -> jax.Array:
    """The sum of `a @ b` over the pairs, and of a bias, without those known to be zero.

    Args:
      *products: pairs `[time, *batch, in]` and `[in, num]`, one of each pair a change.
      bias: a change `[num]`.
      num: columns of the result.
    Returns:
      `[time, *batch, num]`.
    """
    known = [pair for pair in products if not any(isinstance(factor, SymbolicZero) for factor in pair)]
    terms = [_rows_by_matrix(*pair) for pair in known]
    shape = (*products[0][0].shape[:-1], num)
    terms += [] if isinstance(bias, SymbolicZero) else [jnp.broadcast_to(bias, shape)]
    return sum(terms[1:], start=terms[0]) if terms else jnp.zeros(shape, products[0][0].dtype)


def times(rows: jax.Array, transposed: jax.Array) -> jax.Array:
    """`rows @ transposed.T`, whose own transpose, a step of every backward scan, is a plain product.

    XLA's CPU backend would transpose the weights anew in each of them: 5 % of an LSTM's forward and backward pass.
    """
    return lax.dot_general(rows, transposed, (((rows.ndim - 1,), (1,)), ((), ())))


def columns(matrix: Any, *sizes: int) -> tuple[Any, ...]:
    """A matrix, or a change of one, cut into columns of these sizes."""
    return (matrix,) * len(sizes) if isinstance(matrix, SymbolicZero) else split(matrix, *sizes)


def split(array: jax.Array, *sizes: int) -> tuple[jax.Array, ...]:
    """The last axis cut into these sizes; the derivative is one concatenation."""
    return tuple(lax.split(array, sizes, axis=array.ndim - 1))


def _rows_by_matrix(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    """`rows @ matrix` in two dimensions, where XLA's matmuls are fastest, unless rows are spread over a mesh."""
    if any(jax.typeof(rows).sharding.spec):
        return rows @ matrix
    return (rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1]) @ matrix).reshape(
        *rows.shape[:-1], matrix.shape[-1]
    )


def _instantiated(tangents: Any, primals: Any) -> Any:
    def make(tangent: Any, primal: jax.Array) -> jax.Array:
        return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent

    return jax.tree.map(make, tangents, primals, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
