"""What a config can say, and what it builds: data, network, chain, loss."""

import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ... import nets, optim
from .._losses import accuracy, cross_entropy
from ._config import ConfigError, Range

Count = Annotated[int, Range(1, 2**31 - 1)]  # the step is an int32
Share = Annotated[float, Range(0, 1, open_high=True)]
Positive = Annotated[float, Range(0, open_low=True)]
IMAGE_SHAPE = (8, 8, 1)
NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Digits:
    """Scikit-learn's handwritten digits: 1,797 images of 8x8 pixels.

    Attributes:
      test_share: the share of the images that is held out.
      label_noise: the share of the training labels that is drawn anew, uniformly over the classes.
    """

    name: Literal["digits"] = "digits"
    test_share: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 1 / 3
    label_noise: Annotated[float, Range(0, 1)] = 0.0


@dataclasses.dataclass(frozen=True)
class Convnet:
    """3x3 convolutions, each followed by a 2x2 pool, then a hidden layer.

    Attributes:
      channels: of each convolution; after three pools an image of 8x8 pixels is a single one.
      hidden: units of the hidden layer.
      drop_rate: share of the hidden units that is dropped in training.
    """

    name: Literal["convnet"] = "convnet"
    channels: Annotated[tuple[Count, ...], Range(1, 3)] = (32, 64)
    hidden: Count = 512
    drop_rate: Share = 0.0

    def build(self) -> nets.Net:
        """The network, from `[..., height, width, 1]` to `[..., classes]`."""
        return convnet(self.channels, self.hidden, NUM_CLASSES, drop_rate=self.drop_rate)


@dataclasses.dataclass(frozen=True)
class Mlp:
    """Hidden layers of relu units.

    Attributes:
      hidden: units of each hidden layer.
    """

    name: Literal["mlp"] = "mlp"
    hidden: tuple[Count, ...] = (256,)

    def build(self) -> nets.Net:
        """The network, from `[..., height, width, 1]` to `[..., classes]`."""
        return nets.serial(nets.flatten(), nets.mlp(*self.hidden, NUM_CLASSES))


@dataclasses.dataclass(frozen=True)
class Sgd:
    """Gradient descent with momentum, under SAM if `rho` is given.

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
    """Adam with decoupled weight decay, under SAM if `rho` is given.

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
        return (
            optim.adamw(learning_rate, weight_decay=self.weight_decay)
            if self.weight_decay
            else optim.adam(learning_rate)
        )


@dataclasses.dataclass(frozen=True)
class Train:
    """The loop.

    Attributes:
      num_steps: batches in all.
      batch_size: images a batch.
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
      optim: how.
      train: for how long.
    """

    net: Convnet | Mlp
    optim: Sgd | Adam
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0  # JAX drops the bits above
    data: Digits = Digits()
    train: Train = Train()


class Split(NamedTuple):
    """Training and test data, each with `x` and `y` as `images_of` has them."""

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]


@nets.layer
def convnet(channels: tuple[int, ...], hidden: int, num_classes: int, *, drop_rate: float = 0.0) -> nets.Net:
    """The convolutional network of the README, with any number of convolutions, and dropout before the head."""

    @nets.define
    def body(
        x,
        *,
        convs=[nets.conv(num, 3) for num in channels],
        hidden=nets.linear(hidden),
        drop=nets.dropout(drop_rate),
        head=nets.linear(num_classes),
    ):
        pool = nets.max_pool(2)
        for conv in convs:
            x = pool(jax.nn.relu(conv(x)))
        return head(drop(jax.nn.relu(hidden(x.reshape(*x.shape[:-3], -1)))))

    return body


def chain_of(experiment: Experiment) -> optim.Link:
    """The chain that a config describes: SAM, then the clip, then the optimizer."""
    config = experiment.optim
    rate = config.learning_rate
    if config.schedule == "cosine":
        rate = optim.cosine_decay_schedule(rate, experiment.train.num_steps)
    links = [config.base(rate)]
    if config.clip_norm is not None:
        links.insert(0, optim.clip_by_global_norm(config.clip_norm))
    if config.rho is not None:
        links.insert(0, optim.sam(config.rho))
    return optim.chain(*links)


def images_of(experiment: Experiment) -> dict[str, np.ndarray]:
    """All images that a config names: `{"x": [images, 8, 8, 1] of float32 in [0, 1], "y": [images] of int32}`.

    Raises:
      ConfigError: if scikit-learn is missing, or the images do not suffice for the shares and batches.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError("data.name: digits needs scikit-learn. Install it with pip install 'renga[cli]'.") from None
    digits: Any = load_digits()
    num, share, batch_size = len(digits.target), experiment.data.test_share, experiment.train.batch_size
    num_train = num - round(num * share)
    if num_train in (0, num):
        raise ConfigError(f"data.test_share: expected some of the {num} images on both sides, got {share}")
    if batch_size > num_train:
        raise ConfigError(f"train.batch_size: expected at most the {num_train} training images, got {batch_size}")
    return {"x": (digits.images[..., None] / 16).astype(np.float32), "y": digits.target.astype(np.int32)}


def split_of(experiment: Experiment, images: dict[str, np.ndarray]) -> Split:
    """The training and test data that a config describes, from all its images."""
    split_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(experiment.seed), 0))
    order = np.asarray(jax.random.permutation(split_key, len(images["y"])))
    num_test = round(len(order) * experiment.data.test_share)
    test, train = ({name: array[chosen] for name, array in images.items()} for chosen in np.split(order, [num_test]))
    return Split(train | {"y": _resampled(noise_key, train["y"], experiment.data.label_noise)}, test)


def _resampled(key: jax.Array, labels: np.ndarray, share: float) -> np.ndarray:
    """Labels of which a random share is drawn anew."""
    which_key, label_key = jax.random.split(key)
    chosen = np.asarray(jax.random.permutation(which_key, len(labels)))[: round(len(labels) * share)]
    noisy = labels.copy()
    noisy[chosen] = np.asarray(jax.random.randint(label_key, chosen.shape, 0, NUM_CLASSES))
    return noisy


class Losses(NamedTuple):
    """The two functions that a run needs of a network; equal for equal networks."""

    net: nets.Net

    def loss(self, params: Any, batch: dict[str, jax.Array], key: jax.Array | None) -> tuple[jax.Array, dict]:
        """Cross entropy, with accuracy as a metric."""
        logits = self.net.apply(params, batch["x"], key=key, train=True)
        return cross_entropy(logits, batch["y"]), {"accuracy": accuracy(logits, batch["y"])}

    def metrics(self, params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Cross entropy and accuracy on test data."""
        logits = self.net.apply(params, batch["x"])
        return {
            "test_loss": cross_entropy(logits, batch["y"]),
            "test_accuracy": accuracy(logits, batch["y"]),
        }


def example_input() -> jax.ShapeDtypeStruct:
    """Shape and dtype of one image."""
    return jax.ShapeDtypeStruct(IMAGE_SHAPE, jnp.float32)
