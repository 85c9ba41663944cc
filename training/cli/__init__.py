"""The command line: `renga train`, `renga list`, `renga summary`.

    renga train configs/digits_convnet.toml --set optim.rho=0.1

A config that cannot be run is refused by its dotted path before anything is compiled, with exit code 2. A run that
fails exits with 1, one that is stopped from the keyboard with 130; both leave what they had in their directory.
"""

import argparse
import importlib.resources
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ._config import ConfigError, load, nearest, override, read

if TYPE_CHECKING:
    from ._experiment import Experiment

DEFAULT_CONFIG = "digits_convnet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
      arguments: the words after `renga`; those of this process unless given.
    Returns:
      The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except ConfigError as error:
        print(f"renga: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrenga: stopped; the run directory holds what the last report saved", file=sys.stderr)
        return 130
    except Exception as error:
        print(f"renga: {type(error).__name__}: {error}", file=sys.stderr)
        if options.traceback:
            traceback.print_exc()
        else:
            print("renga: --traceback before the command shows where", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("renga", description="Networks, optimizers and training as pure functions.")
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected error comes from")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, help_text in (
        ("train", _train, "train as a config says, and leave a run directory"),
        ("summary", _summary, "print the network of a config as a table"),
    ):
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.add_argument(
            "config", nargs="?", default=DEFAULT_CONFIG, help=f"path or name ({DEFAULT_CONFIG} unless given)"
        )
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value, by dotted key"
        )
        if name == "train":
            sub.add_argument("--out", type=Path, help="run directory (runs/NAME unless given)")
        sub.set_defaults(command=command)
    sub = commands.add_parser("list", help="list the configs", description="list the configs")
    sub.set_defaults(command=_list)
    return parser


def _train(options: argparse.Namespace) -> int:
    path, experiment = _experiment(options)
    from ._run import next_directory, train

    train(experiment, options.out or next_directory(Path("runs"), path.stem), path.stem)
    return 0


def _summary(options: argparse.Namespace) -> int:
    _, experiment = _experiment(options)
    from ... import nets
    from ._experiment import example_input

    print(nets.summary(experiment.net.build(), example_input()))
    return 0


def _list(options: argparse.Namespace) -> int:
    for path in _configs().values():
        lines = path.read_text(encoding="utf-8").splitlines()
        header = [
            line.removeprefix("#").strip() for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]
        ]
        print(f"{path.stem}\n    " + "\n    ".join(header))
    return 0


def _experiment(options: argparse.Namespace) -> tuple[Path, "Experiment"]:
    from ._experiment import Experiment  # imports JAX, which takes a second

    path = _find(options.config)
    return path, read(Experiment, override(load(path), options.set))


def _find(config: str) -> Path:
    """A config by its path, or by the name of one that is installed."""
    if Path(config).is_file():
        return Path(config)
    known = _configs()
    name = Path(config).stem
    if name in known:
        return known[name]
    guess = nearest(name, list(known))
    hint = f"Did you mean {guess}?" if guess else f"Known are {', '.join(known)}."
    raise ConfigError(f"{config}: expected a config file, got none of that name. {hint}")


def _configs() -> dict[str, Path]:
    folder = Path(str(importlib.resources.files("renga.configs").joinpath("")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
