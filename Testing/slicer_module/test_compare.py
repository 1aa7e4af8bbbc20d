"""The panel's row Compare: what the views show, and that nothing of it touches the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from panels import Launcher, click, select, select_two_volumes
from scene_nodes import FLIP, GRIDS, add_volume, aligned, positions, put_under, rigid

GOOD = "#d7f0dd"


@pytest.fixture
def pair(panel):
    return select_two_volumes(panel)


def choose(selector, value):
    selector.currentIndex = selector.findData(value)
    assert selector.itemData(selector.currentIndex) == value


def layers() -> list[tuple]:
    """Background, foreground, opacity and compositing of each slice view."""
    import slicer

    return [
        (
            slicer.mrmlScene.GetNodeByID(node.GetBackgroundVolumeID() or ""),
            slicer.mrmlScene.GetNodeByID(node.GetForegroundVolumeID() or ""),
            node.GetForegroundOpacity(),
            node.GetCompositing(),
        )
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    ]


def boards() -> list:
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in nodes if node.GetName() == "Checkerboard (preview)"]


def test_both_volumes_in_the_slice_views(host, panel, pair):
    import slicer

    fixed, moving = pair
    ui, composite = panel.ui, slicer.vtkMRMLSliceCompositeNode
    ui.opacitySlider.value = 0.25
    assert layers() == 3 * [(fixed, moving, 0.25, composite.Alpha)]
    choose(ui.compareSelector, "flicker")
    assert not ui.opacitySlider.enabled
    seen = set()
    host.wait_until(lambda: seen.add(layers()[0][2]) or seen == {0.25, 0.0, 1.0}, 10)
    choose(ui.compareSelector, "checkerboard")
    ((background, foreground, opacity, compositing),) = set(layers())
    assert background is moving and [foreground] == boards() and opacity == 1 and compositing == composite.Alpha
    choose(ui.compareSelector, "difference")  # the moving volume has the agent
    assert layers() == 3 * [(moving, fixed, 1.0, composite.Subtract)] and not boards()
    choose(ui.compareSelector, "mixed")
    assert layers() == 3 * [(fixed, moving, 0.25, composite.Alpha)] and ui.opacitySlider.enabled
    host.process_events(0.6)
    assert layers()[0][2] == 0.25  # nothing flickers any more


def test_an_alignment_is_seen_whatever_was_compared(host, panel, pair):
    """The result is not subtracted, and no squares of before are left; the slider says what is seen."""
    panel.ui.opacitySlider.value = 0.1
    choose(panel.ui.compareSelector, "difference")
    click(host, panel, Launcher(rigid(1)))
    assert layers() == 3 * [(*pair, 0.5, 0)]
    assert panel.ui.compareSelector.currentIndex == 0 and panel.ui.opacitySlider.value == 0.5
    choose(panel.ui.compareSelector, "checkerboard")
    panel.ui.automaticThresholdCheckBox.click()
    assert layers() == 3 * [(*pair, 0.5, 0)] and not boards() and panel.ui.compareSelector.currentIndex == 0


def test_the_subtraction_volume_is_the_difference(host, panel, pair):
    panel.ui.subtractionSelector.addNode("vtkMRMLScalarVolumeNode")
    click(host, panel, Launcher(rigid(1)))
    choose(panel.ui.compareSelector, "difference")
    assert layers() == 3 * [(panel._parameterNode.subtraction, None, 0.0, 0)]
    panel.ui.appliedCheckBox.click()  # it is of the volumes as aligned
    choose(panel.ui.compareSelector, "mixed")
    choose(panel.ui.compareSelector, "difference")
    assert layers()[0][:2] == (pair[1], pair[0])


@pytest.mark.parametrize("end", ["edit", "other", "exit", "close"])
def test_what_is_not_saved_leaves_the_views(host, panel, pair, end):
    """Squares of voxels that have changed, or of another pair, would be a lie; what is not saved would be missing."""
    import slicer

    fixed, moving = pair
    choose(panel.ui.compareSelector, "flicker" if end == "exit" else "checkerboard")
    if end == "edit":
        slicer.util.updateVolumeFromArray(fixed, slicer.util.arrayFromVolume(fixed) + 1)
    elif end == "other":
        moving = add_volume("third", "plain")
        select(panel, fixed, moving)
    elif end == "exit":
        slicer.util.selectModule("")
    else:
        host.close_scene()
    assert panel.ui.compareSelector.currentIndex == 0 and not boards()
    if end != "close":
        assert layers() == 3 * [(fixed, moving, 0.5, 0)]
    host.process_events(0.6)  # and nothing flickers


@pytest.mark.parametrize("mode", ["checkerboard", "difference", "mixed"])
def test_a_scene_that_was_saved_meanwhile(host, panel, pair, mode, tmp_path):
    import slicer

    panel.ui.opacitySlider.value = 0.5
    choose(panel.ui.compareSelector, mode)
    assert slicer.util.saveScene(str(tmp_path / "scene"))
    host.close_scene()
    slicer.util.loadScene(str(next((tmp_path / "scene").glob("*.mrml"))))
    parameters = panel._parameterNode
    assert layers() == 3 * [(parameters.fixedVolume, parameters.movingVolume, 0.5, 0)] and not boards()


@pytest.mark.parametrize("dtype", ("uint8", "int16", "uint16", "float32", "float64"))
@pytest.mark.parametrize("full", (False, True))
def test_squares_keep_the_grey_values(dtype, full):
    """Voxel by voxel; also where the type of the scan has no value to spare."""
    from DNetRegistrationLib.slicer_module.scene_compare import with_holes

    voxels = np.random.default_rng(3).integers(3, 120, (5, 6, 7)).astype(dtype)
    if full and voxels.dtype.kind in "iu":
        voxels[0, 0, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    elif full:
        voxels[0, 0, :3] = np.nan, 3e38, -3e38
    edges = np.array((2, 3, 1))
    before = voxels.copy()
    found, (low, high) = with_holes(voxels, edges)
    np.testing.assert_array_equal(voxels, before)
    for index in np.ndindex(voxels.shape):
        hole = sum(i // e for i, e in zip(index, edges, strict=True)) % 2 == 1
        if hole:
            assert not low <= found[index] <= high
        elif np.isfinite(voxels[index]):
            assert found[index] == voxels[index] and low <= found[index] <= high
    assert (found.dtype == voxels.dtype) != ((full and voxels.dtype.kind in "iu") or (full and dtype == "float32"))


@pytest.mark.parametrize("grid", ["oblique", "left"])
def test_squares_lie_where_the_fixed_volume_lies(host, panel, grid):
    import slicer

    fixed, moving = add_volume("fixed", grid), add_volume("moving", "far")
    put_under(fixed, rigid(4), rigid(5))
    select(panel, fixed, moving)
    choose(panel.ui.compareSelector, "checkerboard")
    (board,) = boards()
    np.testing.assert_allclose(positions(board), positions(fixed), atol=1e-9)
    shown, voxels = slicer.util.arrayFromVolume(board), slicer.util.arrayFromVolume(fixed)
    assert 0.4 < (shown == voxels).mean() < 0.6
    # Squares are square in mm, whatever the voxels.
    runs = []
    for axis in range(3):
        line = np.moveaxis(shown == voxels, axis, 0)[:, 0, 0]
        changes = np.flatnonzero(np.diff(line.astype(int))) + 1
        runs.append((changes[0] if len(changes) else len(line)) * fixed.GetSpacing()[2 - axis])
    assert max(runs) - min(runs) <= max(fixed.GetSpacing())
    assert board.GetHideFromEditors() and not board.GetSaveWithScene()


def test_as_aligned_or_as_before_keeps_the_verdict(host, panel, pair):
    fixed, moving = pair
    was = positions(moving)
    box, ui = panel.ui.appliedCheckBox, panel.ui
    assert not box.enabled and not box.checked
    click(host, panel, Launcher(rigid(1)))
    laid, verdict = positions(moving), ui.verdictLabel.text
    assert box.enabled and box.checked and GOOD in ui.verdictLabel.styleSheet
    display = panel._parameterNode.segmentation.GetDisplayNode()
    box.click()
    np.testing.assert_allclose(positions(moving), was, atol=1e-12)
    # Nothing green for volumes that do not lie on each other; what was found is still read.
    assert GOOD not in ui.verdictLabel.styleSheet and ui.verdictLabel.text.startswith("Aligned, but not applied")
    assert f"As aligned: {verdict}" in ui.detailsLabel.text and "Rotation:" in ui.detailsLabel.text
    assert box.enabled and not box.checked and not display.GetVisibility()
    box.click()
    np.testing.assert_array_equal(positions(moving), laid)
    assert ui.verdictLabel.text == verdict and GOOD in ui.verdictLabel.styleSheet and display.GetVisibility()
    # Undo is the same and says so; it can be taken back here.
    ui.undoButton.click()
    assert box.enabled and not box.checked and not display.GetVisibility()
    box.click()
    assert box.checked and display.GetVisibility()
    np.testing.assert_array_equal(positions(moving), laid)
    # Where the volumes were moved against each other, nothing is to be shown as aligned.
    fixed.SetOrigin(*(np.array(fixed.GetOrigin()) + 0.5))
    assert not box.enabled


def balls(fixed, radii=(8.0, 6.0)):
    """Cortices that are balls about one middle, on a grid of cubes of 0.05 mm that is oblique in the world."""
    from DNetRegistrationLib.outputs.segmentation import Cortices

    index = np.indices((24, 24, 24)) - 11.5
    distance = np.sqrt((index**2).sum(0))
    affine = FLIP @ rigid(7) @ np.diag((0.05, 0.05, 0.05, 1.0))
    return Cortices(distance < radii[0], distance < radii[1], affine)


def write(nodes=None, cortices=None):
    from DNetRegistrationLib.slicer_module.contents import Contents
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_outputs import write_steps

    fixed, moving = nodes
    placed = place(fixed, "fixed"), place(moving, "moving")
    *_, transform = write_steps(*placed, aligned(rigid(1)), {}, Contents(cortices or balls(fixed)))
    return transform


@pytest.mark.parametrize("grid", GRIDS)
def test_the_moving_cortex_is_coloured_by_its_distance(host, grid):
    """Two balls about one middle: everywhere their surfaces are as far apart as their radii."""
    import slicer
    from DNetRegistrationLib.slicer_module.scene import outputs_of
    from DNetRegistrationLib.slicer_module.scene_compare import Solid, distance_model, show_solid, solid_of, solids

    fixed, moving = add_volume("fixed", grid), add_volume("moving", "far")
    put_under(fixed, rigid(2))
    transform = write((fixed, moving))
    assert solids(transform) == [Solid.CORTICES, Solid.DISTANCE] and solid_of(transform) is Solid.CORTICES
    show_solid(transform, Solid.DISTANCE)
    node = distance_model(transform)
    distances = slicer.util.arrayFromModelPointData(node, "Distance (µm)")
    assert len(distances) > 500
    np.testing.assert_allclose(distances, 100, atol=25)  # the balls are made of cubes of 50 um
    assert abs(distances.mean() - 100) < 8
    # It lies in the world where the moving cortex lies.
    points = slicer.util.arrayFromModelPoints(node)
    world = []
    for point in points[:: len(points) // 50]:
        there = [0.0, 0.0, 0.0]
        node.TransformPointToWorld(point.tolist(), there)
        world.append(there)
    center = (rigid(7) @ (*(11.5 * 0.05,) * 3, 1))[:3]
    np.testing.assert_allclose(np.linalg.norm(np.array(world) - center, axis=1), 0.3, atol=0.03)
    display = node.GetDisplayNode()
    assert display.GetScalarRange() == (0.0, 110.0) or display.GetScalarRange() == (0.0, 100.0)
    # One surface, not two that fight for pixels.
    segments = outputs_of(transform)["segmentation"].GetDisplayNode()
    names = outputs_of(transform)["segmentation"].GetSegmentation().GetSegmentIDs()
    assert [segments.GetSegmentVisibility3D(name) for name in names] == [False, False]
    assert [segments.GetSegmentVisibility2DOutline(name) for name in names] == [True, True]
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    assert legend.GetVisibility() and legend.GetTitleText() == "Distance (µm)"
    count = slicer.mrmlScene.GetNumberOfNodes()
    show_solid(transform, Solid.CORTICES)
    assert not node.GetDisplayNode().GetVisibility() and not legend.GetVisibility()
    assert [segments.GetSegmentVisibility3D(name) for name in names] == [True, True]
    show_solid(transform, Solid.DISTANCE)
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    # Aligned again, the old colours are of what is no longer there.
    again = write((fixed, moving))
    assert again is transform and distance_model(transform) is None and solid_of(transform) is Solid.CORTICES


def test_colours_and_their_bar_are_seen(host):
    """In the picture: colours from dark blue to yellow, white figures beside a bar, and no red left."""
    from DNetRegistrationLib.slicer_module.scene_compare import Solid, show_solid

    fixed, moving = add_volume("fixed", "plain"), add_volume("moving", "far")
    cortices = balls(fixed, (6.0, 8.0))
    shifted = type(cortices)(np.roll(cortices.fixed, 2, 0), cortices.moving, cortices.affine)
    transform = write((fixed, moving), shifted)
    r, g, b = np.moveaxis(host.three_d_picture().astype(int), -1, 0)
    assert (r > np.maximum(2 * g, b) + 60).sum() > 200
    show_solid(transform, Solid.DISTANCE)
    pixels = host.three_d_picture().astype(int)
    r, g, b = np.moveaxis(pixels, -1, 0)
    bar = pixels[:, 350:]
    assert (r > np.maximum(2 * g, b) + 60).sum() == 0
    assert ((bar[..., 0] > 200) & (bar[..., 1] > 200) & (bar[..., 2] < 90)).sum() > 5  # its yellow end
    assert ((bar[..., 0] < 90) & (bar[..., 1] < 40) & (bar[..., 2] > 60)).sum() > 5  # its dark end
    assert ((g > r + 20) & (g > b)).sum() > 100


def test_the_3d_view_follows_the_verdict(host, panel, pair):
    import slicer

    click(host, panel, Launcher(rigid(1)))
    selector, ui = panel.ui.solidSelector, panel.ui
    assert selector.enabled and selector.itemData(selector.currentIndex) == "cortices"
    choose(selector, "distance")
    from DNetRegistrationLib.slicer_module.scene_compare import distance_model

    node = distance_model(panel._parameterNode.transform)
    shown = [node.GetNthDisplayNode(number) for number in range(node.GetNumberOfDisplayNodes())]
    assert len(shown) == 2 and all(display.GetVisibility() for display in shown)
    origin = pair[1].GetOrigin()
    pair[1].SetOrigin(*(np.array(origin) + 0.2))
    assert not any(display.GetVisibility() for display in shown) and not selector.enabled
    pair[1].SetOrigin(*origin)
    assert all(display.GetVisibility() for display in shown)
    assert selector.enabled and selector.itemData(selector.currentIndex) == "distance"
    slicer.mrmlScene.RemoveNode(panel._parameterNode.segmentation)
    ui.compareSelector.currentIndex = 0
    assert not selector.enabled


def test_a_difference_follows_what_it_is_of(host, panel, pair):
    """The subtraction is of the volumes as aligned; which scan has the agent says what is subtracted from what."""
    import slicer

    fixed, moving = pair
    panel.ui.subtractionSelector.addNode("vtkMRMLScalarVolumeNode")
    click(host, panel, Launcher(rigid(1)))
    choose(panel.ui.compareSelector, "difference")
    subtraction = panel._parameterNode.subtraction
    for undone in (panel.ui.appliedCheckBox, panel.ui.undoButton):
        assert layers() == 3 * [(subtraction, None, 0.0, 0)]
        undone.click()
        assert layers()[0][:2] == (moving, fixed)
        panel.ui.appliedCheckBox.click()
    slicer.mrmlScene.RemoveNode(subtraction)
    assert layers()[0][:2] == (moving, fixed)
    panel._parameterNode.contrast = type(panel._parameterNode.contrast)("fixed")
    assert layers()[0][:2] == (fixed, moving)


@pytest.mark.parametrize("how", ["moved", "put under"])
def test_squares_leave_where_the_fixed_volume_does(host, panel, pair, how):
    fixed, moving = pair
    choose(panel.ui.compareSelector, "checkerboard")
    if how == "moved":
        fixed.SetOrigin(*(np.array(fixed.GetOrigin()) + 0.5))
    else:
        put_under(fixed, rigid(2))
    assert not boards() and layers() == 3 * [(fixed, moving, 0.5, 0)]
    assert panel.ui.compareSelector.currentIndex == 0


@pytest.mark.parametrize("mode", ["checkerboard", "difference", "flicker"])
def test_what_is_chosen_meanwhile_ends_with_the_alignment(host, panel, pair, mode):
    """The result is brought into view, and the row says so."""
    panel.logic.launch = launcher = Launcher(rigid(1), held=True)
    panel.ui.alignButton.click()
    choose(panel.ui.compareSelector, mode)
    launcher.answer()
    host.wait_until(lambda: not panel.running, 10)
    assert layers() == 3 * [(*pair, 0.5, 0)] and panel.ui.compareSelector.currentIndex == 0 and not boards()


def test_without_a_volume_nothing_is_subtracted(host, panel, pair):
    import slicer

    choose(panel.ui.compareSelector, "difference")
    slicer.mrmlScene.RemoveNode(pair[0])
    assert {compositing for *_, compositing in layers()} == {slicer.vtkMRMLSliceCompositeNode.Alpha}


def test_hardened_is_as_aligned_too(host, panel, pair):
    click(host, panel, Launcher(rigid(1)))
    pair[1].HardenTransform()
    assert GOOD in panel.ui.verdictLabel.styleSheet
    assert panel.ui.appliedCheckBox.checked and not panel.ui.appliedCheckBox.enabled  # and cannot be taken back
