"""The methods that are compared (Sec. 2.5). Each takes a pair of scans and gives a transform."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ...bone.cube import CanonicalCube
from ...bone.prepare import PreparedScan
from ...core.errors import RunError
from ...geometry.transforms import from_sitk, require_rigid
from ...networks.weights import LoadedWeights, load_weights, weights_stamp
from ...registration.align import align
from ...registration.proposal import proposal_of
from .pairs import PreparedPair
from .plan import METHODS, UNMOVED

#: The paper does not tell the smallest step of SimpleITK's optimizer. This is ITK's default.
SMALLEST_STEP = 1e-4


def estimate(method: str, pair: PreparedPair, weights: Path | None = None) -> np.ndarray:
    """The ``(4, 4)`` float64 transform that a method gives, fixed to moving points, LPS mm.

    SimpleITK sees canonical cubes on the images' centres; a network sees them where those lay that it learned on, which
    is on the images' centres too where it was trained here. "search" and "full" see the scans, as `align` does.

    Args:
        method: a name of `METHODS`.
        pair: what to align.
        weights: file of the network's weights, for a method that has a network.

    Raises:
        ScanError: a scan cannot be used.
        FileError: the weights cannot be read.
        RunError: the network gave no finite transform.
    """
    if METHODS[method].network is not None:
        return by_network(weights, *pair.scans, METHODS[method].turns)
    if method == UNMOVED:
        return np.eye(4)
    if method == "sitk":
        return by_simpleitk(*pair.cubes)
    options = {"hypotheses": "search", "refine": "none"} if method == "search" else {}
    masks = {"fixed_mask": pair.masks[0], "moving_mask": pair.masks[1]}
    return align(pair.fixed, pair.moving, threshold=pair.thresholds, device="cpu", **masks, **options).matrix


def by_simpleitk(fixed: CanonicalCube, moving: CanonicalCube) -> np.ndarray:
    """Aligns two cubes by SimpleITK as Sec. 2.5 sets it; returns ``(4, 4)``, fixed to moving points, LPS mm.

    The paper gives the metric (joint-histogram mutual information), the optimizer (regular-step gradient descent),
    its gradient tolerance 0.0001, its 10,000 iterations at most and its learning rate 1. The rest has SimpleITK's
    defaults (20 bins, all voxels, no parameter scales) or the plainest value: a Euler transform about the cubes'
    centres, starting from identity; linear interpolation; a smallest step of 1e-4, ITK's default.

    Lengths are in mm. So with most large rotations the gradient is below the tolerance from the start and nothing
    moves. With lengths in voxels the optimizer would wander instead, for up to minutes.
    """
    import SimpleITK as sitk

    images = []
    for cube in (fixed, moving):
        image = sitk.GetImageFromArray(cube.image.cpu().numpy())
        image.SetSpacing([cube.spacing] * 3)
        # With the origin at the cube's centre, translations are those of the paper.
        image.SetOrigin([-cube.spacing * (cube.image.shape[0] - 1) / 2] * 3)
        images.append(image)
    registration = sitk.ImageRegistrationMethod()
    # With several threads the sum, and so the result, would depend on their number.
    registration.SetNumberOfWorkUnits(1)
    registration.SetMetricAsJointHistogramMutualInformation()
    registration.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=SMALLEST_STEP, numberOfIterations=10_000, gradientMagnitudeTolerance=1e-4
    )
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetInitialTransform(sitk.Euler3DTransform(), inPlace=False)
    about_centers = from_sitk(registration.Execute(*images))
    matrix = about_centers.copy()
    matrix[:3, 3] += moving.center - about_centers[:3, :3] @ fixed.center
    return require_rigid(matrix)


def by_network(weights: Path, fixed: PreparedScan, moving: PreparedScan, turns: int = 1) -> np.ndarray:
    """The transform that a network gives for (fixed, moving); the one with most consensus where it gives several.

    With several turns it is the median of the answers to both directions of as many turned pairs.

    Raises:
        RunError: it gives no finite transform.
    """
    poses = proposal_of(_loaded(weights, weights_stamp(weights)), fixed, moving, turns).poses
    if not len(poses):
        raise RunError("the network gave no transform")
    return require_rigid(poses[0].numpy())


@lru_cache(maxsize=64)
def _loaded(weights: Path, stamp: tuple) -> LoadedWeights:
    """A network from its file, read anew where the file's `stamp` is another."""
    return load_weights(weights)
