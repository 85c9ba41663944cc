"""Runs that were stopped, and taken up: bitwise those that nothing stopped."""

import dataclasses
import datetime
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training._interrupts import deferred_interrupts

from ..optim.trees import assert_same

ROOT = Path(__file__).parents[2]
NET = nets.serial(nets.linear(4), jnp.tanh, nets.dropout(0.2), nets.linear(1))
X = np.sin(np.arange(66.0, dtype=np.float32)).reshape(22, 3)
DATA = {"x": X, "y": np.cos(3 * X[:, :1])}
TX = optim.chain(optim.sam(0.05), optim.adam(0.03), optim.ema_params(0.9))
NUM_STEPS = 47


def loss_fn(params: Any, batch: Any, key: jax.Array) -> Any:
    predicted = NET.apply(params, batch["x"], key=key, train=True)
    return training.squared_error(predicted, batch["y"]), {"spread": jnp.std(predicted)}


STEP = training.step(loss_fn, TX, has_aux=True)


class PowerCut(Exception):
    """What a data source raises."""


@dataclasses.dataclass
class Feed:
    """Batches in epochs of five, until the power fails before one of them."""

    fails_at: int | None = None
    drawn: int = 0

    def __iter__(self) -> Iterator[Any]:
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[Any]:
        for at, batch in enumerate(training.batches(DATA, 4, key=jax.random.key(2)).starting_at(step), step):
            if at == self.fails_at:
                raise PowerCut
            self.drawn += 1
            yield batch


def start() -> training.TrainState:
    return training.init(NET.init(jax.random.key(0), X), TX, key=jax.random.key(1))


def score(params: Any, batch: Any) -> dict[str, jax.Array]:
    return {"test_loss": training.squared_error(NET.apply(params, batch["x"]), batch["y"])}


def test_score(train_state: training.TrainState) -> dict[str, float]:
    return training.evaluate(score, train_state.params, data=DATA, batch_size=10)


test_score.__test__ = False  # type: ignore[attr-defined]


def fit(feed: Any = None, **options: Any) -> Any:
    options = {"num_steps": NUM_STEPS, "report_every": 15, "evaluate": test_score, "progress": False} | options
    return training.fit(options.pop("step", STEP), options.pop("start", None) or start(), feed or Feed(), **options)


def stopped(directory: Path, at: int, **options: Any) -> None:
    """A run whose data end in an error."""
    with pytest.raises(PowerCut):
        fit(Feed(at), checkpoints=training.Checkpoints(directory), **options)


@pytest.mark.parametrize("steps_per_call", [1, 4, 10])
@pytest.mark.parametrize("every", [3, 7, 20])
def test_a_run_that_is_taken_up_is_bitwise_the_one_that_nothing_stopped(
    every: int, steps_per_call: int, tmp_path: Path
):
    options: dict[str, Any] = {"steps_per_call": steps_per_call}
    train_state, history = fit(**options)
    for at in (13, 32, 44):
        stopped(tmp_path, at, checkpoint_every=every, **options)
    feed, checkpoints = Feed(), training.Checkpoints(tmp_path)
    before = checkpoints.latest()
    found, rows = fit(feed, checkpoints=checkpoints, checkpoint_every=every + 3, **options)
    assert before
    assert before.step >= 44 - every - 2 * steps_per_call
    assert NUM_STEPS - before.step <= feed.drawn <= NUM_STEPS - before.step + 1
    assert_same(found, train_state)
    assert rows == history
    assert [row["step"] for row in rows] == [15, 30, 45, 47]


def test_checkpoints_change_no_number(tmp_path: Path):
    train_state, history = fit()
    found, rows = fit(checkpoints=training.Checkpoints(tmp_path), checkpoint_every=2)
    assert_same(found, train_state)
    assert rows == history


