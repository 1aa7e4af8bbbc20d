"""Headers of NRRD and MetaImage: units, and spacings that ITK would mirror."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.core.errors import ScanError, Setting
from DNetRegistrationLib.imaging.text_headers import data_files, states_anatomy
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


@pytest.mark.parametrize(
    ("space", "stated"),
    [
        ("space: left-posterior-superior", True),
        ("space: Right-Anterior-Superior", True),
        ("space: LPS", True),
        ("space: left-anterior-superior-time", True),
        ("space: 3D-right-handed", False),
        ("space: scanner-xyz", False),
        ("space dimension: 3", False),
        ("spacings: 0.1 0.1 0.1", False),
    ],
)
def test_whether_the_world_is_named_by_the_body(tmp_path, space, stated):
    assert states_anatomy(nrrd(tmp_path / "scan.nrrd", space)) == stated
    assert not states_anatomy(metaimage(tmp_path / "scan.mha", "AnatomicalOrientation = RAI"))


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


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii.gz"])
def test_a_flipped_bit_in_packed_voxels_is_noticed(tmp_path, suffix):
    """ITK ignores what zlib says of MetaImage: every flip was read, with up to 98 % of the voxels wrong."""
    image = sitk.GetImageFromArray(noise(20, 30, 40))
    image.SetSpacing((0.01, 0.01, 0.01))
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"), True)
    assert np.array_equal(read_volume(tmp_path / f"scan{suffix}").voxels, noise(20, 30, 40))
    data = max(tmp_path.iterdir(), key=lambda file: file.stat().st_size)
    content = data.read_bytes()
    end_of_header = {".mha": b"LOCAL\n", ".nrrd": b"\n\n"}.get(suffix, b"")
    start = content.index(end_of_header) + len(end_of_header)
    for at in np.random.default_rng(0).integers(start + 10, len(content), 40):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(at) % 8
        data.write_bytes(damaged)
        with pytest.raises(ScanError, match=r"damaged|ends early|more voxels"):
            read_volume(tmp_path / f"scan{suffix}")


@pytest.mark.parametrize("rest", [b"", b"\n\n", gzip.compress(b"", mtime=0)], ids=["nothing", "lines", "member"])
def test_members_of_gzip_and_what_follows_them(tmp_path, rest):
    path = nrrd(tmp_path / "scan.nrrd", SPACE)
    head = path.read_bytes()[: -VOXELS.size].replace(b"encoding: raw", b"encoding: gzip")
    path.write_bytes(head + gzip.compress(VOXELS.tobytes()) + rest)
    assert np.array_equal(read_volume(path).voxels, VOXELS)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_header_that_claims_an_absurd_size(tmp_path, encoding):
    path = tmp_path / "scan.nrrd"
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1200 1200 1200\nspacings: 1 1 2\nencoding: {encoding}\n\n"
    path.write_bytes(header.encode() + gzip.compress(bytes(9000)))
    with pytest.raises(ScanError, match="ends early"):
        read_volume(path)


def test_a_stream_of_fewer_slices_than_the_header_says(tmp_path):
    image = sitk.GetImageFromArray(VOXELS)
    sitk.WriteImage(image, str(tmp_path / "scan.mha"), True)
    content = (tmp_path / "scan.mha").read_bytes()
    (tmp_path / "scan.mha").write_bytes(content.replace(b"DimSize = 10 9 8", b"DimSize = 10 9 9"))
    with pytest.raises(ScanError, match="ends early"):
        read_volume(tmp_path / "scan.mha")


@pytest.mark.parametrize(
    "fields",
    [
        "NDims = 100",
        "NDims = -1",
        "TransformMatrix = 1e308 0 0 0 1 0 0 0 1",
        "Offset = 0 0 nan",
        "ElementSpacing = inf 1 1",
    ],
)
def test_headers_that_ended_the_process(tmp_path, fields):
    with pytest.raises(ScanError, match=r"damaged|spacing is zero"):
        read_volume(metaimage(tmp_path / "scan.mha", fields + "\n"))


@pytest.mark.parametrize("name", ["%n", "%s", "a%nb.raw", "%03d%s", "%999999d"])
def test_a_data_file_whose_name_is_a_pattern_of_c(tmp_path, name):
    path = metaimage(tmp_path / "scan.mhd", "")
    path.write_bytes(path.read_bytes().replace(b"LOCAL", name.encode()))
    with pytest.raises(ScanError, match="damaged"):
        read_volume(path)


def test_a_long_field(tmp_path):
    with pytest.raises(ScanError, match=r"a field of 1[0-9]{3} characters"):
        read_volume(nrrd(tmp_path / "scan.nrrd", f"{SPACE}labels: {'x' * 1500}\n"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.nrrd")
    with pytest.raises(ScanError, match="neither a file nor a folder"):
        read_volume(tmp_path / "pipe.nrrd")
    path = metaimage(tmp_path / "scan.mhd", "")
    path.write_bytes(path.read_bytes().replace(b"LOCAL", b"pipe.nrrd"))
    with pytest.raises(ScanError, match="no file"):
        read_volume(path)


LISTS = {
    "one.nhdr": ("data file: ./all 0.raw", ["./all 0.raw"]),
    "list.nhdr": ("data file: LIST", None),
    "planes.nhdr": ("datafile: LIST 2", None),
    "numbered.nhdr": ("data file: slice-1-%03d.raw 0 7 1", [f"slice-1-{z:03d}.raw" for z in range(8)]),
    "list.mhd": ("ElementDataFile = LIST", None),
    "planes.mhd": ("ElementDataFile = LIST 2", None),
    "numbered.mhd": ("ElementDataFile = s%03d.raw 0 14 2", [f"s{z:03d}.raw" for z in range(0, 15, 2)]),
}


@pytest.mark.parametrize("name", LISTS)
def test_the_files_of_voxels_are_those_that_are_read(tmp_path, name):
    field, names = LISTS[name]
    listed = names or [f"of list {8 - z}.raw" for z in range(8)]
    whole = VOXELS.tobytes()
    length = len(whole) // len(listed)
    for number, one in enumerate(listed):
        (tmp_path / one).write_bytes(whole[number * length : (number + 1) * length])
    lines = "" if names else "\n".join([*listed, ""])
    path = tmp_path / name
    if name.endswith("nhdr"):
        path.write_text(f"NRRD0005\ntype: uint8\ndimension: 3\nsizes: 10 9 8\nencoding: raw\n{SPACE}{field}\n{lines}")
    else:
        start = "ObjectType = Image\nNDims = 3\nElementSpacing = 12.5 12.5 25\nDimSize = 10 9 8\n"
        path.write_text(f"{start}ElementType = MET_UCHAR\n{field}\n{lines}")
    assert [*data_files(path)] == [tmp_path / one for one in listed]
    np.testing.assert_array_equal(read_volume(path, spacing=(0.1, 0.1, 0.1)).voxels, VOXELS)


def test_voxels_within_the_file_lie_in_no_other(tmp_path):
    assert [*data_files(nrrd(tmp_path / "a.nrrd", SPACE)), *data_files(metaimage(tmp_path / "a.mha", ""))] == []
    (tmp_path / "a.nii").write_bytes(b"")
    assert [*data_files(tmp_path / "a.nii")] == []


@pytest.mark.parametrize("numbers", ["", " 0", " 0 7", " 0 7 0", " a b c"])
def test_numbered_files_without_their_numbers_are_an_error_and_do_not_end_the_process(tmp_path, numbers):
    start = "ObjectType = Image\nNDims = 3\nElementSpacing = 12.5 12.5 25\nDimSize = 10 9 8\nElementType = MET_UCHAR\n"
    (tmp_path / "a.mhd").write_text(f"{start}ElementDataFile = s%03d.raw{numbers}\n")
    with pytest.raises(ScanError, match="the name of its data file"):
        read_volume(tmp_path / "a.mhd")
