"""Residual networks for images."""

import itertools

import jax

from ._adaptive import global_avg_pool
from ._batch_norm import batch_norm
from ._check import check_size
from ._combine import serial
from ._conv import conv
from ._define import define
from ._initializers import variance_scaling
from ._linear import linear
from ._net import Net, layer
from ._pool import max_pool

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@layer
def resnet(depth: int, num_classes: int, *, version: int = 1, width: int = 64, small_images: bool = False) -> Net:
    """A residual network with 18, 34, 50, 101 or 152 layers of weights, with batch norm.

    Version 1 is that of He et al. 2015, with the stride of a bottleneck in its 3x3 convolution, as torchvision
    has it. Version 2 normalises and activates before each convolution, and nothing after the sum; its first
    block starts from what the stem has activated. Kernels start from a normal distribution of variance
    `2 / fan_out`, as in He et al. 2015b.

    Source: He et al. 2015, https://arxiv.org/abs/1512.03385, table 1; He et al. 2016,
    https://arxiv.org/abs/1603.05027, figure 4 (e) and appendix; He et al. 2015b,
    https://arxiv.org/abs/1502.01852, section 2.2.

    Args:
      depth: 18 and 34 have blocks of two 3x3 convolutions; 50, 101 and 152 have bottlenecks.
      num_classes: features of the output.
      version: 1 or 2.
      width: channels of the stem and of the first stage; each stage doubles them.
      small_images: whether the stem is a 3x3 convolution without stride or pool, for images of 32x32 pixels
        or fewer.
    Returns:
      A stateful net from `[..., height, width, channels]` to `[..., num_classes]`. Params and state are
      `{"stem": {"conv", "norm"}, "stages": [[block, ...], ...], "head": {"w", "b"}}`, with "norm" between the
      last two in version 2. A block is `{"convs": [...], "norms": [...]}`, with "shortcut" where it changes
      the shape: `{"conv", "norm"}`, without the norm in version 2. State has what the norms have.
    Raises:
      ShapeError: if the input has too few axes, or not the channels that the parameters were made for.

    >>> net = resnet(18, 1000)
    >>> image = jax.ShapeDtypeStruct((224, 224, 3), "float32")
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), image)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    11689512
    """
    if not isinstance(depth, int) or depth not in _BLOCKS:
        raise ValueError(f"resnet: expected depth to be one of {[*_BLOCKS]}, got {depth!r}")
    if isinstance(version, bool) or version not in (1, 2):
        raise ValueError(f"resnet: expected version to be 1 or 2, got {version!r}")
    check_size("resnet", "num_classes", num_classes)
    check_size("resnet", "width", width)
    deep = depth >= 50

    def block(stage: int, place: int) -> Net:
        features, stride = width * 2**stage, 2 if stage and not place else 1
        project = not place and (deep or stage > 0)
        if version == 1:
            return residual_block(features, stride, deep=deep, project=project)
        return preactivated_block(features, stride, deep=deep, project=project, first=not stage and not place)

    @define
    def body(
        x: jax.Array,
        *,
        stem=_stem(width, small_images),
        stages=[[block(stage, place) for place in range(num)] for stage, num in enumerate(_BLOCKS[depth])],
        norm=batch_norm() if version == 2 else serial(),
        pool=global_avg_pool(),
        head=linear(num_classes),
    ):
        x = stem(x)
        for each in itertools.chain(*stages):
            x = each(x)
        x = jax.nn.relu(norm(x)) if version == 2 else x
        return head(pool(x))

    return body


@layer
def residual_block(features: int, stride: int, *, deep: bool, project: bool) -> Net:
    """A block of version 1: `relu(shortcut(x) + f(x))`, where `f` normalises after each convolution."""
    convs, across = _convs(features, stride, deep)
    shortcut = serial(conv=across, norm=batch_norm()) if project else serial()

    @define
    def body(x: jax.Array, *, convs=convs, norms=[batch_norm() for _ in convs], shortcut=shortcut):
        y = norms[0](convs[0](x))
        for each, norm in zip(convs[1:], norms[1:], strict=True):
            y = norm(each(jax.nn.relu(y)))
        return jax.nn.relu(shortcut(x) + y)

    return body


@layer
def preactivated_block(features: int, stride: int, *, deep: bool, project: bool, first: bool) -> Net:
    """A block of version 2: `shortcut(x) + f(x)`, where `f` normalises and activates before each convolution.

    A shortcut with a convolution takes what the first of `f` takes. The first block of all is given what the stem
    has activated.
    """
    convs, across = _convs(features, stride, deep)
    norms = [serial() if first and not place else batch_norm() for place, _ in enumerate(convs)]
    shortcut = serial(conv=across) if project else serial()

    @define
    def body(x: jax.Array, *, norms=norms, convs=convs, shortcut=shortcut):
        active = x if first else jax.nn.relu(norms[0](x))
        y = convs[0](active)
        for each, norm in zip(convs[1:], norms[1:], strict=True):
            y = each(jax.nn.relu(norm(y)))
        return shortcut(active if project else x) + y

    return body


def _stem(width: int, small: bool) -> Net:
    first = _conv(width, 3) if small else _conv(width, 7, 2)
    pool = serial() if small else max_pool(3, stride=2, padding=1)
    return serial(conv=first, norm=batch_norm(), relu=jax.nn.relu, pool=pool)


def _convs(features: int, stride: int, deep: bool) -> tuple[list[Net], Net]:
    """The convolutions of a block, and the one that its shortcut has where it changes the shape."""
    if deep:
        convs = [_conv(features, 1), _conv(features, 3, stride), _conv(4 * features, 1)]
        return convs, _conv(4 * features, 1, stride)
    return [_conv(features, 3, stride), _conv(features, 3)], _conv(features, 1, stride)


def _conv(features: int, kernel: int, stride: int = 1) -> Net:
    w_init = variance_scaling(2.0, "fan_out", "normal")
    return conv(features, kernel, stride=stride, padding=kernel // 2, bias=False, w_init=w_init)
