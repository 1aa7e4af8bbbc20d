"""This project as one of the methods compared: by default, by the search alone, or by a network alone."""

from __future__ import annotations

from collections.abc import Callable

from ...registration.align import align
from .answer import Answer


def aligner(hypotheses: str, weights: str | None = None) -> Callable[..., Answer]:
    """What aligns with these options of `align`; a network alone is not refined either."""
    refine = "none" if hypotheses == "dnet" else "native"

    def aligned(fixed, moving, threads: int) -> Answer:
        alignment = align(fixed, moving, hypotheses=hypotheses, weights=weights, refine=refine, device="cpu")
        return Answer(alignment.matrix, bool(alignment.accepted))

    return aligned
