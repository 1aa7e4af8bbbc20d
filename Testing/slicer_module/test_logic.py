"""Scripts without a panel: the logic's blocking call, the script for a folder, the sample data, the self test."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib import Volume, make_pair, target_registration_error, write_outputs, write_volume
from DNetRegistrationLib.core.errors import OptionError, PackageError
from scene_nodes import MODULE, add_volume, aligned, positions, put_under, rigid, volume_node

SCRIPT = MODULE.parent / "Resources" / "Scripts" / "align_folder.py"
SMALL = {"seed": 0, "size": 48, "spacing": 0.1}


@pytest.fixture
def logic(host):
    """As a script gets it, with no window."""
    import slicer

    host.set_main_window(False)
    host.load(MODULE)
    return slicer.util.getModuleLogic("DNetRegistration")


@pytest.mark.slow
def test_align_here_and_now(host, logic, tmp_path):
    import slicer

    pair = make_pair(6, size=48, spacing=0.1)
    fixed, moving = volume_node(pair.fixed, "a", rigid(1)), volume_node(pair.moving, "b", rigid(2))
    was, nodes = positions(moving), slicer.mrmlScene.GetNumberOfNodes()
    fractions = []
    transform, alignment = logic.align(fixed, moving, progress=lambda fraction, message: fractions.append(fraction))
    assert alignment.accepted and target_registration_error(pair, alignment.matrix) < 0.02
    assert fractions[-1] == 1.0
    # Nothing beside the transform, unless asked for.
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes + 1
    assert transform is moving.GetParentTransformNode()
    for before, now in zip(was, positions(moving), strict=True):
        there = (np.linalg.inv(pair.matrix) @ (*before, 1))[:3]
        assert np.linalg.norm(now - there) < 0.1
    made = {
        f"{name}Node": slicer.mrmlScene.AddNewNodeByClass(kind)
        for name, kind in (
            ("segmentation", "vtkMRMLSegmentationNode"),
            ("table", "vtkMRMLTableNode"),
            ("resampled", "vtkMRMLScalarVolumeNode"),
            ("subtraction", "vtkMRMLScalarVolumeNode"),
        )
    }
    again, second = logic.align(fixed, moving, hypotheses="search", refine="working", **made)
    # What was aligned is the volume as it stood before.
    assert again is transform and second.hypothesis == "search"
    np.testing.assert_allclose(second.matrix[:3, :3], alignment.matrix[:3, :3], atol=0.01)
    assert second.dice_before == alignment.dice_before
    assert made["segmentationNode"].GetSegmentation().GetNumberOfSegments() == 2
    assert made["tableNode"].GetNumberOfRows() > 10
    resampled, difference = (slicer.util.arrayFromVolume(made[f"{n}Node"]) for n in ("resampled", "subtraction"))
    assert resampled.shape == difference.shape == pair.fixed.voxels.shape
    assert resampled.dtype == pair.moving.voxels.dtype and difference.dtype == np.float32
    # The same as the command line writes.
    paths = {name: tmp_path / f"{name}.nrrd" for name in ("resampled", "subtraction")}
    write_outputs(second, pair.fixed, pair.moving, **paths)
    written = {name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for name, path in paths.items()}
    np.testing.assert_allclose(resampled, written["resampled"], atol=1)
    assert np.count_nonzero(resampled != written["resampled"]) < 0.001 * resampled.size
    np.testing.assert_allclose(difference, written["subtraction"], rtol=1e-3, atol=0.01)


def test_bad_input(logic):
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    node = add_volume("scan", "plain")
    with pytest.raises(OptionError, match="scan: is both the fixed and the moving volume; select two scans"):
        logic.align(node, node)
    with pytest.raises(ValueError, match="no volume is selected"):
        logic.align(node, None)
    other = add_volume("other", "oblique")
    parent = put_under(other, rigid(1))
    with pytest.raises(OptionError, match="cannot take the result"):
        logic.align(other, node, transformNode=parent)
    # Nor to the transform of an earlier alignment, when the fixed volume was put under it too.
    transform = apply_alignment(place(other, "fixed"), place(node, "moving"), aligned(rigid(2)))
    other.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(OptionError, match="cannot take the result"):
        logic.align(other, node)
    other.SetAndObserveTransformNodeID(None)
    with pytest.raises(ValueError, match="hypotheses 'guess' is unknown"):
        logic.align(node, other, hypotheses="guess")


def test_without_torch_a_script_is_told(logic, monkeypatch):
    from DNetRegistrationLib.slicer_module import torch_setup

    def require():
        torch_setup._check("")

    monkeypatch.setitem(type(logic).align.__globals__, "require_torch", require)
    with pytest.raises(PackageError, match="only in part"):
        logic.align(add_volume("a", "plain"), add_volume("b", "oblique"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("printed", "status", "devices"),
    [
        (b'[["cpu", "CPU"], ["cuda:0", "Card"]]\n', 0, [("cpu", "CPU"), ("cuda:0", "Card")]),
        (b'a driver starts\n[["cpu", "CPU"]]\n[1, 2\n[3]\na driver ends', 0, [("cpu", "CPU")]),
        (b"", 0, []),
        (b"[" * 100_000, 0, []),
        (b'[["cpu", "CPU"]]\n', 1, []),
    ],
    ids=["as printed", "among other lines", "nothing", "garbage", "failed"],
)
def test_devices_are_found_among_what_is_printed(logic, printed, status, devices):
    def launch(command, environment, output, error, end):
        output(printed)
        end(status)

    logic.launch, found = launch, []
    logic.findDevices(found.append)
    assert found == [devices]


@pytest.mark.slow
def test_a_folder_of_pairs(logic, tmp_path, capsys):
    script = runpy.run_path(str(SCRIPT))
    scans, results = tmp_path / "scans", tmp_path / "results"
    scans.mkdir()
    like = {"size": 40, "spacing": 0.12}
    pairs = {"m1": make_pair(1, **like), "m.2 b": make_pair(2, impostor="animal", **like)}
    for name, pair in pairs.items():
        write_volume(pair.fixed, scans / f"{name}_pre.nrrd")
        write_volume(pair.moving, scans / f"{name}_post.nrrd")
    for name in ("pre", "post"):
        noise = np.random.default_rng(0).normal(0, 1, (20, 20, 20)).astype(np.float32)
        write_volume(Volume.from_geometry(noise, 0.1), scans / f"noise_{name}.nrrd")
    assert script["main"]([str(scans), str(results)]) == 1
    lines = summary(results)
    assert {name: line["status"] for name, line in lines.items()} == {
        "m1": "accepted", "m.2 b": "refused", "noise": "failed"
    }  # fmt: skip
    assert float(lines["m1"]["dice"]) > 0.8
    assert "found no bone" in lines["noise"]["verdict"]
    center = pairs["m1"].fixed.center
    transform = sitk.ReadTransform(str(results / lines["m1"]["folder"] / "transform.h5"))
    error = np.subtract(transform.TransformPoint(center), (pairs["m1"].matrix @ (*center, 1))[:3])
    assert np.linalg.norm(error) < 0.1
    for name, pair in pairs.items():
        folder = results / lines[name]["folder"]
        assert sitk.ReadImage(str(folder / "subtraction.nrrd")).GetSize() == tuple(pair.fixed.size.tolist())
        assert sitk.ReadImage(str(folder / "segmentation.seg.nrrd")).GetNumberOfComponentsPerPixel() == 2
    assert "m1: Accepted" in capsys.readouterr().out


def summary(results) -> dict:
    """The rows of the table of a cohort, by pair."""
    with open(results / "cohort.csv", newline="", encoding="utf-8") as stream:
        return {line["pair"]: line for line in csv.DictReader(stream)}


def test_sample_data(host, logic, monkeypatch):
    import SampleData
    import slicer
    from DNetRegistrationLib.slicer_module import sample_data
    from DNetRegistrationLib.synthesis import dataset

    monkeypatch.setattr(sample_data, "PAIR", SMALL)
    slicer.app.startupCompleted()
    (source,) = SampleData.SampleDataLogic.sampleDataSourcesByCategory("D-net registration")
    assert Path(source.thumbnailFileName).parent.name == "Icons"
    fixed, moving, truth = source.customDownloader(source)
    assert [node.GetName() for node in (fixed, moving, truth)] == source.nodeNames
    pair = make_pair(SMALL["seed"], size=SMALL["size"], spacing=SMALL["spacing"])
    assert np.array_equal(slicer.util.arrayFromVolume(fixed), pair.fixed.voxels)
    was = positions(moving)
    moving.SetAndObserveTransformNodeID(truth.GetID())
    for before, now in zip(was, positions(moving), strict=True):
        np.testing.assert_allclose((pair.matrix @ (*now, 1))[:3], before, atol=1e-6)
    # A second time they are only loaded.
    monkeypatch.setattr(dataset, "synthesize", None)
    assert [node.GetName() for node in sample_data.loadSampleData()] == [f"{name}_1" for name in source.nodeNames]


def test_scripts_get_the_sample_data_as_others(host, logic, monkeypatch):
    """By its name, as in Slicer's own examples; the button in the module Sample Data bears words."""
    import SampleData
    import slicer
    from DNetRegistrationLib.slicer_module import sample_data

    monkeypatch.setattr(sample_data, "PAIR", SMALL)
    slicer.app.startupCompleted()
    slicer.app.startupCompleted()  # registered twice, it is there once
    (source,) = SampleData.SampleDataLogic.sampleDataSourcesByCategory("D-net registration")
    assert source.sampleDescription == "Mouse tibia, two scans"
    fixed, moving, truth = SampleData.downloadSamples("DNetRegistrationMouseTibia")
    assert [fixed.GetName(), moving.GetName()] == ["PreContrast", "PostContrast"]
    assert truth.GetName().startswith("TrueTransform")
    pair = make_pair(SMALL["seed"], size=SMALL["size"], spacing=SMALL["spacing"])
    assert np.array_equal(slicer.util.arrayFromVolume(moving), pair.moving.voxels)
    assert truth.IsA("vtkMRMLLinearTransformNode")
    assert SampleData.downloadSample("DNetRegistrationMouseTibia").IsA("vtkMRMLScalarVolumeNode")


