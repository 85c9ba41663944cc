"""The loop against a loop of one's own, its reports, and its errors."""

import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training._calls import default_steps_per_call
from renga.training._seen import ROWS

from ..optim.trees import assert_close, assert_same

NET = nets.serial(nets.linear(4), jnp.tanh, nets.dropout(0.2), nets.linear(1))
X = np.sin(np.arange(60.0, dtype=np.float32)).reshape(20, 3)
DATA = {"x": X, "y": np.cos(3 * X[:, :1])}
TX = optim.chain(optim.sam(0.05), optim.adam(0.03))
TRACED = []


def loss_fn(params: Any, batch: Any, key: jax.Array) -> jax.Array:
    return training.squared_error(NET.apply(params, batch["x"], key=key, train=True), batch["y"])


def counted_loss(params: jax.Array, batch: Any, key: None) -> jax.Array:
    TRACED.append("counted_loss")
    return training.squared_error(params * batch["x"], batch["x"])


def start() -> training.TrainState:
    return training.init(NET.init(jax.random.key(0), X), TX, key=jax.random.key(1))


def feed() -> training.Batches:
    return training.batches(DATA, 4, key=jax.random.key(2))


STEP = training.step(loss_fn, TX)


def mean_step(
    train_state: training.TrainState, batch: Any, where: str = ""
) -> tuple[training.TrainState, dict[str, jax.Array]]:
    """A step of one's own that only counts, and reports the mean of its batch."""
    return train_state._replace(step=train_state.step + 1), {"mean": jnp.mean(batch)}


def count(
    num_batches: int, progress: bool = False, **options: Any
) -> tuple[training.TrainState, list[dict[str, float]]]:
    """Runs `mean_step` over batches with means 0, 1, 2, …"""
    batches = (np.full(2, value, np.float32) for value in range(num_batches))
    train_state = training.init(jnp.zeros(()), optim.sgd(0.1))
    return training.fit(mean_step, train_state, batches, progress=progress, **options)


@pytest.mark.parametrize("steps_per_call", [1, 3, 10])
def test_it_equals_a_loop_in_python(steps_per_call: int):
    compiled, expected, losses = jax.jit(STEP), start(), []
    for _, batch in zip(range(25), feed(), strict=False):
        expected, metrics = compiled(expected, batch)
        losses.append(metrics["loss"].item())
    options: dict[str, Any] = {"num_steps": 25, "steps_per_call": steps_per_call, "report_every": 10, "progress": False}
    found, history = training.fit(STEP, start(), feed(), **options)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert [row["step"] for row in history] == [10, 20, 25]
    means = [np.mean(losses[:10]), np.mean(losses[10:20]), np.mean(losses[20:])]
    np.testing.assert_allclose([row["loss"] for row in history], means, rtol=1e-4)


@pytest.mark.parametrize("steps_per_call", [1, 4, 10])
def test_the_history_has_means_since_the_last_report(steps_per_call: int):
    train_state, history = count(9, num_steps=9, report_every=4, steps_per_call=steps_per_call)
    assert history == [{"step": 4, "mean": 1.5}, {"step": 8, "mean": 5.5}, {"step": 9, "mean": 8.0}]
    assert train_state.step == 9


@pytest.mark.parametrize("report_every", [ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, 3 * ROWS])
def test_metrics_of_single_steps_lose_none_where_their_record_is_full(report_every: int):
    _, history = count(2 * ROWS + 3, num_steps=2 * ROWS + 3, report_every=report_every, steps_per_call=1)
    sums, last = 0.0, 0
    for row in history:
        sums, last = sums + row["mean"] * (row["step"] - last), int(row["step"])
    assert (last, sums) == (2 * ROWS + 3, sum(range(2 * ROWS + 3)))


class OwnState(NamedTuple):
    step: jax.Array
    total: jax.Array


