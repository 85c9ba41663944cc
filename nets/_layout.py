"""Where boxes stand and how arrows run: ranks from top to bottom, few crossings, straight lines.

Source: Sugiyama, Tagawa and Toda 1981, https://doi.org/10.1109/TSMC.1981.4308636, in four steps: ranks, order,
positions, routes. Positions within a rank are a least-squares fit to those of the neighbours, by pooling adjacent
violators.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Node = Any
Arrow = tuple[Node, Node]
Point = tuple[float, float]


class Size(NamedTuple):
    """A node's extent, and how far from its middle arrows enter and leave."""

    width: float
    height: float
    enter: float = 0.0
    leave: float = 0.0


class Layout(NamedTuple):
    """Where everything is, from the top left corner.

    Attributes:
      width: of the whole.
      height: of the whole.
      corners: the top left corner of every node.
      routes: the points that every arrow runs through; straight from the second to the third, the fourth to the fifth
        and so on, where it passes a rank.
    """

    width: float
    height: float
    corners: dict[Node, Point]
    routes: dict[Arrow, list[Point]]


@dataclasses.dataclass(eq=False)
class _Bend:
    """Where a long arrow passes a rank."""


def layout(
    sizes: Mapping[Node, Size],
    arrows: Sequence[Arrow],
    *,
    first: Node = None,
    last: Node = None,
    across: float = 26,
    down: float = 28,
) -> Layout:
    """Places nodes so that arrows run downwards, but for those that close a circle.

    Args:
      sizes: of the nodes, in the order of the program.
      arrows: between them.
      first: a node of the first rank.
      last: a node alone in the last rank, right below the first.
      across: least distance of two nodes side by side.
      down: distance of ranks.
    """
    order = _order(list(sizes), arrows)
    ends = {arrow: sorted(arrow, key=order.index) for arrow in arrows}
    ranks: dict[Node, int] = _ranks(order, list(ends.values()), first, last)
    chains: dict[Arrow, list[Node]] = {}
    for arrow, (upper, lower) in ends.items():
        bends = {_Bend(): rank for rank in range(ranks[upper] + 1, ranks[lower])}
        chains[arrow] = [upper, *bends, lower]
        ranks |= bends
    every = {node: sizes.get(node, Size(4, 0)) for node in ranks}
    links = list(dict.fromkeys(link for chain in chains.values() for link in itertools.pairwise(chain)))
    rows = _untangled(ranks, links)
    middles = _middles(rows, links, every, across)
    if first in ranks and last in ranks:
        middles[last] = middles[first]

    left = min(middles[node] - size.width / 2 for node, size in every.items())
    heights = [max(every[node].height for node in row) for row in rows]
    tops = [sum(heights[:rank]) + rank * down for rank in range(len(rows))]
    corners = {}
    for node, size in every.items():
        above = (heights[ranks[node]] - size.height) / 2 if node in sizes else 0
        corners[node] = (middles[node] - left - size.width / 2, tops[ranks[node]] + above)
    every |= {node: Size(4, heights[rank]) for node, rank in ranks.items() if node not in sizes}
    routes = {
        arrow: _route(chain, every, corners)[:: 1 if chain[0] is arrow[0] else -1] for arrow, chain in chains.items()
    }
    width = max(corners[node][0] + size.width for node, size in every.items())
    return Layout(width, tops[-1] + heights[-1], {node: corners[node] for node in sizes}, routes)


def _order(nodes: list[Node], arrows: Iterable[Arrow]) -> list[Node]:
    """An order in which arrows run forwards; where there is a circle, it begins at its first node."""
    before = {node: {source for source, target in arrows if target is node} for node in nodes}
    order: list[Node] = []
    while before:
        node = next((node for node in before if not before[node] & before.keys()), next(iter(before)))
        order.append(node)
        del before[node]
    return order


def _ranks(order: list[Node], arrows: list[list[Node]], first: Node, last: Node) -> dict[Node, int]:
    """The longest way to each node; one that nothing leads to stands right above what it leads to."""
    ranks = dict.fromkeys(order, 0)
    for node in order:
        ranks[node] = max((ranks[upper] + 1 for upper, lower in arrows if lower is node), default=0)
    for node in reversed(order):
        below = [ranks[lower] for upper, lower in arrows if upper is node]
        if below and node is not first and not any(lower is node for _, lower in arrows):
            ranks[node] = min(below) - 1
    if last is not None:
        ranks[last] = max([ranks[last], *(rank + 1 for node, rank in ranks.items() if node is not last)])
    return ranks


