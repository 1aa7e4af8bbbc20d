"""Synthetic pairs of scans of one bone, with the transform between them known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..core.errors import OptionError, Setting
from ..geometry.transforms import affine_matrix, mean_point_error, rotation_error_deg
from ..imaging.volume import Volume
from .agent import AGENTS, vary_agent
from .cartilage import Cartilage, true_cartilage
from .grid import Grid
from .random_bones import Variant, draw_animal
from .scanner import Scan, scan
from .session import BACKGROUNDS, SCALES, Session
from .tibia import CENTER, Animal

# Cut scans of a pair share at least this fraction of the smaller one's visible bone: the field of view of a repeated
# scan is aimed at the same joint, and with less there is nothing to align.
SHARED = 0.4
# Cuts are drawn so many times at most until the scans share as much.
_MOST_DRAWS = 50
# The middle of the tibial plateau in the animal's frame, mm.
JOINT = (0.0, -0.1, 0.0)
IMPOSTORS = ("animal", "relative", "mirror")
ROTATIONS = ("uniform", "axis-angle")
# How frequent scanners of each scale are, in the order of `SCALES`.
_FREQUENCIES = (0.4, 0.35, 0.15, 0.1)


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """What a synthetic pair is like; the keyword arguments of `make_pair`.

    Attributes:
        size: voxels along x, y, z, or one number.
        spacing: mm along x, y, z, or one number.
        contrast: the moving scan is with contrast agent.
        keep: each scan is cut on one side of its box, a side drawn at random, so that a fraction U(keep, 1) of its
            bone voxels remains; 1 cuts nothing. Sizes become unequal. Both still share `SHARED` of the smaller one's.
        max_translation: the bone moves by U(-this, this) mm along each axis, relative to the (uncut) grids' centres.
        rotations: "uniform" over SO(3), or "axis-angle", the paper's angle U(-pi, pi) about a uniform axis (Sec. 2.3).
        max_angle: largest relative rotation in radians; less than pi draws "axis-angle" within it.
        matrix: ``(4, 4)`` fixed to moving points, LPS mm, instead of a drawn one.
        kind: of bone, "tibia" or one of `random_bones.KINDS`.
        impostor: the moving scan is of another "animal", of a "relative" in shape space, or of the "mirror" image.
        relative_amount: how far the relative is, 0 to 1.
        fixed_animal, moving_animal: scan these instead; they make an impostor when they differ.
        fixed_grid, moving_grid: scan these grids instead of `size` and `spacing` about the world's origin.
        scale: "hu", "raw", "byte" or "attenuation"; drawn when None. Both scans are from one scanner.
        background: "air", "water" or "fixative"; drawn for each scan when None.
        circle: reconstruct only within a cylinder of this radius over half the grid's width; outside is NaN (float
            scans) or the lowest value.
        clean: bone and cartilage alone in air, without noise or artefacts (cartilage in air looks like water).
        agent: "even" in cartilage and soft tissue, or "varied" in every way that `agent.vary_agent` knows, on tibiae
            whose joint surface varies as `joint_surface` says.
        focus: ``(3,)`` point of the animal's frame that the grids' middles look at, mm; `JOINT` is the tibial plateau.
    """

    size: int | Sequence[int] = 64
    spacing: float | Sequence[float] = 0.08
    contrast: bool = True
    keep: float = 1.0
    max_translation: float = 0.64
    rotations: str = "uniform"
    max_angle: float = np.pi
    matrix: np.ndarray | None = None
    kind: str = "tibia"
    impostor: str | None = None
    relative_amount: float = 0.3
    fixed_animal: Animal | Variant | None = None
    moving_animal: Animal | Variant | None = None
    fixed_grid: Grid | None = None
    moving_grid: Grid | None = None
    scale: str | None = None
    background: str | None = None
    circle: float | None = None
    clean: bool = False
    agent: str = "even"
    focus: Sequence[float] = tuple(CENTER)

    def __post_init__(self) -> None:
        for name, known in (("impostor", IMPOSTORS), ("scale", SCALES), ("background", BACKGROUNDS)):
            _require_known(name, getattr(self, name), (None, *known))
        _require_known("agent", self.agent, AGENTS)
        _require_known("rotations", self.rotations, ROTATIONS)
        if not 0 < self.keep <= 1:
            raise OptionError(f"keep is {self.keep}", "give a fraction above 0 and at most 1", Setting("keep"))

    @property
    def grids(self) -> tuple[Grid, Grid]:
        """Of the fixed and the moving scan, before they are cut."""
        fixed, moving = (grid or Grid.centered(self.size, self.spacing) for grid in (self.fixed_grid, self.moving_grid))
        return fixed, moving


@dataclass(frozen=True)
class SyntheticPair:
    """Two scans and the truth about them.

    Attributes:
        fixed, moving: the scans. By default, only the moving one is with contrast agent.
        matrix: ``(4, 4)`` float64, fixed to moving points, LPS mm. For an impostor, the poses' relation only.
        same: whether both are scans of one bone.
        fixed_bone, moving_bone: ``(z, y, x)`` bool, voxels at least half mineralised tissue of the tibia or fibula.
        fixed_cartilage, moving_cartilage: ``(z, y, x)`` uint8 volume fraction of articular cartilage, 255 for all.
        fixed_pose, moving_pose: ``(4, 4)`` float64, the animal's frame to the world.
        fixed_animal, moving_animal: the same object unless this is an impostor.
        fixed_session, moving_session: what lay around them in the scanner.
        drawn: what was drawn, in plain numbers and words that JSON can hold.
    """

    fixed: Volume
    moving: Volume
    matrix: np.ndarray
    same: bool
    fixed_bone: np.ndarray
    moving_bone: np.ndarray
    fixed_cartilage: np.ndarray
    moving_cartilage: np.ndarray
    fixed_pose: np.ndarray
    moving_pose: np.ndarray
    fixed_animal: Animal | Variant
    moving_animal: Animal | Variant
    fixed_session: Session
    moving_session: Session
    drawn: dict

    @cached_property
    def cartilage(self) -> Cartilage:
        """The true cartilage of the fixed scan's bone, in the fixed scan's world, LPS mm; in or out of view."""
        return true_cartilage(self.fixed_animal, session=self.moving_session).moved(self.fixed_pose)


def make_pair(seed: int, **options) -> SyntheticPair:
    """Draws a tibia and scans it twice, in any orientation; the same for the same arguments.

    Args:
        seed: of everything that is not given.
        options: the fields of `PairOptions`, by name; ``help(DNetRegistrationLib.synthesis.pairs.PairOptions)``.

    Raises:
        OptionError: an option has a value that it cannot have.

    Example:
        >>> pair = make_pair(1, size=16, spacing=0.3, contrast=False)
        >>> pair.fixed.voxels.shape, pair.matrix.shape, pair.same
        ((16, 16, 16), (4, 4), True)
    """
    wanted = PairOptions(**options)
    # The order of draws decides what a seed gives.
    generator = np.random.default_rng([seed, 0])
    seeds = [int(s) for s in generator.integers(1 << 62, size=4)]
    scale = str(generator.choice(list(SCALES), p=_FREQUENCIES))
    scale = wanted.scale or scale
    animals = _draw_animals(wanted, *seeds[:2])
    grids = wanted.grids
    matrix, poses = _draw_poses(wanted, generator, grids)
    sessions = _draw_sessions(wanted, scale, animals, seeds[2:])
    fixed, moving = scans = [scan(*one) for one in zip(animals, sessions, grids, poses, strict=True)]
    cuts, shared = _draw_cuts(generator, scans, grids, matrix, wanted.keep)
    drawn = {
        "seed": seed,
        "scale": scale,
        "backgrounds": [session.background for session in sessions],
        "contrast": bool(wanted.contrast),
        "agent": wanted.agent,
        "uptake_hu": sessions[1].uptake,
        "noise_hu": [session.noise for session in sessions],
        "fragments": [len(session.fragments) for session in sessions],
        "rotation_deg": rotation_error_deg(np.eye(4), matrix),
        "shift_mm": (matrix[:3, :3] @ grids[0].center + matrix[:3, 3] - grids[1].center).tolist(),
        "shared": shared,
        "impostor": wanted.impostor,
        "kind": wanted.kind,
        "osteoarthritis": animals[0].osteoarthritis,
        "left": animals[0].left,
    }
    return SyntheticPair(
        fixed=cut_volume(fixed, grids[0], cuts[0], "fixed scan"),
        moving=cut_volume(moving, grids[1], cuts[1], "moving scan"),
        matrix=matrix,
        same=animals[1] is animals[0],
        fixed_bone=fixed.bone[cuts[0]],
        moving_bone=moving.bone[cuts[1]],
        fixed_cartilage=fixed.cartilage[cuts[0]],
        moving_cartilage=moving.cartilage[cuts[1]],
        fixed_pose=poses[0],
        moving_pose=poses[1],
        fixed_animal=animals[0],
        moving_animal=animals[1],
        fixed_session=sessions[0],
        moving_session=sessions[1],
        drawn=drawn,
    )


def target_registration_error(pair: SyntheticPair, matrix) -> float:
    """The target registration error of an alignment of a synthetic pair.

    Args:
        pair: with the truth.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.

    Returns:
        The mean distance in mm, over the fixed scan's bone voxels, between where `matrix` puts them and where they are.
    """
    points = pair.fixed.to_world(np.argwhere(pair.fixed_bone)[:, ::-1])
    return mean_point_error(matrix, pair.matrix, points)


def random_rotation(generator: np.random.Generator, rotations: str = "uniform", max_angle: float = np.pi) -> np.ndarray:
    """Draws a rotation.

    Args:
        generator: draws.
        rotations: "uniform" on SO(3), or "axis-angle": an angle U(-`max_angle`, `max_angle`) about a uniform axis, as
            in the paper (Sec. 2.3).
        max_angle: in radians; less than pi draws "axis-angle".

    Returns:
        ``(3, 3)`` float64.

    Raises:
        OptionError: unknown `rotations`.
    """
    _require_known("rotations", rotations, ROTATIONS)
    if rotations == "uniform" and max_angle >= np.pi:
        w, x, y, z = (q := generator.standard_normal(4)) / np.linalg.norm(q)
    else:
        half = generator.uniform(-max_angle, max_angle) / 2
        axis = generator.standard_normal(3)
        w, (x, y, z) = np.cos(half), np.sin(half) * axis / np.linalg.norm(axis)
    # Written out, since SciPy's rotations differ in the last bit, and with them every pair that a seed gives.
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _require_known(name: str, value, known: Sequence) -> None:
    if value not in known:
        values = ", ".join(str(one) for one in known if one is not None)
        raise OptionError(f"{name} {value!r} is unknown", f"give one of {values}", Setting(name))


def _draw_animals(wanted: PairOptions, fixed_seed: int, moving_seed: int) -> list[Animal | Variant]:
    """The bones of the fixed and the moving scan; one object unless they are impostors."""
    varied = wanted.agent == "varied"
    fixed = wanted.fixed_animal or draw_animal(wanted.kind, fixed_seed, varied)
    if wanted.moving_animal is not None:
        return [fixed, wanted.moving_animal]
    if wanted.impostor is None:
        return [fixed, fixed]
    if wanted.impostor == "animal":
        return [fixed, draw_animal(wanted.kind, moving_seed, varied)]
    if wanted.impostor == "mirror":
        return [fixed, fixed.mirrored()]
    if isinstance(fixed, Variant):
        remedy = "give impostor animal or mirror, or kind tibia"
        raise OptionError(f"bones of the kind {fixed.kind!r} have no relatives", remedy, Setting("impostor"))
    return [fixed, fixed.relative(moving_seed, wanted.relative_amount)]


def _draw_poses(wanted: PairOptions, generator, grids: Sequence[Grid]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The ``(4, 4)`` truth, fixed to moving points, and the animal's poses in both worlds."""
    turn, relative = random_rotation(generator), random_rotation(generator, wanted.rotations, wanted.max_angle)
    jitter = generator.uniform(-1, 1, 3) * min(0.25, wanted.max_translation)
    shift = generator.uniform(-1, 1, 3) * wanted.max_translation
    pose = affine_matrix(turn, grids[0].center + jitter - turn @ np.asarray(wanted.focus, float))
    matrix = wanted.matrix
    if matrix is None:
        matrix = affine_matrix(relative, grids[1].center + shift - relative @ grids[0].center)
    matrix = np.array(matrix, float)
    return matrix, [pose, matrix @ pose]


