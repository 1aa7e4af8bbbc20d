"""Masks that are segments, label volumes and ROIs: which voxels of a scan they mark, and how they reach the alignment.

What they mark is worked out here voxel by voxel, by MRML's own methods.
"""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.imaging.masks import mask_on
from panels import select_two_volumes
from scene_nodes import FLIP, MODULE, add_transform, add_volume, aligned, put_under, rigid, world_lps

#: Shears and stretches, and so does no parent of a scan; masks may stand under it.
SHEARED = np.array([[1.1, 0.2, 0, 0.02], [0, 0.9, 0.1, -0.03], [0, 0, 1.2, 0.01], [0, 0, 0, 1]])
KINDS = ("labels", "segment", "all", "region")


@pytest.fixture
def module(host):
    host.load(MODULE)
    return host


def label_node(voxels, affine, name="mask"):
    import slicer

    kind = "vtkMRMLLabelMapVolumeNode"
    return slicer.util.addVolumeFromArray(voxels.astype(np.uint8), ijkToRAS=affine, name=name, nodeClassName=kind)


def segmentation(labels):
    """The labels of a label volume, a segment each."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Bones")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, node)
    return node


def region(center, size):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    node.SetCenter(*center)
    node.SetSize(*size)
    return node


def make_mask(kind, volume):
    """A mask beside a volume: the node, the segment, and whether a point (RAS) of its own coordinates is in it."""
    import vtk
    from slicer.util import arrayFromVTKMatrix

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    affine = arrayFromVTKMatrix(matrix)
    middle = affine @ (*(np.array(volume.GetImageData().GetDimensions()) / 2), 1)
    size = np.linalg.norm(affine[:3, :3], axis=0) * 7
    if kind == "region":
        turned = rigid(5)[:3, :3]
        node, axes = region((0, 0, 0), size), np.eye(4)
        axes[:3, :3], axes[:3, 3] = turned, middle[:3]
        node.GetObjectToNodeMatrix().DeepCopy(axes.ravel())
        return node, "", lambda point: bool((np.abs(turned.T @ (point - middle[:3])) <= size / 2).all())
    own = np.eye(4)  # a coarser grid, of other axes, that covers a part
    own[:3, :3] = rigid(3)[:3, :3] * size / 4
    own[:3, 3] = middle[:3] - own[:3, :3] @ (2.1, 2.2, 1.9)
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 4))
    node = label_node(labels, own)
    wanted = (1, 2)
    segment = ""
    if kind != "labels":
        node = segmentation(node)
        if kind == "segment":
            wanted, segment = (2,), node.GetSegmentation().GetNthSegmentID(1)

    def inside(point):
        index = np.floor(np.linalg.solve(own, (*point, 1))[:3] + 0.5).astype(int)
        at = tuple(index[::-1])
        return all(0 <= i < n for i, n in zip(at, labels.shape, strict=True)) and labels[at] in wanted

    return node, segment, inside


def marked(volume, node, inside):
    """Which voxels are in a mask, one by one."""
    found = np.zeros(volume.GetImageData().GetDimensions()[::-1], bool)
    for z, y, x in np.ndindex(found.shape):
        world, local = FLIP[:3, :3] @ world_lps(volume, (x, y, z)), [0.0, 0.0, 0.0]
        node.TransformPointFromWorld(world, local) if node.IsA("vtkMRMLMarkupsNode") else from_world(node, world, local)
        found[z, y, x] = inside(np.array(local))
    return found


def from_world(node, world, local):
    parent = node.GetParentTransformNode()
    matrix = np.eye(4)
    if parent is not None:
        import slicer

        matrix = slicer.util.arrayFromTransformMatrix(parent, toWorld=True)
    local[:] = np.linalg.solve(matrix, (*world, 1))[:3]


def on_scan(node, volume, role, segment=""):
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_masks import mask_of

    placed = place(volume, role)
    return mask_on(mask_of(node, placed, segment), placed.volume())


@pytest.mark.parametrize("grid", ["oblique", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_marks_the_voxels_that_lie_in_it(module, kind, grid):
    volume = add_volume("scan", grid)
    node, segment, inside = make_mask(kind, volume)
    parent = put_under(volume, rigid(1))
    # Beside the volume, and a little askew.
    center = np.eye(4)
    center[:3, 3] = -(FLIP @ np.array((*world_lps(volume, (5, 5, 5)), 1)))[:3]
    scale = 0.05 if grid == "oblique" else 0.01
    sheared = SHEARED.copy()
    sheared[:3, 3] *= scale
    askew = add_transform("askew", np.linalg.inv(center) @ sheared @ center)
    node.SetAndObserveTransformNodeID(add_transform("like the scan", rigid(1), askew).GetID())
    wanted = marked(volume, node, inside)
    assert 20 < wanted.sum() < wanted.size - 20 and parent is not None
    found = on_scan(node, volume, "fixed", segment)
    assert (found != wanted).sum() <= 1  # rounding, on a border


def test_a_mask_of_a_volume_that_was_aligned_before(module):
    """Aligned again, it starts where it lay; so does its mask, unless that was moved along."""
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    fixed, moving = add_volume("a", "plain"), add_volume("b", "oblique")
    node, _, inside = make_mask("labels", moving)
    before = marked(moving, node, inside)
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(7)))
    assert marked(moving, node, inside).sum() != before.sum()  # it lies elsewhere on the volume that is seen
    assert np.array_equal(on_scan(node, moving, "moving"), before)
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert np.array_equal(on_scan(node, moving, "moving"), before)


@pytest.mark.parametrize("fault", ["gone", "nothing", "inside out", "empty", "bent", "no ROI", "a model"])
def test_masks_that_cannot_be_used(module, fault):
    import slicer
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_masks import mask_of
    from DNetRegistrationLib.slicer_module.wording import explain

    volume, segment = add_volume("scan", "plain"), ""
    if fault in ("gone", "nothing"):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "m")
        node.GetSegmentation().AddEmptySegment("here")
        segment = "not here" if fault == "gone" else "here"
    elif fault == "empty":
        node = label_node(np.zeros((3, 3, 3)), np.eye(4))
    elif fault == "a model":
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "m")
    else:
        node = region((0, 0, 0), (1, 1, 1) if fault != "no ROI" else (0, 0, 0))
        node.SetInsideOut(fault == "inside out")
    if fault == "bent":
        bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bent")
        node.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(ScanError) as caught:
        mask_of(node, place(volume, "moving"), segment)
    said = {"gone": "is gone", "inside out": "inside out", "bent": "not linear", "a model": "cannot be a mask"}
    text = explain(caught.value)
    assert said.get(fault, "the mask is empty") in text
    assert text.endswith("(under Inputs, Moving mask)") or fault == "bent"


def test_the_worker_looks_where_the_masks_are(tmp_path, monkeypatch):
    """On the scans' grids, to `align` and to the cortices alike."""
    import DNetRegistrationLib.registration.align as module
    from DNetRegistrationLib import Volume
    from DNetRegistrationLib.slicer_module import worker
    from DNetRegistrationLib.slicer_module.request import JobOptions, Request, write_request

    scans = [Volume(np.ones((4, 5, 6), np.uint8), np.diag((0.1, 0.1, 0.1, 1.0))) for _ in range(2)]
    box = np.diag((0.25, 0.25, 0.25, 1.0))  # from -0.125 to 0.125: voxels 0 and 1 along each axis
    options = JobOptions(bone="largest", initial=rigid(2).tolist())
    mask = Volume(np.ones((1, 1, 1), np.uint8), box)
    list(write_request(tmp_path, Request(*scans, options, moving_mask=mask)))
    given = []

    def align(*arguments, **options):
        given.append(options)
        return aligned(np.eye(4))

    def computed(*arguments):
        given.append(arguments)
        return type("Nothing", (), {"write": lambda self, folder: None})()

    monkeypatch.setattr(module, "align", align)
    monkeypatch.setattr(worker.Contents, "computed", computed)
    worker.align_request(tmp_path, lambda event, **values: None)
    wanted = np.zeros((4, 5, 6), bool)
    wanted[:2, :2, :2] = True
    options, arguments = given
    assert options["fixed_mask"] is None and np.array_equal(options["moving_mask"], wanted)
    assert options["bone"] == "largest" and np.array_equal(options["initial"], rigid(2))
    assert any(isinstance(one, tuple) and len(one) == 2 and one[1] is options["moving_mask"] for one in arguments)