def _untangled(ranks: dict[Node, int], links: list[Arrow]) -> list[list[Node]]:
    """Rows in the order, of those tried, that has the fewest crossings: each node near the middle of its neighbours."""
    rows = [[node for node in ranks if ranks[node] == rank] for rank in range(max(ranks.values()) + 1)]
    best, fewest = rows, _crossings(rows, links)
    for sweep in range(12):
        rows = _swept(rows, _neighbours(links, upwards=sweep % 2 == 1), sweep % 2 == 1)
        if (crossings := _crossings(rows, links)) < fewest:
            best, fewest = rows, crossings
    return best


def _swept(rows: list[list[Node]], neighbours: dict[Node, list[Node]], upwards: bool) -> list[list[Node]]:
    swept: list[list[Node]] = []
    for row in reversed(rows) if upwards else rows:
        places = {node: place for place, node in enumerate(swept[-1])} if swept else {}
        own = {node: place for place, node in enumerate(row)}
        near = {node: [places[other] for other in neighbours.get(node, ()) if other in places] for node in row}
        swept.append(sorted(row, key=lambda node: sum(near[node]) / len(near[node]) if near[node] else own[node]))
    return swept[::-1] if upwards else swept


def _neighbours(links: list[Arrow], *, upwards: bool) -> dict[Node, list[Node]]:
    found: dict[Node, list[Node]] = {}
    for upper, lower in links:
        found.setdefault(upper if upwards else lower, []).append(lower if upwards else upper)
    return found


def _crossings(rows: list[list[Node]], links: list[Arrow]) -> int:
    places = {node: (rank, place) for rank, row in enumerate(rows) for place, node in enumerate(row)}
    ends = sorted((*places[upper], places[lower][1]) for upper, lower in links)
    return sum(a[0] == b[0] and a[1] < b[1] and a[2] > b[2] for i, a in enumerate(ends) for b in ends[i + 1 :])


def _middles(
    rows: list[list[Node]], links: list[Arrow], sizes: Mapping[Node, Size], across: float
) -> dict[Node, float]:
    """Horizontal middles: every node as near to its neighbours as its place in the row allows."""
    middles: dict[Node, float] = {}
    for row in rows:
        middles |= _fitted(row, {node: (0.0, 1.0) for node in row}, sizes, across)
    for sweep in range(32):
        upwards = sweep % 2 == 1
        for row in reversed(rows) if upwards else rows:
            middles |= _fitted(row, _wishes(row, links, upwards, middles, sizes), sizes, across)
    return middles


def _wishes(
    row: list[Node], links: list[Arrow], upwards: bool, middles: dict[Node, float], sizes: Mapping[Node, Size]
) -> dict[Node, tuple[float, float]]:
    """Where each node would stand were it alone, and how strongly.

    Only the strongest of its links count: those to other nodes, else those within a long arrow. So a shortcut does not
    bend what it goes around.
    """
    pulls: dict[Node, list[tuple[float, float]]] = {node: [] for node in row}
    for upper, lower in links:
        node, other = (upper, lower) if upwards else (lower, upper)
        if node in pulls:
            shift = sizes[upper].leave - sizes[lower].enter
            strength = (8.0, 0.01, 2.0)[isinstance(upper, _Bend) + isinstance(lower, _Bend)]
            pulls[node].append((middles[other] + (-shift if upwards else shift), strength))
    wishes = {}
    for node, found in pulls.items():
        strongest = max((strength for _, strength in found), default=0.01)
        places = [place for place, strength in found if strength == strongest] or [middles[node]]
        wishes[node] = (sum(places) / len(places), strongest * len(places))
    return wishes


def _fitted(
    row: list[Node], wishes: dict[Node, tuple[float, float]], sizes: Mapping[Node, Size], across: float
) -> dict[Node, float]:
    """Least squares of the distances to the wishes, in this order and without overlap."""
    offsets, reach = [], 0.0
    for node in row:
        offsets.append(reach + sizes[node].width / 2)
        reach += sizes[node].width + across
    pools: list[tuple[float, float, int]] = []
    for node, offset in zip(row, offsets, strict=True):
        place, strength = wishes[node]
        pool = (place - offset, strength, 1)
        while pools and pools[-1][0] > pool[0]:
            other = pools.pop()
            total = other[1] + pool[1]
            pool = ((other[0] * other[1] + pool[0] * pool[1]) / total, total, other[2] + pool[2])
        pools.append(pool)
    shifts = [shift for shift, _, count in pools for _ in range(count)]
    return {node: offset + shift for node, offset, shift in zip(row, offsets, shifts, strict=True)}


def _route(chain: list[Node], sizes: Mapping[Node, Size], corners: Mapping[Node, Point]) -> list[Point]:
    def point(node: Node, aside: float, share: float) -> Point:
        (x, y), size = corners[node], sizes[node]
        return x + size.width / 2 + aside, y + size.height * share

    upper, *bends, lower = chain
    passed = [point(bend, 0, share) for bend in bends for share in (0, 1)]
    return [point(upper, sizes[upper].leave, 1), *passed, point(lower, sizes[lower].enter, 0)]
