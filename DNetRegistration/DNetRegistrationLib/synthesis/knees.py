"""Synthetic pairs of scans of several bones, each moved on its own, with the transform of each known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import OptionError, Setting
from ..geometry.transforms import affine_matrix, mean_point_error, rotation_error_deg
from ..imaging.volume import Volume
from .fields import draw_direction, single
from .grid import Grid
from .joint_bones import Group, JointBone, surface_points
from .pairs import SHARED, cut_volume, draw_cut, random_rotation, shared_bone
from .random_bones import Variant, VariantModel
from .scanner import scan
from .session import SCALES, Session
from .tibia import CENTER, Animal, TibiaModel

#: What lies in view: femur, tibia and patella; both tibiae of an animal; a tibia and a calibration phantom.
SCENES = ("knee", "legs", "phantom")
# How frequent scanners of each scale are, in the order of `SCALES`.
_FREQUENCIES = (0.4, 0.35, 0.15, 0.1)
# Cuts are drawn so many times at most until the scans share enough of each large bone.
_MOST_DRAWS = 50
# A bone of at least this share of all bone in view is a large one.
LARGE = 0.15


@dataclass(frozen=True, kw_only=True)
class KneeOptions:
    """What a synthetic scene is like; the keyword arguments of `make_knee`.

    Attributes:
        size: voxels along x, y, z, or one number.
        spacing: mm along x, y, z, or one number.
        scene: one of `SCENES`.
        bend: least and largest angle in degrees by which a bone turns against the first one. That of a knee is its
            flexion.
        contrast: the moving scan is with contrast agent.
        keep: each scan is cut on one side of its box, so that a fraction U(keep, 1) of its bone voxels remains. Both
            still share 40 % of what is seen of each large bone.
        max_translation: the scene moves by U(-this, this) mm along each axis.
        scale, background, clean: as those of `PairOptions`.
    """

    size: int | Sequence[int] = 72
    spacing: float | Sequence[float] = 0.08
    scene: str = "knee"
    bend: tuple[float, float] = (20.0, 90.0)
    contrast: bool = True
    keep: float = 0.7
    max_translation: float = 0.3
    scale: str | None = None
    background: str | None = None
    clean: bool = False

    def __post_init__(self) -> None:
        if self.scene not in SCENES:
            raise OptionError(f"scene {self.scene!r} is unknown", f"give one of {', '.join(SCENES)}")
        if not 0 < self.keep <= 1:
            raise OptionError(f"keep is {self.keep}", "give a fraction above 0 and at most 1", Setting("keep"))


@dataclass(frozen=True)
class SyntheticKnee:
    """Two scans of several bones, and the truth about each.

    Attributes:
        fixed, moving: the scans.
        names: of the bones.
        matrices: ``(n, 4, 4)`` float64, of each bone, fixed to moving points, LPS mm.
        fixed_bones, moving_bones: ``(z, y, x)`` uint8, number of the bone (from 1) in voxels that are at least half
            mineralised tissue, else 0.
        shares: ``(n,)`` share of each bone in the bone that the fixed scan shows.
        shared: ``(n,)`` of each bone, the part of the smaller visible piece that both scans show.
        drawn: what was drawn, in plain numbers and words that JSON can hold.
    """

    fixed: Volume
    moving: Volume
    names: tuple[str, ...]
    matrices: np.ndarray
    fixed_bones: np.ndarray
    moving_bones: np.ndarray
    shares: np.ndarray
    shared: np.ndarray
    drawn: dict

    def error(self, bone: int, matrix: np.ndarray) -> float:
        """Target registration error in mm of a matrix for a bone (from 0), over what the fixed scan shows of it."""
        points = self.fixed.to_world(np.argwhere(self.fixed_bones == bone + 1)[:, ::-1])
        return mean_point_error(matrix, self.matrices[bone], points)


def make_knee(seed: int, **options) -> SyntheticKnee:
    """Draws bones that lie together and scans them twice, each moved on its own; the same for the same arguments.

    Args:
        seed: of everything that is not given.
        options: the fields of `KneeOptions`, by name.

    Raises:
        OptionError: an option has a value that it cannot have.

    Example:
        >>> knee = make_knee(1, size=24, spacing=0.2)
        >>> knee.names, knee.matrices.shape
        (('tibia', 'femur', 'patella'), (3, 4, 4))
    """
    wanted = KneeOptions(**options)
    generator = np.random.default_rng([seed, 31])
    scale = wanted.scale or str(generator.choice(list(SCALES), p=_FREQUENCIES))
    bend = np.radians(generator.uniform(*wanted.bend))
    names, groups = _SCENES[wanted.scene](generator, seed, bend)
    grid = Grid.centered(wanted.size, wanted.spacing)
    given = {"scale": scale, "background": wanted.background, "clean": wanted.clean}
    scans, poses = [], []
    for group, contrast in zip(groups, (False, wanted.contrast), strict=True):
        turn, shift = random_rotation(generator), generator.uniform(-1, 1, 3) * wanted.max_translation
        poses.append(affine_matrix(turn, shift - turn @ CENTER))
        session = Session.draw(int(generator.integers(1 << 62)), group, contrast=contrast, **given)
        scans.append(scan(group, session, grid, poses[-1]))
    labels = [_labels(one.bone, group, grid, pose) for one, group, pose in zip(scans, groups, poses, strict=True)]
    places = [pose @ group.places for group, pose in zip(groups, poses, strict=True)]
    matrices = places[1] @ np.linalg.inv(places[0])
    cuts, shared = _draw_cuts(generator, labels, grid, matrices, wanted.keep)
    fixed, moving = (one[cut] for one, cut in zip(labels, cuts, strict=True))
    counts = np.bincount(fixed.ravel(), minlength=len(names) + 1)[1:]
    turned = [rotation_error_deg(matrices[0][:3, :3], matrix[:3, :3]) for matrix in matrices]
    return SyntheticKnee(
        fixed=cut_volume(scans[0], grid, cuts[0], "fixed scan"),
        moving=cut_volume(scans[1], grid, cuts[1], "moving scan"),
        names=names,
        matrices=matrices,
        fixed_bones=fixed,
        moving_bones=moving,
        shares=counts / max(counts.sum(), 1),
        shared=shared,
        drawn={"seed": seed, "scene": wanted.scene, "scale": scale, "turned_deg": turned, "contrast": wanted.contrast},
    )


def _labels(bone: np.ndarray, group: Group, grid: Grid, pose: np.ndarray) -> np.ndarray:
    """``(z, y, x)`` uint8 number of the bone in each voxel of `bone`, from 1."""
    to_group = np.linalg.inv(pose) @ grid.affine
    at = np.argwhere(bone)
    labels = np.zeros(bone.shape, np.uint8)
    labels[tuple(at.T)] = 1 + group.model().nearest(at[:, ::-1] @ to_group[:3, :3].T + to_group[:3, 3])
    return labels


def _draw_cuts(generator, labels: Sequence[np.ndarray], grid: Grid, matrices: np.ndarray, keep: float):
    """Slices (z, y, x) to keep of both scans, and the share of each bone's smaller visible piece that both show."""
    step = max(1, min(labels[0].shape) // 32)
    coarse = [one[::step, ::step, ::step] for one in labels]
    points = [[np.argwhere(one == bone + 1) * step for one in coarse] for bone in range(len(matrices))]
    sizes = np.array([min(len(p) for p in pair) for pair in points])
    large = sizes >= LARGE * sizes.sum()
    best = None
    for _ in range(_MOST_DRAWS):
        cuts = [draw_cut(generator, one > 0, generator.uniform(keep, 1)) for one in labels]
        shared = np.array(
            [
                shared_bone(pair, (step, step), cuts, (grid, grid), matrix)
                for pair, matrix in zip(points, matrices, strict=True)
            ]
        )
        worst = shared[large].min(initial=1.0)
        if best is None or worst > best[0]:
            best = worst, cuts, shared
        if worst >= SHARED:
            break
    assert best is not None
    return best[1:]


def _knee(generator, seed: int, bend: float) -> tuple[tuple[str, ...], list[Group]]:
    """Tibia, femur and patella, flexed by two angles that differ by `bend` (rad)."""
    bones = [Animal.draw(seed), JointBone.draw("femur", seed), JointBone.draw("patella", seed)]
    models = [bone.model() for bone in bones]
    tibia, femur, _ = models
    surfaces = [surface_points(model) for model in models]
    first = generator.uniform(0, max(np.radians(110) - bend, 0))
    groups = []
    for flexion in generator.permutation([first, first + bend]):
        gap = generator.uniform(0.02, 0.12)
        twist, tilt = generator.normal(0, np.radians([6, 3]))
        knee = np.eye(4)
        knee[:3, :3] = _turn(2, twist) @ _turn(1, tilt) @ _turn(0, flexion)
        # The femur stands on the plateau, somewhat behind its middle.
        on_plateau = affine_matrix(np.eye(3), (*generator.normal(0, 0.05, 2) - (0, 0.15), 0.0))
        start = on_plateau @ knee @ _about(CENTER)
        femur_at = _brought_near(start, (0, 0, 1), surfaces[1], [(tibia, np.eye(4))], gap)
        # The patella slides down the groove as the knee bends.
        slid = affine_matrix(_turn(0, np.radians(45) - 0.5 * flexion), CENTER)
        start = femur_at @ slid @ _about(CENTER)
        outward = (femur_at @ slid)[:3, 1]
        others = [(femur, femur_at), (tibia, np.eye(4))]
        patella_at = _brought_near(start, outward, surfaces[2], others, gap)
        # The joint lies where a tibia's middle would.
        middle = affine_matrix(np.eye(3), CENTER - (0, 0, 0.35))
        groups.append(Group(bones, middle @ np.stack([np.eye(4), femur_at, patella_at]), models))
    return ("tibia", "femur", "patella"), groups


def _legs(generator, seed: int, bend: float) -> tuple[tuple[str, ...], list[Group]]:
    """Both tibiae of an animal side by side."""
    right = Animal.draw(seed)
    return ("tibia", "other tibia"), _beside(generator, [right, right.relative(seed, 0.1).mirrored()], bend)


def _phantom(generator, seed: int, bend: float) -> tuple[tuple[str, ...], list[Group]]:
    """A tibia, and a phantom beside it."""
    return ("tibia", "phantom"), _beside(generator, [Animal.draw(seed), JointBone.draw("phantom", seed)], bend)


_SCENES = {"knee": _knee, "legs": _legs, "phantom": _phantom}


def _beside(generator, bones: Sequence[Animal | Variant], bend: float) -> list[Group]:
    """Two bones side by side; in the second group the other one is turned by `bend` (rad) about some axis."""
    models = [bone.model() for bone in bones]
    first, second = models
    points = surface_points(second)
    axis, groups = draw_direction(generator), []
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    for angle in (0.0, bend):
        turn = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
        start = affine_matrix(turn, CENTER + np.append(0, generator.normal(0, 0.3, 2))) @ _about(CENTER)
        place = _brought_near(start, (1, 0, 0), points, [(first, np.eye(4))], generator.uniform(0.1, 0.6))
        middle = affine_matrix(np.eye(3), (CENTER - place[:3, :3] @ CENTER - place[:3, 3]) * (0.5, 0, 0))
        groups.append(Group(bones, middle @ np.stack([np.eye(4), place]), models))
    return groups


def _brought_near(
    place: np.ndarray,
    direction: Sequence[float],
    points: np.ndarray,
    others: Sequence[tuple[TibiaModel | VariantModel, np.ndarray]],
    gap: float,
) -> np.ndarray:
    """The place of a bone, shifted along a direction until it is `gap` mm away from other bones.

    Args:
        place: ``(4, 4)`` frame of the bone to that of the group.
        direction: ``(3,)`` unit vector, along which the bone comes out of the others.
        points: ``(n, 3)`` of the bone's surface, in its frame.
        others: other bones, each with its place.
        gap: in mm.
    """
    moved = points @ place[:3, :3].T + place[:3, 3]
    low, high = -3.0, 5.0
    for _ in range(14):
        shift = (low + high) / 2
        at = moved + np.asarray(direction) * shift
        inside = max(
            float(other.depths(*single((at - where[:3, 3]) @ where[:3, :3]).T.copy()).outer.max())
            for other, where in others
        )
        low, high = (shift, high) if inside > -gap else (low, shift)
    result = place.copy()
    result[:3, 3] += np.asarray(direction) * high
    return result


def _turn(axis: int, angle: float) -> np.ndarray:
    """``(3, 3)`` rotation about a coordinate axis, by `angle` in radians."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[second, first] = np.sin(angle)
    turn[first, second] = -turn[second, first]
    return turn


def _about(center: np.ndarray) -> np.ndarray:
    """``(4, 4)`` that takes `center` to the origin."""
    return affine_matrix(np.eye(3), -center)