def test_a_run_that_has_ended_makes_no_step_and_has_its_history(tmp_path: Path):
    checkpoints = training.Checkpoints(tmp_path)
    train_state, history = fit(checkpoints=checkpoints)
    assert checkpoints.steps == (NUM_STEPS,)
    made = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    feed = Feed()
    found, rows = fit(feed, checkpoints=checkpoints)
    assert feed.drawn == 0
    assert_same(found, train_state)
    assert rows == history
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == made


def test_a_run_that_has_ended_goes_on_for_more_steps(tmp_path: Path):
    fit(num_steps=30, checkpoints=training.Checkpoints(tmp_path))
    found, rows = fit(checkpoints=training.Checkpoints(tmp_path))
    train_state, history = fit()
    assert_same(found, train_state)
    assert rows == history


def test_a_run_that_starts_later_counts_from_there(tmp_path: Path):
    begun, _ = fit(num_steps=5)
    stopped(tmp_path, 23, start=begun, num_steps=30, checkpoint_every=3)
    found, rows = fit(start=begun, num_steps=30, checkpoints=training.Checkpoints(tmp_path))
    train_state, history = fit(start=begun, num_steps=30)
    assert_same(found, train_state)
    assert rows == history
    assert [row["step"] for row in rows] == [20, 35]


def test_numbers_without_a_dtype_of_their_own_are_taken_up_as_they_went(tmp_path: Path):
    def weak() -> training.TrainState:
        return training.init(jnp.array(0.5), optim.sgd(0.1))

    def step(train_state: training.TrainState, batch: Any) -> Any:
        half = train_state.params * jnp.bfloat16(1 / 3)  # of bfloat16, if the parameter gives way to it
        return train_state._replace(params=half, step=train_state.step + 1), {"half": half}

    options: dict[str, Any] = {
        "step": step, "evaluate": None, "steps_per_call": 1, "checkpoint_every": 3, "num_steps": 7, "report_every": 1,
    }  # fmt: skip
    with pytest.raises(PowerCut):
        fit(Feed(5), start=weak(), checkpoints=training.Checkpoints(tmp_path / "stopped"), **options)
    found = fit(start=weak(), checkpoints=training.Checkpoints(tmp_path / "stopped"), **options)
    expected = fit(start=weak(), checkpoints=training.Checkpoints(tmp_path / "whole"), **options)
    assert_same(found[0], expected[0])
    assert found[1] == expected[1]


def test_poisson_batches_are_taken_up_too(tmp_path: Path):
    feed: Any = training.poisson_batches(DATA, 0.2, key=jax.random.key(3))
    step = training.step(
        lambda params, batch, key: jnp.sum(params * batch["x"] * batch["mask"][:, None]), optim.sgd(0.1)
    )
    options: dict[str, Any] = {"step": step, "start": training.init(jnp.ones(3), optim.sgd(0.1)), "evaluate": None}
    expected, history = fit(feed, **options)
    fit(feed, **options, num_steps=20, checkpoints=training.Checkpoints(tmp_path))
    found, rows = fit(feed, **options, report_every=20, checkpoints=training.Checkpoints(tmp_path))
    assert_same(found, expected)
    assert rows[-1]["step"] == history[-1]["step"]


def test_batches_that_end_end_a_run_that_is_taken_up_too(tmp_path: Path):
    class Short(Feed):
        def starting_at(self, step: int) -> Iterator[Any]:
            for _, batch in zip(range(step, 37), super().starting_at(step), strict=False):
                yield batch

    options: dict[str, Any] = {"steps_per_call": 4}
    expected, history = fit(Short(), **options)
    with pytest.raises(PowerCut):
        fit(Short(33), checkpoints=training.Checkpoints(tmp_path), checkpoint_every=5, **options)
    for _ in range(2):
        found, rows = fit(Short(), checkpoints=training.Checkpoints(tmp_path), **options)
        assert_same(found, expected)
        assert rows == history


