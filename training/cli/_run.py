"""A run: one directory with everything that a person asks for afterwards."""

import csv
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._data import batches
from .._evaluate import evaluate
from .._fit import fit
from .._state import TrainState, init
from .._step import step
from ._config import ConfigError, write
from ._experiment import Experiment, Losses, Split, chain_of, example_input, split_of


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
            if any(path.iterdir()):
                raise ConfigError(f"{path}: expected a new or empty directory, got one that holds something already")
            (path / "metrics.jsonl").touch()
        except OSError as error:
            raise ConfigError(f"{path}: expected a directory that can be written, got {error}") from None

    def save_config(self, experiment: Experiment, header: str) -> None:
        """Leaves the config with every default written out: `renga train DIR/config.toml` runs it again."""
        (self.path / "config.toml").write_text(f"# {header}\n\n{write(experiment)}", encoding="utf-8")

    def log(self, row: dict[str, float]) -> None:
        """Adds a row to `metrics.csv` and `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        table = self.path / "metrics.csv"
        is_new = not table.exists()
        with table.open("a", encoding="utf-8", newline="") as rows:
            writer = csv.DictWriter(rows, list(row), lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)

    def save_params(self, params: Any) -> None:
        """Leaves the parameters as `params.npz`, arrays by path; the file is whole at every moment."""
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, **by_path(params))
        temporary = self.path / "params.npz.part"
        temporary.write_bytes(held.getvalue())
        os.replace(temporary, self.path / "params.npz")


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
      RunError: if the loss is no longer finite.
    """
    plots = _plots()
    split = split_of(experiment)
    net, tx = experiment.net.build(), chain_of(experiment)
    run = RunDirectory(directory)
    run.save_config(experiment, f"{title}, as it was run.")
    num_train, num_test = len(split.train["y"]), len(split.test["y"])
    print(f"network   {net}\nchain     {tx}\nimages    {num_train} to train on, {num_test} held out")
    print(f"run       {directory}", flush=True)
    start = time.perf_counter()
    train_state, history = _fit(experiment, Losses(net), tx, split, run)
    plots.curves(history, run.path / "curves.png", title)
    logits = jax.jit(net.apply)(train_state.params, split.test["x"])
    wrong = plots.misclassified(split.test, np.asarray(logits), run.path / "misclassified.png")
    last = history[-1]
    print(
        f"test accuracy {last['test_accuracy']:.4f} ({wrong} of {num_test} wrong) "
        f"after {last['step']} steps in {time.perf_counter() - start:.0f} s"
    )
    return last


def by_path(params: Any) -> dict[str, np.ndarray]:
    """Parameters as a flat dict, `{"conv1/w": array, ...}`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def _fit(
    experiment: Experiment, losses: Losses, tx: Any, split: Split, run: RunDirectory
) -> tuple[TrainState, list[dict[str, float]]]:
    key = jax.random.key(experiment.seed)
    init_key, order_key, loss_key = (jax.random.fold_in(key, use) for use in (1, 2, 3))
    params = losses.net.init(init_key, example_input())

    def test(train_state: TrainState) -> dict[str, float]:
        return evaluate(losses.metrics, train_state.params, data=split.test)

    def keep(row: dict[str, float], train_state: TrainState) -> None:
        run.log(row)
        if not all(map(math.isfinite, row.values())):
            raise RunError(
                f"step {row['step']}: expected finite metrics, got loss {row['loss']}. {run.path} holds the parameters "
                "of the report before, if there was one. A smaller optim.learning_rate, or optim.clip_norm, may help."
            )
        run.save_params(train_state.params)

    return fit(
        step(losses.loss, tx, has_aux=True),
        init(params, tx, key=loss_key),
        batches(split.train, experiment.train.batch_size, key=order_key),
        num_steps=experiment.train.num_steps,
        report_every=experiment.train.report_every,
        evaluate=test,
        on_report=keep,
    )


def _plots() -> Any:
    try:
        from . import _plots
    except ImportError:
        raise ConfigError("renga train draws with matplotlib. Install it with pip install 'renga[cli]'.") from None
    return _plots
