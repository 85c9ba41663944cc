"""Well-known layouts of whole networks: GPT-2's, and torchvision's ResNets."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._attention import attention
from .._net import Net
from .._projection import projection
from ._entry import Arrays, ConvertError, Entry, Layer, joined, same, split_in
from ._fit import from_other, to_other
from ._names import Renaming
from ._torch import MAPS, as_numpy, as_state_dict
from ._walk import Library, Task


def to_gpt2(net: Net, params: Any, *inputs: Any, **keywords: Any) -> dict[str, np.ndarray]:
    """The state dict of GPT-2, as its published weights are named, from a `transformer` of its shape.

    Args:
      net: a `transformer` with `max_length`, biases, and the vectors of its tokens as its head.
      params: of it.
      *inputs: ids or `jax.ShapeDtypeStruct`s that it is applied to.
      **keywords: inputs that it takes by name.
    Returns:
      NumPy arrays by name: `wte.weight`, `h.0.attn.c_attn.weight` and so on; float32 where ours are bfloat16. For
      `load_state_dict` make tensors of them, as with `to_torch`.
    Raises:
      ConvertError: if the params are not those of the network.

    >>> net = nets.transformer(50, 16, num_layers=2, num_heads=4, max_length=8)
    >>> ids = jnp.zeros(4, int)
    >>> to_gpt2(net, net.init(jax.random.key(0), ids), ids)["h.1.attn.c_attn.weight"].shape
    (16, 48)
    """
    found = to_other(_task(net, inputs, keywords), params, _GPT2)
    return as_state_dict(found)


def from_gpt2(net: Net, state_dict: Mapping[str, Any], *inputs: Any, **keywords: Any) -> Any:
    """Parameters of a `transformer` from a state dict of GPT-2.

    With or without `transformer.` before every name. The causal masks among the weights, `attn.bias` and
    `attn.masked_bias`, are no parameters and are left out; `lm_head.weight` must be `wte.weight` once more.

    Args:
      net: a `transformer` with `max_length`, biases, and the vectors of its tokens as its head.
      state_dict: arrays or torch tensors by name.
      *inputs: ids or `jax.ShapeDtypeStruct`s that the network is applied to.
      **keywords: inputs that it takes by name.
    Returns:
      What `net.init` returns, filled with these values.
    Raises:
      ConvertError: if any array is missing, is of another shape, or belongs nowhere, with a list of all; or if
        the head is another array than the vectors of the tokens.

    >>> net = nets.transformer(50, 16, num_layers=2, num_heads=4, max_length=8)
    >>> ids = jnp.zeros(4, int)
    >>> weights = to_gpt2(net, net.init(jax.random.key(0), ids), ids)
    >>> from_gpt2(net, weights, ids)["blocks"]["attn"]["q"]["w"].shape
    (2, 16, 4, 4)
    """
    given = {name.removeprefix("transformer.").replace(".", "/"): as_numpy(a) for name, a in state_dict.items()}
    given = {name: a for name, a in given.items() if not re.fullmatch(r"h/\d+/attn/(masked_)?bias", name)}
    head = given.pop("lm_head/weight", None)
    if head is not None and not np.array_equal(head, given.get("wte/weight", np.nan)):
        raise ConvertError(f"{net!r}, from GPT-2: expected lm_head.weight to equal wte.weight, got another array")
    return from_other(_task(net, inputs, keywords), given, _GPT2)


def torchvision_resnet(path: str) -> str:
    """Where a layer of `resnet` (version 1) stands in torchvision's: the `names` of `from_torch` and `to_torch`.

    Args:
      path: of a layer, `stages/0/1/convs/0`.
    Returns:
      Its path there, `layer1/1/conv1`.

    >>> torchvision_resnet("stages/0/1/convs/0")
    'layer1/1/conv1'
    """
    for pattern, theirs in _RESNET.items():
        if found := re.fullmatch(pattern, path):
            numbers = [int(number) for number in found.groups()]
            return theirs(*numbers)
    return path


_RESNET: dict[str, Any] = {
    r"stem/conv": lambda: "conv1",
    r"stem/(?:batch_)?norm": lambda: "bn1",
    r"stages/(\d+)/(\d+)/convs/(\d+)": lambda stage, place, i: f"layer{stage + 1}/{place}/conv{i + 1}",
    r"stages/(\d+)/(\d+)/norms/(\d+)": lambda stage, place, i: f"layer{stage + 1}/{place}/bn{i + 1}",
    r"stages/(\d+)/(\d+)/shortcut/conv": lambda stage, place: f"layer{stage + 1}/{place}/downsample/0",
    r"stages/(\d+)/(\d+)/shortcut/norm": lambda stage, place: f"layer{stage + 1}/{place}/downsample/1",
    r"head": lambda: "fc",
}
_GPT2_NAMES = {
    "tokens": "wte",
    "positions": "wpe",
    "blocks/*/attn_norm": "h/*/ln_1",
    "blocks/*/attn": "h/*/attn",
    "blocks/*/mlp_norm": "h/*/ln_2",
    "blocks/*/mlp/up": "h/*/mlp/c_fc",
    "blocks/*/mlp/down": "h/*/mlp/c_proj",
    "norm": "ln_f",
}


def _task(net: Net, inputs: tuple, keywords: Mapping[str, Any]) -> Task:
    # As a function: a network without some of these parts lacks arrays, and the error lists them.
    return Task(net, inputs, keywords, Renaming(_GPT2_NAMES))


def _conv1d(layer: Layer) -> Sequence[Entry]:
    """A linear map there keeps its weight as `[in, out]`."""
    return same("params/w", "weight"), same("params/b", "bias")


def _packed_attention(layer: Layer) -> Sequence[Entry]:
    shapes = {name: layer.shapes[f"params/{name}/w"] for name in ("q", "k", "v", "out")}
    parts = [_packed("w", "c_attn/weight", shapes["q"]), _packed("b", "c_attn/bias", shapes["q"][1:])]
    features, flat = shapes["out"][-1], int(np.prod(shapes["out"][:-1]))

    def to(w: np.ndarray) -> Arrays:
        return (w.reshape(flat, features),)

    def back(w: np.ndarray) -> Arrays:
        return (w.reshape(shapes["out"]),)

    return *parts, Entry(("params/out/w",), ("c_proj/weight",), to, back), same("params/out/b", "c_proj/bias")


def _packed(array: str, theirs: str, shape: tuple[int, ...]) -> Entry:
    """Queries, keys and values side by side."""
    flat = (*shape[:-2], -1)

    def to(*parts: np.ndarray) -> Arrays:
        return (joined(*(part.reshape(flat) for part in parts)),)

    def back(packed: np.ndarray) -> Arrays:
        return tuple(part.reshape(shape) for part in split_in(packed, 3))

    return Entry(tuple(f"params/{name}/{array}" for name in "qkv"), (theirs,), to, back)


_GPT2 = Library("GPT-2", {**MAPS, projection: _conv1d, attention: _packed_attention}, {}, ".")
