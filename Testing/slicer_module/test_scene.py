"""Volume nodes to scans and alignments back into the scene, against points transformed one by one by MRML itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
import vtk
from DNetRegistrationLib.core.errors import OptionError, ScanError
from scene_nodes import (
    GRIDS,
    INDICES,
    add_transform,
    add_volume,
    aligned,
    number_of_transforms,
    positions,
    put_under,
    rigid,
    world_lps,
)

pytestmark = pytest.mark.usefixtures("host")


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_volume_lies_where_its_node_lies(grid, depth):
    import slicer
    from DNetRegistrationLib.slicer_module.scene import place

    node = add_volume("scan", grid)
    parent = put_under(node, *(rigid(seed) for seed in range(depth)))
    placed = place(node, "fixed")
    volume = placed.volume()
    assert placed.parent is parent and volume.name == "scan"
    np.testing.assert_allclose([volume.to_world(index) for index in INDICES], positions(node), atol=1e-11)
    assert np.shares_memory(volume.voxels, slicer.util.arrayFromVolume(node))
    assert not volume.voxels.flags.writeable
    np.testing.assert_allclose(placed.to_local(volume.affine), placed.ijk_to_ras, atol=1e-11)


def test_a_volume_is_what_simpleitk_reads_of_its_file(tmp_path):
    import slicer
    from DNetRegistrationLib import Volume
    from DNetRegistrationLib.slicer_module.scene import place

    node = add_volume("scan", "left")
    slicer.util.saveNode(node, str(tmp_path / "scan.nrrd"))
    read, volume = Volume.from_sitk(sitk.ReadImage(str(tmp_path / "scan.nrrd"))), place(node, "fixed").volume()
    assert np.array_equal(read.voxels, volume.voxels)
    np.testing.assert_allclose(read.affine, volume.affine, atol=1e-9)


def empty():
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")


def label_map():
    import slicer

    return slicer.util.addVolumeFromArray(
        np.ones((9, 9, 9), np.uint8), name="labels", nodeClassName="vtkMRMLLabelMapVolumeNode"
    )


def vector():
    import slicer

    return slicer.util.addVolumeFromArray(
        np.ones((9, 9, 9, 3), np.uint8), name="colours", nodeClassName="vtkMRMLVectorVolumeNode"
    )


def under(matrix, outer=None):
    node = add_volume("scan", "plain")
    put_under(node, *([matrix] if outer is None else [outer, matrix]))
    return node


def warped():
    import slicer
    import vtk

    node = add_volume("scan", "plain")
    points = vtk.vtkPoints(), vtk.vtkPoints()
    for x in (0, 1):
        for y in (0, 1):
            for z in (0, 1):
                points[0].InsertNextPoint(x, y, z)
                points[1].InsertNextPoint(x, y, z + 0.3 * x * y)
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetSourceLandmarks(points[0])
    spline.SetTargetLandmarks(points[1])
    spline.SetBasisToR()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    transform.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return node


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "nothing: holds no image; load"),
        (label_map, "labels: is a label map, not a scan; select"),
        (vector, "colours: .*not a scalar volume; select"),
        (lambda: add_transform("t", np.eye(4)), "t: is a LinearTransform node, not a scalar volume; select"),
        (lambda: under(np.diag((1.01, 1, 1, 1))), "scan: its parent transform scan parent 0 scales or shears; harden"),
        (lambda: under(np.eye(4) + 0.01 * np.eye(4, k=1)), "scan: its parent transform .* scales or shears; harden"),
        (lambda: under(rigid(1), np.diag((2.0, 2, 2, 1))), "scan: its parent transform .* scales or shears; harden"),
        (lambda: under(np.diag((-1.0, 1, 1, 1))), "scan: its parent transform .* mirrors; harden"),
        (warped, "scan: its parent transform warp is not linear; harden"),
    ],
)
def test_what_cannot_be_aligned(make, message):
    from DNetRegistrationLib.slicer_module.scene import place

    with pytest.raises(ScanError, match=message) as caught:
        place(make(), "fixed")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("grids", [("plain", "oblique"), ("left", "oblique"), ("oblique", "left")])
@pytest.mark.parametrize("parents", [(0, 0), (1, 0), (0, 1), (1, 1), (2, 2)])
def test_the_moving_volume_comes_to_lie_on_the_fixed_one(grids, parents):
    """A voxel of the moving scan at M x is, afterwards, at x: worked out point by point."""
    import slicer
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    fixed, moving = add_volume("fixed", grids[0]), add_volume("moving", grids[1])
    put_under(fixed, *(rigid(10 + n) for n in range(parents[0])))
    former = put_under(moving, *(rigid(20 + n) for n in range(parents[1])))
    sibling = add_volume("sibling", "plain")
    sibling.SetAndObserveTransformNodeID(former.GetID() if former else None)
    before = [positions(node) for node in (fixed, moving, sibling)]
    matrix = rigid(5)
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(matrix))

    for was, now in zip(before[1], positions(moving), strict=True):
        np.testing.assert_allclose(matrix[:3, :3] @ now + matrix[:3, 3], was, atol=1e-9)
    np.testing.assert_array_equal(positions(fixed), before[0])
    np.testing.assert_array_equal(positions(sibling), before[2])
    assert moving.GetParentTransformNode() is transform and transform.GetParentTransformNode() is former
    rotation = slicer.util.arrayFromTransformMatrix(transform)[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
    assert transform.GetNodeReference("spatialRegistrationFixed") is fixed
    assert transform.GetNodeReference("spatialRegistrationMoving") is moving


def test_inputs_are_not_changed():
    import slicer
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place, undo

    nodes = add_volume("fixed", "left"), add_volume("moving", "oblique")

    def state(node):
        geometry = slicer.util.arrayFromVTKMatrix(matrix_of(node))
        return slicer.util.arrayFromVolume(node).tobytes(), geometry.tobytes()

    before = [state(node) for node in nodes]
    apply_alignment(place(nodes[0], "fixed"), place(nodes[1], "moving"), aligned(rigid(1)))
    assert [state(node) for node in nodes] == before
    undo(nodes[1])
    assert [state(node) for node in nodes] == before


def matrix_of(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


@pytest.mark.parametrize("depth", [0, 2])
def test_aligning_again_replaces(depth):
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    fixed, moving = add_volume("fixed", "plain"), add_volume("moving", "oblique")
    former = put_under(moving, *(rigid(n) for n in range(depth)))
    at_first, count = place(moving, "moving"), number_of_transforms()
    before = positions(moving)
    transform = apply_alignment(place(fixed, "fixed"), at_first, aligned(rigid(30)))
    # What is aligned anew is the volume as it stands without the first result.
    again = place(moving, "moving")
    assert again.parent is former
    np.testing.assert_array_equal(again.volume().affine, at_first.volume().affine)
    matrix = rigid(31)
    second = apply_alignment(place(fixed, "fixed"), again, aligned(matrix, dice=0.5))
    assert second is transform and number_of_transforms() == count + 1
    for was, now in zip(before, positions(moving), strict=True):
        np.testing.assert_allclose(matrix[:3, :3] @ now + matrix[:3, 3], was, atol=1e-9)
    assert json.loads(transform.GetAttribute("DNetRegistration.dice")) == 0.5
    # To another transform node: that one stands in its place, not on top of it.
    other = add_transform("other", rigid(32))
    assert apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(matrix), other) is other
    assert moving.GetParentTransformNode() is other and other.GetParentTransformNode() is former
    for was, now in zip(before, positions(moving), strict=True):
        np.testing.assert_allclose(matrix[:3, :3] @ now + matrix[:3, 3], was, atol=1e-9)


def test_the_name_tells_what_it_is_aligned_to():
    """One that was made; a name of the user's stays."""
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place
    from DNetRegistrationLib.slicer_module.scene_pose import UncheckedPose

    first, second, moving = (add_volume(name, "oblique") for name in ("day 1 (a)", "day 2", "day 3"))
    transform = apply_alignment(place(first, "fixed"), place(moving, "moving"), aligned(rigid(1)))
    assert transform.GetName() == "day 3 to day 1 (a)"
    pose = UncheckedPose(place(second, "fixed"), place(moving, "moving"), rigid(2))
    assert pose.transform is transform and transform.GetName() == "day 3 to day 2"
    pose.take_back()
    assert transform.GetName() == "day 3 to day 1 (a)"
    transform.SetName("mine, from day 3 to day 1")
    assert apply_alignment(place(second, "fixed"), place(moving, "moving"), aligned(rigid(2))) is transform
    assert transform.GetName() == "mine, from day 3 to day 1"


