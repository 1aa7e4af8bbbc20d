"""Whether what surrounds the bone is as bright in both scans: air, liquid, soft tissue. Needs no torch.

A subtraction shows contrast agent alone only if it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..bone.cortex import CorticalBone
from ..imaging.grey_fit import fit_grey_values
from ..imaging.morphology import dilate_ball

# What lies so far from the bone's surface surrounds it, in working spacings. Nearer voxels hold bone or cartilage.
NEAR, FAR = 1.5, 5.0
# Differences are binned by half this width to either side, as shares of the bone's contrast. They count from
# `LEAST_DIFFERENCE` on, and as none up to `ALIKE`: noise and the fit of grey values feign as much.
WIDTH, ALIKE, LEAST_DIFFERENCE = 0.1, 0.04, 0.1
# A medium covers at least this share of what surrounds the bone.
LEAST_SHARE = 0.35
# So many voxels are looked at, inside the bone and around it; fewer than the least tell nothing.
MOST, LEAST = 6000, 200


@dataclass(frozen=True)
class MediumChange:
    """How what surrounds the bone differs between two scans.

    Attributes:
        share: of the surroundings, 0 to 1, that differ by about this amount.
        amount: moving less fixed, as a share of the bone's contrast.
    """

    share: float
    amount: float

    @property
    def sentence(self) -> str:
        """Says what differs, and what follows for a subtraction."""
        return (
            f"In {100 * self.share:.0f} % of what surrounds the bone, the moving scan is "
            f"{'brighter' if self.amount > 0 else 'darker'} by about {100 * abs(self.amount):.0f} % of the bone's "
            "contrast: another medium (air, water, fixative), soft tissue in one scan only, or soft tissue with "
            "contrast agent. A subtraction shows that too, and not cartilage alone."
        )


def find_medium_change(
    fixed: CorticalBone, moving: CorticalBone, matrix: np.ndarray, height: float, spacing: float
) -> MediumChange | None:
    """Compares what surrounds the bone in two aligned scans, in common grey values.

    Places in the same medium differ by one amount, soft tissue that moved or took up agent by many. So the most
    frequent difference tells, not the mean one.

    Args:
        fixed, moving: segmentations of the scans.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.
        height: the bone's contrast in the fixed scan: how far it stands out from its surroundings, in grey values.
        spacing: working spacing in mm.

    Returns:
        MediumChange, or None where the surroundings are alike or hardly seen.
    """
    fixed = _thinned(fixed, spacing)
    step = fixed.spacing[::-1]
    near, far = (dilate_ball(fixed.whole, step, reach * spacing) for reach in (NEAR, FAR))
    seen = np.isfinite(fixed.grey)
    inside = _values(fixed, moving, matrix, fixed.whole & seen, 1.0)
    around = _values(fixed, moving, matrix, far & ~near & seen, 0.0)
    if min(len(inside[0]), len(around[0])) < LEAST:
        return None
    fit = fit_grey_values(*inside)
    differences = (around[1] - fit.slope * around[0] - fit.offset) / (fit.slope * height)
    amounts = np.linspace(-2, 2, 401)
    ordered = np.sort(differences)
    low, high = (np.searchsorted(ordered, amounts + side) for side in (-WIDTH / 2, WIDTH / 2))
    shares = (high - low) / len(ordered)
    differing = np.where(np.abs(amounts) > LEAST_DIFFERENCE - 1e-6, shares, 0)
    most = int(differing.argmax())
    alike = shares[np.abs(amounts) < ALIKE + 1e-6].max()
    if differing[most] < max(LEAST_SHARE, alike):
        return None
    return MediumChange(float(shares[most]), float(amounts[most]))


def _thinned(bone: CorticalBone, spacing: float) -> CorticalBone:
    """The segmentation at voxels that are about `spacing` mm apart: dilating all of them takes long."""
    x, y, z = (max(1, round(spacing / own)) for own in bone.spacing)
    kept = np.s_[::z, ::y, ::x]
    affine = bone.affine @ np.diag((x, y, z, 1.0))
    return CorticalBone(bone.cortex[kept], bone.whole[kept], bone.grey[kept], affine)


def _values(
    fixed: CorticalBone, moving: CorticalBone, matrix: np.ndarray, where: np.ndarray, within: float
) -> tuple[np.ndarray, np.ndarray]:
    """Grey values ``(n,)`` of the fixed and the moving scan at some voxels ``(z, y, x)`` that are marked.

    Args:
        within: 1 for voxels within the moving bone too, 0 for those outside of it.
    """
    marked = np.flatnonzero(where)
    if len(marked) > MOST:
        marked = np.random.default_rng(0).choice(marked, MOST, replace=False)
    index = np.stack(np.unravel_index(marked, where.shape)[::-1])
    to_moving = np.linalg.inv(moving.affine) @ matrix @ fixed.affine
    at = (to_moving[:3, :3] @ index + to_moving[:3, 3:])[::-1]
    share = ndimage.map_coordinates(moving.whole.astype(np.float32), at, order=1)
    grey = ndimage.map_coordinates(moving.grey, at, order=1, cval=np.nan)
    chosen = np.isfinite(grey) & (np.abs(share - within) < 0.01)
    return fixed.grey.ravel()[marked[chosen]], grey[chosen]
