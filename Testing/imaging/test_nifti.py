"""NIfTI: the grid is that of the sform as it stands, and that of the qform only where there is no sform."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.core.errors import FileError, PackageError, ScanError
from DNetRegistrationLib.imaging.volume import Volume, read_volume, write_volume
from grids import noise
from scipy.spatial.transform import Rotation

VOXELS = noise(12, 10, 11, dtype=np.int16)
LPS = np.diag((-1.0, -1, 1, 1))


def write(path: Path, sform=None, qform=None, unit: int = 2, sizes=(1.0, 1.0, 1.0)) -> Path:
    """Writes a header by the standard: matrices ``(4, 4)`` in RAS; the qform is a rotation, sizes and a shift."""
    quaternion, shift = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    if qform is not None:
        sizes = np.linalg.norm(qform[:3, :3], axis=0)
        quaternion = Rotation.from_matrix(qform[:3, :3] / sizes).as_quat(canonical=True)[:3]
        shift = qform[:3, 3]
    rows = np.zeros(12) if sform is None else sform[:3].ravel()
    dim = (3, *VOXELS.shape[::-1], 1, 1, 1, 1)
    codes = (int(qform is not None), int(sform is not None))
    header = bytearray(352)
    for form, place, *values in (
        ("i", 0, 348), ("8h", 40, *dim), ("2h", 70, 4, 16), ("8f", 76, 1, *sizes, 0, 0, 0, 0), ("f", 108, 352),
        ("B", 123, unit), ("2h", 252, *codes), ("6f", 256, *quaternion, *shift), ("12f", 280, *rows),
        ("4s", 344, b"n+1"),
    ):  # fmt: skip
        struct.pack_into("<" + form, header, place, *values)
    path.write_bytes((gzip.compress if path.suffix == ".gz" else bytes)(bytes(header) + VOXELS.tobytes()))
    return path


def oblique(scale=(0.02, 0.03, 0.05), angles=(20, -50, 100)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    matrix[:3, 3] = (5, -6, 7)
    return matrix


SHEARED = np.array([[0.02, 0, 0, 5], [0, 0.03, 0.004, -6], [0, 0, 0.05, 7], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("sform", "qform"),
    [
        (SHEARED, None),
        (SHEARED, oblique()),
        (SHEARED, np.diag((0.02, 0.03, 0.05, 1))),
        (oblique(), None),
        (oblique(), oblique(angles=(0, 0, 0))),
        (np.round(oblique((0.01,) * 3), 4), None),  # as a writer leaves it that rounds to 4 decimals
        (oblique() @ np.diag((-1, 1, 1, 1)), None),
        (None, oblique()),
        (None, oblique(angles=(180, 0, 0))),
    ],
)
def test_the_grid_is_the_one_that_the_header_states(tmp_path, sform, qform, suffix):
    volume = read_volume(write(tmp_path / f"scan{suffix}", sform, qform))
    assert np.array_equal(volume.voxels, VOXELS)
    expected = LPS @ (qform if sform is None else sform)
    np.testing.assert_allclose(volume.affine, expected, rtol=0, atol=3e-5 if sform is None else 1e-6)


@pytest.mark.parametrize(("unit", "millimetres"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
@pytest.mark.parametrize("sheared", [False, True])
def test_units_are_converted(tmp_path, unit, millimetres, sheared):
    stated = SHEARED if sheared else oblique()
    written = np.diag((1 / millimetres,) * 3 + (1.0,)) @ stated
    volume = read_volume(write(tmp_path / "scan.nii", written, unit=unit))
    np.testing.assert_allclose(volume.affine, LPS @ stated, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", [(-0.16, 0.16, 0.16), (0, 0.16, 0.16), (0.16, float("nan"), 0.16)])
def test_a_size_that_is_not_positive(tmp_path, sizes):
    with pytest.raises(ScanError, match="spacing is zero or negative"):
        read_volume(write(tmp_path / "scan.nii", sizes=sizes))


def test_a_given_spacing_keeps_the_axes(tmp_path):
    volume = read_volume(write(tmp_path / "scan.nii", SHEARED), spacing=0.5)
    np.testing.assert_allclose(volume.spacing, 0.5)
    np.testing.assert_allclose(
        volume.direction, (LPS @ SHEARED)[:3, :3] / np.linalg.norm(SHEARED[:3, :3], axis=0), atol=1e-6
    )


@pytest.mark.parametrize("order", "<>")
def test_version_2(tmp_path, order):
    """Its fields are those of version 1, at other places and longer; written here by the standard."""
    header = bytearray(544)
    for form, place, *values in (
        ("i", 0, 540), ("8s", 4, b"n+2\0\r\n\x1a\n"), ("2h", 12, 4, 16), ("8q", 16, 3, 11, 10, 12, 1, 1, 1, 1),
        ("8d", 104, 1, 1, 1, 1, 0, 0, 0, 0), ("q", 168, 544), ("i", 348, 1), ("12d", 400, *SHEARED[:3].ravel()),
        ("i", 500, 2),
    ):  # fmt: skip
        struct.pack_into(order + form, header, place, *values)
    (tmp_path / "scan.nii").write_bytes(bytes(header) + VOXELS.astype(order + "i2").tobytes())
    volume = read_volume(tmp_path / "scan.nii")
    assert np.array_equal(volume.voxels, VOXELS) and volume.voxels.dtype.isnative
    np.testing.assert_allclose(volume.affine, LPS @ SHEARED, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e300, float("nan"), float("inf"), -1e200])
@pytest.mark.parametrize("spacing", [None, 0.01])
def test_geometry_beyond_measure(tmp_path, value, spacing):
    image = nibabel.Nifti2Image(VOXELS.T, SHEARED)
    image.header["srow_y"][1], image.header["vox_offset"] = value, 544
    (tmp_path / "scan.nii").write_bytes(image.header.binaryblock + bytes(4) + VOXELS.tobytes())
    with pytest.raises(ScanError, match="spacing, direction or origin is not finite"):
        read_volume(tmp_path / "scan.nii", spacing=spacing)


@pytest.mark.parametrize("order", "<>")
def test_both_byte_orders(tmp_path, order):
    content = bytearray(write(tmp_path / "scan.nii", SHEARED).read_bytes()[:352])
    if order == ">":
        for kind, start, end in (
            ("i4", 0, 4), ("i2", 40, 56), ("i2", 70, 74), ("f4", 76, 112), ("i2", 252, 256), ("f4", 256, 328)
        ):  # fmt: skip
            content[start:end] = np.frombuffer(content[start:end], "<" + kind).astype(">" + kind).tobytes()
    (tmp_path / "scan.nii").write_bytes(bytes(content) + VOXELS.astype(order + "i2").tobytes())
    volume = read_volume(tmp_path / "scan.nii")
    assert np.array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.affine, LPS @ SHEARED, rtol=0, atol=1e-7)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slope_and_intercept(tmp_path, suffix):
    content = bytearray(write(tmp_path / "scan.nii", SHEARED).read_bytes())
    struct.pack_into("<2f", content, 112, 0.25, -1000)
    (tmp_path / f"scan{suffix}").write_bytes((gzip.compress if suffix == ".nii.gz" else bytes)(bytes(content)))
    volume = read_volume(tmp_path / f"scan{suffix}")
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.voxels, VOXELS * 0.25 - 1000)


@pytest.mark.parametrize(
    ("form", "place", "values"),
    [
        ("8h", 40, (3, 11, -10, 12, 1, 1, 1, 1)), ("8h", 40, (3, 0, 10, 12, 1, 1, 1, 1)),
        ("8h", 40, (0, 11, 10, 12, 1, 1, 1, 1)), ("8h", 40, (9, 11, 10, 12, 1, 1, 1, 1)), ("h", 70, (77,)),
        ("f", 108, (-400,)), ("f", 108, (float("nan"),)), ("f", 108, (1e30,)), ("2f", 112, (1, float("inf"))),
        ("8h", 40, (7,) + (32767,) * 7), ("8h", 40, (3, 32767, 32767, 32767, 1, 1, 1, 1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_headers_without_sense(tmp_path, form, place, values, suffix):
    content = bytearray(write(tmp_path / "scan.nii", SHEARED).read_bytes())
    struct.pack_into("<" + form, content, place, *values)
    (tmp_path / f"scan{suffix}").write_bytes((gzip.compress if suffix == ".nii.gz" else bytes)(bytes(content)))
    with pytest.raises(ScanError, match=r"cannot be read|ends early|dimensions"):
        read_volume(tmp_path / f"scan{suffix}")


def test_the_checksum_of_a_stream_that_gives_too_much(tmp_path):
    """Damage made a stream longer, and what the header speaks of was read before its end."""
    content = write(tmp_path / "scan.nii", SHEARED).read_bytes()
    longer = bytearray(gzip.compress(content + bytes(9000)))
    (tmp_path / "scan.nii.gz").write_bytes(longer)
    assert np.array_equal(read_volume(tmp_path / "scan.nii.gz").voxels, VOXELS)
    longer[-5] ^= 1
    (tmp_path / "scan.nii.gz").write_bytes(longer)
    with pytest.raises(ScanError, match=r"damaged|ends early"):
        read_volume(tmp_path / "scan.nii.gz")
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(content + bytes(9_000_000)))
    with pytest.raises(ScanError, match="more voxels than its header says"):
        read_volume(tmp_path / "scan.nii.gz")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(PackageError, match=r'NIfTI needs nibabel; install it: pip install "nibabel"'):
        read_volume(write(tmp_path / "scan.nii", SHEARED))


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_sheared_grid_is_written_where_the_format_holds_it(tmp_path, suffix):
    write_volume(Volume(VOXELS, SHEARED), tmp_path / f"scan{suffix}")
    np.testing.assert_allclose(read_volume(tmp_path / f"scan{suffix}").affine, SHEARED, rtol=0, atol=1e-9)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_sheared_grid_is_not_written_to_nifti(tmp_path, suffix):
    with pytest.raises(FileError, match=r"scan\.nii.*cannot hold a sheared grid.*; .*\.nrrd"):
        write_volume(Volume(VOXELS, SHEARED), tmp_path / f"scan{suffix}")
    assert not list(tmp_path.iterdir())


def test_rounding_is_no_shear(tmp_path):
    rounded = np.round(oblique(), 7)
    write_volume(Volume(VOXELS, rounded), tmp_path / "scan.nii")
    image = sitk.ReadImage(str(tmp_path / "scan.nii"))
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint((10, 9, 11)), (rounded @ (10, 9, 11, 1))[:3], atol=1e-4
    )
