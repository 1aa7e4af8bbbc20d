"""Lengths of voxels that are wrong by far: one of a grid, or all, may be stated half or twice what they are.

No rigid pose fits then from which a strain could be fitted. But some measures of a bone do not ask how it is turned:
its volume, how far it reaches, and which ways its surfaces face. They tell roughly which length is wrong, and by how
much. A pose and the rest are found from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from torch import Tensor

from ..bone.cube import canonical_cube, place_of_bone, points_of_bone
from ..bone.images import BoneImage
from ..bone.prepare import PreparedScan
from ..geometry.transforms import affine_matrix
from .holders import ScanPair
from .similarity import agreement
from .strain import find_strain
from .strain_cause import AXES, Cause, grid_errors

# Factors that are looked for.
FACTORS = np.exp(np.linspace(-1.2, 1.2, 61))
# The strain that is fitted at a rigid pose reaches smaller ones (natural logarithm).
LEAST_FACTOR = 0.08
# Root mean squares of the differences between the measures of two scans of one bone: of 60 pairs, a quarter of which
# were cut to half.
DEVIATIONS = np.array((0.25, 0.25, 0.25, 0.3, 0.6, 0.45, 0.4))
# The sum of squares of the differences, in these deviations, falls by at least so much: of 48 pairs with a length wrong
# by 1.25 to 3 times it fell by 2.4 or more in 43, of 40 pairs of two bones by less in 27.
LEAST_GAIN = 2.0
# So many are tried, the likeliest first. Of 48 wrong lengths, 44 were among them.
TRIED = 4
# A factor is fitted in so many rounds, or until one changes it by less.
ROUNDS, SETTLED = 4, 3e-3
# In the first round right ones came to a correlation of 0.48 or more, in the last one to 0.82, and other strain than
# theirs was at most 0.043 from the second round on; of the wrong ones most are told by one of these.
FIRST_AGREEMENT, LEAST_AGREEMENT, MOST_OTHER = 0.4, 0.75, 0.06
# Errors of two grids whose strains are alike by this share are one and the same.
ALIKE = 0.99

Pair = TypeVar("Pair", bound=ScanPair)


@dataclass(frozen=True)
class Size:
    """What a scan's grid may state wrongly.

    Attributes:
        scan: "fixed" or "moving".
        axes: of its grid, "x", "xy", ...
        factor: by which it states the lengths along them too large.
    """

    scan: str
    axes: str
    factor: float

    def undone(self, scan: PreparedScan) -> np.ndarray:
        """``(4, 4)`` the map of a scan's world that undoes the error, about the bone's centre."""
        linear, center = _undone(scan.native.affine, self.axes, np.array([self.factor]))[0], scan.place.center
        return affine_matrix(linear, center - linear @ center)

    def restated(self, scans: Pair) -> Pair:
        """The scans, one of them without the error. Their cortices stay as they were."""
        working = scans.fixed.cube.spacing
        if self.scan == "fixed":
            return replace(scans, fixed=_restated(scans.fixed, self, working))
        return replace(scans, moving=_restated(scans.moving, self, working))


def sizes_that_fit(
    scans: Pair, posed: Callable[[Pair, Tensor | None], Tensor | None], check: Callable[[], None]
) -> Iterator[tuple[Size, Cause, Tensor]]:
    """Yields errors of a grid without which the scans agree, what is told of each, and the pose in which they do.

    Args:
        scans: the scans.
        posed: the best rigid pose ``(4, 4)`` of two scans, near a given one or anywhere; None where there is none.
        check: called between steps; an exception from it ends the work.
    """
    for size in likely_sizes(scans.fixed, scans.moving)[:TRIED]:
        found = _fitted(scans, size, posed, check)
        if found is not None:
            yield found


def likely_sizes(fixed: PreparedScan, moving: PreparedScan) -> list[Size]:
    """What the grids of two scans may state wrongly, the likeliest first, by what does not depend on a pose."""
    if min(*fixed.levels[-1].shape, *moving.levels[-1].shape) < 2:  # one slice has no gradient across it
        return []
    measures = {"fixed": _Measures.of(fixed), "moving": _Measures.of(moving)}
    as_stated = {scan: own.logarithms(np.eye(3)[None]) for scan, own in measures.items()}
    most = float(np.square((as_stated["moving"] - as_stated["fixed"]) / DEVIATIONS).sum()) - LEAST_GAIN
    found = []
    for scan, axes in (("moving", AXES), *((scan, axes) for scan in measures for axes in ("x", "y", "z", "xy"))):
        other = as_stated["fixed" if scan == "moving" else "moving"]
        own = measures[scan].logarithms(_undone(measures[scan].affine, axes, FACTORS))
        differences = np.square((own - other) / DEVIATIONS).sum(1)
        best = int(differences.argmin())
        if differences[best] <= most:
            found.append((float(differences[best]), Size(scan, axes, float(FACTORS[best]))))
    found.sort(key=lambda one: one[0])
    return [size for _, size in found]


@dataclass(frozen=True)
class _Measures:
    """The volume of a bone, second moments ``(3, 3)`` of where it is and of its gradients, and its grid's affine."""

    volume: float
    moments: np.ndarray
    surfaces: np.ndarray
    affine: np.ndarray

    @classmethod
    def of(cls, scan: PreparedScan) -> _Measures:
        image: BoneImage = scan.levels[-1]
        points, weight = points_of_bone(image)
        points = points - np.average(points, axis=0, weights=weight)
        along = np.gradient(image.values.cpu().double().numpy())[::-1]
        gradient = np.stack([one.ravel() for one in along])
        linear = image.affine[:3, :3]
        to_world, voxel = np.linalg.inv(linear).T, abs(float(np.linalg.det(linear)))
        return cls(
            float(weight.sum()) * voxel,
            (points * weight[:, None]).T @ points / weight.sum(),
            to_world @ gradient @ gradient.T @ to_world.T * voxel,
            linear,
        )

    def logarithms(self, maps: np.ndarray) -> np.ndarray:
        """``(n, 7)`` logarithms of the volume and of both tensors' eigenvalues, after linear maps ``(n, 3, 3)``."""
        back, size = np.linalg.inv(maps), np.abs(np.linalg.det(maps))
        moments = np.linalg.eigvalsh(maps @ self.moments @ maps.transpose(0, 2, 1))
        surfaces = np.linalg.eigvalsh(back.transpose(0, 2, 1) @ self.surfaces @ back) * size[:, None]
        # A sheet or a rod of one voxel has no extent along an axis.
        return np.log(np.column_stack((self.volume * size, moments, surfaces)).clip(min=1e-12))


