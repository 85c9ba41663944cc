"""`renga resume`: runs of every kind that were stopped leave what those leave that nothing stopped."""

import contextlib
import io
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from renga.training import cli
from renga.training.cli._directory import RunDirectory

from .test_games import SMALL as SMALL_GAME
from .test_gan import SMALL as SMALL_GAN
from .test_meta import SMALL as SMALL_META
from .test_run import SMALL, names, process, rows, setting

KINDS = {  # a small run of every kind
    "digits_sgd": setting(*SMALL, "train.num_steps=35"),
    "digits_dcgan": setting(*SMALL_GAN, "train.num_steps=3"),
    "gan_ring": SMALL_GAME,
    "maml_sinusoid": [*SMALL_META, *setting("train.num_steps=6")],
}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Both signals as Python starts with them, even where this process was started in the background."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)]
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], Path]:
    """The directories of runs that nothing stopped."""
    root, made = tmp_path_factory.mktemp("whole"), set()

    def run(name: str) -> Path:
        if name not in made:
            made.add(name)
            with contextlib.redirect_stdout(io.StringIO()):
                assert cli.main(["train", name, "--out", str(root / name), *KINDS[name]]) == 0
        return root / name

    return run


def assert_same_files(directory: Path, other: Path) -> None:
    """Bitwise, but for what says how long something took."""
    assert names(directory) == names(other)
    for name in set(names(directory)) - {"scores.csv"}:
        assert (directory / name).read_bytes() == (other / name).read_bytes(), name


def stop_at(monkeypatch, number: int, stop: Callable[[], None]) -> None:
    """Has something happen right after a row of metrics was written."""
    log, seen = RunDirectory.log, []

    def logged(self: RunDirectory, row: dict[str, float]) -> None:
        log(self, row)
        seen.append(row)
        if len(seen) == number:
            stop()

    monkeypatch.setattr(RunDirectory, "log", logged)


def fail() -> None:
    raise OSError("the power failed")


ENDS = {
    "an error": (fail, 1, r"renga: OSError: the power failed \(--traceback shows where\)"),
    "Ctrl-C": (lambda: signal.raise_signal(signal.SIGINT), 130, r"\nrenga: stopped\. Step \d+ is saved"),
    "SIGTERM": (lambda: signal.raise_signal(signal.SIGTERM), 143, r"\nrenga: terminated\. Step \d+ is saved"),
}
STOPS = {  # row of metrics after which a run is stopped, and how
    "digits_sgd": [(1, "Ctrl-C"), (1, "SIGTERM"), (2, "an error")],
    "digits_dcgan": [(1, "SIGTERM"), (2, "an error")],
    "gan_ring": [(1, "Ctrl-C"), (6, "an error")],
    "maml_sinusoid": [(1, "SIGTERM"), (2, "an error")],
}


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "gan_ring" else ()) for name in KINDS]
)
def test_a_run_that_was_stopped_and_taken_up_leaves_the_same_files(name, renga, whole, monkeypatch):
    command = ["train", name, "--out", "run", *KINDS[name]]
    for row, end in STOPS[name]:
        stop, code, said = ENDS[end]
        with monkeypatch.context() as patch:
            stop_at(patch, row, stop)
            answer = renga(*command, "--checkpoint-every", "0")
        assert answer.code == code
        assert re.fullmatch(
            rf"{said}\. run holds checkpoints, config\.toml, .*\. renga resume run goes on\n", answer.err
        )
        assert command[0] == "train" or re.search(r"^taken up at step \d+$", answer.out, re.MULTILINE)
        command = ["resume", "run"]
    last = renga(*command)
    assert (last.code, last.err) == (0, "")
    assert re.search(r"^taken up at step \d+$", last.out, re.MULTILINE)
    assert_same_files(Path("run"), whole(name))
    assert [path.name for path in Path("run").iterdir() if path.name.startswith(".")] == []


def test_a_run_that_was_stopped_before_it_was_ever_saved_starts_anew(renga, whole, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 1, fail)
        assert renga("train", "digits_sgd", "--out", "run", *KINDS["digits_sgd"]).code == 1
    again = renga("resume", "run", "--checkpoint-every", "0.001")
    assert (again.code, again.err) == (0, "")
    assert "taken up" not in again.out
    assert_same_files(Path("run"), whole("digits_sgd"))


