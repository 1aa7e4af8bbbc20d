"""The evidence on which the judgement of a pose rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..bone.cortex import CorticalBone, dice
from ..bone.images import BoneImage, extended
from ..bone.prepare import PreparedScan
from ..bone.threshold import HIGHEST
from ..core.threads import at_once, of_both
from .blur import as_bone, blurred, match_blur, without_coarse
from .determination import determination
from .endosteum import Misfit
from .refinement import Refined
from .settling import Held, held
from .similarity import Similarity, similarity
from .uncertainty import Uncertainty, uncertainty

# Cortices of right poses overlap with a Dice of 0.63 or more, also where the thresholds were badly chosen, and of 0.4
# where a holder as bright as bone counts too. Where a pose makes the overlap no better than it was by `DICE_GAIN`, what
# lay still in both scans may have been aligned (metal, a holder), so that more is asked for. Scans that lie on each
# other from the start reach it.
LEAST_DICE, DICE_GAIN, LEAST_DICE_WITHOUT_GAIN = 0.4, 0.02, 0.75


@dataclass(frozen=True)
class Evidence:
    """What a decision rests on, measured at the working spacing.

    Attributes:
        similarity: agreement over the overlap.
        disagreement: between the two directions of refinement, as a share of the working spacing.
        spacing: voxel size in mm at which refinement ended.
        determination: share of a motion by a working voxel that refinement takes back, 0 to 1, for the motion of which
            it takes back least. It is near 0 for a ball, which can be turned, and for a straight shaft.
        uncertainty: how far the pose may be off, by its residuals and by the shape of the bone.
        dice_before, dice: overlap of the cortices as the scans lie in the world, and in the pose.
        held: how edges hold the pose.
        scatter: how far noise lets the pose slide, mm, by what is inside the bone and its edges; None where edges alone
            told it.
        misfit: of the inner surfaces of the cortices; None where it was not asked or is not seen.
        blurs: covariances ``(3, 3)`` in mm2, each in its scan's world, of the Gaussians that make the blur of both
            images alike.
    """

    similarity: Similarity
    disagreement: float
    spacing: float
    determination: float = 1.0
    uncertainty: Uncertainty = field(default_factory=lambda: Uncertainty(0.003, 0.25))
    dice_before: float = 0.0
    dice: float = 1.0
    held: Held = field(default_factory=lambda: Held(0.0, 0.0))
    scatter: float | None = None
    misfit: Misfit | None = None
    blurs: tuple[np.ndarray, np.ndarray] = field(
        default_factory=lambda: (np.zeros((3, 3)), np.zeros((3, 3))), compare=False
    )

    @property
    def least_dice(self) -> float:
        """The Dice that the cortices need in the pose."""
        return LEAST_DICE if self.dice > self.dice_before + DICE_GAIN else LEAST_DICE_WITHOUT_GAIN

    def features(self, working: float) -> np.ndarray:
        """``(9,)`` numbers for a logistic model of the confidence, at a working spacing of `working` mm.

        Where no trabeculae are seen, their correlation is 0, and the edges count by a weight of their own. Coarse and
        thick voxels leave less to agree, so that they are told.
        """
        s = self.similarity
        unseen = float(np.isnan(s.trabecular_correlation))
        trabecular = 0.0 if unseen else s.trabecular_correlation
        edges = np.arctanh(np.clip(s.edge_correlation, -0.99, 0.999))
        return np.array(
            (
                1.0,
                np.arctanh(np.clip(s.correlation, -0.99, 0.999)),
                edges,
                np.arctanh(np.clip(trabecular, -0.99, 0.999)),
                unseen,
                unseen * edges,
                np.log(np.clip(s.share, 0.02, 1.0)),
                np.log(np.clip(self.disagreement, 1e-3, 10.0)),
                np.log(np.clip(self.spacing / working, 1.0, 4.0)),
            )
        )

    def error_features(self, working: float) -> np.ndarray:
        """``(14,)`` numbers for a log-linear model of the error, in working spacings of `working` mm."""
        found = (self.spacing / working, self.uncertainty.random / working, self.uncertainty.dilution)
        blur = sum(np.sqrt(np.trace(one) / 3) for one in self.blurs) / working
        # A piece of shaft that refinement hardly brings back along its axis stops a little off.
        held = np.log(1.02 - self.determination)
        return np.r_[self.features(working), np.log(np.clip(found, 1e-4, 1e2)), blur, held]


def find_evidence(
    fixed: PreparedScan,
    moving: PreparedScan,
    refined: Refined,
    bones: tuple[CorticalBone, CorticalBone],
    dice_before: float | None = None,
) -> Evidence:
    """Measures the evidence for a refined pose, with the cortical bone of both scans.

    The overlap of the cortices as the scans lie in the world is the same for all poses, and may be given.
    """
    first, second = fixed.levels[-1], moving.levels[-1]
    working = fixed.cube.spacing

    greys = grey_image(fixed, bones[0]), grey_image(moving, bones[1])
    blurs = match_blur(*greys, refined.pose)
    alike = of_both(blurred, greys, blurs)
    fine = fine_structure(alike)
    images = (as_bone(alike[0]), as_bone(alike[1])) if any(one.any() for one in blurs) else (first, second)

    def sure() -> tuple[float, Uncertainty, Held, float, float]:
        return (
            determination(first, second, refined.pose, working),
            uncertainty(first, second, refined.pose),
            held(first, second, refined.pose),
            dice(*bones, np.eye(4)) if dice_before is None else dice_before,
            dice(*bones, refined.pose.numpy()),
        )

    similar, (determined, uncertain, by_edges, before, after) = at_once(
        lambda _: similarity(*images, refined.pose, bones, fine), lambda _: sure()
    )
    return Evidence(
        similarity=similar,
        disagreement=refined.disagreement / working,
        spacing=refined.spacing,
        determination=determined,
        uncertainty=uncertain,
        held=by_edges,
        scatter=refined.scatter,
        dice_before=before,
        dice=after,
        blurs=blurs,
    )


def fine_structure(greys: Sequence[BoneImage]) -> list[BoneImage]:
    """Of both greys what is fine, and what no voxel of either scan averages away."""
    longest = max(float(one.spacing.max()) for one in greys)
    return list(of_both(without_coarse, (greys[0], greys[1]), (longest,) * 2))


def alike_greys(
    scans: Sequence[PreparedScan], bones: Sequence[CorticalBone], blurs: Sequence[np.ndarray]
) -> list[BoneImage]:
    """The `grey_image` of both scans, made of one blur by covariances ``(3, 3)`` in mm2."""
    return [blurred(grey_image(*of_one), blur) for *of_one, blur in zip(scans, bones, blurs, strict=True)]


def grey_image(scan: PreparedScan, bone: CorticalBone) -> BoneImage:
    """A scan's image at the working spacing that goes on below the bone threshold, to less than 0, as far as above."""
    scale = scan.native.scale
    inside = np.isfinite(bone.grey)
    values = (bone.grey - scale.threshold) / (scale.maximum - scale.threshold)
    values = np.where(inside, values, 0).clip(-HIGHEST, HIGHEST)
    grey, seen = (torch.from_numpy(one.astype(np.float32)).to(scan.native.raw.device) for one in (values, inside))
    image = BoneImage(grey, bone.affine, None if inside.all() else seen)
    return extended([image], scan.cube.spacing)[-1]
