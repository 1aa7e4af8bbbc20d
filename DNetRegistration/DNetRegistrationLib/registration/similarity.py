"""Similarity of two bone images over the overlap of their fields of view."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..bone.cortex import CorticalBone
from ..bone.images import BoneImage
from ..imaging import morphology
from ..imaging.tensors import dilate, gaussian, gaussian_mean
from .template import index_of, sample_voxels

# Points for each direction: enough for a correlation to three digits.
POINTS = 20000
# Of the marrow space, and of what lies so many voxels beside the bone.
TRABECULAR_POINTS, BESIDE = 20000, 4
# With fewer marrow voxels, or less variation of grey value (dense bone is 1) among them beside noise, trabeculae tell
# nothing.
LEAST_MARROW, LEAST_TRABECULAR_DEVIATION = 100, 0.04
# Where at least this share of the marrow touches the cortex, as in a slender bone, the voxels that touch it are left
# out: noise decides what is marrow there and what is cortex, on each grid anew. In a wider shaft, where the share is
# 0.46 at most, they help to tell littermates apart.
CANAL = 0.5
# Of the variance within the marrow, this share at most is taken for noise: what lies beside the bone may have texture.
MOST_NOISE = 0.5
# A normal deviation, in median absolute deviations.
NORMAL_DEVIATIONS = 1.4826


@dataclass(frozen=True)
class Similarity:
    """Agreement of two bone images in a pose, over the overlap of both fields of view and both directions.

    Attributes:
        correlation: normalised correlation of bone values on and beside bone, -1 to 1.
        edge_correlation: the same of band-passed values: surfaces and trabeculae.
        trabecular_correlation: normalised correlation of fine structure within the marrow space, of trabeculae and
            growth plate, which even littermates do not share. NaN where the scans show hardly any of these.
        share: the share of a scan's bone in the other's field of view, 0 to 1; the smaller one of the two scans.
        larger_share: the larger one. It is large where one scan shows a piece of what the other one shows.
    """

    correlation: float
    edge_correlation: float
    trabecular_correlation: float
    share: float
    larger_share: float = 1.0


def similarity(
    fixed: BoneImage,
    moving: BoneImage,
    pose: Tensor,
    bones: Sequence[CorticalBone],
    fine: Sequence[BoneImage],
) -> Similarity:
    """The similarity of two images of about one resolution and blur in one pose.

    Args:
        fixed, moving: bone images.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.
        bones: the cortical bone of both scans, for their marrow space.
        fine: the fine structure of both scans, also below the bone threshold, where thin trabeculae are that are
            blurred. What is coarser is much alike in all animals: the marrow, and the cortex that blur carries into it.
    """
    ways = list(_both_ways(fixed, moving, pose[None], (_as_it_is, band_passed)))
    correlation, edge_correlation = (float(sum(way.correlations[k] for way in ways) / 2) for k in range(2))
    found = _trabecular(fine, pose, bones), _trabecular(fine[::-1], torch.linalg.inv(pose), bones[::-1])
    within = [correlation for correlation in found if correlation is not None]
    return Similarity(
        correlation=correlation,
        edge_correlation=edge_correlation,
        trabecular_correlation=sum(within) / len(within) if within else math.nan,
        share=float(min(way.share for way in ways)),
        larger_share=float(max(way.share for way in ways)),
    )


def _trabecular(images: Sequence[BoneImage], pose: Tensor, bones: Sequence[CorticalBone]) -> float | None:
    """Correlation within the marrow space of the first of two scans; None where that is too small, or empty.

    What noise takes from it is made up for (Spearman, Am. J. Psychol. 15:72, 1904): it is as strong beside the bone.
    What the other scan shows as solid there has changed, as where a callus grew, and tells nothing of trabeculae; but
    where two cortices meet, a small misfit makes the marrow beside the one lie in the other.
    """
    marrow = bones[0].marrow(float(images[0].spacing.min()))
    touching = morphology.dilate(bones[0].cortex, 1)[tuple(marrow[:, ::-1].T)]
    kept = touching | ~_solid(marrow, bones, pose)
    away = kept & ~touching
    if LEAST_MARROW <= np.count_nonzero(away) <= (1 - CANAL) * np.count_nonzero(kept):
        kept = away
    pairs = values_of_both(images, pose, bones[0], thinned(marrow[kept]))
    if pairs.shape[1] < LEAST_MARROW:
        return None
    outside = ~morphology.dilate(bones[0].whole, BESIDE) & np.isfinite(bones[0].grey)
    place = np.unravel_index(thinned(np.flatnonzero(outside)), outside.shape)
    beside = values_of_both(images, pose, bones[0], np.stack(place[::-1], -1))
    variance, noise = pairs.var(1), torch.zeros(2)
    if beside.shape[1] >= LEAST_MARROW:
        away = (beside - beside.median(1, keepdim=True).values).abs()
        noise = (NORMAL_DEVIATIONS * away.median(1).values).square()
    if float((variance - noise).min()) < LEAST_TRABECULAR_DEVIATION**2:
        return None
    true = 1 - (noise / variance).clamp(max=MOST_NOISE)
    return float((torch.corrcoef(pairs)[0, 1] / true.prod().sqrt()).clamp(-1, 1))


def thinned(index: np.ndarray) -> np.ndarray:
    """Evenly some of ``(n, ...)`` voxels, `TRABECULAR_POINTS` at most."""
    return index[:: max(1, -(-len(index) // TRABECULAR_POINTS))]


def values_of_both(images: Sequence[BoneImage], pose: Tensor, bone: CorticalBone, index: np.ndarray) -> Tensor:
    """``(2, m)`` of both images on the CPU, at those voxels ``(n, 3)`` of the first one's bone that both show."""
    at = torch.as_tensor(index, dtype=torch.float32, device=images[0].values.device)
    ways = torch.eye(4, dtype=torch.float64), pose
    found = [sample_voxels(at, bone.affine, image, way[None]) for image, way in zip(images, ways, strict=True)]
    shown = torch.stack([inside[0] > 0.999 for _, inside in found]).all(0)
    return torch.stack([values[0][shown] for values, _ in found]).cpu()


