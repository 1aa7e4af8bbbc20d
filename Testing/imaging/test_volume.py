"""A scan in memory: where its voxels lie, how it is checked, and how it is written."""

from __future__ import annotations

import doctest
import gc
import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from command import run
from DNetRegistrationLib.core.errors import FileError, OptionError, ScanError, Setting
from DNetRegistrationLib.imaging import volume as volume_module
from DNetRegistrationLib.imaging.volume import (
    Volume,
    check_pair_spacing,
    check_volume,
    read_volume,
    spacing_doubt,
    write_volume,
)
from grids import noise
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)
FORMATS = (".nrrd", ".nii", ".nii.gz", ".mha")


@st.composite
def geometries(draw, smallest: int = 1, finest: float = 0.001):
    """Grids as scanners and exporters make them: any size, spacing, direction, handedness and origin."""
    turn = Rotation.from_euler("xyz", [draw(st.sampled_from([0, 90, 180, -90]) | st.floats(-180, 180)) for _ in "xyz"],
                               degrees=True).as_matrix()  # fmt: skip
    # SimpleITK's inverse of a direction with 1e-313 in it is NaN.
    turn[np.abs(turn) < 1e-300] = 0
    return {
        "shape": tuple(draw(st.integers(smallest, smallest + 5)) for _ in "zyx"),
        "spacing": [draw(st.floats(finest, 5)) for _ in "xyz"],
        "direction": turn * np.where([draw(st.booleans()) for _ in "xyz"], -1.0, 1.0),
        "origin": [draw(st.floats(-1e4, 1e4)) for _ in "xyz"],
        "dtype": draw(st.sampled_from(DTYPES)),
    }


def build(geometry, name="scan") -> Volume:
    return Volume.from_geometry(
        noise(*geometry["shape"], dtype=geometry["dtype"]),
        geometry["spacing"],
        geometry["direction"],
        geometry["origin"],
        name,
    )


def build_sitk(geometry) -> sitk.Image:
    """The same scan made by SimpleITK alone."""
    image = sitk.GetImageFromArray(noise(*geometry["shape"], dtype=geometry["dtype"]))
    image.SetSpacing(geometry["spacing"])
    image.SetDirection(np.ravel(geometry["direction"]).tolist())
    image.SetOrigin(geometry["origin"])
    return image


# --- geometry -------------------------------------------------------------------------------------------------------


@given(geometries(), st.lists(st.floats(-600, 600), min_size=3, max_size=3))
def test_world_and_index_agree_with_sitk(geometry, index):
    image, volume = build_sitk(geometry), build(geometry)
    point = image.TransformContinuousIndexToPhysicalPoint(index)
    np.testing.assert_allclose(volume.to_world(index), point, atol=1e-6, rtol=0)
    np.testing.assert_allclose(volume.to_world(volume.to_index(point)), point, atol=1e-6, rtol=0)
    # An index is a position over a spacing as small as a micrometre: compare in mm, as above.
    other = image.TransformPhysicalPointToContinuousIndex(point)
    np.testing.assert_allclose((volume.to_index(point) - other) * volume.spacing, 0, atol=1e-6)
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    np.testing.assert_allclose(volume.center, middle, atol=1e-6, rtol=0)


@given(geometries())
def test_to_and_from_sitk(geometry):
    expected = build_sitk(geometry)
    for volume in (build(geometry), Volume.from_sitk(expected)):
        image = volume.to_sitk()
        assert image.GetPixelID() == expected.GetPixelID() and image.GetSize() == expected.GetSize()
        np.testing.assert_allclose(image.GetSpacing(), expected.GetSpacing(), rtol=1e-12)
        np.testing.assert_allclose(image.GetDirection(), expected.GetDirection(), atol=1e-12)
        np.testing.assert_allclose(image.GetOrigin(), expected.GetOrigin(), atol=1e-12)
        assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))


