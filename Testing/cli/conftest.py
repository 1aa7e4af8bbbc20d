"""What the tests of several commands share."""

from importlib import import_module

import pytest
from alignments import made_alignment


@pytest.fixture
def aligned_with(monkeypatch):
    """What `align` was called with, while it does nothing."""
    calls = []

    def align(fixed, moving, **options):
        calls.append({"fixed": fixed, "moving": moving, **options})
        options["progress"](0.5, "working")
        return made_alignment()

    monkeypatch.setattr(import_module("DNetRegistrationLib.registration.align"), "align", align)
    return calls


@pytest.fixture
def two(pair_files):
    """The scans of `pair`, as arguments."""
    return [str(path) for path in pair_files]
