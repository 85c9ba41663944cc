"""What training is made of, under both kinds of mesh."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_losses_steps_games_tasks_and_rollouts_give_on_four_devices_what_they_give_on_one(kind):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    program = [sys.executable, "-m", "tests.training.laws_over_meshes", kind]
    result = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | flags)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr[-3000:]
