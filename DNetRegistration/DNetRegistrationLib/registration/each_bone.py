"""Parts scans into bones that moved on their own, and aligns the largest or each one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..bone.prepare import PreparedScan
from ..core.errors import ScanError
from .inputs import AlignmentInputs
from .motions import Motion, find_motions
from .one_pair import align_pair
from .preparation import found_bone
from .proposal import proposal_of
from .result import Alignment, Bone
from .search import FAST, search
from .severed import SENTENCE, severed
from .watch import Watch

# Of bones aligned one by one, more than this share of the bone in none of them is told.
UNEXPLAINED = 0.3


def align_bones(inputs: AlignmentInputs, device: torch.device, watch: Watch) -> Alignment | list[Alignment]:
    """Parts the scans into bones that moved on their own, and aligns the largest one, or a list of each."""
    start = time.perf_counter()

    def scans(
        masks: Sequence[np.ndarray] | None, thresholds: tuple[float, float] | None, spacing: float | None
    ) -> tuple[PreparedScan, PreparedScan]:
        own = inputs if masks is None else _only(inputs, masks)
        own = replace(own, thresholds=thresholds or inputs.thresholds, spacing=spacing or inputs.spacing)
        return found_bone(own, device, watch)

    def proposed(first: PreparedScan, second: PreparedScan) -> Tensor:
        watch.tell(0.1, "Looking for bones that moved on their own")
        poses = [torch.empty(0, 4, 4, dtype=torch.float64)]
        if inputs.initial is not None:
            poses.append(inputs.initial[None])
        if inputs.network is not None:
            poses.append(proposal_of(inputs.network, first, second).poses)
        if inputs.hypotheses != "dnet":
            poses.append(search(first.cube, second.cube, FAST, lambda fraction: watch.check()))
        return torch.cat(poses)

    with watch.stage("search"):
        motions = find_motions(scans, proposed)
    parting, aligned = time.perf_counter() - start, []
    for number, motion in enumerate(motions):
        one = replace(_only(inputs, motion.masks), initial=motion.pose)
        part = watch.part(0.3 + 0.7 * number / len(motions), 0.3 + 0.7 * (number + 1) / len(motions))
        try:
            alignment = align_pair(one, device, part)
        except ScanError:
            # A piece that shows too little of its surface is none to align.
            continue
        if not (motion.sure or alignment.accepted):
            continue
        aligned.append((alignment, motion))
        if inputs.bone == "largest":
            break
    if not aligned:
        whole = align_pair(replace(inputs, bone=None), device, watch, parted=True)
        return [whole] if inputs.bone == "each" else whole
    count = len(motions) if inputs.bone == "largest" else len(aligned)
    found = []
    for number, (alignment, motion) in enumerate(aligned, 1):
        alignment = replace(alignment, bone=Bone(number, count, motion.share, motion.center, motion.masks))
        if alignment.hypothesis == "initial":
            alignment = replace(alignment, hypothesis="dnet" if inputs.hypotheses == "dnet" else "search")
        found.append(alignment)
    parted = motions if inputs.bone == "largest" else [one for _, one in aligned]
    if severances := _severed(inputs, parted, found):
        watch.warnings.extend(severances)
        found = [replace(one, doubts=list(dict.fromkeys((*one.doubts, "slices")))) for one in found]
    rest = 1 - sum(motion.share for motion in parted)
    if rest > UNEXPLAINED:
        watch.warnings.append(
            f"{100 * rest:.0f} % of the bone in the fixed scan belongs to no bone that was found: another one may have "
            "moved on its own there, or changed, or lie outside the moving scan."
        )
    # What all share counts once, also where several rounds of the search told it.
    found[0].warnings[:0] = dict.fromkeys(watch.warnings)
    for stage, seconds in (*watch.seconds.items(), ("total", parting)):
        found[0].seconds[stage] = found[0].seconds.get(stage, 0.0) + seconds
    return found if inputs.bone == "each" else found[0]


def _severed(inputs: AlignmentInputs, motions: Sequence[Motion], found: Sequence[Alignment]) -> list[str]:
    """A sentence for each two bones that may be one, which lost slices or a motion during a scan part by a plane."""
    told = []
    for role, (scan, given) in enumerate(zip((inputs.fixed, inputs.moving), inputs.masks, strict=True)):
        name = ("fixed", "moving")[role]
        bone = scan.voxels > min(getattr(one, f"{name}_threshold") for one in found)
        bone = bone if given is None else bone & given
        for (i, first), (j, second) in combinations(enumerate(motions, 1), 2):
            if severed(bone, first.masks[role], second.masks[role]):
                told.append(SENTENCE.format(i, j, name))
    return told


def _only(inputs: AlignmentInputs, masks: Sequence[np.ndarray]) -> AlignmentInputs:
    """The inputs with masks ``(z, y, x)`` within which bone is looked for, beside those that were given."""
    first, second = (place if mask is None else place & mask for place, mask in zip(masks, inputs.masks, strict=True))
    return replace(inputs, masks=(first, second))
