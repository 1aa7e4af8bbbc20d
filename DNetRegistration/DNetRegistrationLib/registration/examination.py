"""Examination of an answer that verification accepts: is it the only one, true to scale, and true for all the bone?

Correlation answers none of these: a cube turned by a quarter, a scan with a wrong slice distance, and the larger one of
two bones that moved on their own all agree well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from ..bone.cortex import CorticalBone
from ..bone.cube import canonical_cube
from ..bone.prepare import PreparedScan
from ..core.threads import at_once, of_both, small_work
from .blur import as_bone, blurred
from .bowing import Bowing, find_bowing, slender_frame
from .evidence import alike_greys, grey_image
from .holders import ScanPair
from .identity import UNVOUCHED, unvouched
from .pieces import Piece, check_pieces, holds_for_all, told
from .rivals import Rival, find_rival
from .slices import Jump, find_jump
from .strain import find_strain
from .verdict import ACCEPT, REASONS, Doubt, Verdict

# An error estimated at a working voxel is as likely above it as below; this power says how sharply that changes.
SHARPNESS = 8
# With less of the bone than this in common, a bone that moved on its own may lie outside the other field of view.
LEAST_COMMON = 0.5
# With a smaller Dice of the cortices as the scans lie in the world, nothing large stood still.
LAY_TOGETHER = 0.3
# Slices that are missing or doubled are looked for in refused poses that correlate by so much: of 11 such poses 10 did.
# Blur that differs feigns shifts of 1.5 working voxels in them.
NEAR, LARGE_SHIFT = 0.7, 2.0
# Slender bones that surely bow, twist and taper so many voxels apart are two; the power says how sharply that changes.
# In voxels of 80 um it was set on 45 right pairs, 0.032 apart at most, and 36 pairs of bones whose measures differ by 2
# to 10 %: 13 of them are more than 0.042 apart, and of 17 it is not seen. Of others, 40 of 40 right ones and 8 of 25
# are accepted. Of 36 right ones with agent on the bone or in it, none is refused for it.
MOST_BOWED, BOWED_SHARPNESS = 0.047, 8
#: Of an answer that fits something that stood still.
STOOD_STILL = (
    "most of what this pose brings together lies together without it, as a holder does that stood still and looks the "
    "same after a turn. Mask it in both scans, or raise the bone thresholds."
)
#: Of slender bones of another shape.
BOWED = (
    "the bones bow, twist or taper otherwise along their axis by more than noise explains, as those of two animals do. "
    "Check that both scans are of the same bone."
)


@small_work()
def examine(
    verdict: Verdict,
    pair: ScanPair,
    pose: Tensor,
    check: Callable[[], None] = lambda: None,
) -> tuple[Verdict, ScanPair]:
    """The verdict after the examination, and the scans without what is none of the bone.

    The verdict is never more confident than before.

    Args:
        verdict: on the pose; of one that is not accepted nothing is examined.
        pair: the scans.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.
        check: called between steps; an exception from it ends the work.
    """
    if not verdict.accepted:
        return verdict, pair
    still = 0.0
    pieces = _checked(pair, pose, check)
    if not holds_for_all(pieces) and (found := pair.without_still(pose)) is not None:
        pair, still = found
        pieces = _checked(pair, pose, check)
    fixed, moving = pair.fixed, pair.moving
    # Blur that differs displaces edges, and what it leaves unexplained hides how much better one pose fits.
    alike = _alike(pair, verdict.evidence.blurs)

    def rival_and_jump(check: Callable[[], None]) -> tuple[Rival | None, Jump | None]:
        return find_rival(*alike, pose, check), find_jump(fixed, moving, pose)

    (rival, jump), strain = at_once(rival_and_jump, lambda check: find_strain(*alike, pose, check), check)
    if rival is not None and rival.fits_equally:
        return replace(verdict, confidence=0.0).because("symmetry"), pair
    if verdict.evidence.dice_before > LAY_TOGETHER and pair.fits_as_it_lay(pose):
        return replace(verdict, confidence=0.0).because("standstill", STOOD_STILL), pair
    bowing = _bowing(pair, verdict.evidence.blurs, pose)
    if bowing is not None and bowing.apart > 0:
        verdict = replace(verdict, confidence=verdict.confidence / (1 + (bowing.apart / MOST_BOWED) ** BOWED_SHARPNESS))
        if not verdict.accepted:
            return verdict.because("shape", BOWED), pair
    doubts = []
    errors = verdict.expected_error, strain.expected_error, 0.0 if jump is None else jump.error
    error = float(np.linalg.norm(errors))
    confidence = _believed(verdict, error, fixed)
    if strain.sentence is not None:
        doubts.append(Doubt("strain", strain.sentence))
    if jump is not None:
        doubts.append(Doubt("slices", jump.sentence))
    share = verdict.evidence.similarity.share
    if confidence < ACCEPT and not doubts:
        kind = "strain"
        if _believed(verdict, verdict.expected_error, fixed) < ACCEPT:  # it is hardly known to within a voxel
            kind = "little in common" if share < LEAST_COMMON else "undetermined"
        doubts.append(Doubt(kind, REASONS[kind]))
    if still:
        doubts.append(
            Doubt(
                "other bone",
                f"{100 * still:.0f} % of what is as bright as bone lies still in both scans, as a holder does. It was "
                "left out: the result applies to the rest only.",
            )
        )
    if not holds_for_all(pieces):
        doubts.append(Doubt("other bone", told(pieces, jump is None and not pair.bare)))
    if share < LEAST_COMMON:
        doubts.append(
            Doubt(
                "part",
                f"It rests on {100 * share:.0f} % of the bone: the rest lies outside the other field of view, and "
                "whether it moved along is not known.",
            )
        )
    if confidence >= ACCEPT and unvouched(pair, verdict.evidence, pose):
        doubts.append(Doubt("identity", UNVOUCHED))
    return replace(verdict, confidence=confidence, expected_error=error, doubts=tuple(doubts)), pair


def _checked(pair: ScanPair, pose: Tensor, check: Callable[[], None]) -> list[Piece]:
    """The pieces of the bone. Where only its inside is in view, what one scan alone shows is no new bone: another bone
    that moved lies there, in agent as bright as bone."""
    pieces = check_pieces(pair.fixed, pair.moving, pose, check)
    return [replace(piece, one_sided=False) for piece in pieces] if pair.bare else pieces


def _bowing(pair: ScanPair, blurs: tuple[np.ndarray, np.ndarray], pose: Tensor) -> Bowing | None:
    """How differently the bones bow, twist and taper, if they are slender, and it is seen."""
    # A holder beside a slender bone is in one of the scans what makes the whole none.
    frame, other = (slender_frame(scan.levels[-1]) for scan in (pair.fixed, pair.moving))
    if frame is None or other is None:
        return None
    return find_bowing(alike_greys((pair.fixed, pair.moving), pair.bones, blurs), frame, pose)


def _believed(verdict: Verdict, error: float, fixed: PreparedScan) -> float:
    """The confidence that is left of a verdict's where so much error in mm is expected."""
    return verdict.confidence / (1 + (error / fixed.cube.spacing) ** SHARPNESS)


