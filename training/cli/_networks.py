"""The networks that a config can name."""

import dataclasses
from typing import Annotated, Literal

from ... import nets
from ._config import ConfigError, Range
from ._text import VOCAB_SIZE

Count = Annotated[int, Range(1, 2**31 - 1)]  # the step is an int32
Share = Annotated[float, Range(0, 1, open_high=True)]


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

    def build(self, num_outputs: int) -> nets.Net:
        """The network, from images `[..., height, width, 1]` to logits `[..., num_outputs]`."""
        return nets.convnet(self.channels, self.hidden, num_outputs, drop_rate=self.drop_rate)


@dataclasses.dataclass(frozen=True)
class Mlp:
    """Hidden layers of relu units.

    Attributes:
      hidden: units of each hidden layer.
    """

    name: Literal["mlp"] = "mlp"
    hidden: tuple[Count, ...] = (256,)

    def build(self, num_outputs: int) -> nets.Net:
        """The network, from images `[..., height, width, 1]` to logits `[..., num_outputs]`."""
        return nets.serial(nets.flatten(), nets.mlp(*self.hidden, num_outputs))


@dataclasses.dataclass(frozen=True)
class Resnet:
    """A residual network with the stem for small images.

    Attributes:
      depth: layers of weights.
      version: 1, or 2 with norms and activations before the convolutions.
      width: channels of the first stage.
    """

    name: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 18
    version: Literal[1, 2] = 1
    width: Count = 64

    def build(self, num_outputs: int) -> nets.Net:
        """The network, from images `[..., height, width, 1]` to logits `[..., num_outputs]`."""
        return nets.resnet(self.depth, num_outputs, version=self.version, width=self.width, small_images=True)


@dataclasses.dataclass(frozen=True)
class Vit:
    """A vision transformer.

    Attributes:
      patch: height and width of a patch, a divisor of the image's.
      features: size of the vectors between the blocks, a multiple of `num_heads`.
      num_layers: blocks.
      num_heads: heads of attention.
      pool: what the head sees: a token that was put before the patches, or the mean of all.
      drop_rate: share that is dropped in training, of the first vectors, of attention's weights, and of what
        each part of a block adds.

    Raises:
      ConfigError: if the features are no multiple of the heads.
    """

    name: Literal["vit"] = "vit"
    patch: Literal[1, 2, 4, 8] = 2
    features: Count = 64
    num_layers: Count = 4
    num_heads: Count = 4
    pool: Literal["token", "mean"] = "token"
    drop_rate: Share = 0.0

    def __post_init__(self):
        if self.features % self.num_heads:
            expected = f"expected a multiple of net.num_heads = {self.num_heads}"
            raise ConfigError(f"net.features: {expected}, got {self.features}")

    def build(self, num_outputs: int) -> nets.Net:
        """The network, from images `[..., height, width, 1]` to logits `[..., num_outputs]`."""
        return nets.vit(
            num_outputs,
            self.patch,
            features=self.features,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            pool=self.pool,
            drop_rate=self.drop_rate,
        )


@dataclasses.dataclass(frozen=True)
class LstmLm:
    """A language model of long short-term memory.

    Attributes:
      features: size of the vectors between the layers, and of each layer's carry.
      num_layers: how many layers.
      drop_rate: share that is dropped in training of what goes into each layer and into the head.
    """

    name: Literal["lstm_lm"] = "lstm_lm"
    features: Count = 256
    num_layers: Count = 1
    drop_rate: Share = 0.0

    def build(self, num_outputs: int) -> nets.Net:
        """The network, from characters `[..., time]` to the logits of the next ones `[..., time, num_outputs]`."""
        return nets.lstm_lm(num_outputs, self.features, num_layers=self.num_layers, drop_rate=self.drop_rate)


@dataclasses.dataclass(frozen=True)
class Transformer:
    """A language model of causal attention with rotary positions, RMS norms and gated hidden layers.

    Attributes:
      features: size of the vectors between the blocks, a multiple of twice `num_heads`.
      num_layers: blocks.
      num_heads: heads of attention.
      window: how many characters attention sees, itself included; unless given, all before it. With a window, texts
        longer than those of training hold no distances that it has not seen.
      drop_rate: share that is dropped in training, of the first vectors, of attention's weights, and of what
        each part of a block adds.

    Raises:
      ConfigError: if the features are no multiple of twice the heads.
    """

    name: Literal["transformer"] = "transformer"
    features: Count = 128
    num_layers: Count = 4
    num_heads: Count = 4
    window: Count | None = None
    drop_rate: Share = 0.0

    def __post_init__(self):
        if self.features % (2 * self.num_heads):
            expected = f"expected a multiple of twice net.num_heads = {self.num_heads}"
            raise ConfigError(f"net.features: {expected}, got {self.features}")

    def build(self, num_outputs: int) -> nets.Net:
        """The network, from characters `[..., time]` to the logits of the next ones `[..., time, num_outputs]`."""
        return nets.transformer(
            num_outputs,
            self.features,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            window=self.window,
            rope=nets.rotary(),
            norm=nets.rms_norm(),
            mlp=nets.swiglu(3 * self.features),
            bias=False,
            drop_rate=self.drop_rate,
        )


@dataclasses.dataclass(frozen=True)
class Gru:
    """Gated recurrent units over the characters of a text, and a map from what they carry at its end.

    Attributes:
      features: size of a character's vector, and of the carry.
      drop_rate: share of both that is dropped in training.
    """

    name: Literal["gru"] = "gru"
    features: Count = 128
    drop_rate: Share = 0.0

    def build(self, num_outputs: int) -> nets.Net:
        """The network, from characters `[..., time]` and `lengths=[...]` to logits `[..., num_outputs]`."""
        return gru(VOCAB_SIZE, self.features, num_outputs, drop_rate=self.drop_rate)


@nets.layer
def gru(vocab_size: int, features: int, num_outputs: int, *, drop_rate: float = 0.0) -> nets.Net:
    """A classifier of sequences: what gated recurrent units carry at each one's own end, mapped to logits."""

    @nets.define
    def body(
        ids,
        *,
        tokens=nets.embed(vocab_size, features),
        gru=nets.rnn(nets.gru_cell(features), return_carry=True),
        drop=nets.dropout(drop_rate),
        head=nets.linear(num_outputs),
        lengths=None,
    ):
        _, carry = gru(drop(tokens(ids)), lengths=lengths)
        return head(drop(carry))

    return body
