"""A network as a picture."""

import itertools
from pathlib import Path
from typing import Any

from . import _table
from ._flow import Box, flow
from ._layout import Layout, Size, layout
from ._net import Net
from ._picture import LINES, Line, Mark, Rectangle, Words, to_png, to_svg, width_of
from ._summary import shapes_in_words, traced

_COLORS = (
    ("#e3edff", "#5c8ae0"), ("#e2f4e7", "#4fa574"), ("#fdeddc", "#dd9347"), ("#f1e7fd", "#9c6bd3"),
    ("#ffe5e8", "#dd6b7b"), ("#dcf4f4", "#3c9f9f"), ("#fbf1c5", "#bf9b26"), ("#e7e9f4", "#757ba6"),
)  # fmt: skip
_PLAIN, _BLACK, _DARK, _QUIET = ("#f1f3f5", "#9aa5b1"), "#1f2933", "#3e4c59", "#616e7c"
_MARGIN, _PAD, _HEADER = 24.0, 16.0, 44.0
_STACKS = {"repeat", "ensemble"}


def draw(
    net: Net, *inputs: Any, path: str | Path = "net.svg", train: bool = False, depth: int | None = None, **keywords: Any
) -> Path:
    """Draws a network for inputs of these shapes; nothing is computed.

    A box is a network, with its name, its call, the shape of its output and its number of parameters; what it calls
    stands inside it. Arrows are where values go in the program that JAX traces, so a shortcut is seen. Of a body's own
    operations those are shown that bring values together, matrix products, and functions of `jax.nn`. A network that
    does nothing, as dropout outside training, is left out. One that is called again on what came of it is
    drawn again, or, if others stand in it, a dashed arrow leads back to it.

    Args:
      net: the network.
      *inputs: arrays or `jax.ShapeDtypeStruct`s.
      path: the file; it ends in `.svg`, which needs nothing else, or in `.png`, which needs the extra `cli`.
      train: whether to look at the network in training.
      depth: how many levels of networks are shown; all unless given.
      **keywords: further inputs by name, such as a mask.
    Returns:
      The path of the file.
    Raises:
      ValueError: if the path ends otherwise.
      ImportError: for a PNG without matplotlib.

    >>> import tempfile
    >>> net = residual(layer_norm(), linear(8), jax.nn.relu, linear(3))
    >>> path = draw(net, jnp.ones((2, 3)), path=tempfile.mkdtemp() + "/net.svg")
    >>> path.read_text().count("<rect") > 6
    True
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"draw: expected a path that ends in .svg or .png, got {str(path)!r}")
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise ValueError(f"draw: expected depth to be an integer of at least 0 or None, got {depth!r}")
    artist = _Artist(flow(*traced("draw", net, inputs, train, keywords), depth))
    if path.suffix == ".svg":
        path.write_text(to_svg(*artist.picture()), encoding="utf-8")
    else:
        to_png(*artist.picture(), path)
    return path


class _Artist:
    """Draws a page: sizes from the inside out, then places from the outside in."""

    def __init__(self, page: Box):
        self.page = page
        self.layouts: dict[Box, Layout] = {}
        self.sizes: dict[Box, Size] = {}
        self.colors: dict[str, tuple[str, str]] = {}
        self.marks: list[Mark] = []

    def picture(self) -> tuple[list[Mark], float, float]:
        """What is drawn, and the size of the picture."""
        size = self._measure(self.page)
        title = _call(self.page, 64)
        width = max(size.width, width_of(title, 15, bold=True)) + 2 * _MARGIN
        self.marks.append(Words(_MARGIN, _MARGIN + 6, title, 15, bold=True, left=True))
        self.marks.append(Words(_MARGIN, _MARGIN + 26, _numbers(self.page), 11, _QUIET, left=True))
        self._inside(self.page, (width - size.width) / 2, _MARGIN + 48)
        return self.marks, width, size.height + 2 * _MARGIN + 48

    def _measure(self, box: Box) -> Size:
        if not box.inside:
            self.sizes[box] = _extent(_lines(box), box)
            return self.sizes[box]
        sizes: dict[Any, Size] = {inner: self._measure(inner) for inner in box.inside}
        start, end = ("start", box), ("end", box)
        used = {end for arrow in box.arrows for end in ((arrow[0] is box) * 1, (arrow[1] is box) * 2)}
        sizes = ({start: Size(0, 0)} if 1 in used else {}) | sizes | ({end: Size(0, 0)} if 2 in used else {})
        arrows = [(start if a is box else a, end if b is box else b) for a, b in box.arrows]
        last = next((inner for inner in box.inside if inner.kind == "output"), end if 2 in used else None)
        placed = self.layouts[box] = layout(sizes, arrows, first=start, last=last)
        if box.kind == "page":
            self.sizes[box] = Size(placed.width, placed.height)
            return self.sizes[box]
        width = max(placed.width + 2 * _PAD, _extent(_lines(box), box).width + 6)
        ports = [placed.corners[port][0] - placed.width / 2 if port in sizes else 0.0 for port in (start, end)]
        self.sizes[box] = Size(width, placed.height + _HEADER + _PAD + 8, *ports)
        return self.sizes[box]

    def _inside(self, box: Box, x: float, y: float) -> None:
        """Draws what is in a box, from the top left corner of its layout."""
        placed = self.layouts[box]
        for inner in box.inside:
            left, top = placed.corners[inner]
            self._box(inner, x + left, y + top)
        for (source, target), points in placed.routes.items():
            route = [(x + px, y + py) for px, py in points]
            starts, ends = isinstance(source, tuple), isinstance(target, tuple)
            if starts:
                self.marks.append(Rectangle(route[0][0] - 2.5, route[0][1] - 2.5, 5, 5, LINES, LINES, 2.5))
            if ends:
                route += [route[-1], (route[-1][0], route[-1][1] + _PAD)]
            self.marks.append(Line(route, head=not ends, back=route[-1][1] < route[0][1]))

    def _box(self, box: Box, x: float, y: float) -> None:
        size = self.sizes[box]
        middle, lines = x + size.width / 2, _lines(box)
        if box.inside:
            placed = self.layouts[box]
            self._rectangle(box, x, y, "#fafbfc", "#bcc6d0")
            for row, (words, font, color, bold) in enumerate(lines):
                self.marks.append(Words(x + 12, y + 15 + 17 * row, words, font, color, bold, left=True))
            self._inside(box, x + (size.width - placed.width) / 2, y + _HEADER + 8)
            return
        fill, stroke = self._color(box)
        self._rectangle(box, x, y, fill, stroke)
        heights = list(itertools.accumulate((font + 5 for _, font, *_ in lines), initial=0.0))
        top = y + (size.height - heights[-1]) / 2
        for (words, font, color, bold), above in zip(lines, heights, strict=False):
            self.marks.append(Words(middle, top + above + (font + 5) / 2, words, font, color, bold))

    def _rectangle(self, box: Box, x: float, y: float, fill: str, stroke: str) -> None:
        size = self.sizes[box]
        round_ends = box.kind != "layer"
        radius = min(size.height / 2, 14.0) if round_ends else 7.0
        for shift in (6, 3, 0) if _stack(box) else (0,):
            self.marks.append(Rectangle(x + shift, y - shift, size.width, size.height, fill, stroke, radius))

    def _color(self, box: Box) -> tuple[str, str]:
        """One color for all layers of a kind that have parameters."""
        if box.kind in ("input", "output"):
            return _DARK, _DARK
        if box.kind == "operation" or box.plan is None or not box.num_params:
            return _PLAIN if box.kind == "layer" else ("white", _PLAIN[1])
        kind = box.plan.net.name
        return self.colors.setdefault(kind, _COLORS[len(self.colors) % len(_COLORS)])


def _lines(box: Box) -> list[tuple[str, float, str, bool]]:
    """What stands in a box: words, their size and color, and whether they are bold."""
    if box.kind in ("input", "output"):
        return [(box.sign, 11, "white", False)]
    if box.kind == "operation":
        return [(box.sign, 14 if len(box.sign) == 1 else 11, _DARK, False)]
    parent = box.parent.path if box.parent is not None else ()
    name, call = "/".join(box.path[len(parent) :]), _call(box, 56 if box.inside else 34)
    numbers = (_numbers(box), 10.0, _QUIET, False)
    if box.inside:
        head = f"{name}  =  {call}" if name and call != name else name or call
        return [(head, 12.0, _BLACK, True), numbers]
    calls = [(call, 11.0, _DARK, False)] if name and call != name else []
    return [(name or call, 13.0, _BLACK, True), *calls, numbers]


def _extent(lines: list[tuple[str, float, str, bool]], box: Box) -> Size:
    width = max(width_of(words, size, bold=bold) for words, size, _, bold in lines)
    height = sum(size + 5 for _, size, *_ in lines)
    if box.kind == "operation":
        return Size(max(width + 16, 26), 26)
    return Size(width + 24, height + (10 if box.kind == "layer" else 8))


def _numbers(box: Box) -> str:
    if box.again:
        return "called again"
    shapes = shapes_in_words(box.plan.outputs) if box.plan is not None else ""
    return f"{_table.shortened(shapes, 40)}   {box.num_params:,} params" if box.num_params else shapes


def _call(box: Box, width: int) -> str:
    if box.plan is None:
        return ""
    net = box.plan.net
    plain = net.call is not None and net.call.name == "function"
    return _table.shortened(net.name if plain else repr(net), width)


def _stack(box: Box) -> bool:
    return box.kind == "layer" and box.plan is not None and box.plan.net.name in _STACKS