def test_many_points_at_once():
    volume = Volume.from_geometry(
        noise(3, 4, 5), (0.1, 0.2, 0.3), Rotation.from_euler("x", 0.4).as_matrix(), (7, -8, 9)
    )
    indices = np.random.default_rng(1).normal(size=(2, 6, 3))
    points = volume.to_world(indices)
    assert points.shape == (2, 6, 3)
    for where in itertools.product(range(2), range(6)):
        np.testing.assert_allclose(points[where], volume.affine[:3, :3] @ indices[where] + volume.affine[:3, 3])
    np.testing.assert_allclose(volume.to_index(points), indices, atol=1e-12)
    assert volume.to_index(np.zeros((0, 3))).shape == (0, 3)


def test_a_hand_worked_left_handed_grid():
    # x runs to the left at 0.5 mm, y upward along world z at 2 mm, z along world y at 3 mm.
    direction = [[-1, 0, 0], [0, 0, 1], [0, 1, 0]]
    volume = Volume.from_geometry(noise(4, 3, 2), (0.5, 2, 3), direction, (10, 20, 30))
    np.testing.assert_allclose(volume.to_world((1, 1, 1)), (9.5, 23, 32))
    assert volume.size.tolist() == [2, 3, 4] and volume.extent.tolist() == [1, 6, 12]
    np.testing.assert_allclose(volume.spacing, (0.5, 2, 3))
    np.testing.assert_allclose(volume.direction, direction)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_flipped_scan_has_its_voxels_in_reverse_order_on_the_same_grid(axis, tmp_path):
    volume = Volume.from_geometry(noise(9, 10, 11), (0.1, 0.2, 0.3), Rotation.from_euler("x", 0.4).as_matrix())
    flipped = volume.flipped(axis)
    last = volume.size["xyz".index(axis)] - 1
    for index in itertools.product(range(11), range(10), range(9)):
        other = list(index)
        other["xyz".index(axis)] = last - other["xyz".index(axis)]
        assert flipped.voxels[index[::-1]] == volume.voxels[tuple(other[::-1])]
    assert np.array_equal(flipped.affine, volume.affine) and flipped.flipped_axes == axis
    assert np.shares_memory(flipped.voxels, volume.voxels)
    assert np.array_equal(sitk.GetArrayFromImage(flipped.to_sitk()), flipped.voxels)
    write_volume(flipped, tmp_path / "flipped.nrrd")
    write_volume(volume, tmp_path / "scan.nrrd")
    for read in (read_volume(tmp_path / "flipped.nrrd"), read_volume(tmp_path / "scan.nrrd", flip=axis)):
        assert np.array_equal(read.voxels, flipped.voxels)
        np.testing.assert_allclose(read.affine, volume.affine, atol=1e-12)


@pytest.mark.parametrize("axis", ["", "w", "xy", 2])
def test_a_flip_along_no_axis_is_refused(axis, tmp_path):
    volume = Volume(noise(9, 10, 11), name="scan.nrrd")
    with pytest.raises(OptionError, match="cannot be flipped") as caught:
        volume.flipped(axis)
    assert "x, y or z" in caught.value.remedy
    with pytest.raises(OptionError, match="cannot be flipped") as caught:
        read_volume(tmp_path / "no scan is read before", flip=axis, role="moving")
    assert caught.value.setting == Setting("flip", "moving")


