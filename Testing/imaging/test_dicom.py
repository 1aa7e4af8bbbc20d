"""DICOM: where slices and frames lie by their own words, what is missing, and which of several scans is read."""

from __future__ import annotations

import struct
import sys

import dicom_files
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import write_enhanced, write_series
from DNetRegistrationLib.core.errors import PackageError, ScanError, Setting
from DNetRegistrationLib.imaging.volume import Volume, read_volume
from grids import noise
from pydicom.uid import RLELossless
from scipy.spatial.transform import Rotation

VOXELS = noise(12, 10, 11, dtype=np.int16)
ORIGIN = (5.0, -6.0, 7.0)


def grid(step=(0, 0, 0.05), position=ORIGIN) -> np.ndarray:
    affine = np.diag((0.02, 0.03, 1.0, 1.0))
    affine[:3, 2], affine[:3, 3] = step, position
    return affine


def holds(volume: Volume, affine: np.ndarray, voxels: np.ndarray = VOXELS, atol: float = 1e-9) -> None:
    assert np.array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, affine, rtol=0, atol=atol)


@pytest.mark.parametrize("step", [(0, 0, 0.05), (0, 0.004, 0.05), (0.01, -0.02, 0.05), (0, 0, -0.05)])
def test_a_tilted_gantry_or_a_drift_shears_the_grid(tmp_path, step):
    """Slices are ordered along their normal, so that those of a negative step come in reverse."""
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, step)
    expected = grid(step)
    if step[2] < 0:
        expected = grid((0, 0, 0.05), np.add(ORIGIN, np.multiply(step, 11)))
    holds(read_volume(folder), expected, VOXELS[:: -1 if step[2] < 0 else 1])


@pytest.mark.parametrize("between", [None, "-0.05", "-1", "3"])
def test_a_stated_distance_between_slices_is_not_believed(tmp_path, between):
    """SimpleITK 2.4.0 to 2.5.6 mirror a series where it is negative."""
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, SpacingBetweenSlices=between, SliceThickness="9")
    holds(read_volume(folder), grid())


@pytest.mark.parametrize("between", ["0", "a", "\\\\", "nan"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_distance_between_slices_that_is_none(tmp_path, between, packed):
    """ITK refuses such a file; many exporters write 0."""
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, SpacingBetweenSlices=between)
    for path in folder.iterdir() if packed else ():
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless)
        dataset.save_as(path)
    holds(read_volume(folder), grid())
    path = write_enhanced(tmp_path / "scan.dcm", VOXELS, positions(range(12)), SpacingBetweenSlices=between)
    holds(read_volume(path), grid())


def test_turned_slices(tmp_path):
    turn = Rotation.from_euler("xyz", (20, -50, 100), degrees=True).as_matrix()
    axes = turn.T[:2].ravel().tolist()
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, turn[:, 2] * 0.05, ImageOrientationPatient=axes)
    expected = grid()
    expected[:3, :3] = turn * (0.02, 0.03, 0.05)
    holds(read_volume(folder), expected, atol=1e-8)
    assert np.abs(np.linalg.inv(turn) @ read_volume(folder).direction - np.eye(3)).max() < 1e-8


@pytest.mark.parametrize(("distance", "digits"), [(0.0364, 3), (0.0364, 2), (0.012, 3), (0.05, 2), (1.25, 1)])
def test_rounded_positions_are_even(tmp_path, distance, digits):
    """36.4 um written to whole micrometres gives steps of 36 and 37: half a digit to either side is no unevenness."""
    folder = write_series(tmp_path / "scan", noise(60, 10, 11, dtype=np.int16), ORIGIN, (0, 0, distance), digits=digits)
    volume = read_volume(folder)
    far = volume.to_world((0, 0, 59))
    np.testing.assert_allclose(far, np.add(ORIGIN, (0, 0, 59 * distance)), atol=1.5 * 10.0**-digits)
    assert np.array_equal(volume.direction, np.eye(3))  # rounding makes no shear


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("distance", "digits"), [(0.0364, 1), (0.006, 2), (0.012, 2)])
def test_positions_too_coarse_for_their_distance(tmp_path, distance, digits, reverse):
    """Several slices lie at one place by their words. Numbers tell their order, and that none is missing."""
    voxels = noise(60, 10, 11, dtype=np.int16)
    header = {"SliceThickness": distance, **({"InstanceNumber": lambda k: 60 - k} if reverse else {})}
    folder = write_series(tmp_path / "scan", voxels, ORIGIN, (0, 0, distance), digits=digits, **header)
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels, voxels)
    assert volume.spacing[2] == pytest.approx(distance, rel=0.02)
    (folder / "IM0030.dcm").unlink()
    with pytest.raises(ScanError, match="not evenly spaced"):
        read_volume(folder)


