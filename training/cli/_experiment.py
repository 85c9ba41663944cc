"""What a config can say: data, network, optimizer, loop; and the network and the chain that it builds."""

import dataclasses
from typing import Annotated, Any, Literal

from ... import nets, optim
from ._attack import Attack
from ._config import ConfigError, Described, Range
from ._digits import Digits
from ._docstrings import Docstrings
from ._documentation import Documentation
from ._networks import Convnet, Count, Gru, LstmLm, Mlp, Resnet, Share, Transformer, Vit

Positive = Annotated[float, Range(0, open_low=True)]


@dataclasses.dataclass(frozen=True)
class Sgd:
    """Gradient descent with momentum, under SAM if `rho` is given: a short form of the most usual chain.

    Attributes:
      learning_rate: at the start.
      momentum: the share of the velocity that is kept.
      schedule: "constant", or "cosine" to zero over the run.
      rho: radius of SAM's perturbation.
      clip_norm: bound on the global norm of the gradient that is applied.
    """

    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Share = 0.9
    schedule: Literal["constant", "cosine"] = "constant"
    rho: Annotated[float, Range(0)] | None = None
    clip_norm: Positive | None = None

    def base(self, learning_rate: Any) -> optim.Link:
        """The optimizer itself."""
        return optim.sgd(learning_rate, momentum=self.momentum)


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam with decoupled weight decay, under SAM if `rho` is given: a short form too.

    Attributes:
      learning_rate: at the start.
      weight_decay: share of the weights that is subtracted at each step, times the learning rate.
      schedule: as for `Sgd`.
      rho: as for `Sgd`.
      clip_norm: as for `Sgd`.
    """

    name: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Range(0)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    rho: Annotated[float, Range(0)] | None = None
    clip_norm: Positive | None = None

    def base(self, learning_rate: Any) -> optim.Link:
        """The optimizer itself."""
        decays = not isinstance(self.weight_decay, float) or self.weight_decay > 0  # an array of a sweep may be zero
        return optim.adamw(learning_rate, weight_decay=self.weight_decay) if decays else optim.adam(learning_rate)


@dataclasses.dataclass(frozen=True)
class Train:
    """The loop.

    Attributes:
      num_steps: batches in all.
      batch_size: examples a batch.
      report_every: steps between reports; each one saves parameters and metrics.
    """

    num_steps: Count = 1000
    batch_size: Count = 64
    report_every: Count = 100


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A whole config.

    Attributes:
      seed: root of the split, the initial values and the order of the batches.
      data: what to learn from.
      net: what learns.
      optim: how. Of another name than the short forms', it is a link as `optim.from_config` reads it, such as a chain;
        schedules that do not say how long they last, last for `train.num_steps`.
      train: for how long.
      attack: on digits, in training and in the test.

    Raises:
      ConfigError: if the network, or the attack, is none for the data, or `optim` describes no link.
    """

    net: Convnet | Mlp | Resnet | Vit | LstmLm | Transformer | Gru
    optim: Sgd | Adam | Described
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0  # JAX drops the bits above
    data: Digits | Documentation | Docstrings = Digits()  # noqa: RUF009 - frozen, so all may share it
    train: Train = Train()
    attack: Attack | None = None

    def __post_init__(self):
        if not isinstance(self.net, self.data.networks):
            known = ", ".join(network.name for network in self.data.networks)
            expected = f'expected one of {known} where data.name is "{self.data.name}"'
            raise ConfigError(f'net.name: {expected}, got "{self.net.name}"')
        if self.attack is not None and not isinstance(self.data, Digits):
            raise ConfigError(f'attack: expected data.name to be "digits", got "{self.data.name}"')
        chain_of(self)  # which refuses what is no chain


def net_of(experiment: Experiment) -> nets.Net:
    """The network that a config describes, with as many outputs as its data need."""
    return experiment.net.build(experiment.data.num_outputs)


def chain_of(experiment: Experiment) -> optim.Link:
    """The chain that a config describes; in short, SAM, then the clip, then the optimizer.

    Raises:
      ConfigError: if it describes none.
    """
    return chain_from(experiment.optim, experiment.train.num_steps)


def chain_from(config: Sgd | Adam | Described, num_steps: int, *, where: str = "optim") -> optim.Link:
    """The chain that a table `optim`, or another, describes for a run of so many steps.

    Raises:
      ConfigError: if it describes none.
    """
    if isinstance(config, Described):
        try:
            return optim.from_config(config.tables, num_steps=num_steps, where=where)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    rate = config.learning_rate
    if config.schedule == "cosine":
        rate = optim.cosine_decay_schedule(rate, num_steps)
    links = [config.base(rate)]
    if config.clip_norm is not None:
        links.insert(0, optim.clip_by_global_norm(config.clip_norm))
    if config.rho is not None:
        links.insert(0, optim.sam(config.rho))
    return optim.chain(*links)
