"""Ctrl-C and SIGTERM at a moment when a run can bear them."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax


class Stopped(KeyboardInterrupt):
    """Ctrl-C that waited until a run could bear it."""


class Terminated(SystemExit):
    """SIGTERM that waited until a run could bear it; as an exit code it is the shell's, 143."""


_asked: list[int] = []
_depth: list[None] = []


def check_interrupts() -> None:
    """Raises what was asked for while it had to wait; outside `deferred_interrupts` nothing ever waits.

    Raises:
      Stopped: after Ctrl-C.
      Terminated: after SIGTERM.
    """
    if _asked:
        raise Stopped if _asked[0] == signal.SIGINT else Terminated(128 + _asked[0])


def check_preemption(call: int) -> None:
    """Raises in all of several processes at the same call, once any of them got SIGTERM.

    JAX listens to SIGTERM there, and has them agree on a call that none has made yet.

    Args:
      call: how many calls of steps were made, one more each time, the same in all processes.
    Raises:
      Terminated: at the call that they agreed on.
    """
    if jax.config.values["jax_enable_preemption_service"]:
        from jax.experimental import multihost_utils

        if multihost_utils.reached_preemption_sync_point(call):
            raise Terminated(128 + signal.SIGTERM)


@contextlib.contextmanager
def deferred_interrupts(*, sigterm: bool = True) -> Iterator[Callable[[], None]]:
    """Lets Ctrl-C and SIGTERM wait until they are asked for; what comes second no longer waits.

    A KeyboardInterrupt that is raised inside JAX may be lost in a callback of the garbage collector, or end the
    process with a segmentation fault (jaxlib 0.10). Where a signal is ignored or handled otherwise, and in threads
    other than the main one, nothing changes. One inside another is the same as the outer one alone.

    Args:
      sigterm: whether SIGTERM is heard here; where there are several processes, JAX does (`check_preemption`).
    Yields:
      `check_interrupts`, which raises if something was asked for. If nobody asked until the end, the end does.
    """
    if _depth or threading.current_thread() is not threading.main_thread():
        yield check_interrupts
        return
    usual = {signal.SIGINT: signal.default_int_handler} | ({signal.SIGTERM: signal.SIG_DFL} if sigterm else {})
    ours = {number: handler for number, handler in usual.items() if signal.getsignal(number) is handler}

    def restore() -> None:
        for number, handler in ours.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Any) -> None:
        _asked.append(number)
        restore()

    _depth.append(None)
    for number in ours:
        signal.signal(number, handle)
    try:
        yield check_interrupts
        check_interrupts()
    finally:
        restore()
        _depth.clear()
        _asked.clear()
