"""Networks on four devices, under meshes of explicit and of automatic axes, give what they give on one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
A_FEW = (
    *(
        "embed",
        "linear",
        "conv over two axes",
        "max_pool",
        "avg_pool",
        "flatten",
        "layer_norm",
        "batch_norm",
        "dropout",
    ),
    *("repeat", "ensemble", "conv lstm", "lstm", "attention", "attention, block by block"),
)


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_layers_on_four_devices_give_what_they_give_on_one(kind: str):
    assert_the_same(kind, *A_FEW)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_every_network_on_four_devices_gives_what_it_gives_on_one(kind: str):
    assert_the_same(kind)


def assert_the_same(kind: str, *names: str) -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    program = [sys.executable, "-m", "tests.nets.laws_over_meshes", kind, *names]
    result = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | flags)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr[-3000:]
