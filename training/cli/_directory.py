"""Run directories: what a run leaves, and what it is taken up from."""

import contextlib
import datetime
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from .._checkpoints import AllDamagedError, Checkpoints
from .._keeping import HALF_A_MINUTE
from .._logs import Log, csv_log, json_log, logs
from .._sealed import write_whole
from .._stored import load_orbax
from ._config import ConfigError, write

CONFIG, CHECKPOINTS = "config.toml", "checkpoints"
Opened = Callable[[Path, Any, str], contextlib.AbstractContextManager["RunDirectory"]]


class RunError(RuntimeError):
    """A run that had to stop; what it had is in its directory."""


class RunDirectory:
    """Where a run leaves its config, metrics, parameters and pictures, and its checkpoints until it has ended.

    Args:
      path: the directory.
      every: time between two checkpoints.
    """

    def __init__(self, path: Path, every: datetime.timedelta = HALF_A_MINUTE):
        self.path, self.every = path, every
        self._log = self._new_log()
        self._lock: BinaryIO | None = None

    def contents(self) -> str:
        """The names of the first files, for messages."""
        names = sorted(entry.name for entry in self.path.iterdir())
        return ", ".join([*names[:6], *(["..."] if names[6:] else [])])

    def checkpoints(self, part: str = "") -> Checkpoints:
        """Those of a part of the run, which is taken up by itself."""
        return Checkpoints(self.path / CHECKPOINTS / part, keep=2)

    def log_again(self, rows: Iterable[Mapping[str, float | str]]) -> None:
        """Leaves these rows, of checkpoints, as the only ones: later ones will come again."""
        for name in ("metrics.csv", "metrics.jsonl"):
            (self.path / name).unlink(missing_ok=True)
        (self.path / "metrics.jsonl").touch()
        self._log = self._new_log()
        for row in rows:
            self.log(row)

    def log(self, row: Mapping[str, float | str]) -> None:
        """Adds a row to `metrics.csv` and `metrics.jsonl`."""
        self._log.write(row)

    def _new_log(self) -> Log:
        return logs(csv_log(self.path / "metrics.csv"), json_log(self.path / "metrics.jsonl"))

    def save_params(self, params: Any, state: Any) -> None:
        """Leaves the parameters as `params.npz`, arrays by path, and state under `state/`.

        The file is whole at every moment, after a loss of power too.
        """
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, **by_path(params), **by_path({"state": state}))
        write_whole(self.path / "params.npz", held.getvalue())

    def lock(self) -> None:
        """Keeps other processes from this run, as long as this one lives.

        Raises:
          ConfigError: if another is at it.
        """
        try:
            import fcntl
        except ImportError:  # not on this system
            return
        self._lock = (self.path / CHECKPOINTS / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.unlock()
            raise ConfigError(f"{self.path}: expected a run that no process is at, got one that is under way") from None

    def unlock(self) -> None:
        """Lets others have it."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def end(self) -> None:
        """Removes the checkpoints: a run without them has ended."""
        aside = self.path / f".{CHECKPOINTS}"
        shutil.rmtree(aside, ignore_errors=True)
        (self.path / CHECKPOINTS).rename(aside)  # at once, so that what a kill leaves of them is never taken for them
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def new_directory(
    path: Path, files: Mapping[str, str], *, every: datetime.timedelta = HALF_A_MINUTE
) -> Iterator[RunDirectory]:
    """A new directory with some files; what ends a run before its time is noted what it leaves there.

    Raises:
      ConfigError: if it cannot be written, or holds another run.
    """
    _check_orbax()
    run = RunDirectory(path, every)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if held := run.contents():
            raise ConfigError(
                f"{path}: expected a new or empty directory, got one that holds {held}. Give another by --out"
            )
        (path / CHECKPOINTS).mkdir()
        run.lock()
        for name, text in files.items():
            (path / name).write_text(text, encoding="utf-8")
    except OSError as error:
        found = "a file" if os.path.exists(path) and not os.path.isdir(path) else f"'{error.strerror}'"
        raise ConfigError(f"{path}: expected a directory that can be written, got {found}") from None
    with _under_way(run):
        yield run


@contextlib.contextmanager
def old_directory(
    path: Path, files: Mapping[str, str], *, every: datetime.timedelta = HALF_A_MINUTE
) -> Iterator[RunDirectory]:
    """The directory of what was stopped, with the files that it has.

    Raises:
      ConfigError: if another process is at it.
    """
    _check_orbax()
    run = RunDirectory(path, every)
    run.lock()
    with _under_way(run):
        yield run


def new_run(
    path: Path, experiment: Any, title: str, *, every: datetime.timedelta = HALF_A_MINUTE
) -> contextlib.AbstractContextManager[RunDirectory]:
    """A new run directory with its config, as `new_directory`."""
    return new_directory(path, {"metrics.jsonl": "", CONFIG: f"{_header(title)}\n\n{write(experiment)}"}, every=every)


def old_run(
    path: Path, experiment: Any, title: str, *, every: datetime.timedelta = HALF_A_MINUTE
) -> contextlib.AbstractContextManager[RunDirectory]:
    """The directory of a run that was stopped, as `old_directory`."""
    return old_directory(path, {}, every=every)


def config_of(path: Path, *, ended: bool = False) -> tuple[Path, str]:
    """The config of a run that was stopped, or that may have ended, and its title.

    Raises:
      ConfigError: if there is no run in a directory, or one that has ended.
    """
    config = path / CONFIG
    if not config.is_file():
        found = "one without config.toml" if path.is_dir() else "a file" if path.exists() else "none of that name"
        raise ConfigError(f"{path}: expected the directory of a run, got {found}")
    if not ended and not (path / CHECKPOINTS).is_dir():
        raise ConfigError(
            f"{path}: expected a run that was stopped, got one that has ended. renga train {config} makes it again"
        )
    with config.open(encoding="utf-8") as lines:
        first = lines.readline().rstrip("\n")
    title = first.removeprefix("# ").removesuffix(", as it was run.")
    return config, title if first == _header(title) else path.name


def next_directory(root: Path, name: str) -> Path:
    """`root/name`, or the first of `root/name-2`, `root/name-3`, ... that does not exist."""
    path, number = root / name, 1
    while path.exists():
        number += 1
        path = root / f"{name}-{number}"
    return path


def by_path(tree: Any) -> dict[str, np.ndarray]:
    """Arrays of a tree as a flat dict, `{"conv1/w": array, ...}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


@contextlib.contextmanager
def _under_way(run: RunDirectory) -> Iterator[None]:
    try:
        yield
        run.end()
    except BaseException as error:
        error.add_note(f"{run.path} holds {run.contents()}")
        if not isinstance(error, RunError | ConfigError | AllDamagedError):
            error.add_note(f"renga resume {run.path} goes on")
        raise
    finally:
        run.unlock()


def _header(title: str) -> str:
    return f"# {title}, as it was run."


def _check_orbax() -> None:
    try:
        load_orbax()
    except ImportError as error:
        raise ConfigError(str(error).replace("checkpoint]", "cli]")) from None
