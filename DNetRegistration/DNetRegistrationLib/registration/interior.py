"""The last stage of refinement: what lies inside the bone, out of the reach of contrast agent.

Contrast agent and liquid lie against the outer surface of the bone, and blur mixes them into its voxels: edges there
are displaced, all to one side. Trabeculae, the endosteum and the growth plate are not. They are faint and as thin as a
voxel, so that every voxel inside the bone counts, with grey values that no threshold has cut, and between voxels by
cubic splines. Both scans are templates at once, and a gain and an offset are fitted for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..bone.cortex import CorticalBone, dice
from ..bone.images import BoneImage, NativeScan, bone_pyramid
from ..bone.prepare import PreparedScan
from ..core.threads import of_both
from ..geometry.rigid import apply, inverse
from ..imaging.resample import resample_mask
from ..imaging.splines import Spline
from ..imaging.tensors import MOST_POINTS, gaussian, sample_linear
from .blur import blurred
from .holders import ScanPair
from .refinement import Refined, distance, motion, motion_jacobian, refine, resolutions, tukey
from .settling import Frame, Part, moved, rested, scatter, settled, told_by, told_by_edges
from .similarity import agreement
from .template import Template, edge_template

# Greys count between these; the bone threshold is 0, dense bone 1, and marrow lies near -1.
GREYS = (-3.0, 3.0)
# Voxels count that lie so many voxels below the outer surface of the bone, in both scans.
MARGIN = 1.25
# With a smaller Dice of the cortices, what lies still in both scans is looked for. A holder leaves 0.15 to 0.78, no
# holder 0.8 and more, or 0.7 of thick slices.
TOGETHER = 0.8
# The points of either scan at the working spacing and at finer ones, and edges of the whole bone.
WORKING_POINTS, FINER_POINTS, EDGE_POINTS = 16000, 64000, 4000
# While steps are taken, an edge of the whole bone counts by this share of a point inside. Where nothing is seen inside
# the bone, edges decide alone.
EDGES = 0.05
# Steps at the end, where each of inside and edges counts by how little it scatters, and fits of their robust weights.
SETTLING, REWEIGHTED = 8, 3
# A pose that edges lead further away than so many working voxels, in as many steps, has stopped on its way: along noisy
# shafts four voxels short, and a step is half a voxel.
STUCK, FREEING = 0.5, 20
# Marrow has leaked out of a bone that holds less than this share of what lies so many working spacings below the
# surface in the other scan. Contrast agent that counts as bone there is no thicker. One of so many voxels along each
# axis is asked.
LEAST_HELD, LAYER, SOUGHT = 0.5, 2.5, 3
# Steps end when none moves a point at the template's radius by more than this share of a voxel.
STILL = 3e-3
# The first steps take one of so many points.
THINNED = 4
# Voxels about the bone that splines are fitted to.
RIM = 4
# A spline through more voxels takes too long; they are so fine then that it would gain little.
MOST_SPLINE_VOXELS = 1 << 23
# A scanner blurs noise as it blurs bone, by about half a voxel. So much of what such a Gaussian takes away is added to
# what splines are fitted to: neighbours' residuals go together less, and what is fine counts for more. The mean error
# falls by 4 to 12 %. With more of it, agent on the surface would reach deeper.
BLUR, SHARPENED = 0.5, 0.5
# Blurs that differ by more, in squared voxels of half the variance, are made alike before all points are taken: the
# Laplacian is only the first term of a blur. Fitted, it tells about this share of one, on synthetic bones.
LEAST_BLUR, FIRST_TERM = 0.01, 0.6
# With fewer points nothing is told.
LEAST_POINTS = 200


@dataclass(frozen=True)
class _Greys:
    """The greys of a scan about its bone, as a cubic spline or, where there are too many voxels for one, trilinear."""

    image: BoneImage | NativeScan
    spline: Spline | None

    def sample(self, index: Tensor) -> Tensor:
        """Greys ``(n,)`` at continuous indices ``(n, 3)`` (x, y, z)."""
        return self.image.sample(index)[0] if self.spline is None else self.spline.sample(index)

    def at(self, index: Tensor) -> Tensor:
        """Greys ``(n,)`` of voxels ``(n, 3)``."""
        _, height, width = self.image.shape
        return self.image.read(index @ torch.tensor((1, width, width * height), device=index.device))[0]

    def blurred(self, variance: float) -> _Greys:
        """The same blurred by a Gaussian of a variance in mm2. Only with a spline."""
        assert isinstance(self.image, BoneImage)
        image = blurred(self.image, variance * np.eye(3))
        return _Greys(image, Spline.through(image.values))

    def derivatives(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Their first and second derivatives, each ``(n, 3)``, per voxel at voxels ``(n, 3)`` within the border."""
        _, height, width = self.image.shape
        strides = (1, width, width * height)
        at = index @ torch.tensor(strides, device=index.device)
        if self.spline is not None:
            return self.spline.derivatives(at)
        here = self.image.read(at)[0]
        ends = [(self.image.read(at + s)[0], self.image.read(at - s)[0]) for s in strides]
        first, second = (
            torch.stack(one, -1) for one in zip(*(((p - m) / 2, p - 2 * here + m) for p, m in ends), strict=True)
        )
        return first, second


