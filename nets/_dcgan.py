"""Convolutional networks that make images, and that judge them."""

import math

import jax
import jax.numpy as jnp

from ._batch_norm import batch_norm
from ._check import check_size, check_spatial, spatial_axes
from ._conv import conv
from ._conv_transpose import conv_transpose
from ._define import define
from ._errors import ShapeError
from ._initializers import normal
from ._linear import linear
from ._net import Net, layer
from ._resize import flatten

_W_INIT = normal(0.02)


@layer
def dcgan_generator(image_size: int, channels: int, *, width: int = 64, kernel: int = 4) -> Net:
    """Images in (-1, 1) from noise: a linear map to 4x4 positions, then transposed convolutions of stride 2.

    Every layer but the last is normalised over the batch and followed by relu; tanh follows the last.

    Source: Radford, Metz, Chintala 2016, https://arxiv.org/abs/1511.06434, section 3 and figure 1.

    Args:
      image_size: height and width of the images, a power of two of at least 8.
      channels: of the images.
      width: channels of the last layer but one; each layer before it has twice as many.
      kernel: height and width of the convolutions' windows. Those of an even number cover each position
        equally often.
    Returns:
      A stateful net from `[..., latents]` to `[..., image_size, image_size, channels]` with params
      `{"project": {"w"}, "convs": [{"w"}, ..., {"w", "b"}], "norms": [{"scale", "offset"}, ...]}`, one norm
      for the linear map and for each convolution but the last. State has what the norms have.
    Raises:
      ShapeError: if the input has no last axis, or not the one that the parameters were made for.

    >>> net = dcgan_generator(32, 3, width=8)
    >>> noise = jnp.ones((2, 100))
    >>> variables = net.init(jax.random.key(0), noise)
    >>> images, state = net.apply(*variables, noise)
    >>> images.shape
    (2, 32, 32, 3)
    """
    sizes = _widths("dcgan_generator", image_size, width)[::-1]
    check_size("dcgan_generator", "channels", channels)

    @define
    def body(
        x: jax.Array,
        *,
        project=linear(16 * sizes[0], bias=False, w_init=_W_INIT),
        norms=[batch_norm() for _ in sizes],
        convs=[
            *[conv_transpose(size, kernel, stride=2, bias=False, w_init=_W_INIT) for size in sizes[1:]],
            conv_transpose(channels, kernel, stride=2, w_init=_W_INIT),
        ],
    ):
        x = project(x)
        x = x.reshape(*x.shape[:-1], 4, 4, sizes[0])
        for each, norm in zip(convs, norms, strict=True):
            x = each(jax.nn.relu(norm(x)))
        return jnp.tanh(x)

    return body


@layer
def dcgan_discriminator(image_size: int, *, width: int = 64, kernel: int = 4, slope: float = 0.2) -> Net:
    """One logit an image, large where it takes it for a real one: convolutions of stride 2, down to 4x4 positions.

    Every convolution but the first is normalised over the batch; leaky relu follows each.

    Source: Radford, Metz, Chintala 2016, https://arxiv.org/abs/1511.06434, section 3.

    Args:
      image_size: height and width of the images, a power of two of at least 8.
      width: channels of the first convolution; each one after it has twice as many.
      kernel: height and width of the convolutions' windows.
      slope: of the leaky relu below zero.
    Returns:
      A stateful net from `[..., image_size, image_size, channels]` to `[...]` with params
      `{"convs": [{"w", "b"}, {"w"}, ...], "norms": [{"scale", "offset"}, ...], "head": {"w", "b"}}`, one norm
      for each convolution but the first. State has what the norms have. Images of 8x8 pixels need no norm,
      and the net is not stateful.
    Raises:
      ShapeError: if the images have not this size, or not the channels that the parameters were made for.

    >>> net = dcgan_discriminator(32, width=8)
    >>> images = jnp.ones((2, 32, 32, 3))
    >>> logits, state = net.apply(*net.init(jax.random.key(0), images), images)
    >>> logits.shape
    (2,)
    """
    sizes = _widths("dcgan_discriminator", image_size, width)

    @define
    def body(
        x: jax.Array,
        *,
        convs=[conv(size, kernel, stride=2, bias=place == 0, w_init=_W_INIT) for place, size in enumerate(sizes)],
        norms=[batch_norm() for _ in sizes[1:]],
        flat=flatten(),
        head=linear(1, w_init=_W_INIT),
    ):
        check_spatial(x, 2)
        if x.shape[-3:-1] != (image_size, image_size):
            raise ShapeError(f"{spatial_axes(2)} with height and width {image_size}", f"{tuple(x.shape)}")
        x = jax.nn.leaky_relu(convs[0](x), slope)
        for each, norm in zip(convs[1:], norms, strict=True):
            x = jax.nn.leaky_relu(norm(each(x)), slope)
        return head(flat(x))[..., 0]

    return body


def _widths(name: str, image_size: int, width: int) -> list[int]:
    """Channels at each size, from half the image's to 4x4."""
    check_size(name, "image_size", image_size, at_least=8)
    if image_size & (image_size - 1):
        raise ValueError(f"{name}: expected image_size to be a power of two, got {image_size}")
    check_size(name, "width", width)
    return [width * 2**level for level in range(int(math.log2(image_size)) - 2)]
