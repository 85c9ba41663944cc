"""What the parts of a network are called elsewhere."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from ..._patterns import listed
from ._entry import ConvertError

Names = Mapping[str, str] | Callable[[str], str] | None


class Renaming:
    """A function of our paths, that notes which patterns have matched.

    Args:
      names: patterns of paths or of their beginnings, and what replaces them; or a function.
    """

    def __init__(self, names: Names):
        self._names = names
        self._patterns = sorted(names, key=lambda name: -len(name.split("/"))) if isinstance(names, Mapping) else []
        self._paths: list[str] = []
        self._matched: set[str] = set()

    def __call__(self, path: str) -> str:
        """The path there."""
        self._paths.append(path)
        if not isinstance(self._names, Mapping):
            return self._names(path) if self._names is not None else path
        matched = [pattern for pattern in self._patterns if _begins(path, pattern)]
        self._matched.update(matched)
        return _replaced(path, matched[0], self._names[matched[0]]) if matched else path

    def check(self, what: str) -> None:
        """Refuses patterns that have matched no path.

        Raises:
          ConvertError: with the paths, close ones first.
        """
        for pattern in self._patterns:
            if pattern not in self._matched:
                paths = listed(dict.fromkeys(self._paths), pattern)
                raise ConvertError(f"{what}, names: expected a pattern that matches a path, got {pattern!r}. {paths}")


def _begins(path: str, pattern: str) -> bool:
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) >= len(wanted) and all(map(fnmatchcase, names, wanted))


def _replaced(path: str, pattern: str, theirs: str) -> str:
    """The path with its beginning replaced, a `*` there by what stands at the `*` here."""
    names, wanted = path.split("/"), pattern.split("/")
    stars = iter([name for name, want in zip(names, wanted, strict=False) if want == "*"])
    renamed = [next(stars) if name == "*" else name for name in theirs.split("/")]
    return "/".join(filter(None, (*renamed, *names[len(wanted) :])))
