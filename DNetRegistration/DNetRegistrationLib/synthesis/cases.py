"""Two scans on the way to an adversarial pair: of a bone or of a solid, before anything befell them, and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from ..geometry.transforms import affine_matrix
from ..imaging.volume import Volume
from . import damage, solids
from .damage import Seen
from .grid import Grid
from .pairs import SHARED, SyntheticPair, make_pair, random_rotation
from .solids import Solid, placed

#: Voxels along each axis of a scan, and their edge in mm, where nothing else is said.
SIZE, SPACING = 64, 0.08
# The mean over so many points of a bone is that over all of it.
_LANDMARKS = 5000
# HU of a solid, of what lies around it, and the noise of its scan.
_MINERAL, _MEDIUM, _NOISE = 3000.0, 0.0, 100.0


@dataclass(frozen=True)
class Case:
    """Two scans and what is known about them. The landmarks of both are of the same points of bone.

    Attributes:
        fixed, moving: the scans with the landmarks.
        bones: ``(n,)`` int, whose landmarks they are.
        matrix: ``(4, 4)`` the motion between the scans before anything befell them.
        medium, bone: typical grey values of the fixed scan.
        answerable: an answer that is right ought to be accepted.
        drawn: what was drawn, in plain numbers and words that JSON can hold.
    """

    fixed: Seen
    moving: Seen
    bones: np.ndarray
    matrix: np.ndarray
    medium: float
    bone: float
    answerable: bool
    drawn: dict

    @property
    def contrast(self) -> float:
        """By how much bone is brighter than what lies around it."""
        return self.bone - self.medium

    def level(self, share: float) -> float:
        """A grey value: at 0 that of what lies around the bone, at 1 that of bone."""
        return self.medium + share * self.contrast

    def tell(self, **drawn) -> Case:
        """With more that was drawn."""
        return replace(self, drawn={**self.drawn, **drawn})

    def ask(self, answerable: bool) -> Case:
        """An answer that is right ought to be accepted only where this holds too."""
        return replace(self, answerable=self.answerable and bool(answerable))

    def change(self, function: Callable[[Seen], Seen], scans: str = "both") -> Case:
        """Changes "both" scans, the "fixed" or the "moving" one."""
        fixed = self.fixed if scans == "moving" else function(self.fixed)
        return replace(self, fixed=fixed, moving=self.moving if scans == "fixed" else function(self.moving))

    def paint(self, solid: Solid, share: float, only: str, scans: str = "both") -> Case:
        """Paints a solid of the scans' worlds at a `level`; see `damage.painted`."""
        value = self.level(share)
        return self.change(lambda seen: damage.painted(seen, solid, value, only), scans)

    def unlike(self) -> Case:
        """No answer is right."""
        nothing = {role: replace(getattr(self, role), landmarks=np.empty((0, 3))) for role in ("fixed", "moving")}
        return replace(self, **nothing, bones=np.empty(0, int), answerable=False)

    def hidden(self, solid: Solid) -> float:
        """The share of the landmarks of the fixed scan that lie in a solid of its world."""
        return float((solid(self.fixed.world) > 0).mean())


def thick_grid(width: float, factor: float, axis: int) -> Grid:
    """A grid about the world's origin, as large as that of other scans.

    Its voxels are `width` mm wide, and `factor` times as long along an axis (0 to 2).
    """
    spacing = np.full(3, width)
    spacing[axis] = factor * width
    return Grid.centered(np.maximum(np.round(SIZE * SPACING / spacing), 12), spacing)


def draw_seed(generator: Generator) -> int:
    """A seed for what draws from a generator of its own."""
    return int(generator.integers(1 << 62))


def of_bone(generator: Generator, **options) -> Case:
    """A pair of a tibia or another bone, with contrast agent or without; `options` are those of `make_pair`."""
    drawn = {
        "kind": str(generator.choice(("tibia", "long", "flat", "irregular"), p=(0.6, 0.2, 0.05, 0.15))),
        "contrast": bool(generator.random() < 0.5),
    }
    options = {"size": SIZE, "spacing": SPACING, **drawn, **options}
    return of_pair(make_pair(draw_seed(generator), **options))


def of_pair(pair: SyntheticPair) -> Case:
    """A synthetic pair. No answer is right where it is an impostor."""
    names = ("scale", "backgrounds", "contrast", "shared")
    drawn = {"bone": pair.drawn["kind"], **{name: pair.drawn[name] for name in names}}
    # Little in common is refused for a good reason.
    answerable = pair.drawn["shared"] >= SHARED
    case = of_scans((pair.fixed, pair.moving), pair.fixed_bone, pair.matrix, answerable, drawn)
    return case if pair.same else case.unlike()


def of_scans(scans: tuple[Volume, Volume], bone: np.ndarray, matrix: np.ndarray, answerable: bool, drawn: dict) -> Case:
    """Two scans of one bone.

    Args:
        scans: fixed and moving.
        bone: ``(z, y, x)`` bool, of the fixed scan.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.
        answerable, drawn: of the `Case`.
    """
    fixed, moving = scans
    index = np.argwhere(bone)[:, ::-1]
    index = index[:: max(1, len(index) // _LANDMARKS)].astype(float)
    partners = fixed.to_world(index) @ matrix[:3, :3].T + matrix[:3, 3]
    medium, mineral = (float(np.nanmedian(fixed.voxels[mask])) for mask in (~bone, bone))
    seen = Seen(fixed, index), Seen(moving, moving.to_index(partners))
    return Case(*seen, np.zeros(len(index), int), matrix, medium, mineral, answerable, drawn)


def joined(cases: Sequence[Case]) -> Case:
    """Several bones in the same scans, numbered as they are given."""
    fixed, moving = (
        replace(getattr(cases[0], role), landmarks=np.concatenate([getattr(one, role).landmarks for one in cases]))
        for role in ("fixed", "moving")
    )
    bones = np.repeat(np.arange(len(cases)), [len(one.bones) for one in cases])
    return replace(cases[0], fixed=fixed, moving=moving, bones=bones)


def of_solid(
    generator: Generator, solid: Solid, answerable: bool = False, wall: float | None = None, other: Solid | None = None
) -> Case:
    """Two scans of a solid of bone, or of its outer `wall` mm, in any orientation. The second may be of an `other`."""
    grid, shape = Grid.centered(SIZE, SPACING), (SIZE,) * 3
    matrix = affine_matrix(random_rotation(generator), generator.uniform(-0.5, 0.5, 3))
    pose = affine_matrix(random_rotation(generator), generator.uniform(-0.2, 0.2, 3))
    noise = generator.uniform(0.5, 2) * _NOISE
    empty = Seen(Volume(np.full(shape, _MEDIUM, np.float32), grid.affine), np.empty((0, 3)))
    both = [one if wall is None else solids.hollow(one, wall) for one in (solid, other or solid)]
    poses = pose, matrix @ pose
    painted = [damage.painted(empty, placed(*of_one), _MINERAL) for of_one in zip(both, poses, strict=True)]
    scans = []
    for seen in painted:
        soft = damage.blurred(seen, generator.uniform(0.35, 0.6))
        grain = generator.normal(0, noise, shape)
        scans.append(damage.regraded(soft, lambda values, grain=grain: np.rint(values + grain)).volume)
    # Half a voxel of bone at least.
    inside = painted[0].volume.voxels > (_MEDIUM + _MINERAL) / 2
    return of_scans((scans[0], scans[1]), inside, matrix, answerable, {"noise_hu": noise, "wall_mm": wall})
