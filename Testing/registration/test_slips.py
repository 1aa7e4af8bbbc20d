"""Slips that scans show: what is warned of, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib import Volume, align, read_volume
from DNetRegistrationLib.imaging.volume import write_volume
from DNetRegistrationLib.registration.slips import slips


def scan(kind=np.uint16, spacing=0.01, seed=0):
    values = np.random.default_rng(seed).normal(size=(8, 9, 10)) * 100 + 1000
    return Volume.from_geometry(values.astype(kind), spacing)


@pytest.mark.parametrize("kind", (np.uint8, np.int16, np.uint16, np.float32))
def test_a_copy_is_told(kind):
    one = scan(kind)
    moved = Volume(one.voxels.copy(), np.array([[0, -1, 0, 5], [1, 0, 0, 3], [0, 0, 1, 2], [0, 0, 0, 1.0]]))
    (told,) = slips(one, moved)
    assert told.kind == "copy" and "the same voxels" in told.sentence
    assert slips(one, scan(kind, seed=1)) == []


def test_a_copy_with_gaps_is_told():
    one = scan(np.float32)
    one.voxels[:3] = np.nan
    assert len(slips(one, Volume(one.voxels.copy()))) == 1


@pytest.mark.parametrize("turned", (lambda v: v[::-1], lambda v: v.transpose(2, 0, 1), lambda v: v.astype(np.int32)))
def test_a_turned_copy_is_told(turned):
    one = scan()
    assert len(slips(one, Volume(turned(one.voxels)))) == 1
    other = turned(one.voxels).copy()
    other[0, 0, 0] += 1  # the sums differ
    assert slips(one, Volume(other)) == []


def test_a_turned_copy_is_told_where_sums_exceed_64_bits():
    """Cubes of 16 bits over one plane did, over a plane of another size did not."""
    bright = np.random.default_rng(0).integers(60_000, 65_536, (4, 200, 300), dtype=np.uint16)
    assert len(slips(Volume(bright), Volume(bright.transpose(2, 0, 1)[::-1]))) == 1


def test_micrometres_are_told():
    (told,) = slips(scan(), scan(spacing=(10, 10, 20), seed=1))
    assert "moving scan are 10 x 10 x 20 mm" in told.sentence and "micrometres" in told.sentence
    assert slips(scan(spacing=(0.5, 0.5, 10)), scan(spacing=0.9, seed=1)) == []  # a clinical CT
    # A voxel size that is typed is as easily in micrometres.
    (told,) = slips(scan(), replace(scan(spacing=10, seed=1), spacing_given=True))
    assert "moving scan are 10 x 10 x 10 mm" in told.sentence and told.kind == "voxel size"


@pytest.mark.parametrize("size", (0.02, (0.02, 0.02, 0.03)))
def test_a_voxel_size_that_a_file_contradicts_is_told(tmp_path, size):
    write_volume(scan(spacing=size), tmp_path / "scan.nrrd")
    stated = {0.02: "0.02 x 0.02 x 0.02"}.get(size, "0.02 x 0.02 x 0.03")
    for given in (0.021, (0.02, 0.02, 0.025), 0.2, 0.002):  # the last two, slips by ten, passed in silence
        (told,) = slips(scan(seed=1), read_volume(tmp_path / "scan.nrrd", given))
        typed = {0.2: "0.2 x", 0.002: "0.002 x"}.get(given, "0.02")
        assert f"moving scan were given as {typed}" in told.sentence and f"file states {stated} mm" in told.sentence
        (told,) = slips(read_volume(tmp_path / "scan.nrrd", given, flip="x"), scan(seed=1))
        assert "fixed scan were given" in told.sentence and told.kind == "voxel size"
    for given in (size, np.multiply(size, 1.001)):
        assert slips(scan(seed=1), read_volume(tmp_path / "scan.nrrd", given)) == []


@pytest.mark.parametrize(
    ("lost", "given", "moved"), ((1, 0.5, 0), ((0.1, 0.1, 1), 0.1, 0), (20, 0.02, 0), (20, 0.02, 7), (1, 0.02, 7))
)
def test_a_lost_voxel_size_is_mended_in_silence(tmp_path, lost, given, moved):
    """Untouched 1 mm, or with a position, a lost distance of slices, micrometres as millimetres."""
    volume = scan(spacing=lost)
    affine = volume.affine.copy()
    affine[:3, 3] += moved
    write_volume(replace(volume, affine=affine), tmp_path / "scan.nrrd")
    assert slips(scan(seed=1), read_volume(tmp_path / "scan.nrrd", given)) == []


@pytest.mark.slow
def test_an_alignment_warns(small_pair):
    copy = Volume(small_pair.fixed.voxels.copy(), small_pair.fixed.affine)
    found = align(small_pair.fixed, copy, hypotheses="search", refine="working")
    assert any("the same voxels" in text for text in found.warnings) and found.doubts == ["copy"]
    found = align(small_pair.fixed, small_pair.moving, hypotheses="search", refine="working")
    assert not any("the same voxels" in text for text in found.warnings) and not found.doubts


def test_a_voxel_size_that_was_given_against_both_files_is_a_doubt(small_pair, tmp_path):
    """The bones fit all the same, and a program that reads doubts alone saw nothing."""
    given = []
    for role in ("fixed", "moving"):
        write_volume(getattr(small_pair, role), tmp_path / f"{role}.nrrd")
        given.append(read_volume(tmp_path / f"{role}.nrrd", 1.25 * small_pair.fixed.spacing[0]))
    found = align(*given, hypotheses="search", refine="working")
    assert found.accepted and found.doubts == ["voxel size"] and len(found.warnings) == 2
