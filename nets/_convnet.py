"""The plainest network for images."""

import jax

from ._check import check_size, check_sizes
from ._conv import conv
from ._define import define
from ._dropout import dropout
from ._linear import linear
from ._net import Net, layer
from ._pool import max_pool
from ._resize import flatten


@layer
def convnet(channels: tuple[int, ...], hidden: int, num_classes: int, *, drop_rate: float = 0.0) -> Net:
    """3x3 convolutions, each followed by relu and a 2x2 pool, then a hidden layer and a linear one.

    The design is that of LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf, section II,
    with relu and max pools.

    Args:
      channels: of each convolution, as many as there are; each halves height and width.
      hidden: units of the hidden layer.
      num_classes: features of the output.
      drop_rate: share of the hidden units that is dropped in training; above 0 it takes a `key`.
    Returns:
      A net from `[..., height, width, channels]` to `[..., num_classes]` with params
      `{"convs": [{"w", "b"}, ...], "hidden": {"w", "b"}, "head": {"w", "b"}}`.
    Raises:
      ShapeError: if the images have not the size and channels that the parameters were made for, or are too
        small for so many pools.

    >>> net = convnet((32, 64), 512, 10)
    >>> images = jnp.ones((2, 8, 8, 1))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 10)
    """
    check_sizes("convnet", "channels", channels)
    check_size("convnet", "hidden", hidden)
    check_size("convnet", "num_classes", num_classes)

    @define
    def body(
        x: jax.Array,
        *,
        convs=[conv(features, 3) for features in channels],
        pool=max_pool(2),
        flat=flatten(),
        hidden=linear(hidden),
        drop=dropout(drop_rate),
        head=linear(num_classes),
    ):
        for each in convs:
            x = pool(jax.nn.relu(each(x)))
        return head(drop(jax.nn.relu(hidden(flat(x)))))

    return body
