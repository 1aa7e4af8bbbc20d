"""`dnet-registration synthesize`."""

import numpy as np
import SimpleITK as sitk
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.synthesis.pairs import make_pair


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