def test_a_player_that_breaks_stops_a_run_that_is_taken_up_as_it_stops_another(tmp_path: Path):
    game = training.game({"x": lambda p, batch, key: p["x"] ** 2, "y": lambda p, batch, key: jnp.sqrt(p["y"])})
    options: dict[str, Any] = {
        "step": training.guarded(training.step(game, optim.sgd(0.3))), "evaluate": None, "steps_per_call": 1,
        "start": training.init({"x": jnp.ones(()), "y": jnp.ones(())}, optim.sgd(0.3)),
    }  # fmt: skip
    with pytest.raises(training.NotFiniteError) as expected:
        fit(**options)
    with pytest.raises(PowerCut):
        fit(Feed(12), checkpoints=training.Checkpoints(tmp_path), checkpoint_every=5, **options)
    with pytest.raises(training.NotFiniteError) as found:
        fit(checkpoints=training.Checkpoints(tmp_path), **options)
    assert str(found.value) == str(expected.value)
    assert_same(found.value.train_state, expected.value.train_state)


def test_a_report_that_was_not_told_to_its_end_is_told_again(tmp_path: Path, interruptible: None):
    told, answered = [], []

    def on_report(row: dict[str, float], train_state: training.TrainState) -> None:
        if row["step"] == 30 and not answered:
            answered.append(row["step"])
            signal.raise_signal(signal.SIGTERM)
        told.append(row | {"again": test_score(train_state)["test_loss"]})

    with pytest.raises(SystemExit):
        fit(checkpoints=training.Checkpoints(tmp_path), on_report=on_report)
    assert training.Checkpoints(tmp_path).steps == (30,)
    train_state, history = fit(checkpoints=training.Checkpoints(tmp_path), on_report=on_report)
    expected, rows = fit()
    assert_same(train_state, expected)
    assert history == rows
    assert told == [row | {"again": row["test_loss"]} for row in rows]


@pytest.mark.parametrize("every", [5, datetime.timedelta(days=1)])
def test_the_best_report_is_kept_whatever_the_interval(every: Any, tmp_path: Path):
    scores = iter([3.0, 1.0, float("nan"), 2.0])
    checkpoints = training.Checkpoints(tmp_path, keep=1, best=("score", "min"))
    _, history = fit(
        checkpoints=checkpoints, checkpoint_every=every, steps_per_call=5, evaluate=lambda _: {"score": next(scores)}
    )
    assert len(history) == 4
    assert checkpoints.steps == (int(history[1]["step"]), NUM_STEPS)


def test_a_best_that_reports_do_not_have_is_refused_at_the_first(tmp_path: Path):
    message = (
        "fit: expected reports to have the metric 'test_los' that the checkpoints' best names, "
        "got loss, spread, test_loss."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(checkpoints=training.Checkpoints(tmp_path, best=("test_los", "min")))


@pytest.mark.parametrize(
    ("every", "steps"),
    [(20, [20, 40, 47]), (datetime.timedelta(0), [*range(4, 46, 4)]), (datetime.timedelta(days=1), [47])],
)
def test_the_interval_is_of_steps_or_of_time(every: Any, steps: list[int], tmp_path: Path):
    checkpoints = training.Checkpoints(tmp_path, keep=100)
    fit(checkpoints=checkpoints, checkpoint_every=every, steps_per_call=4, report_every=100)
    assert list(checkpoints.steps)[: len(steps)] == steps
    assert checkpoints.steps[-1] == NUM_STEPS


def test_a_run_that_is_taken_up_says_from_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options: dict[str, Any] = {"steps_per_call": 5, "progress": True}
    stopped(tmp_path, 22, checkpoint_every=5, **options)
    assert "taken up" not in capsys.readouterr().out
    fit(checkpoints=training.Checkpoints(tmp_path), **options)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "taken up at step 20"
    assert second.startswith("step 30/47  ")


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path: Path):
    train_state, history = fit(steps_per_call=5)
    stopped(tmp_path, 32, checkpoint_every=5, steps_per_call=5)
    (tmp_path / "step_30" / "record.json").write_text("{}", encoding="utf-8")
    with pytest.warns(training.CheckpointWarning, match=r"step_30.* Step 25 is taken\.$"):
        found, rows = fit(checkpoints=training.Checkpoints(tmp_path), steps_per_call=5)
    assert_same(found, train_state)
    assert rows == history


