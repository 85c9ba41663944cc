"""A run of meta-learning: all seeds side by side, a table of how well tasks are learnt, and a picture."""

import csv
import math
import operator
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import nets
from .._compiler import jit
from .._evaluate_tasks import TaskScores, evaluate_tasks
from .._interrupts import check_interrupts, deferred_interrupts
from .._keeping import Place, keeping
from .._loop import loop
from .._losses import squared_error
from .._progress import Progress
from .._run import settled
from .._state import TrainState, init
from .._step import step
from ._directory import Opened, RunDirectory, RunError, new_run
from ._experiment import chain_from
from ._meta import MetaExperiment
from ._run import load_plots

NUM_DRAWN = 4
NUM_POINTS = 200
DRAWN_STEPS = (0, 1, 5, 10)


def meta_train(experiment: MetaExperiment, directory: Path, title: str, *, opened: Opened = new_run) -> TaskScores:
    """Trains as a config says, tests, and leaves a run directory.

    Args:
      experiment: the config.
      directory: where to leave it.
      title: what the picture is headed with.
      opened: a new directory, or that of a run to go on with.
    Returns:
      The scores, their arrays with an axis of seeds in front.
    Raises:
      ConfigError: if something cannot be run, before anything is compiled.
      RunError: if the loss is no longer finite.
      KeyboardInterrupt: between two compiled calls, if Ctrl-C was pressed; the run is saved.
    """
    with deferred_interrupts():
        plots = load_plots()
        with opened(directory, experiment, title) as run:
            return _train(experiment, run, plots, title)


def _train(experiment: MetaExperiment, run: RunDirectory, plots: Any, title: str) -> TaskScores:
    net, train, data = experiment.net.build(1), experiment.train, experiment.data
    loss_fn, tx = regression(net), chain_from(experiment.optim, train.num_steps)
    print(f"network   {net}\nloss      {experiment.method.loss(loss_fn)}\nchain     {tx}")
    num_calls, held_out = train.num_steps // _per_call(experiment), experiment.test.num_tasks
    print(f"tasks     {data.name} from {data.shots} shots, {train.num_tasks} a step, {held_out} held out")
    print(f"steps     {train.num_steps}, in {num_calls} compiled call{'s' * (num_calls != 1)}")
    print(f"run       {run.path}", flush=True)
    start = time.perf_counter()
    learnt = _learn(experiment, net, run)
    seconds = time.perf_counter() - start
    tasks = _test_tasks(experiment)
    scores = jax.device_get(_evaluate(experiment, loss_fn)(learnt, tasks))
    _save_scores(experiment, scores, run.path / "scores.csv")
    _draw(experiment, net, learnt, run.path / "adaptation.png", plots=plots, title=title)
    print(table(experiment, scores))
    print(f"{_summary(experiment, scores)} after {train.num_steps} steps in {seconds:.0f} s")
    return scores


def regression(net: nets.Net) -> Callable[..., jax.Array]:
    """The squared error of a network."""

    def loss_fn(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
        return squared_error(net.apply(params, batch["x"]), batch["y"])

    return loss_fn


def seeds(experiment: MetaExperiment) -> range:
    """Those of the runs."""
    return range(experiment.seed, experiment.seed + experiment.num_seeds)


def _per_call(experiment: MetaExperiment) -> int:
    """Steps in a compiled call: those of a report, between which a run can be saved, unless the config says more."""
    return experiment.train.per_call if experiment.train.steps_per_call else experiment.train.per_report


def _learn(experiment: MetaExperiment, net: nets.Net, run: RunDirectory) -> Any:
    """What each seed learnt, with an axis of seeds in front."""
    train, method, per_call = experiment.train, experiment.method, _per_call(experiment)
    tx, sample = chain_from(experiment.optim, train.num_steps), method.sampler(experiment.data)
    update = step(method.loss(regression(net)), tx)
    steps = loop(update, lambda key: sample(key, train.num_tasks), per_call, report_every=train.per_report)

    def begin(key: jax.Array) -> TrainState:
        params = net.init(jax.random.fold_in(key, 0), experiment.data.example["x"])
        return init(method.learnt(params), tx)

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds(experiment), jnp.uint32))
    train_state, orders = jax.jit(jax.vmap(begin))(keys), jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
    checkpoints, done, rows = run.checkpoints(), 0, []
    if (saved := checkpoints.latest()) is not None:
        train_state, done, rows = checkpoints.restore(train_state, step=saved.step), saved.step, saved.extra["rows"]
        print(f"taken up at step {done}", flush=True)
    run.log_again(rows)
    train_state = jax.tree.map(settled, train_state)
    compiled, shown = jit(jax.vmap(steps), donate_argnums=0), Progress(done, train.num_steps)

    def place() -> Place:
        return Place(done, train_state, None, {"rows": rows})

    try:
        with keeping(checkpoints, run.every, place, begin=done, saved=saved is not None) as offer:
            while done < train.num_steps:
                check_interrupts()
                train_state, metrics = compiled(train_state, orders)
                rows += _log(experiment, done, np.asarray(metrics["loss"], np.float64), run)
                done += per_call
                _save(experiment, train_state.params, run)
                shown.report(rows[-1])
                offer(done)
    finally:
        shown.close()
    return train_state.params


