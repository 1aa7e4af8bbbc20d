"""Headers alone tell size and geometry as reading the scan does, and what is wrong as far as they show it."""

import os
from dataclasses import dataclass

import damaged_files
import dicom_files
import numpy as np
import pytest
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.imaging.reading import read_image
from DNetRegistrationLib.imaging.truncation import gzip_seems_whole
from DNetRegistrationLib.imaging.volume import Volume, read_header, read_volume, write_volume
from grids import noise


@dataclass
class Refused:
    """A scan that cannot be read whole."""

    message: str


def outcome(path, header_only):
    try:
        return read_image(path, header_only=header_only)
    except ScanError as error:
        return Refused(str(error))


def test_headers_of_all_kinds_of_scan_give_what_reading_gives(tmp_path):
    originals = damaged_files.scans(tmp_path)
    assert len(originals) > 20
    for original in originals:
        whole, header = read_image(original.path), read_image(original.path, header_only=True)
        assert header.voxels.shape == whole.voxels.shape, original.path
        assert header.voxels.dtype.itemsize >= whole.voxels.dtype.itemsize, original.path
        assert not any(header.voxels.strides), original.path
        assert (header.affine == whole.affine).all() and header.lacks == whole.lacks, original.path


def test_a_file_that_was_cut_short_is_told_by_its_header_and_length(tmp_path):
    """A compressed file too, and DICOM and TIFF; but not a further slice of a stack, which is a file of its own."""
    cut = 0
    for original in damaged_files.scans(tmp_path):
        if original.path.is_dir():
            continue
        file = max(original.files, key=lambda one: one.stat().st_size)
        os.truncate(file, int(file.stat().st_size * 0.6))
        whole, header = outcome(original.path, False), outcome(original.path, True)
        assert isinstance(whole, Refused), original.path
        assert isinstance(header, Refused), original.path
        cut += 1
    assert cut >= 15


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".nii", ".mha"])
def test_an_oblique_left_handed_anisotropic_grid_off_the_origin(tmp_path, ending):
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned[:, 0] *= -np.sign(np.linalg.det(turned))
    scan = Volume.from_geometry(noise(9, 10, 11), (0.01, 0.02, 0.04), turned, (5.0, -7.0, 300.0))
    assert np.linalg.det(scan.direction) < 0
    write_volume(scan, tmp_path / f"scan{ending}")
    header = read_header(tmp_path / f"scan{ending}")
    assert (header.affine == read_volume(tmp_path / f"scan{ending}").affine).all()
    assert header.size.tolist() == [11, 10, 9] and np.allclose(header.affine, scan.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("spacing", "shape", "told"),
    [
        (1.0, (9, 9, 9), "voxel size were lost"),
        ((0.01, 0.01, 1.0), (9, 9, 9), "slice distance"),
        (0.16, (9, 9, 4), "only 4 voxels along x"),
    ],
)
def test_what_headers_show_is_said_in_the_words_of_reading(tmp_path, spacing, shape, told):
    write_volume(Volume.from_geometry(noise(*shape), spacing), tmp_path / "scan.nrrd")
    with pytest.raises(ScanError, match=told) as by_header:
        read_header(tmp_path / "scan.nrrd", role="fixed")
    with pytest.raises(ScanError) as by_reading:
        read_volume(tmp_path / "scan.nrrd", role="fixed")
    assert by_header.value.args == by_reading.value.args


def test_a_spacing_that_is_given_counts(tmp_path):
    write_volume(Volume.from_geometry(noise(9, 9, 9), 1.0), tmp_path / "scan.nrrd")
    header = read_header(tmp_path / "scan.nrrd", spacing=(0.01, 0.02, 0.03), name="told")
    assert header.spacing.tolist() == [0.01, 0.02, 0.03] and header.spacing_given and header.name == "told"


def test_a_missing_slice_of_dicom_is_told(tmp_path):
    folder = dicom_files.write_series(tmp_path / "series", noise(12, 9, 10), (1, 2, 3))
    sorted(folder.iterdir())[5].unlink()
    with pytest.raises(ScanError, match="one is missing"):
        read_header(folder)


def test_the_length_at_the_end_of_a_gzip_file(tmp_path):
    import gzip

    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(bytes(1000)))
    assert gzip_seems_whole(file, 1000) and gzip_seems_whole(file, 990, rest=10)
    assert not gzip_seems_whole(file, 999) and not gzip_seems_whole(file, 989, rest=10)
    file.write_bytes(b"\x1f\x8b")
    assert not gzip_seems_whole(file, 1000)
