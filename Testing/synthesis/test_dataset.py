"""Synthetic pairs as files."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.synthesis.dataset import synthesize, write_pair
from DNetRegistrationLib.synthesis.pairs import make_pair


def test_synthesize_writes_pairs_with_their_truth(tmp_path):
    reports = []
    table = synthesize(tmp_path, 2, seed=7, size=16, spacing=0.3, progress=lambda *report: reports.append(report))
    names = {f"000{n}_{what}" for n in (1, 2) for what in ("fixed.nrrd", "moving.nrrd", "truth.tfm")}
    assert {p.name for p in tmp_path.iterdir()} == names | {"truth.csv"}
    assert reports[0][0] == 0 and reports[-1][0] == 1
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        pair = make_pair(7 + number, size=16, spacing=0.3)
        written = np.array([[float(row[f"m{i}{j}"]) for j in range(4)] for i in range(4)])
        assert np.array_equal(written, pair.matrix)
        transform = sitk.ReadTransform(str(tmp_path / f"{row['pair']}_truth.tfm"))
        point = np.array([0.3, -1.2, 0.7])
        np.testing.assert_allclose(
            transform.TransformPoint(point), pair.matrix[:3, :3] @ point + pair.matrix[:3, 3], atol=1e-9
        )
        image = sitk.ReadImage(str(tmp_path / f"{row['pair']}_moving.nrrd"))
        assert np.array_equal(sitk.GetArrayFromImage(image), pair.moving.voxels)
        np.testing.assert_allclose(image.GetOrigin(), pair.moving.origin)


def test_files_of_a_pair_appear_together_or_not_at_all(tmp_path, small_pair):
    with pytest.raises(FileError, match="folder does not exist"):
        write_pair(small_pair, tmp_path / "f.nrrd", tmp_path / "m.nrrd", tmp_path / "none" / "truth.tfm")
    assert not any(tmp_path.iterdir())


def test_the_table_is_plain(tmp_path):
    """Words stand without quotes of JSON, and numbers alone in a cell."""
    with open(synthesize(tmp_path, 1, seed=7, size=16, spacing=0.3, impostor=None), newline="") as stream:
        (row,) = csv.DictReader(stream)
    drawn = make_pair(7, size=16, spacing=0.3).drawn
    assert row["scale"] == drawn["scale"] and row["impostor"] == ""
    assert [row["backgrounds_1"], row["backgrounds_2"]] == drawn["backgrounds"]
    assert [float(row[f"shift_mm_{i}"]) for i in (1, 2, 3)] == drawn["shift_mm"]
    assert not any(set(cell) & set('"[]{}') for cell in row.values())


@pytest.mark.slow
def test_masks_are_the_truth(tmp_path):
    synthesize(tmp_path, 1, seed=7, size=24, spacing=0.2, truth=True)
    pair = make_pair(7, size=24, spacing=0.2)
    for role in ("fixed", "moving"):
        scan = getattr(pair, role)
        for what, wanted in (
            ("bone", getattr(pair, f"{role}_bone")),
            ("cartilage", getattr(pair, f"{role}_cartilage") / 255.0 >= 0.5),
        ):
            image = sitk.ReadImage(str(tmp_path / f"0001_{role}_{what}.nrrd"))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(image), wanted.astype(int))
            np.testing.assert_allclose(image.GetOrigin(), scan.origin)
    assert pair.fixed_bone.any()
    with open(tmp_path / "truth.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    middle = pair.cartilage.points[pair.cartilage.medial].mean(0)
    assert [float(row[f"medial_mm_{axis}"]) for axis in (1, 2, 3)] == pytest.approx(middle)