def _solid(index: np.ndarray, bones: Sequence[CorticalBone], pose: Tensor) -> np.ndarray:
    """``(n,)`` bool, which voxels ``(n, 3)`` of one bone are cortex in the other one."""
    own, other = bones
    to_other = np.linalg.inv(other.affine) @ pose.numpy() @ own.affine
    there = np.rint(index @ to_other[:3, :3].T + to_other[:3, 3]).astype(int)
    inside = ((there >= 0) & (there < np.array(other.cortex.shape[::-1]))).all(1)
    solid = np.zeros(len(index), bool)
    solid[inside] = other.cortex[tuple(there[inside, ::-1].T)]
    return solid


def agreement(fixed: BoneImage, moving: BoneImage, pose: Tensor) -> float:
    """The correlation of two images over the overlap in a pose ``(4, 4)``, on and beside the bone of either."""
    return float(overlap_scores(fixed, moving, pose[None])[1])


def edge_agreement(fixed: BoneImage, moving: BoneImage, maps: Tensor) -> Tensor:
    """``(h,)`` float64 correlations of band-passed values over the overlap, in affine maps ``(h, 4, 4)``."""
    there, back = _both_ways(fixed, moving, maps, (band_passed,))
    return ((there.correlations[0] + back.correlations[0]) / 2).cpu().double()


def overlap_correlation(fixed: BoneImage, moving: BoneImage, poses: Tensor) -> Tensor:
    """``(h,)`` scores of ``(h, 4, 4)`` poses: the correlation over the overlap, shrunk where the overlap is small.

    Bone that only one scan shows, although both fields of view hold the place, counts against a pose. Bone outside the
    other's field of view does not. Below half the bone the score falls with the root of the share, so that a sliver
    cannot win.
    """
    return overlap_scores(fixed, moving, poses)[0]


