"""What goes wrong in a network, said with the path to where it goes wrong."""

from typing import Any

import jax

from .._call import Recorded


class NetError(ValueError):
    """A network used in a way it cannot be.

    The message names the path, what was expected, what was given, and the file and line that built the network.

    Args:
      expected: what was expected, without a leading verb.
      got: what was given, in words.
      hint: what to do about it, as sentences.
    """

    def __init__(self, expected: str, got: str, hint: str = ""):
        super().__init__(expected, got, hint)
        self.expected, self.got, self.hint = expected, got, hint
        self.root = ""
        self.path: tuple[str, ...] = ()
        self.net: Recorded | None = None

    def __str__(self) -> str:
        call = None if self.net is None else self.net.call
        return self.message + (f"\n  {_short(repr(call))} was built at {call.site}" if call is not None else "")

    @property
    def message(self) -> str:
        """What is said without the place where the network was built."""
        place = "/".join((self.root, *self.path) if self.root else self.path)
        shown = "" if self.net is None else repr(self.net)
        if place and not (shown == place or (not self.path and shown.startswith(f"{place}("))):
            shown = f"{place} = {shown}" if shown else place
        return (
            f"{shown + ': ' if shown else ''}expected {self.expected}, got {self.got}.{self.hint and ' ' + self.hint}"
        )


def _short(shown: str, width: int = 60) -> str:
    return shown if len(shown) <= width else f"{shown[: width - 3]}..."


class ShapeError(NetError):
    """An input or a parameter whose shape or dtype does not fit the network."""


def shape_of(tree: Any) -> str:
    """The shapes of a pytree's arrays in words: `(3, 4)`, `{'w': (4, 3)}`, `nothing` for an empty one."""
    if not jax.tree.leaves(tree):
        return "nothing"
    return str(jax.tree.map(lambda leaf: _Shape(getattr(leaf, "shape", type(leaf).__name__)), tree))


class _Shape:
    def __init__(self, shape: Any):
        self.shape = shape

    def __repr__(self) -> str:
        return str(self.shape)
