"""Torch's `parametrizations`, which keep in place of a weight what it is made of."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._conv import conv, depthwise_conv
from .._conv_transpose import conv_transpose
from .._linear import embed, linear
from .._weight_norm import spectral_norm, weight_norm
from ._entry import Arrays, Entry, Layer, LayerMap, constructor_of, known, same

_U, _V = "state/vectors/w/u", "state/vectors/w/v"
_HELD = "parametrizations/weight"


def parametrised(maps: Mapping[Any, LayerMap]) -> dict[Any, LayerMap]:
    """The maps of layers whose weights are normalised, from those of the layers."""
    made = {weight_norm: _weight_norm, spectral_norm: _spectral_norm}
    return {constructor: functools.partial(layer_map, dict(maps)) for constructor, layer_map in made.items()}


_SPECTRAL = {linear, conv, depthwise_conv, conv_transpose, embed}


def _plain(layer: Layer) -> bool:
    """Whether its weight is one matrix, and not many, or one of several axes of outputs."""
    return layer.option("num_stacked", 0) == 0 and layer.option("num_outputs", 1) == 1


def _weight_norm(maps: Mapping[Any, LayerMap], layer: Layer) -> Sequence[Entry] | None:
    """`torch.nn.utils.parametrizations.weight_norm` of a single layer: length and direction of its weight."""
    inner = known(layer.call.args[0], maps)
    weight = "params/net/w"
    if (
        weight not in layer.shapes
        or constructor_of(inner) not in maps
        or not _plain(layer)
        or constructor_of(inner) is embed
    ):
        return None
    shapes = {f"params/{path[11:]}": shape for path, shape in layer.shapes.items() if path.startswith("params/net/")}
    found = []
    entries: Any = maps[constructor_of(inner)](Layer(inner.call, shapes, layer.inputs))
    for entry in entries:
        ours = tuple(f"params/net/{path[7:]}" for path in entry.ours)
        if ours == (weight,):
            found += [entry._replace(ours=ours, theirs=(f"{_HELD}/original1",))]
            found += [entry._replace(ours=("params/g/w",), theirs=(f"{_HELD}/original0",))]
        else:
            found.append(entry._replace(ours=ours))
    return found


def _spectral_norm(maps: Mapping[Any, LayerMap], layer: Layer) -> Sequence[Entry] | None:
    """`torch.nn.utils.parametrizations.spectral_norm` of a single layer: its weight, and the two vectors."""
    inner = known(layer.call.args[0], maps)
    constructor = constructor_of(inner)
    vectors = {path for path in layer.shapes if path.startswith("state/")}
    if vectors != {_U, _V} or constructor not in _SPECTRAL or not _plain(layer):
        return None
    turned = constructor is conv_transpose and inner.call.kwargs.get("transpose_kernel", True)
    if bool(layer.option("transposed", ())) != turned or (constructor is conv_transpose and not turned):
        return None
    entries: Any = maps[constructor](Layer(inner.call, layer.shapes, layer.inputs))
    found = [
        entry._replace(theirs=(f"{_HELD}/original",)) if entry.theirs == ("weight",) else entry for entry in entries
    ]
    if constructor is embed:  # its rows are the outputs there
        return *found, same(_V, f"{_HELD}/0/_u"), same(_U, f"{_HELD}/0/_v")
    shape = layer.shapes["params/w"]
    window = (*shape[:-2], shape[-1] if constructor is conv_transpose else shape[-2])

    def to(v: np.ndarray) -> Arrays:
        return (np.moveaxis(v.reshape(window), -1, 0).reshape(-1),)

    def back(v: np.ndarray) -> Arrays:
        return (np.moveaxis(v.reshape(window[-1], *window[:-1]), 0, -1).reshape(-1),)

    return *found, same(_U, f"{_HELD}/0/_u"), Entry((_V,), (f"{_HELD}/0/_v",), to, back)
