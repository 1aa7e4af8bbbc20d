"""Folders of slices: which number in their names counts them, and what SkyScan's log says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.imaging.volume import read_volume
from grids import noise

VOXELS = noise(12, 10, 11, dtype=np.uint8)


def write(folder: Path, names, voxels=VOXELS) -> Path:
    folder.mkdir(exist_ok=True)
    for name, pixels in zip(names, voxels, strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(folder / name))
    return folder


# --- numbers ----------------------------------------------------------------------------------------------------------

NAMES = ["scan_{:03d}.tif", "scan_{:03d}_80um.tif", "m3_{:d}_2024.png", "{:04d}.bmp", "7T_{:02d}_rec_v2_10um.tif"]


@pytest.mark.parametrize("name", NAMES)
def test_the_number_that_varies_counts(tmp_path, name):
    folder = write(tmp_path / "scan", [name.format(k) for k in range(3, 15)])
    assert np.array_equal(read_volume(folder, spacing=0.01).voxels, VOXELS)
    (folder / name.format(8)).unlink()
    with pytest.raises(ScanError, match=f"jump by 2 after {name.format(7)}, elsewhere by 1"):
        read_volume(folder, spacing=0.01)


def test_a_number_and_a_time_that_runs_along(tmp_path):
    names = [f"rec_{k:03d}_{100 + 7 * k + k % 3}.tif" for k in range(12)]
    folder = write(tmp_path / "scan", names)
    assert np.array_equal(read_volume(folder, spacing=0.01).voxels, VOXELS)
    (folder / names[5]).unlink()
    with pytest.raises(ScanError, match="jump"):
        read_volume(folder, spacing=0.01)


def test_two_stacks_that_a_number_tells_apart(tmp_path):
    other = noise(12, 10, 11, dtype=np.uint8, seed=3)
    folder = write(tmp_path / "scan", [f"m1_{k:03d}_80um.tif" for k in range(12)])
    write(folder, [f"m2_{k:03d}_80um.tif" for k in range(12)], other)
    with pytest.raises(ScanError, match=r"1 is m1_#_80um\.tif \(slices, 12 files\), 2 is m2_#_80um\.tif"):
        read_volume(folder, spacing=0.01)
    assert np.array_equal(read_volume(folder, spacing=0.01, series="m2_#_80um.tif").voxels, other)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_slices_of_another_kind(tmp_path, suffix):
    """A first slice of 8 bits is no reason to cut the others to 8 bits."""
    deep = VOXELS.astype(np.uint16) * 200 if suffix == "png" else VOXELS
    folder = write(tmp_path / "scan", [f"{k}.{suffix}" for k in range(12)], [VOXELS[0], *deep[1:]])
    if suffix == "bmp":  # the same grey values, as colours
        sitk.WriteImage(sitk.GetImageFromArray(np.repeat(VOXELS[3][..., None], 3, -1), True), str(folder / "3.bmp"))
    volume = read_volume(folder, spacing=0.01)
    assert volume.voxels.dtype == deep.dtype
    assert np.array_equal(volume.voxels, [VOXELS[0], *deep[1:]])


# --- SkyScan ----------------------------------------------------------------------------------------------------------


def log(folder: Path, name: str = "mouse_rec", **fields) -> None:
    values = {
        "First Section": 3, "Last Section": 14, "Section to Section Step": 1, "Pixel Size (um)": 12.5,
        "Result Image Width (pixels)": 11, "Result Image Height (pixels)": 10, **fields,
    }  # fmt: skip
    lines = [f"{key}={value}" for key, value in values.items() if value is not None]
    text = ["[System]", "Scanner=SkyScan1172", "[Acquisition]", "Image Pixel Size (um)=99", "[Reconstruction]", *lines]
    (folder / f"{name}.log").write_text("\n".join([*text, "[File name convention]", "Filename Index Length=4"]))


def skyscan(folder: Path, step: int = 1) -> Path:
    return write(folder, [f"mouse_rec{3 + step * k:04d}.bmp" for k in range(12)])


def test_the_log_gives_the_voxel_size(tmp_path):
    folder = skyscan(tmp_path / "scan")
    log(folder)
    (folder / "mouse.log").write_text("[Acquisition]\nImage Pixel Size (um)=99\n")  # of the projections
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.affine, np.diag((0.0125, 0.0125, 0.0125, 1)))
    np.testing.assert_allclose(read_volume(folder, spacing=0.5).spacing, 0.5)


def test_what_does_not_belong_to_the_reconstruction_is_left_out(tmp_path):
    folder = skyscan(tmp_path / "scan")
    log(folder)
    others = ["mouse_rec0001.bmp", "mouse_rec0099.bmp", "mouse_rec_spr.bmp", "roi0001.bmp", "roi0002.bmp", "cor31.bmp"]
    write(folder, others, VOXELS[:6])
    assert np.array_equal(read_volume(folder).voxels, VOXELS)


@pytest.mark.parametrize(("step", "told"), [(2, 1), (2, 2), (1, 2)])
def test_every_second_section(tmp_path, step, told):
    folder = skyscan(tmp_path / "scan", step)
    log(folder, **{"Section to Section Step": told, "Last Section": 3 + 11 * step})
    np.testing.assert_allclose(read_volume(folder).spacing, (0.0125, 0.0125, 0.025))


@pytest.mark.parametrize(
    "fields",
    [
        {"Result Image Width (pixels)": 22, "Result Image Height (pixels)": 20},  # made smaller afterwards
        {"Pixel Size (um)": None},
        {"Pixel Size (um)": "unknown"},
        {"Pixel Size (um)": -1},
    ],
)
def test_a_log_that_does_not_fit_is_not_believed(tmp_path, fields):
    folder = skyscan(tmp_path / "scan")
    log(folder, **fields)
    with pytest.raises(ScanError, match="does not store the voxel size"):
        read_volume(folder)


def test_a_log_of_another_scan_is_not_believed(tmp_path):
    folder = skyscan(tmp_path / "scan")
    log(folder, "rat_rec")
    with pytest.raises(ScanError, match="does not store the voxel size"):
        read_volume(folder)
