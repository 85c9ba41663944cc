"""Floating-point operations of a traced program, equation by equation."""

import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

Path = tuple[str, ...]

# Primitives that move, sort or choose floating-point numbers and compute none.
_MOVES = frozenset(
    {"all_gather", "all_to_all", "broadcast_in_dim", "collapse", "concatenate", "convert_element_type", "copy"}
    | {"copy_p", "device_put", "dynamic_slice", "dynamic_update_slice", "expand_dims", "gather", "name"}
    | {"optimization_barrier", "pad", "pcast", "ppermute", "pvary", "random_wrap", "reshape", "reshard", "rev"}
    | {"select_n", "sharding_constraint", "slice", "sort", "split", "squeeze", "stop_gradient", "tap", "tile"}
    | {"top_k", "transpose"}
)
# Primitives whose inner program says how two numbers become one: what they cost is told by their shapes.
_COMBINES = frozenset({"reduce", "reduce_window", "scatter", "scatter-add", "scatter_add"})


def costs(jaxpr: Jaxpr, path: Path = ()) -> Iterator[tuple[Path, int]]:
    """The path and the operations of every equation, those of programs inside it included."""
    for eqn in jaxpr.eqns:
        here = path + scope(eqn)
        inner = [list(costs(sub, here)) for sub in programs(eqn)]
        if eqn.primitive.name == "cond":
            yield from max(inner, key=lambda branch: sum(count for _, count in branch))
        elif inner and eqn.primitive.name not in _COMBINES:
            times = _times(eqn)
            yield from ((where, times * count) for branch in inner for where, count in branch)
        else:
            yield here, _operations(eqn)


def scope(eqn: Any) -> Path:
    """The names of the scopes that an equation stands in, without transforms: `vmap(conv1)/vmap()` is `conv1`."""
    names = re.sub(r"\w+\(|\)", "", str(eqn.source_info.name_stack))
    return tuple(name for name in names.split("/") if name)


def programs(eqn: Any) -> list[Jaxpr]:
    """The programs inside an equation: branches, bodies of loops, functions called."""
    parts = [part for value in eqn.params.values() for part in (value if isinstance(value, tuple | list) else (value,))]
    opened = [part.jaxpr if isinstance(part, ClosedJaxpr) else part for part in parts]
    return [part for part in opened if isinstance(part, Jaxpr)]


def _times(eqn: Any) -> int:
    if eqn.primitive.name == "pallas_call":
        return math.prod(size for size in eqn.params["grid_mapping"].grid if isinstance(size, int))
    return eqn.params["length"] if eqn.primitive.name == "scan" else 1


def _operations(eqn: Any) -> int:
    name = eqn.primitive.name
    if name in _MATRICES:
        return _MATRICES[name](eqn)
    out = eqn.outvars[0].aval if eqn.outvars else jax.ShapeDtypeStruct((), bool)
    if name in _MOVES or not jnp.issubdtype(getattr(out, "dtype", bool), jnp.inexact):
        return 0
    if name.startswith("scatter"):
        return 0 if name == "scatter" else math.prod(eqn.invars[2].aval.shape)
    if name.startswith("reduce_window"):
        return math.prod(out.shape) * math.prod(eqn.params["window_dimensions"])
    if name.startswith(("reduce_", "cum")) and name != "reduce_precision":
        return math.prod(eqn.invars[0].aval.shape)
    return math.prod(out.shape)


def _dot_general(eqn: Any) -> int:
    contracted = eqn.params["dimension_numbers"][0][0]
    return 2 * math.prod(eqn.outvars[0].aval.shape) * _sizes(eqn.invars[0], contracted)


def _ragged_dot(eqn: Any) -> int:
    numbers = eqn.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    return 2 * math.prod(eqn.outvars[0].aval.shape) * _sizes(eqn.invars[0], numbers[0][0])


def _conv(eqn: Any) -> int:
    """Every entry of the kernel meets every output; in a transposed convolution, every input."""
    numbers, kernel = eqn.params["dimension_numbers"], eqn.invars[1].aval.shape
    features = kernel[numbers.rhs_spec[0]]
    if math.prod(eqn.params["lhs_dilation"]) == 1:
        return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // features
    positions = _sizes(eqn.invars[0], (numbers.lhs_spec[0], *numbers.lhs_spec[2:]))
    return 2 * positions * math.prod(kernel) // eqn.params["batch_group_count"]


def _fft(eqn: Any) -> int:
    lengths = math.prod(eqn.params["fft_lengths"])
    full = max(math.prod(eqn.invars[0].aval.shape), math.prod(eqn.outvars[0].aval.shape))
    return int(5 * full * math.log2(lengths)) if lengths > 1 else 0


_MATRICES = {
    "dot_general": _dot_general,
    "ragged_dot": _ragged_dot,
    "ragged_dot_general": _ragged_dot,
    "conv_general_dilated": _conv,
    "fft": _fft,
}


def _sizes(variable: Any, axes: Any) -> int:
    return math.prod(variable.aval.shape[axis] for axis in axes)
