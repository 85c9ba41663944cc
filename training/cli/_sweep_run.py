"""A sweep under way: its programs one after another, then a table, a picture, and what to print of them."""

import csv
import io
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from .._fit import fit
from .._interrupts import check_interrupts, deferred_interrupts
from .._progress import Progress
from .._sealed import write_whole
from ._compare import columns
from ._config import ConfigError, shown, write, write_value
from ._run import load_plots
from ._sweep import Member, Program, programs_of

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
    directory: Path,
    *,
    title: str,
    options: str,
    at_once: int | None = None,
) -> list[Ended]:
    """Makes all runs, and leaves `sweep.toml`, `sweep.csv` and `sweep.png`.

    Args:
      members: the runs.
      over: the values that they differ in.
      directory: where to leave the files; `sweep.csv` grows as runs end.
      title: heads the picture.
      options: of the command line that makes the sweep again.
      at_once: how many runs go side by side in a program; see `Program.default_at_once`.
    Returns:
      The runs, in the order of `members`.
    Raises:
      ConfigError: if something cannot be run, before anything is compiled.
      KeyboardInterrupt: between two compiled calls, if Ctrl-C was pressed; runs that have ended are in `sweep.csv`.
    """
    with deferred_interrupts():
        load_plots()
        programs = list(programs_of(members, over))
        _open(directory, members[0], options)
        _say(members, over, programs)
        print(f"sweep     {directory}", flush=True)
        start, ended = time.perf_counter(), list[Ended]()
        try:
            for program in programs:
                size = at_once or program.default_at_once()
                _run(program, ended, directory / "sweep.csv", size=size, of=len(members))
        except BaseException as error:
            error.add_note(f"{directory} holds {_contents(directory)}")
            raise
        order = {id(member): place for place, member in enumerate(members)}
        ended.sort(key=lambda each: order[id(each.member)])
        _save(ended, directory / "sweep.csv")
        from . import _sweep_plots

        chief = chief_of(ended)
        _sweep_plots.sweep(ended, over, directory / "sweep.png", chief=chief, title=title)
        print(table(ended))
        print(f"{_best(ended, chief)}; {len(ended)} runs in {time.perf_counter() - start:.0f} s")
        return ended


def _run(program: Program, ended: list[Ended], path: Path, *, size: int, of: int) -> None:
    """All runs of a program, so many at once; the table grows."""
    steps = {}
    for first in range(0, len(program.members), size):
        chunk = program.members[first : first + size]
        step = steps.setdefault(len(chunk), program.step(len(chunk)))  # one object, which is compiled once
        print(_label(len(ended), len(chunk), of), flush=True)
        ended += _side_by_side(program, step, chunk)
        _save(ended, path)


def _label(place: int, num: int, of: int) -> str:
    return f"runs {place + 1}-{place + num} of {of}" if num > 1 else f"run {place + 1} of {of}"


def _side_by_side(program: Program, step: Any, members: list[Member]) -> list[Ended]:
    """Runs of one program at once."""
    runs, losses = program.runs, [dict[int, float]() for _ in members]
    progress = Progress(0, runs.num_steps)

    def keep(row: dict[str, float], train_state: Any) -> None:
        for index, each in enumerate(losses):
            each[int(row["step"])] = row[f"loss/{index}"]
        progress.report({name: value for name, value in row.items() if "/" not in name})

    try:
        train_states, history = fit(
            step, program.begin(members), program.feed(members),
            num_steps=runs.num_steps, report_every=runs.report_every, on_report=keep, progress=False,
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
        ended.append(Ended(member, found | test, losses[index]))
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


def _open(path: Path, first: Member, options: str) -> None:
    """A new directory with the config, whose header says how to make the sweep again."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if held := _contents(path):
            raise ConfigError(
                f"{path}: expected a new or empty directory, got one that holds {held}. Give another by --out"
            )
        config = path / "sweep.toml"
        command = f"renga sweep {shlex.quote(str(config))} {options}"
        config.write_text(f"# Command: {command}\n\n{write(first.experiment)}", encoding="utf-8")
    except OSError as error:
        found = "a file" if path.is_file() else f"'{error.strerror}'"
        raise ConfigError(f"{path}: expected a directory that can be written, got {found}") from None


def _contents(path: Path) -> str:
    return ", ".join(sorted(entry.name for entry in path.iterdir())[:6])


def _save(ended: Sequence[Ended], path: Path) -> None:
    """Writes the table, whole at every moment; where programs report different metrics, cells are empty."""
    rows, text = [each.row for each in ended], io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
