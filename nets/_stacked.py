"""Parameters of `repeat` and `ensemble` as a list, and back, without loss."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._names import numbered
from ._errors import shape_of


def stack(trees: Sequence[Any] | Mapping[str, Any]) -> Any:
    """Parameters (or states) of equal networks, stacked as `repeat` and `ensemble` hold them.

    Args:
      trees: one tree of arrays for each network; or a dict of them named as `serial` names equal blocks,
        `block`, `block_1`, `block_2` and so on, in the order of these numbers.
    Returns:
      One tree, each array with a leading axis over the trees.
    Raises:
      ValueError: if there are none, or they differ in structure, shapes or dtypes.

    >>> stack([{"w": jnp.zeros(3)}, {"w": jnp.ones(3)}])["w"].shape
    (2, 3)
    """
    if isinstance(trees, Mapping):
        trees = [trees[name] for name in sorted(trees, key=_number)]
    trees = list(trees)
    if not trees:
        raise ValueError("stack: expected at least one tree, got none")
    for index, tree in enumerate(trees):
        if _kinds(tree) != _kinds(trees[0]):
            raise ValueError(
                f"stack: expected {index} to be like 0, {_shown(trees[0], tree)}, got {_shown(tree, trees[0])}"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any, name: str | None = None) -> Any:
    """Parameters (or states) of `repeat` or `ensemble`, one tree for each block or member.

    Args:
      tree: a tree of arrays with one leading axis of the same size.
      name: of the block; gives a dict named as `serial` names equal blocks, in place of a list.
    Returns:
      A list of trees, `stack(unstack(tree))` equal to `tree`; or a dict of them.
    Raises:
      ValueError: if the arrays have no leading axis in common.

    >>> blocks = unstack({"w": jnp.arange(6.0).reshape(2, 3)}, name="linear")
    >>> {name: block["w"].tolist() for name, block in blocks.items()}
    {'linear': [0.0, 1.0, 2.0], 'linear_1': [3.0, 4.0, 5.0]}
    """
    leaves, structure = jax.tree.flatten(tree)
    sizes = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(f"unstack: expected arrays with one leading axis in common, got {shape_of(tree)}")
    ((size,),) = sizes
    parts = [jax.tree.unflatten(structure, [leaf[index] for leaf in leaves]) for index in range(size)]
    if name is None:
        return parts
    named: dict[str, Any] = {}
    for part in parts:
        named[numbered(name, named)] = part
    return named


def _number(name: str) -> tuple[str, int]:
    """`block_10` comes after `block_2`, and `block` before both."""
    stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return stem, int(number or 0)


def _kinds(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]


def _shown(tree: Any, other: Any) -> str:
    """Shapes in words; with the dtypes, where two trees differ in nothing else."""
    if shape_of(tree) != shape_of(other):
        return shape_of(tree)
    return str(jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", tree)).replace("'", "")
