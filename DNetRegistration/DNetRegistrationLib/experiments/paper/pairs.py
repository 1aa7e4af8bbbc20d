"""The pairs of scans of the tests: a scan and its moved copy, or the two scans of a bone; prepared for methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

from ...bone.cortex import CorticalBone, cortical_bone
from ...bone.cube import CanonicalCube
from ...bone.images import native_scan
from ...bone.prepare import PreparedScan, prepare
from ...bone.scan_file import ScanFile
from ...bone.threshold import BoneScale, find_bone_scale
from ...geometry import rigid
from ...geometry.transform_files import read_truth
from ...imaging.resample import resample, resample_mask
from ...imaging.volume import Volume
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
        masks: ``(z, y, x)`` bool of where bone is looked for in each, or None.
        thresholds: those that were given, or None for each that was found.
    """

    fixed: Volume
    moving: Volume
    scales: tuple[BoneScale, BoneScale]
    truth: np.ndarray | None
    masks: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    thresholds: tuple[float | None, float | None] = (None, None)

    @cached_property
    def scans(self) -> tuple[PreparedScan, PreparedScan]:
        """What networks see of the two, at one working spacing."""
        cpu = torch.device("cpu")
        each = zip((self.fixed, self.moving), self.scales, self.masks, strict=True)
        return prepare(*[native_scan(volume, scale, mask, cpu) for volume, scale, mask in each])

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
        each = zip((self.fixed, self.moving), self.scales, self.masks, strict=True)
        fixed, moving = (cortical_bone(volume, s.threshold, self.spacing, mask) for volume, s, mask in each)
        return fixed, moving


def load_pair(planned: PlannedPair, bone: ScannedBone, spacing: Sequence[float] | None = None) -> PreparedPair:
    """Reads the scans of a planned pair, and moves one where the test says so.

    Args:
        planned: which pair.
        bone: its scans.
        spacing: the true voxel size of the scans, in mm, where files lack it and their table does not say it.

    Raises:
        ScanError: a scan cannot be read, or shows no bone.
        FileError: the transform cannot be read.
    """
    if planned.test == "real":
        fixed, moving = (_read(scan.with_spacing(spacing)) for scan in (bone.pre, bone.post))
        truth = None if bone.transform is None else read_truth(bone.transform)
        given = bone.pre.threshold, bone.post.threshold
        return PreparedPair(fixed[0], moving[0], (fixed[1], moving[1]), truth, (fixed[2], moving[2]), given)
    scan = bone.scan(planned.scan)
    volume, scale, mask = _read(scan.with_spacing(spacing))
    truth = true_motion(planned.test, planned.position, volume.center)
    carried = None
    if mask is not None:
        z, y, x = mask.shape
        carried = resample_mask(mask, volume.affine, volume.affine, (z, y, x), np.linalg.inv(truth))
    return PreparedPair(volume, moved(volume, truth), (scale, scale), truth, (mask, carried), (scan.threshold,) * 2)


@lru_cache(maxsize=2)
def _read(scan: ScanFile) -> tuple[Volume, BoneScale, np.ndarray | None]:
    """A scan, its bone threshold and its mask. The last two are kept, since pairs of one scan follow one another."""
    volume = scan.read(None)
    mask = scan.read_mask(None, volume)
    return volume, find_bone_scale(volume, scan.threshold, mask), mask
