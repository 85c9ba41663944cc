"""Runs beside each other, their parameters for others, and the Tab key of a shell."""

import contextlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from renga.nets.convert import load_safetensors
from renga.training import cli
from renga.training.cli._completion import commands_of
from renga.training.cli._options import COMMANDS, parser

from .test_run import SMALL, arrays, setting


def csv_run(path: Path, config: str, metrics: str) -> Path:
    """A run that left no more than its config and metrics."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text(config, encoding="utf-8")
    (path / "metrics.csv").write_text(metrics, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with two small runs."""
    root = tmp_path_factory.mktemp("runs")
    for name, rate in (("slow", 0.01), ("fast", 0.1)):
        words = setting(*SMALL, f"optim.learning_rate={rate}")
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(["train", "digits_sgd", "--out", str(root / name), *words]) == 0
    return root


def test_runs_are_compared_by_config_and_last_metrics_and_drawn(finished, renga):
    answer = renga("compare", str(finished / "slow"), str(finished / "fast"))
    assert (answer.code, answer.err) == (0, "")
    config, metrics, curves = answer.out.rstrip("\n").split("\n\n")
    assert config.splitlines() == [
        "config               slow  fast",
        "optim.learning_rate  0.01  0.1",
    ]
    lines = [line.split() for line in metrics.splitlines()]
    assert lines[:2] == [["last", "slow", "fast"], ["step", "20", "20"]]
    assert [line[0] for line in lines[2:]] == ["accuracy", "loss", "test_accuracy", "test_loss"]
    assert float(lines[5][1]) > float(lines[5][2])
    assert curves == "curves    compare.png"
    assert Path("compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_goes_where_it_is_told(finished, renga):
    answer = renga("compare", str(finished / "slow"), str(finished / "fast"), "--out", "both.png")
    assert answer.out.endswith("curves    both.png\n")
    assert Path("both.png").is_file()


def test_runs_of_different_kinds_are_compared_by_what_they_have(renga):
    csv_run(Path("a/run"), "seed = 0\n[net]\nname = 'mlp'\n", "step,loss\n1,2.0\n2,1.0\n")
    csv_run(Path("b/run"), "seed = 0\n", "method,seed,step,loss,modes\nsgd,0,1,4.0,1\nsgd,1,1,2.0,2\nadam,0,1,1,8\n")
    answer = renga("compare", "a/run", "b/run")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[:8] == [
        "config    a/run  b/run",
        'net.name  "mlp"  -',
        "",
        "last   a/run  b/run/sgd  b/run/adam",
        "step   2      1          1",
        "loss   1      3          1",
        "modes  -      1.5        8",
        "",
    ]


def test_a_run_is_named_by_its_directory_from_within_too(renga, monkeypatch):
    for name in "ab":
        csv_run(Path(name), f"seed = {'ab'.index(name)}\n", "step,loss\n1,2.0\n")
    monkeypatch.chdir("a")
    assert renga("compare", ".", "../b").out.splitlines()[:2] == ["config  a  b", "seed    0  1"]


def test_a_row_that_a_kill_cut_short_is_left_out(renga):
    csv_run(Path("a"), "seed = 0\n", "step,loss\n10,2.0\n20,1.5\n30,0.")
    csv_run(Path("b"), "seed = 1\n", "step,loss\n10,3.0\n20,2.5\n")
    assert renga("compare", "a", "b").out.splitlines()[3:6] == [
        "last  a    b",
        "step  20   20",
        "loss  1.5  2.5",
    ]


def test_configs_that_do_not_differ_are_said_to_be_the_same(renga):
    for name in "ab":
        csv_run(Path(name), "seed = 0\n", "step,loss\n1,2.0\n")
    assert renga("compare", "a", "b").out.startswith("config    the same\n\n")


def test_a_run_is_exported_as_arrays_by_path(finished, renga):
    answer = renga("export", str(finished / "slow"), "net.safetensors")
    assert (answer.code, answer.err) == (0, "")
    found, wanted = load_safetensors("net.safetensors"), arrays(finished / "slow")
    assert (
        answer.out
        == f"{len(wanted)} arrays, {sum(each.size for each in wanted.values())} numbers, in net.safetensors\n"
    )
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, wanted[name])


def test_without_the_extra_an_export_names_it(finished, renga, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    answer = renga("export", str(finished / "slow"), "net.safetensors")
    assert answer.code == 2
    assert answer.err == "renga: net.safetensors: safetensors is not installed: pip install 'renga[convert]'\n"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no directory here that nobody can write to")
def test_a_file_that_cannot_be_written_is_refused(finished, renga):
    answer = renga("export", str(finished / "slow"), "/proc/slow.safetensors")
    assert answer.code == 2
    assert answer.err.startswith("renga: /proc/slow.safetensors: expected a file that can be written, got '")
    assert answer.err.count("\n") == 1


def test_completion_knows_every_command_option_and_config():
    commands = {each.name: each for each in commands_of(parser(), list(cli.configs()))}
    assert list(commands) == list(COMMANDS)
    assert set(cli.configs()) == set(commands["train"].words) == set(commands["sweep"].words)
    own = {"--over", "--seeds", "--set", "--out", "--at-once", "--checkpoint-every", "--profile"}
    assert own | {"--help", "--traceback"} == set(commands["sweep"].options)
    assert commands["completion"].words == ["bash", "zsh", "fish"]
    assert not commands["completion"].takes_files
    assert commands["resume"].takes_files


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_reads_names_them_too(shell, renga):
    answer = renga("completion", shell)
    assert (answer.code, answer.err) == (0, "")
    for word in [*COMMANDS, "digits_convnet", "at-once"]:
        assert word in answer.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=answer.out, text=True, check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["co"], ["compare", "completion"]),
        (["train", "digits_c"], ["digits_convnet"]),
        (["train", "x", "--o"], ["--out"]),
        (["sweep", "gan_grid", "--se"], ["--set", "--seeds"]),
        (["completion", "z"], ["zsh"]),
        (["evaluate", "here"], ["here.toml"]),
        (["evaluate", "the"], ["the run"]),
    ],
)
def test_bash_completes(words, found, renga, tmp_path):
    (tmp_path / "here.toml").touch()
    (tmp_path / "the run").mkdir()
    script = renga("completion", "bash").out
    line = " ".join(f"'{word}'" for word in ["renga", *words])
    script += f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _renga; printf "%s\\n" "${{COMPREPLY[@]}}"\n'
    done = subprocess.run(["bash", "--norc"], input=script, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines() == found
