"""Runs: what they print, what they leave, and how they end."""

import contextlib
import csv
import io
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import renga as package
from renga.training import cli
from renga.training._interrupts import deferred_interrupts
from renga.training.cli import _directory, _run
from renga.training.cli._config import load, read
from renga.training.cli._experiment import Digits, Experiment, Mlp, Sgd, Train

FILES = ["config.toml", "curves.png", "metrics.csv", "metrics.jsonl", "misclassified.png", "params.npz"]
SMALL = ['net={name="mlp", hidden=[4]}', "train={num_steps=20, report_every=10, batch_size=8}"]


def setting(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


def rows(directory: Path) -> list[dict[str, Any]]:
    """The metrics of a run, from the JSON lines."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def arrays(directory: Path) -> dict[str, np.ndarray]:
    with np.load(directory / "params.npz") as held:
        return dict(held)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """The directory and the output of a small run."""
    directory = tmp_path_factory.mktemp("runs") / "small"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["train", "digits_sgd", "--out", str(directory), *setting(*SMALL)]) == 0
    return directory, out.getvalue()


def test_a_run_prints_what_it_trains_its_reports_and_how_it_ended(finished):
    directory, out = finished
    number = r"[\d.e+-]+"
    report = (
        rf"  accuracy {number}  loss {number}  test_accuracy {number}  test_loss {number}  [\d,]+ steps/s  ETA \d+:\d\d"
    )
    patterns = [
        r"network   serial\(flatten\(\), mlp\(4, 10\)\)",
        r"chain     chain\(sgd\(cosine_decay_schedule\(0.1, 20\), momentum=0.9\)\)",
        "images    1198 to train on, 599 held out",
        f"run       {re.escape(str(directory))}",
        f"step 10/20{report}",
        f"step 20/20{report}",
        r"test accuracy 0\.\d{4} \(\d+ of 599 wrong\) after 20 steps in \d+ s",
    ]
    for pattern, line in zip(patterns, out.splitlines(), strict=True):
        assert re.fullmatch(pattern, line)


def test_a_run_leaves_six_files(finished):
    assert names(finished[0]) == FILES


def test_the_resolved_config_says_every_value(finished):
    experiment = read(Experiment, load(finished[0] / "config.toml"))
    assert experiment == Experiment(
        net=Mlp(hidden=(4,)), optim=Sgd(schedule="cosine"), train=Train(num_steps=20, report_every=10, batch_size=8)
    )
    assert "test_share = 0.333" in (finished[0] / "config.toml").read_text(encoding="utf-8")


def test_csv_and_json_lines_agree(finished):
    with (finished[0] / "metrics.csv").open(encoding="utf-8", newline="") as table:
        from_csv = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]
    assert from_csv == rows(finished[0])
    assert [row["step"] for row in from_csv] == [10, 20]
    assert list(from_csv[0]) == ["step", "accuracy", "loss", "test_accuracy", "test_loss"]
    assert all(math.isfinite(value) for row in from_csv for value in row.values())


def test_the_parameters_are_arrays_by_path(finished):
    shapes = {name: array.shape for name, array in arrays(finished[0]).items()}
    assert shapes == {
        "mlp/layers/0/w": (64, 4),
        "mlp/layers/0/b": (4,),
        "mlp/layers/1/w": (4, 10),
        "mlp/layers/1/b": (10,),
    }
    net = Mlp(hidden=(4,)).build(10)
    assert list(_directory.by_path(net.init(jax.random.key(0), Digits().example["x"]))) == list(shapes)


@pytest.mark.parametrize("name", ["curves.png", "misclassified.png"])
def test_the_pictures_are_pngs_of_a_size_to_look_at(name, finished):
    png = (finished[0] / name).read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert png[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", png[16:24])
    assert (600 <= width <= 2000, 300 <= height <= 2000) == (True, True)


def test_a_resolved_config_runs_again_with_the_same_numbers(finished, renga):
    answer = renga("train", str(finished[0] / "config.toml"), "--out", "again")
    assert (answer.code, answer.err) == (0, "")
    again = Path("again")
    assert rows(again) == rows(finished[0])
    assert (again / "metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()
    assert (again / "params.npz").read_bytes() == (finished[0] / "params.npz").read_bytes()


def test_every_run_has_a_directory_of_its_own_and_the_seed_decides_its_numbers(finished, renga):
    for seed in 0, 1:
        assert renga("train", "configs/digits_sgd.toml", *setting(*SMALL, f"seed={seed}")).code == 0
    assert names(Path("runs")) == ["digits_sgd", "digits_sgd-2"]
    assert rows(Path("runs/digits_sgd")) == rows(finished[0])
    assert rows(Path("runs/digits_sgd-2"))[0]["loss"] != rows(finished[0])[0]["loss"]


def test_an_empty_directory_is_as_good_as_a_new_one(renga):
    Path("empty").mkdir()
    assert renga("train", "digits_sgd", "--out", "empty", *setting(*SMALL, "train.num_steps=1")).code == 0
    assert names(Path("empty")) == FILES


def test_the_last_report_is_of_the_last_step(renga):
    assert renga("train", "digits_sgd", "--out", "run", *setting(*SMALL, "train.num_steps=13")).code == 0
    assert [row["step"] for row in rows(Path("run"))] == [10, 13]


def test_a_convnet_runs_with_dropout_sam_a_clip_and_weight_decay(renga):
    net = 'net={name="convnet", channels=[2], hidden=4, drop_rate=0.5}'
    optim = 'optim={name="adam", rho=0.1, clip_norm=1, weight_decay=0.01}'
    answer = renga("train", "--out", "run", *setting(*SMALL, net, optim, "train.num_steps=2", "data.label_noise=0.1"))
    assert (answer.code, answer.err) == (0, "")
    assert "chain     chain(sam(0.1), clip_by_global_norm(1.0), adamw(0.001, weight_decay=0.01))\n" in answer.out


@pytest.mark.parametrize(
    ("tables", "chain"),
    [
        (
            '{name="extragradient", base={name="adam", learning_rate={name="cosine_decay_schedule", init_value=0.01}}}',
            "extragradient(adam(cosine_decay_schedule(0.01, 40)))",
        ),
        (
            '{name="chain", links=[{name="asam", rho=0.5, unscaled="**/b"}, {name="sgd", learning_rate=0.1}]}',
            "chain(asam(0.5, unscaled='**/b'), sgd(0.1))",
        ),
    ],
)
def test_a_run_with_any_chain_of_optim_can_be_run_again(tables, chain, renga):
    answer = renga("train", "digits_sgd", "--out", "run", *setting(*SMALL, f"optim={tables}"))
    assert (answer.code, answer.err) == (0, "")
    assert f"chain     {chain}\n" in answer.out
    assert renga("train", "run/config.toml", "--out", "again").code == 0
    assert rows(Path("again")) == rows(Path("run"))


def test_a_run_that_diverges_fails_and_keeps_the_parameters_of_the_last_finite_report(renga):
    unstable = 'optim={name="adam", weight_decay=1e5}'  # times a learning rate of 1e-3: 99 times larger at each step
    answer = renga("train", "digits_sgd", "--out", "run", *setting(*SMALL, unstable, "train.report_every=1"))
    assert answer.code == 1
    *finite, last = rows(Path("run"))
    assert finite
    assert None in last.values()  # JSON has no NaN
    assert re.fullmatch(
        rf"renga: step {last['step']}: expected finite metrics, got .*(nan|inf)\. A smaller optim.learning_rate, .*"
        r"\. run holds checkpoints, config.toml, metrics.csv, metrics.jsonl, params.npz\n",
        answer.err,
    )
    before = setting(*SMALL, unstable, "train.report_every=1", f"train.num_steps={finite[-1]['step']}")
    assert renga("train", "digits_sgd", "--out", "before", *before).code == 0
    assert (Path("run") / "params.npz").read_bytes() == (Path("before") / "params.npz").read_bytes()


def test_a_failure_that_nobody_foresaw_is_one_line_and_a_traceback_where_asked(renga, monkeypatch):
    def fit(*args: Any, **keywords: Any) -> None:
        error = OSError("the disk is full\nand more about it")
        error.add_note("----\nFor simplicity, frames were removed.")  # as JAX does
        raise error

    monkeypatch.setattr(_run, "fit", fit)
    answer = renga("train", "--out", "run", *setting(*SMALL))
    assert answer.code == 1
    assert answer.err == (
        "renga: OSError: the disk is full (--traceback shows where). run holds checkpoints, config.toml, "
        "metrics.jsonl. renga resume run goes on\n"
    )
    asked = renga("train", "--out", "asked", "--traceback", *setting(*SMALL))
    assert asked.code == 1
    assert "Traceback (most recent call last)" in asked.err
    assert "and more about it" in asked.err


@contextlib.contextmanager
def process(*words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command line in a process of its own, where Ctrl-C works even if it does not in this one."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from renga.training.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    tree = str(Path(package.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": tree},
        **options,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def test_ctrl_c_stops_a_run_and_leaves_the_last_report(tmp_path):
    words = setting(*SMALL, "train.num_steps=1000000")
    with process("train", "digits_sgd", "--out", "run", *words, cwd=tmp_path, stdout=subprocess.PIPE) as running:
        assert running.stdout
        assert next(line for line in running.stdout if line.startswith("step      20/1000000"))
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    holds = "run holds checkpoints, config.toml, metrics.csv, metrics.jsonl, params.npz"
    assert re.fullmatch(rf"\nrenga: stopped. Step \d+ is saved. {holds}. renga resume run goes on\n", err)
    assert running.returncode == 130
    steps = [row["step"] for row in rows(tmp_path / "run")]
    assert steps == list(range(10, 10 * len(steps) + 10, 10))
    assert len(steps) >= 2
    assert all(np.isfinite(array).all() for array in arrays(tmp_path / "run").values())


def test_a_run_whose_reader_has_gone_says_what_it_leaves(tmp_path):
    with process("train", "digits_sgd", "--out", "run", *setting(*SMALL), cwd=tmp_path, stdout=gone()) as running:
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (
        141,
        "renga: standard output was closed. run holds checkpoints, config.toml, metrics.jsonl. "
        "renga resume run goes on\n",
    )


def test_a_list_whose_reader_has_gone_ends_in_silence():
    with process("list", stdout=gone()) as running:
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (141, "")


def gone() -> int:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.fixture
def interruptible():
    """SIGINT as Python starts with it, even where this process was started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_waits_until_it_is_asked_for():
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts() as check:  # noqa: PT012
        check()
        signal.raise_signal(signal.SIGINT)
        reached.append("after the signal")
        check()
    assert reached == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_the_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one waited")


@pytest.mark.usefixtures("interruptible")
def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred_interrupts() as check:
        signal.raise_signal(signal.SIGINT)
        check()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_list_shows_every_config_with_its_header(renga):
    answer = renga("list")
    assert (answer.code, answer.err) == (0, "")
    for name, path in cli.configs().items():
        header = [line[2:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
        assert "\n    ".join([name, *header]) + "\n" in answer.out


def test_summary_shows_the_network_of_a_config(renga):
    answer = renga("summary", *setting(*SMALL))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0].split() == ["path", "layer", "output", "params", "bytes", "FLOPs"]
    assert re.search(r"^mlp/layers/0  linear\(4\) +\(4,\) +260 ", answer.out, re.MULTILINE)
    assert re.search(r"^total .* 310 ", answer.out, re.MULTILINE)


def test_summary_and_train_alone_take_the_main_job(renga):
    assert renga("summary").out == renga("summary", "configs/digits_convnet.toml").out


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["summary", "--help"], ["list", "--help"]])
def test_help_is_no_mistake(words, renga):
    answer = renga(*words)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("usage: renga")
