"""A run of a GAN: samples judged by a classifier of the digits, pictures of them, and how they came about."""

import csv
import io
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ... import nets, optim
from .._data import batches
from .._fit import fit
from .._guarded import NotFiniteError, guarded
from .._interrupts import deferred_interrupts
from .._losses import accuracy
from .._samples import frechet_distance
from .._sealed import write_whole
from .._state import TrainState, init
from .._step import step
from ._config import ConfigError
from ._digits import NUM_CLASSES
from ._directory import CHECKPOINTS, Opened, RunDirectory, RunError, new_run
from ._gan import GanExperiment, images, latents_for
from ._run import load_plots, rows_of
from ._task import Losses, Split

NUM_DRAWN = 100
CHANNELS, FEATURES = (32, 64), 64
ENOUGH = 0.03


class Judge(NamedTuple):
    """A classifier of the digits, and what its hidden layer says of them.

    Attributes:
      params: its parameters.
      accuracy: on what is held out.
      real: features of the training images, `[images, 64]`.
      floor: the Fréchet distance of what is held out from the training images.
    """

    params: Any
    accuracy: float
    real: jax.Array
    floor: float


class Scores(NamedTuple):
    """What the classifier says of samples.

    Attributes:
      shares: of the samples, of each class that it is sure of, `[classes]`.
      frechet: the Fréchet distance of their features from those of the training images.
    """

    shares: np.ndarray
    frechet: float

    @property
    def classes(self) -> int:
        """How many classes have a share that is large enough."""
        return int((self.shares >= ENOUGH).sum())


def gan_train(experiment: GanExperiment, directory: Path, title: str, *, opened: Opened = new_run) -> Scores:
    """Trains as a config says, and leaves a run directory.

    Args:
      experiment: the config.
      directory: where to leave it.
      title: what the pictures are headed with.
      opened: a new directory, or that of a run to go on with.
    Returns:
      The scores of the last samples.
    Raises:
      ConfigError: if something cannot be run, before anything is compiled.
      RunError: if a player is no longer finite; the last good parameters are kept.
      KeyboardInterrupt: between two calls of steps, if Ctrl-C was pressed; the run is saved.
    """
    with deferred_interrupts():
        plots, data = load_plots(), experiment.data
        split = data.split(data.load(experiment.seed, experiment.train.batch_size), experiment.seed)
        _check_moves(experiment, len(split.train["y"]))
        with opened(directory, experiment, title) as run:
            return _train(experiment, split, run, plots=plots, title=title)


def _train(experiment: GanExperiment, split: Split, run: RunDirectory, *, plots: Any, title: str) -> Scores:
    for player, net in experiment.players.items():
        print(f"{player:<9} {net}")
    print(f"chain     {experiment.chain}\nturns     {', '.join(f'{p} {n}' for p, n in experiment.turns.items())}")
    print(f"images    {len(split.train['y'])} to train on, {len(split.test['y'])} held out")
    judge = train_judge(experiment, split)
    print(f"judge     {accuracy_line(judge)}\nrun       {run.path}", flush=True)
    start = time.perf_counter()
    train_state, history = _fit(experiment, split, judge, run)
    seconds = time.perf_counter() - start
    frames = [np.load(_frame(run, row["step"])) for row in history]
    plots.images(frames[-1], run.path / "samples.png")
    plots.animation(frames, run.path / "samples.gif")
    plots.players(history, run.path / "curves.png", title)
    scores = judged(experiment, judge, train_state)
    _save_classes(scores, run.path / "classes.csv")
    print(f"shares    {'  '.join(f'{digit}: {share:.3f}' for digit, share in enumerate(scores.shares))}")
    print(
        f"{scores.classes} of {NUM_CLASSES} digits with a share of {ENOUGH:.0%} or more among "
        f"{experiment.test.num_samples} samples, Fréchet distance {scores.frechet:.2f} on features of the judge, after "
        f"{history[-1]['step']:.0f} steps in {seconds:.0f} s"
    )
    return scores


def train_judge(experiment: GanExperiment, split: Split) -> Judge:
    """A convolutional network that learns to tell the digits of the training data apart."""
    net = nets.convnet(CHANNELS, FEATURES, NUM_CLASSES)
    losses, num_steps = Losses(net, experiment.data), experiment.test.classifier_steps
    tx = optim.adam(optim.cosine_decay_schedule(3e-3, num_steps))
    init_key, order_key = jax.random.split(jax.random.fold_in(jax.random.key(experiment.seed), 5))
    params, state = losses.init(init_key)
    feed = batches(split.train, min(64, len(split.train["y"])), key=order_key)
    train_state, _ = fit(
        step(losses.loss, tx, stateful=True), init(params, tx, state=state), feed,
        num_steps=num_steps, progress=False,
    )  # fmt: skip
    params = train_state.params
    told = accuracy(net.apply(params, split.test["x"]), split.test["y"])
    real, held_out = (features(params, part["x"]) for part in (split.train, split.test))
    return Judge(params, float(told), real, float(frechet_distance(held_out, real)))


