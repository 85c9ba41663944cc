"""Which layers read an image made flat: its values stand in another order where channels come first."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..._patterns import matching
from .._adaptive import adaptive_avg_pool, adaptive_max_pool
from .._attention import attention
from .._batch_norm import batch_norm
from .._combine import parallel, serial
from .._conv import conv, depthwise_conv
from .._conv_local import conv_local
from .._conv_transpose import conv_transpose
from .._convnet import convnet
from .._core import Plan
from .._dcgan import dcgan_discriminator
from .._einsum import einsum, linear_general
from .._group_norm import group_norm, instance_norm
from .._linear import bilinear, embed, linear, mlp
from .._norm import layer_norm, rms_norm
from .._paths import join
from .._pool import avg_pool, max_pool, min_pool
from .._positions import learned_positions
from .._projection import projection
from .._resize import flatten, upsample
from .._rnn import bidirectional, rnn
from .._stack import ensemble, repeat
from .._weight_norm import spectral_norm, weight_norm
from .._wrap import cast, frozen, remat
from ._entry import ConvertError, Entry, constructor_of, known

Axes = tuple[int, ...]
Flattened = Mapping[str, Sequence[int]] | None

_HINT = (
    "Say which layers read it, and its axes here, by flattened={'head': (height, width, channels)}, with patterns of "
    "their paths; flattened={} if it stands in the same order there."
)
_SPATIAL = {conv, depthwise_conv, conv_transpose, conv_local, avg_pool, max_pool, min_pool, adaptive_avg_pool}
_SPATIAL |= {adaptive_max_pool, upsample, group_norm, instance_norm}
_FEATURES = {linear, bilinear, embed, learned_positions, projection, linear_general, einsum, attention, rnn}
_FEATURES |= {bidirectional}
_NORMS = {batch_norm, layer_norm, rms_norm}
_ARRAYS: dict[Any, tuple[str, ...]] = {
    linear: ("params/w",),
    weight_norm: ("params/net/w",),
    spectral_norm: ("params/w", "state/vectors/w/v"),
    **dict.fromkeys(_NORMS, ("params/scale", "params/offset", "state/mean", "state/var")),
}
_WITHIN = {cast, frozen, remat, ensemble, repeat}
_BODIES = {convnet: "hidden", dcgan_discriminator: "head"}
_LOST: Axes = ()


def seen(net: Any, planned: Plan) -> dict[str, Axes]:
    """The axes, here, of the flattened images that layers read, by path, as far as the structure shows it.

    Raises:
      ConvertError: if it does not show who reads one.
    """
    reader = _Reader()
    reader.follow(planned, net, "", None)
    return reader.found


def chosen(flattened: Mapping[str, Sequence[int]], paths: Sequence[str], what: str) -> dict[str, Axes]:
    """The same as the caller says it, by patterns of the paths of layers.

    Raises:
      ConvertError: for a pattern that matches no path.
    """
    try:
        found = {pattern: matching(paths, [pattern], f"{what}, flattened") for pattern in flattened}
    except ValueError as error:
        raise ConvertError(str(error)) from None
    return {path: tuple(flattened[pattern]) for pattern, matched in found.items() for path in matched}


def readable(part: Any) -> bool:
    """Whether a layer is one of those whose arrays can be reordered."""
    constructor = constructor_of(part)
    if constructor in (weight_norm, spectral_norm):
        return constructor_of(known(part.call.args[0], {linear})) is linear
    return constructor in _ARRAYS


def reordered(entry: Entry, part: Any, axes: Axes, what: str) -> Entry:
    """The entry of a layer whose input is an image of these axes, flattened: channels come first there."""
    names = _ARRAYS[constructor_of(part)]
    turned = [name in names for name in entry.ours]
    order = (len(axes) - 1, *range(len(axes) - 1))
    there = tuple(axes[place] for place in order)

    def turn(arrays: tuple[np.ndarray, ...], before: Axes, order: Any) -> tuple[np.ndarray, ...]:
        return tuple(_turned(a, before, order, what) if named else a for a, named in zip(arrays, turned, strict=True))

    def to(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return entry.to(*turn(arrays, axes, order))

    def back(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return turn(entry.back(*arrays), there, np.argsort(order))

    return entry._replace(to=to, back=back)


def _turned(a: np.ndarray, axes: Axes, order: Any, what: str) -> np.ndarray:
    if math.prod(axes) != a.shape[0]:
        raise ConvertError(f"{what}, flattened: expected axes of {a.shape[0]} values, got {axes}")
    rest = a.shape[1:]
    return a.reshape(*axes, *rest).transpose(*order, *range(len(axes), len(axes) + len(rest))).reshape(-1, *rest)


class _Reader:
    """Goes through a network as a value goes, with the axes of the flattened image that the value is; None if not."""

    def __init__(self):
        self.found: dict[str, Axes] = {}
        self.kinds: set[str] = set()

    def follow(self, planned: Plan, part: Any, path: str, axes: Axes | None) -> Axes | None:
        """What the output is."""
        part = known(part, {flatten, serial, parallel, mlp, *_SPATIAL, *_FEATURES, *_ARRAYS, *_WITHIN, *_BODIES})
        constructor = constructor_of(part)
        if constructor is flatten:
            return self._flattened(planned, part, path, axes)
        if constructor is serial:
            for name, child in planned.children.items():
                axes = self.follow(child, child.net, join(path, name), axes)
            return axes
        if constructor is parallel:
            outputs = {self.follow(each, each.net, join(path, name), axes) for name, each in planned.children.items()}
            return None if outputs == {None} else _LOST
        if constructor in _WITHIN:
            after = self.follow(planned, part.call.args[0], path, axes)
            if constructor is repeat and after != axes:
                self._fail(planned, path)
            return after
        return self._through(planned, part, path, axes)

    def _through(self, planned: Plan, part: Any, path: str, axes: Axes | None) -> Axes | None:
        """A layer, or a network of a body that is not looked into."""
        constructor, core = constructor_of(part), planned.net.core
        if axes is None and constructor in _BODIES:
            image = self._flattened(planned.children["flat"], planned.children["flat"].net, path, None, spatial=True)
            if image:
                self.found[join(path, _BODIES[constructor])] = image
            self.kinds.add("features")
            return None
        if axes is None:
            if "spatial" in self.kinds and _merges(planned):
                self._fail(planned, path)
            self._look(planned, part, path)
            return None
        if not core.has_params and not core.stateful:
            return axes if _shape(planned.outputs) == _shape(planned.inputs) else _LOST
        if constructor is mlp and axes:
            first = planned.children["layers/0"]
            self.follow(first, first.net, join(path, "layers/0"), axes)
            return None
        if not readable(part) or not axes:
            self._fail(planned, path)
        self.found[path] = axes
        self.kinds |= _kinds(part)
        return axes if constructor in _NORMS else None

    def _look(self, planned: Plan, part: Any, path: str) -> None:
        """Notes the layers of a body; nobody sees who reads an image that is flattened in it."""
        self.kinds |= _kinds(part)
        for name, child in planned.children.items():
            if self.follow(child, child.net, join(path, name), None) is not None:
                self._fail(child, join(path, name))

    def _flattened(
        self, planned: Plan, part: Any, path: str, before: Axes | None, *, spatial: bool = False
    ) -> Axes | None:
        num = part.call.kwargs.get("num_axes", 3)
        axes = _shape(planned.inputs)[-num:]
        if num == 1 or before is not None:
            return before if num == 1 else _LOST
        if math.prod(axes[:-1]) == 1 or axes[-1] == 1:
            return None
        if spatial or self.kinds == {"spatial"} or (not self.kinds and num > 2):
            return axes
        if self.kinds != {"features"}:
            self._fail(planned, path)
        return None

    def _fail(self, planned: Plan, path: str) -> None:
        raise ConvertError(
            f"{path or planned.net.name} = {planned.net!r}: expected to see where a flattened image goes, whose "
            f"channels come first there, got {planned.net.name} {_shape(planned.inputs)}. {_HINT}"
        )


def _kinds(part: Any) -> set[str]:
    """Whether a layer's input has channels that come first there, or features that come last there too."""
    constructor = constructor_of(part)
    if constructor in (weight_norm, spectral_norm):
        return _kinds(known(part.call.args[0], _SPATIAL | _FEATURES))
    if constructor in _SPATIAL:
        return {"spatial"}
    return {"features"} if constructor in _FEATURES else set()


def _merges(planned: Plan) -> bool:
    """Whether a function reshapes an image so that its channels are not the last axis any more."""
    before, after = _shape(planned.inputs), _shape(planned.outputs)
    if planned.net.core.has_params or before is None or after is None or len(after) >= len(before):
        return False
    return math.prod(before) == math.prod(after) and before[-1] > 1 and before[-1:] != after[-1:]


def _shape(values: Any) -> Any:
    """The shape of the only array of inputs or outputs."""
    value = values[0] if isinstance(values, tuple) and values else values
    return getattr(value, "shape", None)
