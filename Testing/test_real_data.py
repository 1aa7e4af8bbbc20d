"""Real scans, each side of a pair made with its own rotation, offset, coarser grid and noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from DNetRegistrationLib import rigid
from DNetRegistrationLib.alignment import align
from DNetRegistrationLib.volume import Volume

ANKLE = "visible-human-ankles/VHF_ankles_1mm.nii.gz"


@dataclass(frozen=True)
class Turned:
    """A real object seen again: the image, and the ``(4, 4)`` pose that took the object there."""

    image: sitk.Image
    pose: np.ndarray


def see_again(object_image: sitk.Image, spacing: float, size: int, noise: float, empty: float, seed: int) -> Turned:
    """The object turned any way about its middle and put up to four voxels off that of a new, coarser, noisier grid."""
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
    seen = sitk.Resample(smooth, grid, rigid.to_sitk(np.linalg.inv(pose)), sitk.sitkBSpline, empty)
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


def check(first: Turned, second: Turned) -> None:
    alignment = align(first.image, second.image, hypotheses="search")
    assert error_in_working_voxels(first, second, alignment) < 0.5
    assert alignment.accepted
    assert alignment.dice > 0.8


def distal_tibia_and_talus(ankles: Path) -> sitk.Image:
    """A box around those of one side."""
    return sitk.ReadImage(str(ankles))[102:162, 135:205, 85:150]


def twice(ankle: sitk.Image, first: int, second: int) -> tuple[Turned, Turned]:
    """Two such views of an ankle, of these seeds, on unequal grids."""
    return (
        see_again(ankle, 1.3, 80, noise=15, empty=-1000, seed=first),
        see_again(ankle, 1.45, 72, noise=15, empty=-1000, seed=second),
    )


@pytest.fixture
def ankle(ankles):
    return distal_tibia_and_talus(ankles)


@pytest.mark.parametrize("seed", range(3))
def test_distal_tibia_and_talus_in_their_box(ankle, seed):
    check(*twice(ankle, 100 + seed, 200 + seed))


@pytest.mark.parametrize("seed", range(3))
def test_trabecular_cube_without_an_outline(trabecular_cube, seed):
    cube = sitk.ReadImage(str(trabecular_cube))
    # The grids lie within the cube at every turn, so that no outline of it helps.
    check(
        see_again(cube, 0.035, 56, noise=8, empty=60, seed=300 + seed),
        see_again(cube, 0.040, 50, noise=8, empty=60, seed=400 + seed),
    )


def test_the_other_ankle_is_refused(ankle, ankles):
    """The other foot's: another bone, and nearly a mirror image."""
    other = sitk.ReadImage(str(ankles))[15:75, 145:215, 85:150]
    first = see_again(ankle, 1.3, 80, noise=15, empty=-1000, seed=1)
    second = see_again(other, 1.3, 80, noise=15, empty=-1000, seed=2)
    assert not align(first.image, second.image, hypotheses="search").accepted


@pytest.mark.parametrize("seed", range(6))
def test_the_network_alone_on_a_real_ankle(ankle, seed):
    """Unlike anything it has learned on; neither refined nor searched."""
    first, second = twice(ankle, 500 + seed, 600 + seed)
    alignment = align(first.image, second.image, hypotheses="dnet", refine="none")
    assert rotation_error(first, second, alignment) < 5
    assert error_in_working_voxels(first, second, alignment) < 1
