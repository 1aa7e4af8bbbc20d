"""The map of thickness as voxels: each voxel of the cartilage holds the thickness there."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..cartilage.result import ThicknessMap
from ..imaging.volume import Volume


def thickness_volume(found: ThicknessMap, grid: Volume, placed: np.ndarray | None = None) -> Volume:
    """Paints the layer on a grid.

    A voxel is cartilage where its centre lies above the nearest point of the surface by no more than the thickness
    there. A layer thinner than a voxel has gaps, and what was filled is left out: volumes are those of the table, not
    counts of these voxels.

    Args:
        found: the map.
        grid: a scan on the grid.
        placed: ``(4, 4)`` from the world of the map to that of the grid, rigid, LPS mm; None where they are the same.

    Returns:
        Volume: float32 thickness in um on the grid; 0 where no cartilage is, or none was measured.
    """
    out = np.zeros(grid.voxels.shape, np.float32)
    placed = np.eye(4) if placed is None else np.asarray(placed, np.float64)
    points = found.points @ placed[:3, :3].T + placed[:3, 3]
    normals = found.normals @ placed[:3, :3].T
    covered = np.nan_to_num(found.thickness_um) > 0
    if covered.any():
        heights = found.thickness_um[covered] / 1000
        near = _near(points[covered], normals[covered], heights, grid)
        centers = grid.to_world(near[:, ::-1])
        # A voxel beside the map belongs to none of its points: those lie closer together than a voxel's diagonal.
        reach = float(heights.max()) + float(np.linalg.norm(grid.spacing))
        distance, nearest = cKDTree(points).query(centers, distance_upper_bound=reach)
        reached = np.isfinite(distance)
        near, centers, nearest, distance = near[reached], centers[reached], nearest[reached], distance[reached]
        height = ((centers - points[nearest]) * normals[nearest]).sum(1)
        aside = np.sqrt(np.maximum(distance**2 - height**2, 0))
        thickness = np.nan_to_num(found.thickness_um[nearest])
        inside = (height > 0) & (1000 * height <= thickness) & (aside < np.linalg.norm(grid.spacing))
        out[tuple(near[inside].T)] = thickness[inside]
    return Volume(out, grid.affine, "cartilage thickness")


def _near(points: np.ndarray, normals: np.ndarray, heights: np.ndarray, grid: Volume) -> np.ndarray:
    """``(k, 3)`` index (z, y, x) of the voxels about the layer."""
    shape = np.array(grid.voxels.shape)
    # One voxel about what the normals meet: they spread above a round surface.
    around = np.stack(np.meshgrid(*3 * [np.arange(-1, 2)], indexing="ij"), -1).reshape(-1, 3)
    step = float(np.min(grid.spacing))
    met = []
    for height in np.arange(0, float(heights.max()) + step, step):
        chosen = heights + step > height
        index = np.rint(grid.to_index(points[chosen] + height * normals[chosen])).astype(int)[:, ::-1]
        index = np.unique(index, axis=0)
        index = (index[:, None] + around).reshape(-1, 3)
        index = index[((index >= 0) & (index < shape)).all(1)]
        met.append(np.ravel_multi_index(tuple(index.T), tuple(shape)))
    return np.stack(np.unravel_index(np.unique(np.concatenate(met)), tuple(shape)), 1)
