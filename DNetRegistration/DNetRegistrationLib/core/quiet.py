"""Keeps the C and C++ libraries under SimpleITK from writing to the terminal."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager

logger = logging.getLogger(__name__)

# The terminal is one for all threads: two that silenced it in turn would put back each other's silence.
_terminal_lock = threading.RLock()


class Noise:
    """What the C and C++ libraries wrote to the terminal while it was held back."""

    text = ""


@contextmanager
def quietly():
    """Keeps the C and C++ libraries under SimpleITK from writing to the terminal; yields a `Noise` filled at the end.

    They write to the process's standard error rather than Python's, so that is where it is caught.
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
def _caught_stderr(noise: Noise):
    with ExitStack() as stack:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            kept = os.dup(2)
            stack.callback(os.close, kept)
            held = stack.enter_context(tempfile.TemporaryFile())
            os.dup2(held.fileno(), 2)
        except (OSError, ValueError):  # a host without a terminal, or a full disk: then the noise is heard
            yield
            return
        try:
            yield
        finally:
            os.dup2(kept, 2)
            held.seek(0)
            noise.text = held.read(100_000).decode("utf-8", "replace")