def overlap_scores(fixed: BoneImage, moving: BoneImage, poses: Tensor) -> tuple[Tensor, Tensor]:
    """``(h,)`` scores as those of `overlap_correlation`, and the correlations ``(h,)`` over the overlap themselves."""
    score = plain = torch.zeros(len(poses), device=fixed.values.device)
    for way in _both_ways(fixed, moving, poses):
        score = score + way.correlations[0] * (2 * way.share).clamp(max=1).sqrt() / 2
        plain = plain + way.correlations[0] / 2
    return score.cpu().double(), plain.cpu().double()


def _as_it_is(image: BoneImage) -> BoneImage:
    return image


class _Way(NamedTuple):
    """Of one direction: correlations ``(h,)`` of the images under each filter, and the share ``(h,)`` of the bone."""

    correlations: list[Tensor]
    share: Tensor


def _both_ways(
    fixed: BoneImage,
    moving: BoneImage,
    poses: Tensor,
    filters: Sequence[Callable[[BoneImage], BoneImage]] = (_as_it_is,),
) -> Iterator[_Way]:
    """Compares two images at points on and beside the bone of the one, then of the other."""
    first, second = ([one(image) for one in filters] for image in (fixed, moving))
    yield _one_way(fixed, first, second, poses)
    yield _one_way(moving, second, first, torch.linalg.inv(poses))


def _one_way(image: BoneImage, own: Sequence[BoneImage], others: Sequence[BoneImage], poses: Tensor) -> _Way:
    """Compares images on the grid of `image` with others, on and beside its bone. The share is of the first one's."""
    correlations = []
    chosen, index = _near_bone(image)
    targets = [one.values.reshape(-1)[chosen] for one in own]
    for target, other in zip(targets, others, strict=True):
        values, inside = sample_voxels(index, image.affine, other, poses)
        total = inside.sum(-1, keepdim=True).clamp(min=1)
        first = target - (inside * target).sum(-1, keepdim=True) / total
        second = values - (inside * values).sum(-1, keepdim=True) / total
        variance = (inside * first * first).sum(-1) * (inside * second * second).sum(-1)
        correlations.append((inside * first * second).sum(-1) / variance.clamp(min=1e-12).sqrt())
    bone = targets[0].clamp(min=0)
    return _Way(correlations, (inside * bone).sum(-1) / bone.sum().clamp(min=1e-6))


def _near_bone(image: BoneImage) -> tuple[Tensor, Tensor]:
    """Voxels on or beside the bone, thinned evenly to about `POINTS`: counted in memory order, and as (x, y, z).

    They are kept with the image, which is compared in one pose after another.
    """
    return image.kept("near bone", lambda: _found_near_bone(image))


def _found_near_bone(image: BoneImage) -> tuple[Tensor, Tensor]:
    near = dilate((image.values > 0.05).byte()) > 0
    if image.inside is not None:
        near &= image.inside > 0.999
    chosen = near.view(-1).nonzero()[:, 0]
    chosen = chosen[:: max(1, -(-len(chosen) // POINTS))]
    return chosen, index_of(chosen, image.values.shape).float()


def band_passed(image: BoneImage) -> BoneImage:
    """Subtracts the local mean (Gaussian of one voxel) inside the field of view; zero outside.

    Surfaces and trabeculae remain, where bone is denser than its surroundings.
    """
    if image.inside is None:
        return BoneImage(image.values - gaussian_mean(image.values, 1.0), image.affine)
    local = gaussian(image.values * image.inside, 1.0) / gaussian(image.inside, 1.0).clamp(min=1e-3)
    return BoneImage((image.values - local) * image.inside, image.affine, image.inside)