@pytest.mark.parametrize("depth", [0, 2])
def test_undo(depth):
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, find_transforms, place, transform_above, undo

    fixed, moving = add_volume("fixed", "plain"), add_volume("moving", "left")
    former = put_under(moving, *(rigid(n) for n in range(depth)))
    before = positions(moving)
    assert not undo(moving)
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(3)))
    assert transform_above(moving) is transform and not np.allclose(positions(moving), before)
    assert undo(moving)
    np.testing.assert_array_equal(positions(moving), before)
    assert moving.GetParentTransformNode() is former and not undo(moving)
    # It is still there, and is used again.
    assert find_transforms(fixed, moving) == [transform]
    assert find_transforms(moving, fixed) == []
    apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(4)), transform)
    assert undo(moving) and not undo(moving)
    np.testing.assert_array_equal(positions(moving), before)


def test_transforms_that_are_moved_meanwhile():
    """The parents of both change between the start of an alignment and its end, one is hardened away."""
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    put_under(fixed, rigid(1))
    parent = put_under(moving, rigid(2))
    starts = place(fixed, "fixed"), place(moving, "moving")
    scans = [placed.volume() for placed in starts]
    matrix = rigid(6)
    put_under(fixed, rigid(7), rigid(8))
    set_matrix(parent, rigid(9))
    apply_alignment(*starts, aligned(matrix))
    # Voxels that belonged together still do.
    for index in INDICES:
        partner = scans[1].to_index((matrix @ (*scans[0].to_world(index), 1))[:3])
        np.testing.assert_allclose(world_lps(moving, partner), world_lps(fixed, index), atol=1e-8)


