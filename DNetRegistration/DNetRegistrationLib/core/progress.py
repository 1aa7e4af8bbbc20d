"""Shows how far long work is, and prints text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable


class Progress:
    """Shows a fraction and a message: as a bar on a terminal, else as a line for each stage where that is wanted.

    The bar needs tqdm; without it a terminal gets the lines.

    Args:
        verbose: lines also where no one is watching, as in a log file.

    Example:
        >>> with Progress(verbose=True) as progress:  # doctest: +SKIP
        ...     progress(0.5, "searching")
    """

    def __init__(self, verbose: bool = False) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._lines = verbose
        self._bar = None
        self._message = ""
        self._shown = 0.0

    def __enter__(self) -> Progress:
        if self._terminal and not self._lines:
            try:
                from tqdm import tqdm
            except ImportError:
                self._lines = True
            else:
                style = "{desc:<32.32}{percentage:3.0f}% |{bar:30}| {elapsed}"
                self._bar = tqdm(total=1.0, bar_format=style, leave=False, file=sys.stderr)
        return self

    def __exit__(self, *exception) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, fraction: float, message: str) -> None:
        new, now = message != self._message, time.monotonic()
        self._message = message
        if self._bar is not None and (new or now - self._shown > 0.1):
            self._shown = now
            self._bar.n = min(max(fraction, self._bar.n), 1.0)
            self._bar.set_description_str(message)
        elif self._lines and new:
            print(f"{100 * fraction:3.0f}% {message}", file=sys.stderr, flush=True)

    def part(self, low: float, high: float) -> Callable[[float, str], None]:
        """A progress function for a stage of the work: its 0 to 1 is `low` to `high` of the whole."""
        return lambda fraction, message: self(low + (high - low) * fraction, message)


def say(text: str) -> None:
    """Prints to the standard output; that its reader has gone, as ``| head`` does, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
