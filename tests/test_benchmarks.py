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


def nothings():
    return {"a": lambda: 1, "b": lambda: 1, "torch": lambda: 1}


def test_the_result_is_printed_and_written_with_versions(runner, tmp_path, monkeypatch, capsys):
    path = tmp_path / "results" / "out.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "2", "--json", str(path)])
    promises = [runner.Promise("b", "a", 1e9)]
    assert runner.comparison("nothings", "three nothings", "a", promises=promises, ours="b")(nothings) is nothings
    runner.main()
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["versions"]["jax"]
    assert {name: case["ours"] for name, case in record["cases"].items()} == {"a": False, "b": True, "torch": False}
    assert record["promises"][0]["found"] > 0
    assert (record["file"], record["rounds"]) == ("test_benchmarks.py", 2)
    assert "three nothings" in capsys.readouterr().out


def test_one_of_several_comparisons_is_run_by_its_name(runner, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "second", "--rounds", "2"])
    for name in ("first", "second"):
        runner.comparison(name, f"the {name}", "a")(nothings)
    runner.main()
    assert "the second" in capsys.readouterr().out


def test_a_name_is_given_once(runner):
    runner.comparison("nothings", "three nothings", "a")(nothings)
    with pytest.raises(ValueError, match="expected a new name, got") as caught:
        runner.comparison("nothings", "others", "a")(nothings)
    said = "comparison: expected a new name, got 'nothings' of test_benchmarks.py. Choose another."
    assert str(caught.value) == said


def test_a_comparison_of_cpus_is_refused_elsewhere(runner, monkeypatch):
    monkeypatch.setattr(runner, "environment", lambda: {"backend": "gpu"})
    runner.comparison("nothings", "three nothings", "a", backends=["cpu"])(nothings)
    with pytest.raises(ValueError, match="nothings") as caught:
        runner.run(runner.REGISTERED["nothings"])
    assert str(caught.value) == "nothings: expected the backend cpu, got gpu. Run it there."


def test_peers_that_know_only_cpus_are_left_out_on_an_accelerator(runner, monkeypatch):
    monkeypatch.setattr(runner, "environment", lambda: {"backend": "gpu"})
    runner.comparison("nothings", "three nothings", "a")(nothings)
    assert set(runner.run(runner.REGISTERED["nothings"], 2)["cases"]) == {"a", "b"}


def test_a_share_is_that_of_the_given_ceilings(runner, tmp_path):
    ceilings = tmp_path / "ceilings.json"
    runner.write(ceilings, {"ceilings": {"flops": 1e30, "bytes": 1.0}})
    runner.comparison("nothings", "three nothings", "a", work={"b": runner.Work(flops=1.0, bytes=1.0)})(nothings)
    cases = runner.run(runner.REGISTERED["nothings"], 2, ceilings)["cases"]
    assert cases["a"]["share"] is None
    assert cases["b"]["share"]["flops"] < 1 < cases["b"]["share"]["bytes"]


def test_ceilings_are_positive_and_finite(runner):
    found = load("ceilings").measure((8, 16), 1024, 2)
    assert all(0 < value < 1e18 for value in found.values())


def test_every_promise_is_about_cases_that_are_there(runner, monkeypatch):
    for module in ("dispatch", "apply"):
        load(module)
    for each in runner.REGISTERED.values():
        assert {name for promise in each.promises for name in (promise.case, promise.peer)} <= set(each.cases())


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
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "torch")
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