def set_matrix(node, matrix):
    import slicer

    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))


def test_volumes_that_changed_meanwhile():
    import slicer
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    starts, count = (place(fixed, "fixed"), place(moving, "moving")), number_of_transforms()
    spacing = moving.GetSpacing()
    moving.SetSpacing(1, 1, 1)
    with pytest.raises(ScanError, match="moving: its geometry was changed while it was being aligned; align again"):
        apply_alignment(*starts, aligned(rigid(1)))
    moving.SetSpacing(spacing)
    slicer.util.arrayFromVolume(fixed)[0] = 7
    slicer.util.arrayFromVolumeModified(fixed)
    with pytest.raises(ScanError, match="fixed: its voxels were changed while it was being aligned; align again"):
        apply_alignment(*starts, aligned(rigid(1)))
    slicer.mrmlScene.RemoveNode(fixed)
    with pytest.raises(ScanError, match="a volume was removed from the scene"):
        apply_alignment(*starts, aligned(rigid(1)))
    assert number_of_transforms() == count
    assert moving.GetParentTransformNode() is None


@pytest.mark.parametrize("who", ["fixed", "moving"])
def test_an_output_transform_that_carries_more(who):
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    nodes = {"fixed": add_volume("fixed", "oblique"), "moving": add_volume("moving", "left")}
    put_under(nodes[who], rigid(1), rigid(2))
    outer = nodes[who].GetParentTransformNode().GetParentTransformNode()
    before = [positions(node) for node in nodes.values()]
    with pytest.raises(
        OptionError, match=f"parent 0: cannot take the result, the {who} volume .{who}. stands under it; create a new"
    ):
        apply_alignment(place(nodes["fixed"], "fixed"), place(nodes["moving"], "moving"), aligned(rigid(1)), outer)
    for node, was in zip(nodes.values(), before, strict=True):
        np.testing.assert_array_equal(positions(node), was)


def test_a_chain_of_alignments():
    """A onto B, then C onto A where it lies now: the second stands on its own and leaves the first alone."""
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    a, b, c = (add_volume(name, grid) for name, grid in zip("ABC", GRIDS, strict=False))
    first = apply_alignment(place(b, "fixed"), place(a, "moving"), aligned(rigid(1)))
    there, was = positions(a), positions(c)
    fixed = place(a, "fixed")
    np.testing.assert_allclose([fixed.volume().to_world(index) for index in INDICES], there, atol=1e-10)
    matrix = rigid(2)
    second = apply_alignment(fixed, place(c, "moving"), aligned(matrix))
    assert second is not first and a.GetParentTransformNode() is first
    np.testing.assert_array_equal(positions(a), there)
    for before, now in zip(was, positions(c), strict=True):
        np.testing.assert_allclose((matrix @ (*now, 1))[:3], before, atol=1e-9)
    with pytest.raises(OptionError, match=r"the fixed volume .A. stands under it"):
        apply_alignment(fixed, place(c, "moving"), aligned(matrix), first)


