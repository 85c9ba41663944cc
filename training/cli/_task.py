"""What a run asks of its data; every kind of data that a config can name answers it in a file of its own."""

from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import numpy as np

from ... import nets
from .._compiler import jit
from .._losses import cross_entropy
from .._state import TrainState
from ._config import ConfigError

Batch = dict[str, Any]


class Split(NamedTuple):
    """Training and test data: dicts of arrays `[examples, ...]`.

    A network is given `x`; `y` is what it is to say, integers; whatever else there is, it is given by name.
    """

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]


class Task(Protocol):
    """A table of a config that says what to learn from, as a frozen dataclass.

    Attributes:
      networks: the tables of a config whose networks can learn from it.
      unit: what its examples are called, in the plural.
      test_batch_size: examples at a time in a test, as many as memory bears.
    """

    networks: ClassVar[tuple[type, ...]]
    unit: ClassVar[str]
    test_batch_size: ClassVar[int]

    @property
    def num_outputs(self) -> int:
        """How many logits a network has to give."""
        ...

    @property
    def example(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of one example's inputs."""
        ...

    def load(self, seed: int, batch_size: int) -> Any:
        """All data, as `split` takes them; nothing is compiled.

        Raises:
          ConfigError: if they are missing, or do not suffice for the shares and batches.
        """
        ...

    def split(self, loaded: Any, seed: int) -> Split:
        """The training and test data, from what `load` gave."""
        ...

    def metrics(self, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """What to report of a batch beside the loss."""
        ...

    def finish(self, ending: "Ending") -> str:
        """Leaves files of its own, and returns what to print; the last line says how well it went."""
        ...


class Losses(NamedTuple):
    """The functions that a run needs of a network, with state or without."""

    net: nets.Net
    task: Task

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Parameters and state; the state is empty where the network carries none."""
        x, named = inputs_of(self.task.example)
        made = self.net.init(key, x, **named)
        return made if isinstance(self.net, nets.StatefulNet) else (made, {})

    def logits(self, params: Any, state: Any, batch: Batch, **options: Any) -> tuple[jax.Array, Any]:
        """What the network says of examples, and its state thereafter."""
        x, named = inputs_of(batch)
        if isinstance(self.net, nets.StatefulNet):
            return self.net.apply(params, state, x, **named, **options)
        return self.net.apply(params, x, **named, **options), state

    def loss(self, params: Any, state: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, tuple[Any, dict]]:
        """Cross entropy, with the state and the task's metrics."""
        logits, state = self.logits(params, state, batch, key=key, train=True)
        return cross_entropy(logits, batch["y"]), (state, self.task.metrics(logits, batch["y"]))

    def metrics(self, params: Any, state: Any, batch: Batch) -> dict[str, jax.Array]:
        """Cross entropy and the task's metrics on test data."""
        logits, _ = self.logits(params, state, batch)
        found = {"loss": cross_entropy(logits, batch["y"])} | self.task.metrics(logits, batch["y"])
        return {f"test_{name}": value for name, value in found.items()}


class Ending(NamedTuple):
    """A run after its last step.

    Attributes:
      losses: of its network.
      train_state: where it ended.
      split: the data.
      last: the last row of the history.
      directory: where to leave files.
      plots: the module that draws.
      key: for whatever is left to chance.
    """

    losses: Losses
    train_state: TrainState
    split: Split
    last: dict[str, float]
    directory: Path
    plots: Any
    key: jax.Array

    def logits(self) -> np.ndarray:
        """What the network says of the test data."""
        params, state = self.train_state.params, self.train_state.state
        return np.asarray(jit(self.losses.logits)(params, state, self.split.test)[0])


def num_held_out(share: float, num: int, unit: str) -> int:
    """How many of `num` a share is.

    Raises:
      ConfigError: if it leaves none on one of the sides.
    """
    num_test = round(num * share)
    if num_test in (0, num):
        raise ConfigError(f"data.test_share: expected some of the {num} {unit} on both sides, got {share}")
    return num_test


def check_batch_size(batch_size: int, num_train: int, unit: str) -> None:
    """Refuses a batch of more examples than there are.

    Raises:
      ConfigError: with both numbers.
    """
    if batch_size > num_train:
        raise ConfigError(f"train.batch_size: expected at most the {num_train} training {unit}, got {batch_size}")


def inputs_of(batch: Batch) -> tuple[Any, dict[str, Any]]:
    """What a network is given of a batch, or of an example: `x`, and the rest by name."""
    return batch["x"], {name: array for name, array in batch.items() if name not in ("x", "y")}
