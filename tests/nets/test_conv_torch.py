"""Transposed, padded and depthwise convolutions equal torch's; collected where torch is installed."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from renga import nets

from .kit import floats, values
from .test_first_torch import assert_parity, channels_first, channels_last

TRANSPOSED = {
    "one axis": ((3,), {}, (2, 5, 4)),
    "one axis, strided": ((4,), {"stride": 3, "padding": 2, "output_padding": 2}, (2, 5, 4)),
    "two axes": ((3, 2), {"stride": 2}, (2, 4, 3, 4)),
    "padding": ((3, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 3, 4)),
    "output_padding of one axis": ((3, 3), {"stride": (2, 3), "padding": 1, "output_padding": (0, 2)}, (2, 4, 3, 4)),
    "output_padding below the dilation": ((3, 2), {"dilation": 3, "output_padding": 2}, (2, 3, 3, 4)),
    "padding beyond the window": ((2, 2), {"padding": 3}, (2, 9, 8, 4)),
    "dilated": ((3, 2), {"stride": 2, "padding": 1, "dilation": (2, 3)}, (2, 4, 3, 4)),
    "grouped": ((3, 3), {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 3, 4)),
    "depthwise": ((3, 3), {"stride": 2, "groups": 4}, (2, 4, 3, 4)),
    "three axes": ((2, 3, 2), {"stride": 2, "padding": (1, 0, 1), "output_padding": 1, "groups": 2}, (2, 3, 3, 2, 4)),
}
"""`padding` in torch's words: an integer for each axis."""


@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose_equals_torch(case: str):
    kernel, options, shape = TRANSPOSED[case]
    torch_conv: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(kernel) - 1]
    padding = options.get("padding", 0)
    pads = padding if isinstance(padding, int) else tuple((size, size) for size in padding)

    def peer(params: dict, x: torch.Tensor) -> torch.Tensor:
        w = params["w"].movedim((-1, -2), (0, 1))
        return channels_last(torch_conv(channels_first(x), w, params["b"], **{"padding": padding, **options}))

    (x,) = values(floats(*shape))
    assert_parity(nets.conv_transpose(8, kernel, **{**options, "padding": pads}), peer, x)


@pytest.mark.parametrize("mode", ["circular", "reflect"])
@pytest.mark.parametrize(
    ("kernel", "options", "shape"),
    [
        ((3,), {}, (2, 7, 4)),
        ((5, 3), {"stride": (1, 2)}, (2, 6, 5, 4)),
        ((3, 3), {"dilation": 2, "groups": 2}, (2, 6, 5, 4)),
        ((3, 1, 3), {}, (2, 4, 3, 4, 4)),
    ],
)
def test_padding_by_the_input_itself_equals_the_padding_mode_of_torch(
    mode: Any, kernel: tuple[int, ...], options: dict, shape: tuple[int, ...]
):
    if mode == "reflect" and len(kernel) == 3:
        kernel = (3, 3, 3)
    module: Any = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[len(kernel) - 1]
    dilation = options.get("dilation", 1)
    half = tuple(dilation * (size - 1) // 2 for size in kernel)

    def peer(params: dict, x: torch.Tensor) -> torch.Tensor:
        conv = module(4, 8, kernel, padding=half, padding_mode=mode, **options)
        named = {"weight": params["w"].movedim((-1, -2), (0, 1)), "bias": params["b"]}
        return channels_last(torch.func.functional_call(conv, named, channels_first(x)))

    (x,) = values(floats(*shape))
    assert_parity(nets.conv(8, kernel, padding=mode, **options), peer, x)


@pytest.mark.parametrize(("kernel", "shape"), [((3,), (2, 6, 4)), ((3, 3), (2, 5, 6, 4)), ((3, 1, 3), (2, 3, 4, 3, 4))])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_and_separable_conv_equal_convs_of_torch(
    kernel: tuple[int, ...], shape: tuple[int, ...], multiplier: int
):
    torch_conv: Any = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]

    def slide(w: torch.Tensor, b: torch.Tensor | None, x: torch.Tensor, groups: int) -> torch.Tensor:
        return torch_conv(x, w.movedim((-1, -2), (0, 1)), b, padding="same", groups=groups)

    def depthwise(params: dict, x: torch.Tensor) -> torch.Tensor:
        return channels_last(slide(params["w"], params["b"], channels_first(x), 4))

    def separable(params: dict, x: torch.Tensor) -> torch.Tensor:
        each, mix = params["depthwise"], params["pointwise"]
        return channels_last(slide(mix["w"], mix["b"], slide(each["w"], None, channels_first(x), 4), 1))

    (x,) = values(floats(*shape))
    assert_parity(nets.depthwise_conv(kernel, multiplier=multiplier), depthwise, x)
    assert_parity(nets.separable_conv(3, kernel, multiplier=multiplier), separable, x)
