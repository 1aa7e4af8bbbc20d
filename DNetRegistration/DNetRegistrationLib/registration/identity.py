"""Whether two slender bones that agree may still be of two animals, as far as what is inside them tells.

The outer shape of a slender bone is simple, so that a pose brings those of two animals onto each other within a
fraction of a voxel. Its canal is narrow: blur carries the cortex into it, which is much alike in both. Trabeculae vouch
for one bone where they lie away from the cortex, as in the ends of a tibia; so do inner surfaces of the cortices, where
the bone is as thick as the shaft of a tibia.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..bone.cortex import CorticalBone
from ..geometry.rigid import inverse
from .bowing import slender_frame
from .evidence import Evidence, alike_greys, fine_structure
from .holders import ScanPair
from .similarity import LEAST_TRABECULAR_DEVIATION, thinned, values_of_both
from .verification import inner_misfit, log_odds

# A plate is as thin as a slender bone, but broad: its second standard deviation is above this share of the longest one.
BROAD = 0.5
# Marrow counts so many voxels from the cortex, where so many voxels show it. What two bones without trabeculae share
# there deviates by 0.03 at most, and by 0.05 to 0.13 in whole tibiae (dense bone is 1). These correlate by 0.7 to 0.9,
# two relatives' by 0.4 at most.
AWAY, LEAST_AWAY, LEAST_SHARED = 2.3, 30, 0.5
# Inner surfaces tell where the bone's least standard deviation is so many working voxels: of 35 pieces of shaft it is
# 2.9 and more. Of bones as slender as an ulna, 0.9 to 2.75 but for one of 3.0, they do not, since they differ slowly
# along the bone. They vouch where one bone is e times as likely as two.
THICK, CLEAR = 2.85, 1.0
UNVOUCHED = (
    "The bones are slender, with little inside that tells one animal's from another's: their outer shapes agree, but "
    "that of another animal of the same age may agree too. Make sure that both scans are of the same bone."
)


def unvouched(pair: ScanPair, evidence: Evidence, pose: Tensor) -> bool:
    """Whether a scan shows a slender bone of which nothing inside tells that the other one is of the same animal.

    Args:
        pair: the scans.
        evidence: for the pose.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.
    """
    frames = [slender_frame(scan.levels[-1]) for scan in (pair.fixed, pair.moving)]
    # A holder beside the bone makes the whole broader in one of them.
    slender = [one.deviations for one in frames if one is not None and one.deviations[1] < BROAD * one.deviations[2]]
    if not slender or _trabeculae_agree(pair, evidence, pose):
        return False
    if min(float(one[0]) for one in slender) < THICK * pair.fixed.cube.spacing:
        return True
    misfit = inner_misfit(pair, pose, evidence) if evidence.misfit is None else evidence.misfit
    return misfit is None or not log_odds(misfit) >= CLEAR


def _trabeculae_agree(pair: ScanPair, evidence: Evidence, pose: Tensor) -> bool:
    """Whether both scans show trabeculae in the same places, away from the cortex."""
    fine = fine_structure(alike_greys((pair.fixed, pair.moving), pair.bones, evidence.blurs))
    distance = AWAY * max(float(one.spacing.max()) for one in fine)
    both = [
        values_of_both(images, way, bone, thinned(_marrow_away(bone, distance)))
        for images, way, bone in zip((fine, fine[::-1]), (pose, inverse(pose)), pair.bones, strict=True)
    ]
    pairs = torch.cat((both[0], both[1].flip(0)), 1)
    if pairs.shape[1] < LEAST_AWAY:
        return False
    covariance = torch.cov(pairs)
    shared = float(covariance[0, 1])
    least = LEAST_SHARED * float(covariance.diagonal().prod().sqrt())
    return shared >= max(LEAST_TRABECULAR_DEVIATION**2, least)


def _marrow_away(bone: CorticalBone, distance: float) -> np.ndarray:
    """``(n, 3)`` indices (x, y, z) of marrow that is so many mm from the cortex."""
    marrow = bone.marrow(distance)
    away = ndimage.distance_transform_edt(~bone.cortex, bone.spacing[::-1])
    return marrow[away[tuple(marrow[:, ::-1].T)] > distance]