def _fitted(
    scans: Pair,
    size: Size,
    posed: Callable[[Pair, Tensor | None], Tensor | None],
    check: Callable[[], None],
) -> tuple[Size, Cause, Tensor] | None:
    """A likely error, fitted by what strain it leaves; None where the scans do not come to agree."""
    near: Tensor | None = None
    for number in range(ROUNDS):
        pair = size.restated(scans)
        found = posed(pair, near)
        if found is None:
            return None
        near = pose = found
        agree = agreement(pair.fixed.levels[-1], pair.moving.levels[-1], pose)
        if agree < FIRST_AGREEMENT:
            return None
        tensor = find_strain(pair.fixed, pair.moving, pose, check).tensor
        grids = pair.fixed.native.affine, pair.moving.native.affine
        errors = grid_errors(pose.numpy()[:3, :3], *grids)
        patterns = {(scan, axes): error for kind, scan, axes, error in errors if kind != "shear"}
        own = patterns["both" if size.axes == AXES else size.scan, size.axes]
        amount = float((own * tensor).sum() / (own * own).sum())
        size = replace(size, factor=size.factor * (1 + amount))
        other = float(np.linalg.norm(tensor - amount * own))
        if abs(np.log(size.factor)) < LEAST_FACTOR or (number and other > MOST_OTHER):
            return None
        if abs(amount) < SETTLED:
            break
    return (size, _cause(size, patterns), pose) if agree >= LEAST_AGREEMENT and other <= MOST_OTHER else None


def _cause(size: Size, patterns: dict[tuple[str, str], np.ndarray]) -> Cause:
    if size.axes == AXES:
        return Cause("size", amount=size.factor - 1)
    own = patterns[size.scan, size.axes]
    for (scan, axes), other in patterns.items():
        # Where axes of the two grids agree, an error of the one is an error of the other.
        alike = -float((own * other).sum() / np.linalg.norm(own) / np.linalg.norm(other))
        if scan not in (size.scan, "both") and alike > ALIKE:
            moving, factor = (axes, 1 / size.factor) if size.scan == "fixed" else (size.axes, size.factor)
            return Cause("length", "both", moving, factor - 1)
    return Cause("length", size.scan, size.axes, size.factor - 1)


def _undone(affine: np.ndarray, axes: str, factors: np.ndarray) -> np.ndarray:
    """``(n, 3, 3)`` maps of the world that make lengths along axes of a grid shorter by factors ``(n,)``."""
    shorter = np.ones((len(factors), 3))
    shorter[:, [AXES.index(axis) for axis in axes]] /= factors[:, None]
    linear = affine[:3, :3]
    return linear @ (shorter[:, :, None] * np.linalg.inv(linear))


def _restated(scan: PreparedScan, size: Size, working: float) -> PreparedScan:
    undone = size.undone(scan)
    levels = [replace(level, affine=undone @ level.affine) for level in scan.levels]
    # Voxels that were shorter than they are were averaged too far.
    levels = [level for level in levels if level.spacing.max() <= 1.5 * working] or levels[:1]
    place = place_of_bone(levels[-1])
    native = replace(scan.native, affine=undone @ scan.native.affine)
    return PreparedScan(native, levels, place, canonical_cube(levels, place, working))
