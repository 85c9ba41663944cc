"""A sweep under way: its programs one after another, then a table, a picture, and what to print of them."""

import contextlib
import csv
import datetime
import io
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from .._checkpoints import Checkpoints
from .._fit import fit
from .._interrupts import check_interrupts, deferred_interrupts
from .._progress import Progress
from .._sealed import write_whole
from ._compare import columns
from ._config import ConfigError, shown, write, write_value
from ._directory import CHECKPOINTS, RunDirectory, new_directory
from ._run import load_plots
from ._sweep import Member, Program, programs_of

CONFIG, COMMAND, TITLE = "sweep.toml", "# Command: ", "# Of: "
OpenedDirectory = Callable[[Path, Mapping[str, str]], contextlib.AbstractContextManager[RunDirectory]]
CHIEF = {"test_accuracy": "max", "test_return": "max", "test_loss": "min"}
"""The metric that members are compared by, the first that they have; and whether more of it is better."""


class Ended(NamedTuple):
    """A run that has ended.

    Attributes:
      member: which.
      metrics: of its last report, and of its test.
      losses: by step.
    """

    member: Member
    metrics: dict[str, float]
    losses: dict[int, float]

    @property
    def row(self) -> dict[str, Any]:
        """A row of `sweep.csv`."""
        values = {path: value if isinstance(value, str) else write_value(value) for path, value in self.values.items()}
        return values | {"seed": self.member.experiment.seed} | self.metrics

    @property
    def values(self) -> dict[str, Any]:
        """By dotted path."""
        return self.member.values


def sweep(
    members: Sequence[Member],
    over: dict[str, list[Any]],
    tables: dict[str, Any],
    directory: Path,
    *,
    title: str,
    options: str,
    at_once: int | None = None,
    opened: OpenedDirectory = new_directory,
) -> list[Ended]:
    """Makes all runs, and leaves `sweep.toml`, `sweep.csv` and `sweep.png`; one that was stopped goes on.

    Args:
      members: the runs.
      over: the values that they differ in.
      tables: of the config, as they were given: what they leave out is every member's own.
      directory: where to leave the files; `sweep.csv` grows as runs end.
      title: heads the picture.
      options: of the command line that makes the sweep again.
      at_once: how many runs go side by side in a program; see `Program.default_at_once`.
      opened: opens the directory, a new one or one of a sweep that was stopped.
    Returns:
      The runs, in the order of `members`.
    Raises:
      ConfigError: if something cannot be run, before anything is compiled.
      KeyboardInterrupt: between two compiled calls, if Ctrl-C was pressed; runs that have ended are in `sweep.csv`.
    """
    with deferred_interrupts():
        load_plots()
        programs = list(programs_of(members, over))
        command = f"renga sweep {shlex.quote(str(directory / CONFIG))} {options}"
        with opened(directory, {CONFIG: f"{COMMAND}{command}\n{TITLE}{title}\n\n{write(tables)}"}) as run:
            _say(members, over, programs)
            print(f"sweep     {directory}", flush=True)
            start, ended = time.perf_counter(), list[Ended]()
            for program in programs:
                _run(program, ended, run, size=at_once or program.default_at_once(), of=len(members))
            order = {id(member): place for place, member in enumerate(members)}
            ended.sort(key=lambda each: order[id(each.member)])
            _save(ended, directory / "sweep.csv")
            from . import _sweep_plots

            chief = chief_of(ended)
            _sweep_plots.sweep(ended, over, directory / "sweep.png", chief=chief, title=title)
        print(table(ended))
        print(f"{_best(ended, chief)}; {len(ended)} runs in {time.perf_counter() - start:.0f} s")
        return ended


def made_by(directory: Path) -> tuple[str, list[str]]:
    """The title of a sweep that was stopped, and the words of its command line after the config.

    Raises:
      ConfigError: if the sweep has ended, or its config says neither.
    """
    if not (directory / CHECKPOINTS).is_dir():
        raise ConfigError(f"{directory}: expected a sweep that was stopped, got one that has ended")
    with (directory / CONFIG).open(encoding="utf-8") as lines:
        first, second = lines.readline().strip(), lines.readline().strip()
    if not first.startswith(COMMAND) or not second.startswith(TITLE):
        raise ConfigError(
            f"{directory / CONFIG}: expected its head to be {COMMAND}... and {TITLE}..., got {first!r} and {second!r}"
        )
    return second.removeprefix(TITLE), shlex.split(first.removeprefix(COMMAND))[3:]


