"""The command line: `renga train`, `resume`, `evaluate`, `sweep`, `compare`, `export`, `summary`, `list`, `completion`.

    renga train configs/digits_convnet.toml --set optim.rho=0.1
    renga resume runs/digits_convnet
    renga evaluate runs/digits_convnet
    renga sweep digits_sgd --over optim.rho=0.01,0.05,0.1 --seeds 5
    renga compare runs/digits_sgd runs/digits_adam
    renga export runs/digits_sgd digits.safetensors

A config that cannot be run is refused by its dotted path before anything is compiled, with exit code 2. A run that
fails exits with 1, one that is stopped from the keyboard with 130, by SIGTERM with 143; all say what they leave in
their directory. Every run is saved now and then, and before it answers to one of the last two: `renga resume` goes on
with one that was stopped in whatever way, and ends with the same numbers. When nobody reads the output any more, as
under `| head -1`, the exit code is 141, as of any program.

A sweep makes a run for every combination of values and every seed, each with the numbers that `renga train` would
give. Numbers of the optimizer, the learner or the method are arguments of one compiled program, in which runs go side
by side; what shapes the program gets one for each value, one after another. `renga resume` goes on with a sweep too.

On Linux, memory that a run frees stays with the process until it ends (`training.keep_cpu_memory`): steps with large
arrays take less time, and the process holds the most that it ever needed. MALLOC_* or GLIBC_TUNABLES in the environment
win. Compiled programs are kept in `~/.cache/renga` (`$XDG_CACHE_HOME/renga`, or `$JAX_COMPILATION_CACHE_DIR`), where a
second run of a config finds them; JAX_ENABLE_COMPILATION_CACHE=0 keeps none. `--profile` says what tracing, lowering
and compiling took, by program.
"""

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from .._checkpoints import CheckpointError, CheckpointWarning
from .._interrupts import Terminated
from .._memory import keep_cpu_memory
from ._cache import keep_compiled
from ._commands import configs as configs
from ._config import ConfigError
from ._directory import RunError
from ._kinds import AnyExperiment as AnyExperiment
from ._kinds import read_experiment as read_experiment
from ._options import options_of


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
    options = options_of(arguments)
    with contextlib.suppress(RuntimeError):  # in a process that has used JAX before
        keep_cpu_memory()
        keep_compiled()
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
    *before, last = [line or f"renga: {error}", *_notes(error)]
    print(". ".join([*(each.removesuffix(".") for each in before), last]), file=sys.stderr)
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
