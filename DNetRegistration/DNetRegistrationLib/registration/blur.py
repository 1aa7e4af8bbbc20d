"""The blur of two scans made alike, so that what only one of them resolves does not speak against a pose.

Voxels blur by their shape, which the grids tell: a thick slice along its normal only. Scanners and reconstruction
kernels blur too, which the images tell: the sharper one is blurred further by the Gaussian with which the two agree
most over all bone. That is one number, which makes no stranger look the same. Grey values are blurred, and cut at the
bone threshold afterwards, as in a scanner: bone that is thinner than a slice falls below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ..bone.images import BoneImage
from ..bone.threshold import HIGHEST
from ..core.threads import of_both
from ..imaging.tensors import along_axes
from .similarity import agreement

# Deviations that are tried, in voxels of the coarser image: the first step to either side, then on by the second one.
# A blur by two voxels and more leaves no trabeculae.
FIRST_STEP, STEP, MOST_BLUR = 0.5, 0.25, 2.0
# A voxel's box has a variance of 1/12 of its edge squared, and linear interpolation adds 1/6 in one of two directions.
VOXEL_VARIANCE = 1 / 6


def match_blur(fixed: BoneImage, moving: BoneImage, pose: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The covariances ``(3, 3)`` in mm2, each in its scan's world, of the Gaussians by which to blur two grey images.

    Args:
        fixed, moving: grey images of about one resolution, 0 at the bone threshold.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.
    """
    greys = fixed, moving
    by_voxels = _missing(greys, pose)
    still = [as_bone(blurred(image, one)) for image, one in zip(greys, by_voxels, strict=True)]
    voxel = max(float(image.spacing.mean()) for image in greys)

    def covariances(signed: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the fixed image is blurred by so many voxels more, or the moving one by as many below 0."""
        more = max(0.0, voxel * signed), max(0.0, -voxel * signed)
        first, second = (one + deviation**2 * np.eye(3) for one, deviation in zip(by_voxels, more, strict=True))
        return first, second

    def found(signed: float) -> float:
        seen, which = list(still), int(signed < 0)
        if signed:
            seen[which] = as_bone(blurred(greys[which], covariances(signed)[which]))
        return agreement(seen[0], seen[1], pose)

    more, less = of_both(found, (FIRST_STEP, -FIRST_STEP))
    tried = {0.0: found(0.0), FIRST_STEP: more, -FIRST_STEP: less}
    best = max(tried, key=lambda signed: tried[signed])
    while best and abs(best) < MOST_BLUR:
        further = best + float(np.copysign(STEP, best))
        tried[further] = found(further)
        if tried[further] <= tried[best]:
            break
        best = further
    return covariances(best)


def _missing(images: Sequence[BoneImage], pose: Tensor) -> list[np.ndarray]:
    """The covariance that the voxels of the one of two images lack along some axes, and of the other along others."""
    turn = pose[:3, :3].numpy()
    own, other = (VOXEL_VARIANCE * image.affine[:3, :3] @ image.affine[:3, :3].T for image in images)
    variances, axes = np.linalg.eigh(turn.T @ other @ turn - own)
    variances[np.abs(variances) < 1e-6 * np.trace(own)] = 0
    lacks = [axes * np.maximum(0, sign * variances) @ axes.T for sign in (1, -1)]
    return [lacks[0], turn @ lacks[1] @ turn.T]


def as_bone(grey: BoneImage) -> BoneImage:
    """A grey image cut at the bone threshold, as bone images are."""
    return replace(grey, values=grey.values.clamp(0, HIGHEST))


def without_coarse(image: BoneImage, deviation: float) -> BoneImage:
    """The image less its mean about each voxel, by a Gaussian of a deviation in mm."""
    return replace(image, values=image.values - blurred(image, deviation**2 * np.eye(3)).values)


def blurred(image: BoneImage, covariance: np.ndarray) -> BoneImage:
    """The image blurred within its field of view by a Gaussian of a covariance ``(3, 3)`` in mm2 of its world."""
    if not covariance.any():
        return image
    to_index = np.linalg.inv(image.affine[:3, :3])
    variance = to_index @ covariance @ to_index.T
    straight = np.allclose(variance, np.diag(variance.diagonal()), rtol=0, atol=1e-9 * np.trace(variance))
    inside = torch.ones_like(image.values) if image.inside is None else image.inside
    if not straight:
        total, seen = _smoothed(torch.stack((image.values * inside, inside)), variance)
        return BoneImage(total / seen.clamp(min=1e-3), image.affine, image.inside)
    # Lines along the axes, one axis after the other, take a third of the time.
    lines = [
        _smoothed(torch.eye(size).to(inside), variance[axis : axis + 1, axis : axis + 1]).T
        for axis, size in zip((2, 1, 0), image.shape, strict=True)
    ]
    if image.inside is None:
        means = [line / line.sum(1, keepdim=True) for line in lines]
        return BoneImage(along_axes(image.values, *means), image.affine)
    total, seen = along_axes(torch.stack((image.values * inside, inside)), *lines)
    return BoneImage(total / seen.clamp(min=1e-3), image.affine, image.inside)


def _smoothed(channels: Tensor, variance: np.ndarray) -> Tensor:
    """Channels ``(c, ..., y, x)``, 0 beyond their borders, smoothed by a Gaussian.

    Args:
        channels: of d axes.
        variance: ``(d, d)`` covariance in voxels, along x, y, ...
    """
    sizes = channels.shape[1:]
    # Zeros beyond the far border, so that nothing comes round from there. Prime numbers of voxels would take long.
    reach = np.ceil(3 * np.sqrt(np.maximum(0, variance.diagonal()))).astype(int).tolist()[::-1]
    wider = [next_fast_len(size + far, real=True) for size, far in zip(sizes, reach, strict=True)]
    # The Fourier transform of a Gaussian is exact for one narrower than a voxel too, and oblique to the grid.
    waves = [torch.fft.fftfreq(n) for n in wider[:-1]] + [torch.fft.rfftfreq(wider[-1])]
    grid = [2 * np.pi * wave.to(channels).view(-1, *(1,) * axis) for axis, wave in enumerate(reversed(waves))]
    among = range(len(grid))
    exponent = sum(float(variance[a, b]) * grid[a] * grid[b] for a in among for b in among)
    axes = tuple(range(1, channels.ndim))
    spectrum = torch.fft.rfftn(channels, s=wider, dim=axes) * torch.exp(-exponent / 2)
    found = torch.fft.irfftn(spectrum, s=wider, dim=axes)
    return found[tuple(slice(size) for size in channels.shape)]