@given(geometries(smallest=8, finest=0.02), st.sampled_from(FORMATS))
def test_files_keep_world_positions_and_values(geometry, suffix):
    volume = build(geometry)
    assume(spacing_doubt(volume) is None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scan{suffix}"
        write_volume(volume, path)
        read = read_volume(path)
    # NIfTI keeps its affine in single precision.
    corners = np.array(list(itertools.product(*((0, n - 1) for n in volume.size))))
    single = 4 * np.abs(volume.origin).max() * np.finfo(np.float32).eps + 1e-5
    np.testing.assert_allclose(
        read.to_world(corners), volume.to_world(corners), atol=single if "nii" in suffix else 1e-6, rtol=0
    )
    assert read.voxels.dtype == volume.voxels.dtype and np.array_equal(read.voxels, volume.voxels)


def test_docstring_examples():
    assert doctest.testmod(volume_module).failed == 0
    assert doctest.testmod(volume_module).attempted >= 4


def test_the_affine_is_a_copy_that_cannot_be_changed():
    affine = np.eye(4)
    volume = Volume(noise(2, 2, 2), affine)
    affine[0, 3] = 5
    assert volume.origin[0] == 0
    with pytest.raises(ValueError):
        volume.affine[0, 3] = 5


@pytest.mark.parametrize("kind", [bool, np.float16, ">i2"])
def test_numbers_that_itk_does_not_have(kind):
    voxels = np.arange(8).reshape(2, 2, 2).astype(kind)
    image = Volume(voxels).to_sitk()
    assert np.array_equal(sitk.GetArrayFromImage(image).astype(float), voxels.astype(float))


# --- memory ---------------------------------------------------------------------------------------------------------


def test_a_label_map_is_refused():
    """NumPy's view of one ended the process."""
    labels = sitk.Cast(sitk.Image([8, 8, 8], sitk.sitkUInt8) + 1, sitk.sitkLabelUInt8)
    with pytest.raises(ScanError, match="holds label of 8-bit unsigned integer voxels"):
        Volume.from_sitk(labels)


def test_voxels_outlive_their_image():
    image = sitk.Image([64, 64, 64], sitk.sitkInt16) + 7
    voxels = Volume.from_sitk(image).voxels
    del image
    gc.collect()
    filler = [np.full((64, 64, 64), 3, np.int16) for _ in range(8)]  # takes the memory if it was let go
    assert (voxels == 7).all() and len(filler) == 8


def test_voxels_share_memory_and_do_not_follow_later_changes():
    image = sitk.Image([16, 16, 16], sitk.sitkInt16) + 7
    address = sitk.GetArrayViewFromImage(image).ctypes.data
    volume = Volume.from_sitk(image)
    assert volume.voxels.ctypes.data == address and not volume.voxels.flags.writeable
    image[0, 0, 0] = 1
    image *= 2
    del image
    gc.collect()
    assert (volume.voxels == 7).all()


def test_reading_does_not_copy_the_scan(tmp_path):
    """In a process of its own, which has a peak memory of its own."""
    resource = pytest.importorskip("resource", reason="peak memory is not known here")
    assert resource
    path = tmp_path / "scan.nrrd"
    voxels = noise(256, 256, 256, dtype=np.int16)  # 32 MiB
    write_volume(Volume.from_geometry(voxels, 0.01), path)
    program = f"""
import resource, SimpleITK
from DNetRegistrationLib.imaging.volume import check_volume, read_volume
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if {sys.platform == "linux"} else 1024**2)
SimpleITK.Image([4, 4, 4], SimpleITK.sitkInt16)
before = peak()
scan = read_volume({str(path)!r})
check_volume(scan)
print(peak() - before)
"""
    done = run(code=program, check=True)
    assert float(done.stdout) < 1.5 * voxels.nbytes / 2**20


# --- checks -----------------------------------------------------------------------------------------------------------


def test_a_volume_in_memory_is_checked_too():
    good = noise(8, 9, 10)
    singular, infinite, projective = np.eye(4), np.eye(4), np.eye(4)
    singular[0, 0], infinite[0, 3], projective[3, 0] = 0, np.inf, 0.1
    flat = np.eye(4)
    flat[:3, 1] = flat[:3, 0]
    for volume, problem in (
        (Volume(good, name="a", affine=singular), "a: the spacing along x is zero"),
        (Volume(good, name="a", affine=infinite), "a: its spacing, direction or origin is not finite"),
        (Volume(good, name="a", affine=projective), "a: the last row"),
        (Volume(good, name="a", affine=flat), "a: the directions of its axes are singular"),
        (Volume(good[0], name="a"), "a: has 2 dimensions"),
        (Volume(good[..., None], name="a"), "a: has 4 dimensions"),
        (Volume(good + 1j, name="a"), "a: holds complex128 voxels"),
        (Volume(good.astype(str), name="a"), "a: holds <U"),
        (Volume(np.zeros((0, 9, 9)), name="a"), "a: has only 0 voxels along z"),
        (Volume(np.zeros((9, 9, 9), bool), name="a"), "a: is constant"),
        (Volume.from_geometry(good, (0.01, 0.01, 1), name="a"), "a: its voxels are 0.01 x 0.01 mm but 1 mm"),
    ):
        with pytest.raises(ScanError) as caught:
            check_volume(volume)
        assert str(caught.value).startswith(problem)
    with pytest.raises(ScanError, match="4x4"):
        Volume(good, np.eye(3))
    with pytest.raises(OptionError, match="positive"):
        Volume.from_geometry(good, (1, -1, 1))


@given(geometries(smallest=8))
def test_good_volumes_pass_the_checks_unchanged(geometry):
    volume = build(geometry)
    assume(geometry["spacing"][2] != 1)
    checked = check_volume(volume)
    assert checked.voxels is volume.voxels and np.array_equal(checked.affine, volume.affine)


def test_what_is_doubted_and_what_is_not():
    def doubt(shape=(300, 8, 8), **geometry):
        return spacing_doubt(Volume.from_geometry(np.zeros(shape, np.uint8), **geometry))

    assert doubt()
    assert doubt(direction=np.diag([-1, -1, 1])) and doubt(shape=(64, 64, 64))
    assert not doubt(origin=(165, 135, 0)) and not doubt(spacing=0.99) and not doubt(spacing=(1, 1, 1.5))
    assert not doubt(direction=Rotation.from_euler("x", 0.1).as_matrix())
    assert doubt(spacing=(0.01, 0.01, 1)) and not doubt(spacing=(0.3, 0.3, 1))
    assert not doubt(spacing=(0.01, 0.01, 0.9))  # thick slices, but measured
    assert "another unit" in doubt(spacing=10) and "another unit" in doubt(spacing=1e-5)
    assert not doubt(spacing=0.01) and not doubt(spacing=0.0007)


def pair(fixed_spacing, moving_spacing, fixed_shape=(64, 64, 64), moving_shape=(64, 64, 64)):
    return (
        Volume.from_geometry(np.zeros(fixed_shape, np.uint8), fixed_spacing, name="a.nrrd"),
        Volume.from_geometry(np.zeros(moving_shape, np.uint8), moving_spacing, name="b.nrrd"),
    )


@pytest.mark.parametrize(
    "scans, suspect",
    [
        (pair(0.08, 1), "moving"),
        (pair(1, 0.08), "fixed"),
        (pair(0.01, 0.1), None),
        (pair((0.01, 0.01, 1), 0.01), "fixed"),
        (pair(0.01, 1, (512, 64, 64), (64, 64, 64)), "moving"),
    ],
)
def test_scans_too_different_for_one_bone(scans, suspect):
    with pytest.raises(ScanError) as caught:
        check_pair_spacing(*scans)
    assert caught.value.problem.startswith("a.nrrd and b.nrrd: ") and "\n" not in str(caught.value)
    assert (
        caught.value.remedy == f"give the true voxel size of the {f'{suspect} scan' if suspect else 'wrong one'} in mm"
    )
    assert caught.value.setting == Setting("spacing", suspect)


@pytest.mark.parametrize(
    "scans",
    [
        pair(0.08, 0.08),
        pair(1, 1),
        pair(0.01, 0.08, (512, 64, 64)),  # one bone, two scanners
        pair(0.08, 0.08, (64, 64, 64), (20, 16, 16)),  # a piece of it
        pair(1, 0.25, (268, 100, 100), (240, 200, 200)),
    ],
)
def test_scans_of_one_bone(scans):
    check_pair_spacing(*scans)


@pytest.mark.parametrize("given", (False, True))
def test_micrometres_of_one_scan_are_told_also_where_both_sizes_were_given(given):
    for spacings, role in (((10, 0.01), "fixed"), ((0.05, 50), "moving")):
        with pytest.raises(ScanError, match="micrometres") as caught:
            check_pair_spacing(*(replace(scan, spacing_given=given) for scan in pair(*spacings)))
        assert f"voxels of the {role} scan" in caught.value.problem
        assert caught.value.setting == Setting("spacing", role)


def test_a_spacing_that_was_given_is_believed():
    fixed, moving = pair(0.01, 0.1)
    for known, doubted in ((fixed, "moving"), (moving, "fixed")):
        scans = [replace(scan, spacing_given=scan is known) for scan in (fixed, moving)]
        with pytest.raises(ScanError) as caught:
            check_pair_spacing(*scans)
        assert caught.value.setting == Setting("spacing", doubted)
    check_pair_spacing(replace(fixed, spacing_given=True), replace(moving, spacing_given=True))


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
def test_written_files_are_whole_and_alone(tmp_path, suffix, compress):
    volume = Volume.from_geometry(noise(9, 10, 11), (0.01, 0.02, 0.03))
    write_volume(volume, tmp_path / f"scan{suffix}", compress)
    assert [path.name for path in tmp_path.iterdir()] == [f"scan{suffix}"]
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"scan{suffix}"))), volume.voxels)


