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
def quietly() -> Iterator[Noise]:
    """Keeps the C and C++ libraries under SimpleITK from writing to the terminal; yields a `Noise` filled at the end.

    The libraries write to the standard error of the process, not to Python's, so it is caught there.
    """
    import SimpleITK as sitk

    noise = Noise()
    with _terminal_lock:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with _caught_stderr(noise):
                yield noise
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    if noise.text:
        logger.debug("%s", noise.text)


@contextmanager
def _caught_stderr(noise: Noise) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            kept = os.dup(2)
            stack.callback(os.close, kept)
            held = stack.enter_context(tempfile.TemporaryFile())
            os.dup2(held.fileno(), 2)
        except (OSError, ValueError):  # a host without a terminal, or a full disk: the noise is heard
            yield
            return
        try:
            yield
        finally:
            os.dup2(kept, 2)
            held.seek(0)
            noise.text = held.read(100_000).decode("utf-8", "replace")
