"""A micro-CT session: what lies around the bone, and what the scanner makes of it.

Intensities are Hounsfield units (air -1000, water 0) until the last step, which turns them into the numbers of the
scanner at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Arrays
from .shape import Waves
from .tibia import CENTER, Animal

if TYPE_CHECKING:
    from .random_bones import Variant, VariedBone
    from .tibia import Bone

# Voxels are cut into samples of at most this edge (mm) before averaging: about half a trabecula.
_SAMPLE = 0.03
# A voxel up to this edge is one sample: the ramps at its surfaces say enough.
_SINGLE = 0.0125
# Voxels in a slab; memory stays within a few float32 copies of this, whatever the size of the scan. What surrounds the
# bone is computed in sheets of a slab that fit a cache.
_SLAB, _SHEET = 1 << 23, 1 << 18

# How scanners write Hounsfield units: gain, offset, dtype. "raw" puts water at 1000, so that dense solution and muscle
# stay below the paper's threshold of 2000; "attenuation" is in 1/cm.
SCALES = {
    "hu": (1.0, 0.0, "int16"),
    "raw": (1.0, 1000.0, "uint16"),
    "byte": (255 / 5500, 1000 * 255 / 5500, "uint8"),
    "attenuation": (0.45e-3, 0.45, "float32"),
}

BACKGROUNDS = ("air", "water", "fixative")


@dataclass(frozen=True)
class Grid:
    """Where a scan has its voxels: size (x, y, z) and the index-to-world affine (mm)."""

    size: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def centered(cls, size, spacing, direction=None, center=(0.0, 0.0, 0.0)) -> Grid:
        """A grid by the world position of its middle; size and spacing along x, y, z or one number for all."""
        size = tuple(int(n) for n in np.broadcast_to(size, 3))
        affine = np.eye(4)
        direction = np.eye(3) if direction is None else np.asarray(direction, float)
        affine[:3, :3] = direction * np.broadcast_to(spacing, 3)
        affine[:3, 3] = np.asarray(center, float) - affine[:3, :3] @ ((np.array(size) - 1) / 2)
        return cls(size, affine)

    @property
    def spacing(self) -> np.ndarray:
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def center(self) -> np.ndarray:
        return self.affine[:3, :3] @ ((np.array(self.size) - 1) / 2) + self.affine[:3, 3]


@dataclass(frozen=True)
class Fragment:
    """A broken piece of bone: a lumpy ellipsoid in the animal's frame."""

    center: np.ndarray
    axes: np.ndarray  # (3, 3) rows: directions over half lengths
    lumps: Waves
    face: float  # where it broke: a flat cut across its first axis, over the half length
    brightness: float


@dataclass(frozen=True)
class Strand:
    """A remnant of ligament or tendon between two points of the animal's frame."""

    start: np.ndarray
    end: np.ndarray
    radius: float
    brightness: float


