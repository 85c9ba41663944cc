"""Handwritten digits to tell apart."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._losses import accuracy
from ._config import ConfigError, Range
from ._networks import Convnet, Mlp, Resnet, Vit
from ._task import Ending, Split, check_batch_size, num_held_out

NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Digits:
    """Scikit-learn's handwritten digits: 1,797 images of 8x8 pixels.

    Attributes:
      test_share: the share of the images that is held out.
      label_noise: the share of the training labels that is drawn anew, uniformly over the classes.
    """

    networks: ClassVar[tuple[type, ...]] = (Convnet, Mlp, Resnet, Vit)
    unit: ClassVar[str] = "images"
    test_batch_size: ClassVar[int] = 1000

    name: Literal["digits"] = "digits"
    test_share: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 1 / 3
    label_noise: Annotated[float, Range(0, 1)] = 0.0

    @property
    def num_outputs(self) -> int:
        """A logit for each digit."""
        return NUM_CLASSES

    @property
    def example(self) -> dict[str, jax.ShapeDtypeStruct]:
        """One image."""
        return {"x": jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)}

    def load(self, seed: int, batch_size: int) -> dict[str, np.ndarray]:
        """All images: `{"x": [images, 8, 8, 1] of float32 in [0, 1], "y": [images] of int32}`.

        Raises:
          ConfigError: if scikit-learn is missing, or the images do not suffice for the shares and batches.
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ConfigError(
                "data.name: digits needs scikit-learn. Install it with pip install 'renga[cli]'."
            ) from None
        digits: Any = load_digits()
        num = len(digits.target)
        check_batch_size(batch_size, num - num_held_out(self.test_share, num, self.unit), self.unit)
        return {"x": (digits.images[..., None] / 16).astype(np.float32), "y": digits.target.astype(np.int32)}

    def split(self, loaded: dict[str, np.ndarray], seed: int) -> Split:
        """Training and test images, chosen by the seed, with noise on the training labels."""
        split_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0))
        order = np.asarray(jax.random.permutation(split_key, len(loaded["y"])))
        parts = np.split(order, [round(len(order) * self.test_share)])
        test, train = ({name: array[chosen] for name, array in loaded.items()} for chosen in parts)
        return Split(train | {"y": _resampled(noise_key, train["y"], self.label_noise)}, test)

    def metrics(self, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """The share of right answers."""
        return {"accuracy": accuracy(logits, labels)}

    def finish(self, ending: Ending) -> str:
        """Leaves a picture of the images that were taken for another digit."""
        test = ending.split.test
        wrong = ending.plots.misclassified(test, ending.logits(), ending.directory / "misclassified.png")
        return f"test accuracy {ending.last['test_accuracy']:.4f} ({wrong} of {len(test['y'])} wrong)"


def _resampled(key: jax.Array, labels: np.ndarray, share: float) -> np.ndarray:
    """Labels of which a random share is drawn anew."""
    which_key, label_key = jax.random.split(key)
    chosen = np.asarray(jax.random.permutation(which_key, len(labels)))[: round(len(labels) * share)]
    noisy = labels.copy()
    noisy[chosen] = np.asarray(jax.random.randint(label_key, chosen.shape, 0, NUM_CLASSES))
    return noisy
