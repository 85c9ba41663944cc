"""A window of a run under JAX's profiler."""

from pathlib import Path

import jax

from ._checks import check_count
from ._logs import Log, Row


def profile(directory: str | Path, *, start: int, stop: int) -> Log:
    """Records a trace of the steps between two reports, for TensorBoard, XProf or Perfetto.

    It begins at the first report from step `start` on, and ends at the first from step `stop` on. At a report
    everything before it is computed, so that the trace holds whole steps, and waits for none. Start it after the first
    report, or compiling is in it. A run that begins after `start` is traced from its first report on.

    Args:
      directory: where; made when the trace begins.
      start: step.
      stop: a later one; the trace ends at `close`, if the run ends before.
    Returns:
      A `Log`: the `on_report` of `fit`, or one of `logs`. It should be closed, as by `with`.
    Raises:
      ValueError: for steps out of their range.

    >>> import pathlib, tempfile
    >>> directory = pathlib.Path(tempfile.mkdtemp())
    >>> tx, update = optim.sgd(0.1), step(lambda w, x, key: (w - x) ** 2, optim.sgd(0.1))
    >>> begin, feed = init(jnp.zeros(()), tx), [jnp.ones(())] * 60
    >>> with profile(directory, start=20, stop=40) as trace:
    ...     _ = fit(update, begin, feed, num_steps=60, report_every=20, on_report=trace, progress=False)
    >>> len(list(directory.rglob("*.xplane.pb")))
    1
    """
    check_count("profile", "start", start, at_least=0)
    check_count("profile", "stop", stop, at_least=start + 1)
    state = {"begun": False, "ended": False}

    def write(row: Row) -> None:
        if state["begun"] and row["step"] >= stop:
            close()
        elif not state["begun"] and start <= row["step"] < stop:
            state["begun"] = True
            jax.profiler.start_trace(str(directory))

    def close() -> None:
        if state["begun"] and not state["ended"]:
            state["ended"] = True
            jax.profiler.stop_trace()

    return Log(write, close)
