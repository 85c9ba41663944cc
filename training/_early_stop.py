"""When a run has not become better for long enough."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from .._call import recording
from ._checks import check_count


@recording
def early_stop(
    metric: str, *, patience: int, best: Literal["min", "max"] = "min", min_change: float = 0.0
) -> Callable[[Sequence[Mapping[str, Any]]], bool]:
    """Whether a metric has not become better for so many reports.

    It looks at the history alone: a run that was stopped and taken up decides as one that nothing stopped.

    Args:
      metric: its name in the reports. Reports without it do not count; NaN is never better.
      patience: reports in a row without a better one, after which the run has ended.
      best: whether "min" or "max" is best.
      min_change: by how much a better one has to be better than the best before it.
    Returns:
      `history -> bool`, of rows as `fit` reports them. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: for arguments out of their range; when called, if no report has the metric.

    >>> stop = early_stop("test_loss", patience=2)
    >>> history = [{"step": step, "test_loss": loss} for step, loss in ((10, 0.5), (20, 0.3), (30, 0.4), (40, 0.31))]
    >>> [stop(history[:count]) for count in (1, 2, 3, 4)]
    [False, False, False, True]
    """
    check_count("early_stop", "patience", patience, at_least=1)
    if best not in ("min", "max"):
        raise ValueError(f"early_stop: expected best to be 'min' or 'max', got {best!r}. Say which one is better.")
    if not (isinstance(min_change, int | float) and 0 <= min_change < math.inf):
        raise ValueError(f"early_stop: expected min_change to be a number of at least 0, got {min_change!r}.")
    sign = 1 if best == "min" else -1

    def stop(history: Sequence[Mapping[str, Any]]) -> bool:
        seen = [sign * float(row[metric]) for row in history if metric in row]
        if history and not seen:
            names = ", ".join(sorted({name for row in history for name in row} - {"step"})) or "none"
            raise ValueError(
                f"early_stop: expected reports with the metric {metric!r}, got {names}. Give one of these."
            )
        least, since = math.inf, 0
        for value in seen:
            better = value < least - (min_change if math.isfinite(least) else 0)
            least, since = (value, 0) if better else (least, since + 1)
        return since >= patience

    return stop
