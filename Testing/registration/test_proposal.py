"""Proposals of a network that sees landmarks, checked in the world."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from DNetRegistrationLib.networks.registry import build
from DNetRegistrationLib.networks.regression import RegressionNetwork
from DNetRegistrationLib.registration.proposal import propose
from scipy.spatial.transform import Rotation

SIZE = 64
LANDMARKS = np.array([[9.0, 2.0, -3.0], [-4.0, 10.0, 5.0], [-6.0, -7.0, 8.0], [3.0, -5.0, -11.0]])  # voxels, (x, y, z)


@dataclass
class Cube:
    """What `propose` reads of a canonical cube."""

    image: torch.Tensor
    center: np.ndarray
    spacing: float

    @property
    def inside(self):
        return torch.ones_like(self.image)


def cube_of(points, center, spacing):
    """A cube along the world's axes with one blob at each world point (x, y, z); blob i has brightness i + 1."""
    image = np.zeros((SIZE, SIZE, SIZE), dtype=np.float32)
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * spacing
    z, y, x = np.meshgrid(axis + center[2], axis + center[1], axis + center[0], indexing="ij")
    for i, (px, py, pz) in enumerate(points):
        squared = ((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / spacing**2
        image = np.where(squared < 9, (i + 1) * np.exp(-squared / 4), image)
    return Cube(torch.from_numpy(image.astype(np.float32)), np.asarray(center, float), spacing)


class LandmarkNetwork(RegressionNetwork):
    """Answers from the arrays alone, as a trained network would: finds the blobs and fits the motion between them."""

    def __init__(self, spoil=None):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.spoil = spoil

    def forward(self, fixed, moving):
        raise NotImplementedError

    def both_directions(self, fixed, moving):
        assert fixed.shape == moving.shape == (1, 1, SIZE, SIZE, SIZE) and fixed.dtype == torch.float32
        first, second = self.find(fixed[0, 0].numpy()), self.find(moving[0, 0].numpy())
        there, back = self.fit(first, second), self.fit(second, first)
        nothing = torch.full_like(back, math.nan)
        return nothing if self.spoil == "both" else there, nothing if self.spoil else back

    @staticmethod
    def find(array):
        array, found = array.astype(float).copy(), []
        index = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), -1)  # [z, y, x]
        for _ in LANDMARKS:
            peak = np.array(np.unravel_index(array.argmax(), array.shape))
            near = ((index - peak) ** 2).sum(-1) <= 25
            found.append((index[near] * array[near][:, None]).sum(0) / array[near].sum())
            array[near] = 0
        return (np.array(found)[:, ::-1] - (SIZE - 1) / 2) * 0.08  # (x, y, z) from the middle, in mm

    @staticmethod
    def fit(source, target):
        rotation, _ = Rotation.align_vectors(target - target.mean(0), source - source.mean(0))
        matrix = rotation.as_matrix()
        translation = target.mean(0) - matrix @ source.mean(0)
        parameters = np.concatenate((translation, matrix.T.ravel()))  # columns of R one after the other
        # Eq. 1 takes any length, and ignores the last three.
        parameters[3:6] *= 2.5
        parameters[6:9] *= 0.3
        parameters[9:] = 77
        return torch.tensor(parameters, dtype=torch.float32)[None]


