"""Torch: state dicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._attention import attention
from .._batch_norm import batch_norm
from .._cells import simple_cell
from .._conv import conv, depthwise_conv
from .._conv_transpose import conv_transpose
from .._group_norm import group_norm, instance_norm
from .._gru import gru_cell
from .._linear import bilinear, embed, linear
from .._lstm import lstm_cell
from .._net import Net
from .._norm import layer_norm, rms_norm
from .._positions import learned_positions
from .._projection import projection
from .._rnn import bidirectional, rnn
from .._stack_cells import stack_cells
from .._weight_norm import weight_norm
from ._entry import Arrays, Entry, Layer, LayerMap, joined, moved, same, split_in
from ._walk import Library, Names, from_other, to_other


def to_torch(net: Net, variables: Any, *inputs: Any, names: Names = None) -> dict[str, np.ndarray]:
    """A state dict as the same network of torch's layers has it.

    Args:
      net: the network.
      variables: what its `init` made: params, or `(params, state)` if it is stateful.
      *inputs: arrays or `jax.ShapeDtypeStruct`s that it is applied to.
      names: the paths of layers there: patterns of our paths, such as `{"blocks/*/attn": "h/*/attention"}` (`*` is
        any one name; the longest pattern that a path begins with is replaced), or a function of a path; our own
        unless given.
    Returns:
      NumPy arrays by name, for `torch.nn.Module.load_state_dict`.
    Raises:
      ConvertError: if the variables are not those of the network.

    >>> net = nets.linear(3)
    >>> sorted(to_torch(net, net.init(jax.random.key(0), jnp.ones(4)), jnp.ones(4)))
    ['bias', 'weight']
    """
    found = to_other(net, variables, inputs, _TORCH, names)
    found |= {f"{name[: -len(_MEAN)]}{_COUNT}": np.int64(0) for name in list(found) if name.endswith(_MEAN)}
    return {name.replace("/", "."): np.array(array, order="C") for name, array in found.items()}


def from_torch(net: Net, state_dict: Mapping[str, Any], *inputs: Any, names: Names = None) -> Any:
    """Parameters from a state dict of the same network of torch's layers.

    Args:
      net: the network.
      state_dict: arrays or torch tensors by name; those of `load_safetensors` too.
      *inputs: arrays or `jax.ShapeDtypeStruct`s that the network is applied to.
      names: as for `to_torch`.
    Returns:
      What `net.init` returns, filled with these values.
    Raises:
      ConvertError: if any array is missing, is of another shape, or belongs nowhere, with a list of all.

    >>> net = nets.linear(3)
    >>> weights = {"weight": jnp.ones((3, 4)), "bias": jnp.zeros(3)}
    >>> from_torch(net, weights, jnp.ones(4))["w"].shape
    (4, 3)
    """
    given = {name.replace(".", "/"): as_numpy(array) for name, array in state_dict.items()}
    counts = {name for name in given if name.endswith(_COUNT) and f"{name[: -len(_COUNT)]}{_MEAN}" in given}
    return from_other(net, {name: a for name, a in given.items() if name not in counts}, inputs, _TORCH, names)


def as_numpy(array: Any) -> np.ndarray:
    """An array or a torch tensor as a NumPy array; half precision that NumPy lacks as float32."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        return array.float().numpy() if str(array.dtype) == "torch.bfloat16" else array.numpy()
    return np.asarray(array)


_MEAN, _COUNT = "running_mean", "num_batches_tracked"


def _linear(layer: Layer) -> Sequence[Entry]:
    return moved("params/w", "weight", (1, 0)), same("params/b", "bias")


def _bilinear(layer: Layer) -> Sequence[Entry]:
    return moved("params/w", "weight", (1, 2, 0)), same("params/b", "bias")


def _embed(layer: Layer) -> Sequence[Entry]:
    return (same("params/w", "weight"),)


def _conv(layer: Layer) -> Sequence[Entry]:
    num = len(layer.shapes["params/w"]) - 2
    return moved("params/w", "weight", (*range(2, num + 2), 1, 0)), same("params/b", "bias")


