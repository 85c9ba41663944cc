"""What is refused before a rollout is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import path_of


def check_arrays(name: str, trees: dict[str, Any]) -> None:
    """Refuses leaves that no array can hold.

    Raises:
      TypeError: with the first one's path.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
            raise TypeError(
                f"{name}: expected {path_of(path)} to be a pytree of arrays, got {type(leaf).__name__}. Register its "
                "class as a pytree, say with jax.tree_util.register_dataclass."
            )


def check_scalars(name: str, batch: tuple[int, ...], reward: Any, terminated: Any, truncated: Any) -> None:
    """Refuses rewards and ends that are not one for each environment.

    Raises:
      ValueError: with the shapes.
    """
    for what, given in {"reward": reward, "terminated": terminated, "truncated": truncated}.items():
        if given.shape != batch and not (what == "truncated" and given.shape == ()):
            raise ValueError(f"{name}: expected step_env to return {what} {list(batch)}, got {_words(given)}")
        if what != "reward" and not jnp.issubdtype(given.dtype, jnp.bool_):
            raise ValueError(f"{name}: expected {what} to be bool, got {_words(given)}")


def check_action(name: str, space: Any, action: Any, batch: tuple[int, ...]) -> None:
    """Refuses actions of another shape than those of the space, and numbers where it counts.

    Raises:
      ValueError: with both shapes.
    """
    if getattr(space, "shape", None) is None:
        return
    wanted = [*batch, *space.shape]
    if list(action.shape) != wanted:
        raise ValueError(f"{name}: expected the policy to return an action {wanted} of {space!r}, got {_words(action)}")
    if jnp.issubdtype(space.dtype, jnp.integer) and not jnp.issubdtype(action.dtype, jnp.integer):
        raise ValueError(f"{name}: expected the policy to return integers of {space!r}, got {_words(action)}")


def check_one(name: str, space: Any, action: Any) -> None:
    """Refuses several arrays, or one in a container, where the space is of one.

    Raises:
      ValueError: with what was given.
    """
    if getattr(space, "shape", None) is not None and not jax.tree_util.all_leaves([action]):
        shown = jax.tree.map(_words, action)
        raise ValueError(
            f"{name}: expected the policy to return one array of {space!r}, got {shown}. For what it returns beside an "
            "action there is has_aux=True."
        )


def check_pair(what: str, given: Any) -> Any:
    """A pair, or an error.

    Raises:
      TypeError: naming what it is of.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"rollout: expected the policy to return {what}, got {type(given).__name__}")
    return given


def check_carry(name: str, carry: Any, batch: tuple[int, ...]) -> None:
    """Refuses carries that do not begin with the batch axes of the environment.

    Raises:
      ValueError: with the first path.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path({"carry": carry}):
        if jnp.shape(leaf)[: len(batch)] != batch:
            raise ValueError(
                f"{name}: expected {path_of(path)} to begin with the axes of the environment, {list(batch)}, got "
                f"{_words(leaf)}. Let initial_carry take them from the observation."
            )


def check_same(name: str, what: str, before: Any, after: Any, who: str) -> None:
    """Refuses a tree that has changed its structure, a shape or a dtype.

    Raises:
      ValueError: with the first path that differs.
    """
    old, new = (
        {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (before, after)
    )
    for path in [*old, *(path for path in new if path not in old)]:
        wanted, given = (_words(tree[path]) if path in tree else "nothing" for tree in (old, new))
        if wanted != given:
            at = f"{what}/{path}" if path else what
            raise ValueError(f"{name}: expected {who} to return {at} as it was given, {wanted}, got {given}")
    if jax.tree.structure(before) != jax.tree.structure(after):
        was, now = (jax.tree.structure(tree) for tree in (before, after))
        raise ValueError(f"{name}: expected {who} to return {what} as it was given, {was}, got {now}")


def _words(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
