"""Proposes poses from one source after another, by rising cost, and ranks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from ..bone.images import pool_image
from ..core.threads import small_work
from .holders import ScanPair
from .inputs import AlignmentInputs
from .layers import may_have_layer, peeled
from .preparation import PreparedPair
from .proposal import proposal_of
from .refinement import gauss_newton
from .search import FAST, FINE, distinct_indices, search
from .similarity import overlap_scores
from .template import edge_template
from .watch import Watch

# At most this many poses of one hypothesis are verified, until one is accepted.
VERIFIED = 4


def hypotheses_of(pair: PreparedPair, inputs: AlignmentInputs, watch: Watch) -> Iterator[tuple[str, Tensor, ScanPair]]:
    """Yields sources of poses ``(h, 4, 4)`` by rising cost, and the pair to rank them on.

    Each is asked only if none before it verified.
    """
    if inputs.initial is not None:
        yield "initial", inputs.initial[None], pair
    if inputs.network is not None:
        with watch.stage("dnet"):
            watch.tell(0.2, "Asking the network")
            watch.network_ran = True
            proposal = proposal_of(inputs.network, pair.fixed, pair.moving)
            watch.network_spread = proposal.spread
        yield "dnet", proposal.poses, pair
    if inputs.hypotheses == "dnet":
        return
    if inputs.network is None and inputs.hypotheses == "auto":
        watch.warnings.append("No trained network is installed: the search over all rotations proposed the pose.")
    plans = ((FAST, ""),) if pair.has_outline else ((FAST, ""), (FINE, " more thoroughly"))
    for plan, how in plans:
        with watch.stage("search"):
            report = watch.within(0.25, 0.6, f"Searching all rotations{how}")
            poses = search(pair.fixed.cube, pair.moving.cube, plan, report)
        yield "search", poses, pair
    if pair.has_outline and may_have_layer(pair.bones):
        with watch.stage("search"):
            inner = peeled(pair)
            if not inner.has_edges:
                return
            report = watch.within(0.25, 0.6, "Searching all rotations inside the bone")
            poses = search(inner.fixed.cube, inner.moving.cube, FAST, report)
        yield "search", poses, inner


@small_work()
def ranked_poses(pair: ScanPair, poses: Tensor, refine: str, check: Callable[[], None]) -> list[tuple[Tensor, float]]:
    """The few distinct poses that agree best, best first, roughly refined, each with its correlation over the overlap.

    With "none" it is the best one, unrefined.
    """
    first, second, spacing = pair.fixed.levels[-1], pair.moving.levels[-1], pair.fixed.cube.spacing
    if refine != "none":
        for factor in (2, 1):
            level = pool_image(second, factor)
            template = edge_template(pool_image(first, factor), 4000 * (3 - factor))
            poses = gauss_newton(template, level, poses, 10, tolerance=0.02 * spacing, check=check).transforms
    scores, correlations = overlap_scores(first, second, poses)
    count = 1 if refine == "none" else VERIFIED
    chosen = distinct_indices(poses, scores, count, pair.fixed.place.center, shift=spacing)
    return [(poses[i], float(correlations[i])) for i in chosen]
