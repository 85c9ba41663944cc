"""Recurrent cells over a whole sequence: networks."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._cell import Cell, Steps, check_batched, check_carry, check_cell, over, where, zeros_like
from ._check import check_children, check_size, spatial_axes
from ._core import within
from ._errors import NetError, ShapeError, shape_of
from ._keys import child_key
from ._moments import check_real
from ._net import Net, layer


@layer
def rnn(cell: Cell, *, reverse: bool = False, unroll: int = 1, return_carry: bool = False) -> Net:
    """A recurrent cell over a sequence, as a network.

    Its params are the cell's own, so `cell.step(params, carry, x)` goes on one step at a time. `apply` also takes

    - `lengths`, integers `[...]`: how many steps of each sequence are real, 0 included. Outputs and gradients
      past the end are exactly 0, whatever stands there, NaN included; the carry returned is the one at each
      sequence's own end. In reverse, a sequence begins at its own end. Lengths that are traced are not looked at:
      there one below 0 is 0, and one above the steps that there are is all of them.
    - `reset`, booleans `[..., time]`: where true, the carry is set to the cell's initial carry before that step.
    - `carry`: the carry to begin with, in place of the cell's initial one.

    Args:
      cell: the cell.
      reverse: whether the last step comes first; outputs stay where their inputs are.
      unroll: how many steps are compiled as one. More than 1 is slower on CPUs.
      return_carry: whether the outputs are `(ys, carry)`.
    Returns:
      A net from `[..., time, features]` to `[..., time, features]` (for a cell over images, time stands before
      their axes) with the cell's params. Derivatives of all orders exist, in forward and in reverse mode.
    Raises:
      ShapeError: if an input does not fit the cell, is complex or has no time step, or `lengths`, `reset` or
        `carry` do not fit the input.
      NetError: if a length is below 0 or above the number of steps.

    >>> net = rnn(lstm_cell(4), return_carry=True)
    >>> x = jnp.ones((2, 5, 3))
    >>> params = net.init(jax.random.key(0), x)
    >>> ys, (c, h) = net.apply(params, x, lengths=jnp.array([5, 2]))
    >>> ys.shape, bool((ys[1, 1] == h[1]).all()), float(jnp.abs(ys[1, 2:]).max())
    ((2, 5, 4), True, 0.0)
    """
    check_cell("rnn", cell)
    check_size("rnn", "unroll", unroll)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> Any:
        return cell.parts.init(key, _one_step(cell, x))

    def apply(
        params: Any,
        x: jax.Array,
        *,
        lengths: jax.Array | None = None,
        reset: jax.Array | None = None,
        carry: Any = None,
    ) -> Any:
        xs, steps = _time_first(cell, x, lengths, reset)
        steps = steps._replace(reverse=reverse, unroll=unroll)
        carry, ys = _through(cell, params, carry, xs, steps)
        ys = _batch_first(cell, ys, xs)
        return (ys, carry) if return_carry else ys

    return Net(init, apply)


@layer
def bidirectional(
    forward: Cell,
    backward: Cell | None = None,
    *,
    merge: Literal["concat", "sum"] = "concat",
    unroll: int = 1,
    return_carry: bool = False,
) -> Net:
    """One cell over a sequence from its beginning, and one from its end.

    `apply` takes `lengths`, `reset` and `carry` as that of `rnn` does. Each sequence is read backward from its
    own end, and a reset comes before its step in both orders.

    Source: Schuster and Paliwal 1997, https://doi.org/10.1109/78.650093.

    Args:
      forward: the cell that begins at the first step.
      backward: the cell that begins at the last; alike the first unless given, with parameters of its own.
      merge: whether the two outputs are put side by side on the last axis, or added.
      unroll: how many steps are compiled as one.
      return_carry: whether the outputs are `(ys, (forward carry, backward carry))`.
    Returns:
      A net from `[..., time, features]` to `[..., time, features]` with params `{"forward", "backward"}`.
    Raises:
      ShapeError: as `rnn`.

    >>> net = bidirectional(gru_cell(4))
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 5, 3)))
    >>> sorted(params), net.apply(params, jnp.ones((2, 5, 3))).shape
    (['backward', 'forward'], (2, 5, 8))
    """
    cells = {"forward": forward, "backward": forward if backward is None else backward}
    for each in cells.values():
        check_cell("bidirectional", each)
    check_size("bidirectional", "unroll", unroll)
    if merge not in ("concat", "sum"):
        raise ValueError(f"bidirectional: expected merge to be 'concat' or 'sum', got {merge!r}")
    if len({each.parts.num_axes for each in cells.values()}) > 1:
        raise ValueError(f"bidirectional: expected two cells over the same axes, got {forward!r} and {backward!r}")

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        step = _one_step(forward, x)
        return {name: each.parts.init(child_key(key, name), step) for name, each in cells.items()}

    def apply(
        params: dict,
        x: jax.Array,
        *,
        lengths: jax.Array | None = None,
        reset: jax.Array | None = None,
        carry: Any = None,
    ) -> Any:
        check_children(params, tuple(cells))
        begin = _pair(carry)
        xs, steps = _time_first(forward, x, lengths, reset)
        carries, outputs = [], []
        for (name, each), carry in zip(cells.items(), begin, strict=True):
            with within(each, name):
                after, ys = _through(
                    each, params[name], carry, xs, steps._replace(reverse=name == "backward", unroll=unroll)
                )
            carries.append(after)
            outputs.append(_batch_first(each, ys, xs))
        ys = jnp.concatenate(outputs, axis=-1) if merge == "concat" else _added(*outputs)
        return (ys, tuple(carries)) if return_carry else ys

    return Net(init, apply)


def _added(first: jax.Array, second: jax.Array) -> jax.Array:
    if first.shape != second.shape:
        raise ShapeError("outputs of one shape to add", f"{first.shape} and {second.shape}")
    return first + second


def _pair(carry: Any) -> tuple[Any, Any]:
    if carry is None:
        return None, None
    if not isinstance(carry, tuple | list) or len(carry) != 2:
        raise ShapeError("carries (forward, backward)", shape_of(carry))
    return carry[0], carry[1]


def _one_step(cell: Cell, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The shape of one time step of a sequence.

    Raises:
      ShapeError: if there is no time axis, or no step on it, or the numbers are complex.
    """
    check_real(x)
    axis = len(x.shape) - cell.parts.num_axes - 1
    if axis < 0 or x.shape[axis] < 1:
        raise ShapeError(f"an input {_axes(cell.parts.num_axes)} of at least one step", f"{tuple(x.shape)}")
    return jax.ShapeDtypeStruct((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype)


def _axes(num: int) -> str:
    """A sequence's axes in words, of which so many are those of a step."""
    if 1 < num < 5:
        return spatial_axes(num - 1).replace("...", "..., time")
    return "[..., time, features]" if num == 1 else f"[..., time] and {num} axes for each step"


def _time_first(cell: Cell, x: Any, lengths: Any, reset: Any) -> tuple[jax.Array, Steps]:
    """A sequence with time first and zeros past its end, and how to go through it."""
    x = jnp.asarray(x)
    batch = _one_step(cell, x).shape[: x.ndim - cell.parts.num_axes - 1]
    xs = jnp.moveaxis(x, len(batch), 0)
    alive = None
    if lengths is not None:
        lengths = _mask("lengths", lengths, jnp.integer, batch)
        _check_lengths(lengths, xs.shape[0])
        alive = over(jnp.arange(xs.shape[0]), 1 + lengths.ndim) < lengths
        # Zeros in place of what stands past the end: the derivative of a step at NaN would be NaN times zero.
        xs = where(alive, xs, zeros_like(xs))
    if reset is not None:
        reset = jnp.moveaxis(_mask("reset", reset, jnp.bool_, (*batch, xs.shape[0])), -1, 0)
    return xs, Steps(alive, reset)


def _mask(name: str, given: Any, kind: Any, shape: tuple[int, ...]) -> jax.Array:
    array = jnp.asarray(given)
    if not jnp.issubdtype(array.dtype, kind) or array.shape != shape:
        words = "booleans" if kind is jnp.bool_ else "integers"
        raise ShapeError(f"{name} {shape} of {words}", f"{array.dtype} {array.shape}")
    return array


def _check_lengths(lengths: jax.Array, num_steps: int) -> None:
    if isinstance(lengths, Tracer) or not lengths.is_fully_addressable:
        return
    given = np.asarray(lengths)
    wrong = given[(given < 0) | (given > num_steps)]
    if wrong.size:
        raise NetError(f"lengths from 0 to {num_steps}, the number of steps", f"{wrong[0]}")


def _through(cell: Cell, params: Any, carry: Any, xs: jax.Array, steps: Steps) -> tuple[Any, Any]:
    initial = cell.parts.initial_carry(params, xs[0])
    carry = initial if carry is None else check_carry(carry, initial)
    if steps.alive is not None or steps.reset is not None:
        check_batched(carry, xs.shape[1 : xs.ndim - cell.parts.num_axes])
    return cell.parts.through(params, carry, initial, xs, steps)


def _batch_first(cell: Cell, ys: Any, xs: jax.Array) -> Any:
    return jax.tree.map(lambda y: jnp.moveaxis(y, 0, xs.ndim - cell.parts.num_axes - 1), ys)
