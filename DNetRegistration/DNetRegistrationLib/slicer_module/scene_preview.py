"""The outline of bone at a threshold, in the slice views, while the threshold is being chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.util import vtkMatrixFromArray
from vtk.util.numpy_support import numpy_to_vtk

from ..bone.scenes import PREVIEW_SIZE
from ..bone.threshold import find_bone_scale
from ..core.errors import ScanError
from ..imaging.resample import block_means
from ..outputs.segmentation import SEGMENTS
from .scene import ATTRIBUTE, Placed

ROLE_ATTRIBUTE = f"{ATTRIBUTE}preview"
# As the cortices of the result.
COLORS = {role: color for role, (_, _, color) in zip(("fixed", "moving"), SEGMENTS, strict=True)}


@dataclass(frozen=True)
class ThresholdPreview:
    """A scan averaged to about 128 voxels an axis, of which bone is outlined quickly at any threshold.

    Attributes:
        placed: the volume node.
        values: ``(z, y, x)`` float32, NaN replaced by the lowest value.
        ijk_to_ras: ``(4, 4)``, index (x, y, z) to the volume node's own RAS.
        low, high: the range of the values.
        automatic: the automatic threshold; None where none is found.
    """

    placed: Placed
    values: np.ndarray
    ijk_to_ras: np.ndarray
    low: float
    high: float
    automatic: float | None

    @classmethod
    def of(cls, placed: Placed) -> ThresholdPreview:
        """The preview of a volume node as it is now."""
        volume = placed.volume()
        means, affine = block_means(volume, np.maximum(1, np.rint(volume.size / PREVIEW_SIZE).astype(int)))
        finite = means[np.isfinite(means)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        try:
            automatic = find_bone_scale(volume).threshold
        except ScanError:
            automatic = None
        return cls(placed, np.nan_to_num(means, nan=low), placed.to_local(affine), low, high, automatic)

    def surface(self, threshold: float) -> vtk.vtkPolyData:
        """Where the averaged scan crosses the threshold, in the volume node's own RAS."""
        return surface(self.values, threshold, self.ijk_to_ras)


def surface(values: np.ndarray, level: float, ijk_to_ras: np.ndarray) -> vtk.vtkPolyData:
    """Where values ``(z, y, x)`` cross a level; `ijk_to_ras` ``(4, 4)`` is from index (x, y, z)."""
    image = vtk.vtkImageData()
    image.SetDimensions(*values.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(values.ravel()))
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, level)
    contour.ComputeNormalsOff()
    contour.ComputeScalarsOff()
    transform = vtk.vtkTransform()
    transform.SetMatrix(vtkMatrixFromArray(ijk_to_ras))
    to_ras = vtk.vtkTransformPolyDataFilter()
    to_ras.SetTransform(transform)
    to_ras.SetInputConnection(contour.GetOutputPort())
    to_ras.Update()
    return to_ras.GetOutput()


def show_outline(preview: ThresholdPreview, threshold: float, role: str) -> None:
    """Draws the outline of bone in the slice views, in the colour of its cortex."""
    draw(preview.surface(threshold), preview.placed.node, role, f"Bone outline, {role} (preview)", COLORS[role])


def draw(outline: vtk.vtkPolyData, volume, role: str, name: str, color: tuple[float, float, float]) -> None:
    """Draws an outline in the slice views, in a node that is hidden from lists and not saved with the scene.

    Args:
        outline: in the volume node's own RAS.
        volume: the volume node that it is of.
        role: of the outline; the one before in this role is replaced.
        name: of the node.
        color: red, green and blue, 0 to 1.
    """
    scene = volume.GetScene()
    node = _outline(scene, role)
    if node is None:
        node = scene.CreateNodeByClass("vtkMRMLModelNode")
        node.UnRegister(None)
        node.SetName(name)
        node.SetAttribute(ROLE_ATTRIBUTE, role)
        node.HideFromEditorsOn()
        node.SaveWithSceneOff()
        scene.AddNode(node)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SaveWithSceneOff()
        display.SetColor(*color)
        display.SetVisibility3D(False)
        display.SetVisibility2D(True)
        display.SetSliceIntersectionThickness(2)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetAndObservePolyData(outline)


def hide_outlines(scene, roles: Iterable[str] = tuple(COLORS)) -> None:
    """Removes the outlines in these roles; left out, those of bone."""
    for role in roles:
        node = _outline(scene, role)
        if node is not None:
            scene.RemoveNode(node)


def _outline(scene, role: str) -> slicer.vtkMRMLModelNode | None:
    for node in slicer.util.getNodesByClass("vtkMRMLModelNode", scene):
        if node.GetAttribute(ROLE_ATTRIBUTE) == role:
            return node
    return None
