"""What a config of a game can say: a mixture of Gaussians, two players, methods to compare, loop, test."""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from .._game import game
from .._gan import (
    hinge_gan,
    least_squares_gan,
    non_saturating_gan,
    relativistic_average_gan,
    relativistic_gan,
    saturating_gan,
)
from .._returned import LossFn
from .._state import TrainState, init
from ._config import ConfigError, Range
from ._experiment import Positive
from ._game_methods import PLAYERS, Grid, Method, PlayerNets, Ring
from ._networks import Count

LOSSES = {
    "non_saturating": non_saturating_gan,
    "saturating": saturating_gan,
    "hinge": hinge_gan,
    "least_squares": least_squares_gan,
    "relativistic": relativistic_gan,
    "relativistic_average": relativistic_average_gan,
}


@dataclasses.dataclass(frozen=True)
class GameTrain:
    """The loop, one compiled call for all seeds between two reports.

    Raises:
      ConfigError: if `report_every` does not divide `num_steps`.

    Attributes:
      num_steps: steps of each method.
      batch_size: points of data, and samples, in a step.
      report_every: steps between reports; each one is a row of metrics and a picture of the animation. Fewer where
        there are not so many steps.
    """

    num_steps: Count = 8000
    batch_size: Count = 256
    report_every: Count = 400

    def __post_init__(self):
        if self.num_steps % self.per_report:
            expected = f"expected a divisor of train.num_steps = {self.num_steps}"
            raise ConfigError(f"train.report_every: {expected}, got {self.report_every}")

    @property
    def per_report(self) -> int:
        """Steps between reports."""
        return min(self.report_every, self.num_steps)


@dataclasses.dataclass(frozen=True)
class GameTest:
    """What counts as found.

    Attributes:
      num_samples: that are looked at.
      radius: how near to a mode is near, in standard deviations.
      at_least: samples near to it that a mode needs.
    """

    num_samples: Count = 2500
    radius: Positive = 3.0
    at_least: Count = 25


@dataclasses.dataclass(frozen=True)
class GameExperiment:
    """A whole config of a game: one problem, and methods side by side.

    Attributes:
      methods: by name, each a way to play.
      play: names of the methods to run; all unless given.
      seed: the first seed.
      num_seeds: how many runs of each method, side by side; their seeds follow on the first.
      data: what the generator is to make.
      net: the players.
      loss: what they descend, `renga.training`'s function of that name with `_gan` behind it.
      train: for how long.
      test: what counts as found.

    Raises:
      ConfigError: if a method cannot be run.
    """

    methods: dict[str, Method]
    play: tuple[str, ...] | None = None
    seed: Annotated[int, Range(0, 2**31)] = 0
    num_seeds: Annotated[int, Range(1, 1000)] = 5
    data: Ring | Grid = Ring()  # noqa: RUF009 - frozen, so all may share it
    net: PlayerNets = PlayerNets()  # noqa: RUF009 - frozen
    loss: Literal["non_saturating", "saturating", "hinge", "least_squares", "relativistic", "relativistic_average"] = (
        "non_saturating"
    )
    train: GameTrain = GameTrain()
    test: GameTest = GameTest()

    def __post_init__(self):
        if not self.methods:
            raise ConfigError("methods: expected a table for each method, such as [methods.adam], got none")
        for place, name in enumerate(self.play or ()):
            if name not in self.methods:
                raise ConfigError(f"play[{place}]: expected one of {', '.join(self.methods)}, got {name!r}")
        players, loss_fn = jax.eval_shape(lambda: self.net.init(jax.random.key(0))), gan(self)
        for name, method in self.methods.items():
            where = f"methods.{name}"
            method.step(loss_fn, self.train.num_steps, where)
            try:
                jax.eval_shape(method.chain(self.train.num_steps, where).init, players)
            except ValueError as error:
                raise error if isinstance(error, ConfigError) else ConfigError(f"{where}.optim: {error}") from None

    @property
    def played(self) -> dict[str, Method]:
        """The methods to run."""
        return {name: self.methods[name] for name in self.play or self.methods}

    @property
    def seeds(self) -> range:
        """Those of the runs."""
        return range(self.seed, self.seed + self.num_seeds)


def sample_mixture(experiment: GameExperiment, key: jax.Array, num: int) -> jax.Array:
    """Points of the data, `[num, 2]`."""
    centers = jnp.asarray(experiment.data.centers)
    which_key, noise_key = jax.random.split(key)
    which = jax.random.randint(which_key, (num,), 0, len(centers))
    return centers[which] + experiment.data.sigma * jax.random.normal(noise_key, (num, 2))


def generate(experiment: GameExperiment, players: Any, key: jax.Array, num: int) -> jax.Array:
    """Samples of the generator, `[num, 2]`."""
    latent = jax.random.normal(key, (num, experiment.net.latent))
    return experiment.net.build()["generator"].apply(players["generator"], latent)


def gan(experiment: GameExperiment) -> LossFn:
    """The game of both players on a batch of data `[batch, 2]`, with samples of its key."""
    critic, losses = experiment.net.build()["critic"], LOSSES[experiment.loss]

    def loss_of(player: str) -> LossFn:
        def loss_fn(players: Any, batch: Any, key: Any) -> jax.Array:
            fake = generate(experiment, players, key, len(batch))
            on_real, on_fake = (critic.apply(players["critic"], x) for x in (batch, fake))
            return getattr(losses(on_real, on_fake), player)

        return loss_fn

    return game({player: loss_of(player) for player in PLAYERS})


def begin(experiment: GameExperiment, method: Method, where: str, key: jax.Array) -> TrainState:
    """The state that a seed begins with; its players are the same for every method."""
    players = experiment.net.init(jax.random.fold_in(key, 0))
    return init(players, method.chain(experiment.train.num_steps, where), key=jax.random.fold_in(key, 1))
