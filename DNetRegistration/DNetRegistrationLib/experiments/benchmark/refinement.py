"""This project's refinement beside SimpleITK's, from the same starts in one run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from ...bone.images import native_scan, prepare
from ...bone.threshold import BoneScale, find_bone_scale
from ...geometry import rigid
from ...geometry.transforms import from_sitk
from ...imaging.volume import Volume
from ...registration.refinement import refine
from ...synthesis.pairs import make_pair, target_registration_error

# How far the starts are off: the reach of a coarse search.
START_ANGLE, START_SHIFT = np.radians(3.0), 0.08
# Pairs without and as many with contrast.
COMPARED = 10
METHODS = ("this project", "SimpleITK correlation", "SimpleITK mutual information")


@dataclass(frozen=True)
class RefinementOutcome:
    """Target registration error in um and seconds of one method on one pair."""

    method: str
    seed: int
    contrast: bool
    error_um: float
    seconds: float


def measure_refinement(seed: int, contrast: bool, spacing: float = 0.08, size: int = 64) -> list[RefinementOutcome]:
    """Every method on one synthetic pair, from one start 3 degrees and up to 80 um off an axis."""
    pair = make_pair(seed, contrast=contrast, spacing=spacing, size=size)
    scales = [find_bone_scale(scan) for scan in (pair.fixed, pair.moving)]
    start = _start(pair, seed)
    outcomes = []
    for method in METHODS:
        began = time.perf_counter()
        if method == METHODS[0]:
            scans = zip((pair.fixed, pair.moving), scales, strict=True)
            natives = [native_scan(scan, scale, None, torch.device("cpu")) for scan, scale in scans]
            matrix = refine(*prepare(*natives), torch.from_numpy(start), native=True).pose.numpy()
        else:
            matrix = refine_with_sitk(pair.fixed, pair.moving, start, scales, method.endswith("information"))
        seconds = time.perf_counter() - began
        error = 1000 * target_registration_error(pair, matrix)
        outcomes.append(RefinementOutcome(method, seed, contrast, error, seconds))
    return outcomes


def _start(pair, seed: int) -> np.ndarray:
    generator = np.random.default_rng([seed, 77])
    center = pair.fixed.to_world(np.argwhere(pair.fixed_bone)[:, ::-1].mean(0))
    turn = rigid.rotation_from_axis_angle(torch.from_numpy(generator.normal(size=3)), torch.tensor(START_ANGLE))
    motion = rigid.rotation_about(turn, torch.from_numpy(center)).numpy()
    motion[:3, 3] += generator.uniform(-START_SHIFT, START_SHIFT, 3)
    return pair.matrix @ motion


def refine_with_sitk(
    fixed: Volume, moving: Volume, start: np.ndarray, scales: list[BoneScale], mutual_information: bool
) -> np.ndarray:
    """SimpleITK's multi-resolution rigid registration of the bone images T (Eq. 5), near bone, from a 4x4 start.

    Two levels, linear interpolation, every voxel within two of the fixed scan's bone, gradient descent with scales from
    physical shift, until the metric's slope is below 1e-7 or 300 steps are done: settings as its documentation advises.
    """
    images = [
        Volume(scale(np.nan_to_num(np.asarray(scan.voxels, np.float32), nan=scale.threshold)), scan.affine).to_sitk()
        for scan, scale in zip((fixed, moving), scales, strict=True)
    ]
    near = sitk.BinaryDilate(sitk.Cast(images[0] > 0.05, sitk.sitkUInt8), [2, 2, 2])
    center = fixed.to_world(np.argwhere(sitk.GetArrayViewFromImage(images[0]) > 0.05)[:, ::-1].mean(0))
    transform = sitk.VersorRigid3DTransform()
    transform.SetCenter(center.tolist())
    transform.SetMatrix(start[:3, :3].ravel().tolist())
    transform.SetTranslation((start[:3, :3] @ center + start[:3, 3] - center).tolist())
    method = sitk.ImageRegistrationMethod()
    if mutual_information:
        method.SetMetricAsMattesMutualInformation(50)
    else:
        method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(near)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(0.05, 1e-5, 300, gradientMagnitudeTolerance=1e-7)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(*images)
    return from_sitk(transform)