def test_metrics_are_attributes():
    from DNetRegistrationLib.slicer_module.scene import alignment_of, apply_alignment, place

    fixed, moving = add_volume("fixed", "plain"), add_volume("moving", "left")
    alignment = aligned(rigid(1))
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), alignment)
    assert json.loads(transform.GetAttribute("DNetRegistration.confidence")) == 0.97
    assert json.loads(transform.GetAttribute("DNetRegistration.accepted")) is True
    same(alignment_of(transform), alignment)
    assert alignment_of(None) is None and alignment_of(add_transform("other", np.eye(4))) is None
    transform.SetAttribute("DNetRegistration.matrix", "[1, 2")
    assert alignment_of(transform) is None
    transform.SetAttribute("DNetRegistration.matrix", "[1, 2]")
    assert alignment_of(transform) is None


def same(one, other):
    assert one.to_dict() == other.to_dict()


@pytest.mark.parametrize(("kind", "grids"), [("mrb", ("oblique", "far")), ("folder", ("left", "left"))])
def test_saved_and_loaded_again(host, tmp_path, kind, grids):
    import zipfile

    import slicer
    from DNetRegistrationLib.slicer_module.scene import alignment_of, apply_alignment, find_transforms, place, undo
    from DNetRegistrationLib.slicer_module.standing import Standing, standing

    fixed, moving = add_volume("fixed", grids[0]), add_volume("moving", grids[1])
    put_under(moving, rigid(1))
    before = positions(moving)
    alignment = aligned(rigid(2))
    apply_alignment(place(fixed, "fixed"), place(moving, "moving"), alignment)
    after = positions(moving)
    moving.SetName("renamed: µ")
    path = tmp_path / ("scene.mrb" if kind == "mrb" else "scene")
    assert slicer.util.saveScene(str(path))
    host.close_scene()
    if kind == "mrb":
        # Opened by hand: the stand-in has no cache folder for Slicer to do it in.
        zipfile.ZipFile(path).extractall(tmp_path)
    slicer.util.loadScene(str(next((tmp_path / "scene").glob("*.mrml"))))
    fixed, moving = slicer.util.getNode("fixed"), slicer.util.getNode("renamed: µ")
    if grids[1] != "left":  # its slices are turned round
        np.testing.assert_allclose(positions(moving), after, atol=1e-9)
    (transform,) = find_transforms(fixed, moving)
    assert transform is moving.GetParentTransformNode()
    same(alignment_of(transform), alignment)
    assert standing(transform, fixed, moving) is Standing.LAID
    assert undo(moving) and standing(transform, fixed, moving) is Standing.APART
    if grids[1] != "left":
        np.testing.assert_allclose(positions(moving), before, atol=1e-9)
    # And aligning again finds its own transform.
    assert apply_alignment(place(fixed, "fixed"), place(moving, "moving"), alignment, transform) is transform


def test_deleted_nodes():
    import slicer
    from DNetRegistrationLib.slicer_module.scene import alignment_of, apply_alignment, find_transforms, place, undo

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(2)))
    slicer.mrmlScene.RemoveNode(transform)
    assert not undo(moving) and not find_transforms(fixed, moving) and place(moving, "moving").parent is None
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(2)))
    slicer.mrmlScene.RemoveNode(fixed)
    assert alignment_of(transform) is not None and undo(moving)


