"""When a run has ended, by its history, and a window of it under the profiler."""

import math
import re
from typing import Any

import jax.numpy as jnp
import pytest

from renga import optim, training
from renga.training import early_stop, profile

TX = optim.sgd(0.1)
STEP = training.step(lambda w, x, key: (w - x) ** 2, TX)


def ended(stop, values):
    """The report after which it stops, counted from 1; None if it never does."""
    history = [{"step": number, "m": value} for number, value in enumerate(values)]
    return next((count for count in range(len(history) + 1) if stop(history[:count])), None)


@pytest.mark.parametrize(
    ("options", "values", "count"),
    [
        ({"patience": 1}, [3, 2, 1], None),
        ({"patience": 1}, [3, 2, 2], 3),
        ({"patience": 3}, [3, 1, 2, 2, 1.5, 0], 5),
        ({"patience": 2, "best": "max"}, [0.1, 0.5, 0.4, 0.3, 0.9], 4),
        ({"patience": 2, "min_change": 0.5}, [3, 2.8, 2.6, 1], 3),
        ({"patience": 2, "min_change": 0.5}, [3, 2.4, 1.8, 1.2], None),
        ({"patience": 2}, [math.nan, math.nan, 1], 2),
        ({"patience": 2}, [2, math.nan, 1, math.nan, 0], None),
    ],
)
def test_it_stops_after_so_many_reports_without_a_better_one(options, values, count):
    assert ended(early_stop("m", **options), values) == count


def test_reports_without_the_metric_do_not_count():
    stop = early_stop("test", patience=2)
    assert not stop([{"step": 1, "test": 1.0}, {"step": 2}, {"step": 3}, {"step": 4, "test": 1.0}])
    assert stop([{"step": 1, "test": 1.0}, {"step": 2}, {"step": 3, "test": 2.0}, {"step": 4, "test": 1.0}])


def test_it_prints_compares_and_hashes_as_its_call():
    assert early_stop("m", patience=2) == early_stop("m", patience=2)
    assert repr(early_stop("m", patience=2, best="max")) == "early_stop('m', patience=2, best='max')"


def test_arguments_out_of_range_and_unknown_metrics_are_refused():
    cases: list[tuple[dict[str, Any], str]] = [
        ({"patience": 0}, "expected patience to be an integer of at least 1, got 0"),
        ({"patience": 1, "best": "least"}, "expected best to be 'min' or 'max', got 'least'. Say which one is better."),
        ({"patience": 1, "min_change": -1.0}, "expected min_change to be a number of at least 0, got -1.0."),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=f"^early_stop: {re.escape(message)}$"):
            early_stop("m", **options)
    message = "early_stop: expected reports with the metric 'm', got accuracy, loss. Give one of these."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        early_stop("m", patience=1)([{"step": 1, "loss": 0.5, "accuracy": 1.0}])


@pytest.mark.parametrize(("num_steps", "traces"), [(10, 0), (30, 1), (60, 1)])
def test_a_trace_is_of_the_steps_between_two_reports(tmp_path, num_steps, traces):
    with profile(tmp_path, start=20, stop=40) as trace:
        training.fit(
            STEP, training.init(jnp.zeros(()), TX), [jnp.ones(())] * num_steps, num_steps=num_steps, report_every=10,
            progress=False, on_report=trace,
        )  # fmt: skip
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == traces


def test_steps_out_of_range_are_refused(tmp_path):
    for steps, message in (
        ((-1, 5), "expected start to be an integer of at least 0, got -1"),
        ((5, 5), "expected stop to be an integer of at least 6, got 5"),
    ):
        with pytest.raises(ValueError, match=f"^profile: {re.escape(message)}$"):
            profile(tmp_path, start=steps[0], stop=steps[1])
