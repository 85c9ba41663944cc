"""What a config of reinforcement learning can say: environment, agent, learner, loop, test."""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from ... import nets
from ...optim import Link
from .. import rl
from .._environment import Environment, environment_of
from ._agent import Feedforward, Recurrent
from ._config import ConfigError, Range, nearest
from ._dqn import Dqn
from ._experiment import Adam, Described, Sgd, chain_from
from ._learner import Learner
from ._networks import Count
from ._ppo import Ppo


@dataclasses.dataclass(frozen=True)
class CartPole:
    """CartPole-v1."""

    name: Literal["cart_pole"] = "cart_pole"

    max_steps = 500

    def build(self) -> Environment:
        """The environment."""
        return rl.cart_pole()


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """Pendulum-v1, whose actions go from -1 to 1 here."""

    name: Literal["pendulum"] = "pendulum"

    max_steps = 200

    def build(self) -> Environment:
        """The environment."""
        return rl.scale_actions(rl.pendulum())


@dataclasses.dataclass(frozen=True)
class Recall:
    """Naming what was shown some steps ago.

    Attributes:
      num_cues: how many things can be shown.
      delay: steps between.
    """

    name: Literal["recall"] = "recall"
    num_cues: Annotated[int, Range(2, 1000)] = 4
    delay: Annotated[int, Range(0, 10_000)] = 8

    @property
    def max_steps(self) -> int:
        """The length of an episode."""
        return self.delay + 2

    def build(self) -> Environment:
        """The environment."""
        return rl.recall(self.num_cues, self.delay)


@dataclasses.dataclass(frozen=True)
class Gymnax:
    """An environment of gymnax; observations are made flat, and actions in a box go from -1 to 1, beyond that clipped.

    Attributes:
      id: as gymnax names it, such as "Acrobot-v1".
      max_steps: the most that an episode of the test takes.
    """

    id: str
    name: Literal["gymnax"] = "gymnax"
    max_steps: Count = 1000

    def build(self) -> Environment:
        """The environment.

        Raises:
          ConfigError: without gymnax, and for an environment that it does not have.
        """
        try:
            import gymnax
        except ImportError:
            raise ConfigError("env.name: gymnax is not installed. pip install 'renga[rl]'") from None
        if self.id not in gymnax.registered_envs:
            guess = nearest(self.id, gymnax.registered_envs)
            hint = f"Did you mean {guess}?" if guess else f"Known are {', '.join(gymnax.registered_envs)}."
            raise ConfigError(f'env.id: expected an environment of gymnax, got "{self.id}". {hint}')
        env, _ = gymnax.make(self.id)
        flat = rl.transform_observations(environment_of("renga", env), _flat)
        return rl.clip_actions(rl.scale_actions(flat)) if hasattr(flat.action_space(), "low") else flat


def _flat(obs: Any) -> jax.Array:
    """All numbers of an observation, `[numbers]` of float32."""
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(obs)])


@dataclasses.dataclass(frozen=True)
class Play:
    """The loop.

    Attributes:
      num_updates: how often the learner learns.
      report_every: updates between reports; each one saves parameters and metrics.
    """

    num_updates: Count = 1000
    report_every: Count = 100


@dataclasses.dataclass(frozen=True)
class Trial:
    """The test: whole episodes, in which the agent acts without chance.

    Attributes:
      num_episodes: at the end.
      num_reported: at a report.
    """

    num_episodes: Count = 100
    num_reported: Count = 20


@dataclasses.dataclass(frozen=True)
class RlExperiment:
    """A whole config of reinforcement learning.

    Attributes:
      env: where.
      net: who acts.
      learner: by which algorithm.
      optim: as for `Experiment`; schedules last for all moves of the run.
      seed: root of the initial values, the episodes, and the order of what is learnt from.
      train: for how long.
      test: of what.

    Raises:
      ConfigError: if these do not fit together, or `optim` describes no link.
    """

    env: CartPole | Pendulum | Recall | Gymnax
    net: Feedforward | Recurrent
    learner: Ppo | Dqn
    optim: Sgd | Adam | Described
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    train: Play = Play()
    test: Trial = Trial()

    def __post_init__(self):
        env = self.env.build()
        self.chain  # noqa: B018 - which refuses what is no chain
        self.learner.check(env, self.net)

    @property
    def chain(self) -> Link:
        """The chain of the learner."""
        return chain_from(self.optim, self.learner.num_moves(self.train.num_updates))

    def build(self) -> tuple[Environment, Learner]:
        """The environment, and the learner in it."""
        env = self.env.build()
        return env, self.learner.learner(env, self.net, self.chain, self.train.num_updates)

    @property
    def networks(self) -> dict[str, tuple[nets.Net, Any]]:
        """The networks, each with what it is given."""
        env = self.env.build()
        obs = jax.eval_shape(env.reset_env, jax.random.key(0), env.default_params)[0]
        return self.learner.networks(env, self.net, obs)
