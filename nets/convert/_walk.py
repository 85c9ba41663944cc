"""From a network to the list of its arrays, here and elsewhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core import Options, Plan, plan
from .._net import Net
from .._paths import paths_of
from .._rnn import bidirectional, rnn
from .._stack import ensemble, repeat
from .._stack_cells import stack_cells
from .._weight_norm import spectral_norm
from .._wrap import cast, frozen, remat
from ._entry import Arrays, Layer, LayerMap, same

Names = Mapping[str, str] | Callable[[str], str] | None
Path = tuple[str, ...]


class ConvertError(ValueError):
    """Weights that do not fit a network: the message lists all that is missing, extra or of another shape."""


class Library(NamedTuple):
    """How another library names and lays out parameters.

    Attributes:
      name: of the library.
      maps: of layers, by constructor. A layer without one keeps its names and layouts.
      cells: the path from a network that runs a cell to the cell's own arrays, by constructor and part.
      separator: what stands between the parts of a name there.
    """

    name: str
    maps: Mapping[Any, LayerMap]
    cells: Mapping[tuple[Any, str], str]
    separator: str = "/"

    def shown(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays by the names that its users know."""
        return {name.replace("/", self.separator): array for name, array in arrays.items()}


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


def to_other(net: Net, variables: Any, inputs: tuple, library: Library, names: Names) -> dict[str, np.ndarray]:
    """All arrays by name as the other library has them; names are paths with slashes.

    Raises:
      ConvertError: if the variables are not those of the network.
    """
    shapes, moves = _moves(net, inputs, library, names)
    params, state = variables if net.core.stateful else (variables, {})
    arrays = paths_of({"params": params, "state": state})
    ours = {path: np.asarray(leaf) for path, leaf in arrays.items() if hasattr(leaf, "shape")}
    _check(f"{net!r}, our own arrays", {path: leaf.shape for path, leaf in paths_of(shapes).items()}, ours)
    found: dict[str, np.ndarray] = {}
    for move in moves:
        found |= zip(move.theirs, move.to(*(ours[ref.path][ref.blocks] for ref in move.ours)), strict=True)
    return found


def from_other(net: Net, given: Mapping[str, Any], inputs: tuple, library: Library, names: Names) -> Any:
    """What `init` would make, filled with the other library's arrays.

    Raises:
      ConvertError: if any array is missing, is of another shape, or belongs nowhere.
    """
    shapes, moves = _moves(net, inputs, library, names)
    ours = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in paths_of(shapes).items()}
    theirs = {name: np.asarray(array) for name, array in given.items()}
    expected: dict[str, tuple[int, ...]] = {}
    for move in moves:
        blank = (np.broadcast_to(np.float32(0), ours[ref.path][ref.blocks].shape) for ref in move.ours)
        expected |= zip(move.theirs, (array.shape for array in move.to(*blank)), strict=True)
    _check(f"{net!r}, from {library.name}", library.shown(expected), library.shown(theirs))
    for move in moves:
        for ref, array in zip(move.ours, move.back(*(theirs[name] for name in move.theirs)), strict=True):
            ours[ref.path][ref.blocks] = array
    leaves = iter(ours.values())
    made = _fill(shapes, leaves)
    return (made["params"], made["state"]) if net.core.stateful else made["params"]


def _fill(shapes: Any, leaves: Iterator[np.ndarray]) -> Any:
    """The tree of shapes with arrays in the order in which `paths_of` lists them."""
    if isinstance(shapes, dict):
        return {name: _fill(item, leaves) for name, item in shapes.items()}
    if isinstance(shapes, list):
        return [_fill(item, leaves) for item in shapes]
    return jnp.asarray(next(leaves))


def _check(what: str, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]) -> None:
    wrong = [f"missing {name} {expected[name]}" for name in expected if name not in given]
    wrong += [f"extra {name} {np.shape(given[name])}" for name in given if name not in expected]
    wrong += [
        f"{name}: expected {expected[name]}, got {np.shape(given[name])}"
        for name in expected
        if name in given and np.shape(given[name]) != expected[name]
    ]
    if wrong:
        raise ConvertError(f"{what}: {len(wrong)} arrays do not fit:\n  " + "\n  ".join(wrong))


