"""Cells on top of each other."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ._cell import Cell, Parts, Steps, cell, cell_from, check_cell
from ._check import check_children
from ._core import within
from ._errors import NetError, shape_of
from ._keys import child_key


@cell
def stack_cells(*cells: Cell, skips: bool = False) -> Cell:
    """Cells on top of each other: each takes what the one below gives.

    Over a whole sequence, `rnn` takes one cell after the other through all steps, which gives the same.

    Args:
      *cells: from the input to the output.
      skips: whether each cell but the first also sees the input, before what comes from below, and the output is
        that of all cells side by side.
    Returns:
      A cell with carry `(carry of each cell, ...)` and params `{"cells": [params of each cell, ...]}`.

    >>> net = rnn(stack_cells(lstm_cell(8), gru_cell(4)))
    >>> params = net.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> params["cells"][1]["w"].shape, net.apply(params, jnp.ones((5, 3))).shape
    ((8, 12), (5, 4))
    """
    if not cells:
        raise ValueError("stack_cells: expected at least one cell, got none")
    for each in cells:
        check_cell("stack_cells", each)
    if len({each.parts.num_axes for each in cells}) > 1:
        raise ValueError(f"stack_cells: expected cells over the same axes, got {list(cells)}")

    def join(x: jax.Array, ys: list[jax.Array]) -> jax.Array:
        return jnp.concatenate((x, ys[-1]), axis=-1) if skips and ys else [x, *ys][-1]

    def climb(x: jax.Array, go: Any) -> tuple[Any, jax.Array]:
        """Goes through the cells from below: `go(index, cell, input) -> (carry, output)`."""
        carries, ys = [], []
        for index, each in enumerate(cells):
            with within(each, "cells", str(index)):
                carry, y = go(index, each, join(x, ys))
            carries.append(carry)
            ys.append(y)
        return tuple(carries), jnp.concatenate(ys, axis=-1) if skips else ys[-1]

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        made, ys = [], []
        for index, each in enumerate(cells):
            with within(each, "cells", str(index)):
                below = jax.eval_shape(join, x, ys)
                made.append(each.parts.init(child_key(child_key(key, "cells"), str(index)), below))
                ys.append(jax.eval_shape(functools.partial(_first_output, each), made[-1], below))
        return {"cells": made}

    def initial_carry(params: dict, x: jax.Array) -> Any:
        layers = _layers(params, len(cells))

        def go(index: int, each: Cell, x: jax.Array) -> tuple[Any, jax.Array]:
            carry = each.parts.initial_carry(layers[index], x)
            return carry, each.parts.step(layers[index], carry, x)[1]

        return climb(x, go)[0]

    def step(params: dict, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        layers = _layers(params, len(cells))
        return climb(x, lambda index, each, x: each.parts.step(layers[index], carry[index], x))

    def scan(params: dict, carry: Any, initial: Any, xs: jax.Array, steps: Steps) -> tuple[Any, jax.Array]:
        layers = _layers(params, len(cells))

        def go(index: int, each: Cell, xs: jax.Array) -> tuple[Any, jax.Array]:
            return each.parts.through(layers[index], carry[index], initial[index], xs, steps)

        return climb(xs, go)

    return cell_from(Parts(init, initial_carry, step, cells[0].parts.num_axes, scan))


def _first_output(cell: Cell, params: Any, x: jax.Array) -> Any:
    return cell.parts.step(params, cell.parts.initial_carry(params, x), x)[1]


def _layers(params: Any, num: int) -> list:
    check_children(params, ("cells",))
    layers = params["cells"]
    if not isinstance(layers, list | tuple) or len(layers) != num:
        raise NetError(f"params of {num} cells", shape_of(layers), "Make them with this network's own init(key, x).")
    return list(layers)
