"""The tasks, networks and methods of meta-learning that a config can name."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ... import nets, optim
from .._adapted import part
from .._maml import maml
from .._reptile import reptile
from .._tasks import sinusoids
from ._config import ConfigError, Range
from ._experiment import Positive
from ._networks import Count

Interval = Annotated[tuple[float, float], Range(2, 2)]
Sampler = Callable[[jax.Array, int], Any]
INPUTS = (-5.0, 5.0)


@dataclasses.dataclass(frozen=True)
class Sinusoids:
    """Sinusoids to regress: `y = amplitude * sin(frequency * x - phase)`, `x` from -5 to 5.

    Attributes:
      shots: examples that a task is learnt from.
      amplitude: the smallest and the largest.
      phase: likewise.
      frequency: likewise.
      grid: where the examples to learn from are different ones of so many evenly spaced points; anywhere unless given.
    """

    num_outputs: ClassVar[int] = 1
    example: ClassVar[dict[str, jax.ShapeDtypeStruct]] = {"x": jax.ShapeDtypeStruct((1,), np.float32)}

    name: Literal["sinusoids"] = "sinusoids"
    shots: Count = 10
    amplitude: Interval = (0.1, 5.0)
    phase: Interval = (0.0, math.pi)
    frequency: Interval = (1.0, 1.0)
    grid: Count | None = None

    def __post_init__(self):
        for name in ("amplitude", "phase", "frequency"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"data.{name}: expected two numbers in their order, got [{low}, {high}]")
        self.check(self.shots, "data.shots")

    def check(self, shots: int, where: str) -> None:
        """Refuses more examples than there are points.

        Raises:
          ConfigError: with both numbers.
        """
        if self.grid is not None and shots > self.grid:
            raise ConfigError(f"{where}: expected at most the data.grid = {self.grid} points of a task, got {shots}")

    def sampler(self, shots: int, query_grid: int | None = None) -> Sampler:
        """Tasks with so many examples to learn from, and queries on a grid or as many anywhere."""
        return sinusoids(
            shots,
            amplitude=self.amplitude,
            phase=self.phase,
            frequency=self.frequency,
            inputs=INPUTS,
            support_from=_grid(self.grid),
            query_at=_grid(query_grid),
        )


@dataclasses.dataclass(frozen=True)
class Regressor:
    """An MLP from one number to another.

    Attributes:
      hidden: units of each hidden layer.
      activation: between the layers.
      init: the first weights: "small" ones, normal with a deviation of 0.01; "lecun", normal with one over the root of
        a layer's inputs; or "uniform" within that root, biases too, which else are zero.
      num_context: numbers that it is given beside its input, an array `context` of its parameters that begins at zero.
    """

    name: Literal["mlp"] = "mlp"
    hidden: tuple[Count, ...] = (40, 40)
    activation: Literal["relu", "tanh"] = "relu"
    init: Literal["small", "lecun", "uniform"] = "lecun"
    num_context: Annotated[int, Range(0, 2**31 - 1)] = 0

    def build(self, num_outputs: int) -> nets.Net:
        """The network, from `[..., 1]` to `[..., num_outputs]`."""
        activation = {"relu": jax.nn.relu, "tanh": jnp.tanh}[self.activation]
        if self.init == "uniform":
            net = uniform_mlp(1 + self.num_context, *self.hidden, num_outputs, activation=activation)
        else:
            w_init = nets.truncated_normal(0.01) if self.init == "small" else nets.lecun_normal()
            net = nets.mlp(*self.hidden, num_outputs, activation=activation, w_init=w_init)
        return with_context(net, self.num_context) if self.num_context else net


@nets.layer
def uniform_mlp(*sizes: int, activation: Callable[[jax.Array], jax.Array]) -> nets.Net:
    """An MLP, its first size that of the input, that begins as torch's does: weights and biases alike."""

    def within(bound: float) -> Any:
        return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)

    def one(inputs: int, size: int) -> nets.Net:
        return nets.linear(size, w_init=within(inputs**-0.5), b_init=within(inputs**-0.5))

    @nets.define
    def body(x, *, layers=[one(*pair) for pair in itertools.pairwise(sizes)]):
        for hidden in layers[:-1]:
            x = activation(hidden(x))
        return layers[-1](x)

    return body


