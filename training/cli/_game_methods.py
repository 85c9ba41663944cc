"""The mixtures, players and methods that a config of a game can name."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ... import nets
from ...optim import Link, from_config
from .._alternating import alternating
from .._game import unroll_player
from .._returned import LossFn
from .._state import TrainState
from .._step import step
from ._config import ConfigError, Range
from ._experiment import Positive
from ._networks import Count

PLAYERS = ("generator", "critic")


@dataclasses.dataclass(frozen=True)
class Ring:
    """Gaussians evenly on a circle.

    Attributes:
      num_modes: how many.
      radius: of the circle.
      sigma: the standard deviation of each.
    """

    name: Literal["ring"] = "ring"
    num_modes: Annotated[int, Range(1, 1000)] = 8
    radius: Positive = 2.0
    sigma: Positive = 0.1

    @property
    def centers(self) -> np.ndarray:
        """`[num_modes, 2]`."""
        angles = 2 * np.pi * np.arange(self.num_modes) / self.num_modes
        return (self.radius * np.stack([np.cos(angles), np.sin(angles)], -1)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Gaussians on a square grid around zero.

    Attributes:
      side: how many in a row.
      spacing: between neighbours.
      sigma: the standard deviation of each.
    """

    name: Literal["grid"] = "grid"
    side: Annotated[int, Range(1, 30)] = 5
    spacing: Positive = 2.0
    sigma: Positive = 0.05

    @property
    def centers(self) -> np.ndarray:
        """`[side * side, 2]`."""
        along = self.spacing * (np.arange(self.side) - (self.side - 1) / 2)
        return np.stack(np.meshgrid(along, along), -1).reshape(-1, 2).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class PlayerNets:
    """Both players, MLPs.

    Attributes:
      latent: normal numbers that the generator makes a sample from.
      generator: units of each of its hidden layers.
      critic: units of each of its hidden layers.
      activation: between the layers of both.
      critic_bias: the critic's first biases are uniform up to this size, so that a mixture of many modes finds kinks
        everywhere; zero unless given.
    """

    activations: ClassVar[dict[str, Callable[[Any], jax.Array]]] = {
        "relu": jax.nn.relu, "leaky_relu": jax.nn.leaky_relu, "tanh": jnp.tanh,
    }  # fmt: skip

    name: Literal["mlp"] = "mlp"
    latent: Count = 16
    generator: tuple[Count, ...] = (64, 64)
    critic: tuple[Count, ...] = (64, 64)
    activation: Literal["relu", "leaky_relu", "tanh"] = "relu"
    critic_bias: Positive | None = None

    def build(self) -> dict[str, nets.Net]:
        """The network of each player."""
        activation = self.activations[self.activation]
        return {
            "generator": nets.mlp(*self.generator, 2, activation=activation),
            "critic": self._critic(activation),
        }

    def _critic(self, activation: Any) -> nets.Net:
        if (bound := self.critic_bias) is None:
            return nets.mlp(*self.critic, 1, activation=activation)
        first, *hidden = self.critic

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nets.serial(nets.linear(first, b_init=uniform), activation, nets.mlp(*hidden, 1, activation=activation))

    @property
    def inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What each player's network is given."""
        sizes = {"generator": self.latent, "critic": 2}
        return {player: jax.ShapeDtypeStruct((size,), np.float32) for player, size in sizes.items()}

    def init(self, key: jax.Array) -> dict[str, Any]:
        """The players' first parameters."""
        built, inputs = self.build(), self.inputs
        return {p: built[p].init(jax.random.fold_in(key, place), inputs[p]) for place, p in enumerate(PLAYERS)}


@dataclasses.dataclass(frozen=True)
class Unroll:
    """Steps ahead of a player, which the other sees and differentiates through.

    Attributes:
      num_steps: how many.
      optim: the link that makes them, from a new state.
      player: whose they are.
    """

    num_steps: Count
    optim: dict[str, Any]
    player: Literal["generator", "critic"] = "critic"


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to play.

    Attributes:
      optim: a link as `optim.from_config` reads it.
      turns: moves of each player in a step, in this order; both move at once unless given. Then `optim` is a
        `by_player`.
      unroll: whose steps ahead the other sees.
    """

    optim: dict[str, Any]
    turns: dict[str, Count] | None = None
    unroll: Unroll | None = None

    def chain(self, num_steps: int, where: str) -> Link:
        """The link.

        Raises:
          ConfigError: if `optim` describes none.
        """
        return _link(self.optim, num_steps, f"{where}.optim")

    def step(self, loss_fn: LossFn, num_steps: int, where: str) -> Callable[[TrainState, Any], Any]:
        """A training step.

        Raises:
          ConfigError: if a part describes no link, or there are turns without `by_player`.
        """
        tx = self.chain(num_steps, where)
        if self.unroll is not None:
            ahead = _link(self.unroll.optim, num_steps, f"{where}.unroll.optim")
            loss_fn = unroll_player(loss_fn, self.unroll.player, ahead, self.unroll.num_steps)
        if self.turns is None:
            return step(loss_fn, tx)
        for player in self.turns:
            if player not in PLAYERS:
                expected = f"expected a player, one of {', '.join(PLAYERS)}"
                raise ConfigError(f"{where}.turns.{player}: {expected}, got {player!r}")
        try:
            return alternating(loss_fn, tx, self.turns)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}.turns: {error}") from None


def _link(tables: dict[str, Any], num_steps: int, where: str) -> Link:
    try:
        return from_config(tables, num_steps=num_steps, where=where)
    except ValueError as error:
        raise ConfigError(str(error)) from None
