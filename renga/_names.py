"""Names for things that were given without one."""

from collections.abc import Container


def numbered(stem: str, taken: Container[str]) -> str:
    """The first of `stem`, `stem_1`, `stem_2`, ... that is not taken."""
    name, number = stem, 0
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name
