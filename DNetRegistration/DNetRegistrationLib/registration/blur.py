"""The blur of two scans made alike, so that what only one of them resolves does not speak against a pose.

Scanners and reconstruction kernels blur differently. The sharper image is blurred by the Gaussian with which the two
agree most over all bone: one number, which makes no stranger look the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..bone.images import BoneImage
from ..imaging.tensors import gaussian
from .similarity import agreement

# Deviations that are tried, in voxels of the coarser image: the first step to either side, then on by the second one.
# A blur by two voxels and more leaves no trabeculae.
FIRST_STEP, STEP, MOST_BLUR = 0.5, 0.25, 2.0


def match_blur(fixed: BoneImage, moving: BoneImage, pose: Tensor) -> tuple[float, float]:
    """The deviations in mm of the Gaussians by which to blur two images, one of them 0.

    Args:
        fixed, moving: bone images of about one resolution.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.
    """
    voxel = max(float(image.spacing.mean()) for image in (fixed, moving))

    def found(signed: float) -> float:
        """The agreement where the fixed image is blurred by so many voxels, or the moving one by as many below 0."""
        return agreement(blurred(fixed, voxel * signed), blurred(moving, -voxel * signed), pose)

    tried = {signed: found(signed) for signed in (0.0, FIRST_STEP, -FIRST_STEP)}
    best = max(tried, key=lambda signed: tried[signed])
    while best and abs(best) < MOST_BLUR:
        further = best + float(np.copysign(STEP, best))
        tried[further] = found(further)
        if tried[further] <= tried[best]:
            break
        best = further
    return max(0.0, voxel * best), max(0.0, -voxel * best)


def blurred(image: BoneImage, deviation: float) -> BoneImage:
    """The image blurred within its field of view by a Gaussian of a deviation in mm; itself for 0 and less."""
    if deviation <= 0:
        return image
    sigma = tuple(float(deviation / spacing) for spacing in reversed(image.spacing))
    inside = torch.ones_like(image.values) if image.inside is None else image.inside
    seen = gaussian(inside, sigma).clamp(min=1e-3)
    return BoneImage(gaussian(image.values * inside, sigma) / seen, image.affine, image.inside)
