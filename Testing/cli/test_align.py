"""`dnet-registration align`: what it hands to the library, writes, says and returns."""

import ast
import inspect
import json
from importlib import import_module

import numpy as np
import pytest
import SimpleITK as sitk
from alignments import made_alignment
from command import run
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.geometry.transforms import to_sitk
from DNetRegistrationLib.imaging.nrrd import write_nrrd
from DNetRegistrationLib.imaging.volume import Volume, read_volume, write_volume
from DNetRegistrationLib.registration.result import Bone
from DNetRegistrationLib.synthesis.pairs import target_registration_error
from scipy.spatial.transform import Rotation

OUTPUTS = {
    "transform": "t.tfm",
    "report": "r.json",
    "overlay": "o.png",
    "resampled": "m.nrrd",
    "segmentation": "s.seg.nrrd",
    "subtraction": "d.nrrd",
}


def test_threads_are_handed_on_and_none_by_default(two, aligned_with):
    main(["align", *two, "--threads", "2"])
    main(["align", *two])
    assert [call["threads"] for call in aligned_with] == [2, None]
    assert main(["align", *two, "--threads", "0"]) == 2


def test_align_writes_everything_and_says_the_verdict_first(pair, two, tmp_path):
    files = {name: tmp_path / file for name, file in OUTPUTS.items()}
    result = run("align", *two, *(word for name, path in files.items() for word in (f"--{name}", str(path))))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.split()[:2] == ["verdict", "Accepted:"]
    assert sorted(tmp_path.iterdir()) == sorted(files.values())
    report = json.loads(files["report"].read_text())
    assert report["accepted"] is True
    assert 1000 * target_registration_error(pair, report["matrix"]) < 20
    transform = sitk.ReadTransform(str(files["transform"]))
    point = (0.3, -0.7, 1.1)
    np.testing.assert_allclose(transform.TransformPoint(point), (np.array(report["matrix"]) @ (*point, 1))[:3])
    for name, path in files.items():
        assert f"written           {path}" in result.stdout, name
    assert f"{report['rotation_deg']:.3f} degrees" in result.stdout
    assert f"{report['dice_before']:.3f} before, {report['dice']:.3f} aligned" in result.stdout


def test_the_status_says_that_it_is_not_accepted(two, monkeypatch, capsys):
    refused = made_alignment(accepted=False, verdict="Not accepted: another bone.")
    alignment = import_module("DNetRegistrationLib.registration.align")
    monkeypatch.setattr(alignment, "align", lambda fixed, moving, **options: refused)
    assert main(["align", *two]) == 1
    assert capsys.readouterr().out.startswith("verdict           Not accepted: ")


@pytest.mark.parametrize(
    "doubt, remedy", [("mirrored", "--fixed-flip or --moving-flip z"), ("several bones", "--bone each")]
)
def test_the_remedy_of_a_refused_pair_is_named_as_an_option(two, monkeypatch, capsys, doubt, remedy):
    refused = made_alignment(accepted=False, verdict="Not accepted: for a reason.", doubts=[doubt])
    alignment = import_module("DNetRegistrationLib.registration.align")
    monkeypatch.setattr(alignment, "align", lambda fixed, moving, **options: refused)
    assert main(["align", *two]) == 1
    assert f"remedy            {remedy}\n" in capsys.readouterr().out


def test_what_is_accepted_needs_no_remedy(two, monkeypatch, capsys):
    """A voxel size that was given on purpose had a remedy to give it."""
    accepted = made_alignment(accepted=True, verdict="Accepted: for a reason.", doubts=["voxel size"])
    alignment = import_module("DNetRegistrationLib.registration.align")
    monkeypatch.setattr(alignment, "align", lambda fixed, moving, **options: accepted)
    assert main(["align", *two]) == 0
    assert "remedy" not in capsys.readouterr().out


@pytest.mark.slow
def test_another_animal_is_not_accepted_and_its_outputs_say_so(other_pair, tmp_path, capsys):
    paths = [str(tmp_path / f"{role}.nrrd") for role in ("fixed", "moving")]
    for scan, path in zip((other_pair.fixed, other_pair.moving), paths, strict=True):
        write_volume(scan, path)
    report, transform = tmp_path / "r.json", tmp_path / "t.tfm"
    assert main(["align", *paths, "--report", str(report), "--transform", str(transform)]) == 1
    assert json.loads(report.read_text())["accepted"] is False
    assert transform.exists()
    assert capsys.readouterr().out.startswith("verdict           Not accepted: ")


