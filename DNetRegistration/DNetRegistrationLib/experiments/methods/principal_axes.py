"""The classical recipe for mouse bones: principal axes, four flips, a search about the long axis, correlation.

Source: the registration pipeline of PLoS Biology 13(8):e1002212 (2015), Fig. 4, steps 2 to 8, for two scans of one
bone. The source also zeroes the trabeculae, which differ between its animals. Here both scans show the same ones, and
they are kept. The source mirrors left bones onto right ones. That is left out: a bone is not its own mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ...bone.threshold import find_bone_scale
from ...geometry.transforms import affine_matrix
from ...imaging.morphology import dilate_ball, large_components
from ...imaging.volume import Volume
from .answer import Answer
from .simpleitk import matrix_of, rigid_transform

# Bins of the cylindrical shape descriptor: along the long axis and around it.
ALONG, AROUND = 48, 72
# Below this correlation the source leaves the pair to a person.
LEAST_CORRELATION = 0.7
# Each path begins on about this many voxels along the longest axis.
COARSE = 32
# Correlation is measured in the fixed bone and this far around it, in mm. Elsewhere it has no slope to descend.
MARGIN = 0.3
# This many voxels of bone suffice for principal axes and descriptor.
MOST_POINTS = 200_000


@dataclass(frozen=True)
class BoneWithAxes:
    """The bone of one scan.

    Attributes:
        image: float32, 0 to 1 in bone, 0 elsewhere.
        around: uint8, 1 in bone and within `MARGIN` of it.
        center: ``(3,)`` its centroid, in mm.
        axes: ``(3, 3)`` its principal axes as columns, the longest first, right-handed.
        points: ``(n, 3)`` voxels of bone in these axes, in mm from the centre.
    """

    image: sitk.Image
    around: sitk.Image
    center: np.ndarray
    axes: np.ndarray
    points: np.ndarray


def align(fixed: Volume, moving: Volume, threads: int) -> Answer:
    """Aligns, and accepts a pair that correlates by at least 0.7."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    bones = find_bone(fixed), find_bone(moving)
    coarse = max(1, int(fixed.size.max()) // COARSE)
    paths = [descend(*bones, start, [coarse], 50) for start in starts(*bones)]
    best = max(paths, key=lambda transform: correlation(*bones, transform, coarse))
    # Down to every voxel, halving what is skipped.
    levels = [1 << power for power in range(coarse.bit_length() - 1, -1, -1)]
    found = descend(*bones, matrix_of(best), levels, 300)
    return Answer(matrix_of(found), bool(correlation(*bones, found) >= LEAST_CORRELATION))


def find_bone(scan: Volume) -> BoneWithAxes:
    """The largest component above the bone threshold, everything else zeroed, and its principal axes."""
    scale = find_bone_scale(scan)
    voxels = np.nan_to_num(np.asarray(scan.voxels, np.float32), nan=scale.threshold)
    inside = large_components(voxels > scale.threshold, 1.0)
    flat = np.flatnonzero(inside)
    flat = flat[:: max(1, flat.size // MOST_POINTS)]
    world = scan.to_world(np.stack(np.unravel_index(flat, inside.shape)[::-1], -1))
    center = world.mean(0)
    _, axes = np.linalg.eigh(np.cov((world - center).T))
    axes = axes[:, ::-1]
    axes = axes * (1, 1, np.linalg.det(axes))
    image = Volume(np.where(inside, scale(voxels).clip(None, 1), 0).astype(np.float32), scan.affine).to_sitk()
    around = Volume(dilate_ball(inside, scan.spacing[::-1], MARGIN).astype(np.uint8), scan.affine).to_sitk()
    return BoneWithAxes(image, around, center, axes, (world - center) @ axes)


def descriptor(points: np.ndarray, reach: float) -> np.ndarray:
    """The cylindrical shape descriptor ``(ALONG, AROUND)``: how far bone reaches from the long axis, on average.

    Args:
        points: ``(n, 3)`` in principal axes, in mm.
        reach: half of the length along the long axis that the bins divide.
    """
    radius = np.hypot(points[:, 1], points[:, 2])
    angle = np.arctan2(points[:, 2], points[:, 1])
    along = np.clip(((points[:, 0] / reach + 1) / 2 * ALONG).astype(int), 0, ALONG - 1)
    around = ((angle + np.pi) / (2 * np.pi) * AROUND).astype(int) % AROUND
    cells = along * AROUND + around
    count = np.bincount(cells, minlength=ALONG * AROUND)
    total = np.bincount(cells, weights=radius, minlength=ALONG * AROUND)
    mean = (total / np.maximum(count, 1)).reshape(ALONG, AROUND)
    return ndimage.gaussian_filter(mean, 1, mode=("constant", "wrap"))


def affinity(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Correlation ``(AROUND,)`` of two descriptors for each rotation of the first about the long axis."""
    fixed, moving = ((d - d.mean()) / d.std() for d in (fixed, moving))
    spectrum = np.conj(np.fft.rfft(fixed, axis=1)) * np.fft.rfft(moving, axis=1)
    return np.fft.irfft(spectrum.sum(0), AROUND) / fixed.size


def starts(fixed: BoneWithAxes, moving: BoneWithAxes) -> list[np.ndarray]:
    """``(4, 4)`` transforms to start from: every local optimum of the affinity, for each way the long axis may point.

    Principal axes have no sign, which leaves four rotations. Two of them turn the bone end for end. The other
    two follow by a half turn about the long axis, which is among the rotations that are searched.
    """
    reach = max(np.abs(bone.points[:, 0]).max() for bone in (fixed, moving))
    target, found = descriptor(moving.points, reach), []
    for flip in (np.diag((1.0, 1.0, 1.0)), np.diag((-1.0, 1.0, -1.0))):
        values = affinity(descriptor(fixed.points @ flip, reach), target)
        optima = np.flatnonzero((values > np.roll(values, 1)) & (values >= np.roll(values, -1)))
        for turn in 2 * np.pi / AROUND * optima:
            about = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
            rotation = moving.axes @ about @ flip @ fixed.axes.T
            found.append(affine_matrix(rotation, moving.center - rotation @ fixed.center))
    return found


def descend(
    fixed: BoneWithAxes, moving: BoneWithAxes, start: np.ndarray, shrink: list[int], steps: int
) -> sitk.VersorRigid3DTransform:
    """Rigid registration by correlation and gradient descent, on images shrunk by these factors one after the other.

    Args:
        fixed, moving: the bones.
        start: a ``(4, 4)`` matrix.
        shrink: factors, coarsest first.
        steps: at most, on each level.
    """
    transform = rigid_transform(start, fixed.center)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(fixed.around)
    method.SetInterpolator(sitk.sitkLinear)
    # The first step is a voxel of the coarsest level, the last a thousandth of a voxel of the finest.
    voxel = max(fixed.image.GetSpacing())
    method.SetOptimizerAsRegularStepGradientDescent(
        shrink[0] * voxel, 1e-3 * shrink[-1] * voxel, steps, gradientMagnitudeTolerance=1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([0.5 * factor if factor > 1 else 0.0 for factor in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed.image, moving.image)
    return transform


def correlation(fixed: BoneWithAxes, moving: BoneWithAxes, transform, shrink: int = 1) -> float:
    """Normalized cross-correlation of the fixed image and the moving one resampled onto it, on every n-th voxel."""
    still = sitk.Shrink(fixed.image, [min(shrink, n) for n in fixed.image.GetSize()])
    carried = sitk.Resample(moving.image, still, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    first, second = (sitk.GetArrayViewFromImage(image).ravel() for image in (still, carried))
    first, second = (values - values.mean(dtype=np.float64) for values in (first, second))
    size = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / size) if size > 0 else 0.0
