"""How differently slender bones bow, twist and taper, against what solids of known shape do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.blur import as_bone
from DNetRegistrationLib.registration.bowing import Bowing, find_bowing, slender_frame
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from poses import pose_at

# Unequal grids off the origin: oblique, sheared, of voxels that are no cubes, one of them mirrored.
GRIDS = (
    np.array([[0.05, 0.004, 0, 20], [0, 0.055, -0.005, -7], [0, 0, 0.06, 3], [0, 0, 0, 1.0]]),
    np.array([[-0.055, 0, 0.006, 4], [0.005, 0.05, 0, 50], [0, -0.004, 0.05, -9], [0, 0, 0, 1.0]]),
)
NOISE = 0.02


def rod(points: np.ndarray, bow: float = 0.0, twist: float = 0.0, taper: float = 0.0) -> np.ndarray:
    """How far within the wall of a hollow elliptic rod points (mm) lie. Marrow tells taper from a threshold."""
    x, y, z = np.moveaxis(points, -1, 0)
    x = x - (0.15 + bow) * z**2
    turn = twist * z
    x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    radius = np.hypot(x, y / 0.6) / (1 + taper * z)
    return np.minimum.reduce((0.3 - radius, radius - 0.14, 1.2 - np.abs(z)))


def image(affine: np.ndarray, pose: np.ndarray, seed: int, agent: float = 0.0, **shape: float) -> BoneImage:
    """A scan of the rod at a pose, blurred by about a voxel, with noise: dense bone is 1, its surroundings are -0.8."""
    size = (64, 58, 54)
    index = np.moveaxis(np.indices(size)[::-1], 0, -1) - np.array(size[::-1]) / 2 + 0.5
    middle = affine[:3, :3] @ (np.array(size[::-1]) / 2 - 0.5) + affine[:3, 3]
    points = index @ affine[:3, :3].T + middle
    inverse = np.linalg.inv(pose)
    depth = rod(points @ inverse[:3, :3].T + inverse[:3, 3], **shape)
    values = 1.8 / (1 + np.exp(-depth / 0.025)) - 0.8
    if agent:
        values = values + agent * np.exp(-(((depth + 0.06) / 0.08) ** 2)) * (depth < 0)
    values = values + np.random.default_rng(seed).normal(0, NOISE, size)
    return BoneImage(torch.from_numpy(values.astype(np.float32)), affine)


def scans(agent: float = 0.0, **shape: float):
    """Two scans, the second one of another shape, and the pose between them."""
    poses = []
    for seed, affine in enumerate(GRIDS):
        middle = affine[:3, :3] @ (np.array((54, 58, 64)) / 2 - 0.5) + affine[:3, 3]
        poses.append(pose_at(seed, middle, (0, 0, 0)))
    greys = image(GRIDS[0], poses[0], 1), image(GRIDS[1], poses[1], 2, agent, **shape)
    return greys, torch.from_numpy(poses[1] @ np.linalg.inv(poses[0]))


def expected(**shape: float) -> float:
    """The root mean square in mm by which a change of shape moves the rod's outer surface, but for an affine part.

    Most edges lie there.
    """
    generator = np.random.default_rng(3)
    z, angle = generator.uniform(-1.2, 1.2, 40_000), generator.uniform(0, 2 * np.pi, 40_000)
    x, y = 0.3 * np.cos(angle), 0.18 * np.sin(angle)
    bow, twist, taper = (shape.get(name, 0.0) for name in ("bow", "twist", "taper"))
    moved = np.column_stack((bow * z**2 - twist * z * y + taper * z * x, twist * z * x + taper * z * y, 0 * z))
    columns = np.column_stack((np.ones_like(z), x + 0.15 * z**2, y, z))
    left = moved - columns @ np.linalg.lstsq(columns, moved, rcond=None)[0]
    return float(np.sqrt((left**2).sum(1).mean()))


def found(greys, pose) -> Bowing | None:
    return find_bowing(greys, slender_frame(as_bone(greys[0])), pose)


def test_one_bone_is_of_one_shape():
    bowing = found(*scans())
    assert bowing.apart < 0.01 and bowing.square < 0.015**2


@pytest.mark.parametrize(
    "shape",
    [
        {"bow": -0.02, "taper": 0.05},
        pytest.param({"bow": 0.02}, marks=pytest.mark.slow),
        pytest.param({"twist": 0.12}, marks=pytest.mark.slow),
        pytest.param({"taper": 0.08}, marks=pytest.mark.slow),
    ],
)
def test_a_change_of_shape_is_measured(shape):
    greys, pose = scans(**shape)
    voxel = max(float(grey.spacing.max()) for grey in greys)
    bowing = found(greys, pose)
    assert bowing.square**0.5 * voxel == pytest.approx(expected(**shape), rel=0.25)
    assert bowing.apart > 0.8 * bowing.square**0.5
    back = find_bowing(greys[::-1], slender_frame(as_bone(greys[1])), torch.linalg.inv(pose))
    assert back.square == pytest.approx(bowing.square, rel=0.2)


def test_a_strain_is_no_change_of_shape():
    """A wrong slice distance belongs to the grid."""
    greys, pose = scans()
    strained = GRIDS[1].copy()
    strained[:, 2] *= 1.02
    strained[:3, 3] -= 0.02 * GRIDS[1][:3, 2] * 31.5
    bowing = found((greys[0], BoneImage(greys[1].values, strained)), pose)
    assert bowing.apart < 0.02


def test_nothing_is_told_where_agent_lies_on_the_bone_or_the_bone_is_not_slender():
    for agent in (0.3, 0.6):
        assert found(*scans(agent=agent)) is None
        assert found(*scans(agent=agent, bow=0.02)) is None
    index = np.moveaxis(np.indices((40, 40, 40)), 0, -1) - 19.5
    ball = BoneImage(torch.from_numpy((12 - np.linalg.norm(index, axis=-1)).clip(0, 1).astype(np.float32)), np.eye(4))
    assert slender_frame(ball) is None
    greys, pose = scans()
    frame = slender_frame(as_bone(greys[0]))
    thin = [BoneImage(grey.values, grey.affine @ np.diag((2, 2, 2, 1.0))) for grey in greys]
    assert find_bowing(thin, frame, pose) is None
    empty = BoneImage(torch.zeros(8, 8, 8), np.eye(4))
    assert slender_frame(empty) is None


def test_slender_bones_of_two_animals_are_refused_and_the_reason_is_named():
    """Of measures that differ by 5 %: accepted, to within 10 um."""
    pair = make_adversarial(960_020, "slender relative")
    result = align(pair.fixed, pair.moving)
    assert not result.accepted and "shape" in result.doubts and "two animals" in result.verdict


@pytest.mark.slow
def test_a_holder_beside_a_slender_bone_is_no_other_shape():
    """A platform that stands still beside the bone, of another place in either scan, was taken for another bone."""
    pair = make_adversarial(882_157, "holder")
    result = align(pair.fixed, pair.moving)
    assert result.accepted and pair.error_mm(result.matrix) < 0.005