@pytest.mark.parametrize("ending", [".h5", ".tfm"])
def test_transform_files_mean_the_same_motion(tmp_path, ending):
    """As saved from Slicer and read by SimpleITK, and as the command line writes them and Slicer reads them."""
    import slicer
    from DNetRegistrationLib.geometry.transform_files import write_transform
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    matrix = rigid(2)
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(matrix))
    assert slicer.util.saveNode(transform, str(tmp_path / f"node{ending}"))
    read = sitk.ReadTransform(str(tmp_path / f"node{ending}"))
    for point in positions(fixed):
        np.testing.assert_allclose(read.TransformPoint(point), (matrix @ (*point, 1))[:3], atol=1e-9)
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].ravel().tolist())
    affine.SetTranslation(matrix[:3, 3].tolist())
    write_transform(affine, tmp_path / f"command{ending}")
    loaded = slicer.util.loadTransform(str(tmp_path / f"command{ending}"))
    np.testing.assert_allclose(
        slicer.util.arrayFromTransformMatrix(loaded), slicer.util.arrayFromTransformMatrix(transform), atol=1e-9
    )


# What else an alignment leaves in the scene


def blobs(fixed, moving, matrix):
    """Cortices with known middles: two overlapping boxes on the grid of the fixed scan, coarsened by two."""
    from DNetRegistrationLib.outputs.segmentation import Cortices
    from DNetRegistrationLib.slicer_module.scene import place

    scan = place(fixed, "fixed").volume()
    shape = tuple(n // 2 for n in scan.voxels.shape)
    masks = np.zeros((2, *shape), bool)
    masks[0, 1:4, 1:4, 1:4] = True
    masks[1, 2:5, 1:4, 2:4] = True
    coarse = np.diag((2.0, 2, 2, 1))
    coarse[:3, 3] = 0.5
    return Cortices(masks[0], masks[1], scan.affine @ coarse)


def segment_points(node, identifier) -> np.ndarray:
    """World positions (LPS) of a segment's voxels, voxel by voxel, as Slicer holds them."""
    import slicer
    import vtk

    image = node.GetBinaryLabelmapInternalRepresentation(identifier)
    labels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, identifier)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    extent, points = image.GetExtent(), []
    for z, y, x in np.argwhere(labels):
        local = matrix.MultiplyPoint((x + extent[0], y + extent[2], z + extent[4], 1.0))[:3]
        world = [0.0, 0.0, 0.0]
        node.TransformPointToWorld(local, world)
        points.append((-world[0], -world[1], world[2]))
    return np.array(points)


@pytest.mark.parametrize("grid", GRIDS)
def test_cortices_lie_in_the_world_where_they_are(grid, tmp_path):
    import slicer
    from DNetRegistrationLib.outputs.segmentation import SEGMENTS
    from DNetRegistrationLib.slicer_module.scene import apply_alignment, place
    from DNetRegistrationLib.slicer_module.scene_outputs import make_output, write_cortices

    fixed, moving = add_volume("fixed", grid), add_volume("moving", "left")
    put_under(fixed, rigid(1), rigid(2))
    cortices = blobs(fixed, moving, np.eye(4))
    placed = place(fixed, "fixed")
    transform = apply_alignment(placed, place(moving, "moving"), aligned(rigid(3)))
    node = make_output("segmentation", transform, "cortical bone")
    assert len(list(write_cortices(node, cortices, placed))) > 2
    for mask, (identifier, name, color) in zip((cortices.fixed, cortices.moving), SEGMENTS, strict=True):
        expected = np.argwhere(mask)[:, ::-1] @ cortices.affine[:3, :3].T + cortices.affine[:3, 3]
        found = segment_points(node, identifier)
        order = [np.lexsort(np.round(points, 6).T) for points in (found, expected)]
        np.testing.assert_allclose(found[order[0]], expected[order[1]], atol=1e-9)
        segment = node.GetSegmentation().GetSegment(identifier)
        assert segment.GetName() == name and segment.GetColor() == color
        surface = node.GetClosedSurfaceInternalRepresentation(identifier)
        assert surface.GetNumberOfPoints() > 8
    display = node.GetDisplayNode()
    assert display.GetVisibility2DOutline() and not display.GetVisibility2DFill() and display.GetVisibility3D()
    # They overlap, and do so still when they are saved and read back.
    assert node.GetSegmentation().GetNumberOfLayers() == 2
    assert slicer.util.saveNode(node, str(tmp_path / "c.seg.nrrd"))
    again = slicer.util.loadSegmentation(str(tmp_path / "c.seg.nrrd"))
    counts = [np.count_nonzero(slicer.util.arrayFromSegmentInternalBinaryLabelmap(again, s[0])) for s in SEGMENTS]
    assert counts == [np.count_nonzero(cortices.fixed), np.count_nonzero(cortices.moving)]