def _log(experiment: MetaExperiment, done: int, losses: np.ndarray, run: RunDirectory) -> list[dict[str, float]]:
    """Keeps losses `[seeds, reports]`, and returns their rows."""
    rows = [
        {"step": done + (index + 1) * experiment.train.per_report}
        | {f"loss_{seed}": float(loss) for seed, loss in zip(seeds(experiment), column, strict=True)}
        for index, column in enumerate(losses.T)
    ]
    for row in rows:
        run.log(row)
        if not all(map(math.isfinite, row.values())):
            strange = ", ".join(f"{name} {value}" for name, value in row.items() if not math.isfinite(value))
            raise RunError(
                f"step {row['step']}: expected finite losses, got {strange}. A smaller method.inner_rate or "
                "optim.learning_rate may help"
            )
    return rows


def _save(experiment: MetaExperiment, learnt: Any, run: RunDirectory) -> None:
    places = {f"seed_{seed}": place for place, seed in enumerate(seeds(experiment))}
    run.save_params({name: jax.tree.map(operator.itemgetter(place), learnt) for name, place in places.items()}, {})


def _test_tasks(experiment: MetaExperiment) -> Any:
    sample = experiment.data.sampler(experiment.data.shots, experiment.test.grid)
    key = jax.random.fold_in(jax.random.key(experiment.seed), 2)
    return jax.jit(sample, static_argnums=1)(key, experiment.test.num_tasks)


def _evaluate(experiment: MetaExperiment, loss_fn: Any, *, has_aux: bool = False) -> Callable[..., TaskScores]:
    method = experiment.method
    evaluate = evaluate_tasks(
        loss_fn, method.inner, experiment.test.inner_steps, adapted=method.adapted, has_aux=has_aux
    )
    return jit(jax.vmap(evaluate, (0, None)))


def table(experiment: MetaExperiment, scores: TaskScores) -> str:
    """Scores by inner step and seed, beside what is published."""
    published = experiment.published
    known = dict(zip(published.steps, published.values, strict=True)) if published else {}
    lines = [
        f"mean squared error on {experiment.test.num_tasks} tasks with 95 % interval, median, tasks that diverged",
        "  ".join(["step", "published", *(f"{f'seed {seed}':<32}" for seed in seeds(experiment))]).rstrip(),
    ]
    for index in range(experiment.test.inner_steps + 1):
        cells = [_cell(scores, place, index) for place in range(experiment.num_seeds)]
        value = f"{known[index]:.3g}" if index in known else "-"
        lines.append("  ".join([f"{index:>4}", f"{value:>9}", *cells]).rstrip())
    if published:
        lines.append(f"published: {published.source}")
    return "\n".join(lines)


def _cell(scores: TaskScores, place: int, index: int) -> str:
    mean, interval, median = (each["loss"][place, index] for each in scores[:3])
    return f"{mean:<8.3g} ± {interval:<7.2g}  {median:<8.3g} {scores.diverged[place, index]:<3}"


def _summary(experiment: MetaExperiment, scores: TaskScores) -> str:
    last = min(max(experiment.method.inner_steps, 1), experiment.test.inner_steps)
    means = ", ".join(f"{mean:.3f}" for mean in scores.mean["loss"][:, last])
    return f"mean squared error {means} after {last} inner step{'s' * (last != 1)}"


def _save_scores(experiment: MetaExperiment, scores: TaskScores, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as rows:
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["seed", "inner_step", "mean", "interval", "median", "diverged"])
        for place, seed in enumerate(seeds(experiment)):
            for index in range(experiment.test.inner_steps + 1):
                found = [each["loss"][place, index] for each in (scores.mean, scores.interval, scores.median)]
                writer.writerow([seed, index, *map(float, found), int(scores.diverged[place, index])])


def _draw(experiment: MetaExperiment, net: nets.Net, learnt: Any, path: Path, *, plots: Any, title: str) -> None:
    """Draws what the first seed says of some tasks after each number of steps."""
    loss_fn, sample = regression(net), experiment.data.sampler(experiment.data.shots, NUM_POINTS)
    tasks = sample(jax.random.fold_in(jax.random.key(experiment.seed), 3), NUM_DRAWN)

    def with_curve(params: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        return loss_fn(params, batch, key), {"curve": net.apply(params, batch["x"])[:, 0]}

    values = _evaluate(experiment, with_curve, has_aux=True)(learnt, tasks).values["curve"][0]
    steps = [index for index in DRAWN_STEPS if index <= experiment.test.inner_steps]
    plots.adaptation(jax.device_get(tasks), {index: np.asarray(values[:, index]) for index in steps}, path, title)
