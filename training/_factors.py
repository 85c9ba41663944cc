"""Derivatives with respect to what enters an equation, from the equation's other operands and its outputs' derivatives.

A matrix product, and a convolution with its windows laid out, meets its weights as `x [n, t, i]` times `w [n, i, o]`:
`n` groups that do not see each other, `t` positions. One example's gradient is `x.T @ delta`, summed over positions,
for the derivative `delta [n, t, o]` of the loss with respect to the product. Its norm is known without it.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr
from jax.lax import GatherScatterMode

from .._programs import evaluated

Array = jax.Array

# Rounding may take so many units in the last place, of what the terms of a squared norm would be without signs.
_MARGIN = 8


class Rule(NamedTuple):
    """How an equation's learned operand gets its derivatives.

    Attributes:
      gradients: `(operands, deltas) -> gradients`, one an example, in a list over the equation's operands, None for
        those that are not learned.
      squares: `(operands, deltas) -> (squared norms, margins) [examples]` of the gradients, without computing them, and
        by how much rounding may have made these too small; None where computing them is the cheaper way.
      total: `(operands, deltas) -> gradient`, in such a list, summed over examples; None where there are no `squares`.
    """

    gradients: Callable[[Any, Any], list[Any]]
    squares: Callable[[Any, Any], tuple[Array, Array]] | None = None
    total: Callable[[Any, Any], list[Any]] | None = None


class Factors(NamedTuple):
    """A product of an operand with learned weights, brought to one form.

    Attributes:
      sizes: `(t, i, o)`.
      split: `(operand, delta) -> (x [n, t, i], delta [n, t, o])`, of one example.
      joined: `[n, i, o] -> gradient` in the form of the weights.
    """

    sizes: tuple[int, int, int]
    split: Callable[[Array, Array], tuple[Array, Array]]
    joined: Callable[[Array], Array]


def rule(jaxpr: Jaxpr, eqn: Any, places: tuple[int, ...]) -> Rule:
    """The rule of an equation.

    Args:
      jaxpr: the program that it is from.
      eqn: the equation.
      places: numbers of its learned operands. A rule's operands hold those of one example each, along a leading axis,
        but these, which have none; its deltas are those of the equation's outputs, None for outputs without any.
    """
    of_any = Rule(lambda operands, deltas: _pulled(jaxpr, eqn, places, operands, deltas))
    (place, *others), name = places, eqn.primitive.name
    if others or any(jnp.issubdtype(one.aval.dtype, jnp.complexfloating) for one in (*eqn.invars, *eqn.outvars)):
        return of_any
    if name == "gather" and _takes_rows(eqn, place):
        return of_any._replace(**_row_ways(eqn))
    if name == "dot_general":
        return _of_factors(eqn, place, _of_product(eqn, place), mapped=False)
    if name == "conv_general_dilated" and place == 1 and eqn.params["batch_group_count"] == 1:
        return _of_factors(eqn, place, _of_convolution(eqn), mapped=True)
    return of_any


def _pulled(jaxpr: Jaxpr, eqn: Any, places: tuple[int, ...], operands: list[Any], deltas: list[Any]) -> list[Any]:
    """The derivative of any equation at all, by JAX."""
    axes = [None if place in places else 0 for place in range(len(operands))]

    def one(operands: list[Any], deltas: list[Any]) -> list[Any]:
        def outputs(learned: list[Any]) -> list[Any]:
            given = list(operands)
            for place, value in zip(places, learned, strict=True):
                given[place] = value
            found = evaluated(jaxpr, eqn, given)
            return [value for value, delta in zip(found, deltas, strict=True) if delta is not None]

        _, pull = jax.vjp(outputs, [operands[place] for place in places])
        found: list[Any] = [None] * len(operands)
        for place, value in zip(places, pull([delta for delta in deltas if delta is not None])[0], strict=True):
            found[place] = value
        return found

    return jax.vmap(one, in_axes=(axes, 0))(operands, deltas)


def _of_factors(eqn: Any, place: int, factors: Factors, *, mapped: bool) -> Rule:
    t, i, o = factors.sizes
    weights, other = eqn.invars[place].aval, 1 - place
    multiply = functools.partial(jnp.einsum, precision=eqn.params["precision"])

    def wide(*values: Array) -> list[Array]:
        dtype = jnp.promote_types(jnp.result_type(*values), jnp.float32)
        return [value.astype(dtype) for value in values]

    def split(operands: list[Any], deltas: list[Any]) -> list[Array]:
        return wide(*jax.vmap(factors.split)(operands[other], deltas[0]))

    def among(gradient: Array) -> list[Any]:
        found: list[Any] = [None, None]
        found[place] = gradient.astype(weights.dtype)
        return found

    def gradient(x: Array, delta: Array) -> Array:
        x, delta = wide(*factors.split(x, delta))
        # XLA multiplies matrices of one row slowly on CPUs, a batch of them at a time.
        product = x[:, 0, :, None] * delta[:, 0, None, :] if t == 1 else multiply("nti,nto->nio", x, delta)
        return factors.joined(product)

    def gradients(operands: list[Any], deltas: list[Any]) -> list[Any]:
        return among(_each(gradient, operands[other], deltas[0], mapped=mapped))

    def total(operands: list[Any], deltas: list[Any]) -> list[Any]:
        return among(factors.joined(multiply("bnti,bnto->nio", *split(operands, deltas))))

    def squares(operands: list[Any], deltas: list[Any]) -> tuple[Array, Array]:
        (x, of_x), (delta, of_delta) = map(_unit, split(operands, deltas))
        back, lengths = jnp.square(of_x * of_delta), jnp.sum(x * x, -1) * jnp.sum(delta * delta, -1)  # [b, n, t]
        if t == 1:
            return jnp.sum(lengths, (1, 2)) * back, jnp.zeros_like(back)
        among_x, among_delta = (multiply("bntf,bnsf->bnts", value, value) for value in (x, delta))
        found = jnp.maximum(jnp.sum(among_x * among_delta, (1, 2, 3)), 0)
        return found * back, jnp.sum(_margin(lengths), 1) * back

    return Rule(gradients, squares, total) if t * (i + o) < i * o else Rule(gradients)


def _each(function: Callable[[Array, Array], Array], x: Array, delta: Array, *, mapped: bool) -> Array:
    """`function` of every example; one after another on CPUs where `mapped`, as windows laid out fill their caches."""
    at_once = jax.vmap(function)
    if not mapped:
        return at_once(x, delta)
    return lax.platform_dependent(
        x, delta, cpu=lambda x, delta: lax.map(lambda pair: function(*pair), (x, delta)), default=at_once
    )


def _of_product(eqn: Any, place: int) -> Factors:
    contracted, batched = eqn.params["dimension_numbers"]
    w, x = eqn.invars[place].aval, eqn.invars[1 - place].aval
    w_batch, x_batch, w_in, x_in = batched[place], batched[1 - place], contracted[place], contracted[1 - place]
    w_out, x_out = (
        [axis for axis in range(array.ndim) if axis not in (*batch, *inner)]
        for array, batch, inner in ((w, w_batch, w_in), (x, x_batch, x_in))
    )
    n, t, i = (math.prod(x.shape[axis] for axis in axes) for axes in (x_batch, x_out, x_in))
    o = math.prod(w.shape[axis] for axis in w_out)
    order = (*w_batch, *w_in, *w_out)

    def split(x: Array, delta: Array) -> tuple[Array, Array]:
        x = x.transpose(*x_batch, *x_out, *x_in).reshape(n, t, i)
        return x, delta.reshape(n, t, o) if place == 1 else delta.reshape(n, o, t).swapaxes(1, 2)

    def joined(gradient: Array) -> Array:
        return gradient.reshape([w.shape[axis] for axis in order]).transpose(_inverse(order))

    return Factors((t, i, o), split, joined)


def _of_convolution(eqn: Any) -> Factors:
    params = eqn.params
    w, y, groups = eqn.invars[1].aval, eqn.outvars[0].aval, params["feature_group_count"]
    x_order, w_order, y_order = params["dimension_numbers"]
    kernel, spatial = [w.shape[axis] for axis in w_order[2:]], [y.shape[axis] for axis in y_order[2:]]
    t = y.shape[y_order[0]] * math.prod(spatial)
    per_group = w.shape[w_order[1]]
    i, o = math.prod(kernel) * per_group, w.shape[w_order[0]] // groups

    def split(x: Array, delta: Array) -> tuple[Array, Array]:
        windows = _windows(x.transpose(x_order[0], *x_order[2:], x_order[1]), params, kernel, spatial)
        delta = delta.transpose(y_order[0], *y_order[2:], y_order[1]).reshape(t, groups, o).swapaxes(0, 1)
        if groups == 1:
            return jnp.concatenate(windows, -1).reshape(1, t, i), delta
        parts = [window.reshape(t, groups, per_group) for window in windows]
        return jnp.concatenate(parts, -1).swapaxes(0, 1), delta

    def joined(gradient: Array) -> Array:
        gradient = gradient.reshape(groups, -1, per_group, o).transpose(0, 3, 2, 1)
        return gradient.reshape(groups * o, per_group, *kernel).transpose(_inverse(w_order))

    return Factors((t, i, o), split, joined)


def _windows(x: Array, params: dict[str, Any], kernel: list[int], spatial: list[int]) -> list[Array]:
    """What each element of a kernel sees, `[batch, *spatial, channels]`."""
    strides, steps = params["window_strides"], params["rhs_dilation"]
    inner = [(*pads, apart - 1) for pads, apart in zip(params["padding"], params["lhs_dilation"], strict=True)]
    x, found = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)]), []
    for place in itertools.product(*map(range, kernel)):
        begin = [at * step for at, step in zip(place, steps, strict=True)]
        end = [at + (size - 1) * stride + 1 for at, size, stride in zip(begin, spatial, strides, strict=True)]
        found.append(lax.slice(x, (0, *begin, 0), (x.shape[0], *end, x.shape[-1]), (1, *strides, 1)))
    return found


def _takes_rows(eqn: Any, place: int) -> bool:
    table, ids, rows = eqn.invars[0].aval, eqn.invars[1].aval, eqn.outvars[0].aval
    numbers, batch = eqn.params["dimension_numbers"], ids.ndim - 1
    return (
        place == 0
        and not numbers.operand_batching_dims
        and numbers.collapsed_slice_dims == numbers.start_index_map == (0,)
        and eqn.params["slice_sizes"] == (1, *table.shape[1:])
        and numbers.offset_dims == tuple(range(batch, rows.ndim))
        and eqn.params["mode"] != GatherScatterMode.CLIP
        and math.prod(ids.shape[:-1]) < table.shape[0]
    )


def _row_ways(eqn: Any) -> dict[str, Any]:
    """Of rows taken from a table: rows of one number meet, others do not."""
    table = eqn.invars[0].aval

    def split(operands: list[Any], deltas: list[Any]) -> tuple[Array, Array]:
        examples = deltas[0].shape[0]
        ids = operands[1].reshape(examples, -1).astype(int)  # a table may have more rows than a short integer counts
        inside = (ids >= 0) & (ids < table.shape[0])
        delta = deltas[0].reshape(*ids.shape, -1)
        return ids, jnp.where(inside[..., None], delta.astype(jnp.promote_types(delta.dtype, jnp.float32)), 0)

    def squares(operands: list[Any], deltas: list[Any]) -> tuple[Array, Array]:
        ids, delta = split(operands, deltas)
        delta, size = _unit(delta)
        met = (ids[:, :, None] == ids[:, None, :]).astype(delta.dtype)
        found = jnp.sum(jnp.einsum("bts,bsd->btd", met, delta) * delta, (1, 2))
        return jnp.maximum(found, 0) * size**2, _margin(jnp.sum(delta * delta, -1)) * size**2

    def total(operands: list[Any], deltas: list[Any]) -> list[Any]:
        ids, delta = split(operands, deltas)
        rows = jnp.zeros((table.shape[0], delta.shape[-1]), delta.dtype).at[ids].add(delta, mode="drop")
        return [rows.reshape(table.shape).astype(table.dtype), None]

    return {"squares": squares, "total": total}


def _unit(values: Array) -> tuple[Array, Array]:
    """Each example's values over the largest, and that: squares neither vanish nor overflow."""
    largest = jnp.max(jnp.abs(lax.stop_gradient(values)), tuple(range(1, values.ndim)), initial=0)
    largest = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return values / largest.reshape(-1, *[1] * (values.ndim - 1)), largest


def _margin(squares: Array) -> Array:
    """What rounding may take from the squared norm of a sum over the last axis, of parts of these squared norms."""
    lengths = jnp.sum(jnp.sqrt(lax.stop_gradient(squares)), -1)
    return _MARGIN * jnp.finfo(squares.dtype).eps * jnp.square(lengths)


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
