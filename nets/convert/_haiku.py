"""Haiku: parameters and state by module."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .._attention import attention
from .._batch_norm import batch_norm
from .._cells import conv_lstm_cell, simple_cell
from .._conv import conv, depthwise_conv
from .._conv_transpose import conv_transpose
from .._group_norm import group_norm, instance_norm
from .._gru import gru_cell
from .._linear import embed, linear
from .._lstm import lstm_cell
from .._net import Net
from .._norm import layer_norm, rms_norm
from .._projection import projection
from .._quantise import vector_quantise
from ._entry import Arrays, Entry, Layer, LayerMap, joined, moved, reshaped, same, split_in
from ._fit import from_other, to_other
from ._names import Names
from ._walk import Library, Task


def to_haiku(net: Net, variables: Any, *inputs: Any, names: Names = None, **keywords: Any) -> Any:
    """Parameters (and state) as the same network of Haiku's modules has them.

    Args:
      net: the network.
      variables: what its `init` made: params, or `(params, state)` if it is stateful.
      *inputs: arrays or `jax.ShapeDtypeStruct`s that it is applied to.
      names: the names of modules there: patterns of our paths, such as `{"linear": "net/~/linear"}`, or a function
        of a path; our own unless given. See `to_torch`.
      **keywords: inputs that the network takes by name, such as a `mask`.
    Returns:
      `{module: {name: array}}`, or `(params, state)` of such if the network is stateful; NumPy arrays.
    Raises:
      ConvertError: if the variables are not those of the network.

    >>> net = nets.serial(nets.linear(3))
    >>> sorted(to_haiku(net, net.init(jax.random.key(0), jnp.ones(4)), jnp.ones(4))["linear"])
    ['b', 'w']
    """
    params: dict[str, Any] = {}
    state: dict[str, Any] = {}
    for path, array in to_other(Task(net, inputs, keywords, names), variables, _HAIKU).items():
        module, _, name = path.rpartition("/")
        (state if _is_state(module) else params).setdefault(module, {})[name] = array
    return (params, state) if net.core.stateful else params


def from_haiku(net: Net, variables: Any, *inputs: Any, names: Names = None, **keywords: Any) -> Any:
    """Parameters from those of the same network of Haiku's modules.

    Args:
      net: the network.
      variables: `{module: {name: array}}`, or `(params, state)` of such if the network is stateful.
      *inputs: arrays or `jax.ShapeDtypeStruct`s that the network is applied to.
      names: as for `to_haiku`.
      **keywords: as for `to_haiku`.
    Returns:
      What `net.init` returns, filled with these values.
    Raises:
      ConvertError: if any array is missing, is of another shape, or belongs nowhere, with a list of all.

    >>> net = nets.serial(nets.linear(3))
    >>> weights = {"linear": {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}}
    >>> from_haiku(net, weights, jnp.ones(4))["linear"]["w"].shape
    (4, 3)
    """
    parts: Sequence[Mapping[str, Any]] = variables if net.core.stateful else (variables,)
    given = {f"{module}/{name}": a for part in parts for module, arrays in part.items() for name, a in arrays.items()}
    return from_other(Task(net, inputs, keywords, names), given, _HAIKU)


def _is_state(module: str) -> bool:
    return module.rpartition("/")[2] in ("mean_ema", "var_ema")


def _linear(layer: Layer) -> Sequence[Entry]:
    return same("params/w", "w"), same("params/b", "b")


def _embed(layer: Layer) -> Sequence[Entry]:
    return (same("params/w", "embeddings"),)


def _codes(layer: Layer) -> Sequence[Entry]:
    """`haiku.nets.VectorQuantizer` keeps a code in each column."""
    return (moved("params/w", "embeddings", (1, 0)),)


def _conv_transpose(layer: Layer) -> Sequence[Entry]:
    """There the kernel slides as it is, with its channels swapped."""
    num = len(layer.shapes["params/w"]) - 2
    across = layer.option("transpose_kernel", True)

    def turn(w: np.ndarray) -> Arrays:
        return (np.flip(w, tuple(range(num))) if across else np.swapaxes(w, -1, -2),)

    return Entry(("params/w",), ("w",), turn, turn), same("params/b", "b")


def _norm(layer: Layer) -> Sequence[Entry]:
    return same("params/scale", "scale"), same("params/offset", "offset")


def _batch_norm(layer: Layer) -> Sequence[Entry]:
    """There, channels are the last of as many axes as the input has; averages are kept with what debiases them."""
    size = layer.shapes["state/mean"]
    (x,) = jax.tree.leaves(layer.inputs)[:1]
    axes = (1,) * (x.ndim - 1) + size

    def to(a: np.ndarray) -> Arrays:
        # After so many steps the average is not debiased any more.
        return a.reshape(axes), a.reshape(axes), np.asarray(10**6, np.int32)

    def back(average: np.ndarray, hidden: np.ndarray, counter: np.ndarray) -> Arrays:
        return (average.reshape(size),)

    def average(name: str) -> Entry:
        ema = f"~/{name}_ema"
        return Entry((f"state/{name}",), (f"{ema}/average", f"{ema}/hidden", f"{ema}/counter"), to, back)

    affine = [reshaped(f"params/{name}", name, size, axes) for name in ("scale", "offset")]
    return [*affine, average("mean"), average("var")]


def _attention(layer: Layer) -> Sequence[Entry]:
    named = {"q": "query", "k": "key", "v": "value", "out": "linear"}
    entries = []
    for ours, theirs in named.items():
        shape, num = layer.shapes[f"params/{ours}/w"], 2 if ours == "out" else 1
        flat = int(np.prod(shape[:num])), int(np.prod(shape[num:]))
        entries.append(reshaped(f"params/{ours}/w", f"{theirs}/w", shape, flat))
        entries.append(reshaped(f"params/{ours}/b", f"{theirs}/b", shape[num:], flat[1:]))
    return entries


def _swapped(a: np.ndarray) -> np.ndarray:
    """Gates i, f, g, o as i, g, f, o, and back."""
    i, f, g, o = split_in(a, 4)
    return joined(i, g, f, o)


def _forget(size: int) -> np.ndarray:
    """What is added to the gates i, g, f, o at every step there."""
    return np.concatenate([np.zeros(2 * size), np.ones(size), np.zeros(size)]).astype(np.float32)


def _lstm(layer: Layer) -> Sequence[Entry]:
    num_in, size = layer.shapes["params/w"][0], layer.shapes["params/u"][0]

    def to(w: np.ndarray, u: np.ndarray) -> Arrays:
        return (np.concatenate([_swapped(w), _swapped(u)]),)

    def back(both: np.ndarray) -> Arrays:
        return _swapped(both[:num_in]), _swapped(both[num_in:])

    bias = lambda b: (_swapped(b) - _forget(size),)  # noqa: E731
    bias_back = lambda b: (_swapped(b + _forget(size)),)  # noqa: E731
    return (
        Entry(("params/w", "params/u"), ("linear/w",), to, back),
        Entry(("params/b",), ("linear/b",), bias, bias_back),
    )


def _gru(layer: Layer) -> Sequence[Entry]:
    """Gates r, z, n here; there z, r, n, and z is the share that is replaced, so its sign changes."""

    def turn(a: np.ndarray) -> Arrays:
        first, second, n = split_in(a, 3)
        return (joined(-second, first, n),)

    def back(a: np.ndarray) -> Arrays:
        z, r, n = split_in(a, 3)
        return (joined(r, -z, n),)

    if "params/b_h" in layer.shapes:
        return ()
    return [
        Entry((f"params/{ours}",), (theirs,), turn, back) for ours, theirs in (("w", "w_i"), ("u", "w_h"), ("b", "b"))
    ]


def _simple(layer: Layer) -> Sequence[Entry]:
    bias = Entry(
        ("params/b",),
        ("linear/b", "linear_1/b"),
        lambda b: (b, np.zeros_like(b)),
        lambda b, b_h: (b + b_h,),
    )
    return same("params/w", "linear/w"), same("params/u", "linear_1/w"), bias


def _conv_lstm(layer: Layer) -> Sequence[Entry]:
    size = layer.shapes["params/b"][0] // 4
    turn = lambda a: (_swapped(a),)  # noqa: E731

    def to(b: np.ndarray) -> Arrays:
        return _swapped(b) - _forget(size), np.zeros_like(b)

    def back(b: np.ndarray, b_h: np.ndarray) -> Arrays:
        return (_swapped(b + b_h + _forget(size)),)

    return (
        Entry(("params/w",), ("input_to_hidden/w",), turn, turn),
        Entry(("params/u",), ("hidden_to_hidden/w",), turn, turn),
        Entry(("params/b",), ("input_to_hidden/b", "hidden_to_hidden/b"), to, back),
    )


MAPS: dict[Any, LayerMap] = {
    linear: _linear,
    projection: _linear,
    embed: _embed,
    vector_quantise: _codes,
    conv: _linear,
    depthwise_conv: _linear,
    conv_transpose: _conv_transpose,
    batch_norm: _batch_norm,
    layer_norm: _norm,
    rms_norm: _norm,
    group_norm: _norm,
    instance_norm: _norm,
    attention: _attention,
    lstm_cell: _lstm,
    gru_cell: _gru,
    simple_cell: _simple,
    conv_lstm_cell: _conv_lstm,
}
_HAIKU = Library("Haiku", MAPS, {})
