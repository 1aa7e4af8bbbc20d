"""The kinds of pairs of the contest, and one pair of a kind with all that is known about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from ...geometry.transforms import affine_matrix
from ...imaging.volume import Volume
from ...synthesis.agent import vary_agent
from ...synthesis.grid import Grid
from ...synthesis.pairs import SHARED, cut_volume, draw_cut, random_rotation, shared_bone
from ...synthesis.scanner import Scan, scan, white_noise
from ...synthesis.session import Session
from ...synthesis.tibia import CENTER, Animal
from .bound import efficient_error, fisher_information, relative_covariance

#: Neither those of the benchmark, of comparisons, nor those that the confidence was calibrated on.
FIRST_SEED = 700_000
#: The middle of crops, in the animal's frame: the plateau and the growth plate are in view.
MIDDLE = np.array([0.0, 0.0, -0.8])
#: How far a start near the truth is off: so many degrees about the bone's middle, and one voxel.
START_DEG = 2.0
#: Contrast agent changed a voxel whose value it moved by more than this share of bone's.
CHANGED = 0.01
# Grids are shifted by this share of a voxel, to both sides, to see how values change.
_SHIFT = 0.25
# Cuts are drawn so many times at most until both scans share enough.
_MOST_DRAWS = 50


@dataclass(frozen=True)
class Kind:
    """What pairs of one kind are like.

    Attributes:
        size: voxels along each axis.
        spacing: in mm.
        contrast: the moving scan is with contrast agent.
        crop: the grids lie about the joint, and the bone leaves them on all sides.
        keep: each scan is cut on a side, so that a share U(keep, 1) of its bone remains.
        noise: times that of a usual session.
        uptake: HU that the agent adds to cartilage; drawn when None.
        agent: "even", or "varied" as `synthesis.agent` knows: films on the bone, uptake that grades, halos.
    """

    size: int
    spacing: float
    contrast: bool = True
    crop: bool = False
    keep: float = 1.0
    noise: float = 1.0
    uptake: float | None = None
    agent: str = "even"


KINDS = {
    "80 um plain": Kind(64, 0.08, contrast=False),
    "80 um contrast": Kind(64, 0.08),
    "80 um faint": Kind(64, 0.08, uptake=300.0),
    # Bone has 2500 to 3700 HU.
    "80 um bright": Kind(64, 0.08, uptake=4500.0),
    "80 um varied": Kind(64, 0.08, agent="varied"),
    "80 um cut": Kind(64, 0.08, keep=0.5),
    "80 um noisy": Kind(64, 0.08, noise=4.0),
    "40 um contrast": Kind(96, 0.04, crop=True),
    "25 um plain": Kind(128, 0.025, contrast=False, crop=True),
    "25 um contrast": Kind(128, 0.025, crop=True),
    "25 um varied": Kind(128, 0.025, crop=True, agent="varied"),
    "10 um plain": Kind(256, 0.01, contrast=False, crop=True),
    "10 um contrast": Kind(256, 0.01, crop=True),
}


@dataclass(frozen=True)
class ContestPair:
    """Two scans of one bone, and what is known about them.

    Attributes:
        seed: of the pair.
        fixed, moving: the scans.
        matrix: ``(4, 4)`` the truth, fixed to moving points, LPS mm.
        bone: ``(z, y, x)`` bool, of the fixed scan.
        animal: whose bone.
        sessions, poses: of both scans; poses are ``(4, 4)``, the animal's frame to the world.
    """

    seed: int
    fixed: Volume
    moving: Volume
    matrix: np.ndarray
    bone: np.ndarray
    animal: Animal
    sessions: tuple[Session, Session]
    poses: tuple[np.ndarray, np.ndarray]

    @cached_property
    def points(self) -> np.ndarray:
        """``(n, 3)`` positions of the fixed scan's bone voxels, LPS mm."""
        return self.fixed.to_world(np.argwhere(self.bone)[:, ::-1])

    @property
    def contrast(self) -> bool:
        """Whether contrast agent is in the moving scan."""
        return self.sessions[1].uptake > 0 or self.sessions[1].soaked > 0

    def errors_um(self, matrix: np.ndarray) -> tuple[float, float]:
        """Target registration error of a ``(4, 4)`` matrix, and its mean along the bone's axis, proximal positive; um.

        The displacement is taken in the fixed scan. Positive: the bone without contrast agent lies too far toward the
        plateau, as when it follows a bright layer on it.
        """
        away = np.linalg.inv(self.matrix) @ matrix
        moved = self.points @ (away[:3, :3] - np.eye(3)).T + away[:3, 3]
        along = moved @ self.poses[0][:3, 2]
        return 1000 * float(np.linalg.norm(moved, axis=1).mean()), 1000 * float(along.mean())

    def near_start(self) -> np.ndarray:
        """``(4, 4)``: the truth turned by `START_DEG` about the bone's middle and shifted by a voxel, any way."""
        generator = np.random.default_rng([self.seed, 31])
        axis, way = (v / np.linalg.norm(v) for v in generator.standard_normal((2, 3)))
        turn = Rotation.from_rotvec(START_DEG * axis, degrees=True).as_matrix()
        center = self.points.mean(0)
        return self.matrix @ affine_matrix(turn, center - turn @ center + float(self.fixed.spacing.max()) * way)

    @cached_property
    def changed(self) -> tuple[np.ndarray, np.ndarray]:
        """``(z, y, x)`` bool of both scans: where contrast agent changes the moving one, and the same tissue before."""
        session = _quiet(self.sessions[1])
        without = _without_agent(session)
        return tuple(
            np.abs(self._rendered(volume, pose, session) - self._rendered(volume, pose, without))
            > CHANGED * session.bone
            for volume, pose in zip((self.fixed, self.moving), self.poses, strict=True)
        )

    def agent_removed(self) -> Volume:
        """The moving scan as it would be without contrast agent."""
        grid = Grid(tuple(int(n) for n in self.moving.size), self.moving.affine)
        voxels = scan(self.animal, _without_agent(self.sessions[1]), grid, self.poses[1]).voxels
        return Volume(voxels, self.moving.affine, self.moving.name)

    def informations(self) -> tuple[np.ndarray, np.ndarray]:
        """``(6, 6)`` Fisher information of both scans about the bone's pose, see `bound.fisher_information`.

        About motions in the fixed scan's world, about the bone's middle. Edges of bone against marrow and medium count,
        since other tissue moves between scans, and no voxel that contrast agent changed.
        """
        center, found = self.points.mean(0), []
        for number, session in enumerate(self.sessions):
            volume, pose, bone = (self.fixed, self.moving)[number], self.poses[number], _bone_alone(session)
            values = self._rendered(volume, pose, bone) - session.medium
            gradient = np.stack([self._slope(volume, pose, bone, axis) for axis in range(3)], -1)
            used = (np.abs(gradient).max(-1) > 0) | (np.abs(values) > 1)
            if self.contrast:
                used &= ~self.changed[number]
            points = volume.to_world(np.argwhere(used)[:, ::-1])
            to_fixed = np.eye(4) if number == 0 else np.linalg.inv(self.matrix)
            points = points @ to_fixed[:3, :3].T + to_fixed[:3, 3] - center
            gradient = gradient[used] @ (to_fixed[:3, :3] @ volume.direction).T
            found.append(fisher_information(points, gradient, values[used], white_noise(session, volume.spacing)))
        return tuple(found)

    def bound_um(self) -> float:
        """The median target error, um, of estimates that reach the Cramer-Rao bound."""
        covariance = relative_covariance(*self.informations())
        return 1000 * efficient_error(covariance, self.points - self.points.mean(0))

    def _rendered(
        self, volume: Volume, pose: np.ndarray, session: Session, shift: np.ndarray | None = None
    ) -> np.ndarray:
        """The scan's image in HU, float64, by another session; its voxels shifted along its axes by so many mm."""
        affine = volume.affine.copy()
        if shift is not None:
            affine[:3, 3] += volume.direction @ shift
        grid = Grid(tuple(int(n) for n in volume.size), affine)
        return _to_hu(scan(self.animal, session, grid, pose).voxels)

    def _slope(self, volume: Volume, pose: np.ndarray, session: Session, axis: int) -> np.ndarray:
        step = _SHIFT * volume.spacing[axis] * np.eye(3)[axis]
        after, before = (self._rendered(volume, pose, session, way * step) for way in (1, -1))
        return (after - before) / (2 * step[axis])