@pytest.mark.parametrize("distance", [1, 0.5, 0.01, 0.02])
def test_a_series_that_was_numbered_anew_after_a_loss(tmp_path, distance):
    places = np.delete(np.arange(13), 6) * distance
    header = {"ImagePositionPatient": lambda k: [0, 0, places[k]], "SliceThickness": distance}
    with pytest.raises(ScanError, match="one is missing"):
        read_volume(write_series(tmp_path / "scan", VOXELS, ORIGIN, **header))


@pytest.mark.parametrize(("distance", "digits"), [(0.05, None), (0.0364, 3), (0.0364, 2)])
@pytest.mark.parametrize("lost", [(1,), (6,), (10,), (4, 5), (3, 8)])
def test_a_missing_slice_is_named_with_its_position(tmp_path, distance, digits, lost):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, (0, 0, distance), digits=digits)
    for k in lost:
        (folder / f"IM{k:04d}.dcm").unlink()
    with pytest.raises(ScanError, match="not evenly spaced") as caught:
        read_volume(folder)
    message = str(caught.value)
    assert ("one is missing" if len(lost) == 1 else "2 are missing, the first") in message
    assert f"after IM{lost[0] - 1:04d}.dcm" in message
    place = float(message.split("mm, after")[0].split()[-1].strip("()"))
    assert place == pytest.approx(ORIGIN[2] + distance * lost[0], abs=2 * 10.0 ** -(digits or 9))


def test_slices_beside_the_line_are_refused(tmp_path):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN)
    dicom_files.write(
        folder / "IM0005.dcm", VOXELS[5], ImagePositionPatient=[5.01, -6, 7.25], PixelSpacing=[0.03, 0.02],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
    )  # fmt: skip
    with pytest.raises(ScanError, match="not on one line"):
        read_volume(folder)


@pytest.mark.parametrize("pixel", [None, [0.03, 0.02]])
def test_slices_without_positions_have_no_voxel_size(tmp_path, pixel):
    header = {"ImagePositionPatient": None, "PixelSpacing": pixel, "InstanceNumber": lambda k: 20 - k}
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, SpacingBetweenSlices="0.05", **header)
    with pytest.raises(ScanError, match="does not state") as caught:
        read_volume(folder, role="fixed")
    assert caught.value.setting == Setting("spacing", "fixed")
    assert np.array_equal(read_volume(folder, spacing=0.01).voxels, VOXELS[::-1])  # in the order of their numbers


@pytest.mark.parametrize("value", ["", "  ", "5", "nan\\0\\0", "a\\b\\c", "1\\2\\3\\4"])
@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_geometry_that_is_no_geometry(tmp_path, name, value):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, **{name: value})
    with pytest.raises(ScanError, match=r"does not state|pixel sizes"):
        read_volume(folder)
    assert np.array_equal(read_volume(folder, spacing=0.01).voxels, VOXELS)


# --- enhanced files ---------------------------------------------------------------------------------------------------


def positions(order) -> list[tuple[float, float, float]]:
    return [(5, -6, 7 + 0.05 * k) for k in order]


def test_frames_lie_where_each_says(tmp_path):
    order = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    for name, frames in (("order", range(12)), ("interleaved", order), ("reverse", range(11, -1, -1))):
        path = write_enhanced(tmp_path / f"{name}.dcm", VOXELS[list(frames)], positions(frames))
        holds(read_volume(path), grid())


def test_frames_of_a_tilted_gantry(tmp_path):
    step = (0, 0.004, 0.05)
    places = [np.add(ORIGIN, np.multiply(step, k)) for k in range(12)]
    holds(read_volume(write_enhanced(tmp_path / "scan.dcm", VOXELS, places)), grid(step))


def test_missing_frames_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "scan.dcm", VOXELS, positions([*range(7), *range(9, 14)]))
    with pytest.raises(ScanError, match=r"2 are missing, the first at \(5, -6, 7\.35\) mm"):
        read_volume(path)


@pytest.mark.parametrize("frames", ["99999999999", "1000", "0", "-3", "many"])
def test_a_number_of_frames_that_is_none(tmp_path, frames):
    path = write_enhanced(tmp_path / "scan.dcm", VOXELS, positions(range(12)))
    content = path.read_bytes()
    at = content.index(b"\x28\0\x08\0IS") + 6
    path.write_bytes(content[:at] + struct.pack("<H", 12) + frames.ljust(12).encode() + content[at + 4 :])
    with pytest.raises(ScanError, match=r"frames|2D image|cannot be read"):
        read_volume(path)


