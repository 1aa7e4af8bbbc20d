"""The pairs of a cohort, before anything is read of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..bone.scan_file import ABOUT_SCAN, ScanFile
from .result import Problem

ROLES = ("fixed", "moving")
#: What is said of where a pair's cartilage is measured: attributes of `Pair`, and columns of a list.
ABOUT_CARTILAGE = ("region", "region_segment", "medial")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two scans of one bone.

    Attributes:
        name: no other pair of the cohort has it.
        fixed, moving: the scans; None where it is missing.
        columns: what else names or list say of it; they travel into the results.
        initial: file of a transform to start from.
        contrast: which scan has the contrast agent; None for what holds for the whole cohort.
        region, region_segment, medial: where its cartilage is measured, see `measuring.Measuring`.
        blocked: why it cannot be aligned, where that is known beforehand.
        bone: which bone it is of, at whatever time, as names or list say; empty where they do not.
        closing: nobody asked for it; it is aligned to close loops. See `closing.closing_pairs`.
    """

    name: str
    fixed: ScanFile | None
    moving: ScanFile | None
    columns: dict[str, str] = field(default_factory=dict)
    initial: str | None = None
    contrast: str | None = None
    region: str | None = None
    region_segment: str | None = None
    medial: tuple[float, ...] | None = None
    blocked: Problem | None = None
    bone: tuple[str, ...] = ()
    closing: bool = False

    @property
    def identities(self) -> tuple[str, str]:
        """What tells the fixed and the moving scan from others; "" for one that is missing."""
        fixed, moving = ("" if scan is None else scan.identity for scan in (self.fixed, self.moving))
        return fixed, moving

    @property
    def given(self) -> tuple[str, ...]:
        """What is said of its scans and of its cartilage, by the names of a list's columns."""
        scans = [(role, getattr(self, role)) for role in ROLES]
        names = [f"{role}_{name}" for role, scan in scans if scan is not None for name in scan.about]
        return (*names, *(name for name in ("initial", "region", "medial") if getattr(self, name) is not None))

    def with_scans(self, about: Mapping[str, Any]) -> Pair:
        """The pair with what `about` says of each scan (``fixed_spacing``, ...) where the scan itself says nothing."""
        completed: dict[str, Any] = {}
        for role in ROLES:
            scan = getattr(self, role)
            if scan is not None:
                missing = [name for name in ABOUT_SCAN if getattr(scan, name) is None]
                completed[role] = replace(scan, **{name: about.get(f"{role}_{name}") for name in missing})
        return replace(self, **completed)


@dataclass(frozen=True)
class FoundPairs:
    """The pairs of a folder or a list, and what is wrong with their names or rows.

    Attributes:
        pairs: in the order of their names, or of the list; those that are blocked too.
        problems: those of pairs that are blocked, and those of files that belong to no pair.
    """

    pairs: list[Pair]
    problems: list[Problem]