def test_cortices_do_not_hold_up_the_window():
    """A tube of 128^3 voxels of 40 um, as large as a tibia: its surfaces are made in steps, each in less than 2.7 times
    the processor time of plain marching cubes with smoothing. It is 1.9, and 3.3 by the default of segmentations.
    """
    import time

    import slicer
    from DNetRegistrationLib.outputs.segmentation import Cortices
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_outputs import write_cortices

    z, y, x = np.ogrid[:128, :128, :128]
    radius = np.hypot(y - 63.5 + 3 * np.sin(z / 7), x - 63.5)
    tube = (np.abs(radius - 45) < 4) & (z > 9) & (z < 119)
    affine = np.diag((0.04, 0.04, 0.04, 1.0))
    fixed = slicer.util.addVolumeFromArray(tube.astype(np.uint8), ijkToRAS=affine, name="fixed")

    def plain_surface():
        marching = vtk.vtkDiscreteFlyingEdges3D()
        marching.SetInputData(fixed.GetImageData())
        smooth = vtk.vtkWindowedSincPolyDataFilter()
        smooth.SetInputConnection(marching.GetOutputPort())
        smooth.Update()

    longest, plain = [], []
    for _ in range(3):
        began = time.process_time()
        plain_surface()
        plain.append(time.process_time() - began)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        took, last = [], time.process_time()
        for _ in write_cortices(node, Cortices(tube, np.roll(tube, 1, 2), affine), place(fixed, "fixed")):
            now = time.process_time()
            took.append(now - last)
            last = now
        assert len(took) > 2
        longest.append(max(took))
    assert min(longest) < 2.7 * min(plain), (longest, plain)
    surface = node.GetClosedSurfaceInternalRepresentation("FixedCorticalBone")
    assert surface.GetNumberOfPoints() > 30_000  # not coarser than the voxels


def test_outputs_are_updated_not_added():
    import slicer
    from DNetRegistrationLib.outputs.segmentation import SEGMENTS
    from DNetRegistrationLib.slicer_module.contents import Contents
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_outputs import outputs_of, write_steps

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left", np.float32)
    shape = slicer.util.arrayFromVolume(fixed).shape
    wanted = dict.fromkeys(("transform", "segmentation", "table", "resampled", "subtraction"))
    for run in (1, 2):
        contents = Contents(
            blobs(fixed, moving, np.eye(4)), np.full(shape, run, np.float32), np.full(shape, -run, np.float32)
        )
        *_, transform = write_steps(
            place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(run)), wanted, contents
        )
        outputs = outputs_of(transform)
        if run == 1:
            first, count = outputs, slicer.mrmlScene.GetNumberOfNodes()
            wanted |= outputs
            display = first["segmentation"].GetDisplayNode()
            display.SetVisibility2DFill(True)  # the user's own taste
            first["segmentation"].GetSegmentation().AddEmptySegment("mine", "mine")
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert set(outputs) == set(wanted) - {"transform"}
    assert all(outputs[name] is first[name] for name in outputs)
    assert display.GetVisibility2DFill() and first["segmentation"].GetSegmentation().GetNumberOfSegments() == 3
    assert first["segmentation"].GetSegmentation().GetSegment(SEGMENTS[0][0])
    assert slicer.util.arrayFromVolume(outputs["resampled"]).max() == 2
    for name in ("resampled", "subtraction"):
        np.testing.assert_array_equal(positions(outputs[name]), positions(fixed))
    # A deleted one is made again.
    slicer.mrmlScene.RemoveNode(first["table"])
    *_, transform = write_steps(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(1)), wanted, contents)
    assert outputs_of(transform)["table"].GetNumberOfRows() > 10


def test_metrics_table():
    from DNetRegistrationLib.slicer_module.contents import Contents
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_outputs import outputs_of, write_steps

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    *_, transform = write_steps(
        place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(1)), {"table": None}, Contents()
    )
    table = outputs_of(transform)["table"]
    rows = {table.GetCellText(row, 0): table.GetCellText(row, 1) for row in range(table.GetNumberOfRows())}
    assert rows["Dice of the cortices aligned"] == "0.930" and rows["Dice of the cortices before"] == "unknown"
    assert rows["Moving bone was off, R"] == "-0.1000" and rows["Moving bone was off, S"] == "0.3000"
    assert rows["Warning"] == "one; two: three"
    assert table.GetColumnName(2) == "Unit"


