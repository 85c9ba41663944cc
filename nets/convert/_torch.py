"""Torch: state dicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._attention import attention
from .._batch_norm import batch_norm
from .._conv import conv, depthwise_conv
from .._conv_transpose import conv_transpose
from .._group_norm import group_norm, instance_norm
from .._linear import bilinear, embed, linear
from .._net import Net
from .._norm import layer_norm, rms_norm
from .._positions import learned_positions
from .._projection import projection
from .._rnn import bidirectional, rnn
from ._entry import Arrays, Entry, Layer, LayerMap, joined, moved, same, split_in
from ._fit import from_other, to_other
from ._flattened import Flattened
from ._names import Names
from ._parametrised import parametrised
from ._recurrent import recurrent
from ._walk import Library, Task


def to_torch(
    net: Net, variables: Any, *inputs: Any, names: Names = None, flattened: Flattened = None, **keywords: Any
) -> dict[str, np.ndarray]:
    """A state dict as the same network of torch's layers has it.

    Args:
      net: the network.
      variables: what its `init` made: params, or `(params, state)` if it is stateful.
      *inputs: arrays or `jax.ShapeDtypeStruct`s that it is applied to.
      names: the paths of layers there: patterns of our paths, such as `{"blocks/*/attn": "h/*/attention"}` (`*` is
        any one name; the longest pattern that a path begins with is replaced), or a function of a path; our own
        unless given.
      flattened: which layers read an image made flat, and its axes here, as `{"head": (height, width, channels)}`:
        patterns of our paths. Their rows stand in another order there, where channels come first. Unless given, as
        `serial` and the networks here show it: from a `flatten` of what convolutions and pools made, or of an input
        of three axes or more, past layers without parameters that keep the shape, and norms. `{}` is for none.
      **keywords: inputs that the network takes by name, such as a `mask`.
    Returns:
      NumPy arrays by name, float32 where ours are bfloat16. `torch.nn.Module.load_state_dict` takes tensors:
      `{name: torch.from_numpy(array) for name, array in to_torch(...).items()}`.
    Raises:
      ConvertError: if the variables are not those of the network; if a pattern matches no path; if there is a
        `flatten` and no telling who reads its image.

    >>> net = nets.linear(3)
    >>> sorted(to_torch(net, net.init(jax.random.key(0), jnp.ones(4)), jnp.ones(4)))
    ['bias', 'weight']
    """
    found = to_other(Task(net, inputs, keywords, names, flattened), variables, _TORCH)
    found |= {f"{name[: -len(_MEAN)]}{_COUNT}": np.zeros((), np.int64) for name in list(found) if name.endswith(_MEAN)}
    return as_state_dict(found)


def from_torch(
    net: Net,
    state_dict: Mapping[str, Any],
    *inputs: Any,
    names: Names = None,
    flattened: Flattened = None,
    **keywords: Any,
) -> Any:
    """Parameters from a state dict of the same network of torch's layers.

    Args:
      net: the network.
      state_dict: arrays or torch tensors by name; those of `load_safetensors` too.
      *inputs: arrays or `jax.ShapeDtypeStruct`s that the network is applied to.
      names: as for `to_torch`.
      flattened: as for `to_torch`.
      **keywords: as for `to_torch`.
    Returns:
      What `net.init` returns, filled with these values.
    Raises:
      ConvertError: if any array is missing, is of another shape or kind, or belongs nowhere, with a list of all;
        otherwise as from `to_torch`.

    >>> net = nets.linear(3)
    >>> weights = {"weight": jnp.ones((3, 4)), "bias": jnp.zeros(3)}
    >>> from_torch(net, weights, jnp.ones(4))["w"].shape
    (4, 3)
    """
    given = {name.replace(".", "/"): as_numpy(array) for name, array in state_dict.items()}
    counts = {name for name in given if name.endswith(_COUNT) and f"{name[: -len(_COUNT)]}{_MEAN}" in given}
    task = Task(net, inputs, keywords, names, flattened)
    return from_other(task, {name: a for name, a in given.items() if name not in counts}, _TORCH)


def as_numpy(array: Any) -> np.ndarray:
    """An array or a torch tensor as a NumPy array; half precision that NumPy lacks as float32."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        return array.float().numpy() if str(array.dtype) == "torch.bfloat16" else array.numpy()
    return np.asarray(array)


def as_state_dict(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays as `torch.from_numpy` takes them, by names with dots."""

    def own(array: np.ndarray) -> np.ndarray:
        foreign = jnp.issubdtype(array.dtype, jnp.floating) and not np.issubdtype(array.dtype, np.floating)
        return np.array(array, np.float32 if foreign else None, order="C")

    return {name.replace("/", "."): own(array) for name, array in arrays.items()}


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


def _attention(layer: Layer) -> Sequence[Entry]:
    """`torch.nn.MultiheadAttention`, where that can do the same; otherwise one map each, as Llama names them."""
    inner = {name: layer.shapes[f"params/{name}/w"] for name in ("q", "k", "v", "out")}
    width, *heads = inner["q"]
    kept = width == int(np.prod(heads)) == inner["out"][-1]
    if kept and inner["k"][1:] == inner["v"][1:] == tuple(heads):
        bias = _packed([f"params/{name}/b" for name in "qkv"], "in_proj_bias", tuple(heads))
        rest = bias, *_flat("out", "out_proj", inner["out"], 2)
        if inner["q"] == inner["k"] == inner["v"]:
            return _packed([f"params/{name}/w" for name in "qkv"], "in_proj_weight", inner["q"]), *rest
        weights = (_flat(name, name, inner[name], 1)[0]._replace(theirs=(f"{name}_proj_weight",)) for name in "qkv")
        return *weights, *rest
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
    rnn: recurrent,
    bidirectional: recurrent,
}
MAPS |= parametrised(MAPS)
_TORCH = Library("torch", MAPS, {}, ".", channels_first=True)
