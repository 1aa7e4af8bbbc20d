"""This project as one of the methods compared: by default, by one of its parts, or its refinement alone."""

from __future__ import annotations

import numpy as np
import torch

from ...bone.cortex import cortical_bone
from ...bone.images import native_scan
from ...bone.prepare import prepare
from ...bone.threshold import find_bone_scale
from ...imaging.volume import Volume
from ...registration import align as alignment
from ...registration.holders import ScanPair
from ...registration.interior import refine_fully
from .answer import Answer


def align(fixed: Volume, moving: Volume, threads: int, hypotheses: str, weights: str | None = None) -> Answer:
    """Aligns with these options of `registration.align.align`. A network alone is not refined."""
    refined = "none" if hypotheses == "dnet" else "native"
    found = alignment.align(fixed, moving, hypotheses=hypotheses, weights=weights, refine=refined, device="cpu")
    return Answer(found.matrix, bool(found.accepted))


def refine_start(fixed: Volume, moving: Volume, threads: int, start: np.ndarray) -> Answer:
    """Refines a ``(4, 4)`` start to native resolution, without verification."""
    natives = [native_scan(scan, find_bone_scale(scan), None, torch.device("cpu")) for scan in (fixed, moving)]
    first, second = prepare(*natives)
    first_bone, second_bone = (
        cortical_bone(scan, native.scale.threshold, first.cube.spacing)
        for scan, native in zip((fixed, moving), natives, strict=True)
    )
    pair = ScanPair(first, second, (first_bone, second_bone))
    return Answer(refine_fully(pair, torch.from_numpy(start), True).pose.numpy())
