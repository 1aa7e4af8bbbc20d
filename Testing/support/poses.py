"""Poses of animals in the world."""

import numpy as np
from DNetRegistrationLib.synthesis.pairs import random_rotation
from DNetRegistrationLib.synthesis.tibia import CENTER


def rotation(seed):
    """A random ``(3, 3)`` rotation."""
    return random_rotation(np.random.default_rng(seed))


def pose_at(seed, point, animal_point=CENTER):
    """A pose that turns at random and puts a point of the animal at a point of the world."""
    pose = np.eye(4)
    pose[:3, :3] = rotation(seed)
    pose[:3, 3] = np.asarray(point) - pose[:3, :3] @ np.asarray(animal_point)
    return pose
