"""Flax linen: variables by collection."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._attention import attention
from .._batch_norm import batch_norm
from .._cells import conv_lstm_cell, mgu_cell, simple_cell
from .._conv import conv, depthwise_conv
from .._conv_local import conv_local
from .._conv_transpose import conv_transpose
from .._einsum import einsum, linear_general
from .._group_norm import group_norm, instance_norm
from .._gru import gru_cell
from .._linear import embed, linear
from .._lstm import lstm_cell
from .._net import Net
from .._norm import layer_norm, rms_norm
from .._paths import paths_of
from .._projection import projection
from .._rnn import bidirectional, rnn
from .._weight_norm import weight_norm
from ._entry import Arrays, Entry, Layer, LayerMap, constructor_of, joined, known, reshaped, same, split_in
from ._fit import from_other, to_other
from ._names import Names
from ._walk import Library, Task

_COLLECTIONS = {"params": "params", "state": "batch_stats"}


def to_flax(net: Net, variables: Any, *inputs: Any, names: Names = None, **keywords: Any) -> dict[str, Any]:
    """Variables as the same network of Flax linen's layers has them.

    Args:
      net: the network.
      variables: what its `init` made: params, or `(params, state)` if it is stateful.
      *inputs: arrays or `jax.ShapeDtypeStruct`s that it is applied to.
      names: the paths of layers there: patterns of our paths, such as `{"linear": "Dense_0"}`, or a function of a
        path; our own unless given. See `to_torch`.
      **keywords: inputs that the network takes by name, such as a `mask`.
    Returns:
      Nested dicts of NumPy arrays, `{"params": ..., "batch_stats": ...}`.
    Raises:
      ConvertError: if the variables are not those of the network.

    >>> net = nets.linear(3)
    >>> sorted(to_flax(net, net.init(jax.random.key(0), jnp.ones(4)), jnp.ones(4))["params"])
    ['bias', 'kernel']
    """
    found = to_other(Task(net, inputs, keywords, names), variables, _FLAX)
    nested: dict[str, Any] = {"params": {}}
    for name, array in found.items():
        collection = "batch_stats" if name.rpartition("/")[2].startswith(_STATS) else "params"
        *parents, last = name.replace(_STATS, "").split("/")
        last = last.replace(_SCALE, _SCALE.replace(":", "/"))
        place = nested.setdefault(collection, {})
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = array
    return nested


def from_flax(net: Net, variables: Mapping[str, Any], *inputs: Any, names: Names = None, **keywords: Any) -> Any:
    """Parameters from variables of the same network of Flax linen's layers.

    Args:
      net: the network.
      variables: `{"params": ..., "batch_stats": ...}`, nested dicts of arrays, frozen or not.
      *inputs: arrays or `jax.ShapeDtypeStruct`s that the network is applied to.
      names: as for `to_flax`.
      **keywords: as for `to_flax`.
    Returns:
      What `net.init` returns, filled with these values.
    Raises:
      ConvertError: if any array is missing, is of another shape, or belongs nowhere, with a list of all.

    >>> net = nets.linear(3)
    >>> variables = {"params": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}
    >>> from_flax(net, variables, jnp.ones(4))["w"].shape
    (4, 3)
    """
    thawed = _thawed(variables)
    given = paths_of(thawed.get("params", {}))
    for path, array in paths_of(thawed.get("batch_stats", {})).items():
        layer, _, name = path.rpartition("/")
        given[f"{layer}/{_STATS}{name}".strip("/")] = array
    others = [name for name in variables if name not in _COLLECTIONS.values()]
    given |= {name: np.empty(0) for name in others}
    return from_other(Task(net, inputs, keywords, names), given, _FLAX)


def _thawed(tree: Any) -> Any:
    """Mappings of any kind as dicts, with names that have no slash."""
    if not isinstance(tree, Mapping):
        return tree
    return {str(name).replace("/", ":"): _thawed(item) for name, item in tree.items()}


# Marks a name of the collection of statistics: both collections have layers at the same paths.
_STATS = "batch_stats:"
# The one name of Flax that has slashes in it, `layer_instance/kernel/scale`.
_SCALE = "layer_instance:kernel:scale"


def _kernel(layer: Layer) -> Sequence[Entry]:
    return same("params/w", "kernel"), same("params/b", "bias")


def _embed(layer: Layer) -> Sequence[Entry]:
    return (same("params/w", "embedding"),)


def _conv_local(layer: Layer) -> Sequence[Entry]:
    shape = layer.shapes["params/w"]
    num = (len(shape) - 2) // 2
    # There a window is one axis, channels outermost.
    window, channels, features = shape[num : 2 * num], shape[-2], shape[-1]

    def to(w: np.ndarray) -> Arrays:
        return (np.moveaxis(w, -2, num).reshape(*shape[:num], channels * int(np.prod(window)), features),)

    def back(w: np.ndarray) -> Arrays:
        return (np.moveaxis(w.reshape(*shape[:num], channels, *window, features), num, -2),)

    return Entry(("params/w",), ("kernel",), to, back), same("params/b", "bias")


def _norm(layer: Layer) -> Sequence[Entry]:
    affine = same("params/scale", "scale"), same("params/offset", "bias")
    return *affine, same("state/mean", f"{_STATS}mean"), same("state/var", f"{_STATS}var")


def _attention(layer: Layer) -> Sequence[Entry]:
    named = {"q": "query", "k": "key", "v": "value", "out": "out"}
    return [
        same(f"params/{ours}/{array}", f"{theirs}/{name}")
        for ours, theirs in named.items()
        for array, name in (("w", "kernel"), ("b", "bias"))
    ]


def _gates(ours: str, theirs: Sequence[str]) -> Entry:
    """Gates beside each other here, an array each there."""
    return Entry((ours,), tuple(theirs), lambda a: tuple(split_in(a, len(theirs))), lambda *parts: (joined(*parts),))


def _lstm(layer: Layer) -> Sequence[Entry]:
    return (
        _gates("params/w", [f"i{gate}/kernel" for gate in "ifgo"]),
        _gates("params/u", [f"h{gate}/kernel" for gate in "ifgo"]),
        _gates("params/b", [f"h{gate}/bias" for gate in "ifgo"]),
    )


def _gru(layer: Layer) -> Sequence[Entry]:
    return (
        _gates("params/w", [f"i{gate}/kernel" for gate in "rzn"]),
        _gates("params/u", [f"h{gate}/kernel" for gate in "rzn"]),
        _gates("params/b", [f"i{gate}/bias" for gate in "rzn"]),
        same("params/b_h", "hn/bias"),
    )


def _mgu(layer: Layer) -> Sequence[Entry]:
    return (
        _gates("params/w", ["if/kernel", "in/kernel"]),
        _gates("params/u", ["hf/kernel", "hn/kernel"]),
        _gates("params/b", ["if/bias", "in/bias"]),
        same("params/b_h", "hn/bias"),
    )


def _simple(layer: Layer) -> Sequence[Entry]:
    return same("params/w", "i/kernel"), same("params/b", "i/bias"), same("params/u", "h/kernel")


def _conv_lstm(layer: Layer) -> Sequence[Entry]:
    """Gates stand as i, g, f, o there; 1 is added to the forget gate at every step, and either map has a bias."""
    order = (0, 2, 1, 3)

    def swapped(a: np.ndarray) -> np.ndarray:
        parts = split_in(a, 4)
        return joined(*(parts[index] for index in order))

    size = layer.shapes["params/b"][0] // 4
    forget = np.concatenate([np.zeros(2 * size), np.ones(size), np.zeros(size)]).astype(np.float32)

    def to(b: np.ndarray) -> Arrays:
        return swapped(b) - forget, np.zeros_like(b)

    def back(b: np.ndarray, b_h: np.ndarray) -> Arrays:
        return (swapped(b + b_h + forget),)

    turn = lambda a: (swapped(a),)  # noqa: E731
    return (
        Entry(("params/w",), ("ih/kernel",), turn, turn),
        Entry(("params/u",), ("hh/kernel",), turn, turn),
        Entry(("params/b",), ("ih/bias", "hh/bias"), to, back),
    )


def _weight_norm(layer: Layer) -> Sequence[Entry] | None:
    """`flax.linen.WeightNorm` of a single layer, which is `layer_instance` there."""
    shape = layer.shapes.get("params/net/w", ())
    wrapped = constructor_of(known(layer.call.args[0], _KERNELS))
    if wrapped not in _KERNELS or {"num_stacked", "num_outputs", "transposed"} & set(layer.call.kwargs):
        return None
    held = [same("params/net/w", "layer_instance/kernel"), same("params/net/b", "layer_instance/bias")]
    return *held, reshaped("params/g/w", _SCALE, (*(1,) * (len(shape) - 1), shape[-1]), shape[-1:])


_KERNELS = {linear, conv, depthwise_conv}
MAPS: dict[Any, LayerMap] = {
    linear: _kernel,
    linear_general: _kernel,
    einsum: _kernel,
    projection: _kernel,
    embed: _embed,
    conv: _kernel,
    depthwise_conv: _kernel,
    conv_transpose: _kernel,
    conv_local: _conv_local,
    batch_norm: _norm,
    layer_norm: _norm,
    rms_norm: _norm,
    group_norm: _norm,
    instance_norm: _norm,
    attention: _attention,
    weight_norm: _weight_norm,
    lstm_cell: _lstm,
    gru_cell: _gru,
    mgu_cell: _mgu,
    simple_cell: _simple,
    conv_lstm_cell: _conv_lstm,
}
_FLAX = Library(
    "Flax",
    MAPS,
    {
        (rnn, ""): "cell",
        (bidirectional, "forward"): "forward_rnn/cell",
        (bidirectional, "backward"): "backward_rnn/cell",
    },
)