def test_damage_is_refused_in_words(tmp_path):
    content = write_enhanced(tmp_path / "scan.dcm", VOXELS, positions(range(12))).read_bytes()
    random = np.random.default_rng(0)
    for number in range(100):
        damaged = bytearray(content)
        damaged[random.integers(128, len(content) - VOXELS.nbytes)] = random.integers(256)
        if number % 5 == 0:
            del damaged[random.integers(len(damaged)) :]
        (tmp_path / "scan.dcm").write_bytes(damaged)
        try:
            read_volume(tmp_path / "scan.dcm", spacing=0.01)
        except ScanError as error:
            assert "\n" not in str(error)


def test_slopes_of_frames(tmp_path):
    def own(k: int) -> dict:
        return {"PixelValueTransformationSequence": {"RescaleIntercept": k, "RescaleSlope": 1 + 0.5 * k}}

    path = write_enhanced(tmp_path / "scan.dcm", VOXELS, positions(range(12)), own)
    k = np.arange(12)[:, None, None]
    np.testing.assert_allclose(read_volume(path).voxels, VOXELS * (1 + 0.5 * k) + k, rtol=1e-6)


def test_frames_without_positions_have_no_voxel_size(tmp_path):
    path = dicom_files.write(tmp_path / "scan.dcm", VOXELS, NumberOfFrames=12, PixelSpacing=[0.03, 0.02])
    with pytest.raises(ScanError, match=r"does not state where the slices lie \(in the slices: pixels of 0.02 x 0.03"):
        read_volume(path)


# --- grey values ------------------------------------------------------------------------------------------------------


def test_slopes_of_slices(tmp_path):
    """ITK takes the kind of the first slice for all (SimpleITK 1636), so that fractions would be cut off."""
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, RescaleSlope=lambda k: "1" if k == 0 else "0.0005")
    expected = VOXELS * np.where(np.arange(12) == 0, 1, 0.0005)[:, None, None]
    np.testing.assert_allclose(read_volume(folder).voxels, expected, rtol=1e-6)


@pytest.mark.parametrize("header, least_is_brightest", [
    ({}, True), ({"RescaleSlope": None, "RescaleIntercept": None}, True), ({"RescaleType": "US"}, True),
    ({"RescaleType": "HU"}, False), ({"RescaleIntercept": "-1024"}, False),
])  # fmt: skip
@pytest.mark.parametrize("kind, bits", [("int16", 16), ("int16", 12), ("uint16", 16), ("uint16", 12), ("uint8", 8)])
def test_negatives_become_positives(tmp_path, header, least_is_brightest, kind, bits):
    """MONOCHROME1 without a unit: the complement within the stored bits. Hounsfield units stay what they are."""
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    stored = np.random.default_rng(bits).integers(low, high + 1, VOXELS.shape).astype(kind)
    stored[0, 0, :2] = low, high
    header = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": bits, "HighBit": bits - 1, **header}
    read = read_volume(write_series(tmp_path / "scan", stored, ORIGIN, **header)).voxels
    shift = float(header.get("RescaleIntercept") or 0)
    expected = [[[low + high - int(v) if least_is_brightest else int(v) + shift for v in row] for row in plane]
                for plane in stored]  # fmt: skip
    np.testing.assert_array_equal(read, expected)


def test_negatives_among_other_slices_and_in_frames(tmp_path):
    negative = {"PhotometricInterpretation": "MONOCHROME1"}
    folder = write_series(tmp_path / "scan", VOXELS[:5], ORIGIN)
    write_series(folder, VOXELS[5:], (5, -6, 7.25), start=5, **negative)
    assert np.array_equal(read_volume(folder).voxels, np.concatenate((VOXELS[:5], ~VOXELS[5:])))
    order = [11 - k for k in range(12)]
    path = write_enhanced(tmp_path / "scan.dcm", VOXELS[order], positions(order), **negative)
    holds(read_volume(path), grid(), ~VOXELS)


def test_signed_and_unsigned_slices(tmp_path):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN)
    write_series(folder, VOXELS[:1].astype(np.uint16) + 40000, ORIGIN)
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels[1:], VOXELS[1:])
    assert np.array_equal(volume.voxels[0], VOXELS[0].astype(np.int32) + 40000)


