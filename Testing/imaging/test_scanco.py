"""ISQ and AIM of Scanco's scanners, written here by the layouts that Scanco documents; and kinds that are not read."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from DNetRegistrationLib.core.errors import PackageError, ScanError
from DNetRegistrationLib.imaging.scan_folders import find_scans
from DNetRegistrationLib.imaging.volume import read_volume
from grids import noise

VOXELS = (noise(12, 10, 11, dtype=np.int16) * 40 - 500).astype(np.int16)
MU_SCALING, MU_WATER, SLOPE, INTERCEPT = 4096, 0.2409, 0.39, -385.5
HU = 1000 * (VOXELS / MU_SCALING - MU_WATER) / MU_WATER
LOG = f"""! Processing Log
Mu_Scaling                                        {MU_SCALING}
HU: mu water                                   {MU_WATER}
Density: unit                                mg HA/ccm
Density: slope                          {SLOPE * MU_SCALING:.8e}
Density: intercept                      {INTERCEPT:.8e}
"""


def vms(value: float) -> bytes:
    """A number of VMS (G_floating): four times its value in IEEE, the most significant word first."""
    return struct.pack("<4H", *struct.unpack(">4H", struct.pack(">d", 4 * value)))


def write_isq(path: Path, lengths_um=(110, 200, 360), calibrated=True, mu_water=MU_WATER) -> Path:
    z, y, x = VOXELS.shape
    header = bytearray(512 * (8 if calibrated else 1))
    header[:16] = b"CTDATA-HEADER_V1"
    numbers = {
        16: 3,
        20: len(header) + VOXELS.nbytes,
        24: 1 + VOXELS.nbytes // 512,
        44: x,
        48: y,
        52: z,
        88: MU_SCALING,
    }
    for place, value in {**numbers, 508: len(header) // 512 - 1}.items():
        struct.pack_into("<i", header, place, value)
    struct.pack_into("<6i", header, 44, x, y, z, *lengths_um)
    if calibrated:
        start = 1024
        header[start + 8 : start + 19] = b"Calibration"
        for place, value in ((1176, SLOPE), (1184, INTERCEPT), (1200, mu_water)):
            header[start + place : start + place + 8] = vms(value)
    path.write_bytes(bytes(header) + VOXELS.astype("<i2").tobytes())
    return path


def write_aim(path: Path, log: str = LOG, kind: int = 0x20002, position=(7, -8, 9)) -> Path:
    z, y, x = VOXELS.shape
    blocks = struct.pack("<4i", 0o30, 0, 0, kind) + struct.pack("<6q", *position, x, y, z) + bytes(5 * 24)
    blocks += struct.pack("<3q", 10000, 20000, 30000) + bytes(16)  # the voxel size in nm
    text, data = log.encode() + b"\0", VOXELS.astype("<i2").tobytes()
    lengths = struct.pack("<5q", 40, len(blocks), len(text), len(data), 0)
    path.write_bytes(b"AIMDATA_V030   \0" + lengths + blocks + text + data)
    return path


@pytest.fixture
def aimio():
    return pytest.importorskip("py_aimio", reason="aimio-py is not installed")


@pytest.mark.parametrize("name", ["scan.isq", "SCAN.ISQ", "C0001.ISQ;1"])
def test_isq_is_read_in_hounsfield_units(tmp_path, aimio, name):
    volume = read_volume(write_isq(tmp_path / name))
    np.testing.assert_allclose(volume.affine, np.diag((0.01, 0.02, 0.03, 1)), rtol=0, atol=1e-15)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels, HU, rtol=0, atol=1e-3)


def test_isq_with_no_value_of_water_is_read_as_density(tmp_path, aimio):
    volume = read_volume(write_isq(tmp_path / "scan.isq", mu_water=0))
    np.testing.assert_allclose(volume.voxels, VOXELS * SLOPE + INTERCEPT, rtol=0, atol=1e-3)


def test_isq_without_calibration_is_read_as_stored(tmp_path, aimio):
    volume = read_volume(write_isq(tmp_path / "scan.isq", calibrated=False))
    assert volume.voxels.dtype == np.int16 and np.array_equal(volume.voxels, VOXELS)


def test_aim_is_read_in_hounsfield_units(tmp_path, aimio):
    volume = read_volume(write_aim(tmp_path / "scan.AIM"))
    np.testing.assert_allclose(volume.spacing, (0.01, 0.02, 0.03), rtol=1e-6)
    np.testing.assert_allclose(volume.origin, (0.07, -0.16, 0.27), rtol=1e-6)
    np.testing.assert_allclose(volume.voxels, HU, rtol=0, atol=1e-3)


def test_aim_without_a_log_is_read_as_stored(tmp_path, aimio):
    assert np.array_equal(read_volume(write_aim(tmp_path / "scan.aim", log="")).voxels, VOXELS)


def test_packed_voxels_are_refused(tmp_path, aimio):
    with pytest.raises(ScanError, match="packed or real voxels, as segmentations do; give the grey values"):
        read_volume(write_aim(tmp_path / "scan.aim", kind=0x80002))


@pytest.mark.parametrize(
    ("name", "way_out"), [("scan.ISQ", "3D Slicer, which reads ISQ"), ("scan.AIM", "export DICOM")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, way_out):
    monkeypatch.setitem(sys.modules, "py_aimio", None)
    (tmp_path / name).write_bytes(b"any")
    with pytest.raises(PackageError) as caught:
        read_volume(tmp_path / name)
    assert f"{name[5:]} of a Scanco scanner needs aimio-py" in caught.value.problem
    assert 'pip install "dnet-registration[scanco]"' in caught.value.remedy and way_out in caught.value.remedy


@pytest.mark.parametrize("write", [write_isq, write_aim])
def test_files_cut_anywhere_are_refused(tmp_path, aimio, write):
    content = write(tmp_path / "whole").read_bytes()
    path = tmp_path / f"scan.{write.__name__[-3:]}"
    for length in (3, 15, 20, 60, 300, 511, 512, 600, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ScanError, match=r"ends early|damaged"):
            read_volume(path)


@pytest.mark.parametrize("write", [write_isq, write_aim])
def test_damaged_headers_are_refused_or_read(tmp_path, aimio, write):
    """Sizes that are too large end the process within aimio-py."""
    content = write(tmp_path / "whole").read_bytes()
    path = tmp_path / f"scan.{write.__name__[-3:]}"
    random, header = np.random.default_rng(7), len(content) - VOXELS.nbytes
    for _ in range(300):
        damaged = bytearray(content)
        for at in random.integers(min(header, 512), size=random.integers(1, 4)):
            damaged[at] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_volume(path, spacing=0.01)
        except ScanError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("lengths", [(0, 200, 360), (-110, 200, 360)])
def test_voxels_without_a_size_are_refused(tmp_path, aimio, lengths):
    with pytest.raises(ScanError, match="spacing"):
        read_volume(write_isq(tmp_path / "scan.isq", lengths))


def test_folders_of_scans_have_them(tmp_path):
    for name in ("a_pre.isq", "a_post.AIM"):
        (tmp_path / name).touch()
    (pair,) = find_scans(tmp_path).pairs
    assert (pair.name, pair.pre.name, pair.post.name) == ("a", "a_pre.isq", "a_post.AIM")


# --- kinds that are not read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "what", "way_out"),
    [
        ("scan.vff", "GE's eXplore", "scanner's software"), ("scan.vgi", "Volume Graphics", "VGStudio"),
        ("scan.TXM", "Zeiss's Xradia", "scanner's software"), ("scan.vox", "Quantum scanners", "scanner's software"),
        ("scan.h5", "HDF5 of another layout", "as NRRD"), ("scan.mat", "MATLAB", "as NRRD"),
        ("scan.zip", "a zip archive", "unpack it"), ("scan.rsq", "projections of a Scanco", "as DICOM"),
    ],
)  # fmt: skip
def test_a_kind_that_is_not_read_is_named_with_the_way_out(tmp_path, name, what, way_out):
    (tmp_path / name).write_bytes(b"content" * 200)
    with pytest.raises(ScanError) as caught:
        read_volume(tmp_path / name)
    assert what in caught.value.problem and "which is not read" in caught.value.problem
    assert way_out in caught.value.remedy


def test_zarr_is_named(tmp_path):
    (tmp_path / "scan.zarr").mkdir()
    (tmp_path / "scan.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(ScanError, match=r"is a Zarr array, which is not read; write the voxels as NRRD"):
        read_volume(tmp_path / "scan.zarr")
