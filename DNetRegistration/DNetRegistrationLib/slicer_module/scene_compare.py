"""How two volumes are compared: mixed, as a checkerboard, subtracted in the slice views; in 3D by colours."""

from __future__ import annotations

from enum import Enum

import numpy as np
import slicer
import vtk
from slicer.util import arrayFromVolume
from vtk.util.numpy_support import vtk_to_numpy

from ..outputs.segmentation import CARTILAGE_SEGMENT, SEGMENTS
from .scene import ATTRIBUTE, lies_beside, node_id, outputs_of, put_beside
from .scene_models import show_model, write_model

#: The role of the model of distances, to which the transform node of an alignment refers.
DISTANCE_ROLE = f"{ATTRIBUTE}distance"
_BOARD = f"{ATTRIBUTE}checkerboard"  # the attribute of the volume that has the squares
_SQUARES = 10  # along the longest edge
_MICROMETRES = 1000.0
# The colours end at this quantile of the distances, rounded up to 10 um: some points lie on bone that is not in both.
_MOST = 0.95
_HALF, _FAINT = 0.5, 0.15  # opacities of the fixed cortex


class Solid(Enum):
    """What is seen of an alignment in 3D."""

    CORTICES = "cortices"
    DISTANCE = "distance"
    THICKNESS = "thickness"


def show_mixed(fixed, moving, opacity: float = 0.5, fit: bool = False) -> None:
    """Shows the moving volume over the fixed one, with an opacity of 0 to 1; `fit` fits the views to the fixed one."""
    _show(fixed, moving, opacity, fit=fit)


def opacity_of(moving) -> float | None:
    """With which opacity the slice views show the moving volume over another; None where they do not."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", moving.GetScene()):
        if node.GetForegroundVolumeID() == moving.GetID():
            return node.GetForegroundOpacity()
    return None


def show_difference(fixed, moving, contrast: str, subtraction=None) -> None:
    """Shows the subtraction volume or, where there is none, the scan with agent minus the other one as they are seen.

    Args:
        fixed, moving: volume nodes.
        contrast: which one has the contrast agent, "fixed" or "moving".
        subtraction: the volume node of the alignment, or None.
    """
    if subtraction is not None and subtraction.GetImageData() is not None:
        _show(subtraction, None, 0.0)
        return
    # What is below 0 is black.
    first, second = (moving, fixed) if contrast == "moving" else (fixed, moving)
    _show(first, second, 1.0, slicer.vtkMRMLSliceCompositeNode.Subtract)


def show_checkerboard(fixed, moving) -> None:
    """Shows both volumes in squares, by turns."""
    board = _board(fixed.GetScene())
    if board is None:
        board = fixed.GetScene().CreateNodeByClass("vtkMRMLScalarVolumeNode")
        board.UnRegister(None)
        board.SetName("Checkerboard (preview)")
        board.SetAttribute(_BOARD, "")
        board.HideFromEditorsOn()
        board.SaveWithSceneOff()
        fixed.GetScene().AddNode(board)
        board.CreateDefaultDisplayNodes()
        board.GetDisplayNode().SaveWithSceneOff()
    voxels = arrayFromVolume(fixed)
    size = np.array(voxels.shape) * fixed.GetSpacing()[::-1]
    edges = np.maximum(1, np.rint(size.max() / _SQUARES / np.array(fixed.GetSpacing()[::-1]))).astype(int)
    holed, (low, high) = with_holes(voxels, edges)
    slicer.util.updateVolumeFromArray(board, holed)
    board.CopyOrientation(fixed)
    board.SetAndObserveTransformNodeID(node_id(fixed.GetParentTransformNode()))
    display, source = board.GetDisplayNode(), fixed.GetDisplayNode()
    with slicer.util.NodeModify(display):
        display.SetAutoWindowLevel(False)
        if source is not None:
            display.SetWindowLevel(source.GetWindow(), source.GetLevel())
            display.SetAndObserveColorNodeID(source.GetColorNodeID())
        display.SetAutoThreshold(False)
        display.SetThreshold(low, high)
        display.SetApplyThreshold(True)
    _show(moving, board, 1.0)


def is_left_over(moving) -> bool:
    """Whether the views show what is left of a comparison with which a scene was saved: what it needs is not."""
    return any(
        node.GetCompositing() == node.Subtract
        or (node.GetBackgroundVolumeID() == moving.GetID() and not node.GetForegroundVolumeID())
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", moving.GetScene())
    )


def show_plain(scene) -> None:
    """Takes squares and differences out of the views, and leaves what else they show."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene):
        node.SetCompositing(node.Alpha)
    remove_checkerboard(scene)


def remove_checkerboard(scene) -> None:
    """Removes the volume with the squares, as large as the fixed one."""
    board = _board(scene)
    if board is not None:
        scene.RemoveNode(board)