@pytest.mark.parametrize("name", ["scan.png", "scan", "scan.xyz", "scan.mhd"])
def test_unknown_kind_of_file(tmp_path, name):
    with pytest.raises(FileError, match=r"cannot write this kind of file; .*\.nrrd"):
        write_volume(Volume(noise(8, 8, 8)), tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_folder_to_write_to_is_missing(tmp_path):
    with pytest.raises(FileError, match=r"scan\.nrrd: .*folder does not exist"):
        write_volume(Volume(noise(8, 8, 8)), tmp_path / "none" / "scan.nrrd")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
def test_disk_full_while_writing(tmp_path, suffix, compress):
    """In a process of its own, whose files may not grow beyond 1.5 MB; the scan has 3 MB."""
    pytest.importorskip("resource", reason="limits on file size are not known here")
    path = tmp_path / f"scan{suffix}"
    path.write_text("old")
    program = f"""
import resource, signal
import numpy as np
from DNetRegistrationLib import DNetError, Volume, write_volume
scan = Volume(np.random.default_rng(0).integers(0, 65535, (128, 128, 96)).astype(np.uint16))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
try:
    write_volume(scan, {str(path)!r}, {compress})
except DNetError as error:
    print(error)
"""
    done = run(code=program, check=True)
    assert f"{path.name}: cannot be written (" in done.stdout and done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_text() == "old"


def test_interrupted_while_writing(tmp_path, monkeypatch):
    def interrupted(image, path, compress):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(sitk, "WriteImage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_volume(Volume(noise(8, 8, 8)), tmp_path / "scan.nrrd")
    assert not any(tmp_path.iterdir())


def test_points_above_a_threshold_lie_where_the_voxels_do_and_are_thinned_evenly():
    voxels = np.arange(24.0).reshape(2, 3, 4)
    voxels[0, 0, 0] = np.nan
    affine = np.array([[0, -0.1, 0, 5], [0.2, 0, 0, 6], [0, 0, -0.3, 7], [0, 0, 0, 1.0]])
    scan = Volume(voxels, affine)
    # Voxel 17 is (z, y, x) = (1, 1, 1), and 23 the last, (1, 2, 3).
    np.testing.assert_allclose(scan.points_above(16, voxels != 20)[[0, -1]], [(4.9, 6.2, 6.7), (4.8, 6.6, 6.7)])
    assert len(scan.points_above(16, voxels != 20)) == 6 and len(scan.points_above(-1)) == 23
    np.testing.assert_allclose(scan.points_above(0, most=4), scan.points_above(0)[::5])
