"""The command line: `renga train`, `renga resume`, `renga evaluate`, `renga list`, `renga summary`.

    renga train configs/digits_convnet.toml --set optim.rho=0.1
    renga resume runs/digits_convnet
    renga evaluate runs/digits_convnet

A config that cannot be run is refused by its dotted path before anything is compiled, with exit code 2. A run that
fails exits with 1, one that is stopped from the keyboard with 130, by SIGTERM with 143; all say what they leave in
their directory. Every run is saved now and then, and before it answers to one of the last two: `renga resume` goes on
with one that was stopped in whatever way, and ends with the same numbers. When nobody reads the output any more, as
under `| head -1`, the exit code is 141, as of any program.
"""

import argparse
import contextlib
import datetime
import functools
import importlib.resources
import itertools
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ... import nets
from .._checkpoints import CheckpointError, CheckpointWarning
from .._interrupts import Terminated
from .._keeping import HALF_A_MINUTE
from ._config import ConfigError, load, nearest, override, read
from ._directory import Opened, RunError, config_of, new_run, next_directory, old_run
from ._experiment import Experiment
from ._game import GameExperiment
from ._game_methods import Grid, Ring
from ._game_run import game_train
from ._gan import GanExperiment
from ._gan_run import gan_train
from ._loaded import supervised_evaluate
from ._meta import MetaExperiment
from ._meta_run import meta_train
from ._methods import Sinusoids
from ._rl import RlExperiment
from ._rl_run import rl_evaluate, rl_train
from ._run import train
from ._task import inputs_of

AnyExperiment = Experiment | GameExperiment | GanExperiment | MetaExperiment | RlExperiment
DEFAULT_CONFIG = "digits_convnet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
      arguments: the words after `renga`; those of this process unless given.
    Returns:
      The exit code.
    Raises:
      SystemExit: with code 2 if these are no command and options, with code 0 after `--help`.
    """
    if sys.stdout is None:  # whoever started the process closed it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    options = _options(arguments)
    try:
        with _warnings_on_one_line():
            options.command(options)
        sys.stdout.flush()  # here, where a closed pipe can be answered
    except ConfigError as error:
        return _fail(error, 2)
    except (RunError, CheckpointError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt as error:
        return _fail(error, 130, "\nrenga: stopped")
    except Terminated as error:
        return _fail(error, 143, "\nrenga: terminated")
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        return _fail(error, 141, "renga: standard output was closed") if _notes(error) else 141
    except Exception as error:
        if options.traceback:
            traceback.print_exc()
        text = str(error).partition("\n")[0]
        return _fail(error, 1, f"renga: {type(error).__name__}: {text} (--traceback shows where)")
    return 0


def _fail(error: BaseException, code: int, line: str | None = None) -> int:
    """Says what went wrong, with what the run noted, on one line."""
    print(". ".join([line or f"renga: {error}", *_notes(error)]), file=sys.stderr)
    return code


@contextlib.contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """What checkpoints warn of, as errors are said."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        show = warnings.showwarning

        def say(message: Any, category: Any, *rest: Any, **named: Any) -> None:
            if issubclass(category, CheckpointWarning):
                print(f"renga: {message}", file=sys.stderr)
            else:
                show(message, category, *rest, **named)

        warnings.showwarning = say
        yield


def _notes(error: BaseException) -> list[str]:
    """What the run noted; JAX's own notes have several lines."""
    return [note for note in getattr(error, "__notes__", []) if "\n" not in note]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "renga", description="Networks, optimizers and training as pure functions.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, help_text in (
        ("train", _train, "train as a config says, and leave a run directory"),
        ("resume", _resume, "go on with a run that was stopped"),
        ("evaluate", _evaluate, "say what the parameters that a run left are worth"),
        ("summary", _summary, "print the network of a config as a table"),
        ("list", _list, "list the configs"),
    ):
        sub = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        sub.set_defaults(command=command, refuse=sub.error)
        sub.add_argument("--traceback", action="store_true", help="show where an unexpected error comes from")
        if name in ("resume", "evaluate"):
            sub.add_argument("run", type=Path, metavar="RUN_DIRECTORY", help="the directory that renga train left")
        elif name != "list":
            help_text = f"path or name ({DEFAULT_CONFIG} unless given)"
            sub.add_argument("config", nargs="?", default=DEFAULT_CONFIG, help=help_text)
            help_text = "replace a value, by dotted key, as often as needed"
            sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help_text)
        if name == "train":
            sub.add_argument("--out", type=Path, help="run directory (runs/NAME unless given)")
        if name in ("train", "resume"):
            help_text = f"time between two checkpoints ({HALF_A_MINUTE.seconds} unless given); no result depends on it"
            sub.add_argument(
                "--checkpoint-every", type=_seconds, default=HALF_A_MINUTE, metavar="SECONDS", help=help_text
            )
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.refuse(f"unrecognized arguments: {' '.join(unknown)}")  # with the usage of the command
    return options


