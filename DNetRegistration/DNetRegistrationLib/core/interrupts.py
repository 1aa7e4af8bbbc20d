"""Ctrl-C as a wish that is granted at the next good moment."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BURST = 2.0  # seconds; signals come in bursts, from the terminal and from the launcher of several processes


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside the block Ctrl-C (or SIGTERM, SIGHUP) is noted instead of raised; yields whether it was.

    A second one, some seconds later, raises `KeyboardInterrupt` at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    first = None

    def note(number, frame) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > BURST:
            raise KeyboardInterrupt

    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # A command that was started in the background ignores Ctrl-C, and goes on doing so.
    numbers = [number for number in known if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    previous = [signal.signal(number, note) for number in numbers]
    try:
        yield lambda: first is not None
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
