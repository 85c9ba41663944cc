"""Text to go on with, character by character."""

import dataclasses
import math
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ... import nets
from .._losses import cross_entropy
from ._config import ConfigError, Range
from ._networks import Count, LstmLm, Transformer
from ._task import Ending, Split, check_batch_size, num_held_out
from ._text import MODULES, VOCAB_SIZE, decode, docstrings, encode, held_out

BETWEEN = "\n\n"
NUM_SAMPLED = 300
TEMPERATURE = 0.8


@dataclasses.dataclass(frozen=True)
class Documentation:
    """The documentation in the source of Python's standard library: 1.4 million characters, the next one to be told.

    Attributes:
      length: characters in a window. A network begins anew at each window.
      test_share: the share of the files that is held out.
    """

    networks: ClassVar[tuple[type, ...]] = (LstmLm, Transformer)
    unit: ClassVar[str] = "windows"
    test_batch_size: ClassVar[int] = 64

    name: Literal["documentation"] = "documentation"
    length: Count = 128
    test_share: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.1

    @property
    def num_outputs(self) -> int:
        """A logit for each character of the alphabet."""
        return VOCAB_SIZE

    @property
    def example(self) -> dict[str, jax.ShapeDtypeStruct]:
        """One window of places in the alphabet."""
        return {"x": jax.ShapeDtypeStruct((self.length,), jnp.int32)}

    def load(self, seed: int, batch_size: int) -> tuple[str, str]:
        """The text to train on and the text that is held out, by whole files that the seed chooses.

        Raises:
          ConfigError: if this Python has no source files, or the text does not suffice for the share and windows.
        """
        files = docstrings(MODULES, self.name)
        parts = held_out(files, num_held_out(self.test_share, len(files), "files"), seed)
        train, test = ("".join(text + BETWEEN for name in part for text in files[name]) for part in parts)
        if self.length >= min(len(train), len(test)):
            held = f"the {len(train)} characters to train on and of the {len(test)} held out"
            raise ConfigError(f"data.length: expected fewer than {held}, got {self.length}")
        check_batch_size(batch_size, (len(train) - 1) // self.length, self.unit)
        return train, test

    def split(self, loaded: tuple[str, str], seed: int) -> Split:
        """Windows one after another, as places in the alphabet; the labels are the characters that come next."""
        return Split(*({"x": self._windows(text[:-1]), "y": self._windows(text[1:])} for text in loaded))

    def metrics(self, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """Bits a character."""
        return {"bits": cross_entropy(logits, labels) / math.log(2)}

    def finish(self, ending: Ending) -> str:
        """Leaves a text that the network wrote."""
        start = jnp.asarray(encode(BETWEEN))
        write = jax.jit(
            lambda params, key: nets.generate(
                ending.losses.net, params, start, NUM_SAMPLED, key=key, temperature=TEMPERATURE
            )
        )
        text = decode(np.asarray(write(ending.train_state.params, ending.key)))
        (ending.directory / "sample.txt").write_text(text + "\n", encoding="utf-8")
        return (
            f"a sample at temperature {TEMPERATURE}:\n\n{text}\n\ntest bits {ending.last['test_bits']:.3f} a character"
        )

    def _windows(self, text: str) -> np.ndarray:
        num = len(text) // self.length
        return encode(text)[: num * self.length].reshape(num, self.length)