@dataclass(frozen=True)
class _Side:
    """Points of one scan, sought in the other one.

    Attributes:
        index: ``(n, 3)`` voxels (x, y, z).
        points: ``(n, 3)`` world.
        values: ``(n,)`` greys of the first scan.
        blurred: ``(n,)`` their change with blur, per mm2 of half its variance: their Laplacian.
        jacobian: ``(n, 6)`` their change with a step of the fixed scan's points.
        image: the other scan.
        forward: whether the points are the fixed scan's.
    """

    index: Tensor
    points: Tensor
    values: Tensor
    blurred: Tensor
    jacobian: Tensor
    image: _Greys
    forward: bool

    def thinned(self, every: int) -> _Side:
        """One of `every` points."""
        some = {name: getattr(self, name)[::every] for name in ("index", "points", "values", "blurred", "jacobian")}
        return replace(self, **some)


@dataclass(frozen=True)
class _Equations:
    """The normal equations of a step, without the gain and the offset.

    Attributes:
        normal: ``(6, 6)``.
        right: ``(6,)``.
        levels: ``(2,)`` the gain and the offset.
        blur: by how much of the Laplacian the other scan is sharper, mm2.
    """

    normal: Tensor
    right: Tensor
    levels: Tensor
    blur: float


def refine_fully(
    pair: ScanPair,
    pose: Tensor,
    native: bool,
    check: Callable[[float], None] = lambda fraction: None,
) -> Refined:
    """Refines one ``(4, 4)`` pose as `refine` does and, where that ends at the finest voxels, then inside the bone.

    What lies still in both scans, as a tube, pulls at the pose, and what is inside the tube is not inside the bone.
    Where the cortices hardly lie together it is looked for, and left out.
    """
    refined = refine(pair.fixed, pair.moving, pose, native, lambda fraction: check(0.7 * fraction))
    if dice(*pair.bones, refined.pose.numpy()) < TOGETHER and (found := pair.without_still(refined.pose)) is not None:
        pair = found[0]
        refined = refine(pair.fixed, pair.moving, refined.pose, native, lambda fraction: check(0.7 + 0.1 * fraction))
    if not native and len(resolutions(pair.fixed, pair.moving)) > 1:
        return _unstuck(pair, refined)
    inside = refine_inside(pair.fixed, pair.moving, refined, pair.bones, lambda: check(0.8))
    if inside is not refined or (free := _unstuck(pair, refined)) is refined:
        return inside
    return refine_inside(pair.fixed, pair.moving, free, pair.bones, lambda: check(0.9))


def _unstuck(pair: ScanPair, refined: Refined) -> Refined:
    """The pose where edges let it rest, if it stopped on its way there and fits better then, as along a noisy shaft."""
    ends = pair.fixed.levels[-1], pair.moving.levels[-1]
    pose = rested(*ends, refined.pose, FREEING)
    if distance(pose, refined.pose, pair.fixed.place) < STUCK * pair.fixed.cube.spacing:
        return refined
    return replace(refined, pose=pose) if agreement(*ends, pose) > agreement(*ends, refined.pose) else refined


