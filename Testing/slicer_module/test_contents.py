"""What goes with a pose from the process to the scene: computed from given cortices, and the same out of files."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import places
import pytest
from DNetRegistrationLib import Volume
from DNetRegistrationLib.bone.cortex import CorticalBone, cortical_bone
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.imaging.resample import resample
from DNetRegistrationLib.outputs.segmentation import Cortices
from DNetRegistrationLib.outputs.subtraction import farthest
from DNetRegistrationLib.slicer_module import contents as module
from DNetRegistrationLib.slicer_module import raw_files
from DNetRegistrationLib.slicer_module.contents import Contents
from DNetRegistrationLib.slicer_module.raw_files import RawFile, copy_voxels
from scene_nodes import aligned, rigid

EVERYTHING = {"segmentation", "resampled", "subtraction"}


def read_back(part, dtype) -> np.ndarray:
    target = np.empty(part.shape, dtype)
    for _ in copy_voxels(part, target):
        pass
    return target


@pytest.fixture(scope="module")
def computed(small_pair):
    """Everything, of the true pose."""
    alignment = aligned(small_pair.matrix, fixed_threshold=300.0, moving_threshold=300.0)
    bones = tuple(cortical_bone(scan, 300.0, 0.08) for scan in (small_pair.fixed, small_pair.moving))
    return small_pair, alignment, bones, Contents.computed(*scans(small_pair), alignment, bones, EVERYTHING, "moving")


def scans(pair):
    return pair.fixed, pair.moving


def test_cortices_are_those_that_were_given(computed, monkeypatch):
    """On their own grid; the moving one lies where the pose takes it, voxel by voxel."""
    pair, alignment, (fixed, moving), contents = computed
    assert contents.cortices.fixed is fixed.cortex and np.array_equal(contents.cortices.affine, fixed.affine)
    assert contents.cortices.moving.shape == fixed.cortex.shape
    # Well inside or outside the moving cortex, where interpolation does not matter.
    solid, checked = moving.cortex, 0
    to_index = np.linalg.solve(moving.affine, alignment.matrix @ fixed.affine)
    for z, y, x in np.argwhere(np.ones_like(fixed.cortex))[::7]:
        i, j, k = np.floor((to_index @ (x, y, z, 1))[:3]).astype(int)
        corner = (slice(k, k + 2), slice(j, j + 2), slice(i, i + 2))
        if min(i, j, k) < 0 or (block := solid[corner]).shape != (2, 2, 2) or block.any() != block.all():
            continue
        assert contents.cortices.moving[z, y, x] == block.all()
        checked += 1
    assert checked > 1000 and contents.cortices.moving.any()
    # Without them they are segmented.
    monkeypatch.setattr(module, "segment", lambda *arguments: (fixed, moving))
    again = Contents.computed(*scans(pair), alignment, None, {"segmentation"}, "moving")
    assert np.array_equal(again.cortices.moving, contents.cortices.moving) and again.resampled is None


def test_volumes_are_of_the_types_of_the_scans(computed):
    pair, alignment, _, contents = computed
    assert contents.resampled.dtype == pair.moving.voxels.dtype and contents.subtraction.dtype == np.float32
    values = resample(pair.moving, pair.fixed, alignment.matrix).voxels
    seen = np.isfinite(values)
    assert np.array_equal(np.isfinite(contents.subtraction), seen)
    assert np.abs(contents.resampled[seen] - values[seen]).max() <= 0.5
    within = np.abs(contents.subtraction[seen]) <= contents.reach
    assert 0.99 < within.mean() < 0.999


def test_what_is_not_wanted_is_not_computed(computed, monkeypatch):
    pair, alignment, bones, _ = computed

    def forbidden(*arguments):
        raise AssertionError

    monkeypatch.setattr(module, "resample", forbidden)
    contents = Contents.computed(*scans(pair), alignment, bones, {"segmentation"}, "moving")
    assert contents.resampled is None is contents.subtraction and contents.cortices is not None
    monkeypatch.setattr(module, "segment", forbidden)
    assert Contents.computed(*scans(pair), alignment, None, set(), "moving") == Contents()


def test_files_hold_the_same(computed, tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "PART", 100_000)
    *_, contents = computed
    contents.write(tmp_path)
    again = Contents.read(tmp_path)
    for name in ("fixed", "moving", "affine"):
        before, after = (getattr(one.cortices, name) for one in (contents, again))
        assert np.array_equal(before, after) and before.dtype == after.dtype
    for name in ("resampled", "subtraction"):
        array, file = getattr(contents, name), getattr(again, name)
        assert isinstance(file, RawFile) and file.path.parent == tmp_path
        assert np.array_equal(read_back(file, array.dtype), array, equal_nan=array.dtype.kind == "f")
        assert file.path.stat().st_size == array.nbytes  # as they are: packing them took most of the time
    assert again.reach == contents.reach
    Contents().write(tmp_path)
    assert Contents.read(tmp_path) == Contents()


def test_cortices_that_overlap_stay_apart(tmp_path):
    masks = np.random.default_rng(0).random((2, 5, 6, 7)) < 0.4
    affine = rigid(3) @ np.diag((0.01, 0.02, 0.037, 1.0))
    Contents(Cortices(*masks, affine)).write(tmp_path)
    again = Contents.read(tmp_path).cortices
    assert np.array_equal([again.fixed, again.moving], masks) and np.array_equal(again.affine, affine)


def test_results_that_cannot_be_written_or_read(tmp_path):
    mask = np.ones((3, 4, 5), bool)
    with pytest.raises(FileError, match="cannot be written"):
        Contents(Cortices(mask, mask, np.eye(4))).write(tmp_path / "missing" / "folder")
    with pytest.raises(FileError, match=r"the result cannot be read.*align again"):
        Contents.read(tmp_path)
    Contents(Cortices(mask, mask, np.eye(4))).write(tmp_path)
    (tmp_path / "fixed cortex.raw").write_bytes(b"1")
    with pytest.raises(FileError, match="the result cannot be read"):
        Contents.read(tmp_path)


@pytest.mark.parametrize("dtype", ("?", "i1", "u2", ">i2", "<f4", ">f8", "f2"))
def test_raw_files_hold_every_type_and_layout(tmp_path, monkeypatch, dtype):
    values = np.random.default_rng(0).integers(0, 2, (9, 8, 7)).astype(dtype)
    for number, voxels in enumerate((values, values[::2, ::-1], np.asfortranarray(values), values[:, :, 3:4])):
        monkeypatch.setattr(raw_files, "PART", 2 * voxels[0].nbytes)
        file = RawFile.of(tmp_path / f"{number}.raw", voxels)
        assert len(list(file.write(voxels))) == -(-len(voxels) // 2) - 1
        assert RawFile.from_dict(tmp_path, file.to_dict()) == file
        mapped = file.mapped()
        assert np.array_equal(mapped, voxels) and mapped.dtype == voxels.dtype and not mapped.flags.writeable
        assert np.array_equal(read_back(file, dtype), voxels)


def test_a_raw_file_that_is_gone():
    with pytest.raises(FileError, match=r"v.raw: cannot be read \(No such file or directory\); align again"):
        next(copy_voxels(RawFile(Path("/missing/v.raw"), (2, 2, 2), "u1"), np.empty((2, 2, 2), np.uint8)))


def test_the_reach_of_nothing():
    nothing = Volume(np.full((4, 4, 4), np.nan, np.float32), np.eye(4))
    empty = CorticalBone(*np.zeros((2, 4, 4, 4), bool), nothing.voxels, np.eye(4))
    assert (
        Contents.computed(nothing, nothing, aligned(np.eye(4)), (empty, empty), {"segmentation"}, "moving").reach == 0
    )
    assert farthest(nothing.voxels) == 0


def test_the_window_imports_nothing_slow():
    """It reads what the process has computed: what took half of its time was to import what computes it."""
    program = """
        import sys
        import DNetRegistrationLib.slicer_module.contents
        slow = "scipy.spatial", "scipy.integrate", "scipy.optimize", "scipy.interpolate", "torch", "SimpleITK"
        print([name for name in slow if name in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(places.SOURCE)})
    assert done.stdout.splitlines() == ["[]"], done.stderr