def features(params: Any, x: Any) -> jax.Array:
    """What the hidden layer of a classifier says of images, `[images, features]`: its head is the identity."""
    head = {"w": jnp.eye(FEATURES), "b": jnp.zeros(FEATURES)}
    return nets.convnet(CHANNELS, FEATURES, FEATURES).apply({**params, "head": head}, x)


def accuracy_line(judge: Judge) -> str:
    """How good the classifier is."""
    return f"test accuracy {judge.accuracy:.4f}, Fréchet distance of what is held out {judge.floor:.2f}"


def judged(experiment: GanExperiment, judge: Judge, train_state: TrainState) -> Scores:
    """The scores of images by the averaged generator."""
    key = jax.random.fold_in(jax.random.key(experiment.seed), 6)
    made = averaged_images(experiment, train_state, latents_for(key, experiment.test.num_samples, experiment))
    says = jax.nn.softmax(nets.convnet(CHANNELS, FEATURES, NUM_CLASSES).apply(judge.params, made))
    sure = jnp.max(says, -1) >= experiment.test.sure
    shares = jnp.mean(jax.nn.one_hot(jnp.argmax(says, -1), NUM_CLASSES) * sure[:, None], 0)
    return Scores(np.asarray(shares), float(frechet_distance(features(judge.params, made), judge.real)))


def averaged_images(experiment: GanExperiment, train_state: TrainState, latents: jax.Array) -> jax.Array:
    """What the generator makes with the moving average of its parameters."""
    params = optim.eval_params(train_state.opt_state["generator"], train_state.params["generator"])
    return images(experiment.players["generator"], params, train_state.state["generator"], latents)


def begin(experiment: GanExperiment) -> TrainState:
    """The train state before the first step."""
    key = jax.random.key(experiment.seed)
    generator_key, critic_key, loss_key = (jax.random.fold_in(key, use) for use in (1, 2, 3))
    built, inputs = experiment.players, experiment.inputs
    params, state = built["generator"].init(generator_key, inputs["generator"])
    players = {"generator": params, "critic": built["critic"].init(critic_key, inputs["critic"])}
    return init(players, experiment.chain, state={"generator": state}, key=loss_key)


def _fit(
    experiment: GanExperiment, split: Split, judge: Judge, run: RunDirectory
) -> tuple[TrainState, list[dict[str, float]]]:
    key, train = jax.random.key(experiment.seed), experiment.train
    shown = latents_for(jax.random.fold_in(key, 7), NUM_DRAWN, experiment)
    size, checkpoints = train.batch_size * experiment.num_moves, run.checkpoints()
    feed = batches({"x": split.train["x"]}, size, key=jax.random.fold_in(key, 4))
    run.log_again(rows_of(checkpoints))

    def test(train_state: TrainState) -> dict[str, float]:
        held = io.BytesIO()
        np.save(held, averaged_images(experiment, train_state, shown))
        frame = _frame(run, int(train_state.step))
        frame.parent.mkdir(exist_ok=True)
        write_whole(frame, held.getvalue())
        scores = judged(experiment, judge, train_state)
        return {"classes": scores.classes, "frechet": scores.frechet}

    def keep(row: dict[str, float], train_state: TrainState) -> None:
        run.log(row)
        run.save_params(train_state.params, train_state.state)

    try:
        return fit(
            guarded(experiment.step()), begin(experiment), feed,
            num_steps=train.num_steps, report_every=train.report_every, evaluate=test, on_report=keep,
            checkpoints=checkpoints, checkpoint_every=run.every,
        )  # fmt: skip
    except NotFiniteError as error:
        raise RunError(
            f"step {int(error.train_state.step)}: expected finite players, got {', '.join(error.players)} with NaN or "
            f"infinity in the next. A smaller {error.players[0]}.optim.learning_rate may help. The parameters of this "
            "step are kept"
        ) from None


def _frame(run: RunDirectory, step: float) -> Path:
    """What was drawn at a report; kept as checkpoints are, since the animation needs all of them."""
    return run.path / CHECKPOINTS / "frames" / f"{step:.0f}.npy"


def _check_moves(experiment: GanExperiment, num: int) -> None:
    moves, size = experiment.num_moves, experiment.train.batch_size
    if moves * size > num:
        raise ConfigError(
            f"train.batch_size: expected at most {num // moves}, since {moves} moves a step share {num} training "
            f"images, got {size}"
        )


def _save_classes(scores: Scores, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as rows:
        table = [("digit", "share"), *enumerate(map(float, scores.shares))]
        csv.writer(rows, lineterminator="\n").writerows(table)
