"""The outputs of an alignment in the scene beside its transform: cortices, metrics, volumes; and the views of them.

All of them stand under the parent transform of the fixed volume, and so move along with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from slicer.util import vtkMatrixFromArray
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk, vtk_to_numpy

from ..core.words import micrometres
from ..outputs.segmentation import CARTILAGE_SEGMENT, SEGMENTS
from ..outputs.summary import found_by, number
from .raw_files import RawFile, copy_voxels
from .scene import (
    GRID,
    MOVING_ROLE,
    OUTPUT_ROLES,
    Placed,
    alignment_of,
    apply_alignment,
    find_transforms,
    name_bone,
    node_id,
    of_bone,
    outputs_of,
    put_beside,
    transform_above,
)
from .scene_cartilage import write_cartilage_table, write_thickness, write_told
from .scene_compare import Solid, distance_model, remove_distances, show_solid

if TYPE_CHECKING:
    from ..outputs.segmentation import Cortices
    from .contents import Contents
    from .measured_cartilage import MeasuredCartilage

# Category and type of segments in SNOMED CT, as Slicer's own list of terms has them.
_TERMS = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~{kind}~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
_BONE, _CARTILAGE = "SCT^272673000^Bone", "SCT^309312004^Cartilage"
# Of output nodes that are no volumes.
_CLASSES = {
    "segmentation": "vtkMRMLSegmentationNode",
    "table": "vtkMRMLTableNode",
    "cartilage": "vtkMRMLTableNode",
    "thickness": "vtkMRMLModelNode",
}
# Surface nets take half the time of marching cubes, and look as smooth.
SURFACE_NETS = "Conversion method", "1"


def write_each(fixed: Placed, moving: Placed, alignments, nodes: dict, contents: list[Contents]) -> Iterator:
    """Writes the alignments of several bones, or the only one, in steps; see `write_steps`.

    Each has a transform and outputs of its own. The moving volume comes to lie by the first. Where the chosen transform
    is new, all are new: what was found before stays.

    Args:
        fixed, moving: where the volumes stood when they were aligned.
        alignments: the largest bone first.
        nodes: for the first one; or for the bone whose transform is chosen, where it is that of one. The others are
            written to those of an earlier alignment of each bone, or to new ones.
        contents: for each alignment.
    """
    given = nodes.get("transform")
    if given is not None and given.GetScene() is None:
        given = None
    chosen = given or transform_above(moving.node)
    known, number, earlier = alignment_of(chosen), 1, {}
    if known is not None:
        found = [(alignment_of(node), node) for node in find_transforms(fixed.node, moving.node)]
        earlier = {one.bone.number: node for one, node in found if one is not None and of_bone(one)}
        if of_bone(known) and 1 < known.bone.number <= len(alignments):
            if given is None:
                chosen = earlier.get(1)
            else:
                number = known.bone.number
    # The last one that is written is the one that is seen.
    for place in reversed(range(len(alignments))):
        node = chosen if place + 1 == number else earlier.get(place + 1)
        table = {"table": outputs_of(node).get("table")} if "table" in nodes else {}
        own = {**(nodes if place + 1 == number else table), "transform": node}
        yield from write_steps(fixed, moving, alignments[place], own, contents[place], another=True)


def write_steps(
    fixed: Placed, moving: Placed, alignment, nodes: dict, contents: Contents, *, another: bool = False
) -> Iterator:
    """Writes an alignment into the scene in steps, between which the application can go on.

    The transform comes first, then the metrics, then the contents.

    Args:
        fixed, moving: where the volumes stood when they were aligned.
        alignment: an `Alignment`.
        nodes: the nodes to write to by name, "transform" and those of `OUTPUT_ROLES`; None, or a node that has left
            the scene, is a new one, a name that is missing that of the earlier alignment. As transform both are that
            of the earlier alignment or a new one. Metrics are written where "table" is a key. What is not written to
            of the earlier alignment stays in the scene, hidden.
        contents: what there is to write.
        another: where no transform is given, it is a new one.

    Yields:
        The transform node, after each step.

    Raises:
        ScanError, OptionError: see `scene.apply_alignment`; nothing is written then.
        FileError: a file with voxels cannot be read.
    """
    nodes = {name: node if node is not None and node.GetScene() is not None else None for name, node in nodes.items()}
    transform = apply_alignment(fixed, moving, alignment, nodes.get("transform"), another=another)
    name = f"{moving.name}{of_bone(alignment)}"
    put_beside(transform, moving.node)
    metrics, nodes = "table" in nodes, outputs_of(transform) | nodes
    let_go(transform)
    remove_distances(transform)
    for other in find_transforms(None, moving.node):
        hide_bones(other)  # by another alignment, the moving bone no longer lies
    transform.SetAttribute(GRID, json.dumps(fixed.ijk_to_ras.tolist()))
    write_told(transform, contents.cartilage)
    if metrics:
        node = make_output("table", transform, f"{name} alignment metrics", nodes["table"])
        write_table(node, alignment)
        refer(transform, "table", node)
    yield transform
    if contents.cortices is not None:
        node = make_output("segmentation", transform, f"{name} cortical bone", nodes.get("segmentation"))
        refer(transform, "segmentation", node)
        for _ in write_cortices(node, contents.cortices, fixed, contents.cartilage):
            yield transform
        show_solid(transform, Solid.CORTICES)
    if contents.resampled is not None:
        node = make_output("resampled", transform, f"{name} resampled", nodes.get("resampled"))
        source = moving.node.GetDisplayNode()
        window = None if source is None else (source.GetWindow(), source.GetLevel())
        for _ in write_volume_node(node, contents.resampled, fixed, window):
            yield transform
        refer(transform, "resampled", node)
        yield transform
    if contents.subtraction is not None:
        node = make_output("subtraction", transform, f"{name} subtraction", nodes.get("subtraction"))
        # Zero is the middle grey.
        for _ in write_volume_node(node, contents.subtraction, fixed, (2 * contents.reach or 1.0, 0.0)):
            yield transform
        refer(transform, "subtraction", node)
        yield transform
    if contents.cartilage is not None:
        yield from _write_cartilage(name, fixed, contents.cartilage, nodes, transform)


def _write_cartilage(name: str, fixed: Placed, cartilage: MeasuredCartilage, nodes: dict, transform) -> Iterator:
    if cartilage.table is not None:
        node = make_output("cartilage", transform, f"{name} cartilage", nodes.get("cartilage"))
        write_cartilage_table(node, cartilage.table)
        refer(transform, "cartilage", node)
        yield transform
    if cartilage.surface is not None:
        node = make_output("thickness", transform, f"{name} cartilage thickness", nodes.get("thickness"))
        write_thickness(node, cartilage.surface, cartilage.limit_um, fixed)
        refer(transform, "thickness", node)
        show_solid(transform, Solid.THICKNESS if len(cartilage.surface.points) else Solid.CORTICES)
        yield transform


def make_output(kind: str, transform, name: str, node=None):
    """The node that an output of an alignment is written to: `node`, or a new one. No alignment refers to it.

    Args:
        kind: of `OUTPUT_ROLES`.
        transform: the alignment's transform node; see `refer`.
        name: of a new node.
        node: what the user chose, or None.
    """
    scene = transform.GetScene()
    for other in slicer.util.getNodesByClass("vtkMRMLLinearTransformNode", scene):
        for held, output in outputs_of(other).items():
            if output is node:  # it will not hold what it held
                other.SetNodeReferenceID(OUTPUT_ROLES[held], None)
                if held == "segmentation":
                    remove_distances(other)
    moving = transform.GetNodeReference(MOVING_ROLE)
    if node is None:
        node = scene.AddNewNodeByClass(_CLASSES.get(kind, "vtkMRMLScalarVolumeNode"), scene.GenerateUniqueName(name))
    name_bone(node, moving, alignment_of(transform))
    put_beside(node, moving)
    return node


def refer(transform, kind: str, node) -> None:
    """Makes the transform node of an alignment refer to an output that holds nothing of another one any more."""
    transform.SetNodeReferenceID(OUTPUT_ROLES[kind], node.GetID())


def let_go(transform) -> list[slicer.vtkMRMLDisplayNode]:
    """Parts a transform node from what was written of its alignment, which stays in the scene, hidden.

    Returns:
        What was shown.
    """
    shown = hide_bones(transform)
    for role in OUTPUT_ROLES.values():
        transform.SetNodeReferenceID(role, None)
    write_told(transform, None)
    return shown


def is_filled(node) -> bool:
    """Whether an output node holds data that would be replaced."""
    if node.IsA("vtkMRMLSegmentationNode"):
        return node.GetSegmentation().GetNumberOfSegments() > 0
    if node.IsA("vtkMRMLModelNode"):
        return node.GetPolyData() is not None and node.GetPolyData().GetNumberOfPoints() > 0
    return node.GetNumberOfColumns() > 0 if node.IsA("vtkMRMLTableNode") else node.GetImageData() is not None


def write_cortices(
    node, cortices: Cortices, fixed: Placed, cartilage: MeasuredCartilage | None = None
) -> Iterator[None]:
    """Writes both cortices, in the colours of all pictures: outlines in slices, surfaces in 3D; and cartilage.

    Segments that the user added to the node stay. It yields after each small step.

    Args:
        node: a ``vtkMRMLSegmentationNode``.
        cortices: in world coordinates.
        fixed: the fixed volume.
        cartilage: its voxels are a third segment, where they are wanted and there are any.
    """
    segmentation = node.GetSegmentation()
    parts = [(cortices.fixed, cortices.affine), (cortices.moving, cortices.affine)]
    if cartilage is not None and cartilage.layer is not None and cartilage.layer.any():
        parts.append((cartilage.layer, cartilage.affine))
    node.SetAndObserveTransformNodeID(node_id(fixed.node.GetParentTransformNode()))
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), fixed.node.GetID())
    node.RemoveClosedSurfaceRepresentation()
    segmentation.SetConversionParameter(*SURFACE_NETS)
    for identifier, _name, _color in (*SEGMENTS, CARTILAGE_SEGMENT):
        if segmentation.GetSegment(identifier) is not None:
            segmentation.RemoveSegment(identifier)
    named = (*SEGMENTS, CARTILAGE_SEGMENT)[: len(parts)]
    for (identifier, name, color), (mask, affine) in zip(named, parts, strict=True):
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(*color)
        kind = _CARTILAGE if identifier == CARTILAGE_SEGMENT[0] else _BONE
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), _TERMS.format(kind=kind))
        # Slicer would take both from the terms.
        segment.SetNameAutoGenerated(False)
        segment.SetColorAutoGenerated(False)
        representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
        segment.AddRepresentation(representation, _labelmap(mask, fixed.to_local(affine)))
        # The first call makes the surfaces of all segments; a segment that is added after it gets its surface at once.
        segmentation.AddSegment(segment, identifier)
        yield
        node.CreateClosedSurfaceRepresentation()
        yield
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetVisibility2DFill(False)
            node.GetDisplayNode().SetVisibility2DOutline(True)
        node.GetDisplayNode().SetVisibility(True)
        yield


def hide_bones(transform) -> list[slicer.vtkMRMLDisplayNode]:
    """Hides all that is drawn of an alignment where the moving bone is no longer there; returns what was shown."""
    return [display for node in drawn(transform) for display in hide(node)]


def drawn(transform) -> list[slicer.vtkMRMLDisplayableNode]:
    """The nodes of an alignment that are drawn where the bones are."""
    outputs = outputs_of(transform)
    nodes = outputs.get("segmentation"), outputs.get("thickness"), distance_model(transform)
    return [node for node in nodes if node is not None]


def hide(node) -> list[slicer.vtkMRMLDisplayNode]:
    """Hides all that is drawn of a node; returns what was shown."""
    shown = []
    for index in range(node.GetNumberOfDisplayNodes()):
        display = node.GetNthDisplayNode(index)
        if display.GetVisibility():
            shown.append(display)
            display.SetVisibility(False)
    return shown


def show_bones(transform) -> None:
    """Shows both cortices of an alignment, where it has any."""
    segmentation = outputs_of(transform).get("segmentation")
    if segmentation is not None and segmentation.GetDisplayNode() is not None:
        segmentation.GetDisplayNode().SetVisibility(True)
        show_solid(transform, Solid.CORTICES)


def write_table(node, alignment) -> None:
    """Writes the metrics of an alignment, one a row: quantity, value, unit.

    Args:
        node: a ``vtkMRMLTableNode``; what it held is replaced.
        alignment: an `Alignment`.
    """
    x, y, z = alignment.translation_mm
    rows = [
        ("Verdict", micrometres(alignment.verdict), ""),
        *([] if alignment.bone is None else [("Bone", alignment.bone.name, "")]),
        ("Accepted", "yes" if alignment.accepted else "no", ""),
        ("Confidence", number(alignment.confidence, ".3f"), ""),
        ("Expected error", number(alignment.expected_error_um, ".2f"), "µm"),
        ("Dice of the cortices before", number(alignment.dice_before, ".3f"), ""),
        ("Dice of the cortices aligned", number(alignment.dice, ".3f"), ""),
        ("Rotation", number(alignment.rotation_deg, ".3f"), "degrees"),
        # `translation_mm` goes from the fixed to the moving bone, in LPS; Slicer shows RAS.
        *((f"Moving bone was off, {axis}", number(v, ".4f"), "mm") for axis, v in zip("RAS", (-x, -y, z), strict=True)),
        ("Found by", found_by(alignment), ""),
        ("Network", alignment.network or "none", ""),
        ("Device", alignment.device, ""),
        ("Bone threshold, fixed", number(alignment.fixed_threshold, ".1f"), "grey values"),
        ("Bone threshold, moving", number(alignment.moving_threshold, ".1f"), "grey values"),
        ("Working spacing", number(alignment.working_spacing, ".4f"), "mm"),
        ("Time", number(alignment.seconds.get("total", math.nan), ".2f"), "s"),
        *(("Warning", micrometres(text), "") for text in alignment.remarks),
    ]
    with slicer.util.NodeModify(node):
        node.RemoveAllColumns()
        for name, cells in zip(("Quantity", "Value", "Unit"), zip(*rows, strict=True), strict=True):
            column = vtk.vtkStringArray()
            column.SetName(name)
            for cell in cells:
                column.InsertNextValue(cell)
            node.AddColumn(column)


def write_volume_node(
    node, voxels: np.ndarray | RawFile, fixed: Placed, window: tuple[float, float] | None
) -> Iterator[None]:
    """Writes voxels on the fixed volume's grid, under its parent transform; yields between parts.

    The node gets them all at once, at the end.

    Args:
        node: a ``vtkMRMLScalarVolumeNode``; what it held is replaced.
        voxels: ``(z, y, x)``, of the fixed volume's shape, of a type that VTK has.
        fixed: the fixed volume.
        window: window and level of the display; None lets Slicer find them.

    Raises:
        FileError: see `copy_voxels`.
    """
    image = vtk.vtkImageData()
    image.SetDimensions(*voxels.shape[::-1])
    image.AllocateScalars(get_vtk_array_type(np.dtype(voxels.dtype)), 1)
    target = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(voxels.shape)
    yield from copy_voxels(voxels, target)
    node.CreateDefaultDisplayNodes()
    if window is not None:
        # Before the voxels are there, or Slicer would look through all of them for a window.
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(*window)
    with slicer.util.NodeModify(node):
        node.SetIJKToRASMatrix(vtkMatrixFromArray(fixed.ijk_to_ras))
        node.SetAndObserveTransformNodeID(node_id(fixed.node.GetParentTransformNode()))
        node.SetAndObserveImageData(image)
    yield


def show_surfaces() -> None:
    """Turns the 3D views to what is there."""
    if slicer.app.layoutManager() is not None:
        slicer.util.resetThreeDViews()


def _labelmap(mask: np.ndarray, affine: np.ndarray) -> slicer.vtkOrientedImageData:
    """A mask as labels 0 and 1, cropped to where it is set; `affine` is index (x, y, z) to RAS."""
    low, high = np.zeros(3, int), np.ones(3, int)
    if mask.any():
        axes = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        # A margin of one voxel, so that surfaces close.
        low = np.array([max(0, found[0] - 1) for found in axes])
        high = np.array([min(n, found[-1] + 2) for found, n in zip(axes, mask.shape, strict=True)])
    box = np.ascontiguousarray(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.uint8))
    start = low[::-1]
    shift = np.eye(4)
    shift[:3, 3] = start
    image = slicer.vtkOrientedImageData()
    image.SetExtent(0, box.shape[2] - 1, 0, box.shape[1] - 1, 0, box.shape[0] - 1)
    image.GetPointData().SetScalars(numpy_to_vtk(box.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    image.SetGeometryFromImageToWorldMatrix(vtkMatrixFromArray(affine @ shift))
    return image
