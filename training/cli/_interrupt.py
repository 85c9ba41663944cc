"""Ctrl-C at a moment when a run can bear it."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Lets Ctrl-C wait until it is asked for; pressed a second time, it no longer waits.

    A KeyboardInterrupt that is raised inside JAX may be lost in a callback of the garbage collector, or end the
    process with a segmentation fault (jaxlib 0.10). Where SIGINT is ignored or handled otherwise, nothing changes.

    Yields:
      A function that raises KeyboardInterrupt if Ctrl-C was pressed.
    """
    pressed: list[int] = []

    def handle(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    defers = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if defers:
        signal.signal(signal.SIGINT, handle)
    try:
        yield check
    finally:
        if defers:
            signal.signal(signal.SIGINT, signal.default_int_handler)
