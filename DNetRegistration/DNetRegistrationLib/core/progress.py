"""Shows how far long work is, and prints text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

#: Called with the fraction done, 0 to 1, and a message.
ProgressFunction = Callable[[float, str], None]


def no_progress(fraction: float, message: str) -> None:
    """The progress function where nobody asked for one."""


class Progress:
    """Shows a fraction and a message: a bar on a terminal, elsewhere a line for each stage if `verbose`.

    The bar needs tqdm. Without it a terminal gets the lines. The bar begins with the first message. It ends with the
    context, and with a line that is told; the next message begins another.

    Args:
        verbose: print the lines in any case, also to a log file.

    Example:
        >>> with Progress(verbose=True) as progress:  # doctest: +SKIP
        ...     progress(0.5, "searching")
        ...     progress.tell("found")
    """

    def __init__(self, verbose: bool = False) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._lines = verbose
        self._bar: Any = None
        self._message = ""
        self._shown = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, fraction: float, message: str) -> None:
        if self._terminal and not self._lines and self._bar is None:
            self._begin_bar()
        new, now = message != self._message, time.monotonic()
        self._message = message
        if self._bar is not None and (new or now - self._shown > 0.1):
            self._shown = now
            self._bar.n = min(max(fraction, self._bar.n), 1.0)
            self._bar.set_description_str(message)
        elif self._lines and new:
            say_aside(f"{100 * fraction:3.0f}% {message}")

    def tell(self, text: str) -> None:
        """Ends the bar, and prints to the standard output."""
        self.__exit__()
        say(text)

    def _begin_bar(self) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self._lines = True
        else:
            style = "{desc:<32.32}{percentage:3.0f}% |{bar:30}| {elapsed}"
            self._bar = tqdm(total=1.0, bar_format=style, leave=False, file=sys.stderr)


def part(progress: ProgressFunction, low: float, high: float) -> ProgressFunction:
    """A progress function for a stage of the work, whose 0 to 1 is `low` to `high` of the whole."""
    return lambda fraction, message: progress(low + (high - low) * fraction, message)


def say(text: str) -> None:
    """Prints to the standard output. Where that cannot be, as on a full disk, the work goes on; see `all_was_said`."""
    _print(text, sys.stdout)


def say_aside(text: str) -> None:
    """Prints to the standard error, or nowhere if that cannot be."""
    _print(text, sys.stderr)


def all_was_said() -> bool:
    """Whether all that was printed to the standard output is there, or its reader went away, as with ``| head``."""
    _print("", sys.stdout, end="")
    return not _lost


_lost = False


def _print(text: str, stream: TextIO | None, end: str = "\n") -> None:
    global _lost
    if stream is None:  # a program without a console
        return
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError as error:
        _lost |= stream is sys.stdout and not isinstance(error, BrokenPipeError)
        # What is still in the buffer would fail again when the interpreter ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (stream or sys.stdout).fileno())
        os.close(nowhere)
