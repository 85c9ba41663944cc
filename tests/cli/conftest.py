"""A command line to run in a folder of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from renga.training import cli


class Answer(NamedTuple):
    """What a command line ends with."""

    code: Any
    out: str
    err: str


@pytest.fixture
def renga(capfd, monkeypatch, tmp_path) -> Callable[..., Answer]:
    """Runs the words of a command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Answer:
        try:
            code = cli.main(words)
        except SystemExit as end:
            code = end.code
        return Answer(code, *capfd.readouterr())

    return run