def _moves(net: Net, inputs: tuple, library: Library, names: Names) -> tuple[Any, list[Move]]:
    planned = plan(net, inputs, Options())
    params, state = planned.shapes
    shapes = {"params": params, "state": state}
    place = _Place((), (), ())
    moves = list(_walk(planned, net, shapes, place, library, _renaming(names)))
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


def _walk(
    planned: Plan, part: Any, shapes: Any, place: _Place, library: Library, rename: Callable[[str], str]
) -> Iterator[Move]:
    """The moves of `part`, a network or cell that `planned` is the plan of, or that is inside it at the same path."""
    if not jax.tree.leaves(shapes):
        return
    go = lambda part, shapes, place: _walk(planned, part, shapes, place, library, rename)  # noqa: E731
    call: Any = part.call
    constructor = getattr(call, "function", None)
    if constructor in library.maps:
        yield from _entries(library.maps[constructor], planned, part, shapes, place, rename)
    elif constructor in (repeat, ensemble):
        num, within = call.args[1], jax.tree.map(lambda leaf: jnp.empty(leaf.shape[1:]), shapes)
        for number in range(num):
            yield from go(call.args[0], within, place.block(number))
    elif constructor in (cast, frozen, remat, rnn):
        below = library.cells.get((constructor, ""), "")
        yield from go(call.args[0], shapes, place._replace(numbered=(*place.numbered, *_parts(below))))
    elif constructor is spectral_norm and "net" not in shapes["state"]:
        yield from go(call.args[0], {**shapes, "state": {}}, place)
    elif constructor is bidirectional:
        forward, backward = (*call.args, call.kwargs.get("backward", call.args[0]))[:2]
        for name, cell in (("forward", forward), ("backward", backward)):
            numbered = (*place.numbered, *_parts(library.cells.get((bidirectional, name), name)))
            yield from go(cell, _at(shapes, (name,)), place.below(name)._replace(numbered=numbered))
    elif constructor is stack_cells:
        for index, cell in enumerate(call.args):
            path = ("cells", str(index))
            yield from go(cell, _at(shapes, path), place.below(*path))
    elif planned.children and isinstance(part, Net):
        for name, child in planned.children.items():
            path = tuple(name.split("/"))
            yield from _walk(child, child.net, _at(shapes, path), place.below(*path), library, rename)
    else:
        yield from _entries(_own_names, planned, part, shapes, place, rename)


def _own_names(layer: Layer) -> list:
    return [same(path, path.partition("/")[2]) for path in layer.shapes]


def _entries(
    layer_map: LayerMap, planned: Plan, part: Any, shapes: Any, place: _Place, rename: Callable[[str], str]
) -> Iterator[Move]:
    sizes = {path: tuple(leaf.shape) for path, leaf in paths_of(shapes).items() if hasattr(leaf, "shape")}
    left = set(sizes)
    prefix = rename("/".join(place.numbered))
    for entry in layer_map(Layer(part.call, sizes, planned.inputs)):
        if not set(entry.ours) <= set(sizes):
            continue
        left -= set(entry.ours)
        refs = tuple(Ref(_path_in(place.path, path), place.blocks) for path in entry.ours)
        yield Move(refs, tuple(f"{prefix}/{name}".strip("/") for name in entry.theirs), entry.to, entry.back)
    if left:
        raise ConvertError(f"{'/'.join(place.path)} = {part!r}: no map of {sorted(left)}")


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


def _renaming(names: Names) -> Callable[[str], str]:
    if names is None:
        return lambda path: path
    if not isinstance(names, Mapping):
        return names
    patterns = sorted(names, key=lambda pattern: -len(pattern.split("/")))

    def rename(path: str) -> str:
        parts = path.split("/")
        for pattern in patterns:
            wanted = pattern.split("/")
            head = parts[: len(wanted)]
            if len(head) == len(wanted) and all(map(fnmatchcase, head, wanted)):
                stars = iter([name for name, want in zip(head, wanted, strict=True) if want == "*"])
                renamed = [next(stars) if name == "*" else name for name in names[pattern].split("/")]
                return "/".join(filter(None, (*renamed, *parts[len(wanted) :])))
        return path

    return rename