# --- several scans ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("AcquisitionNumber", ("1", "2"), ("acquisition 1", "acquisition 2")),
        ("AcquisitionTime", ("101500", "113000"), ("acquired at 101500", "acquired at 113000")),
        ("ContrastBolusAgent", (None, "Hexabrix"), ("contrast agent none", "contrast agent Hexabrix")),
    ],
)
def test_two_acquisitions_in_one_series(tmp_path, name, values, words):
    """A study with contrast agent may put both scans into one series."""
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, SeriesDescription="knee", **{name: values[0]})
    other = noise(12, 10, 11, dtype=np.int16, seed=5)
    write_series(folder, other, ORIGIN, start=12, SeriesDescription="knee", **{name: values[1]})
    with pytest.raises(ScanError) as caught:
        read_volume(folder, role="moving")
    listed = f"1 is 1.2.3.4#1 (knee, {words[0]}, 11 x 10 x 12), 2 is 1.2.3.4#2 (knee, {words[1]}, 11 x 10 x 12)"
    assert f"the folder holds 2 scans: {listed}" in str(caught.value)
    assert caught.value.setting == Setting("series", "moving")
    for series, voxels in ((1, VOXELS), ("1.2.3.4#2", other), (f"knee, {words[1]}", other)):
        holds(read_volume(folder, series=series), grid(), voxels)


def test_two_acquisitions_that_nothing_tells_apart(tmp_path):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN)
    write_series(folder, VOXELS, ORIGIN, start=12)
    with pytest.raises(ScanError, match=r"two lie at \(5, -6, 7\) mm \(IM0000.dcm and IM0012.dcm\)"):
        read_volume(folder)


def test_numbers_of_acquisitions_that_belong_together(tmp_path):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN, AcquisitionNumber=lambda k: k // 6)
    holds(read_volume(folder), grid())


def test_two_acquisitions_in_one_enhanced_file(tmp_path):
    frames = [k for k in range(6) for _ in range(2)]
    path = write_enhanced(
        tmp_path / "scan.dcm",
        np.repeat(VOXELS[:8], 2, axis=0)[:12] + np.tile([0, 1000], 6)[:, None, None].astype(np.int16),
        positions(frames),
        lambda k: {"FrameContentSequence": {"FrameAcquisitionNumber": k % 2 + 1}},
    )
    with pytest.raises(ScanError, match=r"the file holds 2 scans: .*\(acquisition 1, .*\(acquisition 2, "):
        read_volume(path)


def test_a_survey_beside_the_slices(tmp_path):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN)
    survey = {"PixelSpacing": [1, 1], "ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    dicom_files.write(folder / "survey.dcm", noise(20, 30, dtype=np.int16), **survey)
    with pytest.raises(ScanError, match=r"view 1, 11 x 10 x 12.*view 2, 30 x 20 x 1"):
        read_volume(folder)
    holds(read_volume(folder, series=1), grid())


def test_folders_of_a_disc(tmp_path):
    """A disc from a clinic holds an index, and its images in folders below."""
    write_series(tmp_path / "DICOM" / "PAT0", VOXELS, ORIGIN)
    holds(read_volume(tmp_path), grid())
    index = tmp_path / "DICOMDIR"
    index.write_bytes((tmp_path / "DICOM" / "PAT0" / "IM0000.dcm").read_bytes().split(b"\xe0\x7f\x10\0")[0])
    holds(read_volume(tmp_path), grid())


def test_old_files_without_a_mark(tmp_path):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN)
    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[content.index(b"\x08\0\x16\0") :])
    holds(read_volume(folder), grid())


# --- spellings --------------------------------------------------------------------------------------------------------

SYNTAXES = {
    "implicit": ("1.2.840.10008.1.2", True, True),
    "big-endian": ("1.2.840.10008.1.2.2", False, False),
    "deflated": ("1.2.840.10008.1.2.1.99", False, True),
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("enhanced", [False, True])
def test_transfer_syntaxes(tmp_path, syntax, enhanced):
    uid, implicit, little = SYNTAXES[syntax]
    if enhanced:
        write_enhanced(tmp_path / "scan" / "a.dcm", VOXELS, positions(range(12)))
    else:
        write_series(tmp_path / "scan", VOXELS, ORIGIN)
    for path in (tmp_path / "scan").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = uid
        if not little:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        for sequence in (element for element in dataset.iterall() if element.VR == "SQ"):
            sequence.is_undefined_length = True
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little)
    holds(read_volume(tmp_path / "scan"), grid())


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000", "JPEGLS"])
def test_compressed_slices(tmp_path, compressor):
    """Their headers are read by pydicom, their voxels decoded by GDCM within SimpleITK."""
    folder = write_series(tmp_path / "scan", VOXELS.astype(np.uint16), ORIGIN)
    for path in folder.iterdir():
        plain = pydicom.dcmread(path)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetFileName(str(path))
        writer.Execute(sitk.GetImageFromArray(plain.pixel_array[None]))
        packed = pydicom.dcmread(path)
        assert packed.file_meta.TransferSyntaxUID.is_compressed
        for element in plain:
            if element.tag.group == 0x20 or element.keyword == "PixelSpacing":
                packed[element.tag] = element
        packed.save_as(path)
    holds(read_volume(folder), grid())


