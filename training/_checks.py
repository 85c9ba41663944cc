"""What refusals have in common: counts out of range, and the names of places in a tree."""

from typing import Any

import jax


def check_count(name: str, argument: str, value: Any, *, at_least: int) -> None:
    """Refuses what is no integer of at least so much.

    Raises:
      ValueError: naming who asks, and the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name}: expected {argument} to be an integer of at least {at_least}, got {value!r}")


def path_of(path: Any) -> str:
    """A path of JAX's as its names joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_radius(name: str, argument: str, value: Any) -> None:
    """Refuses a negative radius, where it is a number of Python's.

    Raises:
      ValueError: naming who asks, and the argument.
    """
    if isinstance(value, int | float) and value < 0:
        raise ValueError(f"{name}: expected {argument} to be at least 0, got {value}")