def test_views():
    import slicer
    from DNetRegistrationLib.slicer_module.scene_compare import show_mixed

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    show_mixed(fixed, moving, fit=True)
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert composites
    for composite in composites:
        assert composite.GetBackgroundVolumeID() == fixed.GetID()
        assert composite.GetForegroundVolumeID() == moving.GetID()
        assert composite.GetForegroundOpacity() == 0.5


@pytest.mark.parametrize("dtype", ("uint8", "int16", "uint16", "int32", "float32", "float64"))
@pytest.mark.parametrize("in_a_file", (False, True))
def test_a_volume_is_handed_over_in_parts(tmp_path, monkeypatch, dtype, in_a_file):
    """The node shows what it showed until all is there; then the very voxels, and the window that was given."""
    import slicer
    from DNetRegistrationLib.slicer_module import raw_files
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_outputs import write_volume_node

    fixed = add_volume("fixed", "far")
    put_under(fixed, rigid(1))
    shape = slicer.util.arrayFromVolume(fixed).shape
    values = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    if values.dtype.kind == "f":
        values[:2] = np.nan
    monkeypatch.setattr(raw_files, "PART", 3 * values[0].nbytes)
    source = values
    if in_a_file:
        source = raw_files.RawFile.of(tmp_path / "v.raw", values)
        list(source.write(values))
    node = add_volume("output", "plain", np.uint8)
    before, steps = slicer.util.arrayFromVolume(node).copy(), 0
    for _ in write_volume_node(node, source, place(fixed, "fixed"), (60.0, 7.0)):
        steps += 1
        if steps <= -(-shape[0] // 3):
            assert np.array_equal(slicer.util.arrayFromVolume(node), before)
    assert steps == -(-shape[0] // 3) + 1
    found, display = slicer.util.arrayFromVolume(node), node.GetDisplayNode()
    assert found.dtype == dtype and np.array_equal(found, values, equal_nan=values.dtype.kind == "f")
    np.testing.assert_array_equal(positions(node), positions(fixed))
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (60, 7, False)


def test_a_volume_whose_file_is_cut_short(tmp_path):
    from DNetRegistrationLib.core.errors import FileError
    from DNetRegistrationLib.slicer_module import raw_files
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_outputs import write_volume_node

    fixed, node = add_volume("fixed", "oblique"), add_volume("output", "plain")
    image = node.GetImageData()
    voxels = np.ones((14, 13, 12), np.float32)
    file = raw_files.RawFile.of(tmp_path / "v.raw", voxels)
    list(file.write(voxels))
    file.path.write_bytes(file.path.read_bytes()[:-1])
    with pytest.raises(FileError, match=r"v.raw: cannot be read \(it is too short\)"):
        list(write_volume_node(node, file, place(fixed, "fixed"), None))
    assert node.GetImageData() is image


# A pose that is not checked yet


@pytest.mark.parametrize("earlier", (False, True))
def test_an_unchecked_pose_can_be_taken_back(earlier):
    """It claims nothing, and leaves behind what was there: the node of an earlier alignment, or none."""
    import slicer
    from DNetRegistrationLib.slicer_module.scene import alignment_of, apply_alignment, find_transforms, place
    from DNetRegistrationLib.slicer_module.scene_pose import UncheckedPose

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    put_under(moving, rigid(1))
    untouched = positions(moving)
    first = None
    if earlier:
        first = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), aligned(rigid(2)))
        first.SetAttribute("mine", "kept")
    was, count = positions(moving), slicer.mrmlScene.GetNumberOfNodes()
    attributes = {name: first.GetAttribute(name) for name in first.GetAttributeNames()} if earlier else None
    matrix = rigid(3)
    pose = UncheckedPose(place(fixed, "fixed"), place(moving, "moving"), matrix)
    assert pose.transform is moving.GetParentTransformNode() and (pose.transform is first) == earlier
    for now, before in zip(positions(moving), untouched, strict=True):
        np.testing.assert_allclose((matrix @ (*now, 1))[:3], before, atol=1e-9)
    said = alignment_of(pose.transform)
    assert not said.accepted and said.verdict.startswith("Not checked") and np.isnan(said.confidence)
    pose.take_back()
    np.testing.assert_allclose(positions(moving), was, atol=1e-12)
    assert slicer.mrmlScene.GetNumberOfNodes() == count and find_transforms(fixed, moving) == [first] * earlier
    if earlier:
        assert {name: first.GetAttribute(name) for name in first.GetAttributeNames()} == attributes
        assert alignment_of(first).accepted
    pose.take_back()  # nothing is left to take back
    np.testing.assert_allclose(positions(moving), was, atol=1e-12)


