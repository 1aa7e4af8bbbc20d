"""Bad input, through the command line: one line that names the file and the remedy, status 2, nothing written."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from command import run
from DNetRegistrationLib import ScanError, align
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.imaging.volume import Volume, write_volume
from DNetRegistrationLib.networks import weights
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

GRID = dict(spacing=0.08)


@pytest.fixture(scope="session")
def good(pair_files):
    """A scan that can be aligned."""
    return pair_files[0]


def scan(path: Path, voxels, **geometry) -> Path:
    write_volume(Volume.from_geometry(voxels, **{**GRID, **geometry}), path)
    return path


def noise(*shape, dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(1).normal(100, 10, shape).astype(dtype)


def missing(folder):
    return folder / "nowhere.nrrd"


def text(folder):
    (folder / "notes.txt").write_text("the scan is on the other disk\n")
    return folder / "notes.txt"


def text_named_as_a_scan(folder):
    (folder / "notes.nrrd").write_text("the scan is on the other disk\n")
    return folder / "notes.nrrd"


def folder_without_images(folder):
    (folder / "letters").mkdir()
    (folder / "letters" / "a.txt").write_text("no scan")
    return folder / "letters"


def flat(folder):
    sitk.WriteImage(sitk.GetImageFromArray(noise(64, 64)), str(folder / "flat.nrrd"))
    return folder / "flat.nrrd"


def colour(folder):
    sitk.WriteImage(sitk.GetImageFromArray(noise(16, 16, 16, 3), isVector=True), str(folder / "rgb.nrrd"))
    return folder / "rgb.nrrd"


def empty(folder):
    (folder / "empty.nrrd").touch()
    return folder / "empty.nrrd"


def truncated(folder):
    path = scan(folder / "cut.nrrd", noise(32, 32, 32))
    path.write_bytes(path.read_bytes()[:20000])
    return path


def constant(folder):
    return scan(folder / "constant.nrrd", np.full((32, 32, 32), 7, np.int16))


def all_nan(folder):
    return scan(folder / "nan.nrrd", np.full((32, 32, 32), np.nan, np.float32))


def no_bone(folder):
    return scan(folder / "water.nrrd", noise(48, 48, 48))


def thin(folder):
    return scan(folder / "thin.nrrd", noise(7, 64, 64))


def _with_spacing(path, first):
    """A MetaImage whose header gives this spacing along x."""
    content = scan(path, noise(32, 32, 32)).read_bytes()
    path.write_bytes(re.sub(rb"ElementSpacing = \S+", b"ElementSpacing = " + first, content, count=1))
    return path


def spacing_zero(folder):
    return _with_spacing(folder / "zero.mha", b"0")


def spacing_negative(folder):
    return _with_spacing(folder / "negative.mha", b"-0.08")


def spacing_lost(folder):
    (folder / "stack").mkdir()
    for z in range(12):
        sitk.WriteImage(sitk.GetImageFromArray(noise(16, 16, dtype=np.uint8)), str(folder / "stack" / f"{z:03}.tif"))
    return folder / "stack"


def spacing_of_the_table(folder):
    return scan(folder / "table.nrrd", noise(256, 24, 24), spacing=1.0)


def name_too_long(folder):
    return folder / f"{'scan' * 80}.nrrd"


def misnamed(folder):
    return scan(folder / "scan.nrrd", noise(16, 16, 16)).rename(folder / "scan.tif")


# What makes the scan, and what the message must say besides its name.
SCANS = {
    missing: "check the path",
    name_too_long: "check the path",
    misnamed: "rename it, so that it ends in .nrrd",
    text: "give NRRD",
    text_named_as_a_scan: "",
    folder_without_images: "give a folder of",
    flat: "give a 3D scan",
    colour: "one grey value",
    empty: "copy the scan again",
    truncated: "copy or export it again",
    constant: "",
    all_nan: "",
    no_bone: "threshold",
    thin: "at least 8",
    spacing_zero: "correct the voxel size",
    spacing_negative: "correct the voxel size",
    spacing_lost: "--{role}-spacing",
    spacing_of_the_table: "--{role}-spacing",
}


def outputs(folder: Path) -> list[str]:
    """Options for some outputs in a folder of their own."""
    folder.mkdir()
    return ["--transform", f"{folder}/t.tfm", "--report", f"{folder}/r.json", "--resampled", f"{folder}/m.nrrd"]


def refused(arguments, capfd, *words) -> str:
    """Runs a command that must fail, and returns what it says."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("dnet-registration: error: ")
    assert "unexpected" not in captured.err
    for word in words:
        assert str(word) in captured.err
    return captured.err


@pytest.mark.parametrize("role", ["fixed", "moving"])
@pytest.mark.parametrize("make", SCANS, ids=lambda make: make.__name__)
def test_scan(make, role, good, tmp_path, capfd):
    bad = make(tmp_path)
    order = [bad, good] if role == "fixed" else [good, bad]
    before = sorted(tmp_path.rglob("*"))
    options = outputs(tmp_path / "out")
    refused(["align", *order, *options], capfd, bad, SCANS[make].format(role=role))
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "out"])