def _seconds(word: str) -> datetime.timedelta:
    """A time, from a word of the command line."""
    try:
        seconds = datetime.timedelta(seconds=float(word))
    except (ValueError, OverflowError):
        seconds = datetime.timedelta(-1)
    if seconds < datetime.timedelta(0):
        raise argparse.ArgumentTypeError(f"expected seconds, got {word!r}")
    return seconds


def _train(options: argparse.Namespace) -> None:
    path, experiment = _read(options)
    directory = options.out or next_directory(Path("runs"), path.stem)
    _carry_out(experiment, directory, path.stem, functools.partial(new_run, every=options.checkpoint_every))


def _resume(options: argparse.Namespace) -> None:
    config, title = config_of(options.run)
    experiment = read_experiment(load(config))
    _carry_out(experiment, options.run, title, functools.partial(old_run, every=options.checkpoint_every))


def _carry_out(experiment: Any, directory: Path, title: str, opened: Opened) -> None:
    if isinstance(experiment, MetaExperiment):
        meta_train(experiment, directory, title, opened=opened)
    elif isinstance(experiment, GameExperiment):
        game_train(experiment, directory, title, opened=opened)
    elif isinstance(experiment, GanExperiment):
        gan_train(experiment, directory, title, opened=opened)
    elif isinstance(experiment, RlExperiment):
        rl_train(experiment, directory, title, opened=opened)
    else:
        train(experiment, directory, title, opened=opened)


def _evaluate(options: argparse.Namespace) -> None:
    config, _ = config_of(options.run, ended=True)
    experiment = read_experiment(load(config))
    if isinstance(experiment, RlExperiment):
        print(rl_evaluate(experiment, options.run))
    elif isinstance(experiment, Experiment):
        print(supervised_evaluate(experiment, options.run))
    else:
        raise ConfigError(
            f"{options.run}: expected a run of a classifier, of a language model or of reinforcement learning, got one "
            "of another kind, which was judged when it ended: see its metrics.csv"
        )


def _summary(options: argparse.Namespace) -> None:
    _, experiment = _read(options)
    if isinstance(experiment, RlExperiment):
        print("\n\n".join(f"{name}\n{nets.summary(net, x)}" for name, (net, x) in experiment.networks.items()))
        return
    if isinstance(experiment, GameExperiment):
        inputs = experiment.net.inputs
        tables = [f"{player}\n{nets.summary(net, inputs[player])}" for player, net in experiment.net.build().items()]
        print("\n\n".join(tables))
        return
    if isinstance(experiment, GanExperiment):
        inputs = experiment.inputs
        tables = [f"{player}\n{nets.summary(net, inputs[player])}" for player, net in experiment.players.items()]
        print("\n\n".join(tables))
        return
    x, named = inputs_of(experiment.data.example)
    print(nets.summary(experiment.net.build(experiment.data.num_outputs), x, **named))


def _list(_: argparse.Namespace) -> None:
    for name, path in _configs().items():
        lines = path.read_text(encoding="utf-8").splitlines()
        header = itertools.takewhile(lambda line: line.startswith("#"), lines)
        print("\n    ".join([name, *(line.removeprefix("#").removeprefix(" ").rstrip() for line in header)]))


def _read(options: argparse.Namespace) -> tuple[Path, AnyExperiment]:
    path = _find(options.config)
    return path, read_experiment(override(load(path), options.set))


def read_experiment(tables: dict[str, Any]) -> AnyExperiment:
    """The config that tables describe, by what only its kind has.

    One with a method, or with sinusoids for data, is one of meta-learning; one with methods, or a mixture of Gaussians
    for data, is a game; one with a generator is a GAN; one with an environment or a learner is reinforcement learning.

    Raises:
      ConfigError: for the first key that is unknown, missing, of another type or out of range.
    """
    data = tables.get("data")
    name = data.get("name") if isinstance(data, dict) else None
    if "methods" in tables or name in (Ring.name, Grid.name):
        return read(GameExperiment, tables)
    if "generator" in tables:
        return read(GanExperiment, tables)
    if "env" in tables or "learner" in tables:
        return read(RlExperiment, tables)
    return read(MetaExperiment if "method" in tables or name == Sinusoids.name else Experiment, tables)


def _find(config: str) -> Path:
    """A config by its path, or one that is installed as `NAME` or `configs/NAME.toml`."""
    path, installed = Path(config), _configs()
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


def _configs() -> dict[str, Path]:
    folder = Path(str(importlib.resources.files("renga.configs").joinpath("")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
