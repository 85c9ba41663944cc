"""Where the state of a chain lies: as the parameters that it is kept for."""

from typing import Any

import jax

Path = tuple[Any, ...]


def following(opt_state: Any, params: Any, placed: Any, whole: Any) -> Any:
    """A value for each array of a chain's state: its parameter's, if the array has the parameter's path and shape.

    The parameter's path stands somewhere in that of the array, as `('w',)` in `[0].mu['w']` and in
    `['fast'].inner_state[0].mu['w'].values`; or its names in their order, where each player has a state of its own.

    Args:
      opt_state: of any chain.
      params: arrays.
      placed: a value for each parameter, in their structure.
      whole: the value for all else.
    Returns:
      The structure of `opt_state`, of values.
    """
    paths, values = jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(placed)
    known = {path: (tuple(leaf.shape), value) for (path, leaf), value in zip(paths, values, strict=True)}
    longest = max(map(len, known), default=0)

    def value(path: Path, leaf: Any) -> Any:
        found = _within(path, known, longest) or _scattered(path, tuple(leaf.shape), known)
        return found[1] if found and found[0] == tuple(leaf.shape) else whole

    return jax.tree_util.tree_map_with_path(value, opt_state)


def _within(path: Path, known: dict[Path, Any], longest: int) -> Any:
    """What is known of the longest path that stands in another, of equally long ones of the last."""
    for size in range(min(longest, len(path)), -1, -1):
        for start in range(len(path) - size, -1, -1):
            if path[start : start + size] in known:
                return known[path[start : start + size]]
    return None


def _scattered(path: Path, shape: tuple[int, ...], known: dict[Path, Any]) -> Any:
    """What is known of the longest path of an array of this shape whose names stand in another, in their order."""
    fitting = [own for own, (size, _) in known.items() if size == shape and len(own) > 1 and _in_order(own, path)]
    return known[max(fitting, key=len)] if fitting else None


def _in_order(own: Path, path: Path) -> bool:
    rest = iter(path)
    return all(name in rest for name in own)