def make(kind: Kind, seed: int) -> ContestPair:
    """Makes a pair; the same for the same kind and seed. Pairs of one seed show the same animal at the same poses."""
    generator = np.random.default_rng([FIRST_SEED + seed, 30])
    seeds = [int(s) for s in generator.integers(1 << 62, size=3)]
    animal = Animal.draw(seeds[0], kind.agent == "varied")
    grid = Grid.centered(kind.size, kind.spacing)
    turn, relative = random_rotation(generator), random_rotation(generator)
    # Crops stay on the joint.
    reach = 0.1 if kind.crop else 0.25
    jitter, shift = generator.uniform(-1, 1, (2, 3)) * reach
    matrix = affine_matrix(relative, shift)
    pose = affine_matrix(turn, jitter - turn @ (MIDDLE if kind.crop else CENTER))
    poses = pose, matrix @ pose
    sessions = tuple(
        _session(s, animal, contrast, kind) for s, contrast in zip(seeds[1:], (False, kind.contrast), strict=True)
    )
    scans = [scan(animal, session, grid, at) for session, at in zip(sessions, poses, strict=True)]
    cuts = _cuts(generator, scans, grid, matrix, kind.keep)
    fixed, moving = (
        cut_volume(one, grid, cut, f"{role} scan")
        for one, cut, role in zip(scans, cuts, ("fixed", "moving"), strict=True)
    )
    return ContestPair(FIRST_SEED + seed, fixed, moving, matrix, scans[0].bone[cuts[0]], animal, sessions, poses)


