"""Pools and upsampling equal torch's, to which of equals a gradient goes; collected where torch is installed."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from renga import nets

from .kit import floats, values
from .test_first_torch import assert_parity, channels_first, channels_last


def of(function: Any, *args: Any, **options: Any) -> Any:
    """A peer without parameters."""
    return lambda params, x: channels_last(function(channels_first(x), *args, **options))


def with_equals(*shape: int) -> jnp.ndarray:
    """Inputs of few values, so that most windows hold their largest one several times."""
    return jnp.asarray(np.round(2 * values(floats(*shape))[0]) / 2)


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 8, 7, 3), (2, 3, 7, 5, 3)])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 4), (7, 2, 5), (4, 9, 6)])
def test_adaptive_pools_have_the_bins_of_torch(shape: tuple[int, ...], sizes: tuple[int, ...]):
    num = len(shape) - 2
    sizes, x = sizes[:num], values(floats(*shape))[0]
    torch_avg: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[num - 1]
    torch_max: Any = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[num - 1]
    assert_parity(nets.adaptive_avg_pool(sizes), of(torch_avg, sizes), x)
    assert_parity(nets.adaptive_max_pool(sizes), of(torch_max, sizes), x)
    assert_parity(nets.adaptive_max_pool(sizes), of(torch_max, sizes), with_equals(*shape))


@pytest.mark.parametrize("num", [1, 2, 3])
def test_global_pools_equal_adaptive_ones_of_torch_with_one_bin(num: int):
    (x,) = values(floats(2, *(5, 4, 3)[:num], 3))
    torch_avg: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[num - 1]
    torch_max: Any = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[num - 1]
    assert_parity(nets.global_avg_pool(num), lambda params, x: torch_avg(channels_first(x), 1).flatten(1), x)
    for given in (x, with_equals(*x.shape)):
        assert_parity(nets.global_max_pool(num), lambda params, x: torch_max(channels_first(x), 1).flatten(1), given)


@pytest.mark.parametrize(
    ("window", "options", "shape"),
    [
        ((2,), {}, (2, 7, 3)),
        ((2, 2), {}, (2, 6, 5, 3)),
        ((3, 2), {"stride": 2, "padding": 1}, (2, 7, 5, 3)),
        ((2, 1, 3), {}, (2, 4, 3, 7, 2)),
        ((5, 4), {}, (2, 5, 9, 2)),
    ],
)
def test_max_and_min_pool_give_the_gradient_of_equals_to_the_one_that_torch_does(
    window: tuple[int, ...], options: dict, shape: tuple[int, ...]
):
    torch_max: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(window) - 1]
    x = with_equals(*shape)
    assert_parity(nets.max_pool(window, **options), of(torch_max, window, **options), x)
    assert_parity(nets.min_pool(window, **options), of(lambda x: -torch_max(-x, window, **options)), x)


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [((3, 3), (2, 2), 1), ((2, 3), (2, 3), 1), ((2, 2), (1, 2), 0)]
)
def test_avg_pool_that_counts_padding_equals_the_default_of_torch(
    window: tuple[int, int], stride: tuple[int, int], padding: int
):
    (x,) = values(floats(2, 6, 5, 3))
    net = nets.avg_pool(window, stride=stride, padding=padding, count_padding=True)
    assert_parity(net, of(F.avg_pool2d, window, stride, padding), x)


def test_padding_at_the_end_is_ceil_mode_of_torch():
    (x,) = values(floats(2, 6, 7, 3))
    # Windows of 3 by 3 in steps of 2: 6 positions want 1 more, 7 none.
    options: Any = {"stride": 2, "padding": ((0, 1), (0, 0))}
    assert_parity(nets.max_pool(3, **options), of(F.max_pool2d, 3, 2, ceil_mode=True), x)
    peer = of(F.avg_pool2d, 3, 2, ceil_mode=True, count_include_pad=False)
    assert_parity(nets.avg_pool(3, **options), peer, x)


@pytest.mark.parametrize("factor", [(3,), (2, 3), (2, 1, 3)])
def test_upsample_equals_torch(factor: tuple[int, ...]):
    num = len(factor)
    (x,) = values(floats(2, *(3, 4, 2)[:num], 3))
    assert_parity(nets.upsample(factor), of(torch.nn.Upsample(scale_factor=factor)), x)
    smooth = torch.nn.Upsample(scale_factor=factor, mode=("linear", "bilinear", "trilinear")[num - 1])
    assert_parity(nets.upsample(factor, method="linear"), of(smooth), x)