@pytest.mark.parametrize(("seed", "spacing", "turns"), [(0, 0.08, 1), (1, 0.31, 1), (2, 0.08, 6), (3, 0.31, 2)])
def test_every_pose_is_the_true_motion_in_the_world(seed, spacing, turns):
    rng = np.random.default_rng(seed)
    truth = np.eye(4)
    truth[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    truth[:3, 3] = rng.uniform(-300, 300, 3)  # scans far from each other and from the origin
    fixed_center = rng.uniform(-200, 200, 3)
    points = fixed_center + LANDMARKS * spacing
    moved = points @ truth[:3, :3].T + truth[:3, 3]
    # The cubes do not sit on corresponding points: the network has a translation to tell.
    moving_center = truth[:3, :3] @ fixed_center + truth[:3, 3] + rng.uniform(-6, 6, 3) * spacing
    fixed, moving = cube_of(points, fixed_center, spacing), cube_of(moved, moving_center, spacing)
    proposal = propose(LandmarkNetwork(), fixed, moving, turns)
    # The median of several turns, and both directions of the pair as it is.
    assert proposal.poses.shape == (2 + (turns > 1), 4, 4) and proposal.poses.dtype == torch.float64
    assert math.isnan(proposal.spread) if turns == 1 else proposal.spread < 0.1 * spacing
    for matrix in proposal.poses.numpy():
        np.testing.assert_allclose(matrix[:3, :3].T @ matrix[:3, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
        error = np.linalg.norm(points @ matrix[:3, :3].T + matrix[:3, 3] - moved, axis=1)
        assert error.max() < 0.1 * spacing


def test_hand_worked_answer():
    class Fixed(LandmarkNetwork):
        def both_directions(self, fixed, moving):
            quarter = [0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0]  # 90 degrees about z: x to y, y to -x
            # The other way, on purpose not its inverse: about x by 180 degrees, no translation.
            half = [1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0]
            return torch.tensor([[0.08, 0.16, 0.0, *quarter]]), torch.tensor([[0.0, 0.0, 0.08, *half]])

    image = torch.zeros(SIZE, SIZE, SIZE)
    cubes = Cube(image, np.array([1.0, 2, 3]), 0.1), Cube(image, np.array([10.0, 20, 30]), 0.1)
    first, second = propose(Fixed(), *cubes, turns=1).poses
    # One voxel in x and two in y, of 0.1 mm. The point one mm in x from the fixed centre goes one mm in y.
    np.testing.assert_allclose(first @ torch.tensor([2.0, 2, 3, 1]).double(), [10.1, 21.2, 30, 1], atol=1e-6)
    # Backwards, (10, 21, 30) goes to (1, 1, 3.1): so (1, 1, 3.1) comes from it.
    np.testing.assert_allclose(second @ torch.tensor([1.0, 1, 3.1, 1]).double(), [10, 21, 30, 1], atol=1e-6)


@pytest.mark.parametrize("turns", [1, 2])
def test_unusable_output_gives_no_pose(turns):
    cube = cube_of(LANDMARKS * 0.08, np.zeros(3), 0.08)
    poses = propose(LandmarkNetwork(spoil="back"), cube, cube, turns).poses
    assert len(poses) == turns
    np.testing.assert_allclose(poses, np.eye(4)[None].repeat(turns, 0), atol=1e-5)
    nothing = propose(LandmarkNetwork(spoil="both"), cube, cube, turns)
    assert nothing.poses.shape == (0, 4, 4) and math.isnan(nothing.spread)


def test_spacings_must_agree():
    image = torch.zeros(SIZE, SIZE, SIZE)
    with pytest.raises(ValueError, match=r"0\.08 and 0\.1 mm"):
        propose(LandmarkNetwork(), Cube(image, np.zeros(3), 0.08), Cube(image, np.zeros(3), 0.1))


@pytest.mark.filterwarnings("error")
def test_a_real_network_proposes_the_same_poses_each_time():
    torch.manual_seed(0)
    network = build("dnet").eval()
    # A Siamese network takes smaller cubes too, which cost less.
    fixed, moving = (Cube(torch.rand(16, 16, 16), np.full(3, place), 0.08) for place in (0.0, 1.0))
    first, again, alone = (propose(network, fixed, moving, turns) for turns in (2, 2, 1))
    assert first.poses.shape == (3, 4, 4) and torch.equal(first.poses, again.poses) and first.spread == again.spread
    torch.testing.assert_close(first.poses[1:], alone.poses)
    assert not first.poses.requires_grad


def test_a_network_is_asked_as_often_as_suits_it():
    class Counting(LandmarkNetwork):
        asked = 0

        def both_directions(self, fixed, moving):
            self.asked += 1
            return super().both_directions(fixed, moving)

    cube = cube_of(LANDMARKS * 0.08, np.zeros(3), 0.08)
    network = Counting()
    network.turns = 3
    propose(network, cube, cube)
    assert network.asked == 3
    assert build("dnet").turns == 8 and build("equivariant").turns == 1
