"""Where values go in a network: its layers as boxes within boxes, and arrows from the traced program."""

import dataclasses
import itertools
import math
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from .._patterns import split
from ._core import Plan
from ._flops import Path, programs, scope
from ._summary import parts_of

# What is shown of a body's own operations: those that bring values together, by their sign, and these.
_SIGNS = {"add": "+", "add_any": "+", "sub": "\u2212", "mul": "\u00d7", "div": "\u00f7"}
_SIGNS |= {"concatenate": "concat", "select_n": "where"}
_SHOWN = {"conv_general_dilated": "conv", "dot_general": "matmul", "ragged_dot_general": "matmul"}
_SHOWN |= {"reduce_window": "pool", "reduce_window_max": "max pool", "reduce_window_sum": "sum pool"}


@dataclasses.dataclass(eq=False)
class Box:
    """A network, an operation, or an input or output, as it is drawn.

    Attributes:
      kind: `"page"`, `"layer"`, `"operation"`, `"input"` or `"output"`.
      path: of the network that it is, or is in.
      plan: of the network.
      sign: what an operation does, or the shapes of an input or output.
      num_params: how many numbers the network's parameters hold.
      again: whether the network stands elsewhere too, where it was called before.
      parent: the box that it stands in.
      inside: the boxes in it.
      arrows: from one of them to another; the box itself stands for its own beginning and end.
    """

    kind: str
    path: Path = ()
    plan: Plan | None = None
    sign: str = ""
    num_params: int = 0
    again: bool = False
    parent: "Box | None" = None
    inside: list["Box"] = dataclasses.field(default_factory=list)
    arrows: dict[tuple["Box", "Box"], None] = dataclasses.field(default_factory=dict)

    def add(self, box: "Box") -> "Box":
        """Puts a box inside."""
        box.parent = self
        self.inside.append(box)
        return box


Sources = tuple[Box, ...]  # each once, in the order of the program
_NOTHING: Sources = ()


def flow(planned: Plan, jaxpr: Jaxpr, depth: int | None) -> Box:
    """The page on which a network stands, with the boxes and arrows that its program touches.

    Args:
      planned: the network's plan.
      jaxpr: its program, as `traced` returns it.
      depth: how many levels of networks are shown, all if None.
    """
    page = Box("page", (), planned, num_params=_size(planned.shapes[0]))
    held = len(jax.tree.leaves(planned.shapes)) + 1
    inputs = [page.add(Box("input", sign=_in_words([v.aval]))) for v in jaxpr.invars[held:]]
    follower = _Follower(_layers(planned, page, depth))
    results = follower.follow(jaxpr, [_NOTHING] * held + [(box,) for box in inputs], ())
    shapes = jax.tree.leaves(planned.outputs)
    output = page.add(Box("output", sign=_in_words(shapes)))
    for source in _union(results[: len(shapes)]):
        _connect(source, output)
    _tidy(page)
    return page


def _layers(planned: Plan, page: Box, depth: int | None) -> dict[Path, Box]:
    """The networks that are shown, by path; one with children is the page itself."""
    root, *parts = parts_of(planned, *planned.shapes)
    if not parts or depth == 0:
        return {(): page.add(Box("layer", (), planned, num_params=_size(root[2])))}
    layers: dict[Path, Box] = {(): page}
    levels: dict[Path, int] = {(): 0}
    for path, part, params, _ in parts:
        names = split(path)
        above = _nearest(layers, names)
        levels[names] = levels.get(above, 0) + 1
        if depth is None or levels[names] <= depth:
            layers[names] = layers[above].add(Box("layer", names, part, num_params=_size(params)))
    return layers


