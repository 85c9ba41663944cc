"""The benchmark runner: rounds in turn, medians, ratios, a table and JSON."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def runner(monkeypatch):
    """The runner as a module, found by the benchmarks as `runner`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("runner", BENCHMARKS / "runner.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "runner", module)
    spec.loader.exec_module(module)
    return module


def test_rounds_of_all_cases_alternate_after_one_uncounted_round_each(runner):
    calls = []
    cases = {name: lambda name=name: calls.append(name) or 1 for name in "ab"}
    runner.compare(cases, "a", num_rounds=3)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]


def test_the_ratio_is_that_of_times_per_unit(runner):
    def sleeping(seconds: float, units: int):
        def run() -> int:
            time.sleep(seconds)
            return units

        return run

    timings = runner.compare({"one": sleeping(0.01, 1), "two": sleeping(0.04, 2)}, "one", num_rounds=3)
    assert timings["one"].ratio == 1
    assert timings["two"].ratio == pytest.approx(2, rel=0.5)
    assert timings["one"].low <= timings["one"].median <= timings["one"].high


def test_an_unknown_baseline_is_refused(runner):
    with pytest.raises(ValueError, match="expected a baseline"):
        runner.compare({"a": lambda: 1}, "b", num_rounds=3)


def test_the_result_is_printed_and_written_with_versions(runner, tmp_path, monkeypatch, capsys):
    path = tmp_path / "results" / "out.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "2", "--json", str(path)])
    runner.main("two nothings", lambda: {"a": lambda: 1, "b": lambda: 1}, "a")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["versions"]["jax"]
    assert set(record["cases"]) == {"a", "b"}
    assert "two nothings" in capsys.readouterr().out


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dispatch_case_makes_its_steps(runner, monkeypatch):
    dispatch = load("dispatch")
    monkeypatch.setattr(dispatch, "NUM_STEPS", 2)
    made = {name: run() for name, run in dispatch.cases().items()}
    assert {"renga", "plain JAX, dict params"} <= set(made)
    assert set(made.values()) == {2}


def test_every_apply_case_makes_its_calls(runner, monkeypatch):
    apply = load("apply")
    monkeypatch.setattr(apply, "NUM_CALLS", 2)
    monkeypatch.setattr(apply, "DEPTH", 3)
    made = {name: run() for name, run in apply.cases().items()}
    assert {"renga", "plain JAX, dict params"} <= set(made)
    assert set(made.values()) == {2}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("convolutional", {"BATCH": 2}),
        ("language", {"VOCABULARY": 8, "LENGTH": 4, "BATCH": 2, "LAYERS": 1, "WIDTH": 8, "HEADS": 2}),
    ],
)
def test_our_case_of_every_network_takes_its_steps(runner, monkeypatch, name, sizes):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = load(name)
    for size, value in sizes.items():
        monkeypatch.setattr(module, size, value)
    if name == "language":
        ids = jnp.zeros((sizes["BATCH"], sizes["LENGTH"]), jnp.int32)
        monkeypatch.setattr(module, "IDS", ids)
        monkeypatch.setattr(module, "TARGETS", ids)
    else:
        monkeypatch.setattr(module, "IMAGES", module.IMAGES[:2])
        monkeypatch.setattr(module, "LABELS", module.LABELS[:2])
    assert module.renga()() == 3


def test_a_step_of_a_gan_is_the_same_by_hand_and_in_both_of_our_forms(runner, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    games = load("games")
    for size, value in {"UNITS": 8, "BATCH": 16, "COMPUTE": "float32", "NUM_STEPS": 3}.items():
        monkeypatch.setattr(games, size, value)
    rounds = [games.by_hand(), games.renga(), games.renga(apart=True)]
    assert [run() for run in rounds] == [3] * 3
    (by_hand, *_), *ours = (run.held[0] for run in rounds)
    for player, layers in by_hand.items():
        for train_state in ours:
            for name, place in (("linear", 0), ("linear_1", 1), ("linear_2", 2)):
                np.testing.assert_allclose(train_state.params[player][name]["w"], layers[place]["w"], atol=1e-6)


def test_our_case_of_compilation_compiles(runner, monkeypatch):
    compilation = load("compile")
    assert compilation.of_net(nets.serial(*[compilation.block()] * 2), compilation.X)() == 1