@pytest.mark.parametrize("kind", ["train state", "step of other dtype", "own class"])
def test_single_steps_leave_their_step_in_the_train_state_wherever_it_is_kept(kind: str):
    begin = jnp.asarray(5, jnp.uint32 if kind == "step of other dtype" else jnp.int32)
    state = training.init(jnp.zeros(()), optim.sgd(0.1))._replace(step=begin)
    given: Any = OwnState(begin, jnp.zeros(())) if kind == "own class" else state
    step = lambda train_state, batch: (train_state._replace(step=train_state.step + 1), {"seen": train_state.step})  # noqa: E731
    found = []
    last, _ = training.fit(
        step, given, [np.ones(2)] * (ROWS + 3), num_steps=ROWS + 3, steps_per_call=1, report_every=ROWS + 1,
        on_report=lambda row, train_state: found.append((row["step"], int(train_state.step))), progress=False,
    )  # fmt: skip
    assert found == [(6 + ROWS, 6 + ROWS), (8 + ROWS, 8 + ROWS)]
    assert (type(last), last.step.dtype, int(last.step)) == (type(given), begin.dtype, 8 + ROWS)


def test_metrics_of_single_steps_keep_every_bit_whatever_their_dtype():
    values = {
        "flag": jnp.bool_(True), "byte": jnp.int8(-100), "half": jnp.float16(0.1), "brain": jnp.bfloat16(-3e38),
        "single": jnp.float32(1e-40), "large": jnp.uint32(2**32 - 1), "count": jnp.int32(-(2**31)),
        "nothing": jnp.float32(jnp.nan),
    }  # fmt: skip
    step = lambda train_state, batch: (train_state, values)  # noqa: E731
    state = training.init(jnp.zeros(()), optim.sgd(0.1))
    _, (row,) = training.fit(step, state, [np.ones(2)] * 3, num_steps=3, steps_per_call=1, progress=False)
    expected = {name: float(value) for name, value in values.items()}
    np.testing.assert_equal({name: row[name] for name in values}, expected)


def test_metrics_of_64_bits_keep_them():
    with jax.enable_x64(True):
        values = {"double": jnp.float64(1 / 3), "long": jnp.int64(2**53 - 1), "unsigned": jnp.uint64(2**52 + 1)}
        step = lambda train_state, batch: (train_state, values)  # noqa: E731
        state = training.init(jnp.zeros(()), optim.sgd(0.1))
        _, (row,) = training.fit(step, state, [np.ones(2)] * 3, num_steps=3, steps_per_call=1, progress=False)
        assert {name: row[name] for name in values} == {name: float(value) for name, value in values.items()}


def test_metrics_may_change_their_dtype_and_their_names_with_the_batches():
    def step(train_state: training.TrainState, batch: Any) -> Any:
        named = {"more": jnp.float32(1)} if batch.ndim == 2 else {}
        return train_state, {"sum": batch.sum()} | named

    state = training.init(jnp.zeros(()), optim.sgd(0.1))
    batches = [np.full(4, 3, np.int32)] * 3 + [np.full(4, 3, np.float32)] * 3
    options: dict[str, Any] = {"num_steps": 6, "steps_per_call": 1, "progress": False}
    _, history = training.fit(step, state, batches, report_every=2, **options)
    assert [row["sum"] for row in history] == [12, 12, 12]
    _, history = training.fit(step, state, [*batches[:3], *[np.ones((2, 2))] * 3], report_every=3, **options)
    assert history == [{"step": 3, "sum": 12}, {"step": 6, "sum": 4, "more": 1}]


def test_metrics_of_other_names_between_two_reports_are_refused():
    def step(train_state: training.TrainState, batch: Any) -> Any:
        return train_state, {"sum" if batch.ndim == 1 else "all": batch.sum()}

    state = training.init(jnp.zeros(()), optim.sgd(0.1))
    message = r"^fit: expected the same metrics of all steps between two reports, got sum and all\.$"
    with pytest.raises(ValueError, match=message):
        training.fit(step, state, [np.ones(2), np.ones((2, 2))], num_steps=2, steps_per_call=1, progress=False)


def test_a_step_without_a_hash_is_refused():
    class Step:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, train_state: Any, batch: Any) -> Any:
            return train_state, {}

    with pytest.raises(TypeError, match=r"^fit: expected step to be hashable, as functions are, got "):
        training.fit(Step(), training.init(jnp.zeros(()), optim.sgd(0.1)), [1.0], num_steps=1, progress=False)


