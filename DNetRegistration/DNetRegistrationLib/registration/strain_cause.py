"""Which error of a scan's grid explains a strain, and how a person is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

# An error of a grid explains a strain that it leaves no more than this share of, as chi square.
# Another one explains it as well that leaves no more than a further share.
UNEXPLAINED, FURTHER = 0.2, 0.05
# The components of a symmetric tensor, as rows and columns.
ROWS, COLUMNS = np.array((0, 1, 2, 1, 0, 0)), np.array((0, 1, 2, 2, 2, 1))
AXES = "xyz"


@dataclass(frozen=True)
class Cause:
    """An error of one scan's grid.

    Attributes:
        kind: "length" (along one axis, or x and y), "size" (along all), "shear", or "other" where none explains it.
        scan: "fixed" or "moving", or "both" where the grids' axes agree or the kind does not tell.
        axes: the names of the grid's axes.
        amount: how much longer this scan is than the other one (of "both", the moving one), as a share.
    """

    kind: str
    scan: str = "both"
    axes: str = ""
    amount: float = 0.0

    def sentence(self, largest: float) -> str:
        """Says what is wrong and what to check; `largest` is the largest principal strain."""
        percent = _about(self.amount)
        scan, other = ("fixed", "moving") if self.scan == "fixed" else ("moving", "fixed")
        of = "of both scans" if self.scan == "both" else f"of the {scan} scan"
        if self.kind == "size":
            how = f"{percent} {'larger' if self.amount > 0 else 'smaller'} than"
            if self.amount > 0.5:
                how = f"about {1 + self.amount:.1f} times as large as"
            return f"The moving scan is {how} the fixed one: check the voxel size of both."
        if self.kind == "length":
            what = "slice distance" if self.axes == "z" else "voxel size"
            along = " and ".join(self.axes)
            how = f"{percent} {'longer' if self.amount > 0 else 'shorter'} along {along} than"
            if self.amount > 0.5:
                how = f"about {1 + self.amount:.1f} times as long along {along} as"
            return f"The {scan} scan is {how} the {other} one: check the {what} {of}."
        if self.kind == "shear":
            return (
                f"The {scan} scan is sheared by {percent} between {' and '.join(self.axes)} against the {other} one: "
                f"check the tilt of the gantry, and the slice positions, {of}."
            )
        return (
            f"The shapes of the scans differ by up to {_about(largest)}: check the voxel size, the slice distance "
            "and the tilt of the gantry of both."
        )


def _about(amount: float) -> str:
    # Contrast agent in one of the scans feigns half a percent.
    percent = 100 * abs(amount)
    return f"about {percent:.{0 if percent >= 0.95 else 1}f} %"


def find_cause(
    tensor: np.ndarray, covariance: np.ndarray, rotation: np.ndarray, fixed: np.ndarray, moving: np.ndarray
) -> Cause:
    """The error of one number of a grid that explains a strain best, if it leaves little of it.

    Args:
        tensor: ``(3, 3)``, moving against fixed, in the fixed scan's world frame.
        covariance: ``(6, 6)`` of its components.
        rotation: ``(3, 3)`` fixed to moving.
        fixed, moving: ``(4, 4)`` affines of the grids, index to world.
    """
    strain, precision = tensor[ROWS, COLUMNS], np.linalg.inv(covariance)
    total = float(strain @ precision @ strain)
    causes = []
    for kind, scan, axes, error in grid_errors(rotation, fixed, moving):
        pattern = error[ROWS, COLUMNS]
        amount = float(pattern @ precision @ strain / (pattern @ precision @ pattern))
        left = float((strain - amount * pattern) @ precision @ (strain - amount * pattern))
        # Of a fixed scan the pattern is that of the moving one against it.
        causes.append((left, Cause(kind, scan, axes, 1 / (1 - amount) - 1 if scan == "fixed" else amount)))
    least, best = min(causes, key=lambda one: one[0])
    if least > UNEXPLAINED * total:
        return Cause("other")
    alike = [one for left, one in causes if left <= least + FURTHER * total and one.kind == best.kind]
    # Where the axes of the grids agree, an error of the one is an error of the other.
    if {one.scan for one in alike} == {"fixed", "moving"}:
        return replace(next(one for one in alike if one.scan == "moving"), scan="both")
    return best


def grid_errors(
    rotation: np.ndarray, fixed: np.ndarray, moving: np.ndarray
) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Yields kind, scan, axes and the ``(3, 3)`` strain that each error of a grid makes, for an amount of one."""
    yield "size", "both", AXES, np.eye(3)
    for scan, affine, turn, sign in (("moving", moving, rotation, 1.0), ("fixed", fixed, np.eye(3), -1.0)):
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        for kind, names, grid in _grid_errors():
            # Along the grid's axes in the scan's own world, then in the fixed one.
            world = sign * turn.T @ axes @ grid @ np.linalg.inv(axes) @ turn
            yield kind, scan, names, (world + world.T) / 2


def _grid_errors() -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields kind, axes and the ``(3, 3)`` displacement gradient along a grid's axes."""
    for axes in ((0,), (1,), (2,), (0, 1)):
        yield "length", "".join(AXES[axis] for axis in axes), np.diag([float(axis in axes) for axis in range(3)])
    for first, second in ((0, 1), (0, 2), (1, 2)):
        sheared = np.zeros((3, 3))
        sheared[first, second] = 1
        yield "shear", AXES[first] + AXES[second], sheared
