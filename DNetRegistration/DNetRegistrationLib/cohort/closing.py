"""Which alignments close the loops of a cohort: those that its pairs lack."""

from __future__ import annotations

from collections.abc import Iterable

from ..bone.scan_file import ScanFile
from ..geometry.loops import star_and_ring
from .pairs import ROLES, Pair


def closing_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs to align besides, so that each pair of a bone of which there are three scans or more is in a loop.

    The first scan of a bone is its reference. `geometry.loops.star_and_ring` says which scans are aligned with each
    other; those that are paired already are not paired again.

    Args:
        pairs: with both scans and without a problem, in the order of their names or of the list. Two of them are of one
            bone where `Pair.bone` is the same, or where they share a scan.
    """
    found = []
    for bone in _bones(pairs):
        scans: dict[str, tuple[str, ScanFile]] = {}
        for pair in bone:
            for role, identity in zip(ROLES, pair.identities, strict=True):
                scans.setdefault(identity, (f"{pair.name} {role}", getattr(pair, role)))
        paired = {frozenset(pair.identities) for pair in bone}
        for fixed, moving in star_and_ring(list(scans)):
            (a, one), (b, other) = scans[fixed], scans[moving]
            # Two masks of one scan are no two scans.
            if frozenset((fixed, moving)) not in paired and one.image != other.image:
                found.append(Pair(name=f"{a} to {b}", fixed=one, moving=other, bone=bone[0].bone, closing=True))
    return found


def references(pairs: Iterable[Pair]) -> dict[str, ScanFile]:
    """The scan that all of a bone are carried onto, by the name of each pair.

    It is the fixed scan of the first pair of the bone. Pairs of which nothing else is of the same bone have none.

    Args:
        pairs: as `closing_pairs` takes them.
    """
    bones = [bone for bone in _bones(pairs) if len(bone) > 1]
    return {pair.name: bone[0].fixed for bone in bones for pair in bone}  # type: ignore[misc]


def _bones(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """The pairs in groups of one bone each."""
    groups: list[tuple[set[tuple], list[Pair]]] = []
    for pair in pairs:
        marks: set[tuple] = {("scan", identity) for identity in pair.identities}
        if pair.bone:
            marks.add(("bone", *pair.bone))
        joined = [group for group in groups if group[0] & marks]
        groups = [group for group in groups if group not in joined]
        members = [*(one for group in joined for one in group[1]), pair]
        groups.append((marks.union(*(group[0] for group in joined)), members))
    return [group for _, group in groups]
