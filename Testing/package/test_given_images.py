"""Every public function that takes scans takes SimpleITK images, and does with them what it does with Volumes."""

from __future__ import annotations

import inspect

import DNetRegistrationLib as library
import numpy as np
import pytest
from DNetRegistrationLib import Alignment, ScanError, Volume, align, write_volume

QUICK = {"hypotheses": "dnet", "refine": "none"}


@pytest.fixture(scope="module")
def small_alignment(small_pair) -> Alignment:
    return align(small_pair.fixed, small_pair.moving)


def written(alignment, fixed, moving, folder):
    library.write_outputs(
        alignment,
        fixed,
        moving,
        report=folder / "r.json",
        subtraction=folder / "s.nrrd",
        segmentation=folder / "c.seg.nrrd",
    )
    return library.read_volume(folder / "s.nrrd").voxels, (folder / "c.seg.nrrd").read_bytes()


def masked(alignment, fixed, moving, folder):
    write_volume(Volume(np.ones((9, 9, 9), np.uint8)), folder / "mask.nrrd")
    return library.read_mask(folder / "mask.nrrd", fixed)


def saved(alignment, fixed, moving, folder):
    write_volume(fixed, folder / "scan.nrrd")
    return (folder / "scan.nrrd").read_bytes()


def checked(alignment, fixed, moving, folder):
    return [one.error_um for one in library.check_alignment(alignment, fixed, moving, **QUICK).check.repeats]


def cartilage(alignment, fixed, moving, folder):
    found = library.measure_cartilage(alignment, fixed, moving, anyway=True)
    return found.map.points, found.warnings


#: By the function's name: what it makes of an alignment and its scans, to compare.
USES = {
    "align": lambda alignment, fixed, moving, folder: align(fixed, moving, **QUICK).matrix,
    "apply_transform": lambda alignment, fixed, moving, folder: (
        library.apply_transform(moving, alignment, grid=fixed).voxels
    ),
    "check_alignment": checked,
    "find_bone_scale": lambda alignment, fixed, moving, folder: library.find_bone_scale(fixed).threshold,
    "measure_cartilage": cartilage,
    "read_mask": masked,
    "resample": lambda alignment, fixed, moving, folder: library.resample(moving, fixed, alignment).voxels,
    "segment_cortex": lambda alignment, fixed, moving, folder: library.segment_cortex(moving).voxels,
    "subtract": lambda alignment, fixed, moving, folder: library.subtract(alignment, fixed, moving).voxels,
    "write_outputs": written,
    "write_volume": saved,
}
#: What takes seconds, and what needs a pair in finer voxels.
SLOW, FINE = ("align", "check_alignment", "measure_cartilage"), ("measure_cartilage",)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in USES])
def test_simpleitk_images_do_as_volumes_do(name, request, tmp_path):
    kind = "" if name in FINE else "small_"
    pair, alignment = (request.getfixturevalue(kind + what) for what in ("pair", "alignment"))
    expected = USES[name](alignment, pair.fixed, pair.moving, tmp_path)
    found = USES[name](alignment, pair.fixed.to_sitk(), pair.moving.to_sitk(), tmp_path)
    np.testing.assert_equal(found, expected)


@pytest.mark.parametrize("name", [name for name in USES if name != "apply_transform"])
def test_another_thing_is_told(name, small_pair, small_alignment, tmp_path):
    """Of an array nothing says where it lies. `apply_transform` takes arrays of points."""
    arrays = small_pair.fixed.voxels, small_pair.moving.voxels
    with pytest.raises(ScanError, match="is of the type ndarray") as caught:
        USES[name](small_alignment, *arrays, tmp_path)
    assert caught.value.remedy == "give a Volume or a SimpleITK image"


def test_a_grid_that_is_none_is_told(small_pair, small_alignment):
    with pytest.raises(ScanError, match="the grid is of the type str"):
        library.apply_transform(small_pair.moving, small_alignment, grid="before.nrrd")


def test_no_public_function_takes_volumes_alone():
    told = set()
    for name in library.__all__:
        if inspect.isfunction(function := getattr(library, name)):
            for parameter in inspect.signature(function).parameters.values():
                if "Volume" in str(parameter.annotation):
                    assert "sitk.Image" in parameter.annotation, (name, parameter)
                    told.add(name)
    assert told == USES.keys() - {"apply_transform"}
