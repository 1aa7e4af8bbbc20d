"""Segmentation of cortical bone, and the overlap (Dice) of the cortices of two aligned scans.

Needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage

from ..imaging.morphology import box_around, dilate, dilate_ball, large_components
from ..imaging.resample import averaged, resample_mask
from ..imaging.volume import Volume

# Lengths in working spacings; the comments give them for the mouse, whose working spacing is 0.08 mm.
GRID = 0.5  # 0.04 mm: the segmentation's voxels, unless the scan's own are larger
BRIDGE = 2.0  # 0.16 mm: the periosteal surface passes over openings of up to twice this
SWALLOW = 1.5  # 0.12 mm: the endosteal surface takes in trabeculae of up to twice this
PORE = 0.375  # 0.03 mm: spaces in bone of up to twice this are pores of the cortex, not marrow
THINNEST = 0.75  # 0.06 mm: the cortex counts as at least so thick
# Smaller pieces of bone, as a share of the largest, are fragments, ossicles or calcified tissue.
SMALLEST_PIECE = 0.02
# An opening on the border of the field of view is the cut end of a shaft if it has at most this share of the border.
LARGEST_CUT = 0.25


@dataclass(frozen=True)
class CorticalBone:
    """The cortical bone of one scan, on the scan's own grid or a coarser one with the same axes.

    Attributes:
        cortex: ``(z, y, x)`` bool, bone between the periosteal and the endosteal surface.
        whole: ``(z, y, x)`` bool, everything within the periosteal surface: cortex, trabeculae and marrow.
        grey: ``(z, y, x)`` float32, the scan's own values, averaged over each voxel; NaN outside the field of view.
        affine: ``(4, 4)`` float64, index (x, y, z) to world LPS mm.
    """

    cortex: np.ndarray
    whole: np.ndarray
    grey: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` voxel size along x, y, z in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def center(self) -> np.ndarray:
        """``(3,)`` world centroid of the cortex in mm; of the grid where there is no cortex."""
        index = np.argwhere(self.cortex)[:, ::-1]
        middle = index.mean(0) if len(index) else (np.array(self.cortex.shape[::-1]) - 1) / 2
        return self.affine[:3, :3] @ middle + self.affine[:3, 3]

    def mirrored(self) -> CorticalBone:
        """The mirror image (x reversed)."""
        return replace(self, affine=np.diag((-1.0, 1.0, 1.0, 1.0)) @ self.affine)

    @cached_property
    def depth(self) -> np.ndarray:
        """``(z, y, x)`` float32, depth of each voxel below the periosteal surface in mm, 0 outside it."""
        depth = np.zeros(self.whole.shape, np.float32)
        if (box := box_around(self.whole)) is not None:
            padded = np.pad(self.whole[box], 1)
            depth[box] = ndimage.distance_transform_edt(padded, self.spacing[::-1])[1:-1, 1:-1, 1:-1]
        return depth

    @property
    def thickness(self) -> float:
        """Mean depth of the cortex below the periosteal surface in mm, about half of its thickness; NaN without one."""
        return float(self.depth[self.cortex].mean()) if self.cortex.any() else math.nan

    def marrow(self, depth: float) -> np.ndarray:
        """``(n, 3)`` indices (x, y, z) of voxels more than `depth` mm below the bone's surface, without its cortex."""
        return np.argwhere((self.depth > depth) & ~self.cortex)[:, ::-1].copy()


