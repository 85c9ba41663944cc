"""A run: one directory with everything that a person asks for afterwards."""

import math
import time
from pathlib import Path
from typing import Any

import jax

from ...optim import Link
from .._checkpoints import Checkpoints
from .._data import batches
from .._evaluate import evaluate
from .._fit import fit
from .._interrupts import deferred_interrupts
from .._state import TrainState, init
from .._step import step
from ._config import ConfigError
from ._directory import Opened, RunDirectory, RunError, new_run
from ._experiment import Experiment, chain_of, net_of
from ._task import Ending, Losses, Split


def train(experiment: Experiment, directory: Path, title: str, *, opened: Opened = new_run) -> dict[str, float]:
    """Trains as a config says, and leaves a run directory.

    Args:
      experiment: the config.
      directory: where to leave it.
      title: what the pictures are headed with.
      opened: a new directory, or that of a run to go on with.
    Returns:
      The last row of the history.
    Raises:
      ConfigError: if something cannot be run, before anything is compiled.
      RunError: if a metric is no longer finite.
      KeyboardInterrupt: between two calls of steps, if Ctrl-C was pressed; the run is saved.
    """
    with deferred_interrupts():
        plots, losses = load_plots(), Losses(net_of(experiment), experiment.data)
        loaded = losses.task.load(experiment.seed, experiment.train.batch_size)
        with opened(directory, experiment, title) as run:
            split = losses.task.split(loaded, experiment.seed)
            return _train(experiment, losses, split, run=run, plots=plots, title=title)


def _train(
    experiment: Experiment, losses: Losses, split: Split, *, run: RunDirectory, plots: Any, title: str
) -> dict[str, float]:
    net, task = losses
    tx = chain_of(experiment)
    print(f"network   {net}\nchain     {tx}")
    print(f"{task.unit:<9} {len(split.train['y'])} to train on, {len(split.test['y'])} held out")
    print(f"run       {run.path}", flush=True)
    start = time.perf_counter()
    train_state, history = _fit(experiment, losses, split, tx=tx, run=run)
    plots.curves(history, run.path / "curves.png", title)
    last, key = history[-1], jax.random.fold_in(jax.random.key(experiment.seed), 4)
    ending = Ending(losses, train_state, split, last, run.path, plots, key)
    if experiment.attack is not None:
        print(experiment.attack.finish(ending))
    said = task.finish(ending)
    print(f"{said} after {last['step']} steps in {time.perf_counter() - start:.0f} s")
    return last


def _fit(
    experiment: Experiment, losses: Losses, split: Split, *, tx: Link, run: RunDirectory
) -> tuple[TrainState, list[dict[str, float]]]:
    key = jax.random.key(experiment.seed)
    init_key, order_key, loss_key = (jax.random.fold_in(key, use) for use in (1, 2, 3))
    params, state = losses.init(init_key)
    checkpoints = run.checkpoints()
    run.log_again(rows_of(checkpoints))
    metrics_fn = losses.metrics  # one function for all reports, so that it is compiled once
    size = losses.task.test_batch_size

    def test(train_state: TrainState) -> dict[str, float]:
        return evaluate(metrics_fn, train_state.params, train_state.state, data=split.test, batch_size=size)

    def keep(row: dict[str, float], train_state: TrainState) -> None:
        run.log(row)
        check_finite(row)
        run.save_params(train_state.params, train_state.state)

    loss_fn = losses.loss if experiment.attack is None else experiment.attack.loss(losses.loss)
    return fit(
        step(loss_fn, tx, stateful=True),
        init(params, tx, state=state, key=loss_key),
        batches(split.train, experiment.train.batch_size, key=order_key),
        num_steps=experiment.train.num_steps,
        report_every=experiment.train.report_every,
        evaluate=test,
        on_report=keep,
        checkpoints=checkpoints,
        checkpoint_every=run.every,
    )


def rows_of(checkpoints: Checkpoints) -> list[dict[str, float]]:
    """The reports of a run of `fit` up to its last checkpoint."""
    saved = checkpoints.latest()
    return [] if saved is None else saved.extra["history"]


def check_finite(row: dict[str, float]) -> None:
    """Stops a run whose report has NaN or infinity.

    Raises:
      RunError: with the metrics that have.
    """
    strange = [f"{name} {value}" for name, value in row.items() if not math.isfinite(value)]
    if strange:
        raise RunError(
            f"step {row['step']}: expected finite metrics, got {', '.join(strange)}. A smaller "
            "optim.learning_rate, or optim.clip_norm, may help. Parameters are kept from finite reports only"
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
