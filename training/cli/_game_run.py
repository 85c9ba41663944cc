"""A run of a game: every method on all seeds side by side, a table, samples beside the data, an animation."""

import dataclasses
import functools
import operator
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._checkpoints import Checkpoints, Saved
from .._compiler import jit
from .._interrupts import check_interrupts, deferred_interrupts
from .._keeping import Place, keeping
from .._loop import loop
from .._progress import Progress
from .._run import settled
from .._samples import modes_found, sliced_wasserstein
from ._directory import Opened, RunDirectory, new_run
from ._game import GameExperiment, begin, gan, generate, sample_mixture
from ._game_plots import animation, pictures
from ._game_table import MEASURES, Played, save_scores, summary, table
from ._run import load_plots

NUM_SLICES = 32  # directions enough in the plane


def game_train(
    experiment: GameExperiment, directory: Path, title: str, *, opened: Opened = new_run
) -> dict[str, Played]:
    """Plays as a config says, by every method, and leaves a run directory.

    Args:
      experiment: the config.
      directory: where to leave it.
      title: what the pictures are headed with.
      opened: a new directory, or that of a run to go on with.
    Returns:
      What each method came to, by its name.
    Raises:
      ConfigError: if something cannot be run, before anything is compiled.
      KeyboardInterrupt: between two compiled calls, if Ctrl-C was pressed; the run is saved.
    """
    with deferred_interrupts():
        load_plots()
        with opened(directory, experiment, title) as run:
            return _train(experiment, run, title)


def _train(experiment: GameExperiment, run: RunDirectory, title: str) -> dict[str, Played]:
    train, data, start = experiment.train, experiment.data, time.perf_counter()
    print("\n".join(f"{player:<9} {net}" for player, net in experiment.net.build().items()))
    print(f"data      {len(data.centers)} Gaussians in a {data.name}, sigma {data.sigma:g}")
    num_calls = train.num_steps // train.per_report
    print(f"steps     {train.num_steps} by {experiment.num_seeds} seeds, in {num_calls} compiled calls")
    print(f"run       {run.path}", flush=True)
    keys = jax.vmap(jax.random.key)(jnp.asarray(experiment.seeds, jnp.uint32))
    look = jax.jit(jax.vmap(functools.partial(_look, experiment)))
    real, *measured = jax.device_get(jax.jit(jax.vmap(functools.partial(_look_at_data, experiment)))(keys))
    found: dict[str, Played] = {}
    saved = {name: _checkpoints(experiment, name, run).latest() for name in experiment.played}
    run.log_again(row for name, each in saved.items() if each for row in _rows(experiment, name, each))
    for name in experiment.played:
        found[name] = _play(experiment, name, keys, look=look, run=run, saved=saved[name])
        run.save_params({each: _by_seed(experiment, played.players) for each, played in found.items()}, {})
    save_scores(experiment, found, run.path / "scores.csv")
    pictures(real, {name: played.samples[-1] for name, played in found.items()}, run.path / "samples.png", title)
    steps = train.per_report * np.arange(1, num_calls + 1)
    animation(real[0], {name: played.samples[:, 0] for name, played in found.items()}, steps, run.path / "training.gif")
    print(table(experiment, dict(zip(MEASURES, measured, strict=True)), found))
    print(f"{summary(experiment, found)} after {train.num_steps} steps in {time.perf_counter() - start:.0f} s")
    return found


def _measure(experiment: GameExperiment, samples: jax.Array, key: jax.Array) -> Any:
    """Samples with how close they are to the data: modes found, share near to any, distance."""
    data, test = experiment.data, experiment.test
    found = modes_found(samples, jnp.asarray(data.centers), test.radius * data.sigma, at_least=test.at_least)
    real = sample_mixture(experiment, jax.random.fold_in(key, 4), test.num_samples)
    distance = sliced_wasserstein(samples, real, jax.random.fold_in(key, 5), num_slices=NUM_SLICES)
    return samples, found.found, found.near, distance


def _look(experiment: GameExperiment, players: Any, key: jax.Array) -> Any:
    """The same latent numbers at every report, so that one sees them move."""
    samples = generate(experiment, players, jax.random.fold_in(key, 3), experiment.test.num_samples)
    return _measure(experiment, samples, key)


def _look_at_data(experiment: GameExperiment, key: jax.Array) -> Any:
    return _measure(
        experiment, sample_mixture(experiment, jax.random.fold_in(key, 6), experiment.test.num_samples), key
    )


