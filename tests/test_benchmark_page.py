"""The page of benchmarks: promises, merging, failures in words, and the page in the tree."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def load(monkeypatch) -> Any:
    """Imports a part of the benchmarks as its command would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> Any:
        for module in ("run", "runner", "results", "page"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return importlib.import_module(name)

    return load


def timings(results, **times):
    return {
        name: results.Timing(sorted(each)[1], min(each), max(each), each[0] / times["ours"][0], tuple(each))
        for name, each in times.items()
    }


def entry(**changes):
    case = {"median": 2.0, "low": 1.0, "high": 3e6, "ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.2}
    found = {"renga": case | {"ours": True, "share": {"flops": 0.4}}, "torch": case | {"ours": False, "share": None}}
    head = {"title": "a step", "file": "step.py", "baseline": "renga", "rounds": 3, "date": "2026-01-01"}
    return head | {"machine": "2 cores", "versions": {"jax": "1"}, "cases": found, "promises": []} | changes


def record(**entries):
    head = {"backend": "cpu", "machine": "2 cores", "python": "3.11", "versions": {"jax": "1"}, "date": "2026-01-02"}
    return head | {"ceilings": {"flops": 2e11, "bytes": 3e10}, "failures": {}, "comparisons": entries}


def test_a_promise_is_measured_in_the_same_rounds_against_the_fastest_peer(load):
    results = load("results")
    measured = timings(results, ours=[1, 2, 9], slow=[9, 9, 9], fast=[2, 2, 3])
    found = results.found(results.Promise("ours", ("slow", "fast", "absent"), 0.9), measured)
    assert found == {"case": "ours", "peer": "fast", "at_most": 0.9, "found": 1.0}
    assert results.missed(found)
    assert not results.missed(found | {"found": 0.9})
    reasoned = results.found(results.Promise("ours", "fast", 0.9, "It waits."), measured)
    assert reasoned == found | {"why": "It waits."}


def test_a_promise_without_its_peers_or_its_case_is_not_measured(load):
    results = load("results")
    measured = timings(results, ours=[1, 2, 3])
    alone = results.found(results.Promise("ours", ("a", "b"), 1), measured)
    assert alone == {"case": "ours", "peer": "a or b", "at_most": 1, "found": None}
    assert results.found(results.Promise("absent", "ours", 1), measured)["found"] is None
    assert not results.missed(alone)


def test_a_share_is_work_over_time_and_ceiling(load):
    results = load("results")
    timing = timings(results, ours=[1, 2, 3])["ours"]
    share = results.share(timing, results.Work(bytes=10), {"flops": 1e9, "bytes": 2e7})
    assert share == {"bytes": 0.25}
    assert results.shares(share) == "25 % of bandwidth"
    assert results.share(timing, results.Work(bytes=10), None) is None


@pytest.mark.parametrize(
    ("microseconds", "words"),
    [(0.5, "0.50 us"), (42.31, "42.3 us"), (999, "999 us"), (1500, "1.50 ms"), (2.5e6, "2.50 s"), (3e9, "3000 s")],
)
def test_a_duration_is_in_the_unit_that_suits_it(load, microseconds, words):
    assert load("results").duration(microseconds) == words


def test_all_files_are_imported_and_register_their_comparisons(tmp_path):
    path = tmp_path / "list.json"
    subprocess.run([sys.executable, str(BENCHMARKS / "run.py"), "--list", str(path)], check=True)
    listed = json.loads(path.read_text(encoding="utf-8"))
    assert listed["failures"] == {}
    files = {each["file"] for each in listed["comparisons"].values()}
    parts = {"ceilings.py", "nets.py", "page.py", "results.py", "run.py", "runner.py", "steps.py"}
    assert files == {path.name for path in BENCHMARKS.glob("*.py")} - parts


def test_comparisons_are_chosen_by_name_by_file_and_by_backend(load):
    run = load("run")
    listed = {
        "lstm": {"file": "recurrence.py", "backends": []},
        "lstm-one-core": {"file": "recurrence.py", "backends": ["cpu"]},
        "scan": {"file": "loop.py", "backends": []},
    }
    assert list(run.chosen(listed, [], "gpu")) == ["lstm", "scan"]
    assert list(run.chosen(listed, ["lstm*"], "cpu")) == ["lstm", "lstm-one-core"]
    assert list(run.chosen(listed, ["loop.py", "lstm"], "cpu")) == ["lstm", "scan"]


def test_what_was_not_run_keeps_its_entry_and_what_is_gone_goes(load):
    run = load("run")
    listed = {"comparisons": {"b": {}, "a": {}}, "failures": {"broken.py": "no"}}
    before = {"a": entry(), "gone": entry(), "lost": entry(file="broken.py")}
    now = run.merged(before, listed, {"b": entry(rounds=9)})
    assert now == {"b": entry(rounds=9), "a": entry(), "lost": entry(file="broken.py")}
    assert list(now) == ["b", "a", "lost"]


def test_a_comparison_that_fails_is_reported_on_the_page(load, tmp_path):
    run = load("run")
    failed = run.measured("nothing", {"file": "nothing.py", "title": "nothing"}, 2, tmp_path / "ceilings.json")
    assert "can't open file" in failed["error"]
    assert run.outcome(failed).startswith("failed: ")
    page = run.page({"cpu": record(nothing=failed, fine=entry())}, "benchmarks")
    assert "- nothing: the comparison failed: `" in page
    assert "### nothing" not in page
    assert "### fine: a step" in page


def test_every_missed_promise_is_a_sentence_above_the_figures(load):
    promises = [
        {"case": "renga", "peer": "torch", "at_most": 1.0, "found": 1.2345},
        {"case": "renga", "peer": "Equinox", "at_most": 1.0, "found": 2.0, "why": "It waits for `x`."},
        {"case": "renga", "peer": "Haiku", "at_most": 1 / 3, "found": 0.25, "why": "Never seen."},
        {"case": "renga", "peer": "Flax or Equinox", "at_most": 1.0, "found": None},
    ]
    said = load("page").shortfalls(record(step=entry(promises=promises)) | {"failures": {"a.py": "no `x`\nthere"}})
    assert said.splitlines() == [
        "Of 4 promises, 1 is kept.",
        "",
        "- step: `renga` takes 1.234 of the time of `torch`; at most 1 is promised.",
        "- step: `renga` takes 2.000 of the time of `Equinox`; at most 1 is promised. It waits for `x`.",
        "- `a.py` could not be run: `no 'x' there`.",
        "- step: `renga` was not measured beside `Flax or Equinox`.",
    ]


def test_what_was_measured_beside_other_jobs_is_said(load):
    page, busy = load("page"), entry(others=1.24)
    said = page.shortfalls(record(busy=busy, quiet=entry(others=0.1), also=busy))
    assert "- Measured beside other jobs, so to be read with care: busy, also." in said.splitlines()
    assert "3 rounds, 2026-01-01; other jobs took 1.2 cores.\n" in page.tables("busy", busy, record())


def test_the_time_of_other_processes_does_not_go_back(load):
    run = load("run")
    before = run.elsewhere()
    assert 0 <= before <= run.elsewhere() + 0.1


def test_where_nothing_falls_short_only_the_number_of_promises_is_said(load):
    assert load("page").shortfalls(record(step=entry())) == "Of 0 promises, 0 are kept.\n"


def test_a_table_holds_times_ratios_shares_and_what_differs_from_the_last_run(load):
    promise = {"case": "renga", "peer": "torch", "at_most": 1.0, "found": 0.5}
    old = entry(promises=[promise], versions={"jax": "0.9"}, machine="4 cores")
    assert load("page").tables("step", old, record()).splitlines() == [
        "### step: a step",
        "",
        "| | median | quartiles | ratio | share of ceiling |",
        "| --- | --- | --- | --- | --- |",
        "| **renga** | 2.00 us | 1.00 us to 3.00 s | 1.000 | 40 % of FLOP/s |",
        "| torch | 2.00 us | 1.00 us to 3.00 s | 1.000 | |",
        "",
        "Ratios to `renga`; `step.py`, 3 rounds, 2026-01-01; jax 0.9; 4 cores.",
        "",
        "| promised | at most | found | |",
        "| --- | --- | --- | --- |",
        "| renga to torch | 1 | 0.500 | kept |",
    ]


def test_the_page_and_its_pictures_are_made_of_the_figures_of_every_backend(load, tmp_path):
    run, out = load("run"), tmp_path / "benchmarks"
    for backend in ("cpu", "gpu"):
        run.write(out / f"{backend}.json", record(step=entry()))
    run.publish(out)
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert page.isascii()
    for backend in ("cpu", "gpu"):
        assert f"## Figures: {backend}" in page
        assert f"(benchmarks/{backend}.png)" in page
        assert (out / f"{backend}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_in_the_tree_is_that_of_the_figures_in_the_tree(load):
    run = load("run")
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.OUT.glob("*.json"))}
    assert "cpu" in records
    assert run.OUT.with_suffix(".md").read_text(encoding="utf-8") == run.page(records, run.OUT.name)
