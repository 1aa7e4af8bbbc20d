"""What tests share: quiet and repeatable test tools, synthetic pairs made once a session, and the real scans."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

# Before torch is imported: tests run in several processes, whose threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from DNetRegistrationLib import Alignment, SyntheticPair, align, make_pair, write_volume
from DNetRegistrationLib.training import session
from hypothesis import HealthCheck, settings
from places import DATA
from training_stand_ins import Small, write_blobs

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file run in one process, so that what they share is made once."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def briefly_composed(monkeypatch):
    """Training of the paper's networks begins with a head that takes a minute to learn to compose poses."""
    monkeypatch.setattr("DNetRegistrationLib.training.pose_stage._STEPS", 30)


def _shared(made: SyntheticPair) -> Iterator[SyntheticPair]:
    """Lends the pair to the tests of a session, and fails the last of them where one of them wrote to its voxels."""
    before = [sha256(scan.voxels.tobytes() + scan.affine.tobytes()).hexdigest() for scan in (made.fixed, made.moving)]
    yield made
    after = [sha256(scan.voxels.tobytes() + scan.affine.tobytes()).hexdigest() for scan in (made.fixed, made.moving)]
    assert after == before, "a test changed the scans that all tests share"


@pytest.fixture(scope="session")
def pair() -> Iterator[SyntheticPair]:
    """Whole views of one bone, the moving scan with contrast agent, 64^3 voxels of 80 um."""
    yield from _shared(make_pair(3))


@pytest.fixture(scope="session")
def alignment(pair) -> Alignment:
    """`pair` aligned with the default options: accepted."""
    return align(pair.fixed, pair.moving)


@pytest.fixture(scope="session")
def cut_pair() -> Iterator[SyntheticPair]:
    """As `pair`, another bone, half to all of which is in each field of view."""
    yield from _shared(make_pair(34, keep=0.5))


@pytest.fixture(scope="session")
def small_pair() -> Iterator[SyntheticPair]:
    """32^3 voxels of 160 um: enough to align, and quick."""
    yield from _shared(make_pair(5, size=32, spacing=0.16))


@pytest.fixture(scope="session")
def mirror_pair() -> Iterator[SyntheticPair]:
    """The moving scan is of the mirror image of the bone, both without contrast agent."""
    yield from _shared(make_pair(14, impostor="mirror", contrast=False))


@pytest.fixture(scope="session")
def other_pair() -> Iterator[SyntheticPair]:
    """The moving scan is of another animal."""
    yield from _shared(make_pair(15, impostor="animal"))


@pytest.fixture(scope="session")
def pair_files(pair, tmp_path_factory) -> tuple[Path, Path]:
    """`pair` as files to read from: fixed.nrrd and moving.nrrd in one folder, in which nothing else may be put."""
    folder = tmp_path_factory.mktemp("pair")
    for role in ("fixed", "moving"):
        write_volume(getattr(pair, role), folder / f"{role}.nrrd")
    return folder / "fixed.nrrd", folder / "moving.nrrd"


@pytest.fixture(scope="session")
def blobs(tmp_path_factory) -> str:
    """A file with blobs for bones, to train on."""
    return write_blobs(tmp_path_factory.mktemp("bones") / "blobs.pt")


@pytest.fixture
def small(monkeypatch) -> None:
    """A network in the place of D-net that takes no time to train."""
    monkeypatch.setattr(session, "build", lambda name: Small(int(torch.rand(1) * 1000)))


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
