"""A run: one directory with everything that a person asks for afterwards."""

import contextlib
import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...optim import Link
from .._data import batches
from .._evaluate import evaluate
from .._fit import fit
from .._state import TrainState, init
from .._step import step
from ._config import ConfigError, write
from ._experiment import Experiment, chain_of, net_of
from ._interrupt import deferred_interrupts
from ._task import Ending, Losses, Split


class RunError(RuntimeError):
    """A run that had to stop; what it had is in its directory."""


class RunDirectory:
    """Where a run leaves its config, metrics, parameters and pictures.

    Args:
      path: the directory, made if it is missing.
    Raises:
      ConfigError: if it cannot be written, or holds another run.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if held := self.contents():
                raise ConfigError(
                    f"{path}: expected a new or empty directory, got one that holds {held}. Give another by --out"
                )
            (path / "metrics.jsonl").touch()
        except OSError as error:
            found = "a file" if os.path.exists(path) and not os.path.isdir(path) else f"'{error.strerror}'"
            raise ConfigError(f"{path}: expected a directory that can be written, got {found}") from None

    def contents(self) -> str:
        """The names of the first files, for messages."""
        names = sorted(entry.name for entry in self.path.iterdir())
        return ", ".join([*names[:6], *(["..."] if names[6:] else [])])

    def save_config(self, experiment: Any, header: str) -> None:
        """Leaves the config with every default written out: `renga train DIR/config.toml` runs it again."""
        (self.path / "config.toml").write_text(f"# {header}\n\n{write(experiment)}", encoding="utf-8")

    def log(self, row: Mapping[str, float | str]) -> None:
        """Adds a row to `metrics.csv` and `metrics.jsonl`; JSON has null for a number that is not finite."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            finite = {
                name: value if isinstance(value, str) or math.isfinite(value) else None for name, value in row.items()
            }
            lines.write(json.dumps(finite) + "\n")
        table = self.path / "metrics.csv"
        is_new = not table.exists()
        with table.open("a", encoding="utf-8", newline="") as rows:
            writer = csv.DictWriter(rows, list(row), lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)

    def save_params(self, params: Any, state: Any) -> None:
        """Leaves the parameters as `params.npz`, arrays by path, and state under `state/`.

        The file is whole at every moment.
        """
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, **by_path(params), **by_path({"state": state}))
        temporary = self.path / "params.npz.part"
        temporary.write_bytes(held.getvalue())
        os.replace(temporary, self.path / "params.npz")


@contextlib.contextmanager
def run_directory(path: Path, experiment: Any, title: str) -> Iterator[RunDirectory]:
    """A run directory with its config; what ends a run before its time is noted what it leaves there."""
    run = RunDirectory(path)
    run.save_config(experiment, f"{title}, as it was run.")
    try:
        yield run
    except BaseException as error:
        error.add_note(f"{path} holds {run.contents()}")
        raise


def next_directory(root: Path, name: str) -> Path:
    """`root/name`, or the first of `root/name-2`, `root/name-3`, ... that does not exist."""
    path, number = root / name, 1
    while path.exists():
        number += 1
        path = root / f"{name}-{number}"
    return path


def train(experiment: Experiment, directory: Path, title: str) -> dict[str, float]:
    """Trains as a config says, and leaves a run directory.

    Args:
      experiment: the config.
      directory: where to leave it.
      title: what the pictures are headed with.
    Returns:
      The last row of the history.
    Raises:
      ConfigError: if something cannot be run, before anything is compiled.
      RunError: if a metric is no longer finite.
      KeyboardInterrupt: between two steps, if Ctrl-C was pressed.
    """
    with deferred_interrupts() as check:
        plots, losses = load_plots(), Losses(net_of(experiment), experiment.data)
        loaded = losses.task.load(experiment.seed, experiment.train.batch_size)
        with run_directory(directory, experiment, title) as run:
            split = losses.task.split(loaded, experiment.seed)
            return _train(experiment, losses, split, run=run, plots=plots, title=title, check=check)


def _train(
    experiment: Experiment,
    losses: Losses,
    split: Split,
    *,
    run: RunDirectory,
    plots: Any,
    title: str,
    check: Callable[[], None],
) -> dict[str, float]:
    net, task = losses
    tx = chain_of(experiment)
    print(f"network   {net}\nchain     {tx}")
    print(f"{task.unit:<9} {len(split.train['y'])} to train on, {len(split.test['y'])} held out")
    print(f"run       {run.path}", flush=True)
    start = time.perf_counter()
    train_state, history = _fit(experiment, losses, split, tx=tx, run=run, check=check)
    plots.curves(history, run.path / "curves.png", title)
    last, key = history[-1], jax.random.fold_in(jax.random.key(experiment.seed), 4)
    ending = Ending(losses, train_state, split, last, run.path, plots, key)
    if experiment.attack is not None:
        print(experiment.attack.finish(ending))
    said = task.finish(ending)
    print(f"{said} after {last['step']} steps in {time.perf_counter() - start:.0f} s")
    return last


def by_path(tree: Any) -> dict[str, np.ndarray]:
    """Arrays of a tree as a flat dict, `{"conv1/w": array, ...}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def _fit(
    experiment: Experiment, losses: Losses, split: Split, *, tx: Link, run: RunDirectory, check: Callable[[], None]
) -> tuple[TrainState, list[dict[str, float]]]:
    key = jax.random.key(experiment.seed)
    init_key, order_key, loss_key = (jax.random.fold_in(key, use) for use in (1, 2, 3))
    params, state = losses.init(init_key)

    def feed() -> Iterator[dict[str, np.ndarray]]:
        for batch in batches(split.train, experiment.train.batch_size, key=order_key):
            check()  # between two steps, where nothing of JAX is under way
            yield batch

    metrics_fn = losses.metrics  # one function for all reports, so that it is compiled once
    size = losses.task.test_batch_size

    def test(train_state: TrainState) -> dict[str, float]:
        return evaluate(metrics_fn, train_state.params, train_state.state, data=split.test, batch_size=size)

    def keep(row: dict[str, float], train_state: TrainState) -> None:
        run.log(row)
        strange = [f"{name} {value}" for name, value in row.items() if not math.isfinite(value)]
        if strange:
            raise RunError(
                f"step {row['step']}: expected finite metrics, got {', '.join(strange)}. A smaller "
                "optim.learning_rate, or optim.clip_norm, may help. Parameters are kept from finite reports only"
            )
        run.save_params(train_state.params, train_state.state)

    loss_fn = losses.loss if experiment.attack is None else experiment.attack.loss(losses.loss)
    return fit(
        step(loss_fn, tx, stateful=True),
        init(params, tx, state=state, key=loss_key),
        feed(),
        num_steps=experiment.train.num_steps,
        report_every=experiment.train.report_every,
        evaluate=test,
        on_report=keep,
    )


def load_plots() -> Any:
    """The module that draws.

    Raises:
      ConfigError: if matplotlib is missing.
    """
    try:
        from . import _plots
    except ImportError:
        raise ConfigError("renga train draws with matplotlib. Install it with pip install 'renga[cli]'.") from None
    return _plots
