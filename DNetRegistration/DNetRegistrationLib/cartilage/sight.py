"""What both scans show along the normals of a bone's surface. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from ..core.errors import ScanError
from ..core.threads import in_threads
from ..imaging.resample import averaged
from ..imaging.volume import Volume
from .articular import EDGE, JointSurface
from .layer import THICKEST, Layers, Profiles, fit_layers
from .matching import Match, match_bone
from .mesh import Mesh
from .profiles import Sampler, along, edge_blur, half_height

# Bone that the scans are matched on: from so many voxels below the surface on, which the blur of the layer does not
# reach, to this depth in mm. So many lines of it are enough.
_CLEAR, _DEEP, _LINES = 3.0, 0.4, 3000
# Finer voxels are averaged to about this for it, mm: what is matched is smoothed anyway.
_FINE = 0.01
# In larger voxels (mm) there is none between the surface and the bone that it is compared to.
_COARSEST = 0.11
# In voxels with an edge longer than this, mm, a fit can be wrong unnoticed: on synthetic bones 44 um were given as
# 20 +- 8 um at 50 um, and at 70 to 120 um means were off by 4 to 28 um. Voxel sizes are rounded.
COARSE = 0.0405
# The match on bone leaves about this much, mm; with noise, more.
MISMATCH = 0.0003


@dataclass(frozen=True, eq=False)
class Sight:
    """Profiles along the normals of ``n`` points, at ``k`` heights.

    Attributes:
        mesh: the surface, finer than a voxel.
        normals: ``(n, 3)`` along which the profiles run.
        heights: ``(k,)`` mm, 0 at the bone's edge, rising out of it.
        step: a voxel's edge, mm.
        match: of the scan with agent and the other, in the bone below.
        smoothed: ``(n, k)`` grey values of the scan without agent, means over neighbours.
        difference: ``(n, k)`` the scan with agent minus the other, matched to it, likewise.
        seen: ``(n, k)`` bool, whether both scans show that place.
        at_end: ``(n,)`` bool, whether the scan without agent ends there.
        near: ``(n, n)`` the weights of those means.
        blur: standard deviation of the point spread of the scan without agent, mm.
        contrast: height of bone over what lies on it, in units of the scan with agent.
        noise: standard deviation of the difference in bone, which holds what structure there does not match.
    """

    mesh: Mesh
    normals: np.ndarray
    heights: np.ndarray
    step: float
    match: Match
    smoothed: np.ndarray
    difference: np.ndarray
    seen: np.ndarray
    at_end: np.ndarray
    near: sparse.csr_matrix
    blur: float
    contrast: float
    noise: float

    @property
    def agent_blur(self) -> float:
        """Standard deviation of the point spread of the scan with agent, mm."""
        return float(np.sqrt(max(self.blur**2 + self.match.blur_mm2, (self.step / 4) ** 2)))

    def part(self, chosen: np.ndarray) -> tuple[Sight, np.ndarray]:
        """Of some points; see `Mesh.part`."""
        mesh, left = self.mesh.part(chosen)
        values = {name: getattr(self, name)[left] for name in ("normals", "smoothed", "difference", "seen", "at_end")}
        return replace(self, mesh=mesh, near=self.near[left], **values), left

    def bare_error(self, level: float) -> float:
        """Standard error in um of the thickness of a thin layer of a known level."""
        if not level > 0:
            return float("inf")
        # The area under a thin layer's profile is level times thickness; it is spread like the blur.
        random = self.noise * np.sqrt(2 * np.sqrt(np.pi) * self.agent_blur * self.step) / level
        return 1000 * float(np.hypot(random, MISMATCH * self.contrast / level))

    def fit(self, sign: float = 1.0) -> tuple[Layers, float]:
        """Layers in the difference, or with -1 in the scan that should be without agent; see `fit_layers`."""
        edge = self.contrast * MISMATCH / (self.agent_blur * np.sqrt(2 * np.pi))
        slope = max(self.match.slope, 1e-9)
        known = np.where(self.seen, 0, np.nan)
        difference = Profiles(sign * self.difference + known, self.noise, edge, True, self.agent_blur)
        plain = Profiles(self.smoothed + known, self.noise / slope / 1.4, edge / slope, False, self.blur)
        return fit_layers(difference, plain, self.heights, self.mesh.smoothing(6), self.step)


def look(plain: Volume, contrast: Volume, surface: JointSurface, matrix: np.ndarray) -> Sight:
    """Matches the scans on the bone below a surface, finds the surface finer than a voxel, and samples both scans.

    Args:
        plain, contrast: the scan without and with agent.
        surface: in the world of the former.
        matrix: ``(4, 4)`` of the alignment, to the world of the latter.

    Raises:
        ScanError: the voxels are too coarse to tell bone from what lies on it.
    """
    for scan in (plain, contrast):
        if (edge := _edge(scan)) > _COARSEST:
            problem = f"{scan.name}: its voxels of {1000 * edge:.0f} um are too coarse to look for cartilage in"
            remedy = f"scan the joint finer; cartilage of a mouse needs voxels of at most {1000 * COARSE:.0f} um"
            raise ScanError(problem, remedy)
    mesh, facing = surface.mesh, surface.facing
    step = _step(plain, contrast)
    normals = _units(mesh.smoothing(3) @ mesh.normals)
    match = _matched(plain, contrast, surface, matrix, _units(normals[facing].mean(0, keepdims=True))[0])
    heights = np.arange(-max(0.06, 4 * step), THICKEST + 0.06, step / 2)
    near = mesh.smoothing(1)
    sampler = Sampler(plain, np.eye(4), mesh.points, 0.3)
    rough = _over(near @ near, sampler(along(mesh.points, normals, heights)))
    shift = half_height(rough, heights, 2 * step + 0.01, 0.06, 1.5 * step)
    # Where the edge is not seen, as it is elsewhere near by; noise of single points is taken away.
    known = np.isfinite(shift).astype(float)
    shift = (near @ np.nan_to_num(shift)) / np.maximum(near @ known, 1e-9)
    mesh = Mesh(mesh.points + shift[:, None] * normals, mesh.triangles)
    points = along(mesh.points, normals, heights)
    values = sampler(points)
    axes = plain.affine[:3, :3].T / np.linalg.norm(plain.affine[:3, :3], axis=0)[:, None]
    # The surface was found on blocks of voxels, and ends so much before the view.
    ends = (2 * step if step >= EDGE else 3 * EDGE) * np.concatenate((axes, -axes))
    at_end = ~np.isfinite(sampler(mesh.points[:, None] + ends)).all(1)
    del sampler  # which is as large as a scan, and so is the next
    agent = Sampler(contrast, match.matrix, mesh.points, 0.3)(points)
    seen = np.isfinite(values) & np.isfinite(agent)
    smoothed = _over(near, values)
    blur = edge_blur(smoothed[facing], heights, step)
    bend = np.gradient(np.gradient(_over(near, smoothed), heights, axis=1), heights, axis=1)
    difference = _over(near, agent - match.slope * (values + match.blur_mm2 / 2 * bend) - match.offset)
    known = np.isfinite(smoothed)
    inner = np.where(known, smoothed, -np.inf)[:, heights <= 0].max(1)
    height = (inner - smoothed[:, np.abs(heights - 2 * step).argmin()])[facing]
    tall = match.slope * float(np.median(height[np.isfinite(height)]))
    deep = difference[facing][:, heights < -2 * step]
    rows = deep[np.isfinite(deep).all(1)]
    noise = max(float(np.median(rows.std(1))) if len(rows) else 0.0, 1e-4 * tall)
    return Sight(mesh, normals, heights, step, match, smoothed, difference, seen, at_end, near, blur, tall, noise)


def _edge(scan: Volume) -> float:
    """The edge of a voxel, mm."""
    return float(np.prod(scan.spacing) ** (1 / 3))


def _step(plain: Volume, contrast: Volume) -> float:
    """The edge of a voxel of the coarser scan, mm."""
    return max(_edge(plain), _edge(contrast))


def _matched(plain: Volume, contrast: Volume, surface: JointSurface, matrix: np.ndarray, normal: np.ndarray) -> Match:
    scans, finest = [_averaged(scan) for scan in (plain, contrast)], (plain, contrast)
    step = _step(*scans)
    # Both are smoothed alike in mm, averaging included: else what differs would be taken for the scanner's blur.
    means = [np.mean(scan.spacing**2 - fine.spacing**2) / 12 for scan, fine in zip(scans, finest, strict=True)]
    smooth = [np.sqrt(step**2 + max(means) - mean) for mean in means]
    mesh, facing = surface.mesh, np.flatnonzero(surface.facing)
    pick = facing[np.random.default_rng(0).permutation(len(facing))[:_LINES]]
    depths = np.arange(-_DEEP, -_CLEAR * step, step)
    points = along(mesh.points[pick], mesh.normals[pick], depths).reshape(-1, 3)
    reach = _DEEP + 0.05
    first, second = in_threads(
        lambda of: Sampler(*of[:2], mesh.points[facing], reach, of[2] / _edge(of[0])),
        zip(scans, (np.eye(4), matrix), smooth, strict=True),
    )
    return match_bone(first, second, points, matrix, step, normal)


def _averaged(scan: Volume) -> Volume:
    if (scan.spacing > _FINE / 1.5).all():
        return scan
    return Volume(*averaged(scan, _FINE), scan.name)


def _units(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _over(smooth: Any, profiles: np.ndarray) -> np.ndarray:
    """Means over neighbours of what is known; NaN where nothing is."""
    known = np.isfinite(profiles)
    if known.all():
        return np.asarray(smooth @ profiles)
    weight = smooth @ known.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, smooth @ np.where(known, profiles, 0) / weight, np.nan)