def test_spacing_lost_in_one_of_two(pair, good, tmp_path, capfd):
    big = scan(tmp_path / "big.nrrd", pair.moving.voxels, spacing=1.0, origin=(7, 0, 0))
    refused(["align", good, big], capfd, good, big, "--moving-spacing")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fixed-spacing", "0"], ["--fixed-spacing", "positive"]),
        (["--fixed-spacing=-0.01"], ["--fixed-spacing", "positive"]),
        (["--moving-spacing", "nan"], ["--moving-spacing"]),
        (["--moving-spacing", "0.01,0.02"], ["--moving-spacing"]),
        (["--fixed-threshold", "1e9"], ["fixed.nrrd", "lower the threshold"]),
        (["--moving-threshold", "1e9"], ["fixed.nrrd", "lower the threshold"]),
        (["--fixed-threshold", "nan"], ["--fixed-threshold"]),
        (["--device", "abacus"], ["abacus", "cpu"]),
        (["--working-spacing", "0"], ["working spacing", "above 0"]),
        (["--working-spacing", "-1"], ["working spacing"]),
        (["--working-spacing", "nan"], ["--working-spacing"]),
        (["--working-spacing", "1000"], ["working spacing"]),
        (["--weights", "nowhere.pt"], ["nowhere.pt"]),
        (["--initial", "nowhere.tfm"], ["nowhere.tfm"]),
        (["--fixed-mask", "nowhere.nrrd"], ["nowhere.nrrd"]),
    ],
)
def test_option(options, words, good, tmp_path, capfd):
    refused(["align", good, good, *options, *outputs(tmp_path / "out")], capfd, *words)
    assert list((tmp_path / "out").iterdir()) == []


def test_network_without_weights(good, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    refused(["align", good, good, "--hypotheses", "dnet", *outputs(tmp_path / "out")], capfd, "weights")
    assert list((tmp_path / "out").iterdir()) == []


def test_initial_that_is_no_rigid_transform(good, tmp_path, capfd):
    scaling = sitk.AffineTransform(3)
    scaling.Scale(2.0)
    sitk.WriteTransform(scaling, str(tmp_path / "scaling.tfm"))
    refused(["align", good, good, "--initial", tmp_path / "scaling.tfm"], capfd, tmp_path / "scaling.tfm", "rigid")
    (tmp_path / "words.tfm").write_text("turn it a little\n")
    refused(["align", good, good, "--initial", tmp_path / "words.tfm"], capfd, tmp_path / "words.tfm", ".tfm")
    (tmp_path / "words.h5").write_text("turn it a little\n")
    refused(["align", good, good, "--initial", tmp_path / "words.h5"], capfd, tmp_path / "words.h5", ".tfm")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
def test_names_that_are_not_utf8(good, tmp_path):
    """As of files from an old disk. In a process of its own, since ITK ends it."""
    odd = os.fsencode(tmp_path) + b"/M\xe4use"
    os.mkdir(odd)
    for name in (b"scan.nrrd", b"start.tfm"):
        shutil.copy(good, odd + b"/" + name)
    for arguments in (
        [odd + b"/scan.nrrd"], [odd], [good, "--initial", odd + b"/start.tfm"], [good, "--resampled", odd + b"/o.nrrd"],
        [good, "--moving-mask", odd + b"/scan.nrrd"], [good, "--transform", odd + b"/o.tfm"],
    ):  # fmt: skip
        done = run("align", good, *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""
        assert "its name is not UTF-8" in done.stderr


def test_mask_that_lies_elsewhere(good, pair, tmp_path, capfd):
    mask = np.zeros(pair.fixed.voxels.shape, np.uint8)
    elsewhere = scan(tmp_path / "mask.nrrd", mask + 1, origin=(50, 0, 0))
    refused(
        ["align", good, good, "--moving-mask", elsewhere], capfd, elsewhere, good, "lies elsewhere", "--moving-mask"
    )
    empty = scan(tmp_path / "small.nrrd", mask[:40])
    refused(["align", good, good, "--fixed-mask", empty], capfd, f"{empty}: the mask is empty", "--fixed-mask")
    refused(["align", good, good, "--fixed-segment", "Femur"], capfd, good, "Femur", "--fixed-mask")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/t.tfm", ["create"]),
        ("t.txt", [".tfm"]),
        ("t", [".tfm"]),
        ("../folder.tfm", ["folder"]),
        ("../fixed.nrrd/t.tfm", ["folder"]),
    ],
)
def test_output(name, words, good, tmp_path, capfd):
    (tmp_path / "fixed.nrrd").write_text("a file, not a folder")
    (tmp_path / "out").mkdir()
    (tmp_path / "folder.tfm").mkdir()
    path = tmp_path / "out" / name
    refused(["align", good, good, "--transform", path, "--report", tmp_path / "out" / "r.json"], capfd, path, *words)
    assert list((tmp_path / "out").iterdir()) == []


def test_output_that_would_replace_a_scan(good, capfd):
    before = good.read_bytes()
    refused(["align", good, good, "--resampled", good], capfd, good, "name of its own")
    assert good.read_bytes() == before


