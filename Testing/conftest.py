"""What all tests need: the library on the path, quiet and repeatable test tools, and the real scans."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before torch is imported: tests run in several processes, whose threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings
from places import DATA

# A run that was started in the background ignores Ctrl-C, and so would all that it tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Repeatable, and no time limit per example: machines that run tests are shared and slow.
settings.register_profile(
    "quick",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def briefly_composed(monkeypatch):
    """Training of the paper's networks begins with a head that takes a minute to learn to compose poses."""
    monkeypatch.setattr("DNetRegistrationLib.training.pose_stage._STEPS", 30)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the checkout; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"the real scans are not here ({DATA}); see docs/results/README.md on where they come from")
    return DATA


@pytest.fixture
def ankles(shared_data) -> Path:
    """Real CT of two human ankles, 167 x 268 x 150 voxels of 1 mm, HU."""
    return _present(shared_data / "visible-human-ankles" / "VHF_ankles_1mm.nii.gz")


@pytest.fixture
def trabecular_cube(shared_data) -> Path:
    """Real micro-CT of human trabecular bone, 200^3 voxels of 19.5 um, 8 bit."""
    return _present(shared_data / "lhdl-trabecular" / "3155_D_4_bc.nrrd")


def _present(path: Path) -> Path:
    if not path.is_file():
        pytest.skip(f"the real scan is not here ({path})")
    return path