def test_a_check_aligns_three_times_more_with_the_same_options_and_is_told(
    two, tmp_path, aligned_with, monkeypatch, capsys
):
    stand_in = import_module("DNetRegistrationLib.registration.align").align
    monkeypatch.setattr(import_module("DNetRegistrationLib.registration.check"), "align", stand_in)
    report = tmp_path / "r.json"
    words = ["--check", "--report", str(report), "--moving-threshold", "500", "--refine", "working", "--threads", "1"]
    # The stand-in gives the same matrix however the scan lies: with a turned scan it is millimetres wrong.
    assert main(["align", *two, *words]) == 1
    first, *again = aligned_with
    assert len(again) == 3
    for call in again:
        same = ("threshold", "refine", "threads", "hypotheses", "spacing", "device", "weights", "initial")
        assert {name: call[name] for name in same} == {name: first[name] for name in same}
        np.testing.assert_array_equal(call["fixed"].voxels, first["fixed"].voxels)
        assert call["moving"].name == first["moving"].name
    told = json.loads(report.read_text())["check"]
    assert len(told["repeats"]) == 3 and told["error_um"] > 1000
    printed = capsys.readouterr().out
    assert printed.startswith("verdict           Not accepted: turned and aligned again,")
    assert f"repeatability     {told['error_um']:.2f} um at most" in printed
    main(["align", *two, "--report", str(report)])
    assert json.loads(report.read_text())["check"] is None
    assert len(aligned_with) == 5


def test_options_reach_align(two, tmp_path, aligned_with):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec((0.2, 1.1, -0.4)).as_matrix(), (3.0, -1.0, 0.5)
    sitk.WriteTransform(to_sitk(matrix), str(tmp_path / "start.tfm"))
    fixed = read_volume(two[0])
    mask = np.zeros(fixed.voxels.shape, np.uint8)
    mask[5:50, 10:40, 3:60] = 2
    write_volume(Volume(mask, fixed.affine), tmp_path / "mask.nrrd")
    arguments = (
        f"--fixed-threshold -12.5 --working-spacing 0.1 --initial {tmp_path}/start.tfm --device cpu --weights w.pt"
    )
    arguments += f" --hypotheses search --refine working --fixed-mask {tmp_path}/mask.nrrd"
    assert main(["align", *two, *arguments.split()]) == 0
    (call,) = aligned_with
    assert call["threshold"] == (-12.5, None)
    assert call["spacing"] == 0.1
    assert (call["device"], call["weights"]) == ("cpu", "w.pt")
    assert (call["hypotheses"], call["refine"]) == ("search", "working")
    np.testing.assert_array_equal(call["fixed_mask"], mask > 0)
    assert call["moving_mask"] is None
    np.testing.assert_allclose(call["initial"], matrix, atol=1e-12)
    assert [call["fixed"].name, call["moving"].name] == two


def test_defaults_are_those_of_align(two, aligned_with):
    alignment = import_module("DNetRegistrationLib.registration.align")
    assert main(["align", *two]) == 0
    (call,) = aligned_with
    # The fixture stands in for the function: its source tells the defaults.
    tree = ast.parse(inspect.getsource(alignment))
    function = next(node for node in tree.body if getattr(node, "name", "") == "align")
    defaults = {
        argument.arg: ast.literal_eval(value)
        for argument, value in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    }
    for name, value in defaults.items():
        if name not in ("progress", "cancelled", "posed"):
            assert call[name] == value, name


def test_spacing_given_for_a_stack(tmp_path, aligned_with, capsys):
    (tmp_path / "stack").mkdir()
    voxels = np.random.default_rng(0).integers(0, 200, (12, 14, 16)).astype(np.uint8)
    for z, plane in enumerate(voxels):
        sitk.WriteImage(sitk.GetImageFromArray(plane), str(tmp_path / "stack" / f"s{z:03}.tif"))
    write_volume(Volume.from_geometry(voxels, 0.05), tmp_path / "moving.nrrd")
    paths = [str(tmp_path / "stack"), str(tmp_path / "moving.nrrd")]
    assert main(["align", *paths]) == 2
    assert "--fixed-spacing" in capsys.readouterr().err
    assert main(["align", *paths, "--fixed-spacing", "0.05,0.05,0.06"]) == 0
    np.testing.assert_allclose(aligned_with[0]["fixed"].spacing, (0.05, 0.05, 0.06))
    # A picture of the scan's own folder is a scan, not a place for output.
    assert main(["align", *paths, "--fixed-spacing", "0.05", "--overlay", str(tmp_path / "stack" / "s003.tif")]) == 2


