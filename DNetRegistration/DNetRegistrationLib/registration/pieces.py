"""Whether one pose holds for all the bone in view, or for one bone of several that moved on their own.

The two images are compared in small neighbourhoods. Where one pose holds, they agree in every one of them; a bone that
moved on its own is where they do not. Nothing is segmented, since the bones of a joint touch in the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..bone.cube import CanonicalCube, sample_on_cube
from ..bone.images import BoneImage
from ..bone.prepare import PreparedScan
from ..core.threads import at_once
from ..geometry.rigid import inverse
from ..imaging.tensors import erode, gaussian, inner_slopes, pooled_by

# Neighbourhoods lie on a grid of every second working voxel, and are Gaussians of so many of its voxels.
FACTOR, AGREEMENT_REACH, SHIFT_REACH = 2, 2.0, 2.5
# Below this concordance two neighbourhoods show different things. Where a pose is right, a hundredth of the bone is
# below 0.85 to 0.98, on synthetic and on real scans; two voxels off, half of it is below 0.5.
AGREES = 0.6
# A neighbourhood holds if it lies no farther off than this, in working voxels. Contrast agent on a joint's surface
# makes it look 0.4 off, and 0.65 in a twentieth of the bone.
HOLDS = 0.75
# A piece of less than this share of the bone that both scans show is not told of.
LEAST_PIECE = 0.08
# A piece is in one scan only, as a callus is, or soft tissue bright with contrast agent, if the other scan leaves less
# than this share as much unexplained there. Contrast agent leaves up to 0.15, bones that moved 0.25 and more.
ONE_SIDED = 0.2
# A pose of two bones that moved on their own surely holds for one of them where the images agree by so much and lie no
# farther off, in working voxels, in so much of the bone, and does not in so much more. Of 21 refused pairs of two bones
# whose pose was right for one, at least 0.31 held and 0.26 did not; of littermates up to 0.5 held, and 0.08 did not.
SURELY_AGREES, SURELY_HOLDS, LEAST_HELD, LEAST_MOVED = 0.9, 0.4, 0.25, 0.2
# Variance of bone values (dense bone is 1) below which there is nothing to compare, as within a solid phantom.
LEAST_VARIANCE = 0.002


@dataclass(frozen=True)
class Piece:
    """A part of the bone that both fields of view show.

    Attributes:
        share: of that bone, 0 to 1, in the scan in which it is larger.
        holds: the pose holds for it.
        moved: how far it lies off in mm, the median; 0 where the pose holds. NaN where it is more than some voxels, or
            unknown.
        one_sided: it does not hold and is in one scan only, as new bone is, or bone that left the other field of view.
        center: ``(3,)`` its centroid in the fixed scan's world, mm; where only the moving scan shows it, the place to
            which the pose takes it.
    """

    share: float
    holds: bool
    moved: float
    one_sided: bool
    center: np.ndarray

    @property
    def contradicts(self) -> bool:
        """Whether it speaks against a pose. New bone, which only one scan shows, contradicts none."""
        return not (self.holds or self.one_sided)


def check_pieces(
    fixed: PreparedScan, moving: PreparedScan, pose: Tensor, check: Callable[[], None] = lambda: None
) -> list[Piece]:
    """The parts of the bone for which a pose holds and does not.

    Args:
        fixed, moving: the scans.
        pose: ``(4, 4)`` float64, fixed to moving points, LPS mm.
        check: called between steps; an exception from it ends the work.

    Returns:
        The piece for which it holds, if any, and every other one of at least `LEAST_PIECE` of the bone.
    """
    return _most_against(_compared(fixed, moving, pose, check), pose)


def _compared(
    fixed: PreparedScan, moving: PreparedScan, pose: Tensor, check: Callable[[], None]
) -> tuple[Neighbourhoods, Neighbourhoods]:
    """The cube of the fixed scan with the moving one, and the other way round."""
    return at_once(
        lambda check: compare(fixed.cube, moving.levels[-1], pose),
        lambda check: compare(moving.cube, fixed.levels[-1], inverse(pose)),
        check,
    )


def _most_against(views: tuple[Neighbourhoods, Neighbourhoods], pose: Tensor) -> list[Piece]:
    """The pieces of that view which speaks more against a pose."""
    to_fixed = np.eye(4), np.linalg.inv(pose.numpy())

    def against(pieces: list[Piece]) -> tuple[float, float]:
        others = [piece for piece in pieces if not piece.holds]
        return sum(piece.share for piece in others if piece.contradicts), sum(piece.share for piece in others)

    # A piece may lie outside the cube of one scan, and then the other tells of it.
    return max(map(_pieces, views, to_fixed), key=against)


def holds_for_all(pieces: Sequence[Piece]) -> bool:
    """Whether the pose holds for every large piece."""
    return not any(piece.contradicts for piece in pieces)


def surely_held(
    fixed: PreparedScan, moving: PreparedScan, pose: Tensor, check: Callable[[], None] = lambda: None
) -> float | None:
    """The share of the bone for which a refused pose holds, if it surely holds for one bone and not for another.

    Args:
        fixed, moving, pose, check: as those of `check_pieces`.

    Returns:
        0 to 1, of the scan and the view in which it is least; None where it cannot be said.
    """
    views = _compared(fixed, moving, pose, check)
    if sum(piece.share for piece in _most_against(views, pose) if piece.contradicts) < LEAST_MOVED:
        return None
    shares = []
    for found in views:
        spacing = float(np.linalg.norm(found.affine[:3, 0])) / FACTOR
        sure = (found.concordance >= SURELY_AGREES) & (found.shift <= SURELY_HOLDS * spacing)
        total = found.mass.sum((1, 2, 3)).clamp(min=1e-6)
        shares.append(float(((found.mass * sure).sum((1, 2, 3)) / total).min()))
    return min(shares) if min(shares) >= LEAST_HELD else None


def told(pieces: Sequence[Piece], sure: bool = True) -> str:
    """A sentence that says for which pieces a pose holds; empty where it holds for all.

    Args:
        pieces: of `check_pieces`.
        sure: nothing else is known, as lost slices are, by which they may disagree.
    """
    others = [piece for piece in pieces if piece.contradicts]
    if not others:
        return ""
    # Each share is of the scan in which it is larger.
    held = min(sum(piece.share for piece in pieces if piece.holds), 1 - sum(piece.share for piece in others))
    if held < LEAST_PIECE:
        return "It holds for no large piece of bone."
    # Which bone is the larger one is not known: the most of one may lie outside the other field of view.
    fates = " and ".join(_fate(piece, sure) for piece in others)
    found = f"Of the bone that both scans show, it holds for {_percent(held)}; {fates}."
    away = sure and any(np.isnan(piece.moved) for piece in others)
    return f"{found} Align each bone by itself." if away else found


def _fate(piece: Piece, sure: bool) -> str:
    subject = f"another piece of {_percent(piece.share)}"
    if np.isfinite(piece.moved):
        return f"{subject} lies {1000 * piece.moved:.0f} um off"
    return f"{subject} {'moved' if sure else 'may have moved'} on its own"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@dataclass(frozen=True)
class Neighbourhoods:
    """Two images compared in the neighbourhoods of a grid ``(z, y, x)``.

    Attributes:
        affine: ``(4, 4)`` float64, index (x, y, z) to world LPS mm.
        concordance: 1 where the images agree, 0 or less where they do not (Lin, Biometrics 45:255, 1989;
            without the means).
        correlation: the same where the images may differ by a factor: where something lies in a brighter medium.
        shift: how far off the second image lies, mm, by its gradients (Lucas & Kanade, IJCAI 1981); 0 without bone. It
            is true for shifts of up to about a working voxel, that is where the images agree at all.
        mass: ``(2, z, y, x)`` bone of either image at each point.
        unexplained: ``(2, z, y, x)`` what of it exceeds the other image's.
        seen: how much of each neighbourhood both fields of view show, 0 to 1. Where that is nothing, the images agree.
        gain: the factor that the second image's values were brought to those of the first with.
    """

    affine: np.ndarray
    concordance: Tensor
    correlation: Tensor
    shift: Tensor
    mass: Tensor
    unexplained: Tensor
    seen: Tensor
    gain: float


def centroid(affine: np.ndarray, mass: Tensor) -> np.ndarray:
    """``(3,)`` world centroid in mm of a mass ``(z, y, x)`` on the grid of an ``affine``, index to world."""
    sums = [mass.sum(others).cpu().double().numpy() for others in ((0, 1), (0, 2), (1, 2))]
    index = [np.average(np.arange(len(line)), weights=line) for line in sums]
    return affine[:3, :3] @ index + affine[:3, 3]


def compare(cube: CanonicalCube, image: BoneImage, pose: Tensor) -> Neighbourhoods:
    """Compares a cube with an image of the other scan through a ``(4, 4)`` float64 pose, its world to the image's."""
    first = cube.image
    second, inside = sample_on_cube(image, np.linalg.inv(image.affine) @ pose.numpy() @ cube.affine)
    seen = ((inside > 0.999) & (cube.inside > 0.999)).float()
    own, other = seen * first, seen * second
    moments = _coarse(seen, own, other, own * first, other * second, own * second)
    gain = _gain(moments)
    second, other = gain * second, gain * other
    moments *= gain ** torch.tensor((0.0, 0, 1, 0, 2, 1), device=gain.device)[:, None, None, None]
    difference = second - first
    slopes = [F.pad(slope, (1,) * 6) for slope in inner_slopes((first + second) / 2)]
    # Differences reach one voxel to either side.
    inner = erode(seen)
    within = [inner * slope for slope in slopes]
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    motions = _coarse(*(within[a] * slopes[b] for a, b in pairs), *(slope * difference for slope in within))
    unexplained = _coarse(seen * difference.clamp(max=0).neg(), seen * difference.clamp(min=0))
    around = gaussian(moments, AGREEMENT_REACH)
    covariance, variances = _covariances(around)
    concordance = 2 * (covariance + LEAST_VARIANCE) / (variances.sum(0) + 2 * LEAST_VARIANCE)

    correlation = _correlation(covariance, variances)

    # Without bone there is nothing to be off.
    bone = moments[1:3].sum(0) > 0
    motions = gaussian(motions, SHIFT_REACH)[:, bone]
    normal = torch.empty(motions.shape[1], 3, 3, device=gain.device)
    for value, (a, b) in zip(motions, pairs, strict=False):
        normal[..., a, b] = normal[..., b, a] = value
    # Damped: along a surface nothing tells of a shift.
    damping = 0.05 * motions[:3].sum(0) + 0.1 * LEAST_VARIANCE
    normal = normal + damping[..., None, None] * torch.eye(3, device=gain.device)
    steps = torch.linalg.solve(normal, motions[6:].T[..., None])[..., 0]
    shift = torch.zeros_like(concordance)
    shift[bone] = steps.norm(dim=-1) * cube.spacing
    affine = cube.affine @ neighbourhood_grid()
    return Neighbourhoods(affine, concordance, correlation, shift, moments[1:3], unexplained, around[0], float(gain))


