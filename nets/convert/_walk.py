"""From a network to the list of its arrays, here and elsewhere."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from .._core import Options, Plan, plan
from .._net import Net
from .._paths import paths_of
from .._rnn import bidirectional, rnn
from .._stack import ensemble, repeat
from .._stack_cells import stack_cells
from .._weight_norm import spectral_norm
from .._wrap import cast, frozen, remat
from ._entry import Arrays, ConvertError, Entry, Layer, LayerMap, constructor_of, known, same
from ._flattened import Axes, Flattened, chosen, readable, reordered, seen
from ._names import Names, Renaming

Path = tuple[str, ...]


class Library(NamedTuple):
    """How another library names and lays out parameters.

    Attributes:
      name: of the library.
      maps: of layers, by constructor. A layer without one keeps its names and layouts.
      cells: the path from a network that runs a cell to the cell's own arrays, by constructor and part.
      separator: what stands between the parts of a name there.
      channels_first: whether the axis of an image's channels stands before its height and width there.
    """

    name: str
    maps: Mapping[Any, LayerMap]
    cells: Mapping[tuple[Any, str], str]
    separator: str = "/"
    channels_first: bool = False

    def shown(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays by the names that its users know."""
        return {name.replace("/", self.separator): array for name, array in arrays.items()}


class Task(NamedTuple):
    """What is converted: the first arguments of every function here.

    Attributes:
      net: the network.
      inputs: arrays or their shapes, that it is applied to.
      keywords: inputs that it takes by name.
      names: of its parts there.
      flattened: which layers read a flattened image, and its axes; None where the structure shows it.
    """

    net: Net
    inputs: tuple
    keywords: Mapping[str, Any]
    names: Names = None
    flattened: Flattened = None


class Ref(NamedTuple):
    """One of our arrays, or a part of a stacked one."""

    path: str
    blocks: tuple[int, ...]


class Move(NamedTuple):
    """Some arrays of ours, and what they are elsewhere."""

    ours: tuple[Ref, ...]
    theirs: tuple[str, ...]
    to: Callable[..., Arrays]
    back: Callable[..., Arrays]


def moves_of(task: Task, library: Library) -> tuple[dict[str, Any], list[Move]]:
    """The shapes of a network's parameters and state, and what becomes of each of its arrays."""
    net = task.net
    planned = plan(net, task.inputs, Options(keywords=task.keywords))
    shapes, rename = _shapes(planned), Renaming(task.names)
    walk = _Walk(library, rename, _images(task, planned, library))
    moves = list(walk.parts(planned, net, shapes, _Place((), (), ())))
    rename.check(repr(net))
    mapped = {ref.path for move in moves for ref in move.ours}
    for path, leaf in paths_of(shapes).items():
        if hasattr(leaf, "shape") and path not in mapped:  # of a combinator itself, such as the lengths of weight_norm
            entry = same(path, path.partition("/")[2])
            moves.append(Move((Ref(path, ()),), entry.theirs, entry.to, entry.back))
    twice = [name for name, count in _counts(moves).items() if count > 1]
    if twice:
        raise ConvertError(f"{net!r}: expected a name of its own for every array, got {twice} more than once")
    return shapes, moves