def jump_of(verdict: Verdict, pair: ScanPair, pose: Tensor) -> Jump | None:
    """The place where slices are missing or doubled, of a pose that was refused and comes near to agree.

    Args:
        verdict: on the pose.
        pair: the scans.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.
    """
    if verdict.evidence.similarity.correlation < NEAR:
        return None
    jump = find_jump(*_alike(pair, verdict.evidence.blurs), pose)
    return None if jump is None or jump.shift < LARGE_SHIFT * pair.fixed.cube.spacing else jump


def _alike(pair: ScanPair, blurs: tuple[np.ndarray, np.ndarray]) -> tuple[PreparedScan, PreparedScan]:
    """The scans, with their images at the working spacing and their cubes at one blur."""
    if not any(one.any() for one in blurs):
        return pair.fixed, pair.moving
    return of_both(_blurred, (pair.fixed, pair.moving), pair.bones, blurs)


def _blurred(scan: PreparedScan, bone: CorticalBone, covariance: np.ndarray) -> PreparedScan:
    """The scan, with its image and its cube made of greys that a Gaussian of a covariance in mm2 blurs."""
    image = as_bone(blurred(grey_image(scan, bone), covariance))
    cube = canonical_cube([image], scan.place, scan.cube.spacing)
    return replace(scan, levels=[*scan.levels[:-1], image], cube=cube)