class _Follower:
    """Follows values through a program, from box to box."""

    def __init__(self, layers: dict[Path, Box]):
        self.layers = layers
        self.outer = {box.parent for box in layers.values()}
        self.before: dict[Box, set[Box]] = {}  # all that leads to a box
        self.latest: Box | None = None

    def follow(self, jaxpr: Jaxpr, given: list[Sources], path: Path) -> list[Sources]:
        """The boxes that the outputs come from, if the inputs come from those given."""
        sources: dict[Any, Sources] = dict(zip(jaxpr.invars, given, strict=True))

        def read(variable: Any) -> Sources:
            return _NOTHING if isinstance(variable, Literal) else sources.get(variable, _NOTHING)

        for eqn in jaxpr.eqns:
            found = self._equation(eqn, [read(variable) for variable in eqn.invars], path + scope(eqn))
            sources.update(zip(eqn.outvars, found, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _equation(self, eqn: Any, given: list[Sources], path: Path) -> list[Sources]:
        box, whole = self._box(path), _union(given)
        if box not in self.outer:
            return self._arrive(eqn, whole, self._called(box, whole))
        name = _function(eqn)
        inner = [] if name else _inside(eqn, given)
        if inner and (whole or self._enters(eqn, path)):
            results = [self.follow(program, values, path) for program, values in inner]
            return [_union(parts) for parts in zip(*results, strict=True)]
        self.latest = box
        shown = name or _SHOWN.get(eqn.primitive.name)
        if len({frozenset(sources) for sources in given if sources}) < (1 if shown else 2):
            return [whole] * len(eqn.outvars)
        sign = shown or _SIGNS.get(eqn.primitive.name) or str(eqn.primitive.name)
        return self._arrive(eqn, whole, box.add(Box("operation", path, sign=sign.replace("_", " "))))

    def _arrive(self, eqn: Any, sources: Sources, box: Box) -> list[Sources]:
        for source in sources:
            if source is not box:
                _connect(source, box)
        self.before.setdefault(box, {box}).update(*(self.before.get(source, {source}) for source in sources))
        self.latest = box
        return [(box,)] * len(eqn.outvars)

    def _called(self, box: Box, sources: Sources) -> Box:
        """The box of a network, another one if it is called again on what came of it."""
        comes_back = any(box in self.before.get(source, ()) for source in sources)
        if not comes_back or self.latest is box or box.parent is None:
            return box
        copy = Box(box.kind, box.path, box.plan, num_params=box.num_params, again=True)
        self.layers[box.path] = box.parent.add(copy)
        return copy

    def _enters(self, eqn: Any, path: Path) -> bool:
        """Whether a network runs inside an equation."""
        inner = [(part, path + scope(part)) for program in programs(eqn) for part in program.eqns]
        return any(self._box(place) not in self.outer or self._enters(part, place) for part, place in inner)

    def _box(self, path: Path) -> Box:
        return self.layers[_nearest(self.layers, path)]


def _function(eqn: Any) -> str | None:
    """The function of `jax.nn` that an equation calls."""
    name = eqn.params.get("name")
    return name if isinstance(name, str) and callable(getattr(jax.nn, name, None)) else None


def _inside(eqn: Any, given: list[Sources]) -> list[tuple[Jaxpr, list[Sources]]]:
    """The programs that run inside an equation, each with what it is given."""
    inner, name = programs(eqn), eqn.primitive.name
    if name == "cond":
        return [(program, given[1:]) for program in inner]
    if name == "while":
        return [(eqn.params["body_jaxpr"].jaxpr, given[eqn.params["cond_nconsts"] :])]
    fits = len(inner) == 1 and len(inner[0].invars) == len(given) and len(inner[0].outvars) == len(eqn.outvars)
    return [(inner[0], given)] if fits else []


def _connect(source: Box, target: Box) -> None:
    """An arrow from box to box, with its parts in the boxes around either."""
    around = set(_ancestors(target))
    while source.parent is not None and source.parent not in around:
        source.parent.arrows[source, source.parent] = None
        source = source.parent
    while target.parent is not None and target.parent is not source.parent:
        target.parent.arrows[target.parent, target] = None
        target = target.parent
    if source.parent is not None and source is not target:
        source.parent.arrows[source, target] = None


def _ancestors(box: Box) -> list[Box]:
    return [] if box.parent is None else [box.parent, *_ancestors(box.parent)]


def _tidy(box: Box) -> None:
    """Leaves out what nothing flows through: a dropout that does nothing, an operation that only changes state."""
    for inner in box.inside:
        _tidy(inner)
    while True:
        left, entered = {source for source, _ in box.arrows}, {target for _, target in box.arrows}
        idle = [b for b in box.inside if (b.kind == "operation" and b not in left) or b not in left | entered]
        idle = [b for b in idle if b.kind in ("operation", "layer") and not (box.kind == "page" and not b.path)]
        if not idle:
            return
        box.inside = [inner for inner in box.inside if inner not in idle]
        box.arrows = {ends: None for ends in box.arrows if ends[0] not in idle and ends[1] not in idle}


def _nearest(layers: dict[Path, Box], path: Path) -> Path:
    return next(path[:end] for end in range(len(path), -1, -1) if path[:end] in layers)


def _union(parts: Any) -> Sources:
    return tuple(dict.fromkeys(itertools.chain(*parts)))


def _in_words(arrays: list[Any]) -> str:
    return ", ".join(f"{array.dtype} {tuple(array.shape)}" for array in arrays) or "nothing"


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
