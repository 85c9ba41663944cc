"""The words of the command line: commands, arguments and options."""

import argparse
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._keeping import HALF_A_MINUTE
from . import _commands
from ._completion import SHELLS, completion

DEFAULT_CONFIG = "digits_convnet"


class Command(NamedTuple):
    """A command of the command line.

    Attributes:
      run: carries it out, from its options.
      help: on one line.
      arguments: adds them to a parser.
    """

    run: Callable[[argparse.Namespace], None]
    help: str
    arguments: Callable[[Any], None] = lambda parser: None


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line, with `command`, which carries it out.

    Raises:
      SystemExit: with code 2 if these are no command and options, with code 0 after `--help`.
    """
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        options.refuse(f"unrecognized arguments: {' '.join(unknown)}")  # with the usage of the command
    return options


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    found = argparse.ArgumentParser(
        "renga", description="Networks, optimizers and training as pure functions.", allow_abbrev=False
    )
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        sub.set_defaults(command=command.run, refuse=sub.error)
        sub.add_argument("--traceback", action="store_true", help="show where an unexpected error comes from")
        command.arguments(sub)
    return found


def _config(parser: Any) -> None:
    help_text = f"path or name ({DEFAULT_CONFIG} unless given)"
    parser.add_argument("config", nargs="?", default=DEFAULT_CONFIG, help=help_text)
    help_text = "replace a value, by dotted key, as often as needed"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help_text)


def _run(parser: Any) -> None:
    parser.add_argument("run", type=Path, metavar="RUN_DIRECTORY", help="the directory that renga train left")


def _train(parser: Any) -> None:
    _config(parser)
    parser.add_argument("--out", type=Path, help="run directory (runs/NAME unless given)")
    _of_runs(parser)


def _resume(parser: Any) -> None:
    _run(parser)
    _of_runs(parser)


def _of_runs(parser: Any) -> None:
    help_text = f"time between two checkpoints ({HALF_A_MINUTE.seconds} unless given); no result depends on it"
    parser.add_argument("--checkpoint-every", type=_seconds, default=HALF_A_MINUTE, metavar="SECONDS", help=help_text)
    help_text = "say at the end what tracing, lowering and compiling took, by program"
    parser.add_argument("--profile", action="store_true", help=help_text)


def _sweep(parser: Any) -> None:
    _config(parser)
    help_text = "values of a dotted key, between commas, as often as needed: all combinations are run"
    parser.add_argument("--over", action="append", default=[], metavar="KEY=VALUES", help=help_text)
    help_text = "how many seeds, from that of the config on (1 unless given)"
    parser.add_argument("--seeds", type=_count, default=1, metavar="N", help=help_text)
    help_text = "runs side by side (all of a program unless given; one where a CPU convolves)"
    parser.add_argument("--at-once", type=_count, metavar="N", help=help_text)
    parser.add_argument("--out", type=Path, help="directory (runs/NAME-sweep unless given)")
    _of_runs(parser)


def _compare(parser: Any) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIRECTORY", help="directories of two runs or more")
    parser.add_argument("--out", type=Path, default=Path("compare.png"), help="picture (compare.png unless given)")


def _export(parser: Any) -> None:
    _run(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="a new file that ends in .safetensors")


def _completion(parser: Any) -> None:
    parser.add_argument("shell", choices=list(SHELLS), help="which")


def _complete(options: argparse.Namespace) -> None:
    print(completion(options.shell, parser(), _commands.configs()), end="")


COMMANDS = {
    "train": Command(_commands.train, "train as a config says, and leave a run directory", _train),
    "resume": Command(_commands.resume, "go on with a run or a sweep that was stopped", _resume),
    "evaluate": Command(_commands.evaluate, "say what the parameters that a run left are worth", _run),
    "sweep": Command(_commands.sweep, "train for all combinations of values and seeds, and compare", _sweep),
    "compare": Command(_commands.compare, "show what runs differ in, and draw their curves together", _compare),
    "export": Command(_commands.export, "write the parameters of a run as safetensors", _export),
    "summary": Command(_commands.summary, "print the network of a config as a table", _config),
    "list": Command(_commands.list_configs, "list the configs"),
    "completion": Command(_complete, "print what makes the Tab key of a shell know all this", _completion),
}


def _seconds(word: str) -> datetime.timedelta:
    """A time, from a word of the command line."""
    try:
        seconds = datetime.timedelta(seconds=float(word))
    except (ValueError, OverflowError):
        seconds = datetime.timedelta(-1)
    if seconds < datetime.timedelta(0):
        raise argparse.ArgumentTypeError(f"expected seconds, got {word!r}")
    return seconds


def _count(word: str) -> int:
    """A count, from a word of the command line."""
    if not word.isdecimal() or not 1 <= int(word) < 2**31:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {word!r}")
    return int(word)
