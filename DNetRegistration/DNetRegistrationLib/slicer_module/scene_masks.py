"""Masks of volume nodes: a segment of a segmentation, a label volume, or a markups ROI; and their outline in the views.

A mask comes as an image on a grid of its own: the alignment puts it on the scan's. A point beside a volume lies in the
same way.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from slicer.util import arrayFromVolume, arrayFromVTKMatrix
from vtk.util.numpy_support import vtk_to_numpy

from ..bone.scenes import PREVIEW_SIZE
from ..core.errors import ScanError, Setting
from ..imaging.masks import mask_on
from ..imaging.volume import Volume
from .scene import FLIP, Placed, is_under, linear_to_world, transform_above
from .scene_preview import surface

#: The classes of nodes that can be masks.
MASK_CLASSES = ("vtkMRMLSegmentationNode", "vtkMRMLLabelMapVolumeNode", "vtkMRMLMarkupsROINode")


def mask_of(node, placed: Placed, segment: str = "", setting: Setting | None = None) -> Volume:
    """The mask of a volume in world coordinates, on a grid of its own; true where it is above 0.

    A mask that stands under the transform of an earlier alignment of the volume moves along with it. Any other one lies
    where the volume lay before that alignment, as the alignment itself starts from there.

    Args:
        node: of one of `MASK_CLASSES`. In a label volume all labels above 0 count.
        placed: the volume.
        segment: the ID of a segment of a segmentation; empty for all of them.
        setting: what errors name; None is the mask of the volume.

    Raises:
        ScanError: it is no such node, has no such segment, is empty, or stands under a transform that is not linear.
    """
    name = node.GetName() or "unnamed mask"
    setting = setting or Setting("mask", placed.role)
    if node.IsA("vtkMRMLSegmentationNode"):
        voxels, to_local = _segment(node, segment, name, setting)
    elif node.IsA("vtkMRMLLabelMapVolumeNode"):
        voxels, to_local = _labels(node, name, setting)
    elif node.IsA("vtkMRMLMarkupsROINode"):
        voxels, to_local = _region(node, name, setting)
    else:
        raise ScanError(f"{name}: cannot be a mask", "select a segmentation, a label volume or an ROI", setting)
    if not voxels.any():
        raise ScanError(f"{name}: the mask is empty", "mark where to look, or select no mask", setting)
    return Volume(voxels.astype(np.uint8), FLIP @ _to_world(node, placed, name) @ to_local, name)


def point_of(node, placed: Placed, setting: Setting) -> list[float]:
    """The one point of a markups node beside a volume, ``(3,)``, LPS mm; it lies as a mask does, see `mask_of`.

    Args:
        node: a ``vtkMRMLMarkupsNode``.
        placed: the volume.
        setting: what errors name.

    Raises:
        ScanError: it has not one point, or stands under a transform that is not linear.
    """
    name = node.GetName() or "unnamed point"
    count = node.GetNumberOfDefinedControlPoints()
    if count != 1:
        raise ScanError(f"{name}: has {count} points", "place one, or select none", setting)
    placements = (node.GetNthControlPointPositionStatus(n) for n in range(node.GetNumberOfControlPoints()))
    index = next(n for n, status in enumerate(placements) if status == node.PositionDefined)
    point = FLIP @ _to_world(node, placed, name) @ (*node.GetNthControlPointPosition(index), 1.0)
    return point[:3].tolist()


def outline(mask: Volume, placed: Placed) -> vtk.vtkPolyData:
    """The surface of what a mask marks of a volume, in about 128 voxels an axis, in the volume node's own RAS.

    Raises:
        ScanError: it marks nothing of the volume.
    """
    size = np.array(placed.node.GetImageData().GetDimensions())
    step = np.maximum(1, np.rint(size / PREVIEW_SIZE).astype(int))
    coarse = np.eye(4)
    coarse[:3, :3], coarse[:3, 3] = np.diag(step), (step - 1) / 2
    shape = tuple(int(n) for n in -(-size // step)[::-1])
    grid = Volume(np.broadcast_to(np.uint8(0), shape), placed.affine @ coarse, placed.name)
    marked = np.pad(mask_on(mask, grid, placed.role), 1)  # closed at the border
    back = np.eye(4)
    back[:3, 3] = -1
    return surface(marked.astype(np.float32), 0.5, placed.to_local(grid.affine @ back))


def _segment(node, segment: str, name: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Voxels ``(z, y, x)`` of a segmentation, and ``(4, 4)`` from their index to the node's own RAS."""
    segmentation = node.GetSegmentation()
    if segment and segmentation.GetSegment(segment) is None:
        raise ScanError(f"{name}: the segment that was chosen is gone", "choose another one", setting)
    if segmentation.GetNumberOfSegments() == 0:
        return np.zeros((1, 1, 1)), np.eye(4)
    converter = slicer.vtkSegmentationConverter
    if not segmentation.ContainsRepresentation(converter.GetSegmentationBinaryLabelmapRepresentationName()):
        node.CreateBinaryLabelmapRepresentation()
    image = slicer.vtkOrientedImageData()
    if segment:
        node.GetBinaryLabelmapRepresentation(segment, image)
    else:
        node.GenerateMergedLabelmapForAllSegments(image, slicer.vtkSegmentation.EXTENT_UNION_OF_EFFECTIVE_SEGMENTS)
    scalars = image.GetPointData().GetScalars()
    if image.IsEmpty() or scalars is None:
        return np.zeros((1, 1, 1)), np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    first = np.eye(4)
    first[:3, 3] = image.GetExtent()[::2]
    voxels = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    return voxels > 0, arrayFromVTKMatrix(matrix) @ first


def _labels(node, name: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise ScanError(f"{name}: the mask holds no image", "load it again, or select no mask", setting)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return arrayFromVolume(node) > 0, arrayFromVTKMatrix(matrix)


def _region(node, name: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """A box is a single voxel."""
    if node.GetInsideOut():
        raise ScanError(f"{name}: the region is inside out", "mark what is to be aligned", setting)
    size = np.array(node.GetSize())
    if not (np.isfinite(size).all() and (size > 0).all()):
        return np.zeros((1, 1, 1)), np.eye(4)
    return np.ones((1, 1, 1)), arrayFromVTKMatrix(node.GetObjectToNodeMatrix()) @ np.diag((*size, 1.0))


def _to_world(node, placed: Placed, name: str) -> np.ndarray:
    """``(4, 4)`` from the RAS of a node beside a volume to the world in which that lies as it is aligned."""
    to_world = linear_to_world(node.GetParentTransformNode(), name)
    own = transform_above(placed.node) if placed.role == "moving" else None
    if own is None or not is_under(node, own):
        return to_world
    seen = linear_to_world(placed.node.GetParentTransformNode(), placed.name)
    return placed.to_world @ np.linalg.solve(seen, to_world)
