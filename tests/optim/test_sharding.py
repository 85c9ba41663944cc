"""States of links are laid out over devices as the parameters are: Optax's own tests, on eight devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.long
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_every_link_steps_on_four_devices_as_on_one(kind: str):
    program = [sys.executable, "-m", "tests.optim.laws_over_meshes", kind]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    result = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | flags)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr[-3000:]


@pytest.mark.long
def test_optaxs_tests_of_sharding_pass_over_our_links():
    program = [sys.executable, "-m", "tests.optim.sharding"]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    result = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | flags)
    assert result.returncode == 0, result.stderr[-3000:]
