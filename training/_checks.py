"""Arguments out of range, refused by name."""

from typing import Any


def check_count(name: str, argument: str, value: Any, *, at_least: int) -> None:
    """Refuses what is no integer of at least so much.

    Raises:
      ValueError: naming who asks, and the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name}: expected {argument} to be an integer of at least {at_least}, got {value!r}")