def test_a_run_that_ended_but_for_its_pictures_makes_them(renga, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("renga.training.cli._plots.curves", lambda *args: fail())
        assert renga("train", "digits_sgd", "--out", "run", *KINDS["digits_sgd"]).code == 1
    again = renga("resume", "run")
    assert (again.code, again.err) == (0, "")
    assert "taken up at step 35\n" in again.out
    assert "step 10/35" not in again.out
    assert_same_files(Path("run"), whole("digits_sgd"))


def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_one_line_says_so(renga, whole, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 3, fail)
        renga("train", "digits_sgd", "--out", "run", "--checkpoint-every", "0", *KINDS["digits_sgd"])
    *_, before, last = sorted(Path("run/checkpoints").glob("step_*"))
    (last / "record.json").write_text("{}", encoding="utf-8")
    again = renga("resume", "run")
    assert again.code == 0
    assert again.err == (
        f"renga: checkpoints: expected {last.absolute()} as it was saved, got record.json changed. It is set aside as "
        f"{last.name}.damaged. Step {before.name.removeprefix('step_')} is taken.\n"
    )
    assert_same_files(Path("run"), whole("digits_sgd"))


def test_where_all_checkpoints_are_damaged_the_run_fails_in_one_line(renga, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 2, fail)
        renga("train", "digits_sgd", "--out", "run", "--checkpoint-every", "0", *KINDS["digits_sgd"])
    for path in Path("run/checkpoints").glob("step_*/record.json"):
        path.unlink()
    answer = renga("resume", "run")
    assert answer.code == 1
    assert re.match(r"renga: checkpoints: expected one in .* that is as it was saved, got step_", answer.err)
    assert answer.err.count("\n") == 1
    assert "goes on" not in answer.err
    assert [row["step"] for row in rows(Path("run"))] == [10, 20]


def test_a_run_that_has_ended_is_refused(renga, whole):
    done = whole("digits_sgd")
    answer = renga("resume", str(done))
    assert (answer.code, answer.err) == (
        2,
        f"renga: {done}: expected a run that was stopped, got one that has ended. "
        f"renga train {done}/config.toml makes it again\n",
    )


@pytest.mark.parametrize(
    ("path", "found"), [("none", "none of that name"), ("empty", "one without config.toml"), ("file", "a file")]
)
def test_what_is_no_run_is_refused(path, found, renga):
    Path("empty").mkdir()
    Path("file").touch()
    answer = renga("resume", path)
    assert (answer.code, answer.err) == (2, f"renga: {path}: expected the directory of a run, got {found}\n")


def test_a_run_that_another_process_is_at_is_refused(renga, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 1, fail)
        renga("train", "digits_sgd", "--out", "run", *KINDS["digits_sgd"])
    other = RunDirectory(Path("run"))
    other.lock()
    answer = renga("resume", "run")
    other.unlock()
    assert (answer.code, answer.err) == (
        2,
        "renga: run: expected a run that no process is at, got one that is under way\n",
    )


@pytest.mark.parametrize("seconds", ["-1", "often", "nan", "1e30"])
def test_an_interval_that_is_no_time_is_refused(seconds, renga):
    answer = renga("train", "digits_sgd", "--checkpoint-every", seconds)
    assert answer.code == 2
    assert answer.err.endswith(f"argument --checkpoint-every: expected seconds, got {seconds!r}\n")


def test_without_orbax_nothing_begins(renga, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "orbax.checkpoint", None)
    answer = renga("train", "digits_sgd", "--out", "run", *KINDS["digits_sgd"])
    assert (answer.code, answer.err) == (
        2,
        "renga: checkpoints: expected orbax-checkpoint to be installed, got none. "
        "Install it with pip install 'renga[cli]'.\n",
    )
    assert not Path("run").exists()


def killed(tmp_path: Path, name: str, words: list[str], *, times: int) -> None:
    """Kills a run a moment after its first report, time and again."""
    command = ["train", name, "--out", "run", *words]
    for _ in range(times):
        with process(*command, "--checkpoint-every", "0", cwd=tmp_path, stdout=subprocess.PIPE) as running:
            assert running.stdout
            assert next(line for line in running.stdout if line.startswith("step "))
            time.sleep(0.1)
            running.kill()
        command = ["resume", "run"]


def assert_ends_as_a_whole_run(tmp_path: Path, name: str, words: list[str]) -> None:
    for command in (["resume", "run"], ["train", name, "--out", "whole", *words]):
        with process(*command, cwd=tmp_path, stdout=subprocess.PIPE) as running:
            _, err = running.communicate(timeout=300)
        assert (running.returncode, err) == (0, "")
    assert_same_files(tmp_path / "run", tmp_path / "whole")


@pytest.mark.long
def test_a_run_that_is_killed_thrice_ends_with_the_same_numbers(tmp_path):
    words = setting(*SMALL, "train.num_steps=3000")
    killed(tmp_path, "digits_sgd", words, times=3)
    assert_ends_as_a_whole_run(tmp_path, "digits_sgd", words)


LONGER = {
    "digits_dcgan": setting(*SMALL_GAN, "train.num_steps=30"),
    "gan_ring": [*SMALL_GAME, *setting("train.num_steps=200")],
    "maml_sinusoid": [*SMALL_META, *setting("train.num_steps=400")],
}


@pytest.mark.long
@pytest.mark.parametrize("name", LONGER)
def test_a_game_or_a_run_of_meta_learning_that_is_killed_twice_ends_with_the_same_numbers(name, tmp_path):
    killed(tmp_path, name, LONGER[name], times=2)
    assert_ends_as_a_whole_run(tmp_path, name, LONGER[name])
