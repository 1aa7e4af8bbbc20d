"""Interrupts by Ctrl-C, SIGTERM and SIGHUP: deferred to a safe point, held back, or raised once for a burst of them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BURST = 2.0  # seconds; signals come in bursts, from the terminal and from the launcher of several processes


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Defers interrupts inside the block to the next safe point; yields a function that says whether one came.

    A second interrupt, some seconds later, raises `KeyboardInterrupt` at once. In a thread other than the main one
    interrupts do not arrive, and the function returns false.
    """
    first = None

    def note(number: int, frame: object) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > BURST:
            raise KeyboardInterrupt

    with _handled_by(note):
        yield lambda: first is not None


@contextmanager
def held_back() -> Iterator[None]:
    """Holds interrupts back inside the block, which must be short; after it they come as if they arrived then."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)

    try:
        with _handled_by(note):
            yield
    finally:
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


@contextmanager
def raised_once() -> Iterator[Callable[[], bool]]:
    """Raises `KeyboardInterrupt` inside the block at the first interrupt of a burst, SIGTERM and SIGHUP included.

    A second Ctrl-C right after the first would otherwise interrupt the cleaning up. Yields a function that says whether
    one was raised: a package that is interrupted while it loads may raise another error in its place.
    """
    last = float("-inf")

    def stop(number: int, frame: object) -> None:
        nonlocal last
        in_burst, last = time.monotonic() - last < BURST, time.monotonic()
        if not in_burst:
            raise KeyboardInterrupt

    with _handled_by(stop):
        yield lambda: last > float("-inf")


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # A command that was started in the background ignores Ctrl-C, and goes on doing so.
    numbers = [number for number in known if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    previous = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, before in zip(numbers, previous, strict=True):
            signal.signal(number, before)
