"""Which part of a surface is articular, and which compartment each point belongs to. Needs no torch."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse

from ..bone.cortex import CorticalBone
from ..imaging.resample import interpolate
from .articular import JointEnd
from .mesh import Mesh

# Pieces of the cover below this share of the largest lie apart from the joint.
_LEAST_PIECE = 0.1
# Where there is no cartilage within it, worn places of up to this share of the cover belong to the articular surface.
_LARGEST_HOLE = 0.25
# The articular surface ends where the layer, smoothed, is as thin as this share of its thickness. At 0.23 the border of
# some synthetic joints ran through the film on the bone beside them, and moved far by little: means of an animal that
# was scanned twice varied by 3.6 %, at 0.3 by 3.3 % (50 compartments).
_BORDER = 0.3
# The valley between two compartments is looked for in this middle part of the surface.
_MIDDLE = 0.35, 0.65
# The fibula is looked for so far below the joint, where the plateau does not overhang, in slices so far apart, each so
# wide and in such pixels, mm.
_FIBULA, _SLICE, _WIDE, _GRID = (1.8, 3.6), 0.1, 2.2, 0.04
# It is at least so large, mm^2, and so far from the middle of the tibia, mm; so many slices more have it on one side.
_SMALLEST, _ASIDE, _AGREED = 0.008, 0.5, 5


def articular_cover(mesh: Mesh, covered: np.ndarray) -> np.ndarray:
    """The articular surface by what lies on it: pieces of a layer, without specks, with the worn places they enclose.

    Args:
        mesh: of the surface that faces the joint.
        covered: ``(n,)`` bool, where a layer was seen.

    Returns:
        ``(n,)`` bool.
    """
    smooth = mesh.smoothing(2)
    cover = smooth @ covered.astype(np.float32) > 0.5
    pieces, area = _pieces(mesh, cover)
    if not len(area):
        return cover
    cover &= np.append(area >= _LEAST_PIECE * area.max(), False)[pieces]
    bare, holes = _pieces(mesh, ~cover)
    if len(holes):
        border = np.zeros(len(holes) + 1, bool)
        border[bare[mesh.border()]] = True
        enclosed = ~border[:-1] & (holes <= _LARGEST_HOLE * mesh.areas[cover].sum())
        cover |= np.append(enclosed, False)[bare] & ~cover
    return cover


def articular_within(mesh: Mesh, thickness: np.ndarray) -> np.ndarray:
    """The articular surface by the thickness of a layer, smooth and filled where it is hidden: down to a share of it.

    That share is of the mean over the cartilage's volume, hidden parts included. Other parts are hidden in each scan of
    an animal, so a thickness of what was measured alone would move the border; and neither a thin rim nor worn places
    tell in a mean over the volume.

    Args:
        mesh: of the surface that faces the joint.
        thickness: ``(n,)`` in any unit, 0 where bone is bare.

    Returns:
        ``(n,)`` bool.
    """
    thickness = np.clip(thickness, 0, None)
    volumes = mesh.areas * thickness
    typical = float(volumes @ thickness) / max(float(volumes.sum()), 1e-12)
    return articular_cover(mesh, thickness > _BORDER * typical)


def _pieces(mesh: Mesh, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` number of the connected piece of each chosen point, -1 for others, and the pieces' areas."""
    here = np.flatnonzero(chosen)
    out = np.full(len(chosen), -1)
    if not len(here):
        return out, np.zeros(0)
    _, labels = sparse.csgraph.connected_components(mesh.neighbours[here][:, here], directed=False)
    out[here] = labels
    return out, np.bincount(labels, mesh.areas[here])


def across(points: np.ndarray, areas: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """``(3,)`` unit vector along which a joint surface is widest, at right angles to the bone's axis."""
    middle = np.average(points, axis=0, weights=areas)
    flat = (points - middle) - np.outer((points - middle) @ axis, axis)
    _, vectors = np.linalg.eigh((flat * areas[:, None]).T @ flat)
    return vectors[:, -1]


def parting(points: np.ndarray, areas: np.ndarray, direction: np.ndarray) -> float:
    """Where a surface of two facets is parted, along a direction, mm: where least of it is, near the middle."""
    along = points @ direction
    low, high = along.min(), along.max()
    bins = np.linspace(low, high, 41)
    share = ndimage.gaussian_filter1d(np.histogram(along, bins, weights=areas)[0], 1.5, mode="nearest")
    middle = (bins[1:] + bins[:-1]) / 2
    inside = (middle > low + _MIDDLE[0] * (high - low)) & (middle < low + _MIDDLE[1] * (high - low))
    return float(middle[inside][share[inside].argmin()])


def halves(points: np.ndarray, areas: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The direction across a joint, ``(3,)``, and ``(n,)`` bool, which points are of the first compartment along it."""
    direction = across(points, areas, axis)
    return direction, points @ direction < parting(points, areas, direction)


def lateral_by_fibula(bone: CorticalBone, threshold: float, end: JointEnd, direction: np.ndarray) -> float:
    """On which side the fibula lies: 1 along the direction, -1 against it, 0 where it is not seen apart.

    In slices across the axis it is a piece of bone apart from the tibia, on the same side in most of them. Fragments of
    bone are in few.
    """
    other = np.cross(end.axis, direction)
    flat = np.arange(-_WIDE, _WIDE, _GRID)
    plane = flat[:, None, None] * direction + flat[None, :, None] * other
    votes = []
    for depth in np.arange(*_FIBULA, _SLICE):
        with np.errstate(invalid="ignore"):
            solid = interpolate(bone.grey, bone.affine, end.middle - depth * end.axis + plane) > threshold
        labels, count = ndimage.label(ndimage.binary_fill_holes(solid), np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        if count < 2:
            continue
        centers = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, count + 1))) * _GRID
        offset = centers - centers[sizes.argmax()]
        apart = (sizes >= _SMALLEST / _GRID**2) & (np.linalg.norm(offset, axis=1) > _ASIDE)
        if apart.any():
            votes.append(np.sign(np.average(offset[apart, 0], weights=sizes[apart])))
    return float(np.sign(sum(votes))) if abs(sum(votes)) >= max(_AGREED, len(votes) / 2) else 0.0