@pytest.mark.parametrize("where", ["committed", "Auto", "Explicit"])
def test_single_steps_are_compiled_once_wherever_the_train_state_lies(where: str):
    train_state, step = training.init(jnp.zeros(()), optim.sgd(0.1)), functools.partial(mean_step, where=where)
    options: dict[str, Any] = {"num_steps": 7, "steps_per_call": 1, "report_every": 3, "progress": False}
    if where == "committed":
        train_state = jax.device_put(train_state, jax.devices()[0])
    else:
        options["mesh"] = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType[where],))
    with training.compile_times() as times:
        _, history = training.fit(step, train_state, [np.ones(2)] * 7, **options)
    assert [row["mean"] for row in history] == [1.0, 1.0, 1.0]
    assert times.programs["_train_step"]["count"] == 1


def test_reports_are_counted_from_where_the_run_starts():
    train_state, _ = count(7, num_steps=7)
    _, history = training.fit(
        mean_step, train_state, iter(np.ones((9, 2), np.float32)), num_steps=9, report_every=5, progress=False
    )
    assert [row["step"] for row in history] == [12, 16]


def test_metrics_of_half_precision_have_means_in_full():
    def step(train_state: training.TrainState, batch: Any) -> Any:
        return mean_step(train_state, batch)[0], {"one": jnp.ones((), jnp.bfloat16)}

    train_state = training.init(jnp.zeros(()), optim.sgd(0.1))
    _, history = training.fit(
        step, train_state, iter(np.zeros((600, 1))), num_steps=600, report_every=600, progress=False
    )
    assert history == [{"step": 600, "one": 1.0}]


@pytest.mark.parametrize("steps_per_call", [1, 5])
def test_the_train_state_that_was_given_stays_valid(steps_per_call: int):
    given, before = start(), start()
    options: dict[str, Any] = {"num_steps": 5, "steps_per_call": steps_per_call, "progress": False}
    training.fit(STEP, given, feed(), **options)
    assert_same(given, before)


@pytest.mark.parametrize("steps_per_call", [1, 10])
def test_a_run_in_two_halves_is_bitwise_the_whole_run(steps_per_call: int):
    options: dict[str, Any] = {"report_every": 20, "steps_per_call": steps_per_call, "progress": False}
    whole, history = training.fit(STEP, start(), feed(), num_steps=80, **options)
    half, first = training.fit(STEP, start(), feed(), num_steps=40, **options)
    halves, second = training.fit(STEP, half, feed(), num_steps=40, **options)
    assert_same(halves, whole)
    assert first + second == history


