"""The pairs of scans of the tests: a scan and its moved copy, or the two scans of a bone; prepared for methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch

from ...bone.cortex import CorticalBone, cortical_bone
from ...bone.cube import CanonicalCube
from ...bone.images import native_scan
from ...bone.prepare import PreparedScan, prepare
from ...bone.threshold import BoneScale, find_bone_scale
from ...geometry import rigid
from ...geometry.transform_files import read_transform
from ...imaging.resample import resample
from ...imaging.volume import Volume, read_volume
from .plan import AXIS, FIXED_ANGLE, FIXED_TRANSLATION, PlannedPair, ScannedBone


def true_motion(test: str, position: float, center: np.ndarray) -> np.ndarray:
    """The ``(4, 4)`` transform of a synthetic test (Sec. 2.4), fixed to moving points, LPS mm.

    It rotates about the image's centre c, then translates: x_m - c = R (x_f - c) + t.

    Args:
        test: "rotation" or "translation".
        position: the angle in radians, or the shift along `AXIS` in mm.
        center: ``(3,)`` world position of the image's centre in mm.
    """
    axis = torch.tensor(AXIS, dtype=torch.float64)
    angle, shift = (position, FIXED_TRANSLATION) if test == "rotation" else (FIXED_ANGLE, position * np.array(AXIS))
    turn = rigid.rotation_from_axis_angle(axis, torch.tensor(angle, dtype=torch.float64))
    matrix = rigid.rotation_about(turn, torch.from_numpy(np.asarray(center, float))).numpy()
    matrix[:3, 3] += shift
    return matrix


def moved(volume: Volume, matrix: np.ndarray) -> Volume:
    """The scan of the same object after a motion, on the same grid: float32, NaN outside the field of view.

    Args:
        volume: the scan before the motion.
        matrix: the ``(4, 4)`` motion, LPS mm.
    """
    return resample(volume, volume, np.linalg.inv(matrix))


@dataclass(frozen=True, eq=False)
class PreparedPair:
    """Two scans of one bone, prepared for methods and criteria.

    Attributes:
        fixed, moving: the scans.
        scales: the bone threshold of each.
        truth: ``(4, 4)``, fixed to moving points, LPS mm; None where it is not known.
    """

    fixed: Volume
    moving: Volume
    scales: tuple[BoneScale, BoneScale]
    truth: np.ndarray | None

    @cached_property
    def scans(self) -> tuple[PreparedScan, PreparedScan]:
        """What networks see of the two, at one working spacing."""
        cpu = torch.device("cpu")
        volumes = (self.fixed, self.moving)
        return prepare(*[native_scan(v, s, None, cpu) for v, s in zip(volumes, self.scales, strict=True)])

    @property
    def cubes(self) -> tuple[CanonicalCube, CanonicalCube]:
        """The canonical cubes, on the centres of the images as in the paper."""
        fixed, moving = (scan.cube_on("center") for scan in self.scans)
        return fixed, moving

    @property
    def spacing(self) -> float:
        """The working spacing in mm."""
        return self.scans[0].cube.spacing

    @cached_property
    def bones(self) -> tuple[CorticalBone, CorticalBone]:
        """The cortices, each segmented in its own scan."""
        fixed, moving = (
            cortical_bone(v, s.threshold, self.spacing)
            for v, s in zip((self.fixed, self.moving), self.scales, strict=True)
        )
        return fixed, moving


def load_pair(planned: PlannedPair, bone: ScannedBone, spacing: Sequence[float] | None = None) -> PreparedPair:
    """Reads the scans of a planned pair, and moves one where the test says so.

    Args:
        planned: which pair.
        bone: its scans.
        spacing: the true voxel size of the scans, in mm, where files lack it.

    Raises:
        ScanError: a scan cannot be read, or shows no bone.
        FileError: the transform cannot be read.
    """
    if planned.test == "real":
        fixed, moving = (_read(path, spacing) for path in (bone.pre, bone.post))
        truth = None if bone.transform is None else read_transform(bone.transform)
        return PreparedPair(fixed[0], moving[0], (fixed[1], moving[1]), truth)
    volume, scale = _read(bone.scan(planned.scan), spacing)
    truth = true_motion(planned.test, planned.position, volume.center)
    return PreparedPair(volume, moved(volume, truth), (scale, scale), truth)


@lru_cache(maxsize=2)
def _read(path: Path, spacing) -> tuple[Volume, BoneScale]:
    """A scan and its bone threshold. The last two are kept, since the pairs of one scan follow one another."""
    volume = read_volume(path, spacing)
    return volume, find_bone_scale(volume)
