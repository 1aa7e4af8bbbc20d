"""Keeps the C and C++ libraries under SimpleITK from writing to the terminal."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

logger = logging.getLogger(__name__)

# All threads share one terminal: two that silenced it in turn would restore each other's silence.
_terminal_lock = threading.RLock()


class Noise:
    """What the C and C++ libraries wrote while `quietly` held it back."""

    text = ""


@contextmanager
def quietly(output: bool = False) -> Iterator[Noise]:
    """Keeps the C and C++ libraries under SimpleITK from writing to the terminal; yields a `Noise` filled at the end.

    The libraries write to the standard error of the process, not to Python's, so it is caught there; with `output`, its
    standard output as well.
    """
    import SimpleITK as sitk

    noise = Noise()
    with _terminal_lock:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with _caught(noise, (1, 2) if output else (2,)):
                yield noise
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    if noise.text:
        logger.debug("%s", noise.text)


@contextmanager
def _caught(noise: Noise, descriptors: tuple[int, ...]) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            held = stack.enter_context(tempfile.TemporaryFile())
            kept = {number: os.dup(number) for number in descriptors}
            for copy in kept.values():
                stack.callback(os.close, copy)
            for number in descriptors:
                os.dup2(held.fileno(), number)
        except (OSError, ValueError):  # a host without a terminal, or a full disk: the noise is heard
            yield
            return
        try:
            yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
            held.seek(0)
            noise.text = held.read(100_000).decode("utf-8", "replace")
