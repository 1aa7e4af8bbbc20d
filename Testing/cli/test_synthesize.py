"""`dnet-registration synthesize`."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.synthesis.pairs import JOINT, make_pair


def test_synthesize(tmp_path, capsys):
    folder = tmp_path / "pairs"
    arguments = ["--count", "2", "--size", "24", "--spacing", "0.2", "--seed", "5", "--format", ".mha", "--no-contrast"]
    assert main(["synthesize", str(folder), *arguments]) == 0
    names = [f"000{n}_{what}" for n in (1, 2) for what in ("fixed.mha", "moving.mha", "truth.tfm")]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "truth.csv"]
    pair = make_pair(6, size=24, spacing=0.2, contrast=False)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(folder / names[3]))), pair.fixed.voxels)
    assert "2 pairs" in capsys.readouterr().out


def test_varied_agent(tmp_path):
    arguments = ["--count", "1", "--size", "20", "--spacing", "0.24", "--seed", "5", "--agent", "varied"]
    assert main(["synthesize", str(tmp_path), *arguments]) == 0
    pair = make_pair(5, size=20, spacing=0.24, agent="varied")
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "0001_moving.nrrd")))
    np.testing.assert_array_equal(written, pair.moving.voxels)


def test_any_seed_that_the_docs_name_can_be_given(tmp_path):
    arguments = ["--count", "1", "--size", "20", "--spacing", "0.24", "--seed", "8100000", "--clean"]
    assert main(["synthesize", str(tmp_path), *arguments]) == 0
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "0001_fixed.nrrd")))
    np.testing.assert_array_equal(written, make_pair(8100000, size=20, spacing=0.24, clean=True).fixed.voxels)


def test_a_joint_is_looked_at_from_near(tmp_path):
    assert main(["synthesize", str(tmp_path), "--count", "1", "--seed", "5", "--size", "20", "--joint"]) == 0
    pair = make_pair(5, size=20, spacing=0.02, max_translation=0.1, focus=JOINT)
    written = sitk.ReadImage(str(tmp_path / "0001_moving.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), pair.moving.voxels)
    assert written.GetSpacing() == pytest.approx((0.02, 0.02, 0.02))


@pytest.mark.slow
def test_cartilage_can_be_tried_as_the_documentation_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "cartilage.md").read_text(encoding="utf-8")
    commands = page.partition("## Try it")[2].partition("```text\n")[2].partition("```")[0].replace("\\\n", " ")
    for command in commands.splitlines():
        assert main(command.split()[1:]) == 0
    with open("cartilage.csv", newline="") as stream:
        medial, lateral, _ = csv.DictReader(stream)
    stated = [float(row["mean_thickness_um"]) for row in (medial, lateral)]
    assert stated == pytest.approx((34.7, 41.3), abs=2) and medial["sides_known"] == "true"
    with open("joints/truth.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert [round(float(row[f"medial_mm_{axis}"]), 2) for axis in (1, 2, 3)] == [0.59, 1.47, -1.00]
