"""The one language of patterns, in which parameters are chosen by path."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

Path = tuple[str, ...]


def matching(paths: Iterable[str], patterns: Sequence[str], what: str) -> set[str]:
    """The paths that match a pattern.

    Args:
      paths: names joined by slashes.
      patterns: the same with `*` and `?` for letters of one name, and `**` for any number of names.
      what: who asks, as the error begins.
    Raises:
      ValueError: for a pattern that matches none, with the paths, close ones first.
    """
    paths, found = list(paths), set[str]()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{what}: expected a pattern of paths, such as '**/w', got {pattern!r}")
        matched = {path for path in paths if _fits(split(path), split(pattern))}
        if not matched:
            raise ValueError(
                f"{what}: expected a pattern that matches a path, got {pattern!r}. {listed(paths, pattern)}"
            )
        found |= matched
    return found


def listed(paths: Iterable[str], wanted: str, most: int = 12) -> str:
    """The paths in words, those close to `wanted` first."""

    def closeness(path: str) -> float:
        return difflib.SequenceMatcher(None, wanted.replace("*", ""), path, autojunk=False).ratio()

    paths = sorted(paths, key=closeness, reverse=True)
    more = f", and {len(paths) - most} more" if len(paths) > most else ""
    return f"There are {', '.join(map(repr, paths[:most]))}{more}." if paths else "There are none."


def split(path: str) -> Path:
    """The names of a path."""
    return tuple(path.split("/")) if path else ()


def _fits(names: Path, wanted: Path) -> bool:
    if not wanted:
        return not names
    if wanted[0] == "**":
        return any(_fits(names[start:], wanted[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], wanted[0]) and _fits(names[1:], wanted[1:])