@pytest.fixture
def small_sample(monkeypatch):
    from DNetRegistrationLib.slicer_module import sample_data

    monkeypatch.setattr(sample_data, "NAME", "SmallSample")
    monkeypatch.setattr(sample_data, "PAIR", {"seed": 1, "size": 64, "spacing": 0.08})


@pytest.mark.slow
def test_self_test(host, logic, small_sample):
    """What Reload and Test runs."""
    import slicer

    slicer.selfTests["DNetRegistration"]()


def test_self_test_without_torch(host, logic, small_sample, monkeypatch, caplog):
    """What needs no torch is tested, the rest is named; Slicer would show an exception as a failure."""
    import slicer
    from DNetRegistrationLib.slicer_module import torch_setup

    tested = []
    cases = sys.modules["DNetRegistration"].DNetRegistrationTest
    sample = cases.test_sampleData
    monkeypatch.setattr(torch_setup, "installed_version", lambda: None)
    monkeypatch.setattr(cases, "test_sampleData", lambda case: sample(case) or tested.append("sample data"))
    monkeypatch.setattr(cases, "test_alignment", lambda case: tested.append("alignment"))
    told = []
    monkeypatch.setattr(cases, "delayDisplay", lambda case, text: told.append(text))
    slicer.selfTests["DNetRegistration"]()
    assert tested == ["sample data"] and "was not tested: PyTorch is not installed" in told[-1]