def refine_inside(
    fixed: PreparedScan,
    moving: PreparedScan,
    refined: Refined,
    bones: tuple[CorticalBone, CorticalBone],
    check: Callable[[], None] = lambda: None,
) -> Refined:
    """Refines a pose on what lies inside the bone; one that moves by more than a voxel stays as it was.

    It minimises, over the pose T and for each direction a gain a and an offset b, the sum of robust squares of
    a I_m(T p) + b - I_f(p) + s D I_f(p) and of a' I_f(T^-1 q) + b' - I_m(q) - s D I_m(q), where p and q are voxels
    inside the bone, D is the Laplacian, and s half by how much the variance of the moving scan's blur is smaller. Blur
    that differs moves edges, and does not cancel where one side of a bone is in view. Either direction tells s, and
    noise adds to both as if the other scan were blurred more: half of their difference is free of it. Once s is known,
    the sharper scan is blurred by a Gaussian, and s tells what is left.

    The pose that edges of the whole bone told is the prior at first. In the end both count by the covariance of what
    their residuals tell of the pose: edges that contrast agent displaces do not agree with what lies inside, a
    neighbourhood at a time, and count for little.

    Args:
        fixed, moving: the scans.
        refined: the pose that edges told.
        bones: of the fixed and the moving scan; their depths tell what lies inside.
        check: called before each step; an exception from it ends the work.
    """
    start = refined.pose
    poses = start, inverse(start)
    check()
    bones = of_both(_sealed, bones, bones[::-1], poses, (fixed.cube.spacing,) * 2, check=check)
    images = of_both(_greys, (fixed, moving), bones, (refined.spacing,) * 2, check=check)
    count = WORKING_POINTS if len(resolutions(fixed, moving)) == 1 else FINER_POINTS
    found = of_both(_inside, images, bones, bones[::-1], poses, (count,) * 2, check=check)
    if min(len(index) for index in found) < LEAST_POINTS:
        return refined
    edges = edge_template(fixed.levels[-1], EDGE_POINTS)

    def both_sides() -> tuple[_Side, _Side]:
        return of_both(_side, images, images[::-1], found, (None, poses[1]), (edges,) * 2, check=check)

    sides = both_sides()
    jacobian = motion_jacobian(edges).cpu().double()
    prior = EDGES * count / WORKING_POINTS * jacobian.T @ jacobian
    levels: tuple[Tensor | None, Tensor | None] = None, None
    step, pose, blur = torch.zeros(6, dtype=torch.float64), start, 0.0
    # A part of the points leads close to where all of them lead.
    for number, every in enumerate((THINNED,) * 3 + (1,) * 3):
        check()
        sharper = int(blur > 0)
        if number == 3 and abs(blur) > LEAST_BLUR * refined.spacing**2 and images[sharper].spline is not None:
            alike = images[sharper].blurred(2 * abs(blur) / FIRST_TERM)
            images = (images[0], alike) if sharper else (alike, images[1])
            sides, blur = both_sides(), 0.0
        some = sides[0].thinned(every), sides[1].thinned(every)
        parts = of_both(_normal_equations, some, (pose,) * 2, levels, (blur, -blur))
        levels, blur = (parts[0].levels, parts[1].levels), (parts[0].blur - parts[1].blur) / 2
        inside = parts[0].normal + parts[1].normal
        normal = inside + prior / every + 1e-9 * prior.trace() / every * torch.eye(6).double()
        change = torch.linalg.solve(normal, parts[0].right + parts[1].right - prior / every @ step)
        step = step + change
        pose = start @ inverse(motion(step[None], edges.center, edges.radius))[0]
        if every == 1 and float(change.abs().max()) < STILL * refined.spacing:
            break
    # Where little holds the pose, these steps were too short, and so were those that led to the start.
    frame, ends = Frame.of(edges), (fixed.levels[-1], moving.levels[-1])
    every = max(1, count // WORKING_POINTS)
    others = of_both(_other_jacobian, sides, (pose,) * 2, (frame,) * 2, (every,) * 2)
    for _ in range(SETTLING):
        check()
        within = of_both(_part, sides, others, (pose,) * 2, (every,) * 2)
        told = [one for one in (told_by(within, frame), told_by_edges(*ends, pose, frame)) if one is not None]
        change = settled(told)
        pose, length = moved(pose, change, frame, refined.spacing / 2)
        if length < STILL * refined.spacing:
            break
    if distance(pose, start, fixed.place) > refined.spacing:
        return refined
    return replace(refined, pose=pose, scatter=scatter(told, frame))


def _sealed(bone: CorticalBone, other: CorticalBone, pose: Tensor, working: float) -> CorticalBone:
    """The bone, with its marrow as the other scan shows it where a hole in the thin cortex of this one lets it out.

    Args:
        bone, other: of this and of the other scan.
        pose: this scan to the other one.
        working: the working spacing in mm.
    """
    beyond = LAYER * working
    inside = other.depth > beyond
    some = np.argwhere(inside[(slice(None, None, SOUGHT),) * 3])[:, ::-1] * SOUGHT
    to_bone = torch.from_numpy(np.linalg.inv(bone.affine)) @ inverse(pose) @ torch.tensor(other.affine)
    # What lies outside the field of view has not leaked.
    viewed = np.isfinite(bone.grey)
    known = torch.from_numpy(np.where(viewed, bone.depth, np.float32(np.nan)))
    depth, seen = sample_linear(known, apply(to_bone, torch.from_numpy(some).double()).float())
    if np.count_nonzero(depth[seen > 0.5] > 0) >= LEAST_HELD * np.count_nonzero(seen > 0.5):
        return bone
    carried = resample_mask(inside, other.affine, bone.affine, bone.whole.shape, pose.numpy())
    return replace(bone, whole=bone.whole | (carried & viewed))


def _greys(scan: PreparedScan, bone: CorticalBone, spacing: float) -> _Greys:
    """The greys of a scan near a voxel size, about its bone."""
    native = replace(scan.native, bounds=GREYS)
    # One scan may be finer than the other one.
    fine = native.spacing.mean() * 1.4 < spacing
    image: NativeScan | BoneImage = bone_pyramid(native, spacing)[-1] if fine else native
    index = np.argwhere(bone.depth > 0)[:, ::-1]
    corners = np.array([index.min(0), index.max(0)]) if len(index) else np.zeros((2, 3))
    # Grids of like axes, so that two corners are enough.
    to_index = np.linalg.inv(image.affine) @ bone.affine
    low, high = corners @ to_index[:3, :3].T + to_index[:3, 3]
    size = np.array(image.shape[::-1])
    start = np.clip(np.floor(low) - RIM, 0, size - 1).astype(int)
    stop = np.clip(np.ceil(high) + RIM + 1, start + 1, size).astype(int)
    if np.prod(stop - start) > MOST_SPLINE_VOXELS:
        return _Greys(image, None)
    box = tuple(slice(a, b) for a, b in zip(start[::-1], stop[::-1], strict=True))
    values = image.values[box] if isinstance(image, BoneImage) else image.bone(image.raw[box])
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    values = values.nan_to_num(0.0)
    values = values + SHARPENED * (values - gaussian(values, BLUR))
    return _Greys(BoneImage(values, affine), Spline.through(values))


def _inside(image: _Greys, bone: CorticalBone, other: CorticalBone, pose: Tensor, most: int) -> Tensor:
    """Indices ``(n, 3)`` (x, y, z) of voxels that lie inside the bone in both scans, `most` of them or a few more."""
    spacing = image.image.spacing
    margin = MARGIN * float(max(spacing.mean(), bone.spacing.mean(), other.spacing.mean()))
    index = torch.from_numpy(np.argwhere(bone.depth > margin)[:, ::-1].copy())
    to_other = torch.from_numpy(np.linalg.inv(other.affine)) @ pose @ torch.tensor(bone.affine)
    depth = torch.from_numpy(other.depth)
    # The bone may fill the scan: in parts its points take little memory.
    parts = index.split(MOST_POINTS)
    index = torch.cat([p[sample_linear(depth, apply(to_other, p.double()).float())[0] > margin] for p in parts])
    # The bone's voxels are as large as the image's, or whole blocks of them.
    factors = np.maximum(1, np.rint(bone.spacing / spacing)).astype(int)
    to_image = torch.from_numpy(np.linalg.inv(image.image.affine) @ bone.affine)
    children = torch.cartesian_prod(*(torch.arange(int(f)) for f in factors))
    # An odd step takes every child in turn, since the number of children is mostly even.
    count = len(index) * len(children)
    each = torch.arange(0, count, max(1, round(count / most)) | 1)
    middle = apply(to_image, index[each // len(children)].double())
    index = (middle - torch.from_numpy((factors - 1) / 2)).round().long() + children[each % len(children)]
    if (bone.spacing < 0.7 * spacing).any():
        index = torch.unique(index, dim=0)
    limit = torch.tensor(image.image.shape[::-1]) - 1
    return index[((index > 0) & (index < limit)).all(-1)]


def _side(image: _Greys, other: _Greys, index: Tensor, pose: Tensor | None, edges: Template) -> _Side:
    """The points of one scan; `pose` takes those of the moving scan to the fixed one."""
    affine, device = image.image.affine, edges.values.device
    slope, curvature = image.derivatives(index.to(device))
    points = apply(torch.tensor(affine), index.double())
    to_fixed = torch.eye(4).double() if pose is None else pose
    # Gradients turn with the points into the fixed scan's frame, where steps are taken.
    turn = torch.from_numpy(np.linalg.inv(affine[:3, :3])) @ to_fixed[:3, :3].T
    gradient = slope @ turn.to(slope)
    local = ((apply(to_fixed, points) - torch.from_numpy(edges.center)) / edges.radius).to(slope)
    jacobian = torch.cat((torch.linalg.cross(local, gradient), gradient), -1)
    values = image.at(index.to(device))
    blurred = curvature @ torch.from_numpy(image.image.spacing**-2.0).to(curvature)
    return _Side(index, points, values, blurred, jacobian if pose is None else -jacobian, other, pose is None)


def _other_jacobian(side: _Side, pose: Tensor, frame: Frame, every: int) -> Tensor:
    """``(m, 6)`` how residuals of one of `every` points change with a step, by the other scan's greys."""
    affine = side.image.image.affine
    points = side.points[::every]
    to_index = torch.from_numpy(np.linalg.inv(affine)) @ (pose if side.forward else inverse(pose))
    at, ends = apply(to_index, points), torch.eye(3).double() / 2
    values = [
        side.image.sample((at + end).to(side.values)) - side.image.sample((at - end).to(side.values)) for end in ends
    ]
    gradient = torch.stack(values, -1).cpu().double() @ torch.from_numpy(np.linalg.inv(affine[:3, :3]))
    if side.forward:
        return frame.jacobian(points, gradient @ pose[:3, :3])
    return -frame.jacobian(apply(inverse(pose), points), gradient)


def _part(side: _Side, other: Tensor, pose: Tensor, every: int) -> Part:
    """The points of one scan at a pose, and the `_other_jacobian` of one of `every`; gain, offset, blur are fitted."""
    to_index = torch.from_numpy(np.linalg.inv(side.image.image.affine)) @ (pose if side.forward else inverse(pose))
    values = side.image.sample(apply(to_index, side.points).to(side.values)).cpu().double()
    columns = torch.stack((values, torch.ones_like(values), side.blurred.cpu().double()), -1)
    target = side.values.cpu().double()
    weight = torch.ones_like(target)
    for _ in range(REWEIGHTED):
        root = weight.sqrt()
        fitted = torch.linalg.lstsq(root[:, None] * columns, (root * target)[:, None], driver="gelsd").solution[:, 0]
        residual = columns @ fitted - target
        weight = tukey(residual[None], torch.ones_like(residual)[None])[0]
    points = side.points if side.forward else apply(inverse(pose), side.points)
    jacobian = side.jacobian.cpu().double()
    return Part(points, jacobian, float(fitted[0]) * other, residual, weight, columns, every)


def _normal_equations(side: _Side, pose: Tensor, levels: Tensor | None, blur: float) -> _Equations:
    """The normal equations of a step.

    Args:
        side: points of one scan.
        pose: fixed to moving.
        levels: gain and offset that residuals are weighted by, or None for those of all points alike.
        blur: by how much of the Laplacian the other scan is taken to be sharper, mm2.
    """
    to_index = torch.from_numpy(np.linalg.inv(side.image.image.affine)) @ (pose if side.forward else inverse(pose))
    values = side.image.sample(apply(to_index, side.points).to(side.values))
    target = side.values - blur * side.blurred
    columns = torch.stack((values, torch.ones_like(values)), -1)
    if levels is None:
        levels = torch.linalg.lstsq(columns.cpu().double(), target.cpu().double()[:, None]).solution[:, 0]
    residual = columns @ levels.to(columns) - target
    weight = tukey(residual[None], torch.ones_like(residual)[None])[0]
    both = torch.cat((-side.jacobian.T, columns.T, side.blurred[None], target[None]))
    product = ((both * weight) @ both.T).cpu().double()
    normal, right = product[:9, :9], product[:9, 9]
    # Where nothing is seen, some of the unknowns are free.
    further = torch.linalg.lstsq(normal, right[:, None], driver="gelsd").solution[8, 0]
    # Gain and offset are eliminated (Schur complement).
    solved = torch.linalg.solve(normal[6:8, 6:8], torch.cat((normal[6:8, :6], right[6:8, None]), -1))
    part = normal[:6, :6] - normal[:6, 6:8] @ solved[:, :6]
    pull = right[:6] - normal[:6, 6:8] @ solved[:, 6]
    return _Equations(part, pull, solved[:, 6], blur + float(further))
