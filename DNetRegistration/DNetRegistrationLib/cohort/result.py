"""What a cohort gave, pair by pair. Needs neither torch nor a scan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..core.jsonable import attributes_of, jsonable
from ..core.words import capital
from ..outputs.paths import CARTILAGE

#: What came of a pair: its alignment is accepted, or not; or there is none.
Status = Literal["accepted", "refused", "failed"]
STATUSES: tuple[Status, ...] = ("accepted", "refused", "failed")

#: Kinds of problems, and what they are called in a table.
KINDS = {
    "partner": "missing partner",
    "duplicate": "duplicate",
    "unreadable": "unreadable",
    "spacing": "voxel size",
    "given": "given beside a scan",
    "name": "odd name",
    "list": "row of the list",
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong with the scans of a cohort, as their names, their list and their headers show.

    Attributes:
        kind: one of the keys of `KINDS`.
        pair: the pair that it is of; "" where it is of none.
        files: the files or folders it is about.
        problem: what is wrong.
        remedy: what to do.
    """

    kind: str
    pair: str = ""
    files: tuple[str, ...] = ()
    problem: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON's own types."""
        return jsonable({one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Problem:
        """The problem of which `to_dict` made these values."""
        return cls(**{**values, "files": tuple(values["files"])})


def told_once(problems: Sequence[Problem], more: Mapping[int, str] | None = None) -> list[str]:
    """What to do about each problem; where an earlier one has the same remedy, the name of its pair or file instead.

    A name is given only where no other remedy stands beside it.

    Args:
        problems: in the order in which they are shown.
        more: words to add to a remedy, by the number of its problem.

    Example:
        >>> lost = [Problem(kind="spacing", pair=pair, problem="lost", remedy="give it") for pair in ("m1", "m2")]
        >>> told_once(lost)
        ['give it', 'as for m1']
    """
    remedies = [
        one.remedy + (f" ({words})" if (words := (more or {}).get(number)) else "")
        for number, one in enumerate(problems)
    ]
    names = [one.pair or (Path(one.files[0]).name if one.files else "") for one in problems]
    # A name that stands beside several remedies would not tell which one is meant.
    of_name: dict[str, set[str]] = {}
    for name, remedy in zip(names, remedies, strict=True):
        of_name.setdefault(name, set()).add(remedy)
    first: dict[str, str] = {}
    told = []
    for name, remedy in zip(names, remedies, strict=True):
        told.append(f"as for {first[remedy]}" if remedy in first else remedy)
        if name and remedy and of_name[name] <= {remedy, ""}:
            first.setdefault(remedy, name)
    return told


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures of a pair, as paths below the folder of results with ``/`` between the parts; None for one that is not.

    Attributes:
        overlay: slices before and after, with both cortices outlined and the verdict; see `outputs.overlay`.
        before, after: the same slices as the scans lie in the world, and aligned; made to be flickered between.
        cartilage: the thickness map; see `outputs.thickness_picture`.
    """

    overlay: str | None = None
    before: str | None = None
    after: str | None = None
    cartilage: str | None = None


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """What came of one pair. Numbers that are not known, as all those of a pair that failed, are NaN.

    Attributes:
        name: of the pair; no other pair of the cohort has it.
        fixed, moving: paths of the scans as they were found or listed; "" for a partner that is missing.
        identities: what tells both scans from others, also where one file holds several; see `ScanFile.identity`.
        marks: of the voxels of both scans, by which copies are known; see `imaging.copies.voxel_mark`. "" where the
            pair failed.
        columns: what else the list or the names say of it, such as time and group, by the name of the column.
        given: what list or options say of its scans and its cartilage, by the names of a list's columns, such as
            "moving_spacing" and "region".
        status: "accepted", "refused" (aligned, but not to be trusted) or "failed" (not aligned).
        verdict: a sentence: whether to trust it and, if not, what to check; of a failed pair what went wrong.
        remedy: of a failed pair what to do, where that is known; else "".
        doubts: what speaks against the answer or limits it, as words that do not change, the gravest first; see
            `registration.result.Alignment`.
        warnings: sentences on what else to know.
        surroundings: a sentence on what surrounds the bone where it differs between the scans, else ""; see
            `registration.result.Alignment`.
        confidence: 0 to 1, calibrated probability that the mean error is below one working voxel.
        expected_error_um: estimate of the mean error over the bone.
        dice_before, dice: overlap of the cortices as the scans lie in the world, and aligned.
        rotation_deg: angle of the rotation.
        moved_um: how far the fixed bone's centroid moved.
        matrix: 16 numbers by rows, fixed to moving points, LPS mm; empty where the pair failed.
        bone_points: 18 numbers, six points by rows that stand for the bone in the fixed scan, LPS mm; see
            `geometry.loops.spread_points`. Empty where the pair failed.
        hypothesis: where the answer came from: "dnet", "search" or "initial"; "" where the pair failed.
        working_spacing_um: voxel size of the search.
        compartments: of the cartilage, where it was measured: a dict for each with the names of
            `cartilage.result.Compartment`, the least thickness that can be seen, and whether the sides are known.
        seconds: from the start of reading to the last output.
        folder: of its outputs, below the folder of results.
        outputs: its output files, below the folder of results, by the name of the output ("transform", "report", ...).
        pictures: the pictures among them and those for the page.
        check_error_um: how far the answer moved when the scan was turned and aligned again; None where not tried.
        loop_error_um: what is left where transforms between three scans should bring a point back; None where no
            loop was measured.
        reference: path of the scan onto which all of this bone are carried, where there are more pairs of it and the
            transforms are accepted; the outputs "fixed_to_reference" and "moving_to_reference" do so. Else "".
    """

    name: str
    fixed: str
    moving: str
    identities: tuple[str, str] = ("", "")
    marks: tuple[str, str] = ("", "")
    columns: dict[str, str] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    status: Status
    verdict: str
    remedy: str = ""
    doubts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    surroundings: str = ""
    confidence: float = math.nan
    expected_error_um: float = math.nan
    dice_before: float = math.nan
    dice: float = math.nan
    rotation_deg: float = math.nan
    moved_um: float = math.nan
    matrix: tuple[float, ...] = ()
    bone_points: tuple[float, ...] = ()
    hypothesis: str = ""
    working_spacing_um: float = math.nan
    compartments: tuple[dict[str, Any], ...] = ()
    seconds: float = math.nan
    folder: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    pictures: Pictures = field(default_factory=Pictures)
    check_error_um: float | None = None
    loop_error_um: float | None = None
    reference: str = ""

    @property
    def copied(self) -> bool:
        """Whether both of its scans hold the same voxels."""
        return bool(self.marks[0]) and self.marks[0] == self.marks[1]

    @property
    def thickness_known(self) -> bool:
        """Whether the cartilage of a compartment was measured."""
        means = (row.get("mean_thickness_um") for row in self.compartments)
        return any(mean is not None and math.isfinite(mean) for mean in means)

    @property
    def reserved(self) -> bool:
        """Whether it is accepted with a doubt. A warning alone, as of the cartilage, is no reservation."""
        return self.status == "accepted" and bool(self.doubts)

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON's own types; numbers that are not known are None."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["pictures"] = {one.name: getattr(self.pictures, one.name) for one in fields(Pictures)}
        return jsonable(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PairResult:
        """The result of which `to_dict` made these values; other keys are passed over.

        Raises:
            KeyError, TypeError, ValueError: values are missing or of the wrong kind.
        """
        chosen = attributes_of(cls, values)
        for one in fields(cls):
            if one.type.startswith("tuple") and one.name in chosen:  # JSON has none
                chosen[one.name] = tuple(chosen[one.name])
        if "pictures" in chosen:
            chosen["pictures"] = Pictures(**chosen["pictures"])
        if chosen["status"] not in STATUSES:
            raise ValueError(f"the status {chosen['status']!r} is unknown")
        return cls(**chosen)


@dataclass(frozen=True, kw_only=True)
class CohortResult:
    """What a run over many pairs gave.

    Attributes:
        scans: the folder or the list that the scans came from.
        pairs: in the order of their names, or of the list.
        problems: those that the scans had before the work began.
        options: how the pairs were aligned and what was written, by the names that Python gives them; only those that
            are not the default.
        versions: of this program ("DNetRegistration"), of Python and of the libraries; and ``code``, which tells ways
            of aligning apart.
        machine: what it ran on, in words.
        date: when it ended, ISO 8601 with the offset from UTC.
        command: as typed, or "" where Python called.
        closing: the pairs that nobody asked for, aligned to close loops. One that is not accepted leaves its loops
            unmeasured, and counts nowhere else.
    """

    scans: str
    pairs: tuple[PairResult, ...]
    problems: tuple[Problem, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    date: str = ""
    command: str = ""
    closing: tuple[PairResult, ...] = ()

    @property
    def counts(self) -> dict[Status, int]:
        """How many pairs there are of each status."""
        return {status: sum(pair.status == status for pair in self.pairs) for status in STATUSES}

    @property
    def accepted(self) -> bool:
        """Whether every pair is accepted."""
        return self.counts["accepted"] == len(self.pairs)

    @property
    def of_cartilage(self) -> tuple[PairResult, ...]:
        """The pairs whose cartilage was to be measured: those that are accepted, with `anyway` refused ones too."""
        tried = ("accepted", "refused") if self.options.get("anyway") else ("accepted",)
        tried = tried if set(CARTILAGE) & set(self.options.get("outputs", ())) else ()
        return tuple(pair for pair in self.pairs if pair.compartments or pair.status in tried)

    @property
    def unmeasured(self) -> tuple[PairResult, ...]:
        """Those of `of_cartilage` in which no thickness could be measured; their warnings say why."""
        return tuple(pair for pair in self.of_cartilage if not pair.thickness_known)

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON's own types."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        for name in ("pairs", "closing"):
            values[name] = [pair.to_dict() for pair in getattr(self, name)]
        values["problems"] = [problem.to_dict() for problem in self.problems]
        return jsonable(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CohortResult:
        """The result of which `to_dict` made these values; other keys are passed over."""
        chosen = attributes_of(cls, values)
        for name in ("pairs", "closing"):
            chosen[name] = tuple(PairResult.from_dict(pair) for pair in values.get(name, ()))
        chosen["problems"] = tuple(Problem.from_dict(one) for one in values.get("problems", ()))
        return cls(**chosen)


def looked_at(pair: PairResult) -> bool:
    """Whether a person should look at the pair first."""
    return pair.status != "accepted" or bool(pair.doubts or pair.warnings)


def needs_look(pairs: Iterable[PairResult]) -> Sequence[PairResult]:
    """Pairs in the order in which a person should look at them.

    Those that failed come first, then the refused ones, then what is accepted with reservations, then with warnings
    alone; among these the least sure first.
    """

    def grade(pair: PairResult) -> tuple[int, float]:
        group = {"failed": 0, "refused": 1, "accepted": 2 if pair.reserved else 3 if pair.warnings else 4}[pair.status]
        return group, -math.inf if math.isnan(pair.confidence) else pair.confidence

    return sorted(pairs, key=grade)


def split_verdict(pair: PairResult) -> tuple[str, str]:
    """What was found, and what to do or to know about it, "" where there is nothing."""
    if pair.status == "failed":
        return pair.verdict, capital(pair.remedy)
    found, _, rest = pair.verdict.partition(". ")
    return (f"{found}.", rest) if rest else (pair.verdict, "")