class Ramp:
    """A feed of one's own, that can be taken up at any step: batch `i` is all `i`."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[np.ndarray]:
        return (np.full(2, value, np.float32) for value in range(step, 100))


def test_a_feed_of_ones_own_is_taken_up_at_the_step_of_the_run():
    start = training.init(jnp.zeros(()), optim.sgd(0.1))
    half, _ = training.fit(mean_step, start, Ramp(), num_steps=4, progress=False)
    _, history = training.fit(mean_step, half, Ramp(), num_steps=2, report_every=1, progress=False)
    assert [row["mean"] for row in history] == [4, 5]


def test_any_other_iterable_is_taken_up_where_it_stands_and_no_batch_is_lost():
    stream: Iterator[Any] = iter([np.full(1, value, np.float32) for value in range(10)])
    train_state, rows = training.init(jnp.zeros(()), optim.sgd(0.1)), []
    for _ in range(2):
        train_state, history = training.fit(
            mean_step, train_state, stream, num_steps=5, steps_per_call=3, report_every=5, progress=False
        )
        rows += history
    assert rows == [{"step": 5, "mean": 2.0}, {"step": 10, "mean": 7.0}]
    assert list(stream) == []


@pytest.mark.parametrize("steps_per_call", [1, 3, 10])
def test_it_stops_where_the_batches_end_and_reports_what_is_left(steps_per_call: int):
    train_state, history = count(7, num_steps=100, report_every=5, steps_per_call=steps_per_call)
    assert history == [{"step": 5, "mean": 2.0}, {"step": 7, "mean": 5.5}]
    assert train_state.step == 7


def test_batches_that_end_with_a_report_are_not_reported_again():
    assert [row["step"] for row in count(10, num_steps=100, report_every=5)[1]] == [5, 10]


def test_without_batches_nothing_happens():
    train_state, history = count(0, num_steps=5)
    assert history == []
    assert train_state.step == 0


@pytest.mark.parametrize("steps_per_call", [None, 1, 5])
def test_an_equal_step_is_not_traced_again(steps_per_call: int | None):
    batches = iter(np.ones((100, 3), np.float32))

    def run() -> None:
        step = training.step(counted_loss, optim.chain(optim.clip(1.0), optim.sgd(0.1)))
        train_state = training.init(jnp.zeros(3), optim.chain(optim.clip(1.0), optim.sgd(0.1)))
        stream = ({"x": batch} for batch in batches)
        training.fit(
            step, train_state, stream, num_steps=12, steps_per_call=steps_per_call, report_every=10, progress=False
        )

    jax.clear_caches()
    TRACED.clear()
    run()
    assert len(TRACED) == 1
    run()
    assert len(TRACED) == 1


def test_evaluate_joins_the_report_and_on_report_sees_it_with_the_train_state():
    seen = []
    options: dict[str, Any] = {
        "evaluate": lambda train_state: {"at": float(train_state.step)},
        "on_report": lambda row, train_state: seen.append((row, int(train_state.step))),
    }
    _, history = count(9, num_steps=9, report_every=4, **options)
    assert [row["at"] for row in history] == [4.0, 8.0, 9.0]
    assert seen == [(row, row["step"]) for row in history]


LINE = re.compile(r"step +(\d+)/(\d+)  mean (\S+)  [\d,]+ steps/s  ETA (\d+:)?\d+:\d\d")


def test_where_stdout_is_no_terminal_every_report_is_a_line(capsys: pytest.CaptureFixture[str]):
    count(12, num_steps=12, report_every=5, progress=True)
    lines = [LINE.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    assert [line and line.groups()[:3] for line in lines] == [("5", "12", "2"), ("10", "12", "7"), ("12", "12", "10.5")]


def test_the_line_of_a_run_that_is_taken_up_counts_all_steps(capsys: pytest.CaptureFixture[str]):
    train_state, _ = count(7, num_steps=7)
    batches = iter(np.ones((9, 2), np.float32))
    training.fit(mean_step, train_state, batches, num_steps=9, report_every=5)
    lines = [LINE.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    assert [line and line.groups()[:2] for line in lines] == [("12", "16"), ("16", "16")]


def test_rate_and_time_left_are_those_since_the_last_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    times = iter([100.0, 102.0, 106.0])
    monkeypatch.setattr("renga.training._progress.time.perf_counter", lambda: next(times))
    batches = iter(np.ones((20, 2), np.float32))
    train_state = training.init(jnp.zeros(()), optim.sgd(0.1))
    on_report = lambda row, _: None if row["step"] < 10 else next(iter(()))  # noqa: E731
    with pytest.raises(StopIteration):
        training.fit(mean_step, train_state, batches, num_steps=20_000, report_every=5, on_report=on_report)
    assert capsys.readouterr().out.splitlines() == [
        "step     5/20000  mean 1  2 steps/s  ETA 2:13:18",
        "step    10/20000  mean 1  1 steps/s  ETA 4:26:32",
    ]


def pretend_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes stdout look like a terminal; to be called in the test, whose stdout is not that of its fixtures."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def test_on_a_terminal_one_line_is_drawn_anew(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    pretend_terminal(monkeypatch)
    count(12, num_steps=12, report_every=5, progress=True)
    shown = capsys.readouterr().out
    assert "\x1b[" in shown
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n").strip().splitlines()[-1]
    assert re.match(r"step 12/12 .* [\d,]+ steps/s  ETA 0:00 mean 10\.5", last)


def test_on_a_terminal_without_rich_every_report_is_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    pretend_terminal(monkeypatch)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    count(12, num_steps=12, report_every=5, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert len(lines) == 3


def test_the_terminal_is_given_back_after_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    pretend_terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        count(12, num_steps=12, report_every=5, progress=True, on_report=lambda *_: 1 / 0)
    assert capsys.readouterr().out.rstrip("\n").endswith("\x1b[?25h")  # the cursor is shown again


def test_without_progress_nothing_is_printed(capsys: pytest.CaptureFixture[str]):
    count(12, num_steps=12, report_every=5, progress=False)
    assert capsys.readouterr().out == ""


GROUPED = {
    "plain": nets.conv(2, 3, groups=2),
    "under scan": nets.repeat(nets.depthwise_conv(3), 2),
    "under vmap and jit": nets.ensemble(nets.serial(jax.jit(jnp.tanh), nets.conv(2, 3, groups=2)), 2),
}


@pytest.mark.parametrize("net", GROUPED.values(), ids=GROUPED.keys())
def test_a_step_that_convolves_in_groups_goes_alone_on_a_cpu(net: nets.Net, monkeypatch: pytest.MonkeyPatch):
    images, tx = jnp.ones((1, 4, 4, 2)), optim.sgd(0.1)
    step = training.step(lambda params, batch, key: jnp.mean(net.apply(params, batch) ** 2), tx)
    train_state = training.init(net.init(jax.random.key(0), images), tx)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert default_steps_per_call(step, train_state, images) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert default_steps_per_call(step, train_state, images) == 10


@pytest.mark.parametrize("net", [nets.conv(2, 3), nets.conv_transpose(2, 3, stride=2)])
def test_a_step_whose_convolutions_are_fast_in_loops_goes_with_nine_more(net: nets.Net):
    images, tx = jnp.ones((1, 4, 4, 2)), optim.sgd(0.1)
    step = training.step(lambda params, batch, key: jnp.mean(net.apply(params, batch) ** 2), tx)
    train_state = training.init(net.init(jax.random.key(0), images), tx)
    assert default_steps_per_call(step, train_state, images) == 10


def test_any_other_step_goes_with_nine_more():
    assert default_steps_per_call(STEP, start(), next(iter(feed()))) == 10


@pytest.mark.parametrize("name", ["num_steps", "report_every", "steps_per_call"])
@pytest.mark.parametrize("wrong", [0, -3, 2.5, True, "10"])
def test_counts_below_one_and_no_integers_are_refused(name: str, wrong: Any):
    expected = f"fit: expected {name} to be an integer of at least 1, got {wrong!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        count(3, progress=False, **({"num_steps": 3} | {name: wrong}))


def test_batches_of_two_shapes_are_refused():
    batches = [{"x": np.ones((4, 2))}, {"x": np.ones((3, 2))}]
    step: Callable[..., Any] = lambda train_state, batch: mean_step(train_state, batch["x"])  # noqa: E731
    train_state = training.init(jnp.zeros(()), optim.sgd(0.1))
    expected = "fit: expected batches of one shape, got (3, 2) and (4, 2)"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        training.fit(step, train_state, batches, num_steps=2, steps_per_call=2, progress=False)


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_metric_that_is_no_scalar_is_refused(steps_per_call: int):
    def step(train_state: training.TrainState, batch: Any) -> Any:
        return train_state, {"each": batch}

    train_state = training.init(jnp.zeros(()), optim.sgd(0.1))
    expected = r"(?m)^fit: expected metrics/each to be a scalar, got shape \(4,\)$"
    with pytest.raises(ValueError, match=expected):
        training.fit(
            step, train_state, np.ones((2, 4), np.float32), num_steps=2, steps_per_call=steps_per_call, progress=False
        )


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_complex_metric_is_refused(steps_per_call: int):
    step = lambda train_state, batch: (train_state, {"phase": 1j * jnp.sum(batch)})  # noqa: E731
    state = training.init(jnp.zeros(()), optim.sgd(0.1))
    with pytest.raises(ValueError, match=r"^fit: expected metrics/phase to be a real number, got complex64"):
        training.fit(step, state, [np.ones(2)] * 4, num_steps=4, steps_per_call=steps_per_call, progress=False)


def test_what_evaluate_returns_is_a_number_in_the_history_whatever_it_was():
    _, history = count(2, num_steps=2, evaluate=lambda state: {"a": jnp.float32(0.5), "b": np.int64(3), "c": 1})
    assert history == [{"step": 2, "mean": 0.5, "a": 0.5, "b": 3, "c": 1}]
    assert [type(history[0][name]) for name in "abc"] == [float, int, int]


def test_what_evaluate_returns_is_refused_if_it_is_no_scalar():
    message = (
        "fit: expected evaluate to return scalars, got shape (3,) for 'losses'. "
        "Return its mean, or each number by a name of its own."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        count(2, num_steps=2, evaluate=lambda state: {"losses": np.ones(3)})
