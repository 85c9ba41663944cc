"""What the commands do, each from its options."""

import argparse
import contextlib
import functools
import importlib.resources
import itertools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from ... import nets
from .._compile_times import compile_times
from ._compare import compare as compare_runs
from ._config import ConfigError, load, nearest, override
from ._directory import Opened, config_of, new_directory, new_run, next_directory, old_directory, old_run
from ._export import export as export_run
from ._kinds import AnyExperiment, kind_of, read_experiment
from ._sweep import members_of, parse_over
from ._sweep_run import CONFIG as SWEEP
from ._sweep_run import made_by
from ._sweep_run import sweep as run_sweep


def train(options: argparse.Namespace) -> None:
    """Trains as a config says."""
    path, experiment = _read(options)
    directory = options.out or next_directory(Path("runs"), path.stem)
    _carry_out(experiment, directory, path.stem, new_run, options)


def resume(options: argparse.Namespace) -> None:
    """Goes on with a run, or a sweep."""
    if (options.run / SWEEP).is_file():
        _resume_sweep(options)
    else:
        config, title = config_of(options.run)
        _carry_out(read_experiment(load(config)), options.run, title, old_run, options)


def evaluate(options: argparse.Namespace) -> None:
    """Says what a run is worth."""
    config, _ = config_of(options.run, ended=True)
    experiment = read_experiment(load(config))
    judge = kind_of(experiment).evaluate
    if judge is None:
        raise ConfigError(
            f"{options.run}: expected a run of a classifier, of a language model or of reinforcement learning, got one "
            "of another kind, which was judged when it ended: see its metrics.csv"
        )
    print(judge(experiment, options.run))


def sweep(options: argparse.Namespace) -> None:
    """Trains for all combinations of values and seeds."""
    over, path = parse_over(options.over), _find(options.config)
    tables = override(load(path), options.set)
    members = members_of(tables, over, options.seeds, where=options.config)
    directory = options.out or next_directory(Path("runs"), f"{path.stem}-sweep")
    words = [
        *(word for each in options.over for word in ("--over", " ".join(each.splitlines()))),
        "--seeds",
        str(options.seeds),
    ]
    words += [] if options.at_once is None else ["--at-once", str(options.at_once)]
    opened = functools.partial(new_directory, every=options.checkpoint_every)
    with _profiled(options):
        run_sweep(
            members,
            over,
            tables,
            directory,
            title=path.stem,
            options=shlex.join(words),
            at_once=options.at_once,
            opened=opened,
        )


def compare(options: argparse.Namespace) -> None:
    """Shows runs beside each other."""
    print(compare_runs(options.runs, options.out))


def export(options: argparse.Namespace) -> None:
    """Writes the parameters of a run."""
    print(export_run(options.run, options.file))


def summary(options: argparse.Namespace) -> None:
    """Prints the networks of a config."""
    _, experiment = _read(options)
    networks = kind_of(experiment).networks(experiment)
    tables = {name: nets.summary(net, x, **named) for name, (net, x, named) in networks.items()}
    print("\n\n".join(f"{name}\n{table}" if name else str(table) for name, table in tables.items()))


def list_configs(_: argparse.Namespace) -> None:
    """Prints the configs that are installed, with their headers."""
    for name, path in configs().items():
        lines = path.read_text(encoding="utf-8").splitlines()
        header = itertools.takewhile(lambda line: line.startswith("#"), lines)
        print("\n    ".join([name, *(line.removeprefix("#").removeprefix(" ").rstrip() for line in header)]))


def configs() -> dict[str, Path]:
    """The configs that are installed, by name."""
    folder = Path(str(importlib.resources.files("renga.configs").joinpath("")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _resume_sweep(options: argparse.Namespace) -> None:
    title, words = made_by(options.run)
    given = list(zip(words[::2], words[1::2], strict=True))
    over = parse_over([value for name, value in given if name == "--over"])
    counts = {name: int(value) for name, value in given if name != "--over"}
    tables = load(options.run / SWEEP)
    members = members_of(tables, over, counts["--seeds"], where=str(options.run / SWEEP))
    opened = functools.partial(old_directory, every=options.checkpoint_every)
    with _profiled(options):
        run_sweep(
            members, over, tables, options.run, title=title, options=shlex.join(words),
            at_once=counts.get("--at-once"), opened=opened,
        )  # fmt: skip


@contextlib.contextmanager
def _profiled(options: argparse.Namespace) -> Iterator[None]:
    with compile_times() as times:
        try:
            yield
        finally:
            if options.profile:
                print(times)


def _carry_out(
    experiment: AnyExperiment, directory: Path, title: str, opened: Opened, options: argparse.Namespace
) -> None:
    opened = functools.partial(opened, every=options.checkpoint_every)
    with _profiled(options):
        kind_of(experiment).train(experiment, directory, title, opened=opened)


def _read(options: argparse.Namespace) -> tuple[Path, AnyExperiment]:
    path = _find(options.config)
    return path, read_experiment(override(load(path), options.set))


def _find(config: str) -> Path:
    """A config by its path, or one that is installed as `NAME` or `configs/NAME.toml`."""
    path, installed = Path(config), configs()
    if os.path.exists(config) and not os.path.isdir(config):
        return path
    if path.as_posix() in (path.stem, f"configs/{path.stem}.toml") and path.stem in installed:
        return installed[path.stem]
    beside = {each.stem: str(each) for each in path.parent.glob("*.toml") if os.path.isfile(each)}
    choices = {name: name for name in installed} | beside
    guess = nearest(path.stem, choices)
    found = "a directory" if os.path.isdir(config) else "none of that name"
    hint = f"Did you mean {choices[guess]}?" if guess else f"Known are {', '.join(installed)}."
    raise ConfigError(f"{config or repr(config)}: expected a config file, got {found}. {hint}")
