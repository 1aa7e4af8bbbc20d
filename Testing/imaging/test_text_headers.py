"""Headers of NRRD and MetaImage: units, and spacings that ITK would mirror."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.core.errors import ScanError, Setting
from DNetRegistrationLib.imaging.volume import read_volume
from grids import noise

VOXELS = noise(8, 9, 10, dtype=np.uint8)
SPACE = (
    "space: left-posterior-superior\nspace directions: (12.5,0,0) (0,12.5,0) (0,0,25)\nspace origin: (100,-200,300)\n"
)


def nrrd(path: Path, fields: str) -> Path:
    start = f"NRRD0005\n# made by hand\ntype: uint8\ndimension: 3\nsizes: 10 9 8\nencoding: raw\n{fields}\n"
    path.write_bytes(start.encode() + VOXELS.tobytes())
    return path


def metaimage(path: Path, fields: str, spacing: str = "ElementSpacing = 12.5 12.5 25") -> Path:
    start = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nOffset = 100 -200 300\n{spacing}\nDimSize = 10 9 8\n"
    path.write_bytes(f"{start}{fields}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n".encode() + VOXELS.tobytes())
    return path


def grid(scale: float) -> np.ndarray:
    affine = np.diag((12.5 * scale, 12.5 * scale, 25 * scale, 1))
    affine[:3, 3] = np.multiply((100, -200, 300), scale)
    return affine


UNITS = [("um", 1e-3), ("µm", 1e-3), ("micrometers", 1e-3), ("microns", 1e-3), ("mm", 1), ("cm", 10), ("", 1)]


@pytest.mark.parametrize(("unit", "scale"), UNITS)
def test_declared_units_of_nrrd_are_converted(tmp_path, unit, scale):
    path = nrrd(tmp_path / "scan.nrrd", f'{SPACE}space units: "{unit}" "{unit}" "{unit}"\n')
    np.testing.assert_allclose(read_volume(path).affine, grid(scale), rtol=1e-12)


@pytest.mark.parametrize(("unit", "scale"), UNITS)
def test_declared_units_of_axes_without_a_space(tmp_path, unit, scale):
    path = nrrd(tmp_path / "scan.nrrd", f'spacings: 12.5 12.5 25\nunits: "{unit}" "{unit}" "{unit}"\n')
    np.testing.assert_allclose(read_volume(path).spacing, np.multiply((12.5, 12.5, 25), scale), rtol=1e-12)


@pytest.mark.parametrize(("unit", "scale"), [("um", 1e-3), ("mm", 1), ("cm", 10), ("?", 1)])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_declared_units_of_metaimage_are_converted(tmp_path, unit, scale, suffix):
    path = metaimage(tmp_path / f"scan{suffix}", f"DistanceUnits = {unit}\n")
    np.testing.assert_allclose(read_volume(path).affine, grid(scale), rtol=1e-12)


def test_a_unit_that_is_not_known(tmp_path):
    path = nrrd(tmp_path / "scan.nrrd", f'{SPACE}space units: "px" "px" "px"\n')
    with pytest.raises(ScanError, match=r"the unit of its voxel size is not known \(px\)") as caught:
        read_volume(path, role="fixed")
    assert caught.value.setting == Setting("spacing", "fixed")
    np.testing.assert_allclose(read_volume(path, spacing=0.01).spacing, 0.01)


@pytest.mark.parametrize(
    "spacing",
    [
        "ElementSpacing = -12.5 12.5 25", "ElementSize = 12.5 12.5 -25", "ElementSpacing : 12.5 -12.5 25",
        "  ElementSpacing = -12.5 12.5 25", "ElementSpacing=0 12.5 25",
        "Comment = " + "x" * 6000 + "\nElementSpacing = -1 1 1",
    ],
)  # fmt: skip
def test_a_negative_spacing_in_all_spellings(tmp_path, spacing):
    with pytest.raises(ScanError, match="spacing is zero or negative"):
        read_volume(metaimage(tmp_path / "scan.mha", "", spacing))


@pytest.mark.parametrize("line", ["spacings: 1 -1 1", "SPACINGS: 1 -1 1", "# " + "x" * 6000 + "\nspacings: 0 1 1"])
def test_a_negative_spacing_of_nrrd_in_all_spellings(tmp_path, line):
    with pytest.raises(ScanError, match="spacing is zero or negative"):
        read_volume(nrrd(tmp_path / "scan.nrrd", line + "\n"))


def test_the_voxels_of_a_header_with_a_unit_are_read(tmp_path):
    path = nrrd(tmp_path / "scan.nrrd", f'{SPACE}space units: "um" "um" "um"\n')
    assert np.array_equal(read_volume(path).voxels, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
