"""A network as a table: paths, layers, shapes, parameters and floating-point operations."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from ._core import Options, Plan, abstract_key, plan, run, struct
from ._net import Net

# Primitives that move floating-point numbers and compute none.
_MOVES = frozenset(
    {"broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put", "dynamic_slice"}
    | {"dynamic_update_slice", "gather", "optimization_barrier", "pad", "pvary", "reshape", "rev", "select_n"}
    | {"sharding_constraint", "slice", "sort", "split", "squeeze", "stop_gradient", "transpose"}
)


class SummaryRow(NamedTuple):
    """One layer of a network, all that is inside it included.

    Attributes:
      path: where its parameters stand; empty for the network itself.
      layer: the call that made it.
      output: shape of its output, in words.
      num_params: how many numbers its parameters hold.
      num_flops: floating-point operations of one application.
    """

    path: str
    layer: str
    output: str
    num_params: int
    num_flops: int


class Summary(tuple[SummaryRow, ...]):
    """The rows of a network, the network itself last; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        head = ("path", "layer", "output", "params", "FLOPs")
        cells = [(row.path, _short(row.layer), row.output, f"{row.num_params:,}", f"{row.num_flops:,}") for row in self]
        cells[-1] = ("total", *cells[-1][1:])
        widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head))]
        ruler = "  ".join("-" * width for width in widths)
        lines = [_aligned(line, widths) for line in (head, *cells)]
        return "\n".join([lines[0], ruler, *lines[1:-1], ruler, lines[-1]])

    __repr__ = __str__


def summary(net: Net, *inputs: Any, train: bool = False) -> Summary:
    """What a network is made of, for inputs of these shapes; nothing is computed.

    FLOPs are counted on the program that JAX traces: two for each multiply-add of a matmul or convolution, one for
    each floating-point output of other arithmetic, the steps of a scan multiplied, the dearer branch of a `cond`, and
    one round of a `while`. Moving and comparing numbers costs nothing.

    Args:
      net: the network.
      *inputs: arrays or `jax.ShapeDtypeStruct`s.
      train: whether to look at the network in training.
    Returns:
      A tuple of rows, `SummaryRow(path, layer, output, num_params, num_flops)`, that prints as a table.

    >>> print(summary(mlp(16, 1), jax.ShapeDtypeStruct((8, 3), "float32")))
    path      layer       output   params  FLOPs
    --------  ----------  -------  ------  -----
    layers/0  linear(16)  (8, 16)      64    896
    layers/1  linear(1)   (8, 1)       17    264
    --------  ----------  -------  ------  -----
    total     mlp(16, 1)  (8, 1)       81  1,288
    """
    planned = plan(net, inputs, Options())
    params, state = planned.shapes

    def apply(params: Any, state: Any, key: jax.Array, *inputs: Any) -> Any:
        return run(net, params, state, inputs, Options(key, train))

    jaxpr = jax.make_jaxpr(apply)(params, state, abstract_key(), *struct(inputs))
    flops: dict[tuple[str, ...], int] = {}
    for path, count in _costs(jaxpr.jaxpr, ()):
        for depth in range(len(path) + 1):
            flops[path[:depth]] = flops.get(path[:depth], 0) + count
    rows = [
        SummaryRow(path, repr(part.net), _shapes(part.outputs), _size(own), flops.get(_parts(path), 0))
        for path, part, own in _walk(planned, params)
    ]
    return Summary((*rows[1:], rows[0]))


def _walk(planned: Plan, params: Any, path: str = "") -> Iterator[tuple[str, Plan, Any]]:
    """Every network inside, with its path and its own part of the parameters."""
    yield path, planned, params
    for name, child in planned.children.items():
        yield from _walk(child, _part(params, name), f"{path}/{name}" if path else name)


def _part(params: Any, name: str) -> Any:
    for step in name.split("/"):
        params = params[int(step)] if isinstance(params, list) else params.get(step, {})
    return params


def _costs(jaxpr: Jaxpr, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The path and the operations of every equation, those inside it included."""
    for eqn in jaxpr.eqns:
        here = path + _parts(_plain(str(eqn.source_info.name_stack)))
        inner = [list(_costs(sub, here)) for sub in _inside(eqn.params)]
        if eqn.primitive.name == "cond":
            yield from max(inner, key=lambda costs: sum(count for _, count in costs))
        elif inner and eqn.primitive.name not in ("reduce", "reduce_window", "scatter", "scatter-add", "scatter_add"):
            times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            yield from ((where, times * count) for costs in inner for where, count in costs)
        else:
            yield here, _operations(eqn)


def _inside(params: dict[str, Any]) -> list[Jaxpr]:
    values = [item for value in params.values() for item in (value if isinstance(value, tuple | list) else (value,))]
    closed = [value.jaxpr if isinstance(value, ClosedJaxpr) else value for value in values]
    return [value for value in closed if isinstance(value, Jaxpr)]


def _operations(eqn: Any) -> int:
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "dot_general":
        contracted = eqn.params["dimension_numbers"][0][0]
        return 2 * math.prod(out.shape) * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(out.shape) * math.prod(kernel) // features
    if name in _MOVES or not jnp.issubdtype(getattr(out, "dtype", bool), jnp.inexact):
        return 0
    if name.startswith("reduce_window"):
        return math.prod(out.shape) * math.prod(eqn.params["window_dimensions"])
    if name.startswith(("reduce", "cum")):
        return math.prod(eqn.invars[0].aval.shape)
    return math.prod(out.shape)


def _plain(name_stack: str) -> str:
    """A name stack without the transforms around its names: `vmap(conv1)/vmap()` is `conv1`."""
    return re.sub(r"\w+\(|\)", "", name_stack)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def _shapes(tree: Any) -> str:
    shapes = [str(leaf.shape) for leaf in jax.tree.leaves(tree)]
    return ", ".join(shapes) or "-"


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _short(layer: str, width: int = 48) -> str:
    return layer if len(layer) <= width else f"{layer[: width - 3]}..."


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    left, right = (str.ljust, str.rjust)
    sides = (left, left, left, right, right)
    return "  ".join(side(cell, width) for side, cell, width in zip(sides, cells, widths, strict=True)).rstrip()
