"""Pairs made of real scans, each side with its own rotation, offset, coarser grid and noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from DNetRegistrationLib import Volume
from DNetRegistrationLib.geometry import rigid
from DNetRegistrationLib.geometry.transforms import to_sitk

ANKLE = "visible-human-ankles/VHF_ankles_1mm.nii.gz"


@dataclass(frozen=True)
class Turned:
    """A real object seen again: the image, and the ``(4, 4)`` pose that took the object there."""

    image: sitk.Image
    pose: np.ndarray


def see_again(object_image: sitk.Image, spacing: float, size: int, noise: float, empty: float, seed: int) -> Turned:
    """The object in any orientation, its middle up to four voxels off that of a new, coarser, noisier grid."""
    generator = np.random.default_rng(seed)
    middle = np.array(
        object_image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in object_image.GetSize()])
    )
    turn = rigid.random_rotations(1, torch.Generator().manual_seed(seed))[0]
    pose = rigid.rotation_about(turn, torch.from_numpy(middle)).numpy()
    corner = middle + generator.uniform(-4, 4, 3) * spacing - (size - 1) / 2 * spacing
    grid = sitk.Image([size] * 3, sitk.sitkFloat32)
    grid.SetSpacing([spacing] * 3)
    grid.SetOrigin(corner.tolist())
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(object_image, sitk.sitkFloat32), 0.4 * spacing)
    seen = sitk.Resample(smooth, grid, to_sitk(np.linalg.inv(pose)), sitk.sitkBSpline, empty)
    noisy = sitk.GetArrayFromImage(seen) + generator.normal(0, noise, (size,) * 3)
    image = sitk.GetImageFromArray(np.rint(noisy).astype(np.int16))
    image.CopyInformation(seen)
    return Turned(image, pose)


def error_in_working_voxels(fixed: Turned, moving: Turned, alignment) -> float:
    """Mean target registration error over the fixed scan's bone voxels."""
    truth = moving.pose @ np.linalg.inv(fixed.pose)
    volume = Volume.from_sitk(fixed.image)
    points = volume.to_world(np.argwhere(volume.voxels > alignment.fixed_threshold)[:, ::-1])
    wrong = truth - alignment.matrix
    return np.linalg.norm(points @ wrong[:3, :3].T + wrong[:3, 3], axis=1).mean() / alignment.working_spacing


def rotation_error(fixed: Turned, moving: Turned, alignment) -> float:
    """In degrees."""
    truth = moving.pose @ np.linalg.inv(fixed.pose)
    true, found = (torch.from_numpy(matrix[:3, :3]) for matrix in (truth, alignment.matrix))
    return float(torch.rad2deg(rigid.geodesic_angle(true, found)))


def distal_tibia_and_talus(ankles: Path) -> sitk.Image:
    """A box around those of one side."""
    return sitk.ReadImage(str(ankles))[102:162, 135:205, 85:150]


def ankle_views(ankles: Path, first: int, second: int) -> tuple[Turned, Turned]:
    """Two views of one ankle, of these seeds, on unequal grids."""
    ankle = distal_tibia_and_talus(ankles)
    return (
        see_again(ankle, 1.3, 80, noise=15, empty=-1000, seed=first),
        see_again(ankle, 1.45, 72, noise=15, empty=-1000, seed=second),
    )


def both_ankles(ankles: Path, first: int, second: int) -> tuple[Turned, Turned]:
    """A view of each foot's: another bone, and nearly a mirror image."""
    other = sitk.ReadImage(str(ankles))[15:75, 145:215, 85:150]
    return (
        see_again(distal_tibia_and_talus(ankles), 1.3, 80, noise=15, empty=-1000, seed=first),
        see_again(other, 1.3, 80, noise=15, empty=-1000, seed=second),
    )


def trabecular_views(cube: Path, first: int, second: int) -> tuple[Turned, Turned]:
    """Two views within a cube of trabecular bone at every turn, so that no outline of it helps."""
    image = sitk.ReadImage(str(cube))
    return (
        see_again(image, 0.035, 56, noise=8, empty=60, seed=first),
        see_again(image, 0.040, 50, noise=8, empty=60, seed=second),
    )