def with_holes(voxels: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """A copy of a scan in which every other block holds a value beyond all others.

    Args:
        voxels: ``(z, y, x)``.
        edges: ``(3,)`` of a block, in voxels.

    Returns:
        The copy, of a floating type where the scan's own has no value left, and the lowest and the highest value
        outside the holes.
    """
    finite = voxels if voxels.dtype.kind in "iu" else voxels[np.isfinite(voxels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    whole = voxels.dtype.kind in "iu"
    limits = np.iinfo(voxels.dtype) if whole else np.finfo(voxels.dtype)
    step = 1.0 if whole else max(1.0, abs(low), abs(high))
    free = [value for value in (low - step, high + step) if float(limits.min) <= value <= float(limits.max)]
    dtype = voxels.dtype if free else np.dtype(np.float32 if voxels.dtype.itemsize < 4 else np.float64)
    hole = free[0] if free else low - step
    copy = voxels.astype(dtype)
    z, y, x = (np.arange(count) // edge % 2 for count, edge in zip(voxels.shape, edges, strict=True))
    plane = (y[:, None] + x[None]) % 2 == 1
    for number, odd in enumerate(z):
        copy[number][plane ^ bool(odd)] = hole
    return copy, (low, high)


def distance_model(transform) -> slicer.vtkMRMLModelNode | None:
    """The model of distances of an alignment; None where none was made."""
    return None if transform is None else transform.GetNodeReference(DISTANCE_ROLE)


def solids(transform) -> list[Solid]:
    """What can be seen of an alignment in 3D."""
    found = []
    outputs = outputs_of(transform)
    segmentation = outputs.get("segmentation")
    shown = segmentation is not None and lies_beside(segmentation, transform)
    if shown and all(segmentation.GetSegmentation().GetSegment(one[0]) for one in SEGMENTS):
        found += [Solid.CORTICES, Solid.DISTANCE]
    model = outputs.get("thickness")
    surface = None if model is None else model.GetPolyData()
    if surface is not None and surface.GetNumberOfPoints() and lies_beside(model, transform):
        found.append(Solid.THICKNESS)
    return found


def solid_of(transform) -> Solid:
    """What is seen of an alignment in 3D."""
    for solid, node in _models(transform).items():
        if node.GetDisplayNode() is not None and node.GetDisplayNode().GetVisibility():
            return solid
    return Solid.CORTICES


def show_solid(transform, solid: Solid) -> None:
    """Shows one of `solids` in 3D, and hides the others. Surfaces that lie on each other would fight for pixels."""
    if solid is Solid.DISTANCE:
        write_distances(transform)
    for kind, node in _models(transform).items():
        show_model(node, kind is solid)
    segmentation = outputs_of(transform).get("segmentation")
    display = None if segmentation is None else segmentation.GetDisplayNode()
    if display is not None:
        for identifier, *_ in (*SEGMENTS, CARTILAGE_SEGMENT):
            if segmentation.GetSegmentation().GetSegment(identifier) is not None:
                display.SetSegmentVisibility3D(identifier, solid is Solid.CORTICES)
        # The bone shines through to what lies on it, and is faint where colours are to be told.
        fixed = SEGMENTS[0][0]
        display.SetSegmentVisibility3D(fixed, solid is not Solid.DISTANCE)
        display.SetSegmentOpacity3D(fixed, _FAINT if solid is Solid.THICKNESS else _HALF)


def write_distances(transform) -> None:
    """Makes the model of the moved cortex, coloured by how far from the fixed one each point of it lies, in um."""
    segmentation = outputs_of(transform)["segmentation"]
    surfaces = []
    for identifier, *_ in SEGMENTS:
        surface = vtk.vtkPolyData()
        segmentation.GetClosedSurfaceRepresentation(identifier, surface)
        surfaces.append(surface)
    fixed, moving = surfaces
    distances = np.zeros(moving.GetNumberOfPoints(), np.float32)
    if fixed.GetNumberOfCells() and len(distances):
        to_fixed = vtk.vtkImplicitPolyDataDistance()
        to_fixed.SetInput(fixed)
        found = vtk.vtkDoubleArray()
        to_fixed.FunctionValue(moving.GetPoints().GetData(), found)
        distances = (_MICROMETRES * np.abs(vtk_to_numpy(found))).astype(np.float32)
    limit = max(10.0, 10.0 * float(np.ceil(np.quantile(distances, _MOST) / 10))) if len(distances) else 10.0
    node, scene = distance_model(transform), transform.GetScene()
    if node is None:
        name = scene.GenerateUniqueName(f"{segmentation.GetName()} distance")
        node = scene.AddNewNodeByClass("vtkMRMLModelNode", name)
        transform.SetNodeReferenceID(DISTANCE_ROLE, node.GetID())
        put_beside(node, segmentation)
    node.SetAndObserveTransformNodeID(segmentation.GetTransformNodeID())
    write_model(node, moving, {"Distance (µm)": distances}, limit, "Distance (µm)")


def remove_distances(transform) -> None:
    """Removes the model of distances: the cortices that it is of are written anew."""
    node = distance_model(transform)
    if node is not None:
        transform.GetScene().RemoveNode(node)


def _models(transform) -> dict[Solid, slicer.vtkMRMLModelNode]:
    nodes = {Solid.DISTANCE: distance_model(transform), Solid.THICKNESS: outputs_of(transform).get("thickness")}
    return {solid: node for solid, node in nodes.items() if node is not None}


def _board(scene) -> slicer.vtkMRMLScalarVolumeNode | None:
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene):
        if node.GetAttribute(_BOARD) is not None:
            return node
    return None


def _show(
    background, foreground, opacity: float, compositing=slicer.vtkMRMLSliceCompositeNode.Alpha, fit: bool = False
) -> None:
    for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", background.GetScene()):
        node.SetCompositing(compositing)
    slicer.util.setSliceViewerLayers(background=background, foreground=foreground, foregroundOpacity=opacity, fit=fit)
