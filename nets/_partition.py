"""Parts of parameters, chosen by path, and put together again."""

from collections.abc import Callable
from typing import Any

from .._patterns import Path, matching, split
from ._paths import at, entries, is_empty, join


def mask_params(params: Any, *patterns: str) -> Any:
    """Which parameters a pattern matches, as a tree of booleans: what `optax.masked` takes.

    In a pattern, `*` and `?` stand for letters of one name and `**` for any number of names, none included.

    Args:
      params: nested dicts and lists of arrays.
      *patterns: such as `"**/b"` or `"encoder/**"`; a parameter is chosen by any.
    Returns:
      The same tree with True for those chosen, and False for others.
    Raises:
      ValueError: if a pattern matches nothing, with the paths.

    >>> mask_params({"head": {"w": 1.0, "b": 2.0}}, "**/b")
    {'head': {'w': False, 'b': True}}
    """
    chosen = _chosen("mask_params", params, patterns)
    return _mapped(lambda path, leaf: path in chosen, params)


def partition_params(params: Any, *patterns: str) -> tuple[Any, Any]:
    """Splits parameters in two: those that a pattern matches, and the rest.

    Either part is a tree of parameters like any other, so one may train one part and keep the other as it is:

    >>> params = {"body": {"w": 3.0}, "head": {"w": 5.0, "b": 1.0}}
    >>> chosen, rest = partition_params(params, "head/**")
    >>> chosen, rest
    ({'head': {'w': 5.0, 'b': 1.0}}, {'body': {'w': 3.0}})
    >>> def loss_fn(chosen):
    ...     params = merge_params(chosen, rest)
    ...     return params["body"]["w"] * params["head"]["w"] + params["head"]["b"]
    >>> jax.tree.map(float, jax.grad(loss_fn)(chosen))
    {'head': {'b': 1.0, 'w': 3.0}}

    Args:
      params: nested dicts and lists of arrays.
      *patterns: as for `mask_params`.
    Returns:
      `(chosen, rest)`. What is not in a part leaves no entry in a dict, and `{}` in a list, whose other positions stay.
    Raises:
      ValueError: if a pattern matches nothing, with the paths.
    """
    chosen = _chosen("partition_params", params, patterns)
    return _part(params, chosen.__contains__), _part(params, lambda path: path not in chosen)


def merge_params(*parts: Any) -> Any:
    """Parameters from parts that have no path in common: the inverse of `partition_params`.

    Args:
      *parts: nested dicts and lists of arrays.
    Returns:
      One tree with the arrays of all.
    Raises:
      ValueError: if two parts have the same path, or lists of different lengths.

    >>> merge_params({"head": {"w": 1.0}}, {"head": {"b": 2.0}, "body": [{}, 3.0]}, {"body": [4.0, {}]})
    {'head': {'w': 1.0, 'b': 2.0}, 'body': [4.0, 3.0]}
    """
    return _merged(list(parts), "")


def _chosen(what: str, params: Any, patterns: tuple[str, ...]) -> set[str]:
    if not patterns:
        raise TypeError(f"{what}: expected patterns of paths, such as '**/w', got none")
    arrays = [path for path, leaf in entries(params, what) if not is_empty(leaf)]
    return matching(arrays, patterns, what)


def _mapped(function: Callable[[str, Any], Any], tree: Any, path: Path = ()) -> Any:
    if isinstance(tree, dict):
        return {name: _mapped(function, item, (*path, name)) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_mapped(function, item, (*path, str(index))) for index, item in enumerate(tree)]
    return function("/".join(path), tree)


def _part(tree: Any, keep: Callable[[str], bool], path: Path = ()) -> Any:
    """What is kept of a tree; `{}` if nothing is. Empty containers are kept as arrays are, by their path."""
    if not isinstance(tree, dict | list) or not tree:
        return tree if keep("/".join(path)) else {}
    if isinstance(tree, list):
        parts = [_part(item, keep, (*path, str(index))) for index, item in enumerate(tree)]
        return parts if _keeps_any(tree, keep, path) else {}
    parts = {name: _part(item, keep, (*path, name)) for name, item in tree.items()}
    return {name: part for name, part in parts.items() if _keeps_any(tree[name], keep, (*path, name))}


def _keeps_any(tree: Any, keep: Callable[[str], bool], path: Path) -> bool:
    return any(keep(entry) for entry, _ in entries(tree, "partition_params", path))


def _merged(parts: list[Any], path: str) -> Any:
    full = [part for part in parts if not is_empty(part)]
    if len(full) <= 1:
        return full[0] if full else next((part for part in parts if part == []), {})
    if all(isinstance(part, dict) for part in full):
        names = dict.fromkeys(name for part in full for name in part)
        return {name: _merged([part[name] for part in full if name in part], join(path, name)) for name in names}
    if all(isinstance(part, list) for part in full):
        if len({len(part) for part in full}) > 1:
            raise ValueError(
                f"merge_params: expected lists of one length{at(split(path))}, got {[len(p) for p in full]}"
            )
        return [_merged(list(items), join(path, str(index))) for index, items in enumerate(zip(*full, strict=True))]
    raise ValueError(f"merge_params: expected parts without a path in common, got {len(full)} with {path!r}")