def _counts(moves: Sequence[Move]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for move in moves:
        for name in move.theirs:
            counts[name] = counts.get(name, 0) + 1
    return counts


class _Place(NamedTuple):
    """Where in the network: the path of its arrays, that with the numbers of blocks, and these numbers alone."""

    path: Path
    numbered: Path
    blocks: tuple[int, ...]

    def below(self, *path: str) -> "_Place":
        return self._replace(path=self.path + path, numbered=self.numbered + path)

    def block(self, number: int) -> "_Place":
        return self._replace(numbered=(*self.numbered, str(number)), blocks=(*self.blocks, number))


class _Walk:
    """Goes through a network to all of its layers.

    Args:
      library: that of the other side.
      rename: from a path here to that there.
      images: the axes of flattened images that layers read, by path.
    """

    def __init__(self, library: Library, rename: Callable[[str], str], images: Mapping[str, Axes]):
        self._library, self._rename, self._images = library, rename, images
        self.readers: list[str] = []

    def parts(self, planned: Plan, part: Any, shapes: Any, place: _Place) -> Iterator[Move]:
        """The moves of `part`, a network or cell that `planned` is the plan of, or that is inside it at its path."""
        if not jax.tree.leaves(shapes):
            return
        go = functools.partial(self.parts, planned)
        part = known(part, _COMBINATORS | set(self._library.maps))
        call, constructor = part.call, constructor_of(part)
        if (entries := self._mapped(planned, part, shapes)) is not None:
            yield from self._entries(entries, part, shapes, place)
        elif constructor in (repeat, ensemble):
            for number in range(call.args[1]):
                yield from go(call.args[0], jax.tree.map(_first, shapes), place.block(number))
        elif constructor in (cast, frozen, remat, rnn):
            below = self._library.cells.get((constructor, ""), "")
            yield from go(call.args[0], shapes, place._replace(numbered=(*place.numbered, *_parts(below))))
        elif constructor is spectral_norm and "net" not in shapes["state"]:
            yield from go(call.args[0], {**shapes, "state": {}}, place)
        elif constructor is bidirectional:
            forward, backward = (*call.args, call.kwargs.get("backward", call.args[0]))[:2]
            for name, cell in (("forward", forward), ("backward", backward)):
                numbered = (*place.numbered, *_parts(self._library.cells.get((bidirectional, name), name)))
                yield from go(cell, _at(shapes, (name,)), place.below(name)._replace(numbered=numbered))
        elif constructor is stack_cells:
            for index, cell in enumerate(call.args):
                path = ("cells", str(index))
                yield from go(cell, _at(shapes, path), place.below(*path))
        elif planned.children and isinstance(part, Net):
            for name, child in planned.children.items():
                path = _parts(name)
                yield from self.parts(child, child.net, _at(shapes, path), place.below(*path))
        else:
            yield from self._entries(
                [same(path, path.partition("/")[2]) for path in _sizes(shapes)], part, shapes, place
            )

    def _mapped(self, planned: Plan, part: Any, shapes: Any) -> Sequence[Entry] | None:
        layer_map = self._library.maps.get(constructor_of(part))
        return layer_map(Layer(part.call, _sizes(shapes), planned.inputs)) if layer_map else None

    def _entries(self, entries: Sequence[Entry], part: Any, shapes: Any, place: _Place) -> Iterator[Move]:
        sizes, path = _sizes(shapes), "/".join(place.path)
        left = set(sizes)
        prefix = self._rename("/".join(place.numbered))
        if readable(part):
            self.readers.append(path)
        for entry in entries:
            if not set(entry.ours) <= set(sizes):
                continue
            left -= set(entry.ours)
            if path in self._images:
                entry = reordered(entry, part, self._images[path], path or repr(part))
            refs = tuple(Ref(_path_in(place.path, ours), place.blocks) for ours in entry.ours)
            yield Move(refs, tuple(f"{prefix}/{name}".strip("/") for name in entry.theirs), entry.to, entry.back)
        if left:
            raise ConvertError(f"{path} = {part!r}: no map of {sorted(left)}")


_COMBINATORS = {repeat, ensemble, cast, frozen, remat, rnn, spectral_norm, bidirectional, stack_cells}


def _images(task: Task, planned: Plan, library: Library) -> Mapping[str, Axes]:
    if not library.channels_first:
        return {}
    if task.flattened is None:
        return seen(task.net, planned)
    walk = _Walk(library, lambda path: path, {})
    list(walk.parts(planned, task.net, _shapes(planned), _Place((), (), ())))
    return chosen(task.flattened, walk.readers, repr(task.net))


def _shapes(planned: Plan) -> dict[str, Any]:
    return dict(zip(("params", "state"), planned.shapes, strict=True))


def _sizes(shapes: Any) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in paths_of(shapes).items() if hasattr(leaf, "shape")}


def _first(leaf: Any) -> jax.ShapeDtypeStruct:
    """One block of a stacked array."""
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _path_in(path: Path, leaf: str) -> str:
    """`params/w` of the layer at `a/b` is `params/a/b/w`."""
    collection, _, name = leaf.partition("/")
    return "/".join(filter(None, (collection, *path, name)))


def _parts(path: str) -> Path:
    return tuple(filter(None, path.split("/")))


def _at(shapes: Any, path: Path) -> Any:
    """The same part of parameters and state."""

    def walk(tree: Any) -> Any:
        for name in path:
            tree = (tree[int(name)] if int(name) < len(tree) else {}) if isinstance(tree, list) else tree.get(name, {})
        return tree

    return {collection: walk(tree) for collection, tree in shapes.items()}
