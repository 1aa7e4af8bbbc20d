"""The result of an alignment. Needs no torch."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import OptionError
from ..core.jsonable import attributes_of, jsonable
from ..core.provenance import NOT_ACCEPTED
from ..core.words import ascii_line, plain
from ..geometry.transforms import rotation_error_deg, to_sitk

if TYPE_CHECKING:  # Slicer loads this before SciPy is asked for
    from ..imaging.packed import PackedMask

# Of attributes, by their annotations: the word "false" would be taken for true.
_KINDS: dict[Any, type] = {"bool": bool, "str": str, "list[str]": list, "dict[str, float]": dict}
#: At most so many bones that moved on their own are looked for.
MOST_BONES = 4


class AlignmentCancelled(Exception):
    """The caller's `cancelled` returned true; nothing was changed."""


def require_alignment(given: Any) -> Alignment:
    """What a caller gave as an alignment.

    Raises:
        OptionError: it is another thing.
    """
    if isinstance(given, Alignment):
        return given
    if isinstance(given, str | os.PathLike):
        raise OptionError(f"the alignment is a path: {os.fspath(given)!r}", "read it first, with read_report")
    raise OptionError(f"the alignment is of the type {type(given).__name__}", "give what align or read_report returns")


def alignments(given: Any) -> list[Alignment]:
    """What a caller gave as an alignment, or as a list of them, one of each bone.

    Raises:
        OptionError: it is another thing.
    """
    return [require_alignment(one) for one in (given if isinstance(given, list | tuple) else [given])]


@dataclass(frozen=True, eq=False)
class Bone:
    """Which bone an alignment is of, where several moved on their own.

    Attributes:
        number, count: the first of 3, say; by size, from 1.
        share: of all bone in the fixed scan, 0 to 1.
        center: ``(3,)`` its centroid in the fixed scan's world, LPS mm.
        masks: ``(z, y, x)`` bool of the fixed and of the moving scan's shape, where the bone was looked for. A report
            does not hold them.
    """

    number: int
    count: int
    share: float
    center: np.ndarray
    masks: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """In words: which one, how large, and where."""
        place = ", ".join(plain(value, 3) for value in self.center)
        return (
            f"bone {self.number} of {self.count}, {100 * self.share:.0f} % of the bone in view, centred at ({place}) mm"
        )


@dataclass(frozen=True)
class Repeat:
    """One alignment that was made again, with the moving scan turned.

    Attributes:
        turn: how it was turned, in words.
        error_um: mean distance over the fixed scan's bone between this answer and the first one, um; infinite where
            the turned scan could not be aligned.
        accepted: whether it was.
    """

    turn: str
    error_um: float
    accepted: bool


