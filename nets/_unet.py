"""A network from images to maps of the same size."""

import jax
import jax.numpy as jnp

from ._batch_norm import batch_norm
from ._check import check_size, check_sizes, check_spatial, spatial_axes
from ._combine import serial
from ._conv import conv
from ._conv_transpose import conv_transpose
from ._define import define
from ._errors import ShapeError
from ._initializers import he_normal
from ._net import Net, layer
from ._pool import max_pool


@layer
def unet(features: int, *, channels: tuple[int, ...] = (64, 128, 256, 512, 1024), norm: Net = batch_norm()) -> Net:
    """An encoder that halves height and width, and a decoder that sees the encoder's output of each size again.

    Each level is two 3x3 convolutions, each normalised and followed by relu. The output is as large as the
    input, where the paper's convolutions cut the borders off and have no norms.

    Source: Ronneberger, Fischer, Brox 2015, https://arxiv.org/abs/1505.04597, figure 1.

    Args:
      features: channels of the output.
      channels: of each level from the largest images to the smallest, at least one level.
      norm: what follows each convolution but the last: `group_norm(8)` for small batches, `serial()` for none.
    Returns:
      A net from `[..., height, width, channels]` to `[..., height, width, features]`, stateful if `norm` is,
      with params `{"encoder": [level, ...], "ups": [{"w", "b"}, ...], "decoder": [level, ...],
      "head": {"w", "b"}}`, decoder and ups from the smallest images to the largest. A level is
      `{"conv1", "norm1", "conv2", "norm2"}`.
    Raises:
      ShapeError: if height or width is no multiple of `2 ** (len(channels) - 1)`, if the input has too few
        axes, or not the channels that the parameters were made for.

    >>> net = unet(2, channels=(8, 16, 32), norm=serial())
    >>> images = jnp.ones((2, 8, 12, 3))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 8, 12, 2)
    """
    check_size("unet", "features", features)
    check_sizes("unet", "channels", channels)
    if not callable(norm):
        raise TypeError(
            f"unet: expected norm to be a network, such as group_norm(8), or serial() for none, got {norm!r}"
        )
    outward = channels[-2::-1]

    @define
    def body(
        x: jax.Array,
        *,
        pool=max_pool(2),
        encoder=[_level(size, norm) for size in channels],
        ups=[conv_transpose(size, 2, stride=2, w_init=he_normal()) for size in outward],
        decoder=[_level(size, norm) for size in outward],
        head=conv(features, 1),
    ):
        _check_size(x, 2 ** len(ups))
        x = encoder[0](x)
        skips = []
        for level in encoder[1:]:
            skips.append(x)
            x = level(pool(x))
        for up, level in zip(ups, decoder, strict=True):
            x = level(jnp.concatenate([skips.pop(), up(x)], -1))
        return head(x)

    return body


def _level(features: int, norm: Net) -> Net:
    conv1, conv2 = (conv(features, 3, w_init=he_normal()) for _ in range(2))
    return serial(conv1=conv1, norm1=norm, relu1=jax.nn.relu, conv2=conv2, norm2=norm, relu2=jax.nn.relu)


def _check_size(x: jax.Array, multiple: int) -> None:
    check_spatial(x, 2)
    if any(size % multiple or not size for size in x.shape[-3:-1]):
        raise ShapeError(f"{spatial_axes(2)} with height and width multiples of {multiple}", f"{tuple(x.shape)}")
