"""The panel, on the stand-in for Slicer: what its button says, what a click does to the scene, and every other end."""

from __future__ import annotations

import sys
import textwrap
import time
import types
from pathlib import Path

import numpy as np
import places
import pytest
from DNetRegistrationLib import make_pair, target_registration_error
from DNetRegistrationLib.core.errors import FileError, PackageError, ScanError, Setting
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.slicer_module import events
from DNetRegistrationLib.slicer_module.request import read_request
from panels import Launcher, click, leftovers, select, select_two_volumes, snapshot
from scene_nodes import INDICES, MODULE, add_transform, add_volume, aligned, positions, put_under, rigid, volume_node
from scipy.spatial.transform import Rotation

#: Quantities that are set in the panel.
CONTROLS = ("threshold", "working_spacing", "hypotheses", "weights", "refine", "device", "contrast")
CONTROLS += ("bone", "flip", "initial")
FLIP = np.diag((-1.0, -1.0, 1.0, 1.0))


@pytest.fixture
def pair(panel):
    """Two small volumes, selected; nothing that could be aligned."""
    return select_two_volumes(panel)


def test_loads_without_torch_and_installs_nothing(host):
    """In a process of its own, since torch is there in this one."""
    import subprocess

    program = f"""
import sys
sys.path.insert(0, {str(places.SUPPORT)!r})
sys.path.insert(0, {str(MODULE.parent)!r})
for name in ("torch", "PyTorchUtils", "matplotlib"):
    sys.modules[name] = None
import slicer_host
host = slicer_host.start()
before = set(sys.modules)
host.load({str(MODULE)!r})
import slicer
print(sorted({{name.split(".")[0] for name in set(sys.modules) - before}} & {{"scipy", "SimpleITK", "torch"}}))
panel = host.open("DNetRegistration")
print(panel.ui.alignButton.text, host.installations, host.dialogs.texts, host.errors)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.stdout.splitlines() == ["[]", "Select a fixed volume [] [] []"], result.stderr


def test_module_tells_what_it_is(host):
    import slicer

    module = host.load(MODULE)
    assert module.title == "D-net Registration" and list(module.categories) == ["Registration"]
    assert "Zheng" in module.acknowledgementText and "Sample Data" in module.helpText
    assert "docs/slicer.md" in module.helpText and "WO2023/275555A1" in module.acknowledgementText
    assert slicer.selfTests["DNetRegistration"]


def test_the_button_says_what_is_missing(panel):
    import slicer

    ui = panel.ui
    assert ui.alignButton.text == "Select a fixed volume" and not ui.alignButton.enabled
    fixed, moving = add_volume("a", "plain"), add_volume("b", "oblique")
    ui.fixedSelector.setCurrentNode(fixed)
    assert ui.alignButton.text == "Select a moving volume" and not ui.alignButton.enabled
    ui.movingSelector.setCurrentNode(fixed)
    assert ui.alignButton.text == "Fixed and moving are the same volume" and not ui.alignButton.enabled
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    ui.movingSelector.setCurrentNode(empty)
    assert ui.alignButton.text == "The moving volume is empty" and not ui.alignButton.enabled
    ui.movingSelector.setCurrentNode(moving)
    assert ui.alignButton.text == "Align" and ui.alignButton.enabled
    ui.resampledSelector.setCurrentNode(fixed)
    assert ui.alignButton.text == "An output would replace an input" and not ui.alignButton.enabled
    ui.resampledSelector.setCurrentNode(None)
    ui.weightsSelector.currentIndex = ui.weightsSelector.findData("file:")
    assert ui.alignButton.text.startswith("Choose a weights file") and ui.weightsPath.enabled
    ui.weightsPath.currentPath = "/somewhere/weights.pt"
    assert ui.alignButton.text == "Align"
    slicer.mrmlScene.RemoveNode(moving)
    assert ui.alignButton.text == "Select a moving volume"


def test_only_scalar_volumes_can_be_chosen(panel):
    import slicer

    slicer.util.addVolumeFromArray(np.ones((9, 9, 9), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")
    slicer.util.addVolumeFromArray(np.ones((9, 9, 9, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")
    assert panel.ui.fixedSelector.nodeCount() == 0 == panel.ui.movingSelector.nodeCount()


@pytest.mark.parametrize("parents", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_click_aligns(host, panel, parents, tmp_path):
    """For real: another process, the network, oblique and unequal grids, with and without parents on both."""
    import slicer
    from DNetRegistrationLib.slicer_module.scene import alignment_of
    from DNetRegistrationLib.synthesis.grid import Grid

    turned = Rotation.from_rotvec((0.5, -0.3, 0.2)).as_matrix()
    grids = [Grid.centered(size, spacing) for size, spacing in ((56, 0.09), ((60, 52, 48), (0.08, 0.09, 0.1)))]
    oblique = np.eye(4)
    oblique[:3, :3], oblique[:3, 3] = turned, (20.0, -35.0, 130.0)
    synthetic = make_pair(4, fixed_grid=grids[0], moving_grid=grids[1])
    # The world of the moving scan is turned as a whole, and with it its grid and the truth.
    truth = oblique @ synthetic.matrix
    worlds = [rigid(1), rigid(2)] if parents else [None, None]
    fixed = volume_node(synthetic.fixed, "Pre", worlds[0])
    moving = volume_node(Volume(synthetic.moving.voxels, oblique @ synthetic.moving.affine), "Post", worlds[1])
    select(panel, fixed, moving)
    panel.ui.resampledSelector.addNode("vtkMRMLScalarVolumeNode")
    panel.ui.subtractionSelector.addNode("vtkMRMLScalarVolumeNode")
    before = [slicer.util.arrayFromVolume(node).tobytes() for node in (fixed, moving)]
    was = positions(moving)

    panel.ui.alignButton.click()
    assert panel.ui.alignButton.text == "Cancel" and panel.ui.alignButton.enabled
    assert panel.ui.progressBar.visible and not panel.ui.inputsCollapsibleButton.enabled
    stages = set()
    host.wait_until(lambda: stages.add(panel.ui.statusLabel.text) or not panel.running, 120)

    ui, parameters = panel.ui, panel._parameterNode
    assert len(stages) >= 2 and ui.alignButton.text == "Align" and not ui.progressBar.visible
    transform = parameters.transform
    alignment = alignment_of(transform)
    assert alignment.accepted and ui.verdictLabel.text == alignment.verdict.replace("um", "µm"), ui.verdictLabel.text
    assert "#d7f0dd" in ui.verdictLabel.styleSheet
    for words in (
        "Dice of the cortices:",
        "Confidence:",
        "Expected error:",
        "Rotation:",
        "Found by the network equivariant on the CPU",
    ):
        assert words in ui.detailsLabel.text
    # Where a moving voxel is now, the fixed scan has the same bone: worked out with the truth, point by point.
    true = [(np.linalg.inv(truth) @ (*point, 1))[:3] for point in was]
    assert max(np.linalg.norm(now - there) for now, there in zip(positions(moving), true, strict=True)) < 0.08
    moved = types.SimpleNamespace(**{**vars(synthetic), "matrix": truth})
    assert target_registration_error(moved, alignment.matrix) < 0.03
    assert moving.GetParentTransformNode() is transform
    assert [slicer.util.arrayFromVolume(node).tobytes() for node in (fixed, moving)] == before
    # What else was made.
    assert parameters.table.GetNumberOfRows() > 10
    assert parameters.segmentation.GetSegmentation().GetNumberOfSegments() == 2
    resampled = slicer.util.arrayFromVolume(parameters.resampled)
    difference = slicer.util.arrayFromVolume(parameters.subtraction)
    assert resampled.shape == difference.shape == synthetic.fixed.voxels.shape and np.isnan(difference).any()
    np.testing.assert_allclose(positions(parameters.resampled), positions(fixed), atol=1e-12)
    assert not leftovers()
    # The picture: outlines of both cortices in the slice view.
    pixels = host.slice_picture("Red").astype(int)
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 80)
    assert np.count_nonzero(red) > 50

    ui.undoButton.click()
    np.testing.assert_array_equal(positions(moving), was)
    assert ui.verdictLabel.text == "Undone: Post is no longer moved by the alignment." and not ui.undoButton.enabled
    assert not parameters.segmentation.GetDisplayNode().GetVisibility()
    assert [slicer.util.arrayFromVolume(node).tobytes() for node in (fixed, moving)] == before


def test_aligning_again_updates_the_same_nodes(host, panel, pair):
    import slicer

    was = positions(pair[1])
    click(host, panel, Launcher(rigid(1)))
    names = ("transform", "segmentation", "table")
    first, count = [getattr(panel._parameterNode, name) for name in names], slicer.mrmlScene.GetNumberOfNodes()
    assert all(node is not None for node in first)
    matrix = rigid(2)
    click(host, panel, Launcher(matrix, dice=0.5))
    assert [getattr(panel._parameterNode, name) for name in names] == first
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    for now, before in zip(positions(pair[1]), was, strict=True):
        np.testing.assert_allclose((matrix @ (*now, 1))[:3], before, atol=1e-9)
    assert "0.500 after" in panel.ui.detailsLabel.text
    # Another pair gets nodes of its own; back at the first, its nodes are chosen again.
    third = add_volume("third", "plain")
    panel.ui.movingSelector.setCurrentNode(third)
    assert panel._parameterNode.transform is None and panel._parameterNode.table is None
    assert panel.ui.verdictLabel.text == "Not aligned yet." and not panel.ui.undoButton.enabled
    click(host, panel, Launcher(rigid(3)))
    assert panel._parameterNode.transform not in first
    panel.ui.movingSelector.setCurrentNode(pair[1])
    assert [getattr(panel._parameterNode, name) for name in names] == first
    assert "0.500 after" in panel.ui.detailsLabel.text and panel.ui.undoButton.enabled


def test_not_accepted_is_said(host, panel, pair):
    verdict = "Not accepted: no pose makes the two bones agree. Check that both scans are of the same bone."
    click(host, panel, Launcher(rigid(1), accepted=False, verdict=verdict, confidence=None))
    assert panel.ui.verdictLabel.text == verdict and "#ffeec2" in panel.ui.verdictLabel.styleSheet
    assert "Confidence: unknown" in panel.ui.detailsLabel.text
    assert panel.ui.undoButton.enabled


def test_what_was_moved_is_not_accepted_any_more(host, panel, pair):
    """What verification said was of the pose it saw; a move of both together changes nothing."""
    import slicer

    shift = np.eye(4)
    shift[0, 3] = 0.05
    click(host, panel, Launcher(rigid(1)))
    transform, ui = panel._parameterNode.transform, panel.ui
    verdict = ui.verdictLabel.text
    assert "#d7f0dd" in ui.verdictLabel.styleSheet

    def check(moved: bool):
        assert (
            ui.verdictLabel.text.startswith("Moved since it was aligned") == moved and ui.detailsLabel.visible != moved
        )
        assert moved or ui.verdictLabel.text == verdict
        assert ("#ffeec2" in ui.verdictLabel.styleSheet) == moved

    matrix = slicer.util.arrayFromTransformMatrix(transform)
    slicer.util.updateTransformMatrixFromArray(transform, shift @ matrix)
    check(True)
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    check(False)
    parent = add_transform("parent", rigid(2))
    for node in (pair[0], transform):
        node.SetAndObserveTransformNodeID(parent.GetID())
    check(False)
    # Only the fixed one is taken elsewhere.
    pair[0].SetAndObserveTransformNodeID(None)
    check(True)


def test_cortices_are_seen_where_the_bones_are(host, panel, pair):
    import slicer

    click(host, panel, Launcher(rigid(1)))
    transform, display = panel._parameterNode.transform, panel._parameterNode.segmentation.GetDisplayNode()
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    assert display.GetVisibility()
    for moved in (True, False):
        slicer.util.updateTransformMatrixFromArray(transform, rigid(2) if moved else matrix)
        assert display.GetVisibility() == (not moved)
    panel.ui.undoButton.click()
    assert not display.GetVisibility()
    pair[1].SetAndObserveTransformNodeID(transform.GetID())
    assert display.GetVisibility()
    # Those that the user hides stay hidden.
    display.SetVisibility(False)
    pair[1].HardenTransform()
    assert panel.ui.verdictLabel.text.startswith("Accepted") and not display.GetVisibility()


def told(error: BaseException) -> dict:
    """The end of a process that told of an error."""
    return {"status": 2, "told": [{"event": events.ERROR, **events.error_values(error)}]}


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        (
            told(ScanError("the scan: found no bone in it", "give its threshold", Setting("threshold", "fixed"))),
            "the scan: found no bone in it; give its threshold (under Advanced, Bone threshold)",
        ),
        (
            dict(status=-11, said=b"Fatal Python error\nthe last line"),
            "ended unexpectedly (exit status -11); try again",
        ),
        (dict(status=None), "cannot be started"),
        (told(FileError("w.pt: damaged or truncated", "copy it again")), "w.pt: damaged"),
        (told(PackageError("PyTorch does not load", "install it anew", Setting("torch"))), "click Uninstall PyTorch"),
    ],
)
def test_what_goes_wrong_is_said_and_changes_nothing(host, panel, pair, launcher, message):
    before = snapshot()
    click(host, panel, Launcher(**launcher))
    assert message in panel.ui.verdictLabel.text and "#f8d7da" in panel.ui.verdictLabel.styleSheet
    if launcher["status"] == -11:
        assert "the last line" in panel.ui.detailsLabel.text
    assert panel.ui.alignButton.text == "Align" and snapshot() == before and not leftovers()


@pytest.mark.parametrize("quantity", CONTROLS)
def test_controls_of_settings_are_there(host, panel, quantity):
    """Those in the panel itself, by the texts of its labels."""
    from DNetRegistrationLib.slicer_module.wording import controlOf

    labels = [widget.text for name, widget in vars(panel.ui).items() if name.endswith("Label")]
    section, label = controlOf(Setting(quantity)).removeprefix("under ").split(", ")
    assert set(label.lower().split()) & set(quantity.split("_"))
    assert f"{label}:" in labels and panel.ui.__dict__[f"{section.lower()}CollapsibleButton"].text == section


def test_a_setting_with_a_value(host):
    from DNetRegistrationLib.slicer_module.wording import controlOf, explain

    assert controlOf(Setting("hypotheses", value="auto")) == "under Advanced, Hypotheses: Network, then search"
    assert controlOf(Setting("series", "fixed")) is None
    assert explain(ScanError("a", "b", Setting("series", "fixed"))) == "a; b"


def test_a_program_that_is_missing(host, panel, pair, monkeypatch):
    """For real, by Qt, which tells of it at once on some systems and later on others."""
    monkeypatch.setattr(type(panel.logic), "python", lambda self: "/no/such/PythonSlicer")
    panel.ui.alignButton.click()
    host.wait_until(lambda: not panel.running, 10)
    assert "/no/such/PythonSlicer: cannot be started" in panel.ui.verdictLabel.text and not leftovers()

    def launch(command, environment, output, errors, end):
        end(None)
        return types.SimpleNamespace(pid=0, kill=lambda: None)

    panel.logic.launch = launch
    panel.ui.alignButton.click()
    assert not panel.running and panel.ui.alignButton.text == "Align"
    assert "cannot be started" in panel.ui.verdictLabel.text and not leftovers()


@pytest.mark.slow
def test_a_volume_without_bone(host, panel, tmp_path):
    """For real, in another process."""
    import slicer

    rng = np.random.default_rng(0)
    noise = [
        slicer.util.addVolumeFromArray(
            rng.normal(0, 1, (20, 20, 20)).astype(np.float32), np.diag((0.1, 0.1, 0.1, 1)), name
        )
        for name in ("Noise & co", "Other noise")
    ]
    select(panel, *noise)
    before = snapshot()
    panel.ui.alignButton.click()
    host.wait_until(lambda: not panel.running, 60)
    assert panel.ui.verdictLabel.text.startswith("Noise & co: found no bone in it"), panel.ui.verdictLabel.text
    assert snapshot() == before and not leftovers()


def test_a_parent_that_is_not_rigid(host, panel, pair):
    put_under(pair[1], np.diag((2.0, 1, 1, 1)))
    panel.ui.alignButton.click()
    assert panel.job is None and "scales or shears" in panel.ui.verdictLabel.text


def test_an_output_that_cannot_be(host, panel, pair):
    parent = put_under(pair[0], rigid(1))
    panel.ui.transformSelector.setCurrentNode(parent)
    panel.ui.alignButton.click()
    assert panel.job is None and "cannot take the result" in panel.ui.verdictLabel.text


def test_a_voxel_size_that_looks_lost(host, panel):
    import slicer

    nodes = [slicer.util.addVolumeFromArray(np.zeros((250, 9, 9), np.int16), name=name) for name in "ab"]
    select(panel, *nodes)
    panel.logic.launch = Launcher(held=True)
    host.dialogs.will_answer("Cancel")
    panel.ui.alignButton.click()
    assert panel.job is None and "correct the voxel size" in panel.ui.verdictLabel.text
    assert "a: its voxels are 1 mm and the scan 250 mm long" in host.dialogs.texts[0]
    host.dialogs.will_answer("OK", "OK")
    panel.ui.alignButton.click()
    assert panel.job is not None and read_request(panel.logic.launch.folder).fixed.spacing.tolist() == [1.0, 1.0, 1.0]
    panel.ui.alignButton.click()


def test_a_full_disk(host, panel, pair, monkeypatch):
    from DNetRegistrationLib.slicer_module import job

    monkeypatch.setattr(job.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1e6))
    before = snapshot()
    panel.ui.alignButton.click()
    assert not panel.running and "1 MB are free); make room" in panel.ui.verdictLabel.text
    assert snapshot() == before and not leftovers()


def test_texts_are_not_markup(host, panel, pair):
    click(host, panel, Launcher(**told(ScanError("<b>bold</b> & <img src=x>"))))
    assert panel.ui.verdictLabel.text == "<b>bold</b> & <img src=x>"
    import qt

    assert panel.ui.verdictLabel.textFormat == qt.Qt.PlainText == panel.ui.detailsLabel.textFormat


def test_cancel_changes_nothing(host, panel, pair):
    before = snapshot()
    launcher = panel.logic.launch = Launcher(held=True)
    panel.ui.alignButton.click()
    assert leftovers()
    launcher.tell(events.PROGRESS, fraction=0.3, message="asking the network")
    assert panel.ui.statusLabel.text == "Asking the network" and panel.ui.progressBar.value == 30
    panel.ui.alignButton.click()
    assert launcher.killed and panel.job is None and not leftovers() and snapshot() == before
    assert panel.ui.verdictLabel.text == "Cancelled: nothing was changed." and panel.ui.alignButton.text == "Align"
    launcher.end(0)  # too late
    assert snapshot() == before


def test_cancel_of_a_real_process(host, panel, pair):
    """Process, child and files are gone within a second; the best of three, for a busy machine."""
    from DNetRegistrationLib.slicer_module.qt_process import QtProcess

    program = textwrap.dedent("""
        import json, subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(json.dumps({"event": "progress", "fraction": 0.1, "message": str(child.pid)}), flush=True)
        child.wait()
    """)
    panel.logic.launch = lambda command, *rest: QtProcess([sys.executable, "-c", program, *command[1:]], *rest)
    took = []
    while not took or (min(took) > 1 and len(took) < 3):
        panel.ui.alignButton.click()
        host.wait_until(lambda: panel.ui.statusLabel.text.isdigit(), 20)
        child = int(panel.ui.statusLabel.text)
        began = time.monotonic()
        panel.ui.alignButton.click()
        assert panel.job is None and not leftovers()
        host.wait_until(lambda child=child: state(child) == "Z", 5)
        took.append(time.monotonic() - began)
    assert min(took) < 1


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("role", [0, 1])
def test_an_input_that_is_deleted_meanwhile(host, panel, pair, role):
    import slicer

    launcher = panel.logic.launch = Launcher(rigid(1), held=True)
    panel.ui.alignButton.click()
    name = pair[role].GetName()
    slicer.mrmlScene.RemoveNode(pair[role])
    assert launcher.killed and panel.job is None and not leftovers()
    assert panel.ui.verdictLabel.text == f"Stopped: {name} was deleted while it was being aligned."
    assert "Select a" in panel.ui.alignButton.text


def test_an_output_that_is_deleted_meanwhile(host, panel, pair):
    import slicer

    table = panel.ui.tableSelector.addNode("vtkMRMLTableNode")
    assert panel._parameterNode.table is table
    launcher = panel.logic.launch = Launcher(rigid(1), held=True)
    panel.ui.alignButton.click()
    slicer.mrmlScene.RemoveNode(table)
    launcher.answer()
    host.wait_until(lambda: not panel.running)
    assert panel._parameterNode.table.GetNumberOfRows() > 10


def test_a_volume_whose_geometry_changes_meanwhile(host, panel, pair):
    launcher = panel.logic.launch = Launcher(rigid(1), held=True)
    panel.ui.alignButton.click()
    pair[0].SetSpacing(1, 1, 1)
    before = snapshot()
    launcher.answer()
    assert "PreContrast: its geometry was changed" in panel.ui.verdictLabel.text and snapshot() == before


def test_a_scene_that_is_closed_meanwhile(host, panel, pair):
    launcher = panel.logic.launch = Launcher(rigid(1), held=True)
    panel.ui.alignButton.click()
    host.close_scene()
    assert launcher.killed and panel.job is None and not leftovers()
    assert panel.ui.alignButton.text == "Select a fixed volume"
    assert panel.ui.verdictLabel.text == "Not aligned yet."
    # And on with a new scene.
    select(panel, add_volume("a", "plain"), add_volume("b", "oblique"))
    click(host, panel, Launcher(rigid(2)))
    assert panel.ui.verdictLabel.text.startswith("Accepted")


def test_a_scene_that_is_closed_while_another_module_is_open(host, panel, pair):
    """The panel waits with the new scene until the user comes back."""
    panel.parent.exit()
    host.close_scene()
    assert panel._parameterNode is None
    panel.parent.enter()
    assert panel._parameterNode is not None
    host.close_scene()
    assert panel._parameterNode is not None


def test_an_application_that_is_closed_meanwhile(host, panel, pair):
    launcher = panel.logic.launch = Launcher(rigid(1), held=True)
    panel.ui.alignButton.click()
    panel.cleanup()
    assert launcher.killed and not leftovers()


def test_another_module_meanwhile(host, panel, pair):
    """Leaving the module does not stop the work; the result is there on coming back."""
    launcher = panel.logic.launch = Launcher(rigid(1), held=True)
    panel.ui.alignButton.click()
    panel.exit()
    launcher.answer()
    panel.enter()
    host.wait_until(lambda: not panel.running)
    assert panel._parameterNode.transform is pair[1].GetParentTransformNode()
    assert panel.ui.verdictLabel.text.startswith("Accepted") and panel.ui.undoButton.enabled


def test_choices_are_saved_with_the_scene(host, panel, pair, tmp_path):
    import slicer

    click(host, panel, Launcher(rigid(1)))
    parameters, ui = panel._parameterNode, panel.ui
    ui.hypothesesSelector.currentIndex = 2
    ui.refineSelector.currentIndex = 1
    ui.workingSpacingSpinBox.value = 0.1
    ui.deviceSelector.currentIndex = ui.deviceSelector.findData("cpu")
    ui.weightsSelector.currentIndex = ui.weightsSelector.findData("file:")
    ui.weightsPath.currentPath = "/data/µ weights.pt"
    after = positions(pair[1])
    assert slicer.util.saveScene(str(tmp_path / "saved"))
    host.close_scene()
    assert ui.workingSpacingSpinBox.value == 0 and ui.deviceSelector.currentIndex == 0
    slicer.util.loadScene(str(next((tmp_path / "saved").glob("*.mrml"))))
    host.process_events()
    panel.enter()
    parameters = panel._parameterNode
    assert (
        parameters.fixedVolume.GetName() == "PreContrast" and ui.movingSelector.currentNode() is parameters.movingVolume
    )
    options = panel.logic.options(parameters)
    assert (options.hypotheses, options.refine, options.working_spacing) == ("search", "working", 0.1)
    assert (options.device, options.weights) == ("cpu", "/data/µ weights.pt")
    assert ui.weightsPath.currentPath == "/data/µ weights.pt"
    assert parameters.transform is parameters.movingVolume.GetParentTransformNode()
    assert ui.verdictLabel.text.startswith("Accepted") and "Rotation: " in ui.detailsLabel.text
    np.testing.assert_allclose(positions(parameters.movingVolume), after, atol=1e-9)
    ui.undoButton.click()
    assert parameters.movingVolume.GetParentTransformNode() is None


def test_thresholds_by_hand(host, panel, small_pair):
    import slicer

    def outlines():
        return [
            n for n in slicer.util.getNodesByClass("vtkMRMLModelNode") if n.GetAttribute("DNetRegistration.preview")
        ]

    fixed, moving = volume_node(small_pair.fixed, "a"), volume_node(small_pair.moving, "b")
    select(panel, fixed, moving)
    ui = panel.ui
    assert not ui.fixedThresholdSlider.enabled and not outlines()
    assert panel.logic.options(panel._parameterNode).fixed_threshold is None
    ui.automaticThresholdCheckBox.click()
    host.wait_until(lambda: len(outlines()) == 2, 10)
    from DNetRegistrationLib import find_bone_scale

    found = find_bone_scale(small_pair.fixed).threshold
    assert (
        ui.fixedThresholdSlider.enabled
        and abs(ui.fixedThresholdSlider.value - found) <= ui.fixedThresholdSlider.singleStep
    )
    low, high = ui.fixedThresholdSlider.minimum, ui.fixedThresholdSlider.maximum
    assert low < found < high
    points = [outline.GetPolyData().GetNumberOfPoints() for outline in outlines()]
    ui.fixedThresholdSlider.value = (found + high) / 2
    host.wait_until(lambda: [o.GetPolyData().GetNumberOfPoints() for o in outlines()] != points, 10)
    assert panel.logic.options(panel._parameterNode).fixed_threshold == ui.fixedThresholdSlider.value
    # Another volume, another threshold; and none of it once it is automatic again.
    other = volume_node(Volume(small_pair.fixed.voxels.astype(np.float32) / 1000, small_pair.fixed.affine), "c")
    ui.fixedSelector.setCurrentNode(other)
    assert abs(ui.fixedThresholdSlider.value - found / 1000) <= 2 * ui.fixedThresholdSlider.singleStep < 0.01 * found
    ui.automaticThresholdCheckBox.click()
    assert not outlines() and panel.logic.options(panel._parameterNode).fixed_threshold is None
    ui.automaticThresholdCheckBox.click()
    host.wait_until(lambda: len(outlines()) == 2, 10)
    panel.exit()
    assert not outlines()


def test_devices_are_looked_for_when_they_come_into_view(host, panel):
    def launch(command, environment, output, errors, end):
        assert command[1:] == ["-m", "DNetRegistrationLib.registration.devices"]
        output(b'[["cpu", "CPU"], ["cuda:0", "A card (cuda:0)"]]\n')
        end(0)
        return types.SimpleNamespace(kill=lambda: None, pid=0)

    def without_torch(command, environment, output, errors, end):
        errors(b"ModuleNotFoundError: No module named 'torch'\n")
        qt.QTimer.singleShot(0, lambda: end(1))
        return types.SimpleNamespace(kill=lambda: None, pid=0)

    import qt

    selector = panel.ui.deviceSelector
    for launching in (without_torch, launch):
        assert selector.count == 2
        panel.logic.launch = launching
        panel.ui.advancedCollapsibleButton.collapsed = True
        panel.ui.advancedCollapsibleButton.collapsed = False
        host.process_events()
    assert [selector.itemText(i) for i in range(selector.count)] == ["Automatic", "CPU", "A card (cuda:0)"]
    selector.currentIndex = 2
    assert panel.logic.options(panel._parameterNode).device == "cuda:0"
    # A scene from elsewhere names a device that is not here.
    panel._parameterNode.device = "mps"
    assert selector.currentText == "mps (not found here)"


def test_torch_that_is_missing(host, panel, pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    ensure_torch = type(panel.logic).ensureTorch.__globals__["ensure_torch"]
    monkeypatch.setitem(ensure_torch.__globals__, "installed_version", lambda: None)
    before = snapshot()
    panel.ui.alignButton.click()
    assert panel.job is None and "install the extension PyTorch" in panel.ui.verdictLabel.text
    assert snapshot() == before and not leftovers()


def test_undo_follows_the_scene(host, panel, pair):
    """Taken out of the transform by hand, there is nothing to undo; put back, there is."""
    click(host, panel, Launcher(rigid(1)))
    transform = panel._parameterNode.transform
    assert panel.ui.undoButton.enabled
    pair[1].SetAndObserveTransformNodeID(None)
    assert not panel.ui.undoButton.enabled
    pair[1].SetAndObserveTransformNodeID(transform.GetID())
    assert panel.ui.undoButton.enabled


def test_an_unused_transform_may_be_given(host, panel, pair):
    mine = add_transform("mine", rigid(9))
    panel.ui.transformSelector.setCurrentNode(mine)
    click(host, panel, Launcher(rigid(1)))
    assert pair[1].GetParentTransformNode() is mine


def test_no_two_widgets_overlap(host, panel, pair, tmp_path):
    """And no text is cut off, at the usual width of the panel, with all that can be shown."""
    click(host, panel, Launcher(rigid(1)))
    panel.logic.launch = lambda *arguments: types.SimpleNamespace(kill=lambda: None, pid=0)
    panel.ui.advancedCollapsibleButton.collapsed = False
    panel.parent.resize(400, 1100)
    host.process_events()
    host.widget_picture(panel.parent, tmp_path / "panel.png")
    buttons = [panel.ui.alignButton, panel.ui.undoButton]
    for widget in buttons + [w for name, w in vars(panel.ui).items() if name.endswith("Label") and w.text]:
        if widget.visible and not getattr(widget, "wordWrap", False):
            hint = widget.sizeHint if not callable(widget.sizeHint) else widget.sizeHint()
            assert widget.width >= hint.width(), widget.text


def test_the_ui_file_is_in_step(host):
    """Names that only Slicer or Qt Designer would miss; every control has a tooltip, and its place in the tab order."""
    import xml.etree.ElementTree as ElementTree

    host.load(MODULE)
    from DNetRegistrationLib.slicer_module.parameters import DNetRegistrationParameterNode

    tree = ElementTree.parse(MODULE.parent / "Resources" / "UI" / "DNetRegistration.ui").getroot()
    widgets = {widget.get("name"): widget for widget in tree.iter("widget")}
    texts = {
        name: {
            one.get("name"): "".join(one.itertext()).strip()
            for one in (*widget.findall("property"), *widget.findall("attribute"))
        }
        for name, widget in widgets.items()
    }
    named = {values["SlicerParameterName"] for values in texts.values() if "SlicerParameterName" in values}
    by_hand = {"fixedThreshold", "movingThreshold", "weights", "device"}
    by_hand |= {f"{place}{kind}" for place in ("fixed", "moving", "region") for kind in ("Mask", "Segment")}
    assert named | by_hand == set(DNetRegistrationParameterNode.allParameters) and not named & by_hand
    passive = ("QLabel", "QProgressBar", "ctkCollapsibleButton", "qMRMLWidget")
    controls = [name for name, widget in widgets.items() if widget.get("class") not in passive]
    assert [name for name in controls if not texts[name].get("toolTip")] == []
    assert [stop.text for stop in tree.iter("tabstop")] == controls  # from top to bottom
    scene = {c.findtext("receiver") for c in tree.iter("connection") if "mrmlSceneChanged" in c.findtext("signal")}
    assert scene == {name for name in controls if widgets[name].get("class") == "qMRMLNodeComboBox"}
    assert all(texts[name]["buddy"] in controls for name in widgets if "buddy" in texts[name])


@pytest.fixture
def library():
    """Puts the library back that the tests have imported, when all is over that was loaded in its place."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "DNetRegistrationLib"}
    yield before
    for name in [name for name in sys.modules if name.partition(".")[0] == "DNetRegistrationLib"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_reload_reads_the_library_anew(library, host, panel, pair, monkeypatch):
    import slicer

    held = Launcher(held=True)
    panel.logic.launch = held
    panel.ui.alignButton.click()
    panel.onReload()
    new = slicer.util.getModuleWidget("DNetRegistration")
    # The one process that is there is that of the new panel, which waits; another one takes its place here.
    assert held.killed and len(leftovers()) == 1
    monkeypatch.setattr(type(new.logic), "prepare", lambda self: None)
    new.logic.dismiss()
    assert not leftovers()
    for name in ("core.errors", "slicer_module.job", "slicer_module.panel", "slicer_module.scene"):
        assert sys.modules[f"DNetRegistrationLib.{name}"] is not library[f"DNetRegistrationLib.{name}"]
    assert type(new) is sys.modules["DNetRegistrationLib.slicer_module.panel"].DNetRegistrationWidget
    assert type(new) is not type(panel) and type(new.logic) is not type(panel.logic)
    # What was selected is in the scene; the new panel aligns.
    assert new._parameterNode.fixedVolume is pair[0] and new.ui.alignButton.text == "Align"
    click(host, new, Launcher(rigid(1)))
    assert new.ui.verdictLabel.text.startswith("Accepted")
    assert pair[1].GetParentTransformNode() is new._parameterNode.transform


# --- what stays as it is while other things happen ---------------------------------------------------------------


def test_a_second_click_while_torch_is_installed(host, panel, pair, monkeypatch):
    """The installation lets the window live, and with it the button."""
    launcher = panel.logic.launch = Launcher(rigid(1), held=True)
    started, seen = [], []

    def install():
        seen.append((panel.ui.alignButton.text, panel.ui.alignButton.enabled))
        panel.onAlignButton()

    monkeypatch.setattr(panel.logic, "ensureTorch", install)
    start = panel.logic.start
    monkeypatch.setattr(panel.logic, "start", lambda *arguments: started.append(1) or start(*arguments))
    panel.ui.alignButton.click()
    assert seen == [("Preparing PyTorch…", False)] and len(started) == 1
    launcher.answer()
    host.wait_until(lambda: not panel.running)
    assert panel.logic.isAligned(pair[1]) and not leftovers()


def test_the_alignment_of_another_pair_takes_no_result(host, panel, pair):
    click(host, panel, Launcher(rigid(1)))
    other, before = panel._parameterNode.transform, positions(pair[1])
    select(panel, add_volume("c", "plain"), add_volume("d", "oblique"))
    panel.ui.transformSelector.setCurrentNode(other)
    click(host, panel, Launcher(rigid(3)))
    assert "it is the alignment of another volume" in panel.ui.verdictLabel.text
    np.testing.assert_array_equal(positions(pair[1]), before)


def test_another_pair_that_is_selected_meanwhile_keeps_its_nodes(host, panel, pair):
    import slicer

    click(host, panel, Launcher(rigid(1)))
    first, before = panel._parameterNode.transform, positions(pair[1])
    added = add_volume("c", "plain"), add_volume("d", "oblique")
    select(panel, *added)
    launcher = panel.logic.launch = Launcher(rigid(3), held=True)
    panel.ui.alignButton.click()
    with slicer.util.NodeModify(panel._parameterNode):
        panel._parameterNode.fixedVolume, panel._parameterNode.movingVolume = pair
    launcher.answer()
    host.wait_until(lambda: not panel.running)
    assert added[1].GetParentTransformNode() not in (None, first)
    np.testing.assert_array_equal(positions(pair[1]), before)
    assert panel._parameterNode.transform is first


def test_outputs_of_a_pair_whose_transform_is_gone_are_kept(host, panel, pair):
    import slicer

    click(host, panel, Launcher(rigid(1)))
    kept = panel._parameterNode.segmentation, panel._parameterNode.table
    pair[1].HardenTransform()
    slicer.mrmlScene.RemoveNode(panel._parameterNode.transform)
    select(panel, add_volume("c", "plain"), add_volume("d", "oblique"))
    click(host, panel, Launcher(rigid(3)))
    assert panel._parameterNode.segmentation not in (None, kept[0])
    assert panel._parameterNode.table not in (None, kept[1])


@pytest.mark.parametrize("leave", ("exit", "cleanup"))
def test_outlines_stay_away_when_the_module_is_left(host, panel, small_pair, leave):
    import slicer

    def outlines():
        models = slicer.util.getNodesByClass("vtkMRMLModelNode")
        return [node for node in models if node.GetAttribute("DNetRegistration.preview")]

    select(panel, volume_node(small_pair.fixed, "a"), volume_node(small_pair.moving, "b"))
    panel.ui.automaticThresholdCheckBox.click()
    host.wait_until(lambda: len(outlines()) == 2, 10)
    getattr(panel, leave)()
    host.process_events(0.3)
    assert not outlines()


def test_volumes_are_let_go(host, panel):
    import gc
    import weakref

    select(panel, add_volume("a", "plain"), add_volume("b", "oblique"))
    click(host, panel, Launcher(rigid(1)))
    alive = weakref.ref(panel._parameterNode.movingVolume.GetImageData())
    host.close_scene()
    gc.collect()
    assert alive() is None


def test_wrappers_of_the_parameter_node_are_let_go(host, panel, pair):
    """One is made each time that the module is entered, with observers of its own."""
    import gc
    import weakref

    def let_go(wrapper):
        gc.collect()
        return wrapper() is None

    def of_slicer():
        wrapper = panel.logic.getParameterNode()
        wrapper.disconnectGui(wrapper.connectGui(panel.ui))
        return weakref.ref(wrapper)

    if not let_go(of_slicer()):
        pytest.skip("Slicer 5.10 itself holds on to what was connected")
    wrapper = weakref.ref(panel._parameterNode)
    panel.exit()
    panel.enter()
    assert let_go(wrapper)


def test_both_volumes_are_seen_when_they_are_chosen(host, panel):
    """Slicer shows what was loaded last: the outline of a threshold would lie on the other scan."""
    import slicer

    def layers():
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        return {(node.GetBackgroundVolumeID(), node.GetForegroundVolumeID()) for node in nodes}

    fixed, moving = add_volume("a", "plain"), add_volume("b", "oblique")
    slicer.util.setSliceViewerLayers(background=moving, foreground=None)
    panel.ui.fixedSelector.setCurrentNode(fixed)
    assert layers() == {(moving.GetID(), None)}
    panel.ui.movingSelector.setCurrentNode(moving)
    assert layers() == {(fixed.GetID(), moving.GetID())}
    # Coming back to the module leaves the views alone; thresholds by hand need both scans.
    slicer.util.setSliceViewerLayers(background=moving, foreground=None)
    panel.exit()
    panel.enter()
    assert layers() == {(moving.GetID(), None)}
    panel.ui.automaticThresholdCheckBox.click()
    assert layers() == {(fixed.GetID(), moving.GetID())}


def test_two_panels_do_not_align_one_volume(host, panel, pair):
    import slicer

    second = slicer.modules.dnetregistration.createNewWidgetRepresentation().self()
    second.enter()
    launchers = [Launcher(rigid(1), held=True), Launcher(rigid(2), held=True)]
    panel.logic.launch, second.logic.launch = launchers
    try:
        panel.ui.alignButton.click()
        second.ui.alignButton.click()
        assert panel.running and not second.running
        assert "PostContrast: is being aligned already; wait until that has ended" in second.ui.verdictLabel.text
        launchers[0].answer()
        host.wait_until(lambda: not panel.running)
        second.ui.alignButton.click()
        assert second.running
        launchers[1].answer()
        host.wait_until(lambda: not second.running)
    finally:
        second.cleanup()
    np.testing.assert_allclose(
        slicer.util.arrayFromTransformMatrix(pair[1].GetParentTransformNode()),
        np.linalg.inv(FLIP @ rigid(2) @ FLIP),
        atol=1e-9,
    )


def test_the_panel_has_one_unit(host, panel, pair):
    verdict = "Accepted: the bones lie on each other, to within about 2.0 um."
    warnings = ["no answer: this lies 300 um off"]
    click(host, panel, Launcher(rigid(1), verdict=verdict, warnings=warnings))
    cells = panel._parameterNode.table.GetTable()
    rows = [cells.GetValue(i, j).ToString() for i in range(cells.GetNumberOfRows()) for j in range(3)]
    shown = "\n".join([panel.ui.verdictLabel.text, panel.ui.detailsLabel.text, *rows])
    assert "to within about 2.0 µm." in shown and "300 µm off" in shown
    assert " um" not in shown and "um" not in rows


# --- a pose that is shown before it is checked --------------------------------------------------------------------


def test_a_pose_is_shown_before_it_is_checked(host, panel, pair):
    """It lies where the process said, nothing is green, and what follows is the checked one."""
    import slicer

    launcher = panel.logic.launch = Launcher(rigid(2), held=True)
    was = positions(pair[1])
    panel.ui.alignButton.click()
    launcher.tell(events.POSE, matrix=rigid(1).tolist())

    def lies(matrix):
        for now, before in zip(positions(pair[1]), was, strict=True):
            np.testing.assert_allclose((matrix @ (*now, 1))[:3], before, atol=1e-9)

    lies(rigid(1))
    assert "checking" in panel.ui.verdictLabel.text and "#d7f0dd" not in panel.ui.verdictLabel.styleSheet
    assert panel.ui.alignButton.text == "Cancel" and not panel.ui.undoButton.enabled
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() == pair[1].GetID()
    launcher.tell(events.POSE, matrix=rigid(3).tolist())  # the work is done anew, on another device
    lies(rigid(3))
    composite.SetForegroundOpacity(0.2)  # the user looks
    launcher.answer()
    host.wait_until(lambda: not panel.running)
    lies(rigid(2))
    assert panel.ui.verdictLabel.text.startswith("Accepted") and panel.ui.undoButton.enabled
    assert composite.GetForegroundOpacity() == 0.2
    panel.ui.undoButton.click()
    np.testing.assert_array_equal(positions(pair[1]), was)


ENDS = {
    "cancelled": lambda launcher, panel, pair: panel.ui.alignButton.click(),
    "crashed": lambda launcher, panel, pair: launcher.end(-11),
    "failed": lambda launcher, panel, pair: (launcher.tell(**told(ScanError("a", "b"))["told"][0]), launcher.end(2)),
    "geometry": lambda launcher, panel, pair: (pair[0].SetSpacing(1, 1, 1), launcher.answer()),
    "no result": lambda launcher, panel, pair: (
        launcher.tell(events.RESULT, alignments=[aligned(rigid(2)).to_dict()]),
        launcher.end(0),
    ),
}


@pytest.mark.parametrize("again", (False, True))
@pytest.mark.parametrize("end", ENDS)
def test_a_pose_that_nothing_comes_of_is_taken_back(host, panel, pair, end, again):
    """Also where it had taken the place of an earlier alignment, whose verdict is back with it."""
    if again:
        click(host, panel, Launcher(rigid(4)))
    before, verdict = snapshot(), panel.ui.verdictLabel.text
    launcher = panel.logic.launch = Launcher(rigid(2), held=True)
    panel.ui.alignButton.click()
    launcher.tell(events.POSE, matrix=rigid(1).tolist())
    assert snapshot()[1] != before[1]
    ENDS[end](launcher, panel, pair)
    assert not panel.running and not leftovers()
    if end == "geometry":
        pair[0].SetSpacing(0.07, 0.06, 0.065)
    nodes, lie = snapshot()
    assert nodes == before[0]
    for now, then in zip(lie, before[1], strict=True):
        np.testing.assert_allclose(now, then, atol=1e-9)
    panel.enter()
    panel._result.forget()
    panel._update()
    assert panel.ui.verdictLabel.text == verdict


def test_a_volume_that_is_deleted_while_its_pose_is_checked(host, panel, pair):
    import slicer

    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTransformNode")
    launcher = panel.logic.launch = Launcher(rigid(2), held=True)
    panel.ui.alignButton.click()
    launcher.tell(events.POSE, matrix=rigid(1).tolist())
    slicer.mrmlScene.RemoveNode(pair[0])
    assert launcher.killed and pair[1].GetParentTransformNode() is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == count


def test_scans_are_handed_over_in_parts(host, panel, pair, monkeypatch):
    """The window lives in between; what is cancelled meanwhile leaves nothing behind."""
    from DNetRegistrationLib.slicer_module import raw_files

    monkeypatch.setattr(raw_files, "PART", 1)
    launcher = panel.logic.launch = Launcher(rigid(2), held=True)
    panel.ui.alignButton.click()
    assert leftovers() and not (launcher.folder / "request.json").exists() and panel.ui.alignButton.text == "Cancel"
    panel.ui.alignButton.click()
    host.process_events(0.05)
    assert launcher.killed and not leftovers()
    panel.ui.alignButton.click()
    host.wait_until((launcher.folder / "request.json").exists)
    read = read_request(launcher.folder)
    import slicer

    for node, scan in zip(pair, (read.fixed, read.moving), strict=True):
        assert np.array_equal(slicer.util.arrayFromVolume(node), scan.voxels)
    launcher.answer()
    host.wait_until(lambda: not panel.running)
    assert panel.ui.verdictLabel.text.startswith("Accepted") and not leftovers()


def test_a_disk_that_fills_while_scans_are_handed_over(host, panel, pair, monkeypatch):
    from DNetRegistrationLib.slicer_module import raw_files, request

    monkeypatch.setattr(raw_files, "PART", 1)
    launcher = panel.logic.launch = Launcher(rigid(2), held=True)
    before = snapshot()
    panel.ui.alignButton.click()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(request.os, "replace", full)
    host.wait_until(lambda: not panel.running)
    assert "No space left on device); make room" in panel.ui.verdictLabel.text
    assert launcher.killed and snapshot() == before and not leftovers()


# --- a process that is started ahead -----------------------------------------------------------------------------


@pytest.fixture
def waiting(host, monkeypatch):
    """The panel, and what it starts ahead: launchers that answer when they are asked to."""
    host.load(MODULE)
    from DNetRegistrationLib.slicer_module import logic as module

    started = []

    def launch(self, *arguments):
        started.append(Launcher(rigid(1), held=True))
        return started[-1](*arguments)

    monkeypatch.setattr(module.DNetRegistrationLogic, "_launch", launch)
    opened = host.open("DNetRegistration")
    opened.parent.show()
    opened.started = started
    yield opened
    opened.logic.dismiss()


def alive(panel) -> list:
    return [launcher for launcher in panel.started if not launcher.killed]


def test_a_process_waits_when_both_volumes_are_chosen(host, waiting):
    panel, (fixed, moving) = waiting, (add_volume("a", "plain"), add_volume("b", "oblique"))
    panel.ui.fixedSelector.setCurrentNode(fixed)
    assert not panel.started
    panel.ui.movingSelector.setCurrentNode(moving)
    assert len(panel.started) == 1
    panel.ui.movingSelector.setCurrentNode(add_volume("c", "left"))
    panel.ui.refineSelector.currentIndex = 1
    assert len(panel.started) == 1  # never two
    panel.ui.alignButton.click()
    assert len(panel.started) == 1 and read_request(panel.started[0].folder).moving.name == "c"
    panel.started[0].answer()
    host.wait_until(lambda: not panel.running)
    assert panel.ui.verdictLabel.text.startswith("Accepted")
    # It gave its memory back; another one waits for the next click.
    assert len(panel.started) == 2 and len(leftovers()) == 1


def test_what_waits_ends_with_what_it_waits_for(host, waiting, monkeypatch):
    from DNetRegistrationLib.slicer_module import panel_run

    panel = waiting
    panel._run._away.setInterval(20)
    assert panel_run.AWAY == 180_000
    select(panel, add_volume("a", "plain"), add_volume("b", "oblique"))
    panel.exit()
    panel.enter()  # in time
    host.process_events(0.06)
    assert len(alive(panel)) == 1 == len(panel.started)
    panel.exit()
    host.wait_until(lambda: not alive(panel), 5)
    assert not leftovers()
    panel.enter()
    assert len(alive(panel)) == 1
    host.close_scene()
    assert not alive(panel) and not leftovers()
    select(panel, add_volume("a", "plain"), add_volume("b", "oblique"))
    assert len(alive(panel)) == 1
    panel.cleanup()
    assert not alive(panel) and not leftovers()


def test_what_waits_and_dies_is_not_missed(host, waiting):
    """A click starts another one, which tells why where it dies too; nothing is started again and again."""
    panel = waiting
    select(panel, add_volume("a", "plain"), add_volume("b", "oblique"))
    panel.started[0].end(-9)
    panel.started[0].killed = True
    panel.ui.refineSelector.currentIndex = 1
    host.process_events(0.02)
    assert len(panel.started) == 1 and not leftovers()
    panel.ui.alignButton.click()
    assert len(panel.started) == 2
    panel.started[1].tell(**told(PackageError("PyTorch does not load", "install it anew"))["told"][0])
    panel.started[1].end(2)
    assert "PyTorch does not load" in panel.ui.verdictLabel.text


def test_cancelling_ends_what_had_waited(host, waiting):
    panel = waiting
    select(panel, add_volume("a", "plain"), add_volume("b", "oblique"))
    panel.ui.alignButton.click()
    panel.ui.alignButton.click()
    assert panel.started[0].killed and panel.ui.verdictLabel.text == "Cancelled: nothing was changed."
    assert len(alive(panel)) == 1 and len(leftovers()) == 1


def test_nothing_waits_without_torch(host, waiting, monkeypatch):
    from DNetRegistrationLib.slicer_module import torch_setup

    asked = []
    monkeypatch.setattr(torch_setup, "installed_version", lambda: asked.append(1))
    select(waiting, add_volume("a", "plain"), add_volume("b", "oblique"))
    waiting.ui.refineSelector.currentIndex = 1
    assert not waiting.started and len(asked) == 1 and not leftovers()


# Masks, the pose that is seen, and voxels in reverse order


def mask_outlines():
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLModelNode")
    return {node.GetName(): node for node in nodes if node.GetName().startswith("Mask outline")}


def two_segments(volume):
    """Two halves of a volume along its first axis."""
    import slicer
    import vtk

    labels = np.ones(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    labels[..., labels.shape[2] // 2 :] = 2
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    node = slicer.util.addVolumeFromArray(
        labels, ijkToRAS=slicer.util.arrayFromVTKMatrix(matrix), nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    made = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Halves")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(node, made)
    slicer.mrmlScene.RemoveNode(node)
    return made, labels


def test_a_segment_goes_to_the_alignment_as_a_mask(host, panel, pair, tmp_path):
    import slicer
    from DNetRegistrationLib.imaging.masks import mask_on

    ui, (fixed, _moving) = panel.ui, pair
    assert not ui.fixedSegmentSelector.visible
    node, labels = two_segments(fixed)
    ui.fixedMaskSelector.setCurrentNode(node)
    assert ui.fixedSegmentSelector.visible and not ui.movingSegmentSelector.visible
    assert ui.fixedSegmentSelector.count == 3 and ui.fixedSegmentSelector.currentIndex == 0
    ui.fixedSegmentSelector.currentIndex = 2
    host.wait_until(lambda: mask_outlines(), 5)
    (outline,) = mask_outlines().values()
    assert outline.GetPolyData().GetNumberOfPoints() and not outline.GetSaveWithScene()
    assert panel._parameterNode.fixedSegment == node.GetSegmentation().GetNthSegmentID(1)  # and is saved with the scene
    panel.logic.launch = launcher = Launcher(held=True)
    ui.alignButton.click()
    host.wait_until(lambda: (launcher.folder / "request.json").exists(), 5)
    read = read_request(launcher.folder)
    assert read.moving_mask is None and np.array_equal(mask_on(read.fixed_mask, read.fixed), labels == 2)
    host.wait_until(lambda: not mask_outlines(), 5)  # hidden while it runs
    ui.alignButton.click()
    assert slicer.util.saveScene(str(tmp_path / "scene"))
    host.close_scene()
    slicer.util.loadScene(str(next((tmp_path / "scene").glob("*.mrml"))))
    panel.enter()
    assert ui.fixedMaskSelector.currentNode().GetName() == "Halves" and ui.fixedSegmentSelector.currentIndex == 2


def test_a_segment_that_is_gone_is_not_all_of_them(host, panel, pair):
    ui, (_fixed, moving) = panel.ui, pair
    node, _ = two_segments(moving)
    ui.movingMaskSelector.setCurrentNode(node)
    ui.movingSegmentSelector.currentIndex = 1
    node.GetSegmentation().RemoveSegment(panel._parameterNode.movingSegment)
    panel.exit()
    panel.enter()
    assert ui.movingSegmentSelector.currentText.endswith("(gone)")
    before = snapshot()
    click(host, panel, Launcher(np.eye(4)))
    assert "is gone" in ui.verdictLabel.text and "Moving mask" in ui.verdictLabel.text and snapshot() == before
    other, _ = two_segments(moving)
    ui.movingMaskSelector.setCurrentNode(other)
    assert panel._parameterNode.movingSegment == "" and ui.movingSegmentSelector.currentIndex == 0


def test_outlines_of_masks_go_with_the_panel(host, panel, pair):
    node, _ = two_segments(pair[0])
    panel.ui.fixedMaskSelector.setCurrentNode(node)
    host.wait_until(lambda: mask_outlines(), 5)
    panel.exit()
    assert not mask_outlines()
    panel.enter()
    host.wait_until(lambda: mask_outlines(), 5)
    panel.ui.fixedMaskSelector.setCurrentNode(None)
    host.wait_until(lambda: not mask_outlines(), 5)
    drawn = []
    panel._masks._timer.connect("timeout()", lambda: drawn.append(1))
    host.process_events(0.5)
    assert len(drawn) <= 2  # drawing does not lead to drawing


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_pose_that_is_seen_is_tried_first(host, panel, pair, by_hand):
    """Points of the fixed volume go to those of the moving one that are seen there, in its coordinates when placed."""
    import slicer
    from DNetRegistrationLib.slicer_module.scene import place

    moving = pair[1]
    put_under(moving, rigid(1))
    click(host, panel, Launcher(rigid(3)))
    transform = moving.GetParentTransformNode()
    if by_hand:
        changed = rigid(4) @ slicer.util.arrayFromTransformMatrix(transform)
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(changed))
    parameters, placed = panel._parameterNode, place(moving, "moving")
    assert panel.logic.options(parameters, placed).initial is None
    panel.ui.startAsSeenCheckBox.click()
    initial = np.array(panel.logic.options(parameters, placed).initial)
    for index, seen in zip(INDICES, positions(moving), strict=True):
        assert np.allclose(initial @ (*seen, 1), placed.affine @ (*index, 1), atol=1e-9)
    assert np.allclose(initial, rigid(3), atol=1e-9) != by_hand
    panel.logic.undo(moving)
    assert np.allclose(panel.logic.options(parameters, place(moving, "moving")).initial, np.eye(4), atol=1e-12)


def test_voxels_are_flipped_and_flipped_back(host, panel, pair):
    import slicer

    fixed, moving = pair
    click(host, panel, Launcher(rigid(3)))
    before = {node: slicer.util.arrayFromVolume(node).copy() for node in pair}
    select_item(panel.ui.flipSelector, "moving y")
    panel.ui.flipButton.click()
    assert np.array_equal(slicer.util.arrayFromVolume(moving), before[moving][:, ::-1])
    assert np.array_equal(slicer.util.arrayFromVolume(fixed), before[fixed])
    assert "reverse order along y" in panel.ui.verdictLabel.text
    panel.ui.flipSelector.currentIndex = 0
    panel._result.forget()
    panel._update()
    assert "Voxels were changed" in panel.ui.verdictLabel.text
    select_item(panel.ui.flipSelector, "moving y")
    panel.ui.flipButton.click()
    assert np.array_equal(slicer.util.arrayFromVolume(moving), before[moving])
    panel._result.forget()
    panel._update()
    assert "Accepted" in panel.ui.verdictLabel.text


def test_a_pose_that_was_given_is_told_of_in_words(host, panel, pair):
    click(host, panel, Launcher(rigid(3), hypothesis="initial"))
    assert "Found by the initial pose on the CPU" in panel.ui.detailsLabel.text


def select_item(selector, data):
    selector.currentIndex = selector.findData(data)


def test_the_largest_bone_is_asked_for(panel, pair):
    ui = panel.ui
    assert panel.logic.options(panel._parameterNode).bone is None
    ui.boneSelector.currentIndex = 1
    assert panel.logic.options(panel._parameterNode).bone == "largest"
