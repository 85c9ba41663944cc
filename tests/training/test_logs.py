"""Logs: what stands in the files, also after a run was taken up, and several writers as one."""

import csv
import importlib
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim, training
from renga.training import Log, csv_log, json_log, logs, tensorboard_log

ROWS = [{"step": 10 * number, "loss": 1 / number, "part": "a"} for number in range(1, 5)]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scalars(directory: Path) -> list[tuple[int, str, float]]:
    """Steps, names and values of an event file, read record by record."""
    events = importlib.import_module("tensorboardX.proto.event_pb2")
    (path,) = directory.glob("events*")
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        (size,) = struct.unpack_from("<Q", data, place)
        event = events.Event.FromString(data[place + 12 : place + 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        place += 12 + size + 4
    return found


def test_rows_stand_in_the_files_as_they_were_written(tmp_path):
    log = logs(csv_log(tmp_path / "rows.csv"), json_log(tmp_path / "rows.jsonl"))
    for row in ROWS:
        log.write(row)
    assert [
        {"step": int(row["step"]), "loss": float(row["loss"]), "part": row["part"]}
        for row in table(tmp_path / "rows.csv")
    ] == ROWS
    assert lines(tmp_path / "rows.jsonl") == ROWS


def test_numbers_of_numpy_and_jax_are_written_as_numbers(tmp_path):
    row = {"step": np.int64(3), "loss": jnp.float32(0.5), "share": np.float64(0.1)}
    logs(csv_log(tmp_path / "rows.csv"), json_log(tmp_path / "rows.jsonl")).write(row)
    assert table(tmp_path / "rows.csv") == [{"step": "3", "loss": "0.5", "share": "0.1"}]
    assert lines(tmp_path / "rows.jsonl") == [{"step": 3, "loss": 0.5, "share": 0.1}]


def test_json_has_null_and_csv_nan_for_what_is_not_finite(tmp_path):
    row = {"step": 1, "loss": float("nan"), "norm": float("inf")}
    logs(csv_log(tmp_path / "rows.csv"), json_log(tmp_path / "rows.jsonl")).write(row)
    assert table(tmp_path / "rows.csv") == [{"step": "1", "loss": "nan", "norm": "inf"}]
    assert lines(tmp_path / "rows.jsonl") == [{"step": 1, "loss": None, "norm": None}]


def test_a_column_that_comes_later_joins_the_header(tmp_path):
    log = csv_log(tmp_path / "rows.csv")
    for row in ({"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "accuracy": 1.0}, {"step": 3, "accuracy": 0.5}):
        log.write(row)
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8") == "step,loss,accuracy\n1,0.5,\n2,0.25,1.0\n3,,0.5\n"


@pytest.mark.parametrize("cut", ["", "40,0.", '{"step": 40, "lo'])
def test_a_run_that_is_taken_up_writes_no_row_twice_and_drops_a_line_that_was_cut_short(tmp_path, cut):
    for name, make, read in (("rows.csv", csv_log, table), ("rows.jsonl", json_log, lines)):
        whole, path = make(tmp_path / f"whole-{name}"), tmp_path / name
        for row in ROWS:
            whole.write(row)
        before = make(path)
        for row in ROWS[:3]:
            before.write(row)
        with path.open("a", encoding="utf-8") as file:
            file.write(cut)
        after = make(path)
        for row in ROWS[1:]:
            after.write(row)
        assert path.read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
        assert len(read(path)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rows.csv", "rows.jsonl", "whole-rows.csv", "whole-rows.jsonl",
    ]  # fmt: skip


def test_a_file_left_empty_or_without_steps_is_gone_on_with(tmp_path):
    for name, make, read in (("rows.csv", csv_log, table), ("rows.jsonl", json_log, lines)):
        (tmp_path / name).touch()
        make(tmp_path / name).write({"loss": 1})
        make(tmp_path / name).write({"loss": 2})
        assert [int(row["loss"]) for row in read(tmp_path / name)] == [1, 2]


def test_rows_without_a_step_stay_where_a_run_is_taken_up(tmp_path):
    rows = [{"step": 10, "loss": 2}, {"share": 3}, {"step": 20, "loss": 4}]
    for name, make, read in (("rows.csv", csv_log, table), ("rows.jsonl", json_log, lines)):
        for row in [*rows, rows[2]]:
            make(tmp_path / name).write(row)
        found = [{key: int(value) for key, value in row.items() if value != ""} for row in read(tmp_path / name)]
        assert found == rows


def test_fit_reports_to_a_log_and_a_run_in_two_parts_leaves_the_file_of_one(tmp_path):
    tx = optim.sgd(0.1)
    step = training.step(lambda w, x, key: jnp.mean((w - x) ** 2), tx)
    feed = training.batches(np.arange(8.0, dtype=np.float32), 4, key=jax.random.key(0))

    def run(name: str, *counts: int) -> str:
        for count in counts:
            training.fit(
                step, training.init(jnp.array(0.0), tx), feed, num_steps=count, report_every=5, progress=False,
                on_report=csv_log(tmp_path / f"{name}.csv"), checkpoints=training.Checkpoints(tmp_path / name),
            )  # fmt: skip
        return (tmp_path / f"{name}.csv").read_text(encoding="utf-8")

    whole = run("whole", 20)
    assert len(whole.splitlines()) == 5
    assert run("parts", 10, 20) == whole


def test_tensorboard_reads_the_numbers_and_not_the_words(tmp_path):
    pytest.importorskip("tensorboardX")
    with tensorboard_log(tmp_path) as log:
        for row in ROWS[:2]:
            log(row, None)
    assert scalars(tmp_path) == [(10, "loss", 1.0), (20, "loss", 0.5)]


def test_without_tensorboardx_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    message = (
        "tensorboard_log: expected tensorboardX to be installed, got none. "
        "Install it: pip install 'renga[tensorboard]'."
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        tensorboard_log(tmp_path)


def test_all_writers_are_closed_at_the_end_of_a_context():
    closed = []
    with logs(Log(lambda row: None, lambda: closed.append(1)), Log(lambda row: None, lambda: closed.append(2))) as log:
        log.write({})
    assert closed == [1, 2]