def test_a_script_gives_nodes(module, monkeypatch):
    """A segmentation and the ID of a segment, or a node alone."""
    import DNetRegistrationLib.registration.align as align_module
    from DNetRegistrationLib.slicer_module.logic import DNetRegistrationLogic

    class EnoughSeen(Exception):
        pass

    def align(*scans, **options):
        given.update(options)
        raise EnoughSeen

    given = {}
    monkeypatch.setattr(align_module, "align", align)
    fixed, moving = add_volume("a", "plain"), add_volume("b", "oblique")
    (halves, segment, in_fixed), (box, _, in_moving) = make_mask("segment", fixed), make_mask("region", moving)
    with pytest.raises(EnoughSeen):
        DNetRegistrationLogic().align(fixed, moving, fixedMask=(halves, segment), movingMask=box)
    assert np.array_equal(given["fixed_mask"], marked(fixed, halves, in_fixed))
    assert np.array_equal(given["moving_mask"], marked(moving, box, in_moving))


def point(*places, parent=None):
    """Of markups, in RAS."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Medial")
    for place in places:
        node.AddControlPoint(*place)
    node.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
    return node


@pytest.mark.parametrize("contrast", ["moving", "fixed"])
def test_what_the_user_says_of_the_joint(host, panel, contrast, tmp_path):
    """A region and a medial point on the scan without agent, wherever that lies; saved with the scene."""
    import slicer
    from DNetRegistrationLib.slicer_module.parameters import Contrast

    fixed, moving = select_two_volumes(panel)
    plain, role = (fixed, "fixed") if contrast == "moving" else (moving, "moving")
    put_under(fixed, rigid(4))
    put_under(moving, rigid(5))
    ui, parameters = panel.ui, panel._parameterNode
    parameters.contrast = Contrast(contrast)
    node, segment, inside = make_mask("segment", plain)
    node.SetAndObserveTransformNodeID(plain.GetTransformNodeID())
    medial = point((0.1, 0.2, 0.3), parent=add_transform("sheared", SHEARED))
    ui.regionMaskSelector.setCurrentNode(node)
    ui.regionSegmentSelector.currentIndex = 2
    ui.medialPointSelector.setCurrentNode(medial)
    assert parameters.regionSegment == segment and not ui.regionMaskSelector.enabled
    placed = panel.logic.check(fixed, moving)
    assert panel.logic.request(parameters, *placed).region is None  # nothing is measured
    ui.cartilageSegmentCheckBox.click()
    assert ui.regionMaskSelector.enabled and ui.medialPointSelector.enabled
    request = panel.logic.request(parameters, *placed)
    assert np.array_equal(mask_on(request.region, getattr(request, role)), marked(plain, node, inside))
    np.testing.assert_allclose(request.medial, (FLIP @ SHEARED @ (0.1, 0.2, 0.3, 1))[:3], atol=1e-12)
    host.wait_until(lambda: len(region_outlines()) == 1, 5)
    assert region_outlines()[0].GetTransformNodeID() == plain.GetTransformNodeID()
    assert slicer.util.saveScene(str(tmp_path / "scene"))
    host.close_scene()
    slicer.util.loadScene(str(next((tmp_path / "scene").glob("*.mrml"))))
    again = panel._parameterNode
    again.medialPoint.AddControlPoint(0.1, 0.2, 0.3)  # the wheel has no writer of markups
    read = panel.logic.request(again, *panel.logic.check(again.fixedVolume, again.movingVolume))
    np.testing.assert_allclose(read.medial, request.medial, atol=1e-5)
    assert mask_on(read.region, getattr(read, role)).sum() == marked(plain, node, inside).sum()


def region_outlines() -> list:
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLModelNode")
    return [node for node in nodes if node.GetName() == "Mask outline, region (preview)"]


def test_a_point_of_a_volume_that_was_aligned_before(module):
    """It lies as a mask does: where the volume lay, unless it was moved along."""
    from DNetRegistrationLib.core.errors import Setting
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place
    from DNetRegistrationLib.slicer_module.scene_masks import point_of

    fixed, moving = add_volume("a", "plain"), add_volume("b", "oblique")
    node, before = point((0.3, -0.4, 0.5)), FLIP[:3, :3] @ (0.3, -0.4, 0.5)
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(7)))
    for parent in (None, transform.GetID()):
        node.SetAndObserveTransformNodeID(parent)
        np.testing.assert_allclose(point_of(node, place(moving, "moving"), Setting("medial")), before, atol=1e-9)


@pytest.mark.parametrize("count", [0, 2])
def test_a_medial_point_is_one_point(host, panel, count):
    select_two_volumes(panel)
    panel.ui.cartilageSelector.addNode()
    panel.ui.medialPointSelector.setCurrentNode(point(*count * [(0.0, 1.0, 2.0)]))
    panel.ui.alignButton.click()
    assert panel.job is None
    text = f"Medial: has {count} points; place one, or select none (under Outputs, Medial point)"
    assert panel.ui.verdictLabel.text == text


@pytest.mark.parametrize("contrast", ["moving", "fixed"])
def test_a_script_says_it_of_the_scan_without_agent(module, monkeypatch, contrast):
    import DNetRegistrationLib.registration.align as align_module
    from DNetRegistrationLib.slicer_module import contents, logic

    given = {}
    monkeypatch.setattr(align_module, "align", lambda *scans, **options: aligned(rigid(1)))
    monkeypatch.setattr(contents.Contents, "computed", lambda *scans, **more: given.update(more) or contents.Contents())
    fixed, moving = add_volume("a", "plain"), add_volume("b", "oblique")
    plain, role = (fixed, "fixed") if contrast == "moving" else (moving, "moving")
    node, segment, inside = make_mask("segment", plain)
    wanted = marked(plain, node, inside)
    before = on_scan(node, plain, role, segment)
    logic.DNetRegistrationLogic().align(
        fixed, moving, contrast=contrast, regionMask=(node, segment), medialPoint=point((1.0, 2.0, 3.0))
    )
    assert np.array_equal(before, wanted) and given["joint"].medial == [-1.0, -2.0, 3.0]
    from DNetRegistrationLib.slicer_module.scene import place

    assert np.array_equal(mask_on(given["joint"].region, place(plain, role).volume()), wanted)
