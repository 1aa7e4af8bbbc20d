"""Volumes that are aligned once more: nothing of the earlier alignment is shown or told as if it were of this one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cartilages import made_measurement
from DNetRegistrationLib.outputs.segmentation import Cortices
from DNetRegistrationLib.slicer_module.contents import Contents
from DNetRegistrationLib.slicer_module.measured_cartilage import MeasuredCartilage
from panels import Launcher, click, select, select_two_volumes
from scene_nodes import add_transform, add_volume, aligned, rigid


@pytest.fixture
def pair(panel):
    return select_two_volumes(panel)


def everything(fixed) -> Contents:
    mask = np.zeros((8, 8, 8), bool)
    mask[2:6, 2:6, 2:6] = True
    told = {"compartments": [], "warnings": ["of the first"]}
    rows = [{"compartment": "all"}]
    cartilage = MeasuredCartilage(told, rows, made_measurement(np.eye(4)).map, 60.0, mask, fixed.affine)
    grey = np.zeros(fixed.volume().voxels.shape, np.float32)
    return Contents(Cortices(mask, mask, fixed.affine), grey, grey, 1.0, cartilage)


def align(fixed, moving, nodes, contents=None, seed=1):
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_outputs import write_steps

    placed = place(fixed, "fixed"), place(moving, "moving")
    filled = everything(placed[0]) if contents is None else contents
    *_, transform = write_steps(*placed, aligned(rigid(seed)), nodes, filled)
    return transform


def drawn(node) -> list[bool]:
    return [bool(node.GetNthDisplayNode(number).GetVisibility()) for number in range(node.GetNumberOfDisplayNodes())]


def test_what_is_not_written_anew_is_let_go(host):
    """It stays in the scene, unseen: the moving bone is no longer there."""
    from DNetRegistrationLib.slicer_module.scene import outputs_of
    from DNetRegistrationLib.slicer_module.scene_compare import Solid, distance_model, show_solid, solids

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "far")
    transform = align(fixed, moving, {"table": None})
    before = outputs_of(transform)
    assert len(before) == 6
    show_solid(transform, Solid.DISTANCE)
    assert align(fixed, moving, {}, Contents(), seed=2) is transform
    assert outputs_of(transform) == {} and distance_model(transform) is None and solids(transform) == []
    for name in ("segmentation", "thickness"):
        assert before[name].GetScene() is not None and not any(drawn(before[name]))


@pytest.mark.parametrize("how", ["another pair", "another transform"])
def test_an_output_belongs_to_one_alignment(host, how):
    from DNetRegistrationLib.slicer_module.scene import outputs_of
    from DNetRegistrationLib.slicer_module.scene_compare import Solid, distance_model, show_solid

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "far")
    first = align(fixed, moving, {"table": None})
    outputs = outputs_of(first)
    show_solid(first, Solid.DISTANCE)
    other = add_volume("third", "plain") if how == "another pair" else moving
    second = align(fixed, other, {**outputs, "transform": add_transform("second", np.eye(4))}, seed=2)
    assert second is not first and outputs_of(second) == outputs
    assert outputs_of(first) == {} and distance_model(first) is None


def test_of_two_alignments_of_a_volume_the_one_applied_is_drawn(host):
    from DNetRegistrationLib.slicer_module.scene import OUTPUT_ROLES, outputs_of

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "far")
    first = align(fixed, moving, {"table": None})
    new = {"transform": add_transform("second", np.eye(4)), **dict.fromkeys(OUTPUT_ROLES)}
    second = align(fixed, moving, new, seed=2)
    for name in ("segmentation", "thickness"):
        assert not any(drawn(outputs_of(first)[name]))
        assert any(drawn(outputs_of(second)[name]))


def test_a_pose_that_is_being_checked_has_nothing_of_before(host):
    """Nor does a scene that is saved in between. Where it is taken back, all is as it was."""
    from DNetRegistrationLib.slicer_module.scene import outputs_of, place
    from DNetRegistrationLib.slicer_module.scene_cartilage import told_of
    from DNetRegistrationLib.slicer_module.scene_pose import UncheckedPose

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "far")
    transform = align(fixed, moving, {"table": None})
    outputs, told = outputs_of(transform), told_of(transform)
    seen = {name: drawn(outputs[name]) for name in ("segmentation", "thickness")}
    assert any(seen["segmentation"]) and any(seen["thickness"]) and told["warnings"] == ["of the first"]
    pose = UncheckedPose(place(fixed, "fixed"), place(moving, "moving"), rigid(2), transform)
    assert outputs_of(transform) == {} and told_of(transform) is None
    assert not any(shown for name in seen for shown in drawn(outputs[name]))
    pose.take_back()
    assert outputs_of(transform) == outputs and told_of(transform) == told
    assert {name: drawn(outputs[name]) for name in seen} == seen


def test_what_cannot_be_read_leaves_nothing_of_before(host, panel, pair, monkeypatch):
    from DNetRegistrationLib.core.errors import FileError
    from DNetRegistrationLib.slicer_module import scene_outputs

    panel.ui.subtractionSelector.addNode("vtkMRMLScalarVolumeNode")
    click(host, panel, Launcher(rigid(1)))

    def broken(*given):
        raise FileError("a file is gone", "align again")

    monkeypatch.setattr(scene_outputs, "copy_voxels", broken)
    click(host, panel, Launcher(rigid(2)))
    assert "gone" in panel.ui.verdictLabel.text
    transform = panel._parameterNode.transform
    matrix = np.array(json.loads(transform.GetAttribute("DNetRegistration.matrix")))
    np.testing.assert_allclose(matrix, rigid(2), atol=1e-12)  # the verdict of the second is in the scene
    assert "subtraction" not in scene_outputs.outputs_of(transform)


def test_what_was_hidden_of_the_earlier_one_is_not_shown_again(host, panel, pair):
    """Undo hides the bones. Another alignment shows its own, and not those besides."""
    click(host, panel, Launcher(rigid(1)))
    first = panel._parameterNode.segmentation
    panel.ui.undoButton.click()
    panel._parameterNode.segmentation = None
    click(host, panel, Launcher(rigid(2)))
    second = panel._parameterNode.segmentation
    assert second is not first and any(drawn(second)) and not any(drawn(first))


def test_what_another_pair_shows_of_the_moving_bone_goes(host, panel, pair):
    """The moving bone lies on one of two fixed volumes. It is drawn there alone, whoever moves it."""
    import slicer

    fixed, moving = pair
    third = add_volume("third", "plain")
    click(host, panel, Launcher(rigid(1)))
    transforms, drawings = [panel._parameterNode.transform], [panel._parameterNode.segmentation]
    select(panel, third, moving)
    panel._parameterNode.transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "new")
    click(host, panel, Launcher(rigid(2)))
    transforms.append(panel._parameterNode.transform)
    drawings.append(panel._parameterNode.segmentation)
    assert [any(drawn(node)) for node in drawings] == [False, True]
    select(panel, fixed, moving)
    for number in (0, 1, 0):
        moving.SetAndObserveTransformNodeID(transforms[number].GetID())
        assert panel.ui.verdictLabel.text.startswith("Accepted") == (number == 0)
        assert not any(drawn(drawings[1]))
    panel.ui.undoButton.click()
    assert not any(drawn(node)[0] for node in drawings)


@pytest.mark.parametrize("how", ["put under", "hardened"])
def test_outlines_that_stay_behind_are_hidden(host, panel, pair, how):
    """Both volumes are moved together, and the verdict holds; what is drawn lies where they were."""
    fixed, moving = pair
    click(host, panel, Launcher(rigid(1)))
    segmentation, above = panel._parameterNode.segmentation, moving.GetParentTransformNode()
    together = add_transform("together", rigid(4))
    for node in (fixed, above):
        node.SetAndObserveTransformNodeID(together.GetID())
    if how == "hardened":
        fixed.HardenTransform()
    assert panel.ui.verdictLabel.text.startswith("Accepted") and "Align again" in panel.ui.detailsLabel.text
    assert not any(drawn(segmentation)) and not panel.ui.solidSelector.enabled
    segmentation.SetAndObserveTransformNodeID(together.GetID())
    fixed.Modified()
    assert any(drawn(segmentation)) and panel.ui.solidSelector.enabled
    assert "Align again" not in panel.ui.detailsLabel.text


@pytest.mark.parametrize("grid", ["oblique", "left"])
def test_a_grid_that_is_turned_when_it_is_read_lies_where_it_was(host, grid):
    import slicer
    import vtk
    from DNetRegistrationLib.slicer_module.scene import lies_beside, outputs_of

    fixed, moving = add_volume("fixed", grid), add_volume("moving", "far")
    transform = align(fixed, moving, {})
    output = outputs_of(transform)["segmentation"]
    matrix = vtk.vtkMatrix4x4()
    fixed.GetIJKToRASMatrix(matrix)
    steps = slicer.util.arrayFromVTKMatrix(matrix)
    last = fixed.GetImageData().GetDimensions()[2] - 1
    for place, there in ((last, True), (last + 1, False)):
        turned = steps.copy()
        turned[:3, 3] += place * steps[:3, 2]
        turned[:3, 2] *= -1
        fixed.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(turned))
        assert lies_beside(output, transform) is there
