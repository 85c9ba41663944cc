"""What a layer's array is called elsewhere, and how it lies there."""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, ...]


class ConvertError(ValueError):
    """Weights that do not fit a network: the message lists all that is missing, extra, of another shape or kind."""


class Entry(NamedTuple):
    """Some arrays of a layer, here and elsewhere.

    Attributes:
      ours: paths within the layer, `params/w` or `state/mean`.
      theirs: names within the layer there.
      to: our arrays -> theirs.
      back: their arrays -> ours.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    to: Callable[..., Arrays]
    back: Callable[..., Arrays]


class Layer(NamedTuple):
    """A layer whose arrays are to be mapped.

    Attributes:
      call: of the constructor that made it; its arguments say which layout it has.
      shapes: of its arrays, by path within the layer: `params/w`.
      inputs: shapes of what it is applied to.
    """

    call: Any
    shapes: Mapping[str, tuple[int, ...]]
    inputs: Any

    def option(self, name: str, default: Any) -> Any:
        """A keyword argument of the constructor."""
        return self.call.kwargs.get(name, default)


# None says that the layer has no counterpart of its own there, and is mapped by its parts.
LayerMap = Callable[[Layer], Sequence[Entry] | None]


def known(part: Any, constructors: Container[Any]) -> Any:
    """What a user's function marked `layer` returned, as far inside as one of these constructors, or to the end."""
    while constructor_of(part) not in constructors and getattr(part, "inner", None) is not None:
        part = part.inner
    return part


def constructor_of(part: Any) -> Any:
    """The function that made a network or cell; None where none is known."""
    return getattr(part.call, "function", None)


def same(ours: str, theirs: str) -> Entry:
    """The same array under another name."""
    return Entry((ours,), (theirs,), lambda a: (a,), lambda a: (a,))


def moved(ours: str, theirs: str, axes: Sequence[int]) -> Entry:
    """An array whose axes stand in another order there: ours are theirs `transpose`d by `axes`."""
    inverse = np.argsort(axes)
    return Entry((ours,), (theirs,), lambda a: (a.transpose(inverse),), lambda a: (a.transpose(axes),))


def reshaped(ours: str, theirs: str, shape: Sequence[int], their_shape: Sequence[int]) -> Entry:
    """An array of other axes there, in the same order."""
    return Entry((ours,), (theirs,), lambda a: (a.reshape(their_shape),), lambda a: (a.reshape(shape),))


def split_in(a: np.ndarray, num: int) -> list[np.ndarray]:
    """Equal parts of the last axis."""
    return np.split(a, num, axis=-1)


def joined(*parts: np.ndarray) -> np.ndarray:
    """Parts beside each other on the last axis."""
    return np.concatenate(parts, axis=-1)


def reordered(order: Sequence[int]) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Parts of the last axis in another order there, and back: `theirs[i]` is part `order[i]` of ours."""
    inverse = np.argsort(order)

    def to(a: np.ndarray) -> np.ndarray:
        parts = split_in(a, len(order))
        return joined(*(parts[index] for index in order))

    def back(a: np.ndarray) -> np.ndarray:
        parts = split_in(a, len(order))
        return joined(*(parts[index] for index in inverse))

    return to, back
