"""`dnet-registration demo`."""

import re
import shlex

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.cli.main import build_parser, main
from DNetRegistrationLib.imaging.volume import read_volume


def test_demo_shows_the_true_error(small_pair, tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "--output", str(folder), "--size", "32", "--spacing", "0.16", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    media = (small_pair.fixed_session.background, small_pair.moving_session.background)
    assert re.search(r"the first in\s(\w+), the second in (\w+) with contrast agent", out).groups() == media
    truth, found = (sitk.ReadTransform(str(folder / name)) for name in ("truth.tfm", "transform.tfm"))
    pair = small_pair
    bone = np.argwhere(pair.fixed_bone)[:, ::-1]
    points = pair.fixed.to_world(bone[::17])
    gap = [np.subtract(truth.TransformPoint(p), found.TransformPoint(p)) for p in points.tolist()]
    expected = 1000 * np.linalg.norm(gap, axis=1).mean()
    shown = float(re.search(r"true error +([0-9.]+) um", out)[1])
    assert shown == pytest.approx(expected, rel=0.05, abs=0.02)
    assert {path.name for path in folder.iterdir()} == {
        "fixed.nrrd", "moving.nrrd", "truth.tfm", "transform.tfm", "report.json", "overlay.png", "resampled.nrrd",
        "segmentation.seg.nrrd", "subtraction.nrrd",
    }  # fmt: skip
    np.testing.assert_array_equal(read_volume(folder / "moving.nrrd").voxels, pair.moving.voxels)
    # What it says it ran is a command.
    build_parser().parse_args(shlex.split(re.search(r"dnet-registration (align .*)", out)[1]))
