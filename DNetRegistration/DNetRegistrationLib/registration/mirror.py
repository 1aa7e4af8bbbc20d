"""Tells a scan that is a mirror image."""

from __future__ import annotations

from ..networks.weights import LoadedWeights
from .answers import HOPELESS, refined_near
from .hypotheses import ranked_poses
from .preparation import PreparedPair
from .proposal import proposal_of
from .rivals import DISTINCT
from .search import FAST, search
from .verdict import Verdict
from .verification import verify
from .watch import Watch


def fits_mirrored(pair: PreparedPair, refused: Verdict, network: LoadedWeights | None, watch: Watch) -> bool:
    """Whether the moving scan's mirror image fits, and clearly better than the scan itself, whose verdict is given.

    Of a slender bone that is its own mirror image, noise alone decides which of the two is accepted.

    The network is asked for its pose, or else the search: asking both would take longer than finding a right pose.
    """
    mirrored, report = pair.mirrored(), watch.within(0.75, 0.9, "Trying the mirror image")
    if network is not None:
        poses = proposal_of(network, mirrored.fixed, mirrored.moving).poses
    else:
        poses = search(mirrored.fixed.cube, mirrored.moving.cube, FAST, report)
    if len(poses) == 0:
        return False

    def fits(verdict: Verdict) -> bool:
        left, before = (1 - one.evidence.similarity.edge_correlation for one in (verdict, refused))
        return verdict.accepted and DISTINCT * left < before

    return any(
        fits(verify(mirrored, refined_near(mirrored, pose, "working", watch.check)))
        for pose, correlation in ranked_poses(mirrored, poses, "working", watch.check)
        if correlation >= HOPELESS
    )
