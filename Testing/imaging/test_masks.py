"""Masks on any grid mark in the scan what they mark in the world; segmentations of Slicer; masks of flipped scans."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from DNetRegistrationLib.core.errors import ScanError, Setting
from DNetRegistrationLib.imaging.masks import check_mask, mask_on, read_mask
from DNetRegistrationLib.imaging.nrrd import write_nrrd
from DNetRegistrationLib.imaging.volume import Volume, read_volume, write_volume
from grids import grid, noise
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()
FAR = np.array((130.0, -75.0, 2040.0))
SHEAR = np.array(((1, 0.2, 0), (0, 1, -0.1), (0, 0, 1.0)))

#: Grids of masks about the middle of the scan: cropped, finer, coarser, turned, mirrored, sheared, far too large.
GRIDS = [
    ((9, 8, 10), (0.11, 0.09, 0.1), OBLIQUE),
    ((40, 36, 50), (0.05, 0.06, 0.043), OBLIQUE @ np.diag((1, -1, 1))),
    ((12, 10, 11), (0.3, 0.2, 0.25), np.eye(3)),
    ((30, 28, 26), (0.1, 0.1, 0.12), OBLIQUE.T @ SHEAR),
    ((200, 180, 8), (0.04, 0.05, 0.06), OBLIQUE @ SHEAR),
]


@pytest.fixture(scope="module")
def scan() -> Volume:
    empty = grid((20, 18, 22), (0.11, 0.09, 0.1), OBLIQUE @ SHEAR, FAR)
    return Volume(noise(22, 18, 20), empty.affine, "scan.nrrd")


def nearest(mask: Volume, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """By a loop: whether each voxel's centre lies in a marked voxel, and whether it is clear of all borders."""
    inverse = np.linalg.inv(mask.affine)
    marked, clear = np.zeros(shape, bool), np.zeros(shape, bool)
    for z, y, x in itertools.product(*(range(n) for n in shape)):
        i, j, k = (inverse @ affine @ (x, y, z, 1.0))[:3]
        clear[z, y, x] = min(abs(value - np.floor(value) - 0.5) for value in (i, j, k)) > 1e-6
        at = tuple(int(np.floor(value + 0.5)) for value in (k, j, i))
        if all(0 <= a < n for a, n in zip(at, mask.voxels.shape, strict=True)):
            marked[z, y, x] = mask.voxels[at] > 0
    return marked, clear


@pytest.mark.parametrize(("size", "spacing", "direction"), GRIDS)
def test_a_mask_on_another_grid_marks_the_same_place(scan, size, spacing, direction, tmp_path):
    mask = grid(size, spacing, direction, FAR + np.array((0.2, -0.1, 0.3)))
    mask = Volume(np.random.default_rng(2).integers(-1, 3, mask.voxels.shape).astype(np.int16), mask.affine)
    expected, clear = nearest(mask, scan.affine, scan.voxels.shape)
    assert 0.02 < expected.mean() < 0.98 and clear.mean() > 0.99
    write_volume(mask, tmp_path / "mask.nrrd")
    for found in (mask_on(mask, scan), read_mask(tmp_path / "mask.nrrd", scan), mask_on(mask.to_sitk(), scan)):
        assert found.dtype == bool
        np.testing.assert_array_equal(found[clear], expected[clear])


def test_a_mask_of_ones_marks_all_of_its_box_and_a_constant_one_is_read(scan, tmp_path):
    write_volume(Volume(np.ones(scan.voxels.shape, np.uint8), scan.affine), tmp_path / "all.nrrd")
    assert mask_on(read_mask(tmp_path / "all.nrrd", scan), scan).all()
    cropped = Volume(
        np.ones((4, 5, 6), np.uint8), scan.affine @ np.array(((1.0, 0, 0, 3), (0, 1, 0, 7), (0, 0, 1, 2), (0, 0, 0, 1)))
    )
    write_volume(cropped, tmp_path / "box.mha")
    expected = np.zeros(scan.voxels.shape, bool)
    expected[2:6, 7:12, 3:9] = True
    np.testing.assert_array_equal(read_mask(tmp_path / "box.mha", scan), expected)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((22, 18, 20)), "its mask is empty; mark where to look"),
        (np.full((22, 18, 20), np.nan), "its mask is empty"),
        (np.ones((22, 18, 21)), r"its mask has \(22, 18, 21\) voxels"),
        (
            Volume(np.ones((22, 18, 20))),
            "scan.nrrd: its mask lies elsewhere, and holds no voxel of .*; draw it on",
        ),
        (Volume(np.ones((22, 18, 20)), np.diag((0.0, 1, 1, 1))), "is zero"),
        (Volume(np.zeros((5, 5, 5)), np.eye(4)), "its mask is empty"),
    ],
)
def test_masks_that_mark_nothing_are_told(scan, mask, words):
    with pytest.raises(ScanError, match=words) as caught:
        mask_on(mask, scan, "moving")
    assert caught.value.setting in (Setting("mask", "moving"), None)


