"""The methods that are compared (Sec. 2.5), each from a pair of scans to a transform."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ...bone.images import CanonicalCube
from ...geometry import rigid
from ...networks.weights import load_weights, weights_stamp
from ...registration.align import align
from ...registration.proposal import propose
from .pairs import Pair
from .plan import METHODS, UNMOVED

#: What the paper does not tell of SimpleITK's optimizer is ITK's default.
SMALLEST_STEP = 1e-4


def estimate(method: str, pair: Pair, weights: Path | None = None) -> np.ndarray:
    """The ``(4, 4)`` float64 transform that a method gives, fixed to moving points, LPS mm.

    SimpleITK and networks see canonical cubes on the images' centres; "search" and "full" see the scans, as in `align`.

    Args:
        method: a name of `METHODS`.
        pair: what to align.
        weights: file of the network's weights, for a method that has one.

    Raises:
        ScanError: a scan or the weights cannot be used.
        ValueError: a network gave no transform.
    """
    if METHODS[method].network is not None:
        return by_network(weights, *pair.cubes)
    if method == UNMOVED:
        return np.eye(4)
    if method == "sitk":
        return by_simpleitk(*pair.cubes)
    options = {"hypotheses": "search", "refine": "none"} if method == "search" else {}
    return align(pair.fixed, pair.moving, device="cpu", **options).matrix


def by_simpleitk(fixed: CanonicalCube, moving: CanonicalCube) -> np.ndarray:
    """SimpleITK as Sec. 2.5 sets it.

    Joint-histogram mutual information, regular-step gradient descent, gradient tolerance 0.0001, at most 10,000
    iterations, learning rate 1. What the paper does not tell is left at SimpleITK's defaults (20 bins, all voxels, no
    scales of parameters) or taken as plain as can be: a Euler transform about the cubes' centres, from identity, which
    lays the centres on each other; linear interpolation; a smallest step of 1e-4, ITK's default. Lengths are mm, as
    everywhere: where the gradient is below the tolerance from the start, as it is with most large rotations, nothing
    moves. With voxels as unit of length it would wander instead, for up to minutes.
    """
    import SimpleITK as sitk

    images = []
    for cube in (fixed, moving):
        image = sitk.GetImageFromArray(cube.image.cpu().numpy())
        image.SetSpacing([cube.spacing] * 3)
        # The centre is the origin: here as in the paper, translations are about it.
        image.SetOrigin([-cube.spacing * (cube.image.shape[0] - 1) / 2] * 3)
        images.append(image)
    registration = sitk.ImageRegistrationMethod()
    # Sums over threads depend on how many there are.
    registration.SetNumberOfWorkUnits(1)
    registration.SetMetricAsJointHistogramMutualInformation()
    registration.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=SMALLEST_STEP, numberOfIterations=10_000, gradientMagnitudeTolerance=1e-4
    )
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetInitialTransform(sitk.Euler3DTransform(), inPlace=False)
    about_centers = rigid.from_sitk(registration.Execute(*images))
    matrix = about_centers.copy()
    matrix[:3, 3] += moving.center - about_centers[:3, :3] @ fixed.center
    return rigid.require_rigid(matrix)


def by_network(weights: Path, fixed: CanonicalCube, moving: CanonicalCube) -> np.ndarray:
    """What a network says of (fixed, moving); of the equivariant one, what most of its matches agree on.

    Raises:
        ValueError: it says nothing that is finite.
    """
    proposed = propose(_network(weights, weights_stamp(weights)), fixed, moving)
    if not proposed:
        raise ValueError("the network gave no transform")
    return rigid.require_rigid(proposed[0].numpy())


@lru_cache(maxsize=64)
def _network(weights: Path, stamp: tuple) -> torch.nn.Module:
    """A network ready to be asked; anew when the file has another `stamp`."""
    return load_weights(weights).network