@nets.layer
def with_context(net: nets.Net, num_context: int) -> nets.Net:
    """A network that is given an array of its own parameters beside its input."""

    @nets.define
    def body(x, *, context=nets.param((num_context,), nets.zeros), net=net):
        return net(jnp.concatenate([x, jnp.broadcast_to(context, (*x.shape[:-1], num_context))], -1))

    return body


@dataclasses.dataclass(frozen=True)
class Maml:
    """MAML, and what differs from it by an argument: FOMAML, ANIL, CAVIA, Meta-SGD, and training on all tasks at once.

    Attributes:
      inner_steps: steps on a task in training. With none, one network is trained on all tasks at once.
      inner_rate: the learning rate of these steps; where they are learnt, the first.
      first_order: whether the inner gradients count as constants.
      adapted: patterns of paths of the parameters that are adapted.
      learned_rates: "none"; one for each number of the parameters, "each"; or one for each array and step, "steps".
    """

    name: Literal["maml"] = "maml"
    inner_steps: Annotated[int, Range(0, 1000)] = 1
    inner_rate: Positive = 0.01
    first_order: bool = False
    adapted: tuple[str, ...] = ("**",)
    learned_rates: Literal["none", "each", "steps"] = "none"

    @property
    def inner(self) -> Any:
        """The chain that adapts, or what makes it from learnt rates."""
        if self.learned_rates == "none":
            return optim.sgd(self.inner_rate)
        return optim.scale_by_rates if self.learned_rates == "each" else optim.scale_by_step_rates

    def loss(self, loss_fn: Any) -> Any:
        """The loss over tasks."""
        adapted = "**" if self.adapted == ("**",) else self.adapted
        return maml(loss_fn, self.inner, self.inner_steps, first_order=self.first_order, adapted=adapted)

    def learnt(self, params: Any) -> Any:
        """All that is learnt, from a network's parameters: rates too, where they are."""
        if self.learned_rates == "none":
            return params
        shape = jnp.shape if self.learned_rates == "each" else lambda leaf: (max(self.inner_steps, 1),)
        return {"params": params, "inner": jax.tree.map(lambda leaf: jnp.full(shape(leaf), self.inner_rate), params)}

    def sampler(self, data: Sinusoids) -> Sampler:
        """Tasks to train on."""
        return data.sampler(data.shots)

    def check(self, data: Sinusoids, params: Any) -> None:
        """Refuses patterns that match none of the parameters.

        Raises:
          ConfigError: with the paths that there are.
        """
        try:
            part("method.adapted", params, self.adapted)
        except ValueError as error:
            raise ConfigError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Reptile:
    """Reptile: the optimizer steps towards where a few steps on a task lead, each on a minibatch of `data.shots`.

    Attributes:
      inner_steps: steps on a task, so many minibatches in training.
      inner_rate: the learning rate of these steps.
    """

    name: Literal["reptile"] = "reptile"
    inner_steps: Annotated[int, Range(1, 1000)] = 5
    inner_rate: Positive = 0.02
    adapted: ClassVar[tuple[str, ...]] = ("**",)

    @property
    def inner(self) -> optim.Link:
        """The chain that adapts."""
        return optim.sgd(self.inner_rate)

    def loss(self, loss_fn: Any) -> Any:
        """The loss over tasks."""
        return reptile(loss_fn, self.inner, self.inner_steps)

    def learnt(self, params: Any) -> Any:
        """The network's parameters alone."""
        return params

    def sampler(self, data: Sinusoids) -> Sampler:
        """Tasks to train on, `[tasks, inner_steps, shots, 1]`."""
        sample = data.sampler(self.inner_steps * data.shots)

        def minibatches(key: jax.Array, num_tasks: int) -> Any:
            shape = (num_tasks, self.inner_steps, data.shots, 1)
            return jax.tree.map(lambda leaf: leaf.reshape(shape), sample(key, num_tasks)["support"])

        return minibatches

    def check(self, data: Sinusoids, params: Any) -> None:
        """Refuses more minibatches than there are points.

        Raises:
          ConfigError: with both numbers.
        """
        data.check(self.inner_steps * data.shots, "method.inner_steps times data.shots")


def _grid(num: int | None) -> np.ndarray | None:
    return None if num is None else np.linspace(*INPUTS, num)