def refused(kind: type[Exception], message: str, **options: Any) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        fit(**options)


def test_checkpoints_of_another_run_are_refused(tmp_path: Path):
    begun, _ = fit(num_steps=5)
    fit(num_steps=20, checkpoints=training.Checkpoints(tmp_path))
    ways = "Give every run a directory of its own, and its first train state and whole number of steps."
    for options, steps in (({"num_steps": 19}, "0 to 19"), ({"start": begun}, "5 to 52")):
        message = (
            f"fit: expected checkpoints of a run from step {steps}, got one of step 20 of a run from step 0 "
            f"in {tmp_path}. {ways}"
        )
        refused(ValueError, message, checkpoints=training.Checkpoints(tmp_path), **options)
    other = training.Checkpoints(tmp_path / "other")
    other.save(3, start())
    message = (
        f"fit: expected checkpoints of a run from step 0 to 47, got one of step 3 by another hand in "
        f"{tmp_path / 'other'}. {ways}"
    )
    refused(ValueError, message, checkpoints=other)


def test_checkpoints_of_another_network_are_refused_path_by_path(tmp_path: Path):
    fit(num_steps=1, checkpoints=training.Checkpoints(tmp_path))
    other = training.init({"w": jnp.zeros(3)}, optim.sgd(0.1))
    with pytest.raises(ValueError, match=r"(?m)^  params/linear/w: saved float32\[3, 4\], given nothing$"):
        fit(start=other, checkpoints=training.Checkpoints(tmp_path))


def test_batches_that_cannot_be_taken_up_are_refused_before_the_first_step(tmp_path: Path):
    message = (
        "fit: expected batches with a method starting_at(step), so that a run can be taken up, got list_iterator. "
        "Give training.batches, or a class with this method."
    )
    refused(TypeError, message, feed=iter([DATA]), checkpoints=training.Checkpoints(tmp_path))


def test_a_directory_for_checkpoints_is_refused(tmp_path: Path):
    message = "fit: expected checkpoints to be training.Checkpoints(directory), got str."
    refused(TypeError, message, checkpoints=str(tmp_path))


@pytest.mark.parametrize(
    ("every", "message"),
    [
        (0, "fit: expected checkpoint_every to be an integer of at least 1, got 0"),
        (0.5, "fit: expected checkpoint_every to be an integer of at least 1, got 0.5"),
        (
            datetime.timedelta(-1),
            "fit: expected checkpoint_every to be no time below zero, got datetime.timedelta(days=-1)",
        ),
    ],
)
def test_an_interval_that_is_none_is_refused(every: Any, message: str):
    refused(ValueError, message, checkpoint_every=every)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Both signals as Python starts with them, even where this process was started in the background."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)]
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


