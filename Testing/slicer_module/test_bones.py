"""Bones that moved on their own: a transform, a verdict and outputs of each, and the one that is chosen is seen."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.registration.result import Bone
from panels import Launcher, click, select_two_volumes
from scene_nodes import add_volume, aligned, positions, rigid, world_lps

GOOD, DOUBT = "#d7f0dd", "#ffeec2"


@pytest.fixture
def pair(panel):
    return select_two_volumes(panel)


def bone(number: int, count: int, **changes) -> dict:
    """What an alignment of one bone of several says; each has a matrix of its own."""
    center = np.array((1.0, -2.0, number))
    return {"matrix": rigid(number), "bone": Bone(number, count, 0.6 / number, center), **changes}


REFUSED = {"accepted": False, "verdict": "Not accepted: the second bone.", "dice": 0.4}


def lies_by(fixed, moving, matrix) -> bool:
    """Whether the moving volume lies as a matrix says, point by point: its places now, and where they were."""
    parent = moving.GetTransformNodeID()
    laid = positions(moving)
    moving.SetAndObserveTransformNodeID(None)
    before = positions(moving)
    moving.SetAndObserveTransformNodeID(parent)
    there = np.column_stack((laid, np.ones(len(laid)))) @ np.asarray(matrix).T
    return bool(np.allclose(there[:, :3], before, atol=1e-6))


def transforms(fixed, moving) -> list:
    """Of all alignments of the two, the first bone first."""
    from DNetRegistrationLib.slicer_module.scene import alignment_of, find_transforms

    return sorted(find_transforms(fixed, moving), key=lambda node: alignment_of(node).bone.number)


def visible(transform) -> bool:
    from DNetRegistrationLib.slicer_module.scene import outputs_of

    return bool(outputs_of(transform)["segmentation"].GetDisplayNode().GetVisibility())


def ask_for_each(panel):
    panel.ui.boneSelector.currentIndex = 2
    assert panel.logic.options(panel._parameterNode).bone == "each"


def test_each_bone_has_a_transform_and_a_verdict(host, panel, pair):
    from DNetRegistrationLib.slicer_module.scene import outputs_of

    ui, (fixed, moving) = panel.ui, pair
    ask_for_each(panel)
    assert not ui.alignmentSelector.visible
    panel.ui.resampledSelector.addNode("vtkMRMLScalarVolumeNode")
    click(host, panel, Launcher(bones=[bone(1, 2), bone(2, 2, **REFUSED)]))
    first, second = transforms(fixed, moving)
    assert lies_by(fixed, moving, rigid(1)) and moving.GetParentTransformNode() is first
    assert panel._parameterNode.transform is first and "bone 2" in second.GetName()
    # What is seen is the first, and all of both is told.
    assert GOOD in ui.verdictLabel.styleSheet and visible(first) and not visible(second)
    lines = ui.detailsLabel.text.splitlines()
    assert lines[0].startswith("Bone 1 of 2, 60 %")
    (other,) = [line for line in lines if "Not accepted: the second bone." in line]
    assert "bone 2 of 2, 30 %" in other
    texts = [ui.alignmentSelector.itemText(number) for number in range(ui.alignmentSelector.count)]
    assert ui.alignmentSelector.visible and len(texts) == 2
    assert texts[0].startswith("bone 1 of 2") and texts[0].endswith(": accepted")
    assert texts[1].startswith("bone 2 of 2") and texts[1].endswith(": not accepted")
    # Outputs of its own: one of the first is none of the second.
    outputs = [outputs_of(one) for one in (first, second)]
    assert [set(one) for one in outputs] == 2 * [{"segmentation", "table", "resampled"}]
    assert not set(outputs[0].values()) & set(outputs[1].values())
    for one, name, dice in ((outputs[0], "bone 1 of 2", "0.930"), (outputs[1], "bone 2 of 2", "0.400")):
        table = one["table"]
        cells = {table.GetCellText(row, 0): table.GetCellText(row, 1) for row in range(table.GetNumberOfRows())}
        assert cells["Bone"].startswith(name) and cells["Dice of the cortices aligned"] == dice


def test_the_bone_that_is_chosen_is_seen(host, panel, pair):
    """By the list, or by putting the volume under its transform; the verdict is that of the chosen one."""
    ui, (fixed, moving) = panel.ui, pair
    ask_for_each(panel)
    click(host, panel, Launcher(bones=[bone(1, 2), bone(2, 2, **REFUSED)]))
    first, second = transforms(fixed, moving)
    ui.alignmentSelector.currentIndex = 1
    assert moving.GetParentTransformNode() is second and lies_by(fixed, moving, rigid(2))
    assert ui.verdictLabel.text.startswith("Not accepted: the second") and DOUBT in ui.verdictLabel.styleSheet
    assert visible(second) and not visible(first) and ui.alignmentSelector.currentIndex == 1
    moving.SetAndObserveTransformNodeID(first.GetID())
    assert GOOD in ui.verdictLabel.styleSheet and ui.alignmentSelector.currentIndex == 0
    assert visible(first) and not visible(second)  # what was hidden is shown again
    ui.undoButton.click()
    assert not visible(first) and not visible(second) and ui.alignmentSelector.visible
    ui.alignmentSelector.currentIndex = 1
    assert moving.GetParentTransformNode() is second and visible(second)
    # An edit takes both verdicts.
    import slicer

    slicer.util.updateVolumeFromArray(fixed, slicer.util.arrayFromVolume(fixed) + 1)
    assert not ui.alignmentSelector.visible and not visible(second) and "accepted" not in ui.detailsLabel.text


@pytest.mark.parametrize("count", [1, 2, 3])
def test_aligned_again_the_bones_keep_their_nodes(host, panel, pair, count):
    ui, (fixed, moving) = panel.ui, pair
    ask_for_each(panel)
    click(host, panel, Launcher(bones=[bone(1, 2), bone(2, 2)]))
    before = transforms(fixed, moving)
    ui.alignmentSelector.currentIndex = 1
    bones = [{**bone(number, count), "matrix": rigid(10 + number)} for number in range(1, count + 1)]
    click(host, panel, Launcher(bones=bones))
    after = transforms(fixed, moving)
    assert len(after) == max(2, count) and after[:2] == before
    assert lies_by(fixed, moving, rigid(11)) and moving.GetParentTransformNode() is before[0]
    for number, node in enumerate(after[:count], 1):
        moving.SetAndObserveTransformNodeID(node.GetID())
        assert lies_by(fixed, moving, rigid(10 + number)) and GOOD in ui.verdictLabel.styleSheet


def named(transform) -> set[str]:
    """Which bone the names of a transform node and its outputs speak of, less what makes them different."""
    from DNetRegistrationLib.slicer_module.scene import outputs_of

    names = [node.GetName() for node in (transform, *outputs_of(transform).values())]
    return {name.partition("PostContrast")[2].partition(" bone ")[2][:1] for name in names}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_aligned_again_from_another_bone_names_are_true(host, panel, pair, count):
    """The second bone was seen when the pair was selected anew: its transform is the one that is selected then."""
    fixed, moving = pair
    ask_for_each(panel)
    click(host, panel, Launcher(bones=[bone(1, 2), bone(2, 2)]))
    before = transforms(fixed, moving)
    panel.ui.alignmentSelector.currentIndex = 1
    for chosen in (None, moving):
        panel.ui.movingSelector.setCurrentNode(chosen)
    assert panel._parameterNode.transform is before[1]
    bones = [{**bone(number, 3), "matrix": rigid(10 + number)} for number in range(1, count + 1)]
    click(host, panel, Launcher(bones=bones))
    assert lies_by(fixed, moving, rigid(11)) and GOOD in panel.ui.verdictLabel.styleSheet
    after = transforms(fixed, moving)
    if count > 1:
        assert after[:2] == before
    for node in after:
        moving.SetAndObserveTransformNodeID(node.GetID())
        number = int(panel.ui.detailsLabel.text[len("Bone ")])
        assert named(node) == {str(number)}


def test_all_bone_has_no_name_of_one(host, panel, pair):
    fixed, moving = pair
    ask_for_each(panel)
    click(host, panel, Launcher(bones=[bone(1, 2), bone(2, 2)]))
    first, second = transforms(fixed, moving)
    panel.ui.boneSelector.currentIndex = 0
    click(host, panel, Launcher(rigid(5), pose=rigid(5)))
    assert moving.GetParentTransformNode() is first and named(first) == {""} and named(second) == {"2"}


def test_a_new_transform_leaves_what_was_found_before(host, panel, pair):
    import slicer

    fixed, moving = pair
    ask_for_each(panel)
    click(host, panel, Launcher(bones=[bone(1, 2), bone(2, 2)]))
    before = transforms(fixed, moving)
    for name in ("transform", "segmentation", "table"):
        setattr(panel._parameterNode, name, None)
    panel._parameterNode.transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "new")
    click(host, panel, Launcher(bones=[{**bone(number, 2), "matrix": rigid(10 + number)} for number in (1, 2)]))
    assert len(transforms(fixed, moving)) == 4
    for number, node in enumerate(before, 1):
        moving.SetAndObserveTransformNodeID(node.GetID())
        assert lies_by(fixed, moving, rigid(number))
    # Two are of each bone: the list tells them apart.
    texts = [panel.ui.alignmentSelector.itemText(number) for number in range(4)]
    assert len(set(texts)) == 4 and sum("(new)" in text for text in texts) == 1


def test_what_lies_hardened_is_not_laid_twice(host, panel, pair):
    """Aligned twice alike, and hardened: by either transform it would lie where it was moved once too often."""
    import slicer

    _fixed, moving = pair
    click(host, panel, Launcher(rigid(1)))
    panel._parameterNode.transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "second")
    click(host, panel, Launcher(rigid(1)))
    assert panel.ui.alignmentSelector.visible
    moving.HardenTransform()
    assert GOOD in panel.ui.verdictLabel.styleSheet and not panel.ui.alignmentSelector.visible
    assert "Another choice" not in panel.ui.detailsLabel.text


def test_a_scene_that_is_loaded_has_all_bones(host, panel, pair, tmp_path):
    import slicer

    ask_for_each(panel)
    click(host, panel, Launcher(bones=[bone(1, 2), bone(2, 2, **REFUSED)]))
    panel.ui.alignmentSelector.currentIndex = 1
    told = panel.ui.verdictLabel.text, panel.ui.detailsLabel.text
    assert slicer.util.saveScene(str(tmp_path / "scene"))
    host.close_scene()
    assert not panel.ui.alignmentSelector.visible
    slicer.util.loadScene(str(next((tmp_path / "scene").glob("*.mrml"))))
    assert (panel.ui.verdictLabel.text, panel.ui.detailsLabel.text) == told
    panel.ui.alignmentSelector.currentIndex = 0
    parameters = panel._parameterNode
    assert lies_by(parameters.fixedVolume, parameters.movingVolume, rigid(1))
    assert visible(transforms(parameters.fixedVolume, parameters.movingVolume)[0])


def test_cartilage_is_of_one_bone(host, panel, pair):
    ask_for_each(panel)
    panel.ui.cartilageSelector.addNode()
    panel.ui.alignButton.click()
    assert panel.job is None and "cartilage is measured on one bone" in panel.ui.verdictLabel.text
    assert panel.ui.verdictLabel.text.endswith("(under Advanced, Bone: The largest that moved by itself)")


def test_a_script_aligns_each_bone(host, monkeypatch):
    """A list of pairs of a transform and an alignment; nodes that are given are for the largest."""
    import DNetRegistrationLib.registration.align as align_module
    import slicer
    from DNetRegistrationLib.slicer_module import contents, logic
    from DNetRegistrationLib.slicer_module.scene import outputs_of

    found = [aligned(**bone(number, 3)) for number in (1, 2, 3)]
    monkeypatch.setattr(align_module, "align", lambda *scans, **options: found)
    monkeypatch.setattr(contents.Contents, "computed", lambda *given, **more: contents.Contents())
    fixed, moving = add_volume("a", "plain"), add_volume("b", "oblique")
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "mine")
    pairs = logic.DNetRegistrationLogic().align(fixed, moving, bone="each", tableNode=table)
    assert [alignment for _, alignment in pairs] == found and len({node for node, _ in pairs}) == 3
    assert outputs_of(pairs[0][0])["table"] is table and moving.GetParentTransformNode() is pairs[0][0]
    # Again, while the volume lies by another bone.
    moving.SetAndObserveTransformNodeID(pairs[1][0].GetID())
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "mine too")
    again = logic.DNetRegistrationLogic().align(fixed, moving, bone="each", tableNode=other)
    assert [node for node, _ in again] == [node for node, _ in pairs] and outputs_of(pairs[0][0])["table"] is other
    before = world_lps(moving, (1, 2, 3))
    for node, alignment in pairs:
        moving.SetAndObserveTransformNodeID(node.GetID())
        assert lies_by(fixed, moving, alignment.matrix)
    assert not np.allclose(before, world_lps(moving, (1, 2, 3)))


def test_the_worker_makes_contents_of_each_bone(tmp_path, monkeypatch):
    import DNetRegistrationLib.registration.align as align_module
    from DNetRegistrationLib import Volume
    from DNetRegistrationLib.outputs.segmentation import Cortices
    from DNetRegistrationLib.slicer_module import worker
    from DNetRegistrationLib.slicer_module.contents import Contents, place_of
    from DNetRegistrationLib.slicer_module.request import JobOptions, Request, write_request

    scan = Volume(np.ones((4, 5, 6), np.uint8), np.diag((0.1, 0.1, 0.1, 1.0)))
    list(write_request(tmp_path, Request(scan, scan, JobOptions(bone="each"))))
    found = [aligned(**bone(number, 2)) for number in (1, 2)]
    monkeypatch.setattr(align_module, "align", lambda *scans, bone, **options: found if bone == "each" else None)

    def computed(fixed, moving, alignment, bones, wanted, contrast, masks, progress, joint):
        progress(0.5, f"half of {alignment.bone.number}")
        mask = np.full((2, 2, 2), alignment.bone.number == 2)
        return Contents(Cortices(mask, ~mask, np.eye(4)))

    told = []
    monkeypatch.setattr(worker.Contents, "computed", computed)
    answer = worker.align_request(tmp_path, lambda event, **values: told.append(values))
    assert answer == found
    assert [Contents.read(place_of(tmp_path, number)).cortices.fixed.all() for number in (0, 1)] == [False, True]
    fractions = {one["message"]: round(one["fraction"], 6) for one in told}
    assert fractions["half of 1"] == 0.85 and fractions["half of 2"] == 0.95
