"""Slices that are missing from a scan, or there twice: beyond them, all bone lies off along one axis of its grid.

A rigid pose holds for the bone on one side of such a place, and nothing but the agreement beyond tells of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..bone.cube import points_of_bone
from ..bone.prepare import PreparedScan
from ..geometry.rigid import apply
from .template import Template, edge_template, sample_through

POINTS = 8000
# Distances that are tried, in working voxels: steps, and how far.
STEP, REACH = 0.5, 14.0
# A first look takes one of so many points, and of so many distances.
THINNED = 5, 2
# A smaller shift is one that a rigid pose and a strain take up.
LEAST_SHIFT = 1.5
# What lies beyond fits where it is shifted if it leaves at most this share of what it left unexplained, a point of it
# (dense bone is 1) so much less, and all of it at most so many times the variance of its values: darkness leaves less
# than bone that lies off, but more than that. Where 2 to 12 slices were missing or doubled, these were 0.15 to 0.69,
# 0.034 to 0.21 and 0.48 to 1.03. Less of the bone tells nothing.
LEFT, LEAST_GAIN, MOST_VARIANCES, LEAST_SHARE, LEAST_POINTS = 0.7, 0.02, 1.1, 0.03, 60


@dataclass(frozen=True)
class Jump:
    """A place in one scan beyond which the bone lies off along an axis of its grid.

    Attributes:
        scan: "fixed" or "moving".
        axis: "x", "y" or "z" of its grid.
        index: the slice along that axis where it is.
        share: of the bone that lies off, 0 to 1.
        shift: by how far it does, mm.
    """

    scan: str
    axis: str
    index: float
    share: float
    shift: float

    @property
    def error(self) -> float:
        """Mean distance in mm over all bone by which a pose misses that holds on one side."""
        return self.share * self.shift

    @property
    def sentence(self) -> str:
        """Says where it is and what to check."""
        return (
            f"{100 * self.share:.0f} % of the bone, on one side of slice {self.index:.0f} along {self.axis} of the "
            f"{self.scan} scan, lies {1000 * self.shift:.0f} um off: check whether slices of the scan are missing or "
            "there twice."
        )


def find_jump(fixed: PreparedScan, moving: PreparedScan, pose: Tensor) -> Jump | None:
    """The place beyond which a shift along an axis of either grid explains most, if what it explains is enough.

    Args:
        fixed, moving: the scans.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.
    """
    template, spacing = edge_template(fixed.levels[-1], POINTS), fixed.cube.spacing
    edges = template.local().cpu().double() + torch.tensor(template.center)
    # An odd step takes points of all rows.
    every, sparse = THINNED
    some = replace(template, **{name: getattr(template, name)[::every] for name in ("index", "values", "gradient")})
    bone, weight = points_of_bone(fixed.levels[-1])
    steps = torch.arange(1, round(REACH / STEP) + 1).double() * STEP * spacing
    shifts = torch.cat((-steps.flip(0), steps))
    most, jump = 0.0, None
    for role, scan, to_scan in (("fixed", fixed, torch.eye(4).double()), ("moving", moving, pose)):
        affine = torch.tensor(scan.native.affine)
        index_of = torch.linalg.inv(affine) @ to_scan
        for number, axis in enumerate("xyz"):
            along = pose[:3, :3] @ torch.linalg.inv(to_scan[:3, :3]) @ affine[:3, number] / affine[:3, number].norm()
            index = apply(index_of, edges)[:, number]
            rough, _ = _unexplained(some, moving, pose, shifts[::sparse, None] * along)
            about = sparse * _beyond(index[::every], rough)[1]
            near = shifts[max(0, about - sparse + 1) : about + sparse]
            left, seen = _unexplained(template, moving, pose, near[:, None] * along)
            gained, shift, above, cut = _beyond(index, left)
            if gained <= most:
                continue
            most, jump = gained, None
            where = ((index > cut) == above) & seen
            # Slices that are there twice stretch the bone by the cut, and fit with the shift no better than without.
            clear = where & ((index - cut).abs() * float(affine[:3, number].norm()) > float(near[shift].abs()))
            off = (apply(index_of, torch.from_numpy(bone))[:, number].numpy() > cut) == above
            share, far = float(weight[off].sum() / weight.sum()), float(near[shift].abs())
            values = template.values.cpu().double()
            fits = (_fits(left[0][part], left[1 + shift][part], values[part]) for part in (where, clear))
            # No less than one slice can be missing.
            least = max(LEAST_SHIFT, float(affine[:3, number].norm()) / spacing - STEP / 2) * spacing
            if any(fits) and share >= LEAST_SHARE and far >= least:
                jump = Jump(role, axis, cut, share, far)
    return jump


def _unexplained(template: Template, moving: PreparedScan, pose: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """What the moving scan leaves of each point unexplained ``(1 + k, n)``: in the pose, and with each of the shifts.

    Also which points ``(n,)`` the pose brings into the moving scan's field of view.
    """
    poses = pose.repeat(1 + len(shifts), 1, 1)
    poses[1:, :3, 3] += shifts
    values, inside = sample_through(template, moving.levels[-1], poses)
    seen = inside[0] > 0.999
    gain = (seen * values[0] * template.values).sum() / (seen * values[0].square()).sum().clamp(min=1e-6)
    left = (gain * values - template.values).square()
    left = torch.where(inside > 0.999, left, left[:1]) * seen
    return left.cpu().double(), seen.cpu()


def _fits(before: Tensor, after: Tensor, values: Tensor) -> bool:
    """Whether points ``(n,)`` of some values, of which so much is unexplained, fit better after a shift, and well."""
    if len(values) < LEAST_POINTS:
        return False
    left_before, left_after = float(before.mean()), float(after.mean())
    well = left_after <= MOST_VARIANCES * float(values.var(correction=0))
    return well and left_before - left_after >= LEAST_GAIN and left_after <= LEFT * left_before


def _beyond(index: Tensor, left: Tensor) -> tuple[float, int, bool, float]:
    """The half space beyond a slice in which a shift explains most.

    Args:
        index: ``(n,)`` of points along an axis.
        left: ``(1 + k, n)`` what each leaves unexplained without a shift and with each.

    Returns:
        what the shift explains, which one it is, whether the half space is above the slice, and the slice.
    """
    order = index.argsort()
    below = (left[:1] - left[1:])[:, order].cumsum(1)
    above = below[:, -1:] - below
    side = above if above.max() > below.max() else below
    shift, place = divmod(int(side.argmax()), side.shape[1])
    return float(side.max()), shift, side is above, float(index[order[place]])