def test_a_text_in_the_file_s_own_characters(tmp_path):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN)
    write_series(tmp_path / "scan", VOXELS, ORIGIN, start=12, SeriesInstanceUID="1.2.3.5")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.SeriesDescription = "Knochen früh" if dataset.SeriesInstanceUID == "1.2.3.4" else "Knochen spät"
        dataset.save_as(path)
    holds(read_volume(folder, series="knochen spät"), grid())


def test_what_pydicom_warns_of_is_not_heard(tmp_path, capfd, recwarn):
    header = {"SeriesDescription": "x" * 100, "InstanceNumber": lambda k: f"{k}.0", "SliceThickness": "1,5"}
    holds(read_volume(write_series(tmp_path / "scan", VOXELS, ORIGIN, **header)), grid())
    assert not recwarn.list and capfd.readouterr() == ("", "")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(PackageError, match=r'DICOM needs pydicom; install it: pip install "pydicom"'):
        read_volume(write_series(tmp_path / "scan", VOXELS, ORIGIN))


@pytest.mark.parametrize("place", ["first", "second", "mark"])
def test_a_damaged_length_of_packed_pixels_asks_for_no_memory(tmp_path, monkeypatch, place):
    """A slice of 1.4 KB asked for 2.9 GB."""
    values = noise(8, 20, 30)
    folder = dicom_files.write_series(tmp_path, values, (1, 2, 3))
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        header.compress(RLELossless)
        header.save_as(file)
    assert np.array_equal(read_volume(folder).voxels, values)
    content = bytearray((folder / "IM0003.dcm").read_bytes())
    item = b"\xfe\xff\x00\xe0"
    first = content.index(item)
    second = content.index(item, first + 4)
    at = {"first": first + 4, "second": second + 4, "mark": second}[place]
    struct.pack_into("<I", content, at, 0x7FFFFFF0)
    (folder / "IM0003.dcm").write_bytes(content)
    monkeypatch.setattr("DNetRegistrationLib.imaging.itk_reader.read_itk", lambda *_arguments, **_options: 1 / 0)
    with pytest.raises(ScanError, match=r"IM0003\.dcm: cannot be read \(its DICOM header is damaged\)"):
        read_volume(folder)


def trailing(number: int, kind: bytes, length: int, value: bytes = b"") -> bytes:
    return struct.pack("<HH2sHI", number >> 16, number & 0xFFFF, kind, 0, length) + value


@pytest.mark.parametrize(
    "garbage",
    [
        *(np.random.default_rng(seed).bytes(2000) for seed in range(4)),
        struct.pack("<HHI", 0x7FE1, 0x1010, 0x7FFFFFF0) + b"x" * 50,
        trailing(0x7FE11010, b"OB", 0x3FFFFFF0, b"x" * 50),
        trailing(0xFFFCFFFC, b"OB", 8, bytes(8)) + np.random.default_rng(9).bytes(500),
    ],
    ids=lambda garbage: garbage[:4].hex(),
)
def test_garbage_after_the_pixels_asks_for_no_memory(tmp_path, monkeypatch, garbage):
    """Of 2000 random bytes ITK asked for up to 4 GB, and refused the file then."""
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN)
    with (folder / "IM0003.dcm").open("ab") as file:
        file.write(garbage)
    monkeypatch.setattr("DNetRegistrationLib.imaging.itk_reader.read_itk", lambda *_arguments, **_options: 1 / 0)
    with pytest.raises(ScanError, match=r"IM0003\.dcm: cannot be read \(its DICOM header is damaged\)"):
        read_volume(folder)


@pytest.mark.parametrize(
    "rest",
    [
        trailing(0xFFFCFFFC, b"OB", 8, bytes(8)),
        b"ab",
        trailing(0x7FE11010, b"UN", 4, b"abcd") + struct.pack("<HH2sH", 0x7FE1, 0x1011, b"LO", 2) + b"x ",
    ],
    ids=["padding", "two bytes", "private"],
)
def test_what_may_follow_the_pixels_is_no_damage(tmp_path, rest):
    folder = write_series(tmp_path / "scan", VOXELS, ORIGIN)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes() + rest)
    holds(read_volume(folder), grid())
