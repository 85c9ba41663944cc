"""Directories that are known to be whole: a list of SHA-256 sums, written last, seals them."""

import hashlib
import os
import shutil
from pathlib import Path

SEAL = "SHA256SUMS"


def seal(directory: Path) -> None:
    """Makes a directory whole: from here on it counts, and a change of any bit will be seen.

    All of it is on the disk before. The list is one that `sha256sum -c SHA256SUMS` reads.
    """
    for path in directory.rglob("*"):
        _settle(path)
    _settle(directory)
    write_whole(directory / SEAL, _listed(_sums(directory)))
    _settle(directory.parent)


def is_sealed(directory: Path) -> bool:
    """Whether a directory was sealed; of one that was not, as of one that a kill cut short, nothing is to be read."""
    return (directory / SEAL).is_file()


def damage(directory: Path) -> str | None:
    """What is not as it was when a directory was sealed, in words; None if all is."""
    try:
        found, listed = _sums(directory), (directory / SEAL).read_bytes()
    except OSError as error:
        return str(error)
    if listed == _listed(found):
        return None
    rows = (line.partition("  ") for line in listed.decode("utf-8", "replace").split("\n") if line)
    sums = {name: digest for digest, _, name in rows}
    changed = {name for name, digest in found.items() if sums.get(name, digest) != digest}
    kinds = {"lost": sums.keys() - found.keys(), "added": found.keys() - sums.keys(), "changed": changed}
    words = [f"{name} {kind}" for kind, names in kinds.items() for name in sorted(names)] or [f"{SEAL} changed"]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if words[3:] else "")


def remove(directory: Path) -> None:
    """Removes a directory; if that is cut short, what is left does not count."""
    (directory / SEAL).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is whole at every moment, after a loss of power too."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _settle(path.parent)


def _settle(path: Path) -> None:
    """Has a file, or the names in a directory, written to the disk, where it can be opened for that."""
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sums(directory: Path) -> dict[str, str]:
    """The SHA-256 sum of every file by its path, in order."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / SEAL)
    return {path.relative_to(directory).as_posix(): _sum(path) for path in paths}


def _listed(sums: dict[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
