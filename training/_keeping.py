"""When a run is saved: from time to time, when it is asked to stop, and at its end."""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from ._checkpoints import CheckpointError, Checkpoints
from ._interrupts import Stopped, Terminated, deferred_interrupts

Every = int | datetime.timedelta
HALF_A_MINUTE = datetime.timedelta(seconds=30)


class Place(NamedTuple):
    """Where a run stands: the arguments of `Checkpoints.save`."""

    step: int
    tree: Any
    metrics: dict[str, float] | None
    extra: Any


@contextlib.contextmanager
def keeping(
    checkpoints: Checkpoints | None,
    every: Every,
    place: Callable[[], Place],
    *,
    begin: int,
    saved: bool = False,
    leads: Callable[[], bool] = lambda: False,
) -> Iterator[Callable[[int], None]]:
    """Saves a run while it is under way.

    Ctrl-C and SIGTERM wait until `check_interrupts` is called; the run is saved before they are answered. Of several
    processes, SIGTERM to one stops all at the same `check_preemption`.

    Args:
      checkpoints: where; nothing is ever saved if there are none.
      every: steps, or time, between two of them.
      place: says where the run stands; called between two steps only.
      begin: the step that the run begins at.
      saved: whether what it says there is saved already, since it was taken up there.
      leads: whether the run is at its best, and to be saved for that.
    Yields:
      `offer(step)`, to be called where the run may be saved.
    """
    if checkpoints is None:
        yield lambda step: None
        return
    last: dict[str, Any] = {"saved": begin if saved else None, "time": time.monotonic(), "seen": begin}

    def save() -> None:
        here = place()
        if here.step != last["saved"]:
            checkpoints.save(here.step, here.tree, here.metrics, extra=here.extra)
            last.update(saved=here.step, time=time.monotonic())

    def offer(step: int) -> None:
        before, last["seen"] = last["seen"], step
        if isinstance(every, int):
            due = step // every > before // every
        else:
            due = time.monotonic() - last["time"] >= every.total_seconds()
        if due or leads():
            save()

    with deferred_interrupts(sigterm=jax.process_count() == 1):
        try:
            yield offer
            save()
            checkpoints.wait()
        except (Stopped, Terminated) as asked:
            if jax.process_count() == 1 or isinstance(asked, Terminated):  # of Ctrl-C the others know nothing
                save()
            checkpoints.wait()
            asked.add_note("Nothing is saved" if last["saved"] is None else f"Step {last['saved']} is saved")
            raise
        except Exception:
            with contextlib.suppress(CheckpointError):  # the other error came first
                checkpoints.wait()
            raise
