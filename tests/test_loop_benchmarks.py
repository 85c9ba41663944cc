"""The benchmarks of loops and of memory: every case makes its steps."""

import importlib
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def load(monkeypatch) -> Any:
    """Imports a benchmark as it would be run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> Any:
        for module in (name, "dispatch", "runner"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return importlib.import_module(name)

    return load


def test_every_way_to_call_the_smallest_step_makes_its_steps(load, monkeypatch):
    loop = load("loop")
    monkeypatch.setattr(loop.dispatch, "NUM_STEPS", 20)
    monkeypatch.setattr(loop.importlib.util, "find_spec", lambda name: name == "flax")  # of the peers, only one
    made = {name: run() for name, run in loop.calls().items()}
    assert {"renga, fit, 10 a call, batches from NumPy", "renga, loop, all in one call", "Flax NNX, nnx.jit"} <= set(
        made
    )
    assert set(made.values()) == {20}


def test_every_loop_beside_the_bare_scan_makes_its_steps(load, monkeypatch):
    loop = load("loop")
    for name, value in {"WIDTHS": (16, 8, 2), "BATCH": 4, "NUM_STEPS": 20}.items():
        monkeypatch.setattr(loop, name, value)
    assert {run() for run in loop.scan().values()} == {20}


def test_every_step_with_large_arrays_is_made(load, monkeypatch):
    memory = load("memory")
    for name, value in {"LENGTH": 4, "WIDTH": 8, "BATCH": 2, "WARM": 1}.items():
        monkeypatch.setattr(memory, name, value)
    for name, make in memory.NETS.items():
        found = make()()
        assert jnp.isfinite(found["loss"] if isinstance(found, dict) else found[0]), name
    assert memory.case("x + 1, 32 MiB", kept=False)() == memory.NUM_STEPS
