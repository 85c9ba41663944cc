"""A drawing shows every network that does something, where values go, and nothing over anything else."""

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import jax
import pytest

from renga import nets

from .kit import floats
from .made import marks
from .registry import NETS, attend, block, twice

SVG = "{http://www.w3.org/2000/svg}"


def drawn(tmp_path: Path, net: nets.Net, *inputs: Any, **options: Any) -> ElementTree.Element:
    path = nets.draw(net, *inputs, path=tmp_path / "net.svg", **options)
    return ElementTree.parse(path).getroot()


def words(svg: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in svg.iter(f"{SVG}text")]


def arrows(svg: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """The points of every arrow, those of its curves' handles included."""
    paths = [path.get("d", "") for path in svg.iter(f"{SVG}path") if path.get("stroke")]
    return [[_point(p) for p in d.translate(str.maketrans("MLC", "   ")).split()] for d in paths]


def _point(text: str) -> tuple[float, float]:
    x, y = text.split(",")
    return float(x), float(y)


def boxes(svg: ElementTree.Element) -> list[tuple[float, ...]]:
    """Left, top, right and bottom of all rectangles but the page, shadows and dots."""
    rects = [
        tuple(float(rect.get(name, 0)) for name in ("x", "y", "width", "height")) for rect in svg.iter(f"{SVG}rect")
    ]
    fronts = {(round(x + 3), round(y - 3), w, h) for x, y, w, h in rects}
    kept = [r for r in rects[1:] if r[2] > 5 and (round(r[0]), round(r[1]), *r[2:]) not in fronts]
    return [(x, y, x + w, y + h) for x, y, w, h in kept]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NETS])
def test_boxes_stand_beside_or_inside_each_other_and_within_the_page(name: str, tmp_path: Path):
    case = NETS[name]
    svg = drawn(tmp_path, case.build(), *case.inputs, **case.keywords)
    width, height = float(svg.get("width", 0)), float(svg.get("height", 0))
    found = boxes(svg)
    assert len(found) >= 2
    for left, top, right, bottom in found:
        assert left >= 0 <= top
        assert right <= width
        assert bottom <= height
    for a, b in itertools.combinations(found, 2):
        beside = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        within = all(
            low <= high for low, high in ((a[0], b[0]), (a[1], b[1]), (b[2], a[2]), (b[3], a[3]))
        )  # the outer one comes first
        assert beside or within, (a, b)


def test_a_shortcut_is_an_arrow_around_what_it_goes_around(tmp_path: Path):
    svg = drawn(tmp_path, nets.residual(nets.layer_norm(), nets.linear(5)), *floats(4, 5))
    shown = words(svg)
    for word in ("residual(layer_norm(), linear(5))", "layer_norm", "linear", "linear(5)", "+", "float32 (4, 5)"):
        assert word in shown
    assert len(arrows(svg)) == 5
    assert all(points[0][1] < points[-1][1] for points in arrows(svg))


def test_a_network_in_a_network_is_a_box_in_a_box_and_its_depth_can_be_limited(tmp_path: Path):
    net = nets.serial(nets.linear(5), blocks=nets.repeat(block(5), 3), head=nets.linear(2))
    whole, flat = (drawn(tmp_path, net, *floats(4, 5), depth=depth) for depth in (None, 1))
    assert "blocks  =  repeat(block(5), 3)" in words(whole)
    assert {"norm", "up", "down", "+"} <= set(words(whole))
    assert "blocks" in words(flat)
    assert not {"norm", "up", "down", "+"} & set(words(flat))
    assert len(boxes(flat)) == 5
    assert len(boxes(drawn(tmp_path, net, *floats(4, 5), depth=0))) == 3


def test_what_does_nothing_is_left_out(tmp_path: Path):
    assert "drop" not in words(drawn(tmp_path, block(5), *floats(4, 5)))
    assert "drop" in words(drawn(tmp_path, block(5), *floats(4, 5), train=True))


def test_two_inputs_have_a_box_each_and_products_are_shown(tmp_path: Path):
    shown = words(drawn(tmp_path, attend, *floats(2, 3, 5), *floats(2, 4, 5)))
    assert shown.count("matmul") == 2
    assert shown.count("float32 (2, 4, 5)") == 1
    assert shown.count("float32 (2, 3, 5)") == 2


def test_a_network_that_is_called_again_is_drawn_again(tmp_path: Path):
    shown = words(drawn(tmp_path, twice, *floats(4, 5)))
    assert shown.count("shared") == 2
    assert shown.count("called again") == 1


def test_an_arrow_that_leads_back_is_dashed(tmp_path: Path):
    @nets.define
    def body(x, *, inner=nets.mlp(5, 5), other=nets.linear(5)):
        return inner(other(inner(x)))

    svg = drawn(tmp_path, body, *floats(4, 5))
    back = [points for points in arrows(svg) if points[0][1] > points[-1][1]]
    dashed = [path for path in svg.iter(f"{SVG}path") if path.get("stroke-dasharray")]
    assert len(back) == len(dashed) == 1


def test_what_a_program_runs_inside_a_transform_is_followed(tmp_path: Path):
    @nets.define
    def body(x, *, a=nets.linear(5), b=nets.linear(5), c=nets.linear(5)):
        x = jax.jit(jax.vmap(a))(x)
        x = jax.lax.cond(x.sum() > 0, jax.checkpoint(b), lambda x: x, x)
        return jax.lax.scan(lambda carry, x: (carry, c(x)), 0, x)[1]

    svg = drawn(tmp_path, body, *floats(4, 5))
    assert [word for word in words(svg) if word in "abc"] == ["a", "b", "c"]
    assert len({top for _, top, _, _ in boxes(svg)}) == 5


def test_the_same_network_gives_the_same_picture(tmp_path: Path):
    first, second = (nets.draw(block(5), *floats(4, 5), path=tmp_path / f"{i}.svg").read_text() for i in range(2))
    assert first == second
    assert "&lt;" in nets.draw(nets.serial(lambda x: x + 1), *floats(2), path=str(tmp_path / "a.svg")).read_text()


def test_a_png_is_a_picture_of_the_same_size(tmp_path: Path):
    svg = drawn(tmp_path, block(5), *floats(4, 5))
    data = nets.draw(block(5), *floats(4, 5), path=tmp_path / "net.png").read_bytes()
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert width == pytest.approx(2 * float(svg.get("width", 0)), abs=3)
    assert height == pytest.approx(2 * float(svg.get("height", 0)), abs=3)


def test_a_png_without_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError) as caught:
        nets.draw(nets.linear(3), *floats(2, 4), path=tmp_path / "net.png")
    assert str(caught.value) == "draw: a PNG needs matplotlib, pip install 'renga[cli]'. An SVG needs nothing."
