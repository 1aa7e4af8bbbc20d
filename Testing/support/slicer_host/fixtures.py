"""The pytest fixture `host`. Import it in a test file that needs it: `from slicer_host.fixtures import host`."""

from __future__ import annotations

from functools import cache

import pytest

import slicer_host


@cache
def _why_unusable() -> str:
    """Asked once, since it takes longer than a small test."""
    return slicer_host.why_unusable()


@pytest.fixture
def host():
    """The stand-in for Slicer, empty; fails the test that leaves an error, a surprise question or an unused answer."""
    reason = _why_unusable()
    if reason:
        pytest.skip(f"no stand-in for Slicer: {reason}")
    running = slicer_host.start()
    running.reset()
    yield running
    running.process_events()
    errors, unused = list(running.errors), running.dialogs.unused_answers
    running.reset()
    if errors:
        raise AssertionError(f"errors that Slicer would only print: {errors!r}") from errors[0]
    assert not unused, f"answers that no question asked for: {unused}"