@pytest.mark.parametrize("option", ["--resampled", "--subtraction"])
def test_output_that_cannot_hold_a_sheared_grid(option, good, pair, tmp_path, capfd):
    affine = pair.fixed.affine.copy()
    affine[1, 2] = 0.1 * affine[2, 2]  # a gantry that is tilted by 6 degrees
    sheared, out = tmp_path / "sheared.nrrd", tmp_path / "out.nii.gz"
    write_volume(Volume(pair.fixed.voxels, affine), sheared)
    refused(["align", sheared, tmp_path / "not-read.nrrd", option, out], capfd, out, sheared, "sheared", ".nrrd")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full, which is always full, and a read-only folder")
def test_output_that_cannot_be_written(good, capfd):
    refused(["align", good, good, "--report", "/proc/r.json"], capfd, "/proc/r.json", "elsewhere")


@pytest.mark.slow
def test_disk_full_while_writing(good, tmp_path):
    """The space runs out in the midst of a file: the largest size of files of the process stands for it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs RLIMIT_FSIZE")
    kept = tmp_path / "m.nrrd"
    kept.write_text("what was there before")
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
from DNetRegistrationLib.cli.main import main
sys.exit(main())
"""

    big = scan(tmp_path / "big.nrrd", np.repeat(np.repeat(np.repeat(_voxels(good), 2, 0), 2, 1), 2, 2), spacing=0.04)
    options = ["--refine", "none", "--resampled", str(kept), "--report", str(tmp_path / "r.json")]
    result = run("align", str(big), str(good), *options, code=code)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert f"{kept}: cannot be written" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.nrrd", "m.nrrd"]
    assert kept.read_text() == "what was there before"


def _voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_folders_that_cannot_be_made(tmp_path, capfd):
    (tmp_path / "file").touch()
    for command in (["demo", "--output"], ["synthesize"], ["benchmark", "--pairs", "0", "--output"]):
        for folder in (tmp_path / "file", tmp_path / "no" / "where"):
            refused([*command, folder], capfd, folder, "give another")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_one_line_in_a_process_of_its_own(good, tmp_path):
    """Nothing of ITK's own, and no traceback, gets past."""

    path = text_named_as_a_scan(tmp_path)
    result = run("align", str(good), str(path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert str(path) in result.stderr


def blob(shape, dtype, seed) -> np.ndarray:
    """A lump with a bright shell, in units that fit the dtype; noise, a cut or nothing at all for some seeds."""
    z, y, x = (np.linspace(-1, 1, n) for n in shape)
    generator = np.random.default_rng(seed)
    a, b, c = generator.uniform(0.3, 1.2, 3)
    radius = np.sqrt((z[:, None, None] / a) ** 2 + (y[None, :, None] / b) ** 2 + (x / c) ** 2)
    values = 20 + 60 * (radius < 0.9) + 40 * (np.abs(radius - 0.8) < 0.15) * (seed % 5 != 0)
    values = values + generator.normal(0, (0.1, 3, 10)[seed % 3], shape)
    if np.dtype(dtype).kind == "f" and seed % 2:
        values[: shape[0] // 4] = np.nan
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else values.clip(0, 127).astype(dtype)


DTYPES = (
    np.uint8,
    np.int8,
    np.int16,
    np.uint16,
    np.int32,
    np.uint32,
    np.int64,
    np.float16,
    np.float32,
    np.float64,
    bool,
)


GRIDS = st.fixed_dictionaries(
    {
        "shape": st.tuples(*[st.integers(6, 30)] * 3),
        "dtype": st.sampled_from(DTYPES),
        "seed": st.integers(0, 1000),
        "spacing": st.tuples(*[st.sampled_from((0.02, 0.05, 0.08, 0.3, 1.0))] * 3),
        "turn": st.tuples(*[st.floats(-3, 3)] * 3),
        "mirror": st.tuples(*[st.sampled_from((1.0, -1.0))] * 3),
        "origin": st.tuples(*[st.floats(-5000, 5000)] * 3),
    }
)


def volume(grid) -> Volume:
    direction = Rotation.from_rotvec(grid["turn"]).as_matrix() * grid["mirror"]
    voxels = blob(grid["shape"], grid["dtype"], grid["seed"])
    return Volume.from_geometry(voxels, grid["spacing"], direction, grid["origin"])


# Not shrunk, which would take minutes: what fails is small as it is.
@pytest.mark.slow
@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])
@given(fixed=GRIDS, moving=GRIDS, refine=st.sampled_from(["native", "working", "none"]))
def test_any_grid_is_aligned_or_refused_in_words(fixed, moving, refine):
    try:
        alignment = align(volume(fixed), volume(moving), refine=refine, hypotheses="search", device="cpu")
    except ScanError as error:
        assert "\n" not in str(error)
        return
    rotation = alignment.matrix[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) > 0
    assert np.isfinite(alignment.matrix).all()
    assert 0 <= alignment.confidence <= 1
    assert isinstance(alignment.accepted, bool)
