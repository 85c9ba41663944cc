"""Parameters by path: the flat form of nested parameters."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax

from .._patterns import Path, split


def flatten_params(params: Any) -> dict[str, Any]:
    """Nested parameters as one flat dict, `{"block/attn/q/w": array}`.

    Args:
      params: nested dicts and lists of arrays.
    Returns:
      The arrays by path; positions of a list are integers, as in `layers/0/w`. An empty dict or list inside, a layer
      of a list that has no parameters, stands under its path too, so that nothing is lost.
    Raises:
      TypeError: for other containers, and names that are not strings or have a slash.

    >>> flatten_params({"head": {"w": 1.0}, "layers": [{"b": 2.0}, {}]})
    {'head/w': 1.0, 'layers/0/b': 2.0, 'layers/1': {}}
    """
    return dict(entries(params, "flatten_params"))


def unflatten_params(flat: dict[str, Any], like: Any = None) -> Any:
    """Nested parameters from a flat dict: the inverse of `flatten_params`.

    Args:
      flat: arrays by path.
      like: nested parameters, in which names that are integers are told from positions of a list; needed only where
        there are such names.
    Returns:
      Nested dicts, and lists where names are integers, unless they are those of a dict in `like`.
    Raises:
      ValueError: if a path is part of another one, or a list has gaps.

    >>> unflatten_params({"head/w": 1.0, "layers/0/b": 2.0, "layers/1": {}})
    {'head': {'w': 1.0}, 'layers': [{'b': 2.0}, {}]}
    """
    return nested(flat, numbered_dicts(like))


def paths_of(tree: Any) -> dict[str, Any]:
    """The arrays of nested dicts and lists, by path."""
    return {path: leaf for path, leaf in entries(tree, "paths_of") if not is_empty(leaf)}


def entries(tree: Any, what: str, path: Path = ()) -> Iterator[tuple[str, Any]]:
    """Arrays, and empty containers inside others, by path."""
    if type(tree) not in (dict, list) and not jax.tree_util.all_leaves([tree]):
        raise TypeError(f"{what}: expected nested dicts and lists of arrays, got {type(tree).__name__}{at(path)}")
    if type(tree) not in (dict, list) or (not tree and (path or tree == [])):
        yield "/".join(path), tree
        return
    for name, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(tree, dict) and (not isinstance(name, str) or not name or "/" in name):
            raise TypeError(f"{what}: expected names that are strings without a slash, got {name!r}{at(path)}")
        yield from entries(item, what, (*path, str(name)))


def numbered_dicts(tree: Any, path: Path = ()) -> set[str]:
    """The paths of dicts whose names are integers, as positions of a list are."""
    if not isinstance(tree, dict | list):
        return set()
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    inside = (numbered_dicts(item, (*path, str(name))) for name, item in items)
    own = {"/".join(path)} if isinstance(tree, dict) and _numbered(tree) else set()
    return own.union(*inside)


def nested(flat: Mapping[str, Any], dicts: Collection[str] = ()) -> Any:
    """Nested parameters from a flat dict; at `dicts`, integers are names."""
    return _nested([(split(path), leaf) for path, leaf in flat.items()], "", dicts)


def _nested(flat: list[tuple[Path, Any]], path: str, dicts: Collection[str]) -> Any:
    if len(flat) == 1 and not flat[0][0]:
        return flat[0][1]
    groups: dict[str, list[tuple[Path, Any]]] = {}
    for names, leaf in flat:
        if not names:
            raise ValueError(f"unflatten_params: expected paths of which none is part of another, got {path!r} as one")
        groups.setdefault(names[0], []).append((names[1:], leaf))
    tree = {name: _nested(group, join(path, name), dicts) for name, group in groups.items()}
    if path in dicts or not _numbered(tree):
        return tree
    if set(tree) != {str(index) for index in range(len(tree))}:
        wanted = f"the positions 0 to {len(tree) - 1}{at(split(path))}"
        hint = "Names that are integers are told from positions by like=."
        raise ValueError(f"unflatten_params: expected {wanted}, got {sorted(tree)}. {hint}")
    return [tree[str(index)] for index in range(len(tree))]


def _numbered(tree: Mapping[str, Any]) -> bool:
    return bool(tree) and all(name.isdecimal() for name in tree)


def is_empty(tree: Any) -> bool:
    """Whether it is a dict or list without entries."""
    return isinstance(tree, dict | list) and not tree


def join(path: str, name: str) -> str:
    """The path of an entry."""
    return f"{path}/{name}" if path else name


def at(path: Path) -> str:
    """Where, in words; nothing at the root."""
    return f" at {'/'.join(path)!r}" if path else ""
