"""Whether two bones that were parted are one: lost slices, or a motion during a scan, part a bone by a plane."""

from __future__ import annotations

import numpy as np

# A plane across an axis of the voxels parts two bones if all but so much of either lies on a side of its own, and the
# bone goes on through it if its least section within so many voxels is so large a share of the median one farther off.
# Of one bone with lost slices, and with a jerk in mid-scan, 0.008 and 0.002 lay on the other side, and 0.95 and 0.97 of
# the section went on; of the planes that parted bones of five joints so well, 0.69 at most.
ASTRAY, GOES_ON, NEAR, FAR = 0.02, 0.85, 3, 9
SENTENCE = (
    "Bones {} and {} go on into each other through a plane across the {} scan's voxels. They may be one bone, of which "
    "slices are missing, or which moved during the scan: distances across that plane are wrong then."
)


def severed(bone: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    """Whether one plane across an axis of the voxels parts two pieces, and the bone goes on through it.

    Args:
        bone: ``(z, y, x)`` bool, all that is bone.
        first, second: likewise, the places of the two pieces.
    """
    for axis in range(bone.ndim):
        others = tuple(one for one in range(bone.ndim) if one != axis)
        section = bone.sum(others).astype(float)
        below, above = (np.r_[0.0, np.cumsum((bone & piece).sum(others))] for piece in (first, second))
        if min(below[-1], above[-1]) == 0:
            continue
        below, above = below / below[-1], above / above[-1]
        astray = np.minimum(np.maximum(1 - below, above), np.maximum(1 - above, below))
        at = int(astray.argmin())
        far = np.r_[section[max(0, at - FAR) : max(0, at - NEAR)], section[at + NEAR : at + FAR]]
        near = section[max(0, at - NEAR) : at + NEAR]
        if astray[at] <= ASTRAY and len(far) and near.min() >= GOES_ON * np.median(far) > 0:
            return True
    return False
