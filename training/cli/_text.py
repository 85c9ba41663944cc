"""Text to learn from that every Python brings along: the docstrings of the standard library."""

import ast
import functools
import hashlib
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from ._config import ConfigError

Named = TypeVar("Named")

MODULES = """
_collections_abc _pydecimal _pyio abc argparse ast asyncio base64 bdb bisect bz2 calendar cmd code codecs codeop
collections colorsys compileall concurrent configparser contextlib copy csv ctypes curses dataclasses datetime dbm
difflib dis doctest email enum filecmp fileinput fnmatch fractions ftplib functools getopt getpass gettext glob
graphlib gzip hashlib heapq hmac html http imaplib importlib inspect ipaddress json linecache locale logging lzma
mailbox mimetypes modulefinder multiprocessing netrc nturl2path numbers operator optparse os pathlib pdb pickle
pickletools pkgutil platform plistlib poplib posixpath pprint profile pstats pty py_compile pyclbr pydoc queue quopri
random re reprlib rlcompleter runpy sched secrets selectors shelve shlex shutil site smtplib socket socketserver sqlite3
ssl statistics string stringprep subprocess symtable sysconfig tabnanny tarfile tempfile textwrap threading timeit
tkinter tokenize tomllib trace traceback tracemalloc turtle types typing unittest urllib uuid venv warnings wave weakref
webbrowser wsgiref xml xmlrpc zipapp zipfile zipimport zoneinfo
""".split()  # noqa: SIM905 - a list of them takes pages
"""Modules and packages of every Python from 3.11 on."""

ALPHABET = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
"""The characters that a network knows: the end of a line and printable ASCII. Any other is read as "?"."""

VOCAB_SIZE = len(ALPHABET)

_IDS = np.full(128, ALPHABET.index("?"), np.int32)
_IDS[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(VOCAB_SIZE)


def encode(text: str) -> np.ndarray:
    r"""Places in the alphabet, `[characters]` of int32.

    >>> encode("a b\u00e9").tolist() == [ALPHABET.index(character) for character in "a b?"]
    True
    """
    return _IDS[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]


def decode(ids: Iterable[int]) -> str:
    r"""The text that `encode` read.

    >>> decode(encode("def f():\n    pass"))
    'def f():\n    pass'
    """
    return "".join(ALPHABET[each] for each in ids)


def docstrings(modules: Iterable[str], name: str, length: int | None = None) -> dict[str, list[str]]:
    """Docstrings of the standard library by file, each text once: in the first file that has it.

    The source is parsed, never run, so they depend on the version of Python and on nothing else. Tests are left out.

    Args:
      modules: of which modules and packages.
      name: of the data that are made of them, for messages.
      length: how many of a text's first characters are taken; all unless given.
    Returns:
      `{"email/message.py": [docstring, ...], ...}`, files in the order of their names and docstrings in that of the
      source. A module that this Python does not have, or that has no docstring, is left out.
    Raises:
      ConfigError: if there are none: some Pythons come without their source.
    """
    root, seen, found = Path(sysconfig.get_path("stdlib")), set(), {}
    for path in sorted(path for module in modules for path in _files(root, module)):
        texts = dict.fromkeys(text[:length] for text in _docstrings_in(path))  # each once, in their order
        new = [text for text in texts if text not in seen]
        seen.update(new)
        if new:
            found[path.relative_to(root).as_posix()] = new
    if not found:
        raise ConfigError(f"data.name: {name} needs the source of Python's standard library, got none in {root}")
    return found


def held_out(names: Iterable[Named], num: int, seed: int) -> tuple[list[Named], list[Named]]:
    """Names in two parts, those to train on and `num` that are held out, each in the order that they came in.

    Whose turn it is depends on the seed and the name alone, whatever other names there are.

    >>> held_out(["abc", "bdb", "cmd"], 1, seed=0)
    (['abc', 'cmd'], ['bdb'])
    """
    names = list(names)
    chosen = set(sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:num])
    return [name for name in names if name not in chosen], [name for name in names if name in chosen]


def _files(root: Path, module: str) -> Iterator[Path]:
    if (root / f"{module}.py").is_file():
        yield root / f"{module}.py"
    for path in (root / module).rglob("*.py"):
        if not {"test", "tests"} & set(path.relative_to(root).parts):
            yield path


@functools.cache
def _docstrings_in(path: Path) -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of backslashes in the source that mean nothing
        tree = ast.parse(path.read_bytes())
    found = {
        getattr(node, "lineno", 0): ast.get_docstring(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return tuple(text for _, text in sorted(found.items()) if text)