@pytest.mark.slow
def test_a_stack_in_reverse_order_is_set_right(small_pair, tmp_path):
    """The transform and the resampled scan are those of the stack in its right order, a mask of the file included."""
    order = {"right": small_pair.moving.voxels, "reverse": small_pair.moving.voxels[::-1]}
    write_volume(small_pair.fixed, tmp_path / "fixed.nrrd")
    mask = np.ones(small_pair.moving.voxels.shape, np.uint8)
    mask[:3] = 0
    for name, voxels in order.items():
        (tmp_path / name).mkdir()
        for z, plane in enumerate(np.asarray(voxels, np.float32)):
            sitk.WriteImage(sitk.GetImageFromArray(plane), str(tmp_path / name / f"s{z:03}.tif"))
        placed = mask if name == "right" else mask[::-1]
        write_volume(Volume.from_geometry(placed, 0.16), tmp_path / f"{name}.nrrd")
    for name, flip in (("right", []), ("reverse", ["--flip", "z"]), ("reverse-moving", ["--moving-flip", "z"])):
        scan = name.split("-")[0]
        arguments = ["--moving-spacing", "0.16", "--moving-mask", str(tmp_path / f"{scan}.nrrd"), *flip]
        outputs = ["--transform", str(tmp_path / f"{name}.tfm"), "--resampled", str(tmp_path / f"{name}.mha")]
        assert main(["align", str(tmp_path / "fixed.nrrd"), str(tmp_path / scan), *arguments, *outputs]) == 0
    for name in ("reverse", "reverse-moving"):
        assert (tmp_path / f"{name}.tfm").read_text() == (tmp_path / "right.tfm").read_text()
        assert (tmp_path / f"{name}.mha").read_bytes() == (tmp_path / "right.mha").read_bytes()


def test_a_flip_is_of_the_scan_that_it_names(two, aligned_with):
    right = [read_volume(path).voxels for path in two]
    assert main(["align", *two, "--fixed-flip", "y", "--flip", "x"]) == 0
    assert np.array_equal(aligned_with[0]["fixed"].voxels, right[0][:, ::-1])
    assert np.array_equal(aligned_with[0]["moving"].voxels, right[1][:, :, ::-1])
    assert main(["align", *two, "--flip", "w"]) == 2


def test_a_segment_of_a_mask_reaches_align(two, tmp_path, aligned_with, capsys):
    """Of a part of the scan, as a segment that was cropped to its extent."""
    fixed = read_volume(two[0])
    labels = np.zeros((20, 10, 30), np.uint8)
    labels[:8], labels[12:] = 1, 2
    affine = fixed.affine.copy()
    affine[:3, 3] = fixed.to_world((5, 6, 7))
    keys = {"Segment0_ID": "a", "Segment0_Name": "Femur", "Segment1_ID": "b", "Segment1_Name": "Tibia"}
    keys |= {f"Segment{n}_{key}": value for n in (0, 1) for key, value in (("Layer", "0"), ("LabelValue", str(n + 1)))}
    path = str(tmp_path / "bones.seg.nrrd")
    write_nrrd(path, labels, labels.shape, np.uint8, affine, keys)
    expected = np.zeros(fixed.voxels.shape, bool)
    expected[7 + 12 : 7 + 20, 6:16, 5:35] = True
    assert main(["align", *two, "--fixed-mask", path, "--fixed-segment", "Tibia"]) == 0
    np.testing.assert_array_equal(aligned_with[0]["fixed_mask"], expected)
    assert main(["align", *two, "--fixed-mask", path, "--fixed-segment", "Fibula"]) == 2
    assert "choose one of Femur, Tibia (--fixed-segment)" in capsys.readouterr().err


def test_each_bone_has_its_verdict_and_files(two, tmp_path, monkeypatch, capsys):
    """Two bones, of which one is refused: the status says that not all can be used."""
    several = [
        made_alignment(bone=Bone(number, 2, share, np.zeros(3)), accepted=number == 1, verdict=f"Verdict {number}.")
        for number, share in ((1, 0.6), (2, 0.4))
    ]
    calls = []
    monkeypatch.setattr(
        import_module("DNetRegistrationLib.registration.align"),
        "align",
        lambda *scans, **options: calls.append(options) or several,
    )
    assert main(["align", *two, "--bone", "each", "--transform", f"{tmp_path}/t.tfm"]) == 1
    assert calls[0]["bone"] == "each"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t_1.tfm", "t_2.tfm"]
    said = capsys.readouterr().out
    assert said.index("bone 1 of 2") < said.index("Verdict 1.") < said.index("bone 2 of 2") < said.index("Verdict 2.")
    assert f"{tmp_path}/t_1.tfm" in said and f"{tmp_path}/t_2.tfm" in said


def test_no_scan_is_replaced_by_a_numbered_output(pair, tmp_path, capsys):
    for role in ("fixed", "moving"):
        write_volume(getattr(pair, role), tmp_path / f"{role}_2.nrrd")
    scans = [str(tmp_path / f"{role}_2.nrrd") for role in ("fixed", "moving")]
    assert main(["align", *scans, "--bone", "each", "--resampled", f"{tmp_path}/fixed.nrrd"]) == 2
    assert "fixed_2.nrrd: the resampled scan would replace one of the scans" in capsys.readouterr().err


def test_nothing_saved_is_said(two, aligned_with, capsys):
    main(["align", *two])
    assert "Nothing was saved" in capsys.readouterr().out


@pytest.mark.slow
def test_a_report_on_standard_output_is_all_that_is_there(two, capsys):
    assert main(["align", *two, "--report", "-", "--refine", "none"]) in (0, 1)
    told = capsys.readouterr()
    assert json.loads(told.out)["matrix"][3] == [0, 0, 0, 1]
    assert told.err.startswith("verdict") and "report.json" not in told.err
