"""The true cartilage of a synthetic bone: its thickness along the bone's normals, from the surfaces themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .fields import Cover, single
from .random_bones import Variant
from .session import Session
from .surroundings import covered
from .tibia import CENTER, Animal

# Half edge of the box about `tibia.CENTER` in which cartilage is looked for, and edge of the blocks it is parted into,
# in mm. Blocks without cartilage are passed over.
_HALF, _BLOCK = 3.2, 0.16
# Step of the differences that give normals, mm: well above the rounding of float32, well below any bump.
_DIFFERENCE = 0.004
# What lies as close to cartilage touches it, mm.
_NEAR = 0.01


@dataclass(frozen=True)
class Cartilage:
    """The articular surface of a bone as ``n`` points, worn places included, and what lies on it.

    Attributes:
        points: ``(n, 3)`` on the bone's outer surface, mm.
        normals: ``(n, 3)`` unit vectors out of the bone.
        areas_mm2: ``(n,)`` of the surface that each point stands for.
        thickness_mm: ``(n,)`` of the cartilage along the normal; 0 where bone is bare.
        healthy_mm: ``(n,)`` the same before wear.
        medial: ``(n,)`` bool, on the medial side.
        touched: ``(n,)`` bool, soft tissue or a fragment lies on it in the moving scan, or within 10 um.
        volumes_mm3: ``(2,)`` of the medial and of the lateral cartilage. Area times thickness misses a few per cent of
            it where the surface is curved.
    """

    points: np.ndarray
    normals: np.ndarray
    areas_mm2: np.ndarray
    thickness_mm: np.ndarray
    healthy_mm: np.ndarray
    medial: np.ndarray
    touched: np.ndarray
    volumes_mm3: np.ndarray

    def moved(self, matrix: np.ndarray) -> Cartilage:
        """The same elsewhere, by a ``(4, 4)`` rigid matrix."""
        points = self.points @ matrix[:3, :3].T + matrix[:3, 3]
        return replace(self, points=points, normals=self.normals @ matrix[:3, :3].T)

    def mean_um(self, chosen: np.ndarray | slice = slice(None)) -> float:
        """Mean thickness in um over the area of the points chosen by a mask; of all without one.

        These reach out to where healthy cartilage thins to nothing, farther than what is measured.
        """
        return 1000 * float(np.average(self.thickness_mm[chosen], weights=self.areas_mm2[chosen]))


def true_cartilage(animal: Animal | Variant, step: float = 0.03, session: Session | None = None) -> Cartilage:
    """Finds the cartilage of a bone, in the animal's frame.

    Points are those of a lattice near the surface, put onto it along its gradient. Each stands for an area by the
    coarea formula: the volume of its cell times a smooth delta function of its depth.

    Args:
        animal: whose bone.
        step: of the lattice in mm; there are about ``4 / step^2`` points a square mm.
        session: of the moving scan, which tells what is touched; without one nothing is.
    """
    model = animal.model()
    cells = _lattice(model, step)
    cover = model.cover(*single(cells.T))
    share = model.tissue(*single(cells.T), step).cartilage
    medial = _medial(animal, cells)
    volumes = np.array([share[side].sum(dtype=float) * step**3 for side in (medial, ~medial)])

    band = np.abs(cover.outer) < 2 * step
    points, depth = cells[band], cover.outer[band].astype(float)
    slope = np.linalg.norm(_gradient(model, points), axis=1)
    areas = step**3 * slope * (1 + np.cos(np.pi * depth / (2 * step))) / (4 * step)
    for _ in range(4):
        gradient = _gradient(model, points)
        depth = model.cover(*single(points.T)).outer
        points = points - gradient * (depth / (gradient**2).sum(1))[:, None]
    gradient = _gradient(model, points)
    normals = -gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    cover = model.cover(*single(points.T))
    thickness = _along(model, points, normals, cover.thickness.astype(float))
    healthy = (cover.healthy * cover.share).astype(float)
    on = (healthy > 0) & (np.abs(cover.outer) < 1e-4)
    above = points + (thickness + _NEAR)[:, None] * normals
    touched = covered(session, above, model.cover(*single(above.T))) if session else np.zeros_like(on)
    found = (points, normals, areas, thickness, healthy, _medial(animal, points), touched)
    return Cartilage(*(values[on] for values in found), volumes)


def _lattice(model, step: float) -> np.ndarray:
    """``(n, 3)`` float64 points, `step` apart, of all blocks that cartilage or the bone under it may reach."""
    count = round(_BLOCK / step)
    offsets = (np.arange(count) + 0.5) * step
    # The plane that parts medial from lateral runs between cells.
    half = round(_HALF / (count * step))
    blocks = np.arange(-half, half) * (count * step)
    corners = np.stack(np.meshgrid(blocks, blocks, blocks, indexing="ij"), -1).reshape(-1, 3) + CENTER
    cover = model.cover(*single((corners + count * step / 2).T))
    corners = corners[np.abs(cover.outer) < 0.12 + count * step]
    inner = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), -1).reshape(1, -1, 3)
    return (corners[:, None] + inner).reshape(-1, 3)


def _medial(animal: Animal | Variant, points: np.ndarray) -> np.ndarray:
    return (points[:, 0] > 0) != animal.left


def _gradient(model, points: np.ndarray) -> np.ndarray:
    """``(n, 3)`` float64 of the depth below the outer surface; it points into the bone."""
    ends = points[:, None, None] + _DIFFERENCE * np.stack((np.eye(3), -np.eye(3)))[None]
    outer = model.cover(*single(ends.reshape(-1, 3).T)).outer.astype(float).reshape(-1, 2, 3)
    return (outer[:, 0] - outer[:, 1]) / (2 * _DIFFERENCE)


def _along(model, points: np.ndarray, normals: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """How far a normal runs in cartilage, by Newton's method: depth and thickness sum to 0 at the surface.

    Where a share of the layer is there, it is the mean share along the normal times that.
    """
    thickness = guess

    def cover(part: float) -> Cover:
        return model.cover(*single((points + part * thickness[:, None] * normals).T))

    for _ in range(8):
        end = cover(1.0)
        thickness = np.clip(thickness + end.outer + end.thickness, 0, 0.3)
    nodes, weights = np.polynomial.legendre.leggauss(3)
    return thickness * sum(
        weight / 2 * cover((node + 1) / 2).share for node, weight in zip(nodes, weights, strict=True)
    )
