"""Checkpoints of a run: whole or not there, kept by number and by merit, written beside the run."""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from . import _sealed, _stored
from ._checks import check_count

RECORD, ARRAYS = "record.json", "arrays"
_NAME = re.compile(r"step_(\d+)(?:\.(\d+))?")


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written, or none that is whole where there should be one."""


class AllDamagedError(CheckpointError):
    """Checkpoints of which none is as it was saved: there is nothing to go on from."""


class CheckpointWarning(UserWarning):
    """A checkpoint that is not as it was saved; an earlier one is taken."""


class Saved(NamedTuple):
    """What is known of a checkpoint beside its arrays.

    Attributes:
      step: when it was saved.
      metrics: that were given with it.
      extra: whatever else was given with it.
    """

    step: int
    metrics: dict[str, float]
    extra: Any


class Checkpoints:
    """A directory of checkpoints of one run.

    A checkpoint is any pytree of arrays, numbers and random keys, of any dtype. `save` copies it, and writes it beside
    the run, by Orbax (the extra `checkpoint`). It counts from the moment that its list of SHA-256 sums is written, last
    of all: what a kill, a full disk or a loss of power cuts short was never there. Sums are compared before anything is
    restored; one that is damaged is set aside, with a warning, and the one before it taken.

    As a context it waits at the end for what is still being written. One run at a time may save; in one of several
    processes each calls `save` and `restore`, the first writes, and all read.

    Args:
      directory: where; made when first saved to.
      keep: how many of the last are kept.
      best: a metric and whether "min" or "max" is best, such as `("test_loss", "min")`: the best by it is kept too, of
        those that were saved with it. `fit` saves every report that is better than all before.
    Raises:
      ValueError: for a `keep` below 1, or a `best` that is no such pair.
      ImportError: if Orbax is missing.

    >>> import tempfile
    >>> train_state = init({"w": jnp.arange(3.0)}, optim.adam(1e-3), key=jax.random.key(0))
    >>> with Checkpoints(tempfile.mkdtemp(), keep=2) as checkpoints:
    ...     for step in (10, 20, 30):
    ...         checkpoints.save(step, train_state, {"loss": 1 / step})
    >>> checkpoints.steps, checkpoints.latest().step
    ((20, 30), 30)
    >>> checkpoints.restore(train_state).params["w"].tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(self, directory: str | Path, *, keep: int = 3, best: tuple[str, Literal["min", "max"]] | None = None):
        check_count("Checkpoints", "keep", keep, at_least=1)
        if best is not None and not (isinstance(best, tuple) and len(best) == 2 and best[1] in ("min", "max")):
            raise ValueError(
                f"Checkpoints: expected best to be a metric and 'min' or 'max', got {best!r}. "
                "Write best=('test_loss', 'min'), say."
            )
        _stored.load_orbax()
        self.directory, self.keep, self.best = Path(directory).absolute(), keep, best
        self._writer: threading.Thread | None = None
        self._error: CheckpointError | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that there are checkpoints of, in order; whether they are as they were saved is not looked at."""
        return tuple(sorted({step for step, _, _ in self._all()}))

    def save(self, step: int, tree: Any, metrics: dict[str, float] | None = None, *, extra: Any = None) -> None:
        """Saves a tree as it is now; on return it may change, while it is still being written.

        Args:
          step: of the run. One of the same step is replaced when this one is whole.
          tree: any pytree of arrays, numbers and random keys.
          metrics: numbers by name, for `best`.
          extra: what JSON can say.
        Raises:
          CheckpointError: if the one before this could not be written; the earlier ones are as they were.
          TypeError: for a leaf that is neither array nor number.
          ValueError: for a step below 0, or before the last one, which would be kept in its place.
        """
        check_count("Checkpoints.save", "step", step, at_least=0)
        record = {"step": step, "metrics": metrics or {}, "extra": extra, "leaves": _stored.leaves_of(tree)}
        text = json.dumps(record, default=float)
        self.wait()
        if step < (last := max(self.steps, default=0)):
            raise ValueError(
                f"Checkpoints.save: expected a step of at least {last}, the last in {self.directory}, got {step}. "
                "Give a run that goes back a directory of its own."
            )
        arrays = _stored.copied(tree)  # from all processes, so each has to ask
        if jax.process_index() == 0:
            self._writer = threading.Thread(target=self._write, args=(step, arrays, text), daemon=True)
            self._writer.start()

    def wait(self) -> None:
        """Waits for what is being written.

        Raises:
          CheckpointError: if it could not be.
        """
        if self._writer is not None:
            self._writer.join()
        self._writer, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def latest(self) -> Saved | None:
        """What is known of the last checkpoint that is as it was saved; None if nothing was ever saved.

        Warns:
          CheckpointWarning: for each later one that is damaged; it is set aside under another name.
        Raises:
          CheckpointError: if there are only damaged ones.
        """
        self.wait()
        aside = []
        for step, _, path in reversed(self._all()):
            if (found := _sealed.damage(path)) is None:
                for damaged in aside:
                    warnings.warn(f"{damaged}. Step {step} is taken.", CheckpointWarning, stacklevel=2)
                record = _record(path)
                return Saved(record["step"], record["metrics"], record["extra"])
            if _sealed.is_sealed(path):  # else another process has removed it meanwhile
                aside.append(_set_aside(path, found))
        damaged = sorted(path.name for path in self._found("*.damaged*"))
        if not damaged:
            return None
        raise AllDamagedError(
            f"checkpoints: expected one in {self.directory} that is as it was saved, got {', '.join(damaged)} only. "
            "Remove them to start anew."
        )

    def restore(self, like: Any, *, step: int | None = None) -> Any:
        """A checkpoint's tree.

        Args:
          like: a tree of the same structure, shapes and dtypes, such as the train state that a run starts with, or
            `jax.ShapeDtypeStruct`s. Arrays come back with the sharding of its leaves, as the kind of array that these
            are.
          step: which one; that of `latest` unless given.
        Returns:
          A tree such as `like`.
        Raises:
          CheckpointError: if there is none, or the one of that step is damaged.
          ValueError: if `like` has other arrays than were saved, naming them path by path.
        """
        if step is None:
            saved = self.latest()
            step = None if saved is None else saved.step
        self.wait()
        path = next((path for at, _, path in reversed(self._all()) if at == step), None)
        if path is None:
            wanted, steps = "one" if step is None else f"one of step {step}", ", ".join(map(str, self.steps))
            raise CheckpointError(
                f"checkpoints: expected {wanted} in {self.directory}, got {f'steps {steps}' if steps else 'none'}."
            )
        if (found := _sealed.damage(path)) is not None:
            raise CheckpointError(f"checkpoints: expected {path} as it was saved, got {found}. Take another step.")
        leaves = [_stored.Leaf(name, tuple(shape), dtype) for name, shape, dtype in _record(path)["leaves"]]
        _stored.check_same(path, leaves, _stored.leaves_of(like))
        return _stored.read(path / ARRAYS, like, leaves)

    def _write(self, step: int, arrays: _stored.Arrays, text: str) -> None:
        before = [number for at, number, _ in self._all() if at == step]
        path = self.directory / (f"step_{step}.{max(before) + 1}" if before else f"step_{step}")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._clear_away()
            _check_space(self.directory, len(text) + sum(array.nbytes for array in arrays))
            path.mkdir()
            _sealed.write_whole(path / RECORD, text.encode())
            _stored.write(path / ARRAYS, arrays)
            _sealed.seal(path)
            self._prune()
        except BaseException as error:
            if not _sealed.is_sealed(path):
                _sealed.remove(path)
            kept = ", ".join(map(str, self.steps)) or "none"
            self._error = CheckpointError(
                f"checkpoints: expected to write {path}, got {_reason(error)}. Saved before, and as they were: {kept}."
            )

    def _clear_away(self) -> None:
        """Removes what was cut short."""
        for path in self._found("step_*"):
            if _NAME.fullmatch(path.name) and not _sealed.is_sealed(path):
                _sealed.remove(path)

    def _prune(self) -> None:
        last = {step: path for step, _, path in self._all()}
        kept = {last[step] for step in sorted(last)[-self.keep :]}
        if self.best is not None:
            name, aim = self.best
            worth = {path: _metric(path, name) * (1 if aim == "max" else -1) for path in last.values()}
            finite = [path for path, value in worth.items() if not math.isnan(value)]
            kept |= {max(reversed(finite), key=worth.__getitem__)} if finite else set()
        for _, _, path in self._all():
            if path not in kept:
                _sealed.remove(path)

    def _found(self, pattern: str) -> list[Path]:
        return [path for path in self.directory.glob(pattern) if path.is_dir()]

    def _all(self) -> list[tuple[int, int, Path]]:
        """Step, how often it was saved before, and place of all that count, in order."""
        named = [(_NAME.fullmatch(path.name), path) for path in self._found("step_*")]
        return sorted((int(m[1]), int(m[2] or 0), path) for m, path in named if m and _sealed.is_sealed(path))


def _check_space(directory: Path, size: int) -> None:
    """Refuses what does not fit before the disk is full, for all who write to it.

    Arrays are compressed, by much or by little: room for them as they are is asked for, and for a MB of the format's.

    Raises:
      OSError: such as the system raises.
    """
    size, usage = size + 2**20, shutil.disk_usage(directory)
    if usage.total and usage.free < size:  # some network disks say nothing
        said = f"{os.strerror(errno.ENOSPC)}: {size / 1e6:,.1f} MB wanted, {usage.free / 1e6:,.1f} MB free"
        raise OSError(errno.ENOSPC, said)


def _record(path: Path) -> dict[str, Any]:
    return json.loads((path / RECORD).read_text(encoding="utf-8"))


def _metric(path: Path, name: str) -> float:
    """A metric that a checkpoint was saved with; NaN where there is none, or it cannot be read."""
    try:
        return float(_record(path)["metrics"].get(name, math.nan))
    except (OSError, ValueError):
        return math.nan


def _set_aside(path: Path, found: str) -> str:
    """Gives a damaged checkpoint a name that does not count, and says so."""
    aside = path.with_name(f"{path.name}.damaged")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}+")
    with contextlib.suppress(OSError):  # where nothing can be written, nothing will be saved either
        path.rename(aside)
    return f"checkpoints: expected {path} as it was saved, got {found}. It is set aside as {aside.name}"


def _reason(error: BaseException) -> str:
    """Why something could not be written, in the words of the system where there are such."""
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.strerror}'"
    if number := re.search(r"os_error_code='(\d+)'", str(error)):
        return f"'{os.strerror(int(number[1]))}'"
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
