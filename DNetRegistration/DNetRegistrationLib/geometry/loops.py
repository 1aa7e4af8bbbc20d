"""Loops of transforms between three scans of one object: what is left where they should bring a point back.

The transforms A to B, B to C and C to A, each found from its own two scans, together are the identity where all are
right. What is left over is an error that is measured without any truth being known. It is blind to what two of the
three have in common: a scan that shows the bone displaced shifts one transform there and the next one back.

Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TypeVar

import numpy as np

from .transforms import mean_point_error

#: Two scans, whichever is the fixed one.
Edge = frozenset[str]
_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True)
class Loop:
    """Three scans, each aligned with the next.

    Attributes:
        scans: their names, in the order of the walk.
        error: mean distance between points and where the walk brings them, in the points' unit.
    """

    scans: tuple[str, str, str]
    error: float

    @property
    def edges(self) -> frozenset[Edge]:
        """The three pairs of scans."""
        return frozenset(frozenset(pair) for pair in combinations(self.scans, 2))


def star_and_ring(scans: Sequence[_Name]) -> list[tuple[_Name, _Name]]:
    """Which scans to align directly, fixed and moving, so that loops are closed at little cost.

    The first scan is the reference: all others are aligned with it, and each with the next one. These are 2 n - 3 pairs
    of n scans, and from four scans on, where the ring is closed, 2 n - 2. Each pair is then in a loop, and each pair
    with the reference in two, so that the one that is wrong can be told.

    Example:
        >>> star_and_ring(["before", "week 4", "week 8"])
        [('before', 'week 4'), ('before', 'week 8'), ('week 4', 'week 8')]
    """
    if len(set(scans)) < len(scans):
        raise ValueError("a scan is named twice")
    first, others = scans[0], scans[1:]
    ring = list(pairwise(others))
    if len(others) > 2:
        ring.append((others[-1], others[0]))
    return [*((first, other) for other in others), *ring]


def close_loops(transforms: Mapping[tuple[str, str], np.ndarray], points: Mapping[str, np.ndarray]) -> list[Loop]:
    """Every loop that directly aligned scans make.

    Args:
        transforms: ``(4, 4)``, points of the first named scan to points of the second one. Where a walk runs against
            one, its inverse is taken.
        points: ``(n, 3)`` of the object, in the world of the scan that they are named by. A walk starts at the first of
            its scans that has some.

    Raises:
        ValueError: none of the three scans of a loop has points.
    """
    known = {(b, a): np.linalg.inv(matrix) for (a, b), matrix in transforms.items()} | dict(transforms)
    scans = {scan: number for number, scan in enumerate(dict.fromkeys(scan for pair in transforms for scan in pair))}
    after: dict[str, set[str]] = {scan: set() for scan in scans}
    for a, b in known:
        if scans[a] < scans[b]:
            after[a].add(b)
    triples = ((a, b, c) for a in scans for b in after[a] for c in after[a] & after[b])
    found = []
    for three in sorted(triples, key=lambda three: [scans[scan] for scan in three]):
        start = next((number for number, scan in enumerate(three) if scan in points), None)
        if start is None:
            raise ValueError(f"none of {', '.join(three)} has points")
        a, b, c = three[start:] + three[:start]
        walk = known[c, a] @ known[b, c] @ known[a, b]
        found.append(Loop((a, b, c), mean_point_error(walk, np.eye(4), points[a])))
    return found


def loop_errors(loops: Collection[Loop]) -> dict[Edge, float]:
    """The error of the best closed loop that each pair is in.

    A right pair is in a wide open loop too, where another pair of it is wrong. All the loops of a wrong pair are open.
    """
    found: dict[Edge, float] = {}
    for loop in loops:
        for edge in loop.edges:
            found[edge] = min(loop.error, found.get(edge, np.inf))
    return found


def suspects(loops: Collection[Loop], limits: Mapping[Edge, float]) -> frozenset[Edge]:
    """The pairs that may be wrong, of each object; none where all its loops are closed.

    A pair that is in a closed loop is right. Where one of the others alone explains every loop that is open, it is that
    one; else all the others are in doubt, as the three of a single loop are.

    Args:
        loops: as `close_loops` gives them, of one object or of many that share no scan.
        limits: of each pair, the error that is expected. A loop is open beyond the root sum of squares of its three,
            as of errors that are independent.
    """
    found: frozenset[Edge] = frozenset()
    for together in _objects(loops):
        open_loops = [loop for loop in together if loop.error > math.hypot(*(limits[edge] for edge in loop.edges))]
        if open_loops:
            cleared = frozenset(edge for loop in together if loop not in open_loops for edge in loop.edges)
            alone = frozenset.intersection(*(loop.edges for loop in open_loops)) - cleared
            found |= alone or frozenset.union(*(loop.edges for loop in open_loops)) - cleared
    return found


def _objects(loops: Collection[Loop]) -> list[list[Loop]]:
    """The loops in groups that share no scan."""
    groups: list[tuple[set[str], list[Loop]]] = []
    for loop in loops:
        joined = [group for group in groups if group[0] & set(loop.scans)]
        groups = [group for group in groups if group not in joined]
        scans = set(loop.scans).union(*(group[0] for group in joined))
        groups.append((scans, [*(one for group in joined for one in group[1]), loop]))
    return [group for _, group in groups]


def spread_points(points: np.ndarray) -> np.ndarray:
    """Six points ``(6, 3)`` that stand for many, ``(n, 3)``: their centroid and their covariance are the same.

    Any linear map moves both by the same root mean square.
    """
    center = points.mean(0)
    values, axes = np.linalg.eigh(np.cov(points.T, bias=True))
    steps = (np.sqrt(3 * values.clip(min=0)) * axes).T
    return np.concatenate((center + steps, center - steps))