# A segmentation of three segments as Slicer writes it: two share the first layer, the third overlaps them.
FIRST, SECOND, THIRD = np.zeros((3, 12, 10, 8), bool)
FIRST[2:5], SECOND[6:9], THIRD[3:8, 2:4] = True, True, True
FIELDS = {
    "Segmentation_ConversionParameters": "Smoothing|0.5|" + 400 * "word ",
    "Segmentation_MasterRepresentation": "Binary labelmap",
    "Segmentation_ReferenceImageExtentOffset": "5 6 7",
    "Segment0_ID": "Segment_1", "Segment0_Name": "Femur", "Segment0_Layer": "0", "Segment0_LabelValue": "1",
    "Segment0_Extent": "0 7 0 9 2 4",
    "Segment1_ID": "Segment_2", "Segment1_Name": "Tibia, left", "Segment1_Layer": "0", "Segment1_LabelValue": "4",
    "Segment2_ID": "Segment_3", "Segment2_Name": "Metal", "Segment2_Layer": "1", "Segment2_LabelValue": "1",
}  # fmt: skip


@pytest.fixture
def segmentation(scan, tmp_path):
    """On a part of the scan's grid, from (5, 6, 7) on."""
    affine = scan.affine @ np.array(((1.0, 0, 0, 5), (0, 1, 0, 6), (0, 0, 1, 7), (0, 0, 0, 1)))
    layers = np.stack((FIRST + np.uint8(4) * SECOND, THIRD.astype(np.uint8)), -1)
    write_nrrd(tmp_path / "s.seg.nrrd", layers, layers.shape, np.uint8, affine, FIELDS, compress=True)
    return tmp_path / "s.seg.nrrd"


@pytest.mark.parametrize(
    ("segment", "marked"),
    [
        (None, FIRST | SECOND | THIRD),
        ("Femur", FIRST),
        ("Tibia, left", SECOND),
        ("Segment_3", THIRD),
        ("4", SECOND),
        (4, SECOND),
    ],
)
def test_segments_of_slicer_are_read_by_layer_and_label(scan, segmentation, segment, marked):
    expected = np.zeros(scan.voxels.shape, bool)
    expected[7:19, 6:16, 5:13] = marked
    np.testing.assert_array_equal(read_mask(segmentation, scan, segment), expected)


def test_a_segmentation_in_memory_marks_where_any_layer_does(scan, segmentation):
    image = sitk.ReadImage(str(segmentation))
    assert image.GetNumberOfComponentsPerPixel() == 2
    np.testing.assert_array_equal(mask_on(image, scan), read_mask(segmentation, scan))


def test_segmentations_of_old_slicer_have_a_layer_for_each_segment(scan, tmp_path):
    layers = np.stack((FIRST, SECOND, THIRD), -1).astype(np.uint8)
    fields = {f"Segment{n}_{key}": f"{key}{n}" for n in range(3) for key in ("ID", "Name")}
    write_nrrd(tmp_path / "old.seg.nrrd", layers, layers.shape, np.uint8, scan.affine, fields)
    found = read_mask(tmp_path / "old.seg.nrrd", scan, "Name1")
    np.testing.assert_array_equal(found[:12, :10, :8], SECOND)
    assert not found[12:].any()


def test_segments_that_are_not_there_are_told(scan, segmentation, tmp_path):
    with pytest.raises(ScanError, match="no segment 'Fibula'; choose one of Femur, Tibia, left, Metal") as caught:
        read_mask(segmentation, scan, "Fibula", "fixed")
    assert caught.value.setting == Setting("segment", "fixed")
    with pytest.raises(ScanError, match=r"the label 1 is that of several segments; choose one of Femur, Metal$"):
        read_mask(segmentation, scan, "1", "fixed")
    damaged = dict(FIELDS, Segment2_Layer="7")
    write_nrrd(segmentation, FIRST[..., None], (*FIRST.shape, 1), np.uint8, scan.affine, damaged)
    with pytest.raises(ScanError, match="list of segments is damaged"):
        read_mask(segmentation, scan, "Metal")
    write_nrrd(segmentation, FIRST, FIRST.shape, np.uint8, scan.affine, dict(FIELDS, Segment0_Layer="one"))
    with pytest.raises(ScanError, match="list of segments is damaged"):
        read_mask(segmentation, scan)


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha"])
def test_labels_are_chosen_by_number(scan, ending, tmp_path):
    upright = Volume.from_geometry(scan.voxels, 0.1, OBLIQUE, FAR)
    labels = (noise(22, 18, 20, seed=4) % 4).astype(np.uint8)
    path = tmp_path / f"labels.{ending}"
    write_volume(Volume(labels, upright.affine), path)
    np.testing.assert_array_equal(read_mask(path, upright), labels > 0)
    np.testing.assert_array_equal(read_mask(path, upright, "2"), labels == 2)
    np.testing.assert_array_equal(read_mask(path, upright, 3), labels == 3)
    with pytest.raises(ScanError, match="labels without names"):
        read_mask(path, upright, "femur")
    with pytest.raises(ScanError, match="no voxel of the label 9"):
        read_mask(path, upright, "9")


