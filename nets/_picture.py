"""Pictures of rectangles, words and arrows, as SVG and as PNG."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

LINES = "#7b8794"
_FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """A rectangle with round corners."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str
    radius: float = 7.0


@dataclasses.dataclass(frozen=True)
class Words:
    """A line of words; `y` is that of its middle, and `x` that of its middle or its left end."""

    x: float
    y: float
    words: str
    size: float = 11.0
    color: str = "#1f2933"
    bold: bool = False
    left: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """An arrow through points, as `layout` routes it."""

    points: Sequence[tuple[float, float]]
    head: bool = True
    back: bool = False


Mark = Rectangle | Words | Line


def width_of(words: str, size: float, *, bold: bool = False) -> float:
    """About how wide words are, in the widest of the fonts."""
    return len(words) * size * (0.66 if bold else 0.61)


def to_svg(marks: Sequence[Mark], width: float, height: float) -> str:
    """The picture as an SVG document."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
    head += f' viewBox="0 0 {width:.0f} {height:.0f}" font-family="{_FONT}">'
    shape = 'markerUnits="userSpaceOnUse" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto"'
    arrow = f'<defs><marker id="head" {shape} fill="{LINES}"><path d="M0,0.5 L8,4 L0,7.5 z"/></marker></defs>'
    page = f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>'
    return "\n".join([head, arrow, page, *map(_element, marks), "</svg>\n"])


def to_png(marks: Sequence[Mark], width: float, height: float, path: Path) -> None:
    """Writes the picture as a PNG file.

    Raises:
      ImportError: without matplotlib, which is part of the extra `cli`.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("draw: a PNG needs matplotlib, pip install 'renga[cli]'. An SVG needs nothing.") from error
    figure = Figure(figsize=(width / 72, height / 72), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for mark in marks:
        _plot(axes, mark)
    FigureCanvasAgg(figure).print_figure(path, dpi=_resolution(width, height))


def _resolution(width: float, height: float, most: float = 16000) -> float:
    """Two dots a point and a half, fewer for pictures so large that they would not open."""
    return min(144.0, 72 * most / max(width, height))


def _element(mark: Mark) -> str:
    if isinstance(mark, Rectangle):
        place = f'x="{mark.x:.1f}" y="{mark.y:.1f}" width="{mark.width:.1f}" height="{mark.height:.1f}"'
        return f'<rect {place} rx="{mark.radius:g}" fill="{mark.fill}" stroke="{mark.stroke}"/>'
    if isinstance(mark, Words):
        style = f'font-size="{mark.size:g}" fill="{mark.color}"' + (' font-weight="600"' if mark.bold else "")
        anchor = "start" if mark.left else "middle"
        place = f'x="{mark.x:.1f}" y="{mark.y:.1f}" text-anchor="{anchor}" dominant-baseline="central"'
        return f"<text {place} {style}>{escape(mark.words)}</text>"
    (x, y), *steps = _steps(mark.points)
    drawn = f"M{x:.1f},{y:.1f} " + " ".join(
        "C" + " ".join(f"{x:.1f},{y:.1f}" for x, y in step) if len(step) == 3 else f"L{step[0][0]:.1f},{step[0][1]:.1f}"
        for step in steps
    )
    style = ' stroke-dasharray="5 4"' if mark.back else ""
    head = ' marker-end="url(#head)"' if mark.head else ""
    return f'<path d="{drawn}" fill="none" stroke="{LINES}" stroke-width="1.4"{style}{head}/>'


def _plot(axes: Any, mark: Mark) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Outline

    if isinstance(mark, Rectangle):
        style = f"round,pad=0,rounding_size={min(mark.radius, mark.height / 2)}"
        axes.add_patch(
            FancyBboxPatch(
                (mark.x, mark.y), mark.width, mark.height, boxstyle=style, facecolor=mark.fill, edgecolor=mark.stroke
            )
        )
    elif isinstance(mark, Words):
        align = "left" if mark.left else "center"
        weight = "bold" if mark.bold else "normal"
        place = {"ha": align, "va": "center_baseline", "parse_math": False}
        axes.text(mark.x, mark.y, mark.words, fontsize=mark.size, color=mark.color, fontweight=weight, **place)
    else:
        start, *steps = _steps(mark.points)
        corners = [start, *(point for step in steps for point in step)]
        codes = [
            Outline.MOVETO,
            *(c for s in steps for c in ([Outline.CURVE4] * 3 if len(s) == 3 else [Outline.LINETO])),
        ]
        head = "-|>,head_length=4,head_width=2.2" if mark.head else "-"
        axes.add_patch(
            FancyArrowPatch(
                path=Outline(corners, codes),
                arrowstyle=head,
                color=LINES,
                linewidth=1.2,
                linestyle=(0, (4, 3)) if mark.back else "-",
                shrinkA=0,
                shrinkB=0,
            )
        )


def _steps(points: Sequence[tuple[float, float]]) -> list[Any]:
    """The first point, and then straight lines and curves that leave and arrive vertically."""
    steps: list[Any] = [points[0]]
    for index, ((x, y), (to_x, to_y)) in enumerate(itertools.pairwise(points)):
        middle = (y + to_y) / 2
        straight = index % 2 == 1 or abs(x - to_x) < 1.5
        steps.append([(to_x, to_y)] if straight else [(x, middle), (to_x, middle), (to_x, to_y)])
    return steps
