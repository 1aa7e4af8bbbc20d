"""A synthetic bone of a dataset: scanned without and with contrast agent on one grid, as bone values T (Eq. 5).

Needs torch and NumPy alone, so that a dataset can be made wherever a network can be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.constants import FIELD_OF_VIEW
from ..core.errors import OptionError, Setting
from ..imaging.tensors import gaussian
from ..synthesis.random_bones import draw_animal
from ..synthesis.scanner import Grid, Scan, scan
from ..synthesis.session import Session
from ..synthesis.tibia import CENTER
from .recipes import KINDS

# The threshold is varied by so much of T's range, down or up: the coarser a user's voxels, the lower the threshold
# that is found in them.
_LOWER, _HIGHER = 0.15, 0.05
# Deviation in mm of the Gaussian that smooths grey values, as `bone.scenes` has it for a mouse's bone.
SMOOTHED = 0.045


@dataclass(frozen=True)
class BoneTask:
    """Which bone of a dataset to scan, and on what grid.

    Attributes:
        seed: of the dataset.
        number: of the bone in it.
        kinds: how frequent each kind of bone is.
        size: voxels along each axis.
        spacing: voxel size in mm.
    """

    seed: int
    number: int
    kinds: dict[str, float]
    size: int
    spacing: float


def check_kinds(kinds: Mapping[str, float]) -> None:
    """Checks that bones can be drawn from these kinds.

    Raises:
        OptionError: an unknown kind, or frequencies that are negative, not finite, or all zero.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        known = ", ".join(KINDS)
        raise OptionError(f"kind of bone {unknown[0]!r} is unknown", f"give some of {known}", Setting("kinds"))
    weights = list(kinds.values())
    if not (np.isfinite(weights).all() and min(weights, default=0) >= 0 and sum(weights) > 0):
        problem = f"frequencies of bones {dict(kinds)} are negative or all zero"
        raise OptionError(problem, "give at least one above zero")


def scan_twice(task: BoneTask) -> tuple[int, str, np.ndarray, np.ndarray]:
    """The bone's number and name, and its bone values ``(size, size, size)`` float16 without and with contrast agent.

    They are NumPy arrays, which go from process to process as they are.
    """
    generator = np.random.default_rng([task.seed, task.number, 9])
    animal_seed, *session_seeds = (int(s) for s in generator.integers(1 << 62, size=3))
    weights = np.array(list(task.kinds.values()), float)
    kind = str(generator.choice(list(task.kinds), p=weights / weights.sum()))
    shifts = generator.uniform(-_LOWER, _HIGHER, 2)
    animal = draw_animal(kind, animal_seed)
    grid = Grid.centered(task.size, task.spacing, center=CENTER)
    values = []
    for seed, shift, contrast in zip(session_seeds, shifts, (False, True), strict=True):
        session = Session.draw(seed, animal, contrast=contrast, scale="attenuation")
        values.append(_bone_values(scan(animal, session, grid, np.eye(4)), task.spacing, float(shift)).numpy())
    return task.number, f"{kind} {task.number}", values[0], values[1]


def _bone_values(scanned: Scan, spacing: float, shift: float) -> Tensor:
    """T of a scan whose bone is known, ``(z, y, x)`` float16; the threshold is moved by `shift` of T's range."""
    voxels, bone = torch.from_numpy(scanned.voxels), torch.from_numpy(scanned.bone)
    threshold, maximum = grey_levels(voxels, bone, spacing)
    threshold += shift * (maximum - threshold)
    return ((voxels - threshold).clamp_(min=0) / (maximum - threshold)).half()


def grey_levels(voxels: Tensor, bone: Tensor, spacing: float) -> tuple[float, float]:
    """x_th and x_max of Eq. 5 by the rule of `bone.threshold.find_bone_scale`, in a scan whose bone is known.

    The rule takes half way between the grey value inside the bone and the one just around it, then the 99th percentile
    above. This is it without SciPy, and without a search for what may be bone.

    Args:
        voxels: ``(z, y, x)`` float32 grey values. The levels are looked for in a scan's field of view in the middle.
        bone: ``(z, y, x)`` bool, where bone is.
        spacing: voxel size in mm.
    """
    margin = max((len(voxels) - round(FIELD_OF_VIEW / spacing)) // 2, 0)
    middle = (slice(margin, len(voxels) - margin),) * 3
    voxels, bone = voxels[middle], bone[middle]
    smooth = gaussian(voxels, SMOOTHED / spacing)
    # Excludes fragments and soft tissue, but not cartilage with contrast agent, which `find_bone_scale` takes for bone.
    allowed = _dilate(bone, 3)
    threshold = float(smooth[bone].median() + voxels[~allowed].median()) / 2
    for _ in range(8):
        found = (smooth > threshold) & allowed
        near = _dilate(found, 2)
        around = _dilate(near, 3) & ~near
        inside, outside = _percentile(smooth[found], 75), _percentile(smooth[around], 80)
        if inside <= outside:
            break
        moved = (inside + outside) / 2
        if abs(moved - threshold) < 0.01 * (inside - outside):
            break
        threshold = moved
    return threshold, _percentile(voxels[voxels > threshold], 99)


def _percentile(values: Tensor, percent: float) -> float:
    return float(torch.quantile(values, percent / 100))


def _dilate(mask: Tensor, times: int) -> Tensor:
    """Adds, `times` times over, all voxels that share a face with the mask."""
    for _ in range(times):
        wider = mask.clone()
        for axis in range(3):
            size = mask.shape[axis] - 1
            wider.narrow(axis, 1, size).logical_or_(mask.narrow(axis, 0, size))
            wider.narrow(axis, 0, size).logical_or_(mask.narrow(axis, 1, size))
        mask = wider
    return mask