@dataclass(frozen=True)
class Check:
    """How far the answer moved when the moving scan was turned and aligned again.

    Attributes:
        repeats: the alignments that were made again.
    """

    repeats: tuple[Repeat, ...]

    @property
    def error_um(self) -> float:
        """The largest error of all."""
        return max(one.error_um for one in self.repeats)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON's own types; an infinite error is None."""
        return jsonable({"error_um": self.error_um, "repeats": [vars(one) for one in self.repeats]})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Check:
        """The check of which `to_dict` made these values."""
        repeats = []
        for one in values["repeats"]:
            error = math.inf if one["error_um"] is None else float(one["error_um"])
            repeats.append(Repeat(one["turn"], error, one["accepted"]))
        return cls(tuple(repeats))


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """Where the moving scan's bone lies, and how sure that is.

    Numbers that are not known, as in a report of another program version, are NaN.

    Attributes:
        accepted: whether verification passed.
        verdict: a sentence that says whether to trust it and, if not, what to check.
        reason: the sentence without the words that say whether: why it is accepted or not, and what to check. Empty in
            a report of a program version that had none.
        warnings: sentences on what else a user should know.
        surroundings: a sentence on what surrounds the bone where it differs between the scans, else empty. The
            alignment is none the worse; a subtraction shows it.
        doubts: what speaks against the answer, or limits what it holds for, as words that do not change: of a refused
            answer the likeliest reason first, of an accepted one what its warnings tell of.
        confidence: 0 to 1, calibrated probability that the target registration error is below one working voxel.
        expected_error_um: estimate of the target registration error.
        dice_before, dice: overlap of the cortical bone as the scans lie in the world, and aligned.
        translation_mm: ``(3,)`` displacement of the fixed bone's centroid, LPS.
        matrix: ``(4, 4)`` float64, fixed to moving points, LPS mm, rigid.
        hypothesis: "dnet", "search" or "initial": where the answer came from, accepted or not.
        working_spacing: in mm.
        fixed_threshold, moving_threshold: bone thresholds, in each scan's units.
        seconds: time by stage: preprocess, dnet, search, refine, verify, check; and total.
        device: where it ran.
        network, weights_sha256: of the network that proposed, or None where none ran.
        network_spread_um: median distance, over the bone, of the network's answers from their median, where it was
            asked with the scans turned several ways: its own doubt, before refinement.
        mirrored: the scans fit as mirror images of each other, and only so. A report does not hold it.
        bone: the bone that it is of, where bones were aligned one by one; None where all were aligned as one.
        check: how far the answer moves when the moving scan is turned; None where that was not tried.
        masks: where bone was looked for in the fixed and in the moving scan: the masks that were given, made to reach
            past the bone; or None. A report does not hold them.
    """

    accepted: bool
    verdict: str
    reason: str = ""
    warnings: list[str] = field(default_factory=list)
    surroundings: str = ""
    doubts: list[str] = field(default_factory=list)
    confidence: float
    expected_error_um: float
    dice_before: float
    dice: float
    translation_mm: np.ndarray
    matrix: np.ndarray
    hypothesis: str
    working_spacing: float
    fixed_threshold: float = math.nan
    moving_threshold: float = math.nan
    seconds: dict[str, float] = field(default_factory=dict)
    device: str
    network: str | None = None
    weights_sha256: str | None = None
    network_spread_um: float = math.nan
    mirrored: bool = False
    bone: Bone | None = None
    check: Check | None = None
    masks: tuple[PackedMask | None, PackedMask | None] = field(default=(None, None), repr=False)

    def __eq__(self, other: object) -> bool:
        """Whether all attributes are the same, those that are not known included; masks do not count."""
        return self.to_dict() == other.to_dict() if isinstance(other, Alignment) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.accepted, *np.asarray(self.matrix, np.float64).ravel().tolist()))

    @property
    def why(self) -> str:
        """The reason; of a report without one, the verdict."""
        return self.reason or self.verdict

    @property
    def mark(self) -> str:
        """What files that are made of it say of it where it is not accepted: a line of plain words. Else empty."""
        # Doubts of a report that was edited may be anything; headers take one line of plain letters.
        told = ascii_line(", ".join(map(str, self.doubts)))
        words = f" ({told})" if told else ""
        return "" if self.accepted else f"{NOT_ACCEPTED}{words}"

    @property
    def remarks(self) -> list[str]:
        """What else a user should read: the warnings, and what differs around the bone."""
        return [*self.warnings, *([self.surroundings] if self.surroundings else [])]

    @property
    def transform(self) -> Any:
        """``SimpleITK.AffineTransform`` of the same map, fixed to moving, as a resampler wants it."""
        return to_sitk(self.matrix)

    @property
    def rotation_deg(self) -> float:
        """Angle of the rotation, 0 to 180 degrees."""
        return rotation_error_deg(np.eye(4), self.matrix)

    def to_dict(self) -> dict[str, Any]:
        """All attributes but masks, and `rotation_deg`, as JSON's own types; numbers that are not known are None."""
        names = [one.name for one in fields(self) if one.name != "masks"]
        names.insert(names.index("translation_mm"), "rotation_deg")  # where a reader of the report looks for it
        values = {name: getattr(self, name) for name in names}
        if self.bone is not None:
            values["bone"] = {name: getattr(self.bone, name) for name in ("number", "count", "share", "center")}
        if self.check is not None:
            values["check"] = self.check.to_dict()
        return jsonable(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Alignment:
        """The alignment of which `to_dict` made these values; other keys are passed over.

        Raises:
            KeyError, TypeError, ValueError: values are missing or of the wrong kind.
        """
        chosen = attributes_of(cls, values)
        chosen.pop("masks", None)
        for one in fields(cls):
            if one.type in _KINDS and one.name in chosen and not isinstance(chosen[one.name], _KINDS[one.type]):
                raise TypeError(f"{one.name} is of the wrong kind")
        if values.get("bone") is not None:
            chosen["bone"] = Bone(**{**values["bone"], "center": np.asarray(values["bone"]["center"], np.float64)})
        if values.get("check") is not None:
            chosen["check"] = Check.from_dict(values["check"])
        chosen["matrix"] = np.asarray(values["matrix"], np.float64).reshape(4, 4)
        chosen["translation_mm"] = np.asarray(values["translation_mm"], np.float64).reshape(3)
        return cls(**chosen)