ENDS = {signal.SIGINT: (KeyboardInterrupt, None), signal.SIGTERM: (SystemExit, 143)}


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", ENDS)
def test_a_signal_saves_first(number: int, tmp_path: Path):
    class Asked(Feed):
        def starting_at(self, step: int) -> Iterator[Any]:
            for at, batch in enumerate(super().starting_at(step), step):
                if at == 21:
                    signal.raise_signal(number)
                yield batch

    train_state, history = fit(steps_per_call=4)
    kind, code = ENDS[signal.Signals(number)]
    with pytest.raises(kind) as asked:
        fit(Asked(), checkpoints=training.Checkpoints(tmp_path), steps_per_call=4)
    assert getattr(asked.value, "code", None) == code
    assert asked.value.__notes__ == ["Step 23 is saved"]
    checkpoints = training.Checkpoints(tmp_path)
    assert checkpoints.steps == (23,)
    found, rows = fit(checkpoints=checkpoints, steps_per_call=4)
    assert_same(found, train_state)
    assert rows == history
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("at", [30, NUM_STEPS])
def test_a_signal_during_an_evaluation_does_not_wait_for_its_end(at: int, tmp_path: Path):
    seen = []

    def long(train_state: training.TrainState) -> dict[str, float]:
        if train_state.step == at:
            signal.raise_signal(signal.SIGTERM)
            training.evaluate(score, train_state.params, data=DATA, batch_size=1)
            seen.append("the end of the evaluation")
        return test_score(train_state)

    with pytest.raises(SystemExit):
        fit(checkpoints=training.Checkpoints(tmp_path), evaluate=long)
    assert seen == []
    checkpoints = training.Checkpoints(tmp_path)
    assert checkpoints.steps == (at,)
    found, rows = fit(checkpoints=checkpoints)
    train_state, history = fit()
    assert_same(found, train_state)
    assert rows == history
    latest = checkpoints.latest()
    assert latest
    assert latest.extra["history"] == history


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path):
    def twice(row: Any, train_state: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one waited")

    with pytest.raises(KeyboardInterrupt):
        fit(checkpoints=training.Checkpoints(tmp_path), on_report=twice)
    assert training.Checkpoints(tmp_path).steps == ()


@pytest.mark.usefixtures("interruptible")
def test_what_is_asked_for_at_the_very_end_is_not_forgotten():
    with pytest.raises(SystemExit), deferred_interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        with deferred_interrupts():
            pass


def test_without_checkpoints_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    fit(num_steps=1, on_report=lambda row, train_state: row.update(same=signal.getsignal(signal.SIGINT) is before))


PROGRAM = """
import sys
import jax
from renga import training
from tests.training import test_resume as run
jax.config.update("jax_disable_most_optimizations", True)
options = {"num_steps": int(sys.argv[2]), "steps_per_call": 5, "checkpoint_every": 7, "evaluate": None}
say = lambda row, train_state: print(row["step"], flush=True)
run.fit(checkpoints=training.Checkpoints(sys.argv[1]), on_report=say, **options)
"""


def launched(directory: Path, num_steps: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROGRAM, str(directory), str(num_steps)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def ended(directory: Path, num_steps: int) -> tuple[training.TrainState, Any]:
    """What a run came to that goes to its end."""
    with launched(directory, num_steps) as running:
        _, err = running.communicate(timeout=300)
    assert (running.returncode, err) == (0, "")
    checkpoints = training.Checkpoints(directory)
    latest = checkpoints.latest()
    assert latest
    assert latest.step == num_steps
    return checkpoints.restore(start()), latest


def killed(directory: Path, num_steps: int, *, times: int) -> int:
    """Kills a run at random moments, and counts those at which it was being saved."""
    random, saving = np.random.default_rng(0), 0
    for _ in range(times):
        with launched(directory, num_steps) as running:
            assert running.stdout
            assert running.stdout.readline()  # it is under way
            time.sleep(random.uniform(0, 0.2))
            running.kill()
        saving += any(not (path / "SHA256SUMS").exists() for path in directory.glob("step_*"))
    return saving


def test_a_process_that_is_killed_twice_ends_with_the_same_numbers(tmp_path: Path):
    killed(tmp_path / "killed", 200, times=2)
    found, expected = ended(tmp_path / "killed", 200), ended(tmp_path / "whole", 200)
    assert_same(found[0], expected[0])
    assert found[1] == expected[1]


@pytest.mark.slow
def test_a_process_that_is_killed_twenty_times_ends_with_the_same_numbers(tmp_path: Path):
    saving = killed(tmp_path / "killed", 1000, times=20)
    found, expected = ended(tmp_path / "killed", 1000), ended(tmp_path / "whole", 1000)
    assert saving > 0
    assert_same(found[0], expected[0])
    assert found[1] == expected[1]
