"""TIFF for ImageJ: the voxel size that other programs see, and the geometry that comes back."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from DNetRegistrationLib import DNetError, Volume, read_volume, write_volume

#: Oblique, sheared, left-handed, anisotropic and off the origin.
SKEWED = np.array([[0.03, 0.005, 0.002, 40], [0.01, -0.02, 0.0, -30], [0.0, 0.004, 0.05, 70], [0, 0, 0, 1]])


def noise(kind):
    values = np.random.default_rng(0).normal(size=(9, 10, 11)) * 100 + 100
    return np.clip(values, 0, 255).astype(kind) if kind == "uint8" else values.astype(kind)


@pytest.mark.parametrize("kind", ("uint8", "uint16", "float32", "int16", "int32"))
def test_what_is_written_comes_back(tmp_path, kind):
    scan = Volume(np.abs(noise(kind)) if kind == "uint16" else noise(kind), SKEWED)
    write_volume(scan, tmp_path / "a.tif")
    back = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.voxels, scan.voxels)
    assert back.voxels.dtype.name == (kind if kind in ("uint8", "uint16") else "float32")
    np.testing.assert_array_equal(back.affine, SKEWED)


def test_imagej_sees_the_voxel_size(tmp_path):
    write_volume(Volume(noise("uint8"), np.diag((0.01, 0.02, 0.03, 1))), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej and len(file.pages) == 9
        told, page = file.imagej_metadata, file.pages[0]
        assert told["unit"] == "mm" and told["spacing"] == pytest.approx(0.03) and told["slices"] == 9
        x, y = (page.tags[number].value for number in (282, 283))  # pixels per mm, as fractions
        assert x[0] / x[1] == pytest.approx(100) and y[0] / y[1] == pytest.approx(50)


@pytest.mark.parametrize("change", ("cropped", "scaled", "damaged"))
def test_what_imagej_changed_lies_where_the_tags_say(tmp_path, change):
    """It keeps the text when it crops or scales."""
    write_volume(Volume(noise("uint8"), SKEWED), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        info = file.imagej_metadata["Info"]
    voxels, spacing = noise("uint8"), np.linalg.norm(SKEWED[:3, :3], axis=0)
    if change == "cropped":
        voxels = voxels[:, :8]
    elif change == "scaled":
        spacing = spacing * 2
    else:
        info = info.replace("[", "(", 2)
    about = {"axes": "ZYX", "spacing": spacing[2], "unit": "mm", "Info": info}
    tifffile.imwrite(tmp_path / "b.tif", voxels, imagej=True, resolution=tuple(1 / spacing[:2]), metadata=about)
    np.testing.assert_allclose(read_volume(tmp_path / "b.tif").affine, np.diag((*spacing, 1)), rtol=1e-5)


def test_grey_values_that_would_be_rounded_are_refused(tmp_path):
    voxels = noise("int32")
    voxels[0, 0, 0] = (1 << 24) + 1
    with pytest.raises(DNetError, match="cannot hold its grey values exactly"):
        write_volume(Volume(voxels), tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())
