"""What a verdict is bound to: the voxels of two volumes, and how their grids lie on each other.

A verdict is about two arrays of voxels in one position. It holds wherever both are taken together, by whatever moves
them. It no longer holds when one was moved on the other, when a voxel size was corrected, or when voxels were changed.
"""

from __future__ import annotations

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
import vtk
from slicer.util import arrayFromVolume, arrayFromVTKMatrix

#: How far, in mm, a corner of the fixed volume may lie from its place in the moving one. Headers of files in 32 bits
#: round by half of that, two metres off the origin.
_UNMOVED_MM = 3e-4
#: How much the lengths of the fixed grid may differ, as a fraction.
_UNSCALED = 1e-5

#: Check sums of volumes, by the time at which VTK saw their voxels change: reading all voxels takes its time.
_known: dict[tuple, tuple[int, int]] = {}


@dataclass(frozen=True)
class Bond:
    """Two volumes as they were aligned.

    Attributes:
        relation: ``(4, 4)``, an index (x, y, z) of the fixed volume to that of the same place in the moving one.
        metric: ``(3, 3)`` mm^2, scalar products of the fixed volume's steps from voxel to voxel: lengths and angles.
        voxels: what `check_sums` gives for the fixed and for the moving volume.
    """

    relation: np.ndarray
    metric: np.ndarray
    voxels: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def of(cls, nodes, affines, matrix: np.ndarray) -> Bond:
        """Two volumes in the position that an alignment found.

        Args:
            nodes: the fixed and the moving volume node.
            affines: ``(4, 4)`` each, index to world as they were aligned, LPS mm.
            matrix: ``(4, 4)`` of the alignment, fixed to moving, LPS mm.
        """
        fixed, moving = affines
        steps = fixed[:3, :3]
        return cls(np.linalg.solve(moving, matrix @ fixed), steps.T @ steps, tuple(check_sums(node) for node in nodes))

    def to_json(self) -> str:
        """The bond as text; see `from_json`."""
        return json.dumps({"relation": self.relation.tolist(), "metric": self.metric.tolist(), "voxels": self.voxels})

    @classmethod
    def from_json(cls, text: str | None) -> Bond | None:
        """The bond of a text; None where it is none."""
        try:
            values = json.loads(text or "")
            relation, metric = (np.array(values[name], float) for name in ("relation", "metric"))
            voxels = tuple((int(forth), int(back)) for forth, back in values["voxels"])
        except (ValueError, TypeError, KeyError):
            return None
        return cls(relation, metric, voxels) if (relation.shape, metric.shape) == ((4, 4), (3, 3)) else None

    def same_voxels(self, fixed, moving) -> list[tuple[bool, bool]]:
        """Whether each volume's slices now run the other way; a pair for each way in which the voxels are the same.

        No pair says that voxels were changed. Slicer turns the slices of a left-handed grid round when it reads it.
        """
        ways = []
        for then, node in zip(self.voxels, (fixed, moving), strict=True):
            now = check_sums(node)
            ways.append([turned for turned in (False, True) if now == (then[::-1] if turned else then)])
        return list(product(*ways))

    def holds(self, fixed, moving, turned: tuple[bool, bool], parent=...) -> bool:
        """Whether the volumes lie on each other as they were aligned, in their true size.

        Args:
            fixed, moving: volume nodes.
            turned: of `same_voxels`.
            parent: the transform node that the moving volume is thought under, or None; left out, its own.
        """
        parents = fixed.GetParentTransformNode(), moving.GetParentTransformNode() if parent is ... else parent
        grids = [_index_to_world(*one) for one in zip((fixed, moving), parents, turned, strict=True)]
        if any(grid is None for grid in grids):
            return False
        size = np.array(fixed.GetImageData().GetDimensions())
        corners = np.array([(*corner, 1.0) for corner in product(*((-0.5, n - 0.5) for n in size))]).T
        apart = grids[1] @ self.relation @ corners - grids[0] @ corners
        steps = grids[0][:3, :3]
        lengths = np.sqrt(np.diag(self.metric))
        return bool(
            np.linalg.norm(apart[:3], axis=0).max() <= _UNMOVED_MM
            and (np.abs(steps.T @ steps - self.metric) <= _UNSCALED * np.outer(lengths, lengths)).all()
        )


def check_sums(node) -> tuple[int, int]:
    """CRC-32 of a volume's voxels with their shape and type, slices from first to last, and from last to first."""
    image = node.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    # VTK tells of a new size before the voxels are there.
    if scalars is None or scalars.GetNumberOfTuples() != image.GetNumberOfPoints():
        return 0, 0
    voxels = arrayFromVolume(node)
    key = image.GetMTime(), voxels.shape
    if key not in _known:
        if len(_known) > 20:
            _known.clear()
        with ThreadPoolExecutor() as pool:  # `crc32` lets other threads run
            slices = np.array(list(pool.map(zlib.crc32, np.ascontiguousarray(voxels))), "<u4")
        start = zlib.crc32(f"{voxels.dtype.str}{voxels.shape}".encode())
        _known[key] = zlib.crc32(slices.tobytes(), start), zlib.crc32(slices[::-1].tobytes(), start)
    return _known[key]


def forget_check_sums() -> None:
    """From now on voxels are read again: a script can have changed some without telling VTK."""
    _known.clear()


def _index_to_world(volume, parent, turned: bool) -> np.ndarray | None:
    """``(4, 4)``, index (x, y, z) to the world's RAS; None where the parent's transform is not linear."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    to_world = arrayFromVTKMatrix(matrix)
    if parent is not None:
        if not parent.IsTransformToWorldLinear():
            return None
        parent.GetMatrixTransformToWorld(matrix)
        to_world = arrayFromVTKMatrix(matrix) @ to_world
    if turned:
        turn = np.diag((1.0, 1.0, -1.0, 1.0))
        turn[2, 3] = volume.GetImageData().GetDimensions()[2] - 1
        to_world = to_world @ turn
    return to_world
