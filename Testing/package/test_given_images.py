"""Every public function that takes scans takes SimpleITK images, and does with them what it does with Volumes."""

from __future__ import annotations

import inspect

import DNetRegistrationLib as library
import numpy as np
import pytest
from DNetRegistrationLib import Alignment, DNetError, ScanError, Volume, align, write_volume
from DNetRegistrationLib.core.errors import OptionError

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
    with pytest.raises(ScanError, match="the grid is a path"):
        library.apply_transform(small_pair.moving, small_alignment, grid="before.nrrd")


def slices(voxels: np.ndarray) -> Volume:
    return Volume(voxels[0])


def nothing(voxels: np.ndarray) -> Volume:
    return Volume(voxels[:0])


def colours(voxels: np.ndarray) -> Volume:
    return Volume(np.repeat(voxels[..., None], 3, axis=3))


def complex_numbers(voxels: np.ndarray) -> Volume:
    return Volume(voxels.astype(np.complex64))


def flat(voxels: np.ndarray) -> Volume:
    return Volume(voxels, np.diag((1.0, 0.0, 1.0, 1.0)))


def lost(voxels: np.ndarray) -> Volume:
    return Volume(voxels, np.diag((1.0, np.nan, 1.0, 1.0)))


#: What is no scan, and what is said of it.
BROKEN = {
    slices: "has 2 dimensions", nothing: "has only 0 voxels along z", colours: "has 4 dimensions",
    complex_numbers: "holds complex64 voxels", flat: "the spacing along y is zero", lost: "is not finite",
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", USES)
def test_volumes_that_are_no_scans_are_told(name, broken, small_pair, small_alignment, tmp_path):
    for place in (0, 1):
        scans = [small_pair.fixed, small_pair.moving]
        scans[place] = broken(scans[place].voxels)
        if place and name in ("read_mask", "write_volume", "find_bone_scale"):
            continue  # they take one scan
        if not place and name == "segment_cortex":
            continue
        with pytest.raises(ScanError, match=BROKEN[broken]) as caught:
            USES[name](small_alignment, *scans, tmp_path)
        assert caught.value.remedy


@pytest.mark.parametrize("broken", [one for one in BROKEN if one is not nothing], ids=lambda one: one.__name__)
def test_masks_that_are_no_images_are_told(broken, small_pair):
    mask = broken(np.ones((8, 8, 8), np.uint8))
    with pytest.raises(ScanError, match=BROKEN[broken]):
        align(small_pair.fixed, small_pair.moving, fixed_mask=mask)


class OtherImage:
    """An image of another library, which has a method of the same name."""

    def GetDirection(self):
        return np.eye(3)

    TransformPoint = GetDirection


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("given, words", [(OtherImage(), "OtherImage"), ("before.nrrd", "is a path: 'before.nrrd'")])
def test_images_of_other_libraries_and_paths_are_told(name, given, words, small_alignment, tmp_path):
    with pytest.raises(DNetError, match=words) as caught:
        USES[name](small_alignment, given, given, tmp_path)
    assert caught.value.remedy


#: By the function's name: what takes a transform, and what an alignment.
TRANSFORMS = {
    "align": lambda given, fixed, moving, folder: align(fixed, moving, initial=given),
    "apply_transform": lambda given, fixed, moving, folder: library.apply_transform(moving, given),
    "resample": lambda given, fixed, moving, folder: library.resample(moving, fixed, given),
    "write_transform": lambda given, fixed, moving, folder: library.write_transform(given, folder / "t.tfm"),
}
ALIGNMENTS = ("check_alignment", "measure_cartilage", "subtract", "write_outputs")


@pytest.mark.parametrize(
    "given, words", [("pair.tfm", "is a path: 'pair.tfm'"), (OtherImage(), "OtherImage|not a 4x4 matrix")]
)
@pytest.mark.parametrize("name", [*TRANSFORMS, *ALIGNMENTS])
def test_what_is_no_transform_is_told(name, given, words, small_pair, tmp_path):
    with pytest.raises(OptionError, match=words) as caught:
        (USES | TRANSFORMS)[name](given, small_pair.fixed, small_pair.moving, tmp_path)
    assert caught.value.remedy


def test_an_alignment_does_as_its_matrix_does(small_pair, small_alignment, tmp_path):
    library.write_transform(small_alignment, tmp_path / "t.tfm")
    np.testing.assert_allclose(library.read_transform(tmp_path / "t.tfm"), small_alignment.matrix, atol=1e-12)
    again = align(small_pair.fixed, small_pair.moving, initial=small_alignment, refine="none")
    assert again.hypothesis == "initial"


def test_no_public_function_takes_volumes_alone():
    told = set()
    for name in library.__all__:
        if inspect.isfunction(function := getattr(library, name)):
            for parameter in inspect.signature(function).parameters.values():
                if "Volume" in str(parameter.annotation):
                    assert "sitk.Image" in parameter.annotation, (name, parameter)
                    told.add(name)
    assert told == USES.keys() - {"apply_transform"}
