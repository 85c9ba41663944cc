"""How a run tells a person where it is."""

import sys
import time
from collections.abc import Mapping
from typing import Any


class Progress:
    """A line a report: step, metrics, steps a second, time left.

    On a terminal, with rich installed (the extra `cli`), one line that is drawn anew under the last report;
    elsewhere plain lines.

    Args:
      first_step: the step that the run starts from.
      last_step: the step that it goes to.
    """

    def __init__(self, first_step: int, last_step: int):
        self._last_step = last_step
        self._before = (time.perf_counter(), first_step)
        self._bar = _rich_bar(first_step, last_step) if sys.stdout and sys.stdout.isatty() else None

    def report(self, row: Mapping[str, float]) -> None:
        """Shows one row of the history, `step` and metrics by name."""
        now, step = time.perf_counter(), int(row["step"])
        (then, from_step), self._before = self._before, (now, step)
        rate = (step - from_step) / max(now - then, 1e-9)
        left = (self._last_step - step) / max(rate, 1e-9)
        place = f"step {step:>{len(str(self._last_step))}}/{self._last_step}"
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "step")
        speed = f"{rate:,.0f} steps/s  ETA {_clock(left)}"
        if self._bar is None:
            print(f"{place}  {metrics}  {speed}", flush=True)
        else:
            self._bar.update(0, completed=step, place=place, metrics=metrics, speed=speed)

    def close(self) -> None:
        """Leaves the last line standing."""
        if self._bar is not None:
            self._bar.stop()


def _rich_bar(first_step: int, last_step: int) -> Any:
    try:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column
    except ImportError:
        return None
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # a narrow terminal cuts the metrics, not the time left
    texts = [TextColumn(f"{{task.fields[{name}]}}") for name in ("place", "speed")]
    bar = Progress(
        texts[0], BarColumn(12), texts[1], TextColumn("{task.fields[metrics]}", table_column=rest), expand=True
    )
    bar.add_task("", total=last_step, completed=first_step, place="compiling", speed="ETA -:--", metrics="")
    bar.start()
    return bar


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
