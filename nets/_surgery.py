"""Surgery on parameters: parts taken out, moved, sliced, and fitted to another network's shapes."""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._patterns import listed
from ._compare import Comparison, compare
from ._paths import flatten_params, nested, numbered_dicts, unflatten_params


def params_at(params: Any, path: str) -> Any:
    """The part of nested parameters that stands at a path.

    Args:
      params: nested dicts and lists of arrays.
      path: such as `"encoder/layers/0"`; positions of a list are integers.
    Returns:
      What stands there, an array or a tree of them, as it is.
    Raises:
      ValueError: if nothing does, with the paths that there are, close ones first.

    >>> params_at({"layers": [{"w": 1.0}, {"w": 2.0}]}, "layers/1")
    {'w': 2.0}
    """
    _check_path("params_at", params, path)
    for name in path.split("/"):
        params = params[int(name)] if isinstance(params, list) else params[name]
    return params


def rename_params(params: Any, moves: Mapping[str, str]) -> Any:
    """Moves parts of nested parameters to other paths, all at once, so that two may change places.

    Args:
      params: nested dicts and lists of arrays.
      moves: from old paths, of arrays or of trees of them, to new ones.
    Returns:
      Nested parameters in which every moved part stands at its new path.
    Raises:
      ValueError: if nothing stands at an old path, one is part of another, or a new path is taken.

    >>> rename_params({"trunk": {"fc": {"w": 1.0}}, "out": 2.0}, {"trunk/fc": "head"})
    {'out': 2.0, 'head': {'w': 1.0}}
    """
    for old in moves:
        _check_path("rename_params", params, old)
        if inside := [other for other in moves if other != old and _below(other, old)]:
            raise ValueError(
                f"rename_params: expected paths of which none is part of another, got {old!r} and {inside}"
            )
    flat, dicts = flatten_params(params), numbered_dicts(params)
    kept = {path: leaf for path, leaf in flat.items() if not any(_below(path, old) for old in moves)}
    for old, new in moves.items():
        if taken := [path for path in kept if _below(path, new) or _below(new, path)]:
            raise ValueError(
                f"rename_params: expected new paths that are free, got {new!r}. {taken[0]!r} stands there."
            )
        kept |= {new + path[len(old) :]: leaf for path, leaf in flat.items() if _below(path, old)}
    return nested(
        kept, dicts | {new + path[len(old) :] for old, new in moves.items() for path in dicts if _below(path, old)}
    )


def slice_params(params: Any, path: str, index: int | slice) -> Any:
    """Some of the blocks of stacked parameters, as those of `repeat` and `ensemble` are.

    Args:
      params: nested dicts and lists of arrays.
      path: where the stack stands; its arrays have a leading axis of one size.
      index: a slice of blocks, or one block, whose parameters then have no such axis.
    Returns:
      The parameters, with the arrays under `path` indexed.
    Raises:
      ValueError: if nothing stands at the path, or its arrays are no stack of so many.

    >>> params = {"repeat": {"w": jnp.ones((12, 3, 3))}, "head": jnp.ones(2)}
    >>> slice_params(params, "repeat", slice(0, 6))["repeat"]["w"].shape
    (6, 3, 3)
    >>> slice_params(params, "repeat", -1)["repeat"]["w"].shape
    (3, 3)
    """
    _check_path("slice_params", params, path)
    stack = params_at(params, path)
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in map(jnp.asarray, jax.tree.leaves(stack))}
    size = sizes.pop() if len(sizes) == 1 else 0
    wanted = range(size)[index] if isinstance(index, slice) else [index]
    if not size or not wanted or not all(-size <= operator.index(block) < size for block in wanted):
        shapes = {name: tuple(jnp.shape(leaf)) for name, leaf in flatten_params(stack).items()}
        raise ValueError(
            f"slice_params: expected arrays at {path!r} that are stacks with {index!r} in them, got {shapes}"
        )
    return _with(params, path.split("/"), jax.tree.map(lambda leaf: leaf[index], stack))


def resize_params(params: Any, initial: Any) -> tuple[Any, Comparison]:
    """Fits parameters to a wider, narrower, deeper or shallower network of the same paths.

    Each array is cut and grown to the shape that it has in `initial`: where the two overlap, from the first entry of
    every axis on, stand the values of `params`, and elsewhere those of `initial`.

    Args:
      params: nested dicts and lists of arrays.
      initial: the parameters that the other network's `init` made.
    Returns:
      `(resized, changes)`: parameters of the shapes and dtypes of `initial`, and how they differ from `params`.
    Raises:
      ValueError: if paths differ, or an array has another number of axes. Bring paths into line with `rename_params`,
        `partition_params` and `merge_params`.

    >>> resized, changes = resize_params({"w": jnp.ones((2, 2))}, {"w": jnp.zeros((2, 3))})
    >>> resized["w"].tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]
    >>> print(changes)
    path  differs  first           second
    ----  -------  --------------  --------------
    w     shape    float32 (2, 2)  float32 (2, 3)
    """
    old, new = flatten_params(params), flatten_params(initial)
    if set(old) != set(new):
        missing, extra = [path for path in new if path not in old], [path for path in old if path not in new]
        raise ValueError(f"resize_params: expected the paths of the initial parameters, got {missing=}, {extra=}")
    resized = unflatten_params({path: _overlaid(path, old[path], new[path]) for path in new}, like=initial)
    return resized, compare(params, resized)


def _overlaid(path: str, old: Any, new: Any) -> Any:
    if isinstance(new, dict | list):
        return new
    old, new = jnp.asarray(old), jnp.asarray(new)
    if old.ndim != new.ndim:
        raise ValueError(f"resize_params: expected {path!r} with {new.ndim} axes, got {tuple(old.shape)}")
    overlap = tuple(slice(min(sizes)) for sizes in zip(old.shape, new.shape, strict=True))
    return new.at[overlap].set(old[overlap].astype(new.dtype))


def _with(tree: Any, names: list[str], part: Any) -> Any:
    """The tree with another part at a path."""
    if not names:
        return part
    if isinstance(tree, list):
        return [_with(item, names[1:], part) if str(i) == names[0] else item for i, item in enumerate(tree)]
    return {name: _with(item, names[1:], part) if name == names[0] else item for name, item in tree.items()}


def _below(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent}/")


def _check_path(what: str, params: Any, path: str) -> None:
    if not isinstance(path, str):
        raise TypeError(f"{what}: expected a path, such as 'encoder/w', got {path!r}")
    paths = list(flatten_params(params))
    parts = {
        "/".join(names[:end]) for names in (entry.split("/") for entry in paths) for end in range(1, len(names) + 1)
    }
    if path not in parts:
        raise ValueError(f"{what}: expected a path of the parameters, got {path!r}. {listed(sorted(parts), path)}")