@dataclass(frozen=True)
class Session:
    """One visit to the scanner. Intensities in HU, lengths in mm."""

    seed: int
    scale: str
    gain: float
    background: str
    medium: float  # of the liquid (or air) around the bone
    bone: float
    marrow: float
    soft: float
    cartilage: float
    uptake: float  # contrast in cartilage, on top
    soaked: float  # contrast in soft tissue, on top
    muscle: float  # how much soft tissue is left: a level of a unit normal field
    muscle_waves: Waves
    soak_waves: Waves
    fibre_waves: Waves
    fragments: tuple[Fragment, ...]
    strands: tuple[Strand, ...]
    surface: tuple[np.ndarray, float] | None  # of the liquid, air beyond: normal (animal's frame), distance along it
    tube: tuple[np.ndarray, np.ndarray, float, float] | None  # point, axis (animal's frame), inner radius, wall
    blur: float  # point spread, standard deviation in voxels
    noise: float
    rings: float
    cupping: float
    circle: float | None  # radius of the reconstructed cylinder over half the grid; outside is NaN or the lowest value

    @classmethod
    def draw(
        cls, seed: int, animal: Animal | Variant, *, contrast=False, scale="hu", background=None, clean=False
    ) -> Session:
        """A session of an animal; the same for the same arguments. `clean`: bone alone, in air, unblurred, no noise."""
        generator = np.random.default_rng([seed, 4])
        uniform = generator.uniform
        if background is None:
            background = str(generator.choice(BACKGROUNDS, p=[0.15, 0.35, 0.5]))
        medium = {"air": -1000.0, "water": uniform(-20, 40), "fixative": uniform(150, 700)}[background]
        soft = uniform(40, 160) + (uniform(0, 250) if generator.random() < 0.3 else 0)
        washout = uniform(0, 1)
        # What stays from session to session: how dense the bone is, and the remnants that stick to it; others move.
        lasting = np.random.default_rng([animal.structure, 5])
        stuck = Waves.draw(lasting, 8, 2.2, 0.4)
        moved = Waves.draw(generator, 8, 1.8, 0.4)
        muscle_waves = Waves(np.hstack((stuck.vectors, moved.vectors)), np.hstack((stuck.phases, moved.phases)))
        bone = animal.bone(Arrays())
        session = cls(
            seed=seed,
            scale=scale,
            gain=uniform(0.97, 1.03),
            background=background,
            medium=medium,
            bone=lasting.uniform(2500, 3700),
            marrow=lasting.uniform(-60, 80),
            soft=soft,
            cartilage=soft + uniform(-20, 60),
            uptake=uniform(700, 4500) * (1 - 0.6 * washout) if contrast else 0.0,
            soaked=uniform(150, 1300) * (1 - washout) + 40 if contrast else 0.0,
            muscle=generator.normal(0.2, 0.8),
            muscle_waves=muscle_waves,
            soak_waves=Waves.draw(generator, 10, 1.6, 0.5),
            fibre_waves=_fibres(generator),
            fragments=tuple(_fragment(generator, bone) for _ in range(generator.poisson(2.2))),
            strands=tuple(_strand(generator, bone, soft) for _ in range(generator.integers(0, 5))),
            surface=(_direction(generator), uniform(1.0, 2.4)) if generator.random() < 0.35 else None,
            tube=_tube(generator) if generator.random() < 0.75 else None,
            blur=uniform(0.35, 0.6),
            noise=float(np.exp(uniform(np.log(60), np.log(260)))),
            rings=uniform(0, 1) ** 2,
            cupping=uniform(0, 0.08),
            circle=None,
        )
        if clean:
            session = replace(
                session, gain=1.0, background="air", medium=-1000.0, uptake=0.0, soaked=0.0, muscle=-9.0, fragments=(),
                strands=(), surface=None, tube=None, blur=0.0, noise=0.0, rings=0.0, cupping=0.0,
            )  # fmt: skip
        return session


def _direction(generator) -> np.ndarray:
    vector = generator.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _outside(generator, bone: Bone | VariedBone, clearance: float, reach: float) -> np.ndarray:
    """A point at least `clearance` and, if it can be, at most `clearance + reach` off the bone."""
    points = generator.uniform((-2.4, -2.2, -3.6), (2.4, 2.2, 1.6), (400, 3)).astype(np.float32)
    depth = bone.depths(*points.T.copy()).outer
    usable = np.flatnonzero((depth < -clearance) & (depth > -clearance - reach))
    return points[usable[0] if usable.size else depth.argmin()].astype(float)


def _fragment(generator, bone: Bone) -> Fragment:
    size = np.exp(generator.normal(np.log(0.13), 0.45))
    halves = np.clip(size * np.exp(generator.normal(0, 0.35, 3)), 0.04, 0.45)
    turn, _ = np.linalg.qr(generator.standard_normal((3, 3)))
    center = _outside(generator, bone, 1.25 * halves.max() + 0.02, 0.9)
    lumps = Waves.draw(generator, 12, 0.35, 0.4)
    return Fragment(center, turn / halves[:, None], lumps, generator.uniform(-0.1, 1.2), generator.uniform(0.55, 1.0))


def _strand(generator, bone: Bone | VariedBone, soft: float) -> Strand:
    """From the rim or the eminence upward, as patellar, collateral and cruciate ligaments leave it."""
    angle = generator.choice([np.pi / 2, 0, np.pi, -np.pi / 2]) + generator.normal(0, 0.3)
    rim = np.array([1.5 * np.cos(angle), 1.05 * np.sin(angle), generator.uniform(-0.6, -0.2)])
    if generator.random() < 0.3:
        rim = np.array([generator.normal(0, 0.2), generator.normal(0, 0.3), 0.2])
    away = np.array([0.4 * np.cos(angle), 0.4 * np.sin(angle), 1.0]) + generator.normal(0, 0.4, 3)
    end = rim + away * generator.uniform(0.5, 1.3)
    return Strand(rim, end, generator.uniform(0.1, 0.28), soft + generator.uniform(20, 200))


