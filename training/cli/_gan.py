"""What a config of a GAN can say: generator, critic, their losses, the loop, the test."""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from ... import nets, optim
from .. import _gan as losses_of
from .._alternating import alternating
from ._config import Range
from ._digits import Digits
from ._experiment import Adam, Described, Sgd, Train, chain_from
from ._networks import Count, Share

IMAGE_SIZE = 8
Weight = Annotated[float, Range(0)]
Chain = Sgd | Adam | Described


@dataclasses.dataclass(frozen=True)
class Generator:
    """The convolutional generator of DCGAN.

    Attributes:
      optim: as for `Experiment`.
      latents: numbers that an image is made from, drawn from the normal distribution.
      width: channels of the last layer but one.
      turns: moves a step.
      average: decay of the moving average of the parameters, with which images are made in reports and the test.
    """

    optim: Chain
    latents: Count = 64
    width: Count = 64
    turns: Count = 1
    average: Share = 0.999


@dataclasses.dataclass(frozen=True)
class Critic:
    """The convolutional discriminator of DCGAN, which for images of 8x8 pixels has no batch norm.

    Attributes:
      optim: as for `Experiment`.
      width: channels of the first convolution.
      turns: moves a step, before the generator's, each on a batch of its own.
    """

    optim: Chain
    width: Count = 64
    turns: Count = 1


@dataclasses.dataclass(frozen=True)
class Loss:
    """What both descend.

    Attributes:
      name: as in `renga.training`, where the names end in `_gan`.
      gradient_penalty: weight in the critic's loss of how far its slope is from 1 between data and samples.
      slope_penalty: weight in the critic's loss of its mean squared slope on data, R1.
    """

    name: Literal[
        "non_saturating", "saturating", "wasserstein", "hinge", "least_squares", "relativistic", "relativistic_average"
    ] = "non_saturating"
    gradient_penalty: Weight = 0.0
    slope_penalty: Weight = 0.0


@dataclasses.dataclass(frozen=True)
class GanTest:
    """The test, by a classifier that is trained on the digits.

    Attributes:
      num_samples: images that the generator makes.
      sure: the probability that the classifier has to give a digit for it to count.
      classifier_steps: for how many steps the classifier is trained.
    """

    num_samples: Annotated[int, Range(100)] = 1000
    sure: Share = 0.5
    classifier_steps: Count = 1000


@dataclasses.dataclass(frozen=True)
class GanExperiment:
    """A whole config of a GAN.

    Attributes:
      generator: who makes images.
      critic: who tells them from data.
      loss: of both.
      seed: root of the split, the initial values, the order of the batches and the latents.
      data: what to learn from.
      train: for how long; the batch size is that of one move.
      test: of what.

    Raises:
      ConfigError: if one of the tables `optim` describes no link.
    """

    generator: Generator
    critic: Critic
    loss: Loss = Loss()
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    data: Digits = Digits()  # noqa: RUF009 - frozen
    train: Train = Train()  # noqa: RUF009 - frozen
    test: GanTest = GanTest()

    def __post_init__(self):
        self.chain  # noqa: B018 - which refuses what is no chain

    @property
    def players(self) -> dict[str, nets.Net]:
        """The players' networks."""
        return {
            "generator": nets.dcgan_generator(IMAGE_SIZE, 1, width=self.generator.width),
            "critic": nets.dcgan_discriminator(IMAGE_SIZE, width=self.critic.width),
        }

    @property
    def inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What each of them is given, for two images."""
        latents = jax.ShapeDtypeStruct((2, self.generator.latents), jnp.float32)
        return {"generator": latents, "critic": jax.ShapeDtypeStruct((2, *self.data.example["x"].shape), jnp.float32)}

    @property
    def chain(self) -> optim.Link:
        """The players' chains, the generator's with an average."""
        made = {}
        for player, config in (("generator", self.generator), ("critic", self.critic)):
            num_steps = self.train.num_steps * config.turns
            made[player] = chain_from(config.optim, num_steps, where=f"{player}.optim")
        made["generator"] = optim.chain(made["generator"], optim.ema_params(self.generator.average))
        return optim.by_player(made)

    @property
    def turns(self) -> dict[str, int]:
        """Moves a step, in order."""
        return {"critic": self.critic.turns, "generator": self.generator.turns}

    @property
    def num_moves(self) -> int:
        """Moves a step, and batches."""
        return sum(self.turns.values())

    def step(self) -> Any:
        """The training step, on `{"x": [num_moves * batch_size, 8, 8, 1]}` with values in [0, 1]."""
        moves = alternating(
            Field(self.players["generator"], self.players["critic"], self.loss, self.generator.latents),
            self.chain, self.turns, own_batches=True, stateful=True,
        )  # fmt: skip

        def one_step(train_state: Any, batch: Any) -> Any:
            return moves(train_state, batch["x"].reshape(self.num_moves, -1, *batch["x"].shape[1:]))

        return one_step


@dataclasses.dataclass(frozen=True)
class Field:
    """The game of a generator and a critic, as a stateful loss of both; images go from [0, 1] to (-1, 1).

    Attributes:
      generator: a net with state.
      critic: a net without.
      loss: of the config.
      latents: numbers that an image is made from.
    """

    generator: Any
    critic: nets.Net
    loss: Loss
    latents: int

    def __call__(self, players: Any, state: Any, batch: jax.Array, key: jax.Array) -> Any:
        latent_key, penalty_key = jax.random.split(key)
        real = 2 * batch - 1
        latents = jax.random.normal(latent_key, (len(real), self.latents))
        fake, new = self.generator.apply(players["generator"], state["generator"], latents, train=True)

        def critic(x: jax.Array) -> jax.Array:
            return self.critic.apply(players["critic"], x)

        generator_loss, critic_loss = getattr(losses_of, f"{self.loss.name}_gan")(critic(real), critic(fake))
        if self.loss.gradient_penalty:
            penalty = losses_of.gradient_penalty(critic, real, fake, penalty_key)
            critic_loss = critic_loss + self.loss.gradient_penalty * penalty
        if self.loss.slope_penalty:
            critic_loss = critic_loss + self.loss.slope_penalty * losses_of.slope_penalty(critic, real)
        return {"generator": generator_loss, "critic": critic_loss}, ({"generator": new}, {})


def images(net: Any, params: Any, state: Any, latents: jax.Array) -> jax.Array:
    """What a generator makes of latents `[images, latents]`, `[images, 8, 8, 1]` in (0, 1).

    Its norms take their statistics from these images: those that it carries are not of averaged parameters.
    """
    return (net.apply(params, state, latents, train=True)[0] + 1) / 2


def latents_for(key: jax.Array, num: int, experiment: GanExperiment) -> jax.Array:
    """Latents of so many images."""
    return jax.random.normal(key, (num, experiment.generator.latents), jnp.float32)
