"""The parameters that a task adapts, chosen by path, and the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from .._patterns import matching
from ._checks import path_of


def part(name: str, params: Any, patterns: str | Sequence[str]) -> tuple[Any, Callable[[Any], Any]]:
    """The parameters whose paths match, with holes for the others; and the function that fills the holes.

    Args:
      name: who asks, as the error begins.
      params: all of them.
      patterns: of paths, such as `"head/**"`; `"**"` for all.
    Raises:
      ValueError: for a pattern that matches no path.
    """
    if patterns == "**":
        return params, lambda own: own
    paths = {path_of(path): None for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    chosen = matching(paths, (patterns,) if isinstance(patterns, str) else tuple(patterns), name)

    def only(mine: bool) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if (path_of(path) in chosen) == mine else optax.MaskedNode(), params
        )

    own, others = only(True), only(False)

    def whole(own: Any) -> Any:
        return jax.tree.map(
            lambda mine, other: other if isinstance(mine, optax.MaskedNode) else mine,
            own, others, is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )  # fmt: skip

    return own, whole
