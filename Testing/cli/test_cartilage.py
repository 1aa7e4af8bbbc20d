"""``cartilage``: what was aligned before is measured as after `align`, and only what is sure counts as accepted."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest
from alignments import made_alignment
from cartilages import made_measurement
from DNetRegistrationLib import Volume, write_transform, write_volume
from DNetRegistrationLib.bone.cortex import cortical_bone, dice
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.outputs.report import write_report


@pytest.fixture
def measured_with(monkeypatch):
    """What `measure_cartilage` was called with, while it does nothing."""
    calls = []

    def measure(alignment, plain, contrast, **options):
        calls.append({"alignment": alignment, "plain": plain.name, "contrast": contrast.name, **options})
        return made_measurement(accepted=alignment.accepted)

    monkeypatch.setattr(import_module("DNetRegistrationLib.cartilage.measure"), "measure_cartilage", measure)
    return calls


@pytest.fixture
def reported(pair, two, tmp_path):
    """Writes the report of an alignment of `pair` at the truth, with changes; returns the command's first words.

    `given` is another matrix for the file of the transform."""

    def write(given=None, **changes):
        thresholds = {"fixed_threshold": 1500.0, "moving_threshold": 1500.0}
        bones = [cortical_bone(getattr(pair, role), 1500.0, 0.08) for role in ("fixed", "moving")]
        values = {**thresholds, "matrix": pair.matrix, "dice": dice(*bones, pair.matrix), **changes}
        alignment = made_alignment(**values)
        write_report(alignment, pair.fixed, pair.moving, tmp_path / "report.json")
        write_transform(pair.matrix if given is None else given, tmp_path / "t.tfm")
        transform = ["--transform", str(tmp_path / "t.tfm")]
        return ["cartilage", *two, "--report", str(tmp_path / "report.json"), *transform]

    return write


def test_a_report_of_these_scans_vouches_for_the_alignment(reported, pair, two, measured_with, tmp_path, capsys):
    table = tmp_path / "c.csv"
    segmentation = tmp_path / "c.seg.nrrd"
    assert main([*reported(), "--cartilage", str(table), "--segmentation", str(segmentation)]) == 0
    (call,) = measured_with
    assert (call["plain"], call["contrast"], call["agent_in"], call["anyway"]) == (*two, "moving", False)
    found = call["alignment"]
    assert found.accepted and found.confidence == 0.97 and found.fixed_threshold == 1500
    np.testing.assert_allclose(found.matrix, pair.matrix, atol=1e-9)
    said = capsys.readouterr().out
    assert "Accepted: the bones" in said and "NOT TO BE TRUSTED" not in said and f"written           {table}" in said
    assert table.read_text().splitlines()[1].endswith("true") and segmentation.is_file()


def test_a_mask_is_looked_at_once(reported, pair, measured_with, tmp_path, monkeypatch):
    """Whether it is one of the bone itself was found for the check, and again for the segmentation."""
    write_volume(Volume(np.ones(pair.fixed.voxels.shape, np.uint8), pair.fixed.affine), tmp_path / "mask.nrrd")
    looked = []
    for name in ("bone.tight_masks", "outputs.segmentation"):
        module = import_module(f"DNetRegistrationLib.{name}")

        def widen(scan, mask, *others, reaching_past=module.reaching_past):
            looked.extend([] if mask is None else [scan.name])
            return reaching_past(scan, mask, *others)

        monkeypatch.setattr(module, "reaching_past", widen)
    words = [*reported(), "--segmentation", str(tmp_path / "c.seg.nrrd"), "--fixed-mask", str(tmp_path / "mask.nrrd")]
    assert main(words) == 0 and looked == [measured_with[0]["plain"]]


def test_the_transform_of_the_report_is_taken_where_none_is_given(reported, pair, measured_with):
    words = reported()
    assert main(words[: words.index("--transform")]) == 0
    np.testing.assert_allclose(measured_with[0]["alignment"].matrix, pair.matrix, atol=1e-9)


def test_a_transform_alone_is_measured_on_request_and_marked(reported, two, measured_with, tmp_path, capsys):
    reported()
    table = tmp_path / "c.csv"
    words = ["cartilage", *two, "--transform", str(tmp_path / "t.tfm"), "--cartilage", str(table)]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "whether this transform is right is not known" in said and "--anyway" in said
    assert not measured_with and not table.exists()
    assert main([*words, "--anyway", "--fixed-threshold", "1500"]) == 1
    assert "NOT TO BE TRUSTED" in capsys.readouterr().out
    assert table.read_text().splitlines()[1].endswith("false")
    assert not measured_with[0]["alignment"].accepted and measured_with[0]["alignment"].fixed_threshold == 1500


def _moved(matrix, shift):
    out = np.array(matrix)
    out[:3, 3] += shift
    return out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pair: {"given": _moved(pair.matrix, (0.001, 0, 0))}, "um from where its report says"),
        (lambda pair: {"dice": 0.99}, "overlap with a Dice of"),
        # Of scans in other grey values: all that is seen counts as bone and overlaps, or nothing does.
        (lambda pair: {"fixed_threshold": -1e5, "moving_threshold": -1e5}, "overlap with a Dice of 1.000, and its"),
        (lambda pair: {"moving_threshold": 1e5}, "the bone threshold of its report, 1e+05, finds no bone in "),
        (lambda pair: {"dice": np.nan}, "its report says unknown"),
        (lambda pair: {"accepted": False, "verdict": "Not accepted: no pose."}, "Not accepted: no pose."),
    ],
)
def test_a_report_that_does_not_fit_vouches_for_nothing(reported, pair, measured_with, capsys, change, reason):
    assert main(reported(**change(pair))) == 1
    assert reason in capsys.readouterr().out and not measured_with


def test_a_threshold_of_the_users_that_finds_no_bone_is_bad_input(reported, measured_with, capsys):
    assert main([*reported(), "--fixed-threshold", "1e5"]) == 2
    assert capsys.readouterr().err.endswith("(--fixed-threshold)\n") and not measured_with


def test_scans_in_the_other_order_are_not_accepted(reported, two, measured_with, capsys):
    words = reported()
    words[1:3] = reversed(two)
    assert main(words) == 1
    assert "overlap with a Dice of" in capsys.readouterr().out and not measured_with


def test_a_report_of_other_voxels_vouches_for_nothing(reported, measured_with, capsys):
    assert main([*reported(), "--fixed-spacing", "0.081"]) == 1
    said = capsys.readouterr().out
    assert "its report is of a fixed scan of 64 x 64 x 64 voxels of 0.08 x 0.08 x 0.08 mm" in said and not measured_with


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("matrix"),
        lambda values: values.update(accepted="false"),
        lambda values: values.update(warnings=None),
        lambda values: values.update(working_spacing=1e9),
        lambda values: values.update(matrix=[[float("nan")] * 4] * 4),
        lambda values: values["fixed"].update(size=[float("inf")] * 3),
        lambda values: values.update(fixed=[]),
    ],
)
def test_a_damaged_report_is_bad_input(reported, measured_with, tmp_path, capsys, change):
    words = reported()
    values = json.loads((tmp_path / "report.json").read_text())
    change(values)
    (tmp_path / "report.json").write_text(json.dumps(values))
    assert main(words) == 2 and not measured_with
    error = capsys.readouterr().err
    assert "is no report of an alignment" in error and error.endswith("(--report)\n") and error.count("\n") == 1


def test_without_an_alignment_there_is_nothing_to_measure(two, capsys):
    assert main(["cartilage", *two]) == 2
    assert capsys.readouterr().err.endswith("give the transform and the report of their alignment (--transform)\n")


def test_outputs_do_not_replace_what_is_read(reported, tmp_path, capsys):
    words = reported()
    assert main([*words, "--cartilage", str(tmp_path / "report.json")]) == 2
    assert "would replace one of the scans" in capsys.readouterr().err
    assert json.loads((tmp_path / "report.json").read_text())["accepted"]


def test_where_nothing_was_measured_the_status_says_so(reported, monkeypatch):
    without = made_measurement(agent=False)
    module = import_module("DNetRegistrationLib.cartilage.measure")
    monkeypatch.setattr(module, "measure_cartilage", lambda *a, **b: without)
    assert main(reported()) == 1


@pytest.mark.parametrize("command", ["align", "cartilage"])
def test_masks_region_and_side_are_passed_on(
    command, reported, pair, two, measured_with, aligned_with, tmp_path, capsys
):
    """Of the scan without agent, here the moving one."""
    z = np.indices(pair.moving.voxels.shape)[0]
    region, mask = np.where(z < 20, 1, np.where(z > 50, 2, 0)).astype(np.uint8), np.ones(z.shape, np.uint8)
    write_volume(Volume(region, pair.moving.affine), tmp_path / "region.nrrd")
    write_volume(Volume(mask, pair.moving.affine), tmp_path / "mask.nrrd")
    words = reported() if command == "cartilage" else ["align", *two, "--cartilage", str(tmp_path / "c.csv")]
    words += ["--contrast", "fixed", "--medial", "-1.5", "-2e-1", "0.25", "--moving-mask", str(tmp_path / "mask.nrrd")]
    assert main([*words, "--region", str(tmp_path / "region.nrrd"), "--region-segment", "2"]) == 0
    (call,) = measured_with
    assert call["plain"] == two[1] and call["medial"] == (-1.5, -0.2, 0.25)
    np.testing.assert_array_equal(call["region"], z > 50)
    assert call["mask"].all() and call["mask"].shape == z.shape


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        (["--region", "none.nrrd"], "(--region)"),
        (["--region-segment", "2"], "the segment 2 is given, but no mask; give the file of the mask too (--region)"),
        (["--region", "REGION", "--region-segment", "7"], "(--region-segment)"),
        (
            ["--region", "EMPTY"],
            "EMPTY.nrrd: the region of the joint is empty; mark where to look, or leave it out (--region)",
        ),
        (["--region", "FAR"], "FAR.nrrd: the region of the joint lies elsewhere, and holds no voxel of "),
    ],
)
def test_a_region_that_cannot_be_used(reported, pair, measured_with, tmp_path, capsys, extra, error):
    voxels = np.ones(pair.fixed.voxels.shape, np.uint8)
    write_volume(Volume(voxels, pair.fixed.affine), tmp_path / "REGION.nrrd")
    write_volume(Volume(0 * voxels, pair.fixed.affine), tmp_path / "EMPTY.nrrd")
    write_volume(Volume(voxels, pair.fixed.affine + 99 * np.eye(4, k=3)), tmp_path / "FAR.nrrd")
    extra = [str(tmp_path / f"{word}.nrrd") if word.isupper() else word for word in extra]
    assert main([*reported(), *extra]) == 2 and not measured_with
    said = capsys.readouterr().err
    assert error in said and "-mask" not in said
