"""Where the rows of a run go: tables, lines of JSON, TensorBoard; all of them write rows, and close."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]


class Writer(Protocol):
    """What a log is: `write(row)`, of numbers and words by name, and `close()`."""

    def write(self, row: Row, /) -> None:
        """Adds a row."""
        ...

    def close(self) -> None:
        """Ends the log."""
        ...


class Log:
    """A writer that `fit` may call as its `on_report`, and that closes as a context.

    Args:
      write: `write(row)`.
      close: `close()`.

    >>> rows = []
    >>> with Log(rows.append) as log:
    ...     log({"step": 1, "loss": 0.5}, None)
    >>> rows
    [{'step': 1, 'loss': 0.5}]
    """

    def __init__(self, write: Callable[[Row], None], close: Callable[[], None] = lambda: None):
        self._write, self._close = write, close

    def write(self, row: Row, /) -> None:
        """Adds a row."""
        self._write(row)

    def close(self) -> None:
        """Ends the log."""
        self._close()

    def __call__(self, row: Row, train_state: Any = None) -> None:
        """Adds a row; the train state is not looked at."""
        self._write(row)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def logs(*writers: Writer) -> Log:
    """Several writers as one.

    Args:
      writers: each gets every row, in this order.
    Returns:
      A `Log` that closes them all.

    >>> first, second = [], []
    >>> logs(Log(first.append), Log(second.append)).write({"step": 1})
    >>> first == second == [{"step": 1}]
    True
    """

    def write(row: Row) -> None:
        for writer in writers:
            writer.write(row)

    def close() -> None:
        for writer in writers:
            writer.close()

    return Log(write, close)


def csv_log(path: str | Path) -> Log:
    """Rows as a table with a header, one line a row; a name that comes later gets a column of its own.

    The file is whole after every row. If it exists, the first row takes the place of all from its `step` on: a run that
    is taken up writes no row twice. A line that a kill cut short is left out.

    Args:
      path: of the file, made with the first row.
    Returns:
      A `Log`.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "metrics.csv")
    >>> for row in ({"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25, "accuracy": 1.0}):
    ...     csv_log(path).write(row)
    >>> print(path.read_text(encoding="utf-8").strip())
    step,loss,accuracy
    10,0.5,
    20,0.25,1.0
    """
    path, columns = Path(path), list[str]()

    def write(row: Row) -> None:
        row = _plain(row)
        if not columns and path.exists():
            columns.extend(_cut(path, row, csv_rows, _csv_text))
        if unknown := [name for name in row if name not in columns]:
            held = list(csv_rows(path)) if columns else []
            columns.extend(unknown)
            _replace(path, _csv_text(held, columns))
        with path.open("a", encoding="utf-8", newline="") as lines:
            csv.DictWriter(lines, columns, lineterminator="\n").writerow(row)

    return Log(write)


def json_log(path: str | Path) -> Log:
    r"""Rows as JSON, one line a row, with null for a number that is not finite.

    If the file exists, the first row takes the place of all from its `step` on, as for `csv_log`.

    Args:
      path: of the file, made with the first row.
    Returns:
      A `Log`.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "metrics.jsonl")
    >>> json_log(path).write({"step": 10, "loss": float("nan")})
    >>> path.read_text(encoding="utf-8")
    '{"step": 10, "loss": null}\n'
    """
    path, begun = Path(path), list[None]()

    def write(row: Row) -> None:
        row = _plain(row)
        if not begun and path.exists():
            _cut(path, row, _json_rows, lambda rows, _: "".join(map(_json_line, rows)))
        begun[:] = [None]
        with path.open("a", encoding="utf-8") as lines:
            lines.write(_json_line(row))

    return Log(write)


def tensorboard_log(directory: str | Path) -> Log:
    """Numbers as TensorBoard's scalars, by the extra `tensorboard`; words are left out.

    TensorBoard hides what a run wrote before at the steps that it comes to again when it is taken up.

    Args:
      directory: where, one for each run.
    Returns:
      A `Log`. Rows are on the disk when it is closed, or two minutes old.
    Raises:
      ImportError: if tensorboardX is missing.

    >>> import pathlib, tempfile
    >>> directory = pathlib.Path(tempfile.mkdtemp())
    >>> with tensorboard_log(directory) as log:
    ...     log.write({"step": 10, "loss": 0.5})
    >>> len(list(directory.glob("events*")))
    1
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ImportError(
            "tensorboard_log: expected tensorboardX to be installed, got none. "
            "Install it: pip install 'renga[tensorboard]'."
        ) from None
    held: list[Any] = []

    def write(row: Row) -> None:
        row = _plain(row)
        if not held:
            held.append(SummaryWriter(str(directory), purge_step=row.get("step")))
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                held[0].add_scalar(name, value, row.get("step"))

    def close() -> None:
        for writer in held:
            writer.close()

    return Log(write, close)


def _plain(row: Row) -> dict[str, Any]:
    """Numbers of NumPy and JAX as Python's."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}


def _cut(path: Path, row: Row, read: Callable[[Path], Iterator[dict]], text: Callable[[list, list], str]) -> list[str]:
    """Leaves the whole rows of a file that come before a row, and returns the names of their columns."""
    rows = [held for held in read(path) if _step_of(held) < row.get("step", math.inf)]
    columns = list(dict.fromkeys(name for held in rows for name in held))
    _replace(path, text(rows, columns))
    return columns


def _step_of(held: dict[str, Any]) -> float:
    """The step of a row of a file; one without, where other rows have one, came before all."""
    return -math.inf if held.get("step") in (None, "") else float(held["step"])


def csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a table; a line that a kill cut short is left out."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    yield from csv.DictReader(io.StringIO(whole))


def _csv_text(rows: list[dict[str, Any]], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    yield from map(json.loads, whole.splitlines())


def _json_line(row: Row) -> str:
    finite = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
    return json.dumps(finite) + "\n"


def _replace(path: Path, text: str) -> None:
    """Puts a text in the place of a file at once, so that a kill leaves the one or the other."""
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)
