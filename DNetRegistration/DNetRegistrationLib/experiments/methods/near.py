"""What methods are given that refine a start: scans carried so that the start is the identity, and a mask. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ...bone.cortex import CorticalBone, cortical_bone
from ...bone.threshold import find_bone_scale
from ...core.constants import PAPER_SPACING
from ...geometry.transforms import affine_matrix
from ...imaging.resample import resample_mask
from ...imaging.volume import Volume

#: A mask takes in, or leaves out, so much at the bone's surface: so many voxels, and at least so many mm.
MARGIN_VOXELS, MARGIN_MM = 2.0, 0.06
#: Where a method looks: everywhere, at the bone and just around it, or only at what lies inside of the bone's surface.
MASKS = ("all", "dilated", "eroded")


@dataclass(frozen=True)
class NearScans:
    """Two scans in a world in which a start is the identity and the bone lies about the origin.

    Only the affines of the scans change, so that nothing is interpolated. No tool has to be told of a start, and none
    turns about a far point.

    Attributes:
        fixed, moving: the scans there.
        where: one of `MASKS`.
        start: ``(4, 4)``, fixed to moving points, LPS mm.
        center: ``(3,)`` of the fixed scan's bone, LPS mm.
    """

    fixed: Volume
    moving: Volume
    where: str
    start: np.ndarray
    center: np.ndarray

    @classmethod
    def of(cls, fixed: Volume, moving: Volume, start: np.ndarray, where: str) -> NearScans:
        """Carries two scans there.

        Raises:
            ScanError: no bone is found in the fixed scan.
        """
        center = _bone(fixed).center
        away = affine_matrix(np.eye(3), -center)
        first = Volume(fixed.voxels, away @ fixed.affine, fixed.name)
        second = Volume(moving.voxels, away @ np.linalg.inv(start) @ moving.affine, moving.name)
        return cls(first, second, where, start, center)

    def answer(self, found: np.ndarray) -> np.ndarray:
        """The ``(4, 4)`` map from fixed to moving points, LPS mm, that corresponds to one found here."""
        back = affine_matrix(np.eye(3), self.center)
        return self.start @ back @ found @ np.linalg.inv(back)

    def mask(self, scan: Volume) -> np.ndarray | None:
        """``(z, y, x)`` bool, where to look in one of the two scans; None looks everywhere.

        Raises:
            ScanError: no bone is found in it.
        """
        if self.where == "all":
            return None
        bone = _bone(scan)
        margin = max(MARGIN_VOXELS * float(scan.spacing.max()), MARGIN_MM)
        if self.where == "eroded":
            mask = bone.depth > margin
        else:
            mask = ndimage.distance_transform_edt(~bone.whole, bone.spacing[::-1]) <= margin
        return resample_mask(mask, bone.affine, scan.affine, scan.voxels.shape, np.eye(4))


def _bone(scan: Volume) -> CorticalBone:
    return cortical_bone(scan, find_bone_scale(scan).threshold, PAPER_SPACING)