def cortical_bone(
    volume: Volume,
    threshold: float,
    spacing: float,
    mask: np.ndarray | None = None,
    resolution: float | None = None,
) -> CorticalBone:
    """Segments cortical bone by the dual-threshold method of Buie et al. (Bone 41:505-515, 2007).

    As there, the thresholded bone is dilated, filled and eroded, which gives the periosteal surface. The space within
    that is not bone loses its narrow parts and is closed over the trabeculae, which gives the endosteal surface. The
    cortex is the bone between the two. Departures, each for a reason:

    - One threshold, found or given for the registration, serves for both surfaces.
    - Structuring elements are balls in mm (by distance transform) rather than voxels, so that anisotropic grids and
      scans of any voxel size give the same surface.
    - Where the field of view cuts the bone, at any angle, the opening of the marrow on the border counts as closed.
      Buie et al. crop scans along the bone's axis.
    - Pieces below 2 % of the largest are dropped, since fragments move between scans. Pieces that the growth plate or
      the gap to the fibula separate from the tibia stay.
    - Marrow does not come closer to the periosteal surface than 0.06 mm, so that a thin shell does not vanish.

    Args:
        volume: the scan.
        threshold: bone is above, in the scan's own units.
        spacing: the working spacing in mm (0.08 for a mouse): the length all parameters are scaled with.
        mask: boolean array of the scan's shape. Outside of it counts as outside the field of view.
        resolution: voxel size of the segmentation in mm, by default half the working spacing. The scan is averaged over
            whole blocks of its voxels to about that size, and never refined.
    """
    grey, affine = averaged(volume, spacing * GRID if resolution is None else resolution, mask)
    step = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    # A layer outside the field of view makes the grid's border a border like any other.
    grey_padded = np.pad(grey, 1, constant_values=np.nan)
    inside = np.isfinite(grey_padded)
    with np.errstate(invalid="ignore"):
        bone = grey_padded > threshold
    pieces = large_components(bone, SMALLEST_PIECE, corners=True)
    cortex, whole = np.zeros_like(bone), np.zeros_like(bone)
    if (box := box_around(pieces, np.ceil(2 * BRIDGE * spacing / step).astype(int) + 2)) is not None:
        dilated = np.zeros_like(bone)
        dilated[box] = dilate_ball(pieces[box], step, BRIDGE * spacing) & inside[box]
        filled = ndimage.binary_fill_holes((dilated | _cut_ends(dilated, inside))[box]) & inside[box]
        whole[box] = filled & ~dilate_ball(inside[box] & ~filled, step, BRIDGE * spacing)
        marrow = _marrow(bone[box], whole[box], inside[box], step, spacing)
        cortex[box] = large_components(bone[box] & whole[box] & ~marrow, SMALLEST_PIECE, corners=True)
    core = (slice(1, -1),) * 3
    return CorticalBone(cortex[core], whole[core], grey, affine)


def dice(fixed: CorticalBone, moving: CorticalBone, matrix: np.ndarray) -> float:
    """Dice similarity coefficient of two cortices (the paper's DSC, Sec. 2.5), 0 to 1.

    The moving cortex is interpolated linearly on the grid of the fixed segmentation, and counts where at least half of
    it arrives. Only voxels in both fields of view count. 0 where these do not overlap.

    Args:
        fixed, moving: segmentations.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.
    """
    carried = resample_mask(moving.cortex, moving.affine, fixed.affine, fixed.cortex.shape, matrix)
    index = np.argwhere((fixed.cortex | carried) & np.isfinite(fixed.grey))
    to_moving = np.linalg.solve(moving.affine, np.asarray(matrix, np.float64) @ fixed.affine)
    there = np.floor(index[:, ::-1] @ to_moving[:3, :3].T + to_moving[:3, 3] + 0.5).astype(int)[:, ::-1]
    inside = ((there >= 0) & (there < moving.cortex.shape)).all(1)
    index, there = index[inside], there[inside]
    index = tuple(index[np.isfinite(moving.grey[tuple(there.T)])].T)
    own, other = fixed.cortex[index], carried[index]
    total = np.count_nonzero(own) + np.count_nonzero(other)
    return float(2 * np.count_nonzero(own & other) / total) if total else 0.0


def _cut_ends(bone: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Where the field of view cuts a bone: openings that bone separates from the rest of the field of view's border."""
    # The grid has a layer outside, so that its own border is part of this one.
    border = inside & dilate(~inside, 1)
    labels, count = ndimage.label(border & ~bone, ndimage.generate_binary_structure(3, 2))
    if count < 2:
        return np.zeros_like(bone)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    ends = sizes <= LARGEST_CUT * np.count_nonzero(border)
    ends[0] = ends[sizes.argmax()] = False
    return ends[labels]


def _marrow(bone: np.ndarray, whole: np.ndarray, inside: np.ndarray, step: np.ndarray, spacing: float) -> np.ndarray:
    """The space within the endosteal surface: marrow with its trabeculae."""
    deep = ~dilate_ball(inside & ~whole, step, THINNEST * spacing)
    space = whole & ~bone & deep
    if PORE * spacing >= step.min():  # a smaller ball holds no neighbour, and takes nothing away
        space &= ~dilate_ball(inside & ~space, step, PORE * spacing)
        space = dilate_ball(space, step, PORE * spacing)
    wider = dilate_ball(space, step, SWALLOW * spacing)
    return ~dilate_ball(inside & ~wider, step, SWALLOW * spacing) & whole & deep