def test_scripts_leave_cores_to_others(logic, monkeypatch):
    """Threads that spin while they wait made an alignment take 68 s in place of 12 on a busy machine."""
    import os

    from DNetRegistrationLib.registration import align as module

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    # What is told before torch is loaded; afterwards `align` itself sees to it.
    monkeypatch.delitem(sys.modules, "torch")
    seen = []

    def align(*scans, **options):
        seen.append(os.environ.get("OMP_WAIT_POLICY"))
        return aligned(rigid(1))

    monkeypatch.setattr(module, "align", align)
    logic.align(add_volume("a", "plain"), add_volume("b", "oblique"))
    assert seen == ["PASSIVE"]


def test_the_script_is_the_command(logic, tmp_path, capsys):
    """A log is no scan; half a pair is told of; nothing to do is no success; options are those of the command."""
    scans, results = tmp_path / "scans", tmp_path / "results"
    scans.mkdir()
    script = runpy.run_path(str(SCRIPT))
    assert script["main"]([]) == 2 and "align_folder.py SCANS RESULTS" in capsys.readouterr().out
    write_volume(Volume.from_geometry(np.zeros((9, 9, 9), np.uint8), 0.1), scans / "m1_pre.nrrd")
    (scans / "m1_post.txt").write_bytes(b"x")
    assert script["main"]([str(scans), str(results), "--dry-run"]) == 1
    told = capsys.readouterr().out
    assert "missing partner" in told and "the scan 'post' of m1" in told and not results.exists()
    (scans / "m1_pre.nrrd").unlink()
    assert script["main"]([str(scans), str(results)]) == 2
    assert "error" in capsys.readouterr().out and not (results / "cohort.csv").exists()
