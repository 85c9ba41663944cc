"""Windows over one to three spatial axes: how their sizes, steps and padding are given."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax

from ._check import check_size, check_spatial, spatial_axes
from ._errors import ShapeError

Sizes = int | Sequence[int]
Padding = Literal["same", "valid"] | int | Sequence[tuple[int, int]]


class Windows(NamedTuple):
    """Where windows lie.

    Attributes:
      sizes: elements of a window along each spatial axis.
      strides: steps between windows.
      dilations: distances between the elements of a window.
      padding: a word, or pairs (before, after).
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """Positions from the first element of a window to its last."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.sizes, self.dilations, strict=True))


def read_windows(
    name: str, kernel: Any, stride: Any, padding: Any, dilation: Any, words: tuple[str, ...] = ("same", "valid")
) -> Windows:
    """The windows of a convolution.

    Raises:
      ValueError: naming the layer, the argument, and what was given.
    """
    sizes = read_sizes(name, "kernel", kernel)
    num = len(sizes)
    strides, dilations = per_axis(name, "stride", stride, num), per_axis(name, "dilation", dilation, num)
    return Windows(sizes, strides, dilations, read_padding(name, padding, num, words))


def read_sizes(name: str, argument: str, sizes: Any) -> tuple[int, ...]:
    """Sizes along one to three spatial axes; an integer is a square in two.

    Raises:
      ValueError: naming the layer, the argument, and what was given.
    """
    sizes = (sizes, sizes) if isinstance(sizes, int) else sizes
    if not isinstance(sizes, Sequence) or not 1 <= len(sizes) <= 3:
        raise ValueError(f"{name}: expected {argument} for one to three spatial axes, got {sizes!r}")
    return per_axis(name, argument, sizes, len(sizes))


def per_axis(name: str, argument: str, sizes: Any, num: int, *, at_least: int = 1) -> tuple[int, ...]:
    """One integer for each spatial axis, or the same for all.

    Raises:
      ValueError: naming the layer, the argument, and what was given.
    """
    sizes = (sizes,) * num if isinstance(sizes, int) else sizes
    if not isinstance(sizes, Sequence) or len(sizes) != num:
        raise ValueError(f"{name}: expected {argument} to be an integer or {num} of them, got {sizes!r}")
    for size in sizes:
        check_size(name, argument, size, at_least=at_least)
    return tuple(sizes)


def read_padding(name: str, padding: Any, num: int, words: tuple[str, ...] = ("same", "valid")) -> Any:
    """One of the words, or a pair (before, after) for each spatial axis.

    Raises:
      ValueError: naming the layer and what was given.
    """
    if isinstance(padding, str) and padding in words:
        return padding
    pairs = ((padding, padding),) * num if isinstance(padding, int) else padding
    if isinstance(pairs, Sequence) and len(pairs) == num and all(map(_is_pair, pairs)):
        return tuple(map(tuple, pairs))
    said = ", ".join(map(repr, words))
    raise ValueError(f"{name}: expected padding to be {said}, a number or {num} pairs (before, after), got {padding!r}")


def _is_pair(pair: Any) -> bool:
    sizes = isinstance(pair, Sequence) and len(pair) == 2
    return sizes and all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in pair)


def check_positions(x: Any, num: int) -> None:
    """Refuses an input without so many spatial axes, or with none of their positions.

    Raises:
      ShapeError: with the axes expected and the shape given.
    """
    check_spatial(x, num)
    if 0 in x.shape[-num - 1 : -1]:
        raise ShapeError(f"{spatial_axes(num)} of at least one position", f"{tuple(x.shape)}")


def one_batch_axis(x: jax.Array, num: int) -> jax.Array:
    """The input with one axis before its spatial axes and channels."""
    split = x.ndim - num - 1
    return x if split == 1 else x.reshape(math.prod(x.shape[:split]), *x.shape[split:])


def batch_axes_of(x: jax.Array, y: jax.Array, num: int) -> jax.Array:
    """`y`, made from `one_batch_axis(x, num)`, with the batch axes of `x`."""
    return y.reshape(*x.shape[: -num - 1], *y.shape[1:])
