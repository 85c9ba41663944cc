"""A network as a table: paths, layers, shapes, parameters, memory and floating-point operations."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr

from . import _table
from ._core import Options, Plan, abstract_key, holds_arrays, plan, run, struct
from ._flops import costs
from ._net import Net


class SummaryRow(NamedTuple):
    """One layer of a network, all that is inside it included.

    Attributes:
      path: where its parameters stand; empty for the network itself.
      layer: the call that made it.
      output: shape of its output, in words.
      num_params: how many numbers its parameters hold.
      num_bytes: what its parameters take in memory.
      num_state: how many numbers its state holds.
      num_flops: floating-point operations of one application.
    """

    path: str
    layer: str
    output: str
    num_params: int
    num_bytes: int
    num_state: int
    num_flops: int


class Summary(tuple[SummaryRow, ...]):
    """The rows of a network, the network itself last; prints as a table, in colours with `rich.print`."""

    __slots__ = ()

    def __str__(self) -> str:
        return _table.text(*self._cells())

    __repr__ = __str__

    def __rich__(self) -> Any:
        return _table.rich(*self._cells())

    def _cells(self) -> tuple[list[str], list[list[str]], list[str], set[str]]:
        """Head, rows, foot, and which columns are numbers; state is shown where there is any."""
        stateful = bool(self[-1].num_state)
        head = ["path", "layer", "output", "params", "bytes", *(["state"] if stateful else []), "FLOPs"]
        rows = [_cells_of(row, stateful) for row in self]
        return head, rows[:-1], ["total", *rows[-1][1:]], {"params", "bytes", "state", "FLOPs"}


def summary(net: Net, *inputs: Any, train: bool = False, **keywords: Any) -> Summary:
    """What a network is made of, for inputs of these shapes; nothing is computed.

    FLOPs are counted on the program that JAX traces: two for each multiply-add of a matmul or convolution, one for
    each floating-point output of other arithmetic, the steps of a scan multiplied, the dearer branch of a `cond`, and
    one round of a `while`. Moving and comparing numbers costs nothing.

    Args:
      net: the network.
      *inputs: arrays or `jax.ShapeDtypeStruct`s.
      train: whether to look at the network in training.
      **keywords: further inputs by name, such as a mask.
    Returns:
      A tuple of rows, `SummaryRow(path, layer, output, num_params, num_bytes, num_state, num_flops)`, that prints as
      a table. A layer that is applied several times, or stacked, counts as often.
    Raises:
      TypeError: if the inputs are not arrays or their shapes and dtypes.

    >>> print(summary(mlp(16, 1), jax.ShapeDtypeStruct((8, 3), "float32")))
    path      layer       output   params  bytes  FLOPs
    --------  ----------  -------  ------  -----  -----
    layers/0  linear(16)  (8, 16)      64  256 B    896
    layers/1  linear(1)   (8, 1)       17   68 B    264
    --------  ----------  -------  ------  -----  -----
    total     mlp(16, 1)  (8, 1)       81  324 B  1,288
    """
    planned, jaxpr = traced("summary", net, inputs, train, keywords)
    flops: dict[tuple[str, ...], int] = {}
    for path, count in costs(jaxpr):
        for depth in range(len(path) + 1):
            flops[path[:depth]] = flops.get(path[:depth], 0) + count
    params, state = planned.shapes
    parts = parts_of(planned, params, state)
    rows = [_row(path, part, own, kept, flops.get(_split(path), 0)) for path, part, own, kept in parts]
    return Summary((*rows[1:], rows[0]))


def traced(what: str, net: Any, inputs: tuple, train: bool, keywords: Mapping[str, Any]) -> tuple[Plan, Jaxpr]:
    """A network's plan, and the program `(params, state, key, inputs, keyword arrays) -> (outputs, state)`."""
    if not isinstance(net, Net):
        raise TypeError(f"{what}: expected a network, got {net!r}")
    for given in (*inputs, *(value for value in keywords.values() if holds_arrays(value))):
        _check_input(what, net, given)
    arrays = {name: struct(value) for name, value in keywords.items() if holds_arrays(value)}
    planned = plan(net, inputs, Options(keywords=keywords))

    def apply(params: Any, state: Any, key: jax.Array, inputs: tuple, arrays: dict) -> Any:
        return run(net, params, state, inputs, Options(key, train, {**keywords, **arrays}))

    jaxpr = jax.make_jaxpr(apply)(*planned.shapes, abstract_key(), struct(inputs), arrays)
    return planned, jaxpr.jaxpr


def parts_of(planned: Plan, params: Any, state: Any, path: str = "") -> Iterator[tuple[str, Plan, Any, Any]]:
    """Every network inside, with its path and its own part of parameters and state."""
    yield path, planned, params, state
    for name, child in planned.children.items():
        inside = f"{path}/{name}" if path else name
        yield from parts_of(child, _part(params, name), _part(state, name), inside)


def _check_input(what: str, net: Net, given: Any) -> None:
    leaves = jax.tree.leaves(given)
    if isinstance(given, tuple | list) and leaves and all(isinstance(leaf, int) for leaf in leaves):
        hint = f" For a shape, pass jax.ShapeDtypeStruct({tuple(given)}, 'float32')."
    elif all(isinstance(leaf, bool | int | float | complex) or hasattr(leaf, "dtype") for leaf in leaves):
        return
    else:
        hint = ""
    raise TypeError(
        f"{what}: expected inputs of {net!r} that are arrays or jax.ShapeDtypeStructs, got {given!r}.{hint}"
    )


def _row(path: str, part: Plan, params: Any, state: Any, num_flops: int) -> SummaryRow:
    arrays = jax.tree.leaves(params)
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in arrays)
    sizes = (sum(leaf.size for leaf in arrays), num_bytes, sum(leaf.size for leaf in jax.tree.leaves(state)))
    return SummaryRow(path, repr(part.net), shapes_in_words(part.outputs), *sizes, num_flops)


def _cells_of(row: SummaryRow, stateful: bool) -> list[str]:
    numbers = [f"{row.num_params:,}", bytes_in_words(row.num_bytes), f"{row.num_state:,}", f"{row.num_flops:,}"]
    if not stateful:
        del numbers[2]
    return [row.path, _table.shortened(row.layer), row.output, *numbers]


def shapes_in_words(tree: Any) -> str:
    """The shapes of a network's outputs."""
    return ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(tree)) or "-"


def bytes_in_words(size: int) -> str:
    """A size in memory with three digits: `1.23 MB`."""
    power = min(max(int(math.log10(max(size, 1)) // 3), 0), 4)
    return f"{size} B" if power == 0 else f"{size / 1000**power:.3g} {' kMGT'[power]}B"


def _part(tree: Any, name: str) -> Any:
    for step in name.split("/"):
        tree = tree[int(step)] if isinstance(tree, list) else tree.get(step, {})
    return tree


def _split(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)