def _session(seed: int, animal: Animal, contrast: bool, kind: Kind) -> Session:
    session = Session.draw(seed, animal, contrast=contrast)
    if kind.agent == "varied":
        session = vary_agent(session, animal, contrast)
    session = replace(session, noise=session.noise * kind.noise)
    return replace(session, uptake=kind.uptake) if kind.uptake is not None and contrast else session


def _cuts(generator, scans: list[Scan], grid: Grid, matrix: np.ndarray, keep: float):
    step = max(1, grid.size[0] // 32)
    points = [np.argwhere(one.bone[::step, ::step, ::step]) * step for one in scans]
    drawn = []
    for _ in range(_MOST_DRAWS):
        cuts = [draw_cut(generator, one.bone, generator.uniform(keep, 1)) for one in scans]
        shared = shared_bone(points, [step, step], cuts, [grid, grid], matrix)
        drawn.append((shared, cuts))
        if shared >= SHARED or keep == 1:
            break
    return max(drawn, key=lambda one: one[0])[1]


# A ligament without agent is brighter than soft tissue by this at most, HU.
_STRAND = 200.0
# Attenuation, which is not rounded, is 0.45 / cm for water.
_WATER, _PER_HU = 0.45, 0.45e-3


def _to_hu(attenuation: np.ndarray) -> np.ndarray:
    return (attenuation.astype(np.float64) - _WATER) / _PER_HU


def _quiet(session: Session) -> Session:
    """A session of a scanner without noise, artefacts and rounding."""
    return replace(session, scale="attenuation", gain=1.0, noise=0.0, rings=0.0, cupping=0.0, circle=None)


def _without_agent(session: Session) -> Session:
    """The session before agent came: tissue is as it was, but what the bath has taken up stays."""
    film = None if session.film is None else replace(session.film, agent=0.0)
    strands = tuple(replace(s, brightness=min(s.brightness, session.soft + _STRAND)) for s in session.strands)
    return replace(session, uptake=0.0, soaked=0.0, film=film, strands=strands)


def _bone_alone(session: Session) -> Session:
    """Bone and its marrow alone in the session's medium, as before the blur."""
    return replace(
        _quiet(session), blur=0.0, soft=session.medium, cartilage=session.medium, uptake=0.0, soaked=0.0, muscle=-9.0,
        fragments=(), strands=(), surface=None, tube=None, film=None, hardening=0.0,
    )  # fmt: skip