def _run(program: Program, ended: list[Ended], run: RunDirectory, *, size: int, of: int) -> None:
    """All runs of a program, so many at once; the table grows."""
    steps = {}
    for first in range(0, len(program.members), size):
        chunk = program.members[first : first + size]
        step = steps.setdefault(len(chunk), program.step(len(chunk)))  # one object, which is compiled once
        print(_label(len(ended), len(chunk), of), flush=True)
        ended += _side_by_side(program, step, chunk, run.checkpoints(str(len(ended))), run.every)
        _save(ended, run.path / "sweep.csv")


def _label(place: int, num: int, of: int) -> str:
    return f"runs {place + 1}-{place + num} of {of}" if num > 1 else f"run {place + 1} of {of}"


def _side_by_side(
    program: Program, step: Any, members: list[Member], checkpoints: Checkpoints, every: datetime.timedelta
) -> list[Ended]:
    """Runs of one program at once, from their checkpoints on."""
    runs, progress = program.runs, Progress(0, program.runs.num_steps)

    def show(row: dict[str, float], train_state: Any) -> None:
        progress.report({name: value for name, value in row.items() if "/" not in name})

    try:
        train_states, history = fit(
            step, program.begin(members), program.feed(members),
            num_steps=runs.num_steps, report_every=runs.report_every, on_report=show, progress=False,
            checkpoints=checkpoints, checkpoint_every=every,
        )  # fmt: skip
    finally:
        progress.close()
    held, last = jax.device_get(train_states._replace(key=None)), history[-1]
    ended = []
    for index, member in enumerate(members):
        check_interrupts()
        one = jax.tree.map(lambda leaf: leaf[index], held._replace(step=()))  # noqa: B023 - called at once
        found = {name.removesuffix(f"/{index}"): value for name, value in last.items() if name.endswith(f"/{index}")}
        test = runs.test(member.experiment, one._replace(state=one.state["state"]))
        losses = {int(row["step"]): row[f"loss/{index}"] for row in history}
        ended.append(Ended(member, found | test, losses))
    return ended


def chief_of(ended: Sequence[Ended]) -> str:
    """The name of the metric that members are compared by."""
    return next(name for name in CHIEF if name in ended[0].metrics)


def by_values(ended: Sequence[Ended]) -> list[list[Ended]]:
    """Runs that differ in nothing but their seed, together."""
    groups: dict[str, list[Ended]] = {}
    for each in ended:
        groups.setdefault(repr(each.values), []).append(each)
    return list(groups.values())


def table(ended: Sequence[Ended]) -> str:
    """Mean and spread over seeds of every metric of the test, for each combination of values."""
    metrics = [name for name in ended[0].metrics if name.startswith("test_")]
    lines = [[*ended[0].values, "seeds", *metrics]]
    for group in by_values(ended):
        values = [shown(value) for value in group[0].values.values()]
        lines.append([*values, str(len(group)), *(said([each.metrics[name] for each in group]) for name in metrics)])
    return columns(lines)


def said(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.4g}"
    finite = all(map(math.isfinite, values))
    return f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}" if finite else "nan"


def _best(ended: Sequence[Ended], chief: str) -> str:
    def mean(group: list[Ended]) -> float:
        found = float(np.mean([each.metrics[chief] for each in group]))
        return (found if CHIEF[chief] == "max" else -found) if math.isfinite(found) else -math.inf

    best = max(by_values(ended), key=mean)
    values = ", ".join(f"{path} = {shown(value)}" for path, value in best[0].values.items())
    return f"best {values + ': ' if values else ''}{chief} {said([each.metrics[chief] for each in best])}"


def _say(members: Sequence[Member], over: Mapping[str, Any], programs: Sequence[Program]) -> None:
    traced = programs[0].traced
    shaping = [path for path in over if path not in traced]
    num = len(programs)
    print(f"runs      {len(members)}, of {num} compiled program{'s' * (num != 1)}")
    if traced:
        print(f"arguments {', '.join(traced)}: side by side in one program")
    if shaping:
        print(f"apart     {', '.join(shaping)}: a program for each, one after another")


def _save(ended: Sequence[Ended], path: Path) -> None:
    """Writes the table, whole at every moment; where programs report different metrics, cells are empty."""
    rows, text = [each.row for each in ended], io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
