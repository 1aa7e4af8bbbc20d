"""The verdict on a pose: how far to trust it, in numbers and in words. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..core.errors import Setting

if TYPE_CHECKING:
    from .evidence import Evidence

# Accepted at this confidence and above. A littermate's bone can look like the same one, moved: of 356 impostors two
# reached 0.57, of 998 right poses four stayed below 0.7.
ACCEPT = 0.7
#: How a verdict begins that is none to rely on; its reason follows.
NOT_ACCEPTED = "Not accepted"

#: Why a pose is not accepted, by the kind of doubt; the likeliest reason of a refused pose comes first.
REASONS = {
    "mirrored": "one scan shows the mirror image of the other. Flip the one whose slices were read in reverse order; a "
    "left and a right leg do not fit.",
    "undetermined": "what both scans show looks the same after it is turned or shifted, so that several poses "
    "fit. Check that the fields of view hold more than a straight piece of shaft.",
    "symmetry": "the bone in view fits as well after a turn or a shift, so that this is one of several poses that fit "
    "equally. Check that the fields of view hold what tells one side of the bone from another.",
    "strain": "the two scans show the bone in shapes that differ by some percent. Check the voxel sizes and the slice "
    "distance of both scans, and look for motion during a scan.",
    "standstill": "what is brightest lies in both scans where it was, and a less bright piece moved. Mask what is "
    "brightest if it is metal or another part of the scanner; if it is the bone, give the bone thresholds.",
    "cortices": "where the scans agree most, the cortices of the bones do not lie on each other. Look for what is as "
    "bright as bone in both scans (metal, a holder, a phantom), and mask it or raise the bone thresholds.",
    "little in common": "the scans seem to show little of the same bone. Check that both fields of view hold the same "
    "part of it.",
    "shape": "the inner surfaces of the cortices differ by more than noise explains, as those of two littermates do. "
    "Check that both scans are of the same bone.",
    "no agreement": "no pose makes the two bones agree. Check that both scans are of the same bone, that the voxel "
    "spacings are right, and that the bone thresholds separate bone from everything else.",
}

#: Of these, a wrong voxel size may be the cause.
VAGUE = ("strain", "slices", "cortices", "little in common", "shape", "no agreement")

#: Of these, bones that moved on their own may be the cause.
SEVERAL = ("cortices", "little in common", "no agreement", "symmetry")

#: What to set to mend it, by the kind of doubt.
SETTINGS = {
    "mirrored": Setting("flip", value="z"),
    "not CT": Setting("threshold"),
    "standstill": Setting("threshold"),
    "voxel size": Setting("spacing"),
    "several bones": Setting("bone", value="each"),
}


def one_of_several(held: float) -> str:
    """Why a pose that surely holds for so much of the bone, 0 to 1, is not accepted."""
    return (
        f"this pose fits {100 * held:.0f} % of the bone and not the rest, as where two bones of a joint moved on their "
        "own, or slices are missing. Align each bone by itself, or mark one of them in both scans by masks; of one "
        "bone, check that no slices are missing."
    )


@dataclass(frozen=True)
class Doubt:
    """Something that speaks against a pose, or limits what it holds for.

    Attributes:
        kind: one of the keys of `REASONS`, or of what `examination` finds.
        sentence: what it is and what to do.
    """

    kind: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The judgement of a pose.

    Attributes:
        confidence: 0 to 1, that the target registration error is below one working voxel.
        expected_error: estimate of that error, in mm.
        evidence: what the two rest on.
        doubts: what speaks against the pose; the gravest first. An accepted pose may have some too.
    """

    confidence: float
    expected_error: float
    evidence: Evidence
    doubts: tuple[Doubt, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.confidence >= ACCEPT

    @property
    def undetermined(self) -> bool:
        """Whether most of the bone fits as well in other poses. That slivers of a bone do says nothing of the rest."""
        told = bool(self.doubts) and self.doubts[0].kind == "undetermined"
        return told and self.evidence.similarity.share >= 0.5

    @property
    def reason(self) -> str:
        """Why the pose is accepted or not, and what to check; it can stand after a colon."""
        if self.accepted:
            error = 1000 * self.expected_error
            # No error is told to be none.
            within = f"about {error:.1f}" if error >= 0.05 else "0.1"
            told = f"the bones lie on each other, to within {within} um."
            return " ".join((told, *(doubt.sentence for doubt in self.doubts)))
        reason = self.doubts[0].sentence
        # An abbreviation keeps its capitals.
        return reason if reason[1:2].isupper() else reason[:1].lower() + reason[1:]

    @property
    def sentence(self) -> str:
        """Says whether to trust the pose and, if not, what to check."""
        how = "Accepted with reservations" if self.doubts else "Accepted"
        return f"{how if self.accepted else NOT_ACCEPTED}: {self.reason}"

    def because(self, kind: str, sentence: str | None = None) -> Verdict:
        """The same verdict with a likelier reason than all others, in the words of `REASONS` or in a sentence."""
        return replace(self, doubts=(Doubt(kind, REASONS[kind] if sentence is None else sentence), *self.doubts))
