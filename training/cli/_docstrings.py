"""Texts of many lengths to tell apart."""

import dataclasses
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._losses import accuracy
from ._config import Range
from ._networks import Gru
from ._task import Ending, Split, check_batch_size, num_held_out
from ._text import docstrings, encode, held_out

PACKAGES = ["asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "urllib", "xml"]

Labelled = list[tuple[str, int]]


@dataclasses.dataclass(frozen=True)
class Docstrings:
    """Docstrings of nine packages of Python's standard library: 2,000 texts, the package of each to be told.

    Attributes:
      length: how many of a text's first characters are read.
      test_share: the share of each package's texts that is held out.
    """

    networks: ClassVar[tuple[type, ...]] = (Gru,)
    unit: ClassVar[str] = "docstrings"
    test_batch_size: ClassVar[int] = 1000

    name: Literal["docstrings"] = "docstrings"
    length: Annotated[int, Range(1, 1000)] = 128
    test_share: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.2

    @property
    def num_outputs(self) -> int:
        """A logit for each package."""
        return len(PACKAGES)

    @property
    def example(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Places in the alphabet, and how many of them there are."""
        return {"x": jax.ShapeDtypeStruct((self.length,), jnp.int32), "lengths": jax.ShapeDtypeStruct((), jnp.int32)}

    def load(self, seed: int, batch_size: int) -> tuple[Labelled, Labelled]:
        """Texts with the places of their packages, to train on and held out; no text is on both sides.

        Raises:
          ConfigError: if this Python has no source files, or the texts do not suffice for the share and batches.
        """
        train, test = [], []
        files = docstrings(PACKAGES, self.name, self.length)
        for label, package in enumerate(PACKAGES):
            own = [text for file, texts in files.items() if file.startswith(f"{package}/") for text in texts]
            num_test = num_held_out(self.test_share, len(own), f"docstrings of {package}")
            for part, texts in zip((train, test), held_out(own, num_test, seed), strict=True):
                part += [(text, label) for text in texts]
        check_batch_size(batch_size, len(train), self.unit)
        return train, test

    def split(self, loaded: tuple[Labelled, Labelled], seed: int) -> Split:
        """Places in the alphabet, the texts' lengths, and the places of their packages."""
        return Split(*map(self._arrays, loaded))

    def metrics(self, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """The share of right answers."""
        return {"accuracy": accuracy(logits, labels)}

    def finish(self, ending: Ending) -> str:
        """Leaves a picture of which package was taken for which."""
        labels, most = ending.split.test["y"], np.bincount(ending.split.train["y"]).argmax()
        chosen = ending.logits().argmax(-1)
        ending.plots.confusion(labels, chosen, PACKAGES, ending.directory / "confusion.png")
        wrong = f"{np.sum(chosen != labels)} of {len(labels)} wrong"
        baseline = f"{np.mean(labels == most):.4f} by always saying {PACKAGES[most]}"
        return f"test accuracy {ending.last['test_accuracy']:.4f} ({wrong}; {baseline})"

    def _arrays(self, labelled: Labelled) -> dict[str, np.ndarray]:
        texts, labels = zip(*labelled, strict=True)
        return {
            "x": np.stack([_padded(encode(text), self.length) for text in texts]),
            "lengths": np.array([len(text) for text in texts], np.int32),
            "y": np.array(labels, np.int32),
        }


def _padded(ids: np.ndarray, length: int) -> np.ndarray:
    return np.pad(ids, (0, length - len(ids)))