def _draw_sessions(wanted: PairOptions, scale: str, animals, seeds: Sequence[int]) -> list[Session]:
    given = {"scale": scale, "background": wanted.background, "circle": wanted.circle, "clean": wanted.clean}
    contrasts = (False, wanted.contrast)
    sessions = [
        Session.draw(seed, animal, contrast=contrast, **given)
        for seed, animal, contrast in zip(seeds, animals, contrasts, strict=True)
    ]
    if wanted.agent == "even" or wanted.clean:
        return sessions
    return [vary_agent(*one) for one in zip(sessions, animals, contrasts, strict=True)]


def cut_volume(scanned: Scan, grid: Grid, cut: tuple[slice, ...], name: str) -> Volume:
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [c.start for c in reversed(cut)]
    return Volume(scanned.voxels[cut], affine, name)


def _draw_cuts(generator, scans: Sequence[Scan], grids: Sequence[Grid], matrix: np.ndarray, keep: float):
    """Slices (z, y, x) to keep of both scans, and the share of the smaller visible bone that both show."""
    # Some thousand points suffice to measure the overlap.
    steps = [max(1, min(one.bone.shape) // 32) for one in scans]
    points = [np.argwhere(one.bone[::s, ::s, ::s]) * s for one, s in zip(scans, steps, strict=True)]
    best = None
    for _ in range(_MOST_DRAWS if keep < 1 else 1):
        cuts = [draw_cut(generator, one.bone, generator.uniform(keep, 1)) for one in scans]
        shared = shared_bone(points, steps, cuts, grids, matrix)
        if best is None or shared > best[1]:
            best = cuts, shared
        if shared >= SHARED:
            return cuts, shared
    return best


def draw_cut(generator, bone: np.ndarray, fraction: float) -> tuple[slice, ...]:
    """Slices that keep about a fraction of the bone, cut on a side drawn at random."""
    cut = [slice(0, n) for n in bone.shape]
    axis, from_low = int(generator.integers(3)), bool(generator.integers(2))
    if fraction < 1:
        count = bone.sum(tuple(a for a in range(3) if a != axis)).astype(float)
        total = np.cumsum(count if from_low else count[::-1])
        kept = max(int(np.searchsorted(total, fraction * total[-1])) + 1, min(8, count.size))
        cut[axis] = slice(0, kept) if from_low else slice(count.size - kept, count.size)
    return tuple(cut)


def shared_bone(points, steps, cuts, grids, matrix) -> float:
    """The share of the smaller visible bone that both scans show, by every n-th voxel of bone (`points`, `steps`)."""

    def inside(index, cut):
        return np.all([(index[:, a] >= cut[a].start) & (index[:, a] <= cut[a].stop - 1) for a in range(3)], axis=0)

    seen = [p[inside(p, cut)] for p, cut in zip(points, cuts, strict=True)]
    # Points of the smaller visible bone are taken into the other scan.
    volumes = [len(s) * np.prod(g.spacing) * step**3 for s, g, step in zip(seen, grids, steps, strict=True)]
    small = int(volumes[1] < volumes[0])
    world = matrix if small == 0 else np.linalg.inv(matrix)
    other = np.linalg.inv(grids[1 - small].affine) @ world @ grids[small].affine
    index = seen[small][:, ::-1] @ other[:3, :3].T + other[:3, 3]
    return float(inside(index[:, ::-1], cuts[1 - small]).mean()) if len(index) else 0.0