def _fibres(generator) -> Waves:
    """The grain of muscle, along no particular direction, of widely varying width."""
    waves = Waves.draw(generator, 48, 0.32, 0.9, (1, 1, 3.5))
    turn, _ = np.linalg.qr(generator.standard_normal((3, 3)))
    return replace(waves, vectors=turn @ waves.vectors)


def _tube(generator) -> tuple[np.ndarray, np.ndarray, float, float]:
    axis = np.array([0, 0, 1]) + generator.normal(0, 0.15, 3)
    center = np.array([*generator.normal(0, 0.2, 2), -1.5])
    return center, axis / np.linalg.norm(axis), generator.uniform(2.3, 3.4), generator.uniform(0.12, 0.35)


@dataclass(frozen=True)
class Scan:
    """What a session yields, arrays ``(z, y, x)`` of the library that computed them.

    Attributes:
        voxels: intensities in the scanner's scale.
        bone: true where at least half of the voxel is mineralised tissue of the tibia or fibula (not of fragments).
        cartilage: volume fraction of articular cartilage as uint8, 255 for all.
    """

    voxels: object
    bone: object
    cartilage: object


def scan(animal: Animal | Variant, session: Session, grid: Grid, pose: np.ndarray, device: str | None = None) -> Scan:
    """Scans an animal: the box average of the object over every voxel, seen through the session's scanner.

    Args:
        pose: ``(4, 4)`` rigid, the animal's frame to the world (LPS mm).
        device: None for NumPy, or a torch device such as "cpu" or "cuda".
    """
    return _Scanner(animal, session, grid, pose, Arrays(device)).scan()


