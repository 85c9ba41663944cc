"""Updates that can be differentiated where a gradient is zero."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from .._programs import evaluated
from ._link import check_link, link


@link
def differentiable(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same updates, with a derivative of zero where a root is taken of zero, or something divided by zero.

    Adam divides by the root of a mean of squares, RMS and clipping by that of a sum, LAMB and LARS by a norm. Where a
    gradient is zero the derivative of the root is infinite, and gradients through the update, as meta-learning takes
    them, are NaN. Here the root and the quotient count as constants there; in a loop inside the chain they stay as they
    are. Values are as they were, bitwise; but the root of a negative number, which RAdam takes and leaves out, is zero:
    the derivative of what is left out would be NaN.

    Args:
      tx: the chain, of Optax's own links too.
    Returns:
      A link with the chain's state.
    Raises:
      TypeError: if `tx` is no link.

    >>> slope = lambda tx: jax.grad(lambda g: tx.update(g, tx.init(g))[0])(0.0).item()
    >>> slope(adam(0.1, eps=1e-2)), round(slope(differentiable(adam(0.1, eps=1e-2))), 3)
    (nan, -10.0)
    """
    tx = check_link("differentiable", "tx", tx)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return _with_safe_derivatives(lambda *args: tx.update(*args, **extra), updates, state, params)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def _with_safe_derivatives(function: Callable[..., Any], *args: Any) -> Any:
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    outputs = _run(program.jaxpr, program.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _run(jaxpr: Jaxpr, consts: Any, args: Any) -> list[Any]:
    """The outputs of a program whose derivatives are safe, in branches too; in loops they stay as they are."""
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(place: Any) -> Any:
        return place.val if isinstance(place, Literal) else values[place]

    for eqn in jaxpr.eqns:
        given = [read(place) for place in eqn.invars]
        inner = eqn.params.get("jaxpr")
        if eqn.primitive.name in _SAFE and jnp.issubdtype(jnp.result_type(*given), jnp.inexact):
            outputs = [_SAFE[eqn.primitive.name](*given)]
        elif eqn.primitive.name in ("jit", "pjit") and isinstance(inner, ClosedJaxpr):
            outputs = _run(inner.jaxpr, inner.consts, given)
        elif eqn.primitive.name == "cond":
            outputs = lax.switch(given[0], [_branch(branch) for branch in eqn.params["branches"]], *given[1:])
        else:
            outputs = evaluated(jaxpr, eqn, given)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(place) for place in jaxpr.outvars]


def _branch(program: ClosedJaxpr) -> Callable[..., list[Any]]:
    return lambda *args: _run(program.jaxpr, program.consts, args)


@jax.custom_jvp
def _sqrt(x: jax.Array) -> jax.Array:
    return lax.sqrt(x if jnp.iscomplexobj(x) else jnp.maximum(x, 0))


@_sqrt.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    y = _sqrt(x)
    return y, jnp.where(y == 0, 0, t * 0.5 / jnp.where(y == 0, 1, y))


@jax.custom_jvp
def _rsqrt(x: jax.Array) -> jax.Array:
    return lax.rsqrt(x)


@_rsqrt.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    safe = jnp.where(x == 0, 1, x)
    return _rsqrt(x), jnp.where(x == 0, 0, t * -0.5 * _rsqrt(safe) / safe)


@jax.custom_jvp
def _div(x: jax.Array, y: jax.Array) -> jax.Array:
    return lax.div(x, y)


@_div.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    out = y == 0
    safe = jnp.where(out, 1, y)
    return _div(x, y), jnp.where(out, 0, dx / safe - dy * (jnp.where(out, 0, x) / safe) / safe)


_SAFE: dict[str, Callable[..., Any]] = {
    "div": lambda x, y, **_: _div(x, y),
    "sqrt": lambda x, **_: _sqrt(x),
    "rsqrt": lambda x, **_: _rsqrt(x),
}