def test_an_unchecked_pose_in_a_transform_of_the_user():
    """It was no alignment before, and is none afterwards."""
    import slicer
    from DNetRegistrationLib.slicer_module.scene import alignment_of, place
    from DNetRegistrationLib.slicer_module.scene_pose import UncheckedPose

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    mine, was = add_transform("mine", rigid(5)), positions(moving)
    pose = UncheckedPose(place(fixed, "fixed"), place(moving, "moving"), rigid(3), mine)
    assert alignment_of(mine) is not None and moving.GetParentTransformNode() is mine
    pose.take_back()
    assert moving.GetParentTransformNode() is None and alignment_of(mine) is None
    np.testing.assert_array_equal(positions(moving), was)
    np.testing.assert_array_equal(slicer.util.arrayFromTransformMatrix(mine), rigid(5))


@pytest.mark.parametrize("gone", ("moving", "transform", "parent", "taken out"))
def test_an_unchecked_pose_of_what_is_gone(gone):
    import slicer
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_pose import UncheckedPose

    fixed, moving = add_volume("fixed", "oblique"), add_volume("moving", "left")
    parent = put_under(moving, rigid(1))
    pose = UncheckedPose(place(fixed, "fixed"), place(moving, "moving"), rigid(3))
    if gone == "taken out":  # by the user: there it stays
        moving.SetAndObserveTransformNodeID(None)
    else:
        slicer.mrmlScene.RemoveNode({"moving": moving, "transform": pose.transform, "parent": parent}[gone])
    pose.take_back()
    assert pose.transform.GetScene() is None
    if gone in ("parent", "taken out"):
        assert moving.GetParentTransformNode() is None


def test_outline_of_a_threshold(host):
    """A ball's outline lies at its radius, in the world, under a parent transform, and leaves nothing behind."""
    import slicer
    from DNetRegistrationLib.slicer_module.scene import place
    from DNetRegistrationLib.slicer_module.scene_preview import ThresholdPreview, hide_outlines, show_outline

    spacing, direction, origin, _ = GRIDS["left"]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (80, 40, 30)), indexing="ij"), -1)
    middle = affine @ (40, 20, 15, 1)
    distance = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - middle[:3], axis=-1)
    voxels = np.clip(1000 - 2000 * (distance - 0.3), 0, 2000).transpose(2, 1, 0).astype(np.int16)
    node = slicer.util.addVolumeFromArray(voxels, ijkToRAS=affine, name="ball")
    put_under(node, rigid(1))
    count = slicer.mrmlScene.GetNumberOfNodes()
    preview = ThresholdPreview.of(place(node, "fixed"))
    assert preview.automatic is not None and preview.low < 20 and preview.high > 1500
    for threshold, radius in ((1000, 0.3), (800, 0.4)):
        show_outline(preview, threshold, "moving")
        outline = next(
            n for n in slicer.util.getNodesByClass("vtkMRMLModelNode") if n.GetAttribute("DNetRegistration.preview")
        )
        points = slicer.util.arrayFromModelPoints(outline)
        found = np.linalg.norm(points - middle[:3], axis=1)
        assert len(points) > 500 and abs(found - radius).max() < 0.01
        assert outline.GetParentTransformNode() is node.GetParentTransformNode()
    assert (
        outline.GetHideFromEditors()
        and not outline.GetSaveWithScene()
        and not outline.GetDisplayNode().GetVisibility3D()
    )
    show_outline(preview, 5000, "moving")  # nothing is above: no outline, no error
    hide_outlines(slicer.mrmlScene)
    hide_outlines(slicer.mrmlScene)
    assert slicer.mrmlScene.GetNumberOfNodes() == count
