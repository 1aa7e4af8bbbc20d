"""Loops between the scans of a cohort: three scans of one bone, aligned with each other, measure an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..geometry.loops import Edge, close_loops, loop_errors, suspects
from .result import PairResult


def with_loops(pairs: Sequence[PairResult], closing: Sequence[PairResult] = ()) -> tuple[PairResult, ...]:
    """All pairs, those that close loops last, with `loop_error_um`.

    Where a loop leaves more than the expected errors allow there is a warning too.

    What a loop may leave, `suspects` says.
    Of the pairs that could be at fault, those are warned of that are in no closed loop; and of them the one that alone
    explains what is open, if there is one.

    Args:
        pairs: of the cohort.
        closing: pairs that were aligned to close loops. One that is not accepted measures nothing.
    """
    usable = [*(pair for pair in closing if pair.status == "accepted"), *pairs]
    aligned = {pair.identities: pair for pair in usable if pair.matrix and pair.bone_points}
    transforms = {scans: np.reshape(pair.matrix, (4, 4)) for scans, pair in aligned.items()}
    points = {scans[0]: np.reshape(pair.bone_points, (-1, 3)) for scans, pair in aligned.items()}
    loops = close_loops(transforms, points)
    errors = {edge: 1000 * error for edge, error in loop_errors(loops).items()}
    limits = {frozenset(scans): pair.expected_error_um / 1000 for scans, pair in aligned.items()}
    doubted = suspects(loops, limits)
    return tuple(_told(pair, frozenset(pair.identities), errors, doubted) for pair in (*pairs, *closing))


def _told(pair: PairResult, edge: Edge, errors: dict[Edge, float], doubted: frozenset[Edge]) -> PairResult:
    if edge not in errors or not pair.matrix:
        return pair
    pair = replace(pair, loop_error_um=errors[edge])
    if edge not in doubted:
        return pair
    warning = (
        f"With a third scan of this bone, the transforms from scan to scan leave {errors[edge]:.1f} um where they "
        "should bring a point back, more than the expected errors allow. One of them is wrong: look at their pictures."
    )
    return replace(pair, doubts=(*pair.doubts, "loop"), warnings=(*pair.warnings, warning))
