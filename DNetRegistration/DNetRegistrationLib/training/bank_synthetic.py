"""A synthetic bone as a bank has it: scanned without and with contrast agent on one grid, T (Eq. 5) taken.

Needs torch and NumPy alone, so that a bank can be made wherever a network can be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..synthesis.random_bones import draw_animal
from ..synthesis.scanner import Grid, Scan, scan
from ..synthesis.session import Session
from ..synthesis.tibia import CENTER

# Kinds of bones, and how frequent they are in a bank.
KINDS = {"tibia": 0.55, "long": 0.15, "flat": 0.1, "irregular": 0.2}
# Edge of the box, in mm, in which the grey levels of bone are looked for: the field of view of a scan.
_VIEW = 5.12
# By how much the threshold of a scan may lie lower or higher than found here, as a share of T's range: the coarser the
# user's voxels, the lower the threshold found in them.
_LOWER, _HIGHER = 0.15, 0.05


@dataclass(frozen=True)
class Task:
    """One bone of a bank.

    Attributes:
        seed: of the bank.
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
    """Sees that bones can be drawn from them.

    Raises:
        ValueError: an unknown kind, or frequencies that are negative, not finite, or all zero.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"kind of bone {unknown[0]!r} is unknown; give some of {', '.join(KINDS)}")
    weights = list(kinds.values())
    if not (np.isfinite(weights).all() and min(weights, default=0) >= 0 and sum(weights) > 0):
        raise ValueError(f"frequencies of bones {dict(kinds)} are negative or all zero; give at least one above zero")


def scanned_twice(task: Task) -> tuple[str, np.ndarray, np.ndarray]:
    """The bone's name, and its bone values ``(size, size, size)`` float16 without and with contrast agent.

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
    return f"{kind} {task.number}", values[0], values[1]


def _bone_values(scanned: Scan, spacing: float, shift: float) -> Tensor:
    """T of a scan whose bone is known, its threshold `shift` of T's range off the one found: ``(z, y, x)`` float16."""
    voxels, bone = torch.from_numpy(scanned.voxels), torch.from_numpy(scanned.bone)
    threshold, maximum = grey_levels(voxels, bone, spacing)
    threshold += shift * (maximum - threshold)
    return ((voxels - threshold).clamp_(min=0) / (maximum - threshold)).half()


def grey_levels(voxels: Tensor, bone: Tensor, spacing: float) -> tuple[float, float]:
    """x_th and x_max of Eq. 5 as `threshold.find_bone_scale` finds them, where it is known where the bone is.

    The same rule (half way between the grey value inside the bone and the one just around it, then the 99th percentile
    above), but without SciPy and on any device, and without a search for what may be bone.

    Args:
        voxels: ``(z, y, x)`` float32 grey values.
        bone: ``(z, y, x)`` bool, where bone is.
        spacing: voxel size in mm.
    """
    margin = max((len(voxels) - round(_VIEW / spacing)) // 2, 0)
    middle = (slice(margin, len(voxels) - margin),) * 3
    voxels, bone = voxels[middle], bone[middle]
    smooth = _means(voxels)
    # Neither fragments nor soft tissue, but cartilage with contrast agent, which `find_bone_scale` cannot tell apart.
    allowed = _grown(bone, 3)
    threshold = float(smooth[bone].median() + voxels[~allowed].median()) / 2
    for _ in range(8):
        found = (smooth > threshold) & allowed
        near = _grown(found, 2)
        around = _grown(near, 3) & ~near
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


def _means(image: Tensor) -> Tensor:
    """Over 3 x 3 x 3 voxels, the border's repeated beyond it."""
    for axis in range(3):
        size = image.shape[axis]
        padded = torch.cat((image.narrow(axis, 0, 1), image, image.narrow(axis, size - 1, 1)), axis)
        image = (padded.narrow(axis, 0, size) + padded.narrow(axis, 1, size) + padded.narrow(axis, 2, size)) / 3
    return image


def _grown(mask: Tensor, times: int) -> Tensor:
    """A mask with, so many times, all voxels that share a face with it."""
    for _ in range(times):
        grown = mask.clone()
        for axis in range(3):
            size = mask.shape[axis] - 1
            grown.narrow(axis, 1, size).logical_or_(mask.narrow(axis, 0, size))
            grown.narrow(axis, 0, size).logical_or_(mask.narrow(axis, 1, size))
        mask = grown
    return mask
