"""What a config of meta-learning can say: tasks, network, method, optimizer, loop, test."""

import dataclasses
from typing import Annotated

import jax

from ._config import ConfigError, Described, Range
from ._experiment import Adam, Sgd, chain_from
from ._methods import Maml, Regressor, Reptile, Sinusoids
from ._networks import Count


@dataclasses.dataclass(frozen=True)
class MetaTrain:
    """The loop, one compiled call for all seeds between two reports unless `steps_per_call` is given.

    Raises:
      ConfigError: if one number of steps does not divide the next.

    Attributes:
      num_steps: steps of the optimizer.
      num_tasks: tasks a step.
      report_every: steps that a row of metrics is the mean of; fewer where there are not so many.
      steps_per_call: steps in a compiled call, of whole reports; between two of them progress is shown, the run is
        saved, and Ctrl-C stops.
    """

    num_steps: Count = 70000
    num_tasks: Count = 25
    report_every: Count = 1000
    steps_per_call: Count | None = None

    def __post_init__(self):
        if self.num_steps % self.per_call:
            expected = f"expected a divisor of train.num_steps = {self.num_steps}"
            raise ConfigError(f"train.steps_per_call: {expected}, got {self.steps_per_call}")
        if self.per_call % self.per_report:
            expected = f"expected a divisor of the {self.per_call} steps in a call"
            raise ConfigError(f"train.report_every: {expected}, got {self.report_every}")

    @property
    def per_call(self) -> int:
        """Steps in a compiled call."""
        return min(self.steps_per_call or self.num_steps, self.num_steps)

    @property
    def per_report(self) -> int:
        """Steps that a row of metrics is the mean of."""
        return min(self.report_every, self.per_call)


@dataclasses.dataclass(frozen=True)
class MetaTest:
    """The test, on tasks that all seeds share.

    Attributes:
      num_tasks: how many.
      inner_steps: steps on each.
      grid: where each task is asked about so many evenly spaced points; else about as many as it is learnt from.
    """

    num_tasks: Count = 600
    inner_steps: Annotated[int, Range(0, 1000)] = 10
    grid: Count | None = None


@dataclasses.dataclass(frozen=True)
class Published:
    """Published values, to stand beside ours in the table.

    Raises:
      ConfigError: if there are not as many values as steps.

    Attributes:
      source: where.
      steps: after how many inner steps.
      values: the mean squared errors.
    """

    source: str
    steps: Annotated[tuple[Annotated[int, Range(0)], ...], Range(1)]
    values: Annotated[tuple[float, ...], Range(1)]

    def __post_init__(self):
        if len(self.steps) != len(self.values):
            expected = f"expected one for each of {len(self.steps)} published.steps"
            raise ConfigError(f"published.values: {expected}, got {len(self.values)}")


@dataclasses.dataclass(frozen=True)
class MetaExperiment:
    """A whole config of meta-learning.

    Attributes:
      method: how tasks are learnt from.
      optim: as for `Experiment`: what steps along the method's gradient.
      seed: the first seed.
      num_seeds: how many runs, trained side by side; their seeds follow on the first.
      data: what tasks are.
      net: what learns.
      train: for how long.
      test: on what.
      published: what others report.

    Raises:
      ConfigError: if parts do not fit each other, or `optim` describes no link.
    """

    method: Maml | Reptile
    optim: Sgd | Adam | Described
    seed: Annotated[int, Range(0, 2**31)] = 0
    num_seeds: Annotated[int, Range(1, 1000)] = 3
    data: Sinusoids = Sinusoids()  # noqa: RUF009 - frozen, so all may share it
    net: Regressor = Regressor()  # noqa: RUF009 - frozen
    train: MetaTrain = MetaTrain()
    test: MetaTest = MetaTest()
    published: Published | None = None

    def __post_init__(self):
        net = self.net.build(self.data.num_outputs)
        params = jax.eval_shape(lambda: net.init(jax.random.key(0), self.data.example["x"]))
        self.method.check(self.data, params)
        learnt = jax.eval_shape(self.method.learnt, params)
        try:
            jax.eval_shape(chain_from(self.optim, self.train.num_steps).init, learnt)
        except ValueError as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"optim: {error}") from None