class _Scanner:
    def __init__(self, animal, session, grid, pose, arrays: Arrays) -> None:
        self.session, self.grid, self.arrays, self.xp = session, grid, arrays, arrays.xp
        self.bone = animal.bone(arrays)
        # Index to the animal's frame, in float64: the pose is exact, and points are near the frame's origin.
        self.affine = np.linalg.inv(pose) @ grid.affine
        self.radius = int(np.ceil(3 * session.blur)) if session.blur else 0
        self.size = np.array(grid.size) + 2 * self.radius  # padded, so that the blur sees no edge
        self.spacing = grid.spacing
        self.counts = np.ceil(self.spacing / _SAMPLE - 1e-6).astype(int)
        self.counts[self.spacing > _SINGLE] = np.maximum(self.counts[self.spacing > _SINGLE], 2)
        self.generator = arrays.generator(np.random.default_rng([session.seed, 6]).integers(1 << 62))

    def scan(self) -> Scan:
        arrays, session, radius = self.arrays, self.session, self.radius
        nx, ny, nz = self.grid.size
        gain, offset, dtype = SCALES[session.scale]
        voxels = arrays.zeros((nz, ny, nx), dtype if arrays.device is None or dtype != "uint16" else "int32")
        bone = arrays.zeros((nz, ny, nx), "bool")
        cartilage = arrays.zeros((nz, ny, nx), "uint8")
        near = self._near_bone()
        shading, rings = self._artefacts()
        thickness = max(1, _SLAB // int(self.size[0] * self.size[1]))
        for low in range(0, nz, thickness):
            high = min(low + thickness, nz)
            slab, mineral, share = self._slab(low - radius, high + radius, near)
            if session.noise:
                slab += self._noise(slab.shape)
            slab = self._blurred(slab)
            heights = arrays.array(np.cos(np.arange(low, high) * 0.35 + session.seed % 7))
            slab = (slab + 1000) * shading - 1000 + rings * (1 + 0.3 * heights[:, None, None])
            slab = slab * (gain * session.gain) + offset * (session.gain if session.scale == "attenuation" else 1)
            voxels[low:high] = self._typed(slab, dtype)
            inner = slice(radius, -radius or None)
            bone[low:high] = mineral[inner, inner, inner] >= 0.5
            cartilage[low:high] = arrays.cast(share[inner, inner, inner] * 255 + 0.5, "uint8")
        return Scan(self._in_circle(voxels), bone, cartilage)

    def _typed(self, values, dtype):
        if dtype == "float32":
            return values
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        values = self.xp.clip(self.xp.round(values), low, high)
        return self.arrays.cast(values, dtype if self.arrays.device is None or dtype != "uint16" else "int32")

    def _in_circle(self, voxels):
        if self.session.circle is None:
            return voxels
        x, y = self._cross_section()
        outside = x * x + y * y > self.session.circle**2
        lowest = float("nan") if self.session.scale == "attenuation" else int(voxels.min())
        voxels[:, outside] = lowest
        return voxels

    def _cross_section(self):
        """x and y of a slice's voxels from the scanner's axis, over half the slice's width."""
        nx, ny, _ = self.grid.size
        half = max(nx * self.spacing[0], ny * self.spacing[1]) / 2
        x = (np.arange(nx) - (nx - 1) / 2) * self.spacing[0] / half
        y = (np.arange(ny) - (ny - 1) / 2) * self.spacing[1] / half
        return self.arrays.array(np.broadcast_to(x, (ny, nx))), self.arrays.array(np.broadcast_to(y[:, None], (ny, nx)))

    def _axis(self, axis, low, high, step=1, shift=0.0):
        """``(n, 3)`` float64 points' share of one index axis in the animal's frame."""
        return (np.arange(low, high) * step + shift)[:, None] * self.affine[:3, axis]

    def _near_bone(self):
        """Per block of voxels of the padded grid: whether bone or cartilage may lie in it."""
        arrays = self.arrays
        self.block = np.maximum(1, np.floor(0.1 / self.spacing + 1e-6)).astype(int)
        blocks = -(-self.size // self.block)
        shift = (self.block - 1) / 2 - self.radius
        x, y, z = (
            arrays.array(self._axis(axis, 0, blocks[axis], self.block[axis], shift[axis]).T) for axis in range(3)
        )
        near = arrays.zeros(tuple(blocks[::-1]), "bool")
        margin = 0.5 * float(np.linalg.norm(self.block * self.spacing)) * 1.25 + 0.02
        origin = [float(c) for c in self.affine[:3, 3]]
        rows = max(1, arrays.chunk // int(blocks[0] * blocks[1]))
        for low in range(0, int(blocks[2]), rows):
            points = [
                (z[c][low : low + rows, None, None] + y[c][:, None] + x[c] + origin[c]).reshape(-1) for c in range(3)
            ]
            depths = self.bone.depths(*points)
            over_plateau = (depths.side > -0.1) & (depths.top > -0.13 - margin)
            near[low : low + rows] = ((depths.outer > -margin) | over_plateau).reshape(-1, blocks[1], blocks[0])
        return near

    def _slab(self, low, high, near):
        """HU, mineral fraction and cartilage fraction of padded slices low to high (in the grid's own numbering)."""
        arrays, session = self.arrays, self.session
        radius = self.radius
        nx, ny = int(self.size[0]), int(self.size[1])
        slab, texture = arrays.zeros((high - low, ny, nx)), arrays.zeros((high - low, ny, nx))
        sheet = max(1, (_SHEET if arrays.device in (None, "cpu") else _SLAB) // (nx * ny))
        for first in range(low, high, sheet):
            part = slice(first - low, min(first + sheet, high) - low)
            self._fill_surroundings(slab[part], texture[part], first, min(first + sheet, high))
        for fragment in session.fragments:
            self._add_fragment(fragment, slab, low, high)
        mineral, share = arrays.zeros(slab.shape), arrays.zeros(slab.shape)

        rows = [
            arrays.array(np.arange(first, last) // self.block[axis], "int64")
            for axis, (first, last) in enumerate(((0, nx), (0, ny), (low + radius, high + radius)))
        ]
        flat = arrays.nonzero(near[rows[2]][:, rows[1]][:, :, rows[0]])
        offsets = self._samples()
        width = float(np.sqrt(((self.spacing / self.counts) ** 2).mean()))
        # Blocks of voxels small enough to stay in cache, with all their samples.
        step = max(1, arrays.chunk // offsets.shape[1])
        linear = arrays.array(self.affine[:3, :3])
        origin = self.affine[:3, :3] @ np.array([-radius, -radius, low]) + self.affine[:3, 3]
        values, minerals, shares = slab.reshape(-1), mineral.reshape(-1), share.reshape(-1)
        texture = texture.reshape(-1)
        for start in range(0, len(flat), step):
            here = flat[start : start + step]
            index = (here % nx, (here // nx) % ny, here // (nx * ny))
            index = [arrays.cast(i, "float32") for i in index]
            points = []
            for c in range(3):
                middle = linear[c, 0] * index[0] + linear[c, 1] * index[1] + linear[c, 2] * index[2] + float(origin[c])
                points.append((middle[:, None] + offsets[c]).reshape(-1))
            tissue = self.bone.tissue(*points, width)
            filled, bone, density, cartilage = (
                value.reshape(len(here), -1).mean(1)
                for value in (tissue.filled, tissue.bone, tissue.density, tissue.cartilage)
            )
            around = values[here]
            inside = density * session.bone + (filled - bone) * session.marrow
            soaked = session.cartilage + session.uptake * (1 + 0.15 * texture[here])
            values[here] = inside + cartilage * soaked + (1 - filled - cartilage) * around
            minerals[here], shares[here] = bone, cartilage
        return slab, mineral, share

    def _samples(self):
        """``(3, n)`` offsets, in the animal's frame, of the samples in a voxel."""
        steps = [(np.arange(n) + 0.5) / n - 0.5 for n in self.counts]
        index = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
        return self.arrays.array(self.affine[:3, :3] @ index.T)

    def _field(self, waves: Waves, low, high):
        """A random field on slices low to high: on a grid, waves are products along its axes: one matrix product."""
        arrays, radius = self.arrays, self.radius
        phase = waves.phases + self.affine[:3, 3] @ waves.vectors
        x = np.exp(1j * (self._axis(0, -radius, self.size[0] - radius) @ waves.vectors))
        y = np.exp(1j * (self._axis(1, -radius, self.size[1] - radius) @ waves.vectors))
        z = np.exp(1j * (self._axis(2, low, high) @ waves.vectors + phase))
        plane = (z[:, None] * y * np.sqrt(2 / len(waves.phases))).reshape(-1, len(waves.phases))
        plane = arrays.array(np.concatenate((plane.real, -plane.imag), 1))
        line = arrays.array(np.concatenate((x.real, x.imag), 1).T)
        return (plane @ line).reshape(high - low, int(self.size[1]), int(self.size[0]))

    def _points(self, low, high):
        """Three broadcastable parts whose sum over the index axes is each coordinate, offset included in the first."""
        arrays, radius = self.arrays, self.radius
        x = arrays.array(self._axis(0, -radius, self.size[0] - radius).T)
        y = arrays.array(self._axis(1, -radius, self.size[1] - radius).T)
        z = arrays.array((self._axis(2, low, high) + self.affine[:3, 3]).T)
        return lambda c, u=None: (
            z[c][:, None, None] + y[c][:, None] + x[c]
            if u is None
            else (u @ z)[:, None, None] + (u @ y)[:, None] + (u @ x)
        )

    def _fill_surroundings(self, slab, texture, low, high):
        """HU of everything but bones, as if they were not there; and how unevenly contrast soaks in."""
        arrays, xp, session = self.arrays, self.xp, self.session
        slab += session.medium
        if session.muscle > -5 or session.uptake:
            texture += self._field(session.soak_waves, low, high)
        project = self._points(low, high)
        edge = float(self.spacing.mean())

        if session.surface is not None:
            normal, distance = session.surface
            above = project(0, arrays.array(normal)) - float(normal @ CENTER + distance)
            slab += xp.clip(above * (1 / edge) + 0.5, 0, 1) * (-1000.0 - slab)
        if session.muscle > -5:
            level = self._field(session.muscle_waves, low, high)
            level += session.muscle
            fibres = self._field(session.fibre_waves, low, high)
            level += 0.09 * fibres
            # Remnants thin out with the distance from the shaft's axis, and beyond the joint.
            x, y, z = (project(c) for c in range(3))
            reach = xp.sqrt(x * x + y * y) - 1.3
            level -= 1.3 * xp.maximum(reach, (z + 0.1) * 1.6)
            cover = xp.clip(level * (0.3 / edge) + 0.5, 0, 1)
            fibres += 1.5 * texture
            tissue = session.soft + 14 * fibres + session.soaked * xp.clip(0.5 + 0.16 * fibres, 0.05, 1.5)
            slab += cover * (tissue - slab)
        for strand in session.strands:
            along = strand.end - strand.start
            unit = arrays.array(along / (along @ along))
            t = xp.clip(project(0, unit) - float(strand.start @ along / (along @ along)), 0, 1)
            squared = 0
            for c in range(3):
                apart = project(c) - float(strand.start[c]) - t * float(along[c])
                squared = squared + apart * apart
            cover = xp.clip((strand.radius - xp.sqrt(squared)) * (1 / edge) + 0.5, 0, 1)
            slab += cover * (strand.brightness + 0.8 * session.soaked - slab)
        if session.tube is not None:
            center, axis, inner, wall = session.tube
            squared = -((project(0, arrays.array(axis)) - float(axis @ center)) ** 2)
            for c in range(3):
                apart = project(c) - float(center[c])
                squared = squared + apart * apart
            distance = xp.sqrt(xp.clip(squared, 0, None))
            slab += xp.clip((distance - inner) * (1 / edge) + 0.5, 0, 1) * (120.0 - slab)
            slab += xp.clip((distance - inner - wall) * (1 / edge) + 0.5, 0, 1) * (-1000.0 - slab)

    def _add_fragment(self, fragment, slab, low, high):
        """Works in the box around the fragment only."""
        arrays, radius = self.arrays, self.radius
        halves = 1 / np.linalg.norm(fragment.axes, axis=1)
        inverse = np.linalg.inv(self.affine)
        center = inverse[:3, :3] @ fragment.center + inverse[:3, 3]
        reach = np.linalg.norm(inverse[:3, :3], axis=1) * halves.max() * 1.4 + 1
        first = np.maximum(np.floor(center - reach), (-radius, -radius, low)).astype(int)
        last = np.minimum(np.ceil(center + reach) + 1, (self.size[0] - radius, self.size[1] - radius, high)).astype(int)
        if (last <= first).any():
            return
        cells = tuple(
            slice(first[axis] - start, last[axis] - start) for axis, start in ((2, low), (1, -radius), (0, -radius))
        )
        # A fragment may be smaller than a voxel.
        fine = 2 if self.spacing.max() > _SINGLE else 1
        parts = (np.arange(fine) + 0.5) / fine - 0.5
        axes = [(np.arange(first[a], last[a])[:, None] + parts).ravel() for a in range(3)]
        index = np.stack(np.meshgrid(*axes[::-1], indexing="ij")[::-1], -1).reshape(-1, 3)
        points = index @ self.affine[:3, :3].T + self.affine[:3, 3]
        local = (points - fragment.center) @ fragment.axes.T
        depth = (1 - np.linalg.norm(local, axis=1)) * halves.mean() + 0.025 * fragment.lumps.values(points)
        depth = np.minimum(depth, (fragment.face - local[:, 0]) * halves[0])
        cover = np.clip(depth / (self.spacing.mean() / fine) + 0.5, 0, 1)
        shape = [n for a in (2, 1, 0) for n in (last[a] - first[a], fine)]
        cover = arrays.array(cover.reshape(shape).mean((1, 3, 5)))
        slab[cells] += cover * (fragment.brightness * self.session.bone - slab[cells])

    def _kernel(self) -> np.ndarray:
        taps = np.exp(-0.5 * (np.arange(-self.radius, self.radius + 1) / self.session.blur) ** 2)
        return taps / taps.sum()

    def _noise(self, shape):
        """White noise that has the session's strength once blurred; stronger in finer voxels."""
        strength = self.session.noise * (0.025 / float(np.prod(self.spacing)) ** (1 / 3)) ** 0.5
        if self.radius:
            strength /= float((self._kernel() ** 2).sum()) ** 1.5
        noise = self.arrays.normal(shape, self.generator)
        noise *= strength
        return noise

    def _blurred(self, slab):
        """Without its padding, blurred by the scanner's point spread (separable, symmetric)."""
        if not self.radius:
            return slab
        taps = [float(t) for t in self._kernel()]
        for axis in range(3):
            count = slab.shape[axis] - 2 * self.radius
            total = 0
            for shift, tap in enumerate(taps):
                cut = [slice(None)] * 3
                cut[axis] = slice(shift, shift + count)
                total = total + slab[tuple(cut)] * tap
            slab = total
        return slab

    def _artefacts(self):
        """Cupping as a factor and rings as an addition, per voxel of a slice, about the scanner's axis."""
        session = self.session
        x, y = (self.arrays.numpy(c) for c in self._cross_section())
        distance = np.sqrt(x * x + y * y)
        shading = 1 - session.cupping * (1 - np.clip(distance, 0, 1) ** 2)
        detector = np.random.default_rng([session.seed, 7]).standard_normal(2048)
        detector = np.sign(detector) * np.abs(detector) ** 2.2  # few pixels are much off
        cells = max(self.grid.size[:2])
        rings = np.interp(distance * cells / 2, np.arange(2048), detector) * 0.35 * session.noise * session.rings
        return self.arrays.array(shading), self.arrays.array(rings)
