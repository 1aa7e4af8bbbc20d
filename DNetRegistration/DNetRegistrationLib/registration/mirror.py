"""Tells a scan that is a mirror image."""

from __future__ import annotations

from ..networks.weights import LoadedWeights
from .answers import HOPELESS, refined_near
from .hypotheses import ranked_poses
from .preparation import PreparedPair
from .proposal import proposal_of
from .search import FAST, search
from .verification import verify
from .watch import Watch


def fits_mirrored(pair: PreparedPair, network: LoadedWeights | None, watch: Watch) -> bool:
    """Whether the moving scan's mirror image fits where the scan itself does not.

    The network is asked for its pose, or else the search: asking both would take longer than finding a right pose.
    """
    mirrored, report = pair.mirrored(), watch.within(0.75, 0.9, "Trying the mirror image")
    if network is not None:
        poses = proposal_of(network, mirrored.fixed, mirrored.moving).poses
    else:
        poses = search(mirrored.fixed.cube, mirrored.moving.cube, FAST, report)
    if len(poses) == 0:
        return False
    return any(
        verify(mirrored, refined_near(mirrored, pose, "working", watch.check)).accepted
        for pose, correlation in ranked_poses(mirrored, poses, "working", watch.check)
        if correlation >= HOPELESS
    )
