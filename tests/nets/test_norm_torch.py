"""Norms equal torch's for the same parameters, gradients too; collected where torch is installed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from renga import nets

from .kit import floats, values
from .test_first_torch import assert_parity, channels_first, channels_last

CASES: dict[str, tuple[nets.Net, Callable[[Any, torch.Tensor], torch.Tensor], tuple[int, ...]]] = {
    "layer_norm of two axes": (
        nets.layer_norm(num_axes=2),
        lambda p, x: F.layer_norm(x, (3, 7), p["scale"], p["offset"]),
        (4, 3, 7),
    ),
    "rms_norm": (nets.rms_norm(eps=1e-3), lambda p, x: F.rms_norm(x, (7,), p["scale"], 1e-3), (4, 3, 7)),
    "rms_norm of two axes": (
        nets.rms_norm(num_axes=2),
        lambda p, x: F.rms_norm(x, (3, 7), p["scale"], 1e-6),
        (4, 3, 7),
    ),
    "group_norm": (
        nets.group_norm(3),
        lambda p, x: channels_last(F.group_norm(channels_first(x), 3, p["scale"], p["offset"])),
        (2, 4, 3, 6),
    ),
    "group_norm of one axis": (
        nets.group_norm(2, num_axes=1, eps=1e-2),
        lambda p, x: channels_last(F.group_norm(channels_first(x), 2, p["scale"], p["offset"], 1e-2)),
        (2, 5, 6),
    ),
    "instance_norm": (
        nets.instance_norm(),
        lambda p, x: channels_last(F.instance_norm(channels_first(x), weight=p["scale"], bias=p["offset"])),
        (2, 4, 3, 3),
    ),
    "instance_norm of three axes": (
        nets.instance_norm(num_axes=3),
        lambda p, x: channels_last(F.instance_norm(channels_first(x), weight=p["scale"], bias=p["offset"])),
        (2, 2, 4, 3, 3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_norms_equal_torch(case: str):
    net, peer, shape = CASES[case]
    assert_parity(net, peer, values(floats(*shape))[0])