def stack(folder, voxels):
    folder.mkdir()
    for z, plane in enumerate(voxels):
        sitk.WriteImage(sitk.GetImageFromArray(plane), str(folder / f"s{z:03}.png"))
    return folder


def test_a_mask_without_a_voxel_size_lies_on_the_scan_and_is_flipped_with_it(tmp_path):
    voxels, marked = noise(12, 14, 16, dtype=np.uint8), noise(12, 14, 16, dtype=np.uint8, seed=1) > 100
    scan = read_volume(stack(tmp_path / "scan", voxels), spacing=(0.01, 0.02, 0.03), flip="z")
    mask = stack(tmp_path / "mask", marked.astype(np.uint8))
    np.testing.assert_array_equal(scan.voxels, voxels[::-1])
    np.testing.assert_array_equal(read_mask(mask, scan), marked[::-1])
    with pytest.raises(
        ScanError, match="states no voxel size, and has 16 x 14 x 11 voxels where scan has 16 x 14 x 12"
    ):
        read_mask(stack(tmp_path / "cut", marked[1:].astype(np.uint8)), scan)


@pytest.mark.parametrize("flip", [None, "x", "y", "z"])
@pytest.mark.parametrize("spacing", [None, 0.03, (0.2, 0.1, 0.3)])
def test_a_cropped_mask_drawn_on_a_file_goes_with_its_voxels(scan, flip, spacing, tmp_path):
    """Whatever is done to the scan: its voxels are marked where they are equal in both files."""
    write_volume(scan, tmp_path / "scan.nrrd")
    marked = np.zeros(scan.voxels.shape, np.uint8)
    marked[3:9, 2:8, 4:15] = noise(6, 6, 11, seed=3) > 120
    crop = np.array(((1.0, 0, 0, 4), (0, 1, 0, 2), (0, 0, 1, 3), (0, 0, 0, 1)))
    write_volume(Volume(marked[3:9, 2:8, 4:15], scan.affine @ crop), tmp_path / "mask.nrrd")
    read = read_volume(tmp_path / "scan.nrrd", spacing=spacing, flip=flip)
    found = read_mask(tmp_path / "mask.nrrd", read)
    if flip is not None:
        found = np.flip(found, "zyx".index(flip))
    np.testing.assert_array_equal(found, marked > 0)


def test_a_calibrated_tiff_of_the_scans_size_is_taken_voxel_for_voxel(tmp_path):
    """It states a voxel size and no place: at the world's origin it marked what lies elsewhere in the scan."""
    scan = Volume(noise(22, 18, 20), np.diag((0.1, 0.1, 0.12, 1.0)) + np.pad(FAR[:, None], ((0, 1), (3, 0))), "scan")
    marked = np.random.default_rng(5).random(scan.voxels.shape) > 0.5

    def saved(name: str, mask: np.ndarray, pixel: float = 0.1) -> np.ndarray:
        calibrated = {"spacing": 0.12, "unit": "mm", "axes": "ZYX"}
        tifffile.imwrite(
            tmp_path / name, 255 * mask.astype(np.uint8), imagej=True, resolution=(1 / pixel,) * 2, metadata=calibrated
        )
        check_mask(tmp_path / name, scan)
        return read_mask(tmp_path / name, scan)

    assert np.array_equal(saved("mask.tif", marked), marked)
    # What is of another size, or has other voxels, lies where its file leaves it.
    for mask, pixel in ((marked[:-1], 0.1), (marked, 0.11)):
        with pytest.raises(ScanError, match="lies elsewhere"):
            saved("other.tif", mask, pixel)
    # The program's own files say where they lie.
    write_volume(Volume(marked.astype(np.uint8), scan.affine), tmp_path / "own.tif")
    assert np.array_equal(read_mask(tmp_path / "own.tif", scan), marked)