@dataclasses.dataclass
class _Course:
    """A method while it plays.

    Attributes:
      train_state: now, with an axis of seeds in front.
      kept: the last players at which every loss was finite.
      samples: of each report, `[reports, seeds, samples, 2]`.
      looks: metrics of each report, `{name: [seeds]}`.
      seconds: of training alone.
    """

    train_state: Any
    kept: Any
    samples: np.ndarray
    looks: list[dict[str, list[float]]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def arrays(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"train_state": self.train_state, "kept": self.kept, "samples": self.samples}

    def played(self) -> Played:
        """What it came to."""
        together = {each: np.array([look[each] for look in self.looks]) for each in self.looks[0]}
        return Played(self.kept, self.samples, together, self.seconds)


def _checkpoints(experiment: GameExperiment, name: str, run: RunDirectory) -> Checkpoints:
    return run.checkpoints(f"method_{list(experiment.played).index(name)}")


def _begun(
    experiment: GameExperiment, name: str, keys: jax.Array, checkpoints: Checkpoints, saved: Saved | None
) -> _Course:
    """A method at its beginning, or where it was saved."""
    start = functools.partial(begin, experiment, experiment.methods[name], f"methods.{name}")
    train_state = jax.jit(jax.vmap(start))(keys)
    samples = np.zeros(
        (0 if saved is None else len(saved.extra["looks"]), len(keys), experiment.test.num_samples, 2), np.float32
    )
    course = _Course(train_state, train_state.params, samples)
    if saved is not None:
        course = _Course(**checkpoints.restore(course.arrays, step=saved.step), **saved.extra)
        print(f"taken up at step {saved.step}", flush=True)
    course.train_state = jax.tree.map(settled, course.train_state)  # donated, so that no other may share its arrays
    course.kept = jax.tree.map(settled, course.kept)
    return course


def _play(
    experiment: GameExperiment, name: str, keys: jax.Array, *, look: Any, run: RunDirectory, saved: Saved | None
) -> Played:
    train, method, checkpoints = experiment.train, experiment.methods[name], _checkpoints(experiment, name, run)
    steps = loop(
        method.step(gan(experiment), train.num_steps, f"methods.{name}"),
        lambda key: sample_mixture(experiment, key, train.batch_size),
        train.per_report,
        report_every=train.per_report,
    )
    print(f"\n{name}: {_said(experiment, name)}", flush=True)
    course = _begun(experiment, name, keys, checkpoints, saved)
    done = len(course.looks) * train.per_report
    if done == train.num_steps:
        return course.played()
    orders = jax.vmap(jax.random.fold_in, (0, None))(keys, 2)
    compiled = jit(jax.vmap(steps), donate_argnums=0).lower(course.train_state, orders).compile()
    shown = Progress(done, train.num_steps)

    def place() -> Place:
        return Place(done, course.arrays, None, {"looks": course.looks, "seconds": course.seconds})

    try:
        with keeping(checkpoints, run.every, place, begin=done, saved=saved is not None) as offer:
            while done < train.num_steps:
                check_interrupts()
                start = time.perf_counter()
                course.train_state, losses = jax.block_until_ready(compiled(course.train_state, orders))
                course.seconds += time.perf_counter() - start
                metrics = {each: np.asarray(loss, np.float64)[:, 0] for each, loss in losses.items()}
                samples, *measured = jax.device_get(look(course.train_state.params, keys))
                course.kept = _where_finite(metrics, course.train_state.params, course.kept)
                metrics |= {each: np.asarray(value, np.float64) for each, value in zip(MEASURES, measured, strict=True)}
                course.looks.append({each: value.tolist() for each, value in metrics.items()})
                course.samples = np.concatenate([course.samples, samples[None]])
                done += train.per_report
                for row in _rows_at(experiment, name, done, course.looks[-1]):
                    run.log(row)
                shown.report({"step": done, "modes": metrics["modes"].mean(), "near": metrics["near"].mean()})
                offer(done)
    finally:
        shown.close()
    return course.played()


def _where_finite(losses: dict[str, np.ndarray], new: Any, kept: Any) -> Any:
    """The new parameters of the seeds that are finite, as their losses are, and of the others those that were kept."""
    each = [np.asarray(leaf) for leaf in [*losses.values(), *jax.tree.leaves(new)]]
    finite = np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in each], 0)
    return jax.tree.map(lambda a, b: jnp.where(finite.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, kept)


def _said(experiment: GameExperiment, name: str) -> str:
    """A method on one line."""
    method, num_steps = experiment.methods[name], experiment.train.num_steps
    words = [repr(method.chain(num_steps, f"methods.{name}"))]
    if method.turns is not None:
        words.append("in turns " + ", ".join(f"{player} {count}" for player, count in method.turns.items()))
    if method.unroll is not None:
        words.append(f"{method.unroll.num_steps} steps of the {method.unroll.player} ahead")
    return ", ".join(words)


def _rows(experiment: GameExperiment, name: str, saved: Saved) -> Iterator[dict[str, float | str]]:
    for index, look in enumerate(saved.extra["looks"], 1):
        yield from _rows_at(experiment, name, index * experiment.train.per_report, look)


def _rows_at(
    experiment: GameExperiment, name: str, step: int, look: dict[str, list[float]]
) -> Iterator[dict[str, float | str]]:
    for place, seed in enumerate(experiment.seeds):
        yield {"method": name, "seed": seed, "step": step} | {each: value[place] for each, value in look.items()}


def _by_seed(experiment: GameExperiment, players: Any) -> dict[str, Any]:
    return {
        f"seed_{seed}": jax.tree.map(operator.itemgetter(place), players) for place, seed in enumerate(experiment.seeds)
    }