def _coarse(*images: Tensor) -> Tensor:
    """``(n, z, y, x)`` the means of images of a cube over each of its neighbourhoods."""
    return torch.stack([pooled_by(image, (FACTOR,) * 3) for image in images])


def neighbourhood_grid() -> np.ndarray:
    """``(4, 4)`` index (x, y, z) of a neighbourhood to that of a cube."""
    grid = np.diag((FACTOR, FACTOR, FACTOR, 1.0))
    grid[:3, 3] = (FACTOR - 1) / 2
    return grid


def _covariances(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Covariance of two images in each neighbourhood, and the variance ``(2, ...)`` of either, from mean moments.

    Args:
        moments: ``(6, ...)`` of what both show: its share, the first, the second, their squares, and their product.
    """
    means, squares = (part / moments[0].clamp(min=1e-3) for part in (moments[1:3], moments[3:5]))
    product = moments[5] / moments[0].clamp(min=1e-3)
    return product - means[0] * means[1], squares - means.square()


def _correlation(covariance: Tensor, variances: Tensor) -> Tensor:
    return (covariance + LEAST_VARIANCE) / (variances.clamp(min=0) + LEAST_VARIANCE).prod(0).sqrt()


def _gain(moments: Tensor) -> Tensor:
    """The factor that brings the second image's values to those of the first, where the two correlate.

    A bone that moved on its own overlaps with anything: with it, half the values were taken for bone that lies right.

    Args:
        moments: as those of `_covariances`, not yet averaged over neighbourhoods.
    """
    covariance, variances = _covariances(gaussian(moments, AGREEMENT_REACH))
    alike = (_correlation(covariance, variances) >= AGREES).float()
    product, square = moments[5], moments[4]
    if float((alike * product).sum()) < LEAST_PIECE * float(product.sum()):
        alike = torch.ones_like(alike)
    return ((alike * product).sum() / (alike * square).sum().clamp(min=1e-6)).clamp(0.5, 2.0)


def _pieces(found: Neighbourhoods, to_fixed: np.ndarray) -> list[Piece]:
    """The pieces, seen from the first image; `to_fixed` takes its world to that of the fixed scan."""
    spacing = float(np.linalg.norm(found.affine[:3, 0])) / FACTOR
    bone = found.mass.sum(0) > 0
    apart = bone & (found.concordance < AGREES)
    off = bone & ~apart & (found.shift > HOLDS * spacing)
    total = found.mass.sum((1, 2, 3)).clamp(min=1e-6)
    pieces = []
    for where, holds in ((bone & ~apart & ~off, True), (off, False), (apart, False)):
        mass = found.mass * where
        share = float((mass.sum((1, 2, 3)) / total).max())
        if share == 0 or (share < LEAST_PIECE and not holds):
            continue
        unexplained = (found.unexplained * where).sum((1, 2, 3))
        moved = 0.0 if holds else float("nan")
        if where is off:
            moved = float(found.shift[off].median())
        center = centroid(found.affine, mass.sum(0))
        one_sided = where is apart and bool(unexplained.min() < ONE_SIDED * unexplained.max())
        pieces.append(Piece(share, holds, moved, one_sided, to_fixed[:3, :3] @ center + to_fixed[:3, 3]))
    return pieces
