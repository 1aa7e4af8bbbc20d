"""The scanner: an image of an animal's bone and of what lies around it, as a `Session` draws it.

Intensities are Hounsfield units until the last step, which turns them into the numbers of the scanner at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import Tissue, single
from .grid import Grid, Lattice
from .hardening import Hardening
from .random_bones import Variant
from .session import SCALES, Session
from .surroundings import Surroundings
from .tibia import Animal

# Voxels are cut into samples of at most this edge (mm) before they are averaged: about half a trabecula.
_SAMPLE = 0.03
# A voxel up to this edge (mm) is one sample: the ramps at its surfaces tell enough.
_SINGLE = 0.0125
# Voxels in a slab: memory stays within a few float32 copies of this, whatever the size of the scan. What surrounds the
# bone is computed in sheets of a slab, and the bone in chunks of samples, that fit a processor's cache.
_SLAB, _SHEET, _CHUNK = 1 << 23, 1 << 18, 1 << 15


@dataclass(frozen=True)
class Scan:
    """An image, and the truth about it; arrays ``(z, y, x)``.

    Attributes:
        voxels: intensities in the scanner's scale.
        bone: bool, where at least half of the voxel is mineralised tissue of the bone (of fragments does not count).
        cartilage: uint8, volume fraction of articular cartilage, 255 for all.
    """

    voxels: np.ndarray
    bone: np.ndarray
    cartilage: np.ndarray


def scan(animal: Animal | Variant, session: Session, grid: Grid, pose: np.ndarray) -> Scan:
    """Scans an animal: the box average of the object over every voxel, seen through the session's scanner.

    Args:
        animal: whose bone.
        session: what lies around it, and what the scanner is like.
        grid: of the image.
        pose: ``(4, 4)`` rigid, the animal's frame to the world (LPS mm).
    """
    return _Scanner(animal, session, grid, pose).scan()


def white_noise(session: Session, spacing: np.ndarray) -> float:
    """Standard deviation, HU, of the noise of each voxel before the scanner's blur, which spreads and weakens it.

    Args:
        session: whose `noise` is that of the blurred image, in voxels of 0.025 mm.
        spacing: ``(3,)`` voxel size in mm. Finer voxels have more noise.
    """
    strength = session.noise * (0.025 / float(np.prod(spacing)) ** (1 / 3)) ** 0.5
    if session.blur:
        strength /= float((_point_spread(session.blur) ** 2).sum()) ** 1.5
    return strength


def _padding(blur: float) -> int:
    return int(np.ceil(3 * blur))


def _point_spread(blur: float) -> np.ndarray:
    reach = _padding(blur)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / blur) ** 2)
    return taps / taps.sum()


class _Scanner:
    def __init__(self, animal: Animal | Variant, session: Session, grid: Grid, pose: np.ndarray) -> None:
        self.session, self.grid = session, grid
        self.bone = animal.model()
        self.spacing = grid.spacing
        # Padded, so that the blur sees no edge.
        self.padding = _padding(session.blur)
        self.lattice = Lattice(grid, pose, self.padding)
        self.surroundings = Surroundings(session, self.lattice)
        self.hardening = Hardening(session, self.bone, self.lattice) if session.hardening else None
        self.counts = np.ceil(self.spacing / _SAMPLE - 1e-6).astype(int)
        self.counts[self.spacing > _SINGLE] = np.maximum(self.counts[self.spacing > _SINGLE], 2)
        seed = np.random.default_rng([session.seed, 6]).integers(1 << 62)
        self.generator = np.random.Generator(np.random.SFC64(seed))

    def scan(self) -> Scan:
        session, padding = self.session, self.padding
        nx, ny, nz = self.grid.size
        gain, offset, dtype = SCALES[session.scale]
        voxels = np.zeros((nz, ny, nx), dtype)
        bone = np.zeros((nz, ny, nx), bool)
        cartilage = np.zeros((nz, ny, nx), np.uint8)
        near = self._near_bone()
        shading, rings = self._artefacts()
        thickness = max(1, _SLAB // int(self.lattice.size[0] * self.lattice.size[1]))
        for low in range(0, nz, thickness):
            high = min(low + thickness, nz)
            slab, mineral, share = self._slab(low - padding, high + padding, near)
            if self.hardening:
                self.hardening.add(slab, low - padding)
            if session.noise:
                slab += self._noise(slab.shape)
            slab = self._blurred(slab)
            heights = single(np.cos(np.arange(low, high) * 0.35 + session.seed % 7))
            slab = (slab + 1000) * shading - 1000 + rings * (1 + 0.3 * heights[:, None, None])
            slab = slab * (gain * session.gain) + offset * (session.gain if session.scale == "attenuation" else 1)
            voxels[low:high] = _rounded(slab, dtype)
            inner = (slice(padding, -padding or None),) * 3
            bone[low:high] = mineral[inner] >= 0.5
            cartilage[low:high] = (share[inner] * 255 + 0.5).astype(np.uint8)
        return Scan(self._in_circle(voxels), bone, cartilage)

    def _in_circle(self, voxels):
        """Takes away what lies outside the reconstructed cylinder."""
        if self.session.circle is None:
            return voxels
        x, y = self._cross_section()
        outside = x * x + y * y > self.session.circle**2
        voxels[:, outside] = np.nan if self.session.scale == "attenuation" else int(voxels.min())
        return voxels

    def _cross_section(self):
        """x and y of a slice's voxels from the scanner's axis, over half the slice's width."""
        nx, ny, _ = self.grid.size
        half = max(nx * self.spacing[0], ny * self.spacing[1]) / 2
        x = (np.arange(nx) - (nx - 1) / 2) * self.spacing[0] / half
        y = (np.arange(ny) - (ny - 1) / 2) * self.spacing[1] / half
        return single(np.broadcast_to(x, (ny, nx))), single(np.broadcast_to(y[:, None], (ny, nx)))

    def _near_bone(self):
        """Tells for each block of voxels of the padded grid whether bone, or what covers it, may lie in it."""
        self.block = np.maximum(1, np.floor(0.1 / self.spacing + 1e-6)).astype(int)
        blocks = -(-self.lattice.size // self.block)
        shift = (self.block - 1) / 2 - self.padding
        x, y, z = (
            single(self.lattice.axis(axis, np.arange(blocks[axis]) * self.block[axis] + shift[axis]).T)
            for axis in range(3)
        )
        near = np.zeros(tuple(blocks[::-1]), bool)
        margin = 0.5 * float(np.linalg.norm(self.block * self.spacing)) * 1.25 + 0.02
        if self.session.film:
            margin += self.session.film.thickness
        origin = [float(c) for c in self.lattice.affine[:3, 3]]
        rows = max(1, _CHUNK // int(blocks[0] * blocks[1]))
        for low in range(0, int(blocks[2]), rows):
            points = [
                (z[c][low : low + rows, None, None] + y[c][:, None] + x[c] + origin[c]).reshape(-1) for c in range(3)
            ]
            depths = self.bone.depths(*points)
            over_plateau = (depths.side > -0.1) & (depths.top > -0.13 - margin)
            near[low : low + rows] = ((depths.outer > -margin) | over_plateau).reshape(-1, blocks[1], blocks[0])
        return near

    def _slab(self, low, high, near):
        """HU, mineral fraction and cartilage fraction of slices low to high of the padded grid."""
        nx, ny = (int(n) for n in self.lattice.size[:2])
        film = self.session.film
        slab, texture, mineral, share = (np.zeros((high - low, ny, nx), np.float32) for _ in range(4))
        patches = np.zeros_like(slab) if film else None
        sheet = max(1, _SHEET // (nx * ny))
        for first in range(low, high, sheet):
            last = min(first + sheet, high)
            part = slice(first - low, last - low)
            self.surroundings.fill(slab[part], texture[part], first, last)
            if film:
                patches[part] = self.lattice.field(film.waves, first, last)
        for fragment in self.session.fragments:
            # A fragment may be smaller than a voxel.
            self.surroundings.add_fragment(fragment, slab, low, high, 2 if self.spacing.max() > _SINGLE else 1)
        rows = [
            np.arange(first, last) // self.block[axis]
            for axis, (first, last) in enumerate(((0, nx), (0, ny), (low + self.padding, high + self.padding)))
        ]
        self._add_bone(np.flatnonzero(near[np.ix_(*rows[::-1])]), low, slab, texture, patches, mineral, share)
        return slab, mineral, share

    def _add_bone(self, voxels, low, slab, texture, patches, mineral, share) -> None:
        """Adds bone and its cover to voxels of a slab that begins with slice `low`, given by their flat indices."""
        session, affine = self.session, self.lattice.affine
        ny, nx = slab.shape[1:]
        offsets = self._samples()
        width = float(np.sqrt(((self.spacing / self.counts) ** 2).mean()))
        # Blocks of voxels small enough to stay in cache, with all their samples.
        step = max(1, _CHUNK // offsets.shape[1])
        linear = single(affine[:3, :3])
        origin = affine[:3, :3] @ np.array([-self.padding, -self.padding, low]) + affine[:3, 3]
        values, minerals, shares, texture = (array.reshape(-1) for array in (slab, mineral, share, texture))
        patches = None if patches is None else patches.reshape(-1)
        for start in range(0, len(voxels), step):
            here = voxels[start : start + step]
            index = [i.astype(np.float32) for i in (here % nx, (here // nx) % ny, here // (nx * ny))]
            points = []
            for c in range(3):
                middle = linear[c, 0] * index[0] + linear[c, 1] * index[1] + linear[c, 2] * index[2] + float(origin[c])
                points.append((middle[:, None] + offsets[c]).reshape(-1))
            x, y, z = points
            tissue = self.bone.tissue(x, y, z, width)
            filled, bone, density, cartilage = (
                value.reshape(len(here), -1).mean(1)
                for value in (tissue.filled, tissue.bone, tissue.density, tissue.cartilage)
            )
            inside = density * session.bone + (filled - bone) * session.marrow
            uptake = session.uptake * (1 + 0.15 * texture[here])
            if session.film and session.profile:
                film, lining, agent = self._lining(points, tissue, width, patches[here])
                lining += cartilage * session.cartilage + agent * uptake
                values[here] = inside + lining + (1 - filled - cartilage - film) * values[here]
            else:
                soaked = session.cartilage + uptake
                values[here] = inside + cartilage * soaked + (1 - filled - cartilage) * values[here]
            minerals[here], shares[here] = bone, cartilage

    def _lining(self, points, tissue: Tissue, width: float, field: np.ndarray):
        """The film on the bone: its share of voxels, and that times its HU; and the agent in cartilage, 1 in all.

        Args:
            points: x, y and z of all samples, voxel by voxel.
            tissue, width: of the samples.
            field: of the film, for each voxel.
        """
        share, brightness, agent = np.zeros((3, len(field)), np.float32)
        samples = len(points[0]) // len(field)
        # Inside the bone there is nothing to look up, nor where the film has ended.
        filled, cartilage = (part.reshape(-1, samples) for part in (tissue.filled, tissue.cartilage))
        film = self.session.film
        skin = np.flatnonzero((filled.min(1) < 1) & ((field > -film.level) | (cartilage.max(1) > 0)))
        at = (skin[:, None] * samples + np.arange(samples)).reshape(-1)
        cover = self.bone.cover(*(c[at] for c in points))
        filled, cartilage = tissue.filled[at], tissue.cartilage[at]
        layer, values = film.layer(np.repeat(field[skin], samples), filled + cartilage, cover, width)
        factor = cartilage * self.session.profile.factor(cover)
        for whole, parts in ((share, layer), (brightness, layer * values), (agent, factor)):
            whole[skin] = parts.reshape(-1, samples).mean(1)
        return share, brightness, agent

    def _samples(self):
        """``(3, n)`` offsets, in the animal's frame, of the samples in a voxel."""
        steps = [(np.arange(n) + 0.5) / n - 0.5 for n in self.counts]
        index = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
        return single(self.lattice.affine[:3, :3] @ index.T)

    def _noise(self, shape):
        """White noise that has the session's strength once it is blurred."""
        noise = self.generator.standard_normal(shape, dtype=np.float32)
        noise *= white_noise(self.session, self.spacing)
        return noise

    def _blurred(self, slab):
        """A slab without its padding, blurred by the scanner's point spread, axis by axis."""
        if not self.padding:
            return slab
        taps = [float(t) for t in _point_spread(self.session.blur)]
        for axis in range(3):
            count = slab.shape[axis] - 2 * self.padding
            total = 0
            for shift, tap in enumerate(taps):
                cut = [slice(None)] * 3
                cut[axis] = slice(shift, shift + count)
                total = total + slab[tuple(cut)] * tap
            slab = total
        return slab

    def _artefacts(self):
        """Cupping as a factor and rings as a term, for each voxel of a slice, about the scanner's axis."""
        session = self.session
        x, y = self._cross_section()
        distance = np.sqrt(x * x + y * y)
        shading = 1 - session.cupping * (1 - np.clip(distance, 0, 1) ** 2)
        detector = np.random.default_rng([session.seed, 7]).standard_normal(2048)
        detector = np.sign(detector) * np.abs(detector) ** 2.2  # few pixels are much off
        cells = max(self.grid.size[:2])
        rings = np.interp(distance * cells / 2, np.arange(2048), detector) * 0.35 * session.noise * session.rings
        return single(shading), single(rings)


def _rounded(values, dtype: str):
    if dtype == "float32":
        return values
    return np.clip(np.round(values), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
