"""Reading scans: kinds of file and folder, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
import locale
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import dicom_files
import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.core.errors import DNetError, OptionError, ScanError, Setting
from DNetRegistrationLib.imaging.volume import (
    Volume,
    check_pair_spacing,
    check_volume,
    read_header,
    read_labels,
    read_volume,
    write_volume,
)
from grids import noise
from scipy.spatial.transform import Rotation

# --- reading: kinds of file -----------------------------------------------------------------------------------------


def write_slices(folder: Path, voxels: np.ndarray, pattern: str = "slice_{}.tif", start: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(voxels, start):
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(folder / pattern.format(number)))
    return folder


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".hdr", ".h5"])
@pytest.mark.parametrize("compress", [False, True])
def test_single_files(tmp_path, suffix, compress):
    voxels = noise(9, 10, 11, dtype=np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.01, 0.02, 0.03))
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path), compress)
    volume = read_volume(path)
    assert volume.name == path.name
    np.testing.assert_allclose(volume.spacing, (0.01, 0.02, 0.03), rtol=1e-6)
    assert np.array_equal(volume.voxels, voxels)


@pytest.mark.parametrize("spacing", [None, 0.02])
def test_whether_a_file_says_how_the_world_lies_in_the_body(tmp_path, spacing):
    """It does not change with a voxel size that is given. A stack of slices has no anatomy, nor has NIfTI of code 0."""
    scan = Volume.from_geometry(noise(9, 10, 11, dtype=np.int16), 0.05)
    for name in ("a.nrrd", "a.nii.gz", "a.mha"):
        write_volume(scan, tmp_path / name)
    coded = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    coded[252:256] = bytes(4)  # qform_code and sform_code
    (tmp_path / "uncoded.nii").write_bytes(coded)
    dicom_files.write_series(tmp_path / "dicom", scan.voxels, (0, 0, 0))
    stack = write_slices(tmp_path / "stack", scan.voxels.astype(np.uint8))
    paths = sorted(tmp_path.iterdir())
    stated = {path: read_volume(path, 0.01 if path == stack else spacing).anatomical for path in paths}
    assert {path.name for path, yes in stated.items() if yes} == {"a.nrrd", "a.nii.gz", "dicom"}
    assert len(stated) == 6


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_with_several_pages(tmp_path, compress, dtype):
    voxels = noise(12, 10, 11, dtype=dtype)
    path = tmp_path / "scan.tif"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), compress)
    volume = read_volume(path, spacing=0.01)
    assert np.array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, np.diag([0.01, 0.01, 0.01, 1]))


@pytest.mark.parametrize("suffix", ["tif", "tiff", "TIF", "png", "bmp"])
def test_stacks_are_in_the_order_of_their_numbers(tmp_path, suffix):
    voxels = noise(12, 10, 11, dtype=np.uint8)
    folder = write_slices(tmp_path / "scan", voxels, "rec2_{}." + suffix, start=3)  # 9, 10, 11: not by the alphabet
    (folder / "scan.log").write_text("Image Pixel Size (um)=10\n")
    volume = read_volume(folder, spacing=(0.01, 0.02, 0.03))
    assert np.array_equal(volume.voxels, voxels)
    assert volume.name == "scan"
    np.testing.assert_allclose(volume.spacing, (0.01, 0.02, 0.03))


def test_a_preview_beside_the_slices_is_not_a_slice(tmp_path):
    voxels = noise(9, 10, 11, dtype=np.uint8)
    folder = write_slices(tmp_path / "scan", voxels, "rec{:04d}.bmp")
    sitk.WriteImage(sitk.GetImageFromArray(noise(30, 40, dtype=np.uint8)), str(folder / "rec_spr.bmp"))
    assert np.array_equal(read_volume(folder, spacing=0.01).voxels, voxels)


def test_two_stacks_in_a_folder(tmp_path):
    first, second = noise(9, 10, 11), noise(8, 10, 11, seed=1)
    folder = write_slices(tmp_path / "scan", first, "left{:03d}.png")
    write_slices(folder, second, "right{:03d}.png")
    with pytest.raises(ScanError, match=r"holds 2 scans: 1 is left#\.png.*9 files.*, 2 is right#\.png") as caught:
        read_volume(folder, spacing=0.01)
    assert caught.value.setting == Setting("series")
    assert np.array_equal(read_volume(folder, spacing=0.01, series="right#.png").voxels, second)
    assert np.array_equal(read_volume(folder, spacing=0.01, series=1).voxels, first)


def write_dicom(folder: Path, voxels: np.ndarray, uid: str, description: str, number: int, positions=None) -> Path:
    folder.mkdir(exist_ok=True)
    kept = locale.setlocale(locale.LC_ALL)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k, pixels in enumerate(voxels):
        image = sitk.GetImageFromArray(pixels)
        image.SetSpacing((0.02, 0.03))
        z = 0.05 * k if positions is None else positions[k]
        for tag, value in {
            "0008|0008": "DERIVED\\SECONDARY", "0008|0018": f"{uid}.{k + 1}", "0008|0060": "CT",
            "0008|103e": description,
            "0020|000d": "1.2.3", "0020|000e": uid, "0020|0011": str(number), "0020|0013": str(k + 1),
            "0020|0032": f"5\\-6\\{z + 7:g}", "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():  # fmt: skip
            image.SetMetaData(tag, value)
        # Names in another order than positions.
        writer.SetFileName(str(folder / f"{uid}_{(k * 7) % len(voxels)}.dcm"))
        writer.Execute(image)
    # Writing DICOM leaves the process in the C locale, in which other tests would read files as ASCII.
    locale.setlocale(locale.LC_ALL, kept)
    return folder


def test_dicom_folder(tmp_path):
    voxels = noise(10, 11, 12, dtype=np.int16)
    folder = write_dicom(tmp_path / "scan", voxels, "1.2.3.4", "bone", 1)
    (folder / "README.txt").write_text("exported")
    sitk.WriteImage(sitk.GetImageFromArray(noise(5, 5, dtype=np.uint8)), str(folder / "preview.png"))
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.spacing, (0.02, 0.03, 0.05), rtol=1e-6)
    np.testing.assert_allclose(volume.origin, (5, -6, 7), rtol=1e-6)


def test_dicom_folder_with_several_series(tmp_path):
    bone, soft = noise(10, 11, 12, dtype=np.int16), noise(9, 13, 14, dtype=np.int16)
    folder = write_dicom(tmp_path / "scan", soft, "1.2.3.9", "soft tissue", 2)
    write_dicom(folder, bone, "1.2.3.10", "bone", 1)
    with pytest.raises(ScanError) as caught:
        read_volume(folder, role="moving")
    listed = "1 is 1.2.3.10 (bone, 12 x 11 x 10), 2 is 1.2.3.9 (soft tissue, 14 x 13 x 9)"
    assert str(caught.value) == f"{folder}: the folder holds 2 scans: {listed}; choose one by number or name"
    assert caught.value.setting == Setting("series", "moving")
    for series in (1, "1", "1.2.3.10", "Bone"):
        assert np.array_equal(read_volume(folder, series=series).voxels, bone)
    assert np.array_equal(read_volume(folder, series=2).voxels, soft)
    for series in (3, 0, "cartilage"):
        with pytest.raises(ScanError, match=r"holds no scan called.*1 is 1\.2\.3\.10"):
            read_volume(folder, series=series)


def test_dicom_folder_with_a_missing_or_double_slice(tmp_path, capfd):
    voxels = noise(10, 11, 12, dtype=np.int16)
    missing = [0, 0.05, 0.1, 0.15, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
    twice = [0, 0, 0.05, 0.05, 0.1, 0.1, 0.15, 0.15, 0.2, 0.2]
    for name, positions in (("missing", missing), ("twice", twice)):
        folder = write_dicom(tmp_path / name, voxels, "1.2.3.4", "bone", 1, positions=positions)
        message = one_line_error(capfd, folder)
        assert "not evenly spaced" in message and "export the complete series" in message


def test_of_a_file_with_one_scan_no_other_one_is_read(tmp_path):
    path = tmp_path / "scan.nrrd"
    write_volume(Volume(noise(8, 9, 10), np.diag((0.1, 0.1, 0.1, 1.0))), path)
    with pytest.raises(ScanError, match="holds one scan, and '2' of it was asked for") as caught:
        read_volume(path, series=2, role="fixed")
    assert caught.value.setting == Setting("series", "fixed")
    assert read_volume(path, series="1").voxels.shape == (8, 9, 10)


@pytest.mark.parametrize("read", [read_volume, read_header, read_labels])
def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch, read):
    for number in range(8):
        sitk.WriteImage(sitk.GetImageFromArray(noise(9, 10, dtype=np.uint8)), tmp_path / f"slice{number}.png")
    monkeypatch.chdir(tmp_path)
    assert read(".", spacing=0.1).voxels.shape == (8, 9, 10)
    with pytest.raises(ScanError, match="path of a scan is empty"):
        read("", spacing=0.1)


def test_a_fourth_axis_of_length_one(tmp_path):
    voxels = noise(8, 9, 10, dtype=np.int16)
    image = sitk.JoinSeries([sitk.GetImageFromArray(voxels)])
    image.SetSpacing((0.1, 0.2, 0.3, 1))
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    volume = read_volume(tmp_path / "scan.nrrd")
    assert np.array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.spacing, (0.1, 0.2, 0.3))


def test_infinities_are_outside_the_field_of_view(tmp_path):
    voxels = noise(20, 9, 10, dtype=np.float32)
    voxels[18, 3, 4], voxels[0, 0, 0], voxels[1, 1, 1] = np.inf, -np.inf, np.nan
    write(tmp_path / "scan.nrrd", voxels)
    expected = np.where(np.isinf(voxels), np.nan, voxels)
    read = read_volume(tmp_path / "scan.nrrd").voxels
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(check_volume(Volume(voxels)).voxels, expected)


def test_spacing_given_replaces_the_files_and_keeps_the_rest(tmp_path):
    turn = Rotation.from_euler("z", 30, degrees=True).as_matrix() * (1, -1, 1)
    volume = Volume.from_geometry(noise(8, 9, 10), (1, 2, 3), turn, (5, 6, 7))
    write_volume(volume, tmp_path / "scan.nrrd")
    for spacing, expected in ((0.01, (0.01,) * 3), ((0.01, 0.02, 0.03), (0.01, 0.02, 0.03))):
        read = read_volume(tmp_path / "scan.nrrd", spacing=spacing, name="fixed scan")
        np.testing.assert_allclose(read.spacing, expected)
        np.testing.assert_allclose(read.direction, volume.direction)
        np.testing.assert_allclose(read.origin, volume.origin)
        assert read.name == "fixed scan"


def test_real_scans_are_read_without_doubt(ankles, trabecular_cube):
    scan = read_volume(ankles)
    assert scan.size.tolist() == [167, 268, 150] and scan.spacing.tolist() == [1, 1, 1]
    assert scan.voxels.min() == -1024 and scan.voxels.max() == 1744
    cube = read_volume(trabecular_cube)
    assert cube.size.tolist() == [200, 200, 200] and cube.voxels.dtype == np.uint8
    np.testing.assert_allclose(cube.spacing, 0.0195)
    check_pair_spacing(scan, scan)
    check_pair_spacing(cube, cube)


def test_reading_leaves_the_terminal_as_it_was(tmp_path, capfd):
    path = write(tmp_path / "scan.nrrd", noise(8, 9, 10))
    sitk.ProcessObject.SetGlobalWarningDisplay(True)
    with ThreadPoolExecutor(4) as pool:
        scans = list(pool.map(read_volume, [path] * 20))
    assert all(np.array_equal(scan.voxels, scans[0].voxels) for scan in scans)
    assert sitk.ProcessObject.GetGlobalWarningDisplay()
    os.write(2, b"still heard")
    assert capfd.readouterr().err == "still heard"


def test_reading_is_quiet_without_a_terminal_too(tmp_path, capfd, monkeypatch):
    """ITK warns of these slices; a host whose standard error cannot be caught must not hear it either."""
    folder = write_dicom(tmp_path, noise(8, 9, 10, dtype=np.int16), "1.2", "", 1, positions=[0, 1, 2, 4, 5, 6, 7, 8])
    monkeypatch.setattr("DNetRegistrationLib.core.quiet._caught", lambda *arguments: nullcontext())
    assert "not evenly spaced" in one_line_error(capfd, folder)


# --- reading: what is wrong -----------------------------------------------------------------------------------------


def refusal(capfd, *arguments, **options) -> DNetError:
    """The error of reading: a problem and a remedy in one line, and nothing else on the terminal."""
    with pytest.raises(DNetError) as caught:
        read_volume(*arguments, **options)
    message = str(caught.value)
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""
    assert "\n" not in message and "0x" not in message and "Exception thrown" not in message
    assert caught.value.remedy and "--" not in message and "spacing=" not in message
    return caught.value


def one_line_error(capfd, *arguments, **options) -> str:
    error = refusal(capfd, *arguments, **options)
    assert isinstance(error, ScanError)
    return str(error)


def write(path: Path, voxels: np.ndarray, **keywords) -> Path:
    image = sitk.GetImageFromArray(voxels, **keywords)
    if image.GetDimension() == 3:
        image.SetOrigin((0, 0, 7))  # 1 mm at the origin is doubted
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("name", ["notes.txt", "notes.nrrd", "notes.nii", "notes.nii.gz", "notes.mha", "notes.tif"])
def test_text_file(tmp_path, capfd, name):
    (tmp_path / name).write_text("Dear all,\n\nhere is the scan.\n")
    assert name in one_line_error(capfd, tmp_path / name)


@pytest.mark.parametrize("suffix", [".gipl", ".vtk", ".mrc"])
def test_kinds_that_hide_damage_are_not_read(tmp_path, capfd, suffix):
    """A VTK of 65 KB was read as 1200^3 voxels."""
    path = write(tmp_path / f"scan{suffix}", noise(9, 10, 11))
    assert "is not an image that can be read; give NRRD, NIfTI, MHA, TIFF" in one_line_error(capfd, path)


@pytest.mark.parametrize(("written", "named"), [(".nrrd", ".mha"), (".mha", ".nrrd"), (".nrrd", ".png")])
def test_another_kind_than_the_name_says(tmp_path, capfd, written, named):
    """What is checked of a kind of file must not be evaded by a name."""
    content = write(tmp_path / f"scan{written}", noise(9, 10, 11)).read_bytes()
    (tmp_path / f"other{named}").write_bytes(content)
    assert f"other{named}" in one_line_error(capfd, tmp_path / f"other{named}")


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.nii.gz", "scan.tif", "scan"])
def test_missing_and_empty_file(tmp_path, capfd, name):
    assert f"{name}: there is no such file" in one_line_error(capfd, tmp_path / name)
    (tmp_path / name).touch()
    assert f"{name}: the file is empty" in one_line_error(capfd, tmp_path / name)


def test_folder_without_images(tmp_path, capfd):
    assert "holds no images" in one_line_error(capfd, tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    assert "holds no images" in one_line_error(capfd, tmp_path)
    write(tmp_path / "scan.nrrd", noise(8, 8, 8))
    assert "give the file itself (scan.nrrd)" in one_line_error(capfd, tmp_path)
    write(tmp_path / "other.nrrd", noise(8, 8, 8))
    assert "give one of its 2 files" in one_line_error(capfd, tmp_path)


def test_folder_with_one_slice(tmp_path, capfd):
    folder = write_slices(tmp_path / "scan", noise(1, 8, 8))
    assert "holds one image" in one_line_error(capfd, folder, spacing=0.01)


def test_folder_mixing_sizes(tmp_path, capfd):
    folder = write_slices(tmp_path / "scan", noise(9, 10, 11))
    write(folder / "slice_4.tif", noise(10, 12))
    message = one_line_error(capfd, folder, spacing=0.01)
    assert str(folder) in message and "11 x 10 and 12 x 10" in message and "slice_4.tif" in message


def test_folder_with_a_missing_slice(tmp_path, capfd):
    folder = write_slices(tmp_path / "scan", noise(12, 10, 11))
    (folder / "slice_6.tif").unlink()
    assert "jump by 2 after slice_5.tif" in one_line_error(capfd, folder, spacing=0.01)


def test_every_second_slice_is_a_scan(tmp_path):
    folder = write_slices(tmp_path / "scan", noise(20, 10, 11))
    for number in range(1, 20, 2):
        (folder / f"slice_{number}.tif").unlink()
    assert read_volume(folder, spacing=0.01).size.tolist() == [11, 10, 10]


@pytest.mark.parametrize("suffix", ["tif", "png", "bmp", "jpg"])
def test_folder_with_a_damaged_slice(tmp_path, capfd, suffix):
    folder = write_slices(tmp_path / "scan", noise(9, 100, 110, dtype=np.uint8), "slice_{}." + suffix)
    damaged = folder / f"slice_5.{suffix}"
    for content in (b"hello", damaged.read_bytes()[:2000]):
        damaged.write_bytes(content)
        assert damaged.name in one_line_error(capfd, folder, spacing=0.01)


def test_a_damaged_code_in_a_jpeg_slice(tmp_path, capfd):
    """The library of JPEG says so on the terminal, and goes on."""
    folder = write_slices(tmp_path / "scan", noise(9, 100, 110, dtype=np.uint8), "slice_{}.jpg")
    content = bytearray((folder / "slice_5.jpg").read_bytes())
    content[3000:3002] = b"\xff\xd9"  # the marker of the end
    (folder / "slice_5.jpg").write_bytes(content)
    assert "slice_5.jpg: is damaged (Corrupt JPEG data" in one_line_error(capfd, folder, spacing=0.01)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha", ".mhd", ".tif", ".hdr", ".nhdr"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_truncated_file(tmp_path, capfd, suffix, compress, fraction):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(noise(20, 30, 40)), str(path), compress)
    data = max(tmp_path.iterdir(), key=lambda file: file.stat().st_size)
    content = data.read_bytes()
    data.write_bytes(content[: int(len(content) * fraction)])
    message = one_line_error(capfd, path, spacing=0.01)
    assert "scan" in message


def test_damaged_compressed_file(tmp_path, capfd):
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(noise(20, 30, 40)), str(path), True)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    assert path.name in one_line_error(capfd, path)


def test_nifti_in_several_gzip_members_is_whole(tmp_path):
    write_volume(Volume.from_geometry(noise(20, 30, 40), 0.01), tmp_path / "scan.nii")
    content = (tmp_path / "scan.nii").read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(content[:9000]) + gzip.compress(content[9000:]))
    assert np.array_equal(read_volume(tmp_path / "scan.nii.gz").voxels, noise(20, 30, 40))


@pytest.mark.parametrize(
    ("suffix", "other", "kind"),
    [
        (".nrrd", ".tif", "NRRD"),
        (".nrrd", ".isq", "NRRD"),
        (".nrrd", "", "NRRD"),
        (".nii", ".nrrd", "NIfTI"),
        (".nii.gz", ".nii", "packed NIfTI"),
        (".nii.gz", ".gz", "packed NIfTI"),
        (".mha", ".nii.gz", "MetaImage"),
        (".tif", ".nrrd", "TIFF"),
    ],
)
def test_another_kind_than_the_name_says_is_told(tmp_path, capfd, suffix, other, kind):
    path = tmp_path / f"scan{suffix}"
    write_volume(Volume.from_geometry(noise(9, 10, 11, dtype=np.int16), 0.05), path)
    wrong = path.rename(tmp_path / f"wrong{other}")
    said = f"{wrong}: holds {kind}, and its name ends otherwise; rename it, so that it ends in {suffix}"
    assert said in one_line_error(capfd, wrong)
    assert read_volume(wrong.rename(path), 0.05).voxels.shape == (9, 10, 11)


def test_a_dicom_file_that_is_named_as_a_picture_is_told(tmp_path, capfd):
    series = dicom_files.write_series(tmp_path / "series", noise(9, 9, 9), (0, 0, 0))
    wrong = min(series.iterdir()).rename(tmp_path / "wrong.tif")
    assert "holds DICOM, and its name ends otherwise; rename it" in one_line_error(capfd, wrong)


def test_a_web_page_that_was_saved_as_a_scan_is_told(tmp_path, capfd):
    (tmp_path / "scan.nii.gz").write_text("\n<!DOCTYPE html>\n<html><body>Sign in</body></html>")
    assert "is a web page, not a scan; download the file itself" in one_line_error(capfd, tmp_path / "scan.nii.gz")


def test_a_single_slice(tmp_path, capfd):
    for name in ("scan.png", "scan.nrrd", "scan.tif"):
        path = write(tmp_path / name, noise(30, 40))
        assert f"{name}: is a single 2D image (40 x 30" in one_line_error(capfd, path, spacing=0.01)


def test_colours(tmp_path, capfd):
    voxels = np.random.default_rng(0).integers(0, 255, (8, 9, 10, 3)).astype(np.uint8)
    for name in ("scan.nrrd", "scan.tif", "scan.nii"):
        path = write(tmp_path / name, voxels, isVector=True)
        assert f"{name}: holds 3 values a voxel" in one_line_error(capfd, path, spacing=0.01)
    folder = tmp_path / "stack"
    folder.mkdir()
    for number, pixels in enumerate(voxels):
        write(folder / f"{number}.png", pixels, isVector=True)
    assert "holds 3 values a voxel" in one_line_error(capfd, folder, spacing=0.01)
    with pytest.raises(ScanError, match="holds 3 values a voxel"):
        Volume.from_sitk(sitk.GetImageFromArray(voxels, isVector=True))


def test_vectors_of_one_value_are_grey_values():
    voxels = noise(9, 10, 11, dtype=np.uint8)
    image = sitk.GetImageFromArray(voxels[..., None], isVector=True)
    assert "vector" in image.GetPixelIDTypeAsString()
    np.testing.assert_array_equal(Volume.from_sitk(image).voxels, voxels)


def test_grey_values_saved_as_colours_are_grey(tmp_path):
    grey = noise(9, 10, 11, dtype=np.uint8)
    for number, pixels in enumerate(grey):
        write(tmp_path / f"{number}.png", np.repeat(pixels[..., None], 3, -1), isVector=True)
    assert np.array_equal(read_volume(tmp_path, spacing=0.01).voxels, grey)


def test_time_series_and_complex_numbers(tmp_path, capfd):
    scan = sitk.GetImageFromArray(noise(8, 9, 10, dtype=np.int16))
    sitk.WriteImage(sitk.JoinSeries([scan, scan]), str(tmp_path / "time.nrrd"))
    assert "has 4 dimensions (10 x 9 x 8 x 2)" in one_line_error(capfd, tmp_path / "time.nrrd")
    sitk.WriteImage(sitk.Cast(scan, sitk.sitkComplexFloat32), str(tmp_path / "complex.nrrd"))
    message = one_line_error(capfd, tmp_path / "complex.nrrd")
    assert "complex.nrrd: holds complex numbers" in message
    with pytest.raises(ScanError, match="complex"):
        Volume.from_sitk(sitk.Cast(scan, sitk.sitkComplexFloat32))


@pytest.mark.parametrize(
    "voxels, words",
    [
        (np.full((40, 9, 10), -1024, np.int16), "is constant (every voxel is -1024)"),
        (np.full((40, 9, 10), 0, np.float32), "is constant (every voxel is 0)"),
        (np.full((9, 9, 10), np.nan, np.float32), "has no finite voxel"),
        (np.full((9, 9, 10), -np.inf, np.float32), "has no finite voxel"),
        (noise(7, 20, 20), "has only 7 voxels along z"),
        (noise(20, 3, 20), "has only 3 voxels along y"),
        (noise(20, 20, 7), "has only 7 voxels along x"),
    ],
)
def test_voxels_that_cannot_be_aligned(tmp_path, capfd, voxels, words):
    assert f"scan.nrrd: {words}" in one_line_error(capfd, write(tmp_path / "scan.nrrd", voxels))


def test_constant_but_for_the_last_voxel(tmp_path):
    voxels = np.zeros((40, 9, 10), np.float32)
    voxels[39, 8, 9] = 1
    assert read_volume(write(tmp_path / "scan.nrrd", voxels)).voxels.max() == 1


@pytest.mark.parametrize("spacing", [0, -0.01, np.nan, np.inf, (0.01, 0.01, 0), (0.01, -1, 0.01)])
def test_spacing_that_is_not_positive(tmp_path, capfd, spacing):
    path = write(tmp_path / "scan.nrrd", noise(8, 8, 8))
    error = refusal(capfd, path, spacing=spacing, role="fixed")
    assert isinstance(error, OptionError) and error.setting == Setting("spacing", "fixed")
    assert "scan.nrrd: the spacing is" in error.problem


@pytest.mark.parametrize("spacing", [(0.01, 0.01), "thin", [], [[0.1]]])
def test_spacing_that_is_no_spacing(tmp_path, capfd, spacing):
    path = write(tmp_path / "scan.nrrd", noise(8, 8, 8))
    error = refusal(capfd, path, spacing=spacing)
    assert isinstance(error, OptionError) and "not one number or three" in error.problem


@pytest.mark.parametrize("spacing", ["0 1 1", "-0.01 0.01 0.01", "nan 1 1", "1 1 inf"])
def test_spacing_in_the_header_that_is_not_positive(tmp_path, capfd, spacing):
    path = write(tmp_path / "scan.mha", noise(8, 8, 8))
    content = path.read_bytes()
    assert content.count(b"ElementSpacing = 1 1 1\n") == 1
    path.write_bytes(content.replace(b"ElementSpacing = 1 1 1\n", f"ElementSpacing = {spacing}\n".encode()))
    message = one_line_error(capfd, path)
    assert "scan.mha" in message and "spacing is zero" in message


@pytest.mark.parametrize("spacing", ["1 1 0", "1 -1 1"])
def test_spacing_in_an_nrrd_header_that_is_not_positive(tmp_path, capfd, spacing):
    path = tmp_path / "scan.nrrd"
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 8 8 8\nspacings: {spacing}\nencoding: raw\n\n"
    path.write_bytes(header.encode() + noise(8, 8, 8, dtype=np.uint8).tobytes())
    assert "scan.nrrd: its spacing is zero or negative" in one_line_error(capfd, path)


@pytest.mark.parametrize("axes", ["(1,0,0) (1,0,0) (0,0,1)", "(0,0,0) (0,1,0) (0,0,1)", "(nan,0,0) (0,1,0) (0,0,1)"])
def test_singular_direction_in_the_header(tmp_path, capfd, axes):
    path = write(tmp_path / "scan.nrrd", noise(8, 8, 8))
    content = path.read_bytes()
    assert content.count(b"(1,0,0) (0,1,0) (0,0,1)") == 1
    path.write_bytes(content.replace(b"(1,0,0) (0,1,0) (0,0,1)", axes.encode()))
    assert "scan.nrrd" in one_line_error(capfd, path)


# --- lost spacing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_plane", [None, 0.01, 0.5])
def test_tiff_needs_a_spacing(tmp_path, capfd, in_plane):
    image = sitk.GetImageFromArray(noise(9, 10, 11))
    if in_plane:
        image.SetSpacing((in_plane, in_plane, in_plane))
    path = tmp_path / "scan.tif"
    sitk.WriteImage(image, str(path))
    error = refusal(capfd, path, role="fixed")
    assert "does not store the voxel size" in error.problem and error.setting == Setting("spacing", "fixed")
    assert (f"{in_plane} x {in_plane} mm" in error.problem) == bool(in_plane)
    assert refusal(capfd, path).setting == Setting("spacing")


@pytest.mark.parametrize("suffix", ["tif", "png", "bmp"])
def test_stacks_need_a_spacing(tmp_path, capfd, suffix):
    folder = write_slices(tmp_path / "scan", noise(9, 10, 11, dtype=np.uint8), "{}." + suffix)
    assert refusal(capfd, folder, role="moving").setting == Setting("spacing", "moving")


@pytest.mark.parametrize("length", [9, 64, 400])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii"])
def test_a_scan_with_nothing_but_defaults_is_doubted(tmp_path, capfd, suffix, length):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(noise(length, 9, 9, dtype=np.uint8)), str(path))
    error = refusal(capfd, path, role="moving")
    assert f"1 mm and the scan {length} mm long" in error.problem and error.setting == Setting("spacing", "moving")
    assert read_volume(path, spacing=1).spacing.tolist() == [1, 1, 1]  # its owner knows better


def test_thick_slices_are_believed_where_they_were_given(tmp_path):
    write_volume(Volume.from_geometry(noise(9, 10, 11), (0.1, 0.1, 1)), tmp_path / "thick.nrrd")
    with pytest.raises(ScanError, match=r"as if the slice distance were lost; correct or confirm"):
        read_volume(tmp_path / "thick.nrrd")
    thick = read_volume(tmp_path / "thick.nrrd", spacing=(0.1, 0.1, 1))
    assert thick.spacing_given and np.allclose(thick.spacing, (0.1, 0.1, 1), atol=1e-12)
    check_volume(thick)