def _conv_transpose(layer: Layer) -> Sequence[Entry]:
    weight: Any
    weight, bias = _conv(layer)
    if layer.option("transpose_kernel", True):
        return weight, bias
    groups = layer.option("groups", 1)

    def to(w: np.ndarray) -> Arrays:
        return weight.to(turned(w, groups))

    def back(w: np.ndarray) -> Arrays:
        (kernel,) = weight.back(w)
        return (turned(kernel, groups),)

    return Entry(weight.ours, weight.theirs, to, back), bias


def turned(w: np.ndarray, groups: int) -> np.ndarray:
    """A kernel of a transposed convolution in the other convention: turned about, its channels swapped."""
    *sizes, a, b = w.shape
    w = np.flip(w, tuple(range(len(sizes)))).reshape(*sizes, a, groups, b // groups)
    return np.swapaxes(w, -3, -1).reshape(*sizes, b // groups, groups * a)


def _norm(layer: Layer) -> Sequence[Entry]:
    affine = same("params/scale", "weight"), same("params/offset", "bias")
    return *affine, same("state/mean", _MEAN), same("state/var", "running_var")


def _weight_norm(layer: Layer) -> Sequence[Entry]:
    """`torch.nn.utils.parametrizations.weight_norm` of a single layer: length and direction of its weight."""
    inner: Any = layer.call.args[0]
    weight = "params/net/w"
    if weight not in layer.shapes or inner.call is None or inner.call.function not in MAPS:
        return [same(path, path.partition("/")[2]) for path in layer.shapes]
    shapes = {f"params/{path[11:]}": shape for path, shape in layer.shapes.items() if path.startswith("params/net/")}
    found = []
    for entry in MAPS[inner.call.function](Layer(inner.call, shapes, layer.inputs)):
        ours = tuple(f"params/net/{path[7:]}" for path in entry.ours)
        if ours == (weight,):
            held = "parametrizations/weight/original"
            found += [entry._replace(ours=ours, theirs=(f"{held}1",))]
            found += [entry._replace(ours=("params/g/w",), theirs=(f"{held}0",))]
        else:
            found.append(entry._replace(ours=ours))
    return found


def _attention(layer: Layer) -> Sequence[Entry]:
    """`torch.nn.MultiheadAttention`; where heads are grouped, one map each, as Llama names them."""
    inner = {name: layer.shapes[f"params/{name}/w"] for name in ("q", "k", "v", "out")}
    if inner["q"] == inner["k"] == inner["v"]:
        weight = _packed([f"params/{name}/w" for name in "qkv"], "in_proj_weight", inner["q"])
        bias = _packed([f"params/{name}/b" for name in "qkv"], "in_proj_bias", inner["q"][1:])
        return weight, bias, *_flat("out", "out_proj", inner["out"], 2)
    named = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "o_proj"}
    return [
        entry for name, theirs in named.items() for entry in _flat(name, theirs, inner[name], 2 if name == "out" else 1)
    ]


def _flat(name: str, theirs: str, shape: tuple[int, ...], num_inputs: int) -> Sequence[Entry]:
    """A linear map of several axes, as a matrix `[out, in]`."""
    size = int(np.prod(shape[:num_inputs]))

    def to(w: np.ndarray) -> Arrays:
        return (w.reshape(size, -1).T,)

    def back(w: np.ndarray) -> Arrays:
        return (w.T.reshape(shape),)

    out = shape[num_inputs:]
    bias = Entry((f"params/{name}/b",), (f"{theirs}/bias",), lambda b: (b.reshape(-1),), lambda b: (b.reshape(out),))
    return Entry((f"params/{name}/w",), (f"{theirs}/weight",), to, back), bias


def _packed(ours: Sequence[str], theirs: str, shape: tuple[int, ...]) -> Entry:
    """Three arrays `[..., heads, head]` as one, `[3 * heads * head, ...]`."""
    flat = (*shape[:-2], -1)

    def to(*parts: np.ndarray) -> Arrays:
        return (joined(*(part.reshape(flat) for part in parts)).T,)

    def back(packed: np.ndarray) -> Arrays:
        return tuple(part.reshape(shape) for part in split_in(packed.T, 3))

    return Entry(tuple(ours), (theirs,), to, back)


def _recurrent(layer: Layer, suffix: str = "_l0") -> Sequence[Entry]:
    """One bias here stands for the sum of theirs; the second one is zero there, but where a gate lies between."""
    w, u = moved("params/w", f"weight_ih{suffix}", (1, 0)), moved("params/u", f"weight_hh{suffix}", (1, 0))
    biases = f"bias_ih{suffix}", f"bias_hh{suffix}"

    def back(b: np.ndarray, b_h: np.ndarray) -> Arrays:
        return (b + b_h,)

    return w, u, Entry(("params/b",), biases, lambda b: (b, np.zeros_like(b)), back)


def _gru(layer: Layer, suffix: str = "_l0") -> Sequence[Entry]:
    w, u, bias = _recurrent(layer, suffix)
    size = layer.shapes["params/u"][0]

    def to(b: np.ndarray, b_h: np.ndarray) -> Arrays:
        return b, joined(np.zeros_like(b[: 2 * size]), b_h)

    def back(b: np.ndarray, b_h: np.ndarray) -> Arrays:
        return joined(b[: 2 * size] + b_h[: 2 * size], b[2 * size :]), b_h[2 * size :]

    return w, u, Entry(("params/b", "params/b_h"), bias.theirs, to, back)


_CELLS: dict[Any, Any] = {lstm_cell: _recurrent, simple_cell: _recurrent, gru_cell: _gru}


def _whole(layer: Layer) -> Sequence[Entry]:
    """`torch.nn.LSTM` and its like, whose names hold the layer and the direction."""
    parts = [("", "", layer.call.args[0])]
    if layer.call.function is bidirectional:
        backward = layer.call.kwargs.get("backward", layer.call.args[0])
        parts = [("/forward", "", layer.call.args[0]), ("/backward", "_reverse", backward)]
    return [entry for path, suffix, cell in parts for entry in _directed(layer, path, suffix, cell)]


def _directed(layer: Layer, path: str, suffix: str, cell: Any) -> Sequence[Entry]:
    if cell.call.function is stack_cells:
        stacked = enumerate(cell.call.args)
        return [
            entry
            for index, each in stacked
            for entry in _one(layer, f"{path}/cells/{index}", f"_l{index}{suffix}", each)
        ]
    return _one(layer, path, f"_l0{suffix}", cell)


def _one(layer: Layer, path: str, suffix: str, cell: Any) -> Sequence[Entry]:
    """The entries of one cell whose params stand at a path below `params`; its own names where torch has none."""
    start = f"params{path}/"
    shapes = {f"params/{name[len(start) :]}": s for name, s in layer.shapes.items() if name.startswith(start)}
    if cell.call.function not in _CELLS or (cell.call.function is gru_cell and "params/b_h" not in shapes):
        return [same(f"{start}{name[7:]}", f"{start[7:]}{name[7:]}") for name in shapes]
    entries = _CELLS[cell.call.function](layer._replace(shapes=shapes), suffix)
    return [entry._replace(ours=tuple(f"{start}{name[7:]}" for name in entry.ours)) for entry in entries]


MAPS: dict[Any, LayerMap] = {
    linear: _linear,
    bilinear: _bilinear,
    embed: _embed,
    learned_positions: _embed,
    projection: _linear,
    conv: _conv,
    depthwise_conv: _conv,
    conv_transpose: _conv_transpose,
    batch_norm: _norm,
    layer_norm: _norm,
    rms_norm: _norm,
    group_norm: _norm,
    instance_norm: _norm,
    attention: _attention,
    rnn: _whole,
    weight_norm: _weight_norm,
    bidirectional: _whole,
}
_TORCH = Library("torch", MAPS, {}, ".")
