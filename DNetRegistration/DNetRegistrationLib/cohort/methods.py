"""A paragraph on methods for a paper: what was done to the scans of a cohort, with the numbers of its run."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..core.words import plain
from ..registration.verdict import ACCEPT
from .copies import with_shared_voxels
from .result import CohortResult, PairResult

#: The paper whose task and networks this program takes up.
CITATION = (
    "Zheng J-Q, Lim NH, Papież BW. D-net: Siamese Based Network for Arbitrarily Oriented Volume Alignment. In: Shape "
    "in Medical Imaging (ShapeMI 2020). Springer; 2020. p. 73–84. doi:10.1007/978-3-030-61056-2_6"
)

# By the values of `align`'s options "hypotheses" and "refine".
_HYPOTHESES = {
    "auto": "A network that is equivariant under rotations, after D-net [1], proposed transforms; where none of them "
    "was verified, all rotations were searched.",
    "dnet": "A network that is equivariant under rotations, after D-net [1], proposed transforms.",
    "search": "Transforms were found by a search over all rotations.",
}
_REFINED = {
    "native": "They were refined down to the scans' own voxels on edges and the inside of bone, robustly against "
    "contrast agent.",
    "working": "They were refined at the working voxel size on edges of bone, robustly against contrast agent.",
    "none": "They were not refined.",
}
#: What a user may say of a scan or a joint, by the last word of the column, for the paragraph.
_GIVEN = {
    "spacing": "voxel sizes",
    "flip": "the order of slices",
    "threshold": "thresholds of bone",
    "mask": "masks of the bone",
    "initial": "transforms to start from",
    "region": "regions of the joint surface",
    "medial": "points on the medial side",
}
#: Options by their last word that the sentences tell of, or that say only what was written.
_TOLD = {
    "hypotheses",
    "refine",
    "weights",
    "spacing",
    "mask",
    "outputs",
    "threads",
    "device",
    "anyway",
    "loops",
    "pattern",
    "words",
}


def methods_paragraph(result: CohortResult) -> str:
    """The paragraph, in the past tense, with a reference marked [1]: see `CITATION`."""
    kept = replace(result, pairs=tuple(pair for pair in result.pairs if not pair.copied))
    accepted = [pair for pair in kept.pairs if pair.status == "accepted"]
    sentences = [
        _program(result),
        _proposed(result),
        _REFINED.get(str(result.options.get("refine", "native")), ""),
        _bone(result),
        _given(kept.pairs),
        f"An alignment was accepted where its calibrated confidence, the probability that the mean error over the bone "
        f"is below one working voxel, was at least {ACCEPT:g} and no check spoke against it.",
        _counts(kept),
        _copies(len(result.pairs) - len(kept.pairs), with_shared_voxels(kept.pairs)),
        _accuracy(accepted),
        _loops(accepted, len(result.closing)),
        _cartilage(kept),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _program(result: CohortResult) -> str:
    versions = dict(result.versions)
    ours, code = versions.pop("DNetRegistration", ""), versions.pop("code", "")
    others = [f"{name} {version}" for name, version in versions.items()]
    details = "; ".join(one for one in (code and f"code {code}", ", ".join(others)) if one)
    program = f"DNetRegistration{ours and f' {ours}'}"
    most = _most_scans((*result.pairs, *result.closing))
    scans = "Two scans of each bone" if most <= 2 else f"Up to {most} scans of each bone"
    return (
        f"{scans} were aligned rigidly{'' if most <= 2 else ', in pairs,'} with {program}{details and f' ({details})'}."
    )


def _most_scans(pairs: Iterable[PairResult]) -> int:
    """How many scans hang together by pairs at most."""
    groups: list[set[str]] = []
    for pair in pairs:
        own = set(pair.identities) - {""}
        joined = [group for group in groups if group & own]
        groups = [group for group in groups if group not in joined] + [own.union(*joined)]
    return max(map(len, groups), default=0)


def _proposed(result: CohortResult) -> str:
    told = _HYPOTHESES.get(str(result.options.get("hypotheses", "auto")), "")
    weights = result.options.get("weights")
    if weights is not None and str(weights) != "equivariant":
        return f"Transforms were proposed by a network with the weights {weights} [1]."
    return told


def _bone(result: CohortResult) -> str:
    sizes = {round(pair.working_spacing_um, 3) for pair in result.pairs if math.isfinite(pair.working_spacing_um)}
    options = dict(result.options)
    options |= options.pop("scans", {})
    given = any(name.endswith("_threshold") for name in options)
    sentence = f"Thresholds of bone were {'given' if given else 'found automatically unless they were given'}"
    if sizes:
        low, high = min(sizes), max(sizes)
        span = f"{plain(low, 3)} um" if low == high else f"{plain(low, 3)} to {plain(high, 3)} um"
        sentence += f"; the working voxel size was {span}"
    rest = [_spelled(name, value) for name, value in options.items() if name.rpartition("_")[2] not in _TOLD]
    return f"{sentence}." + (f" Other options: {', '.join(rest)}." if rest else "")


def _spelled(name: str, value: Any) -> str:
    """An option as the command line spells it."""
    words = "" if value is True else f" {plain(value, 6) if isinstance(value, float) else value}"
    return f"--{name.replace('_', '-')}{words}"


def _given(pairs: Sequence[PairResult]) -> str:
    """What was said of scans and joints, and of how many pairs."""
    told = []
    for name, words in _GIVEN.items():
        count = sum(any(one.split("_")[-1] == name for one in pair.given) for pair in pairs)
        if count:
            told.append(f"{words} ({_many(count, 'pair')})")
    return f"The user gave {', '.join(told)}." if told else ""


def _copies(count: int, shared: int) -> str:
    """Of pairs of one scan given twice, which are left out, and of pairs that share a copy, which are not."""
    told = []
    if count:
        pairs = f"{_many(count, 'further pair')}, whose two scans hold the same voxels,"
        told.append(f"{pairs} {_were(count)} left out of all figures.")
    if shared:
        pairs = f"{_many(shared, 'pair')} with a scan that holds the same voxels as one of another pair"
        told.append(f"{pairs} {_were(shared)} counted.")
    return " ".join(told)


def _loops(accepted: Sequence[PairResult], closing: int) -> str:
    errors = _finite(pair.loop_error_um for pair in accepted)
    if not errors:
        return ""
    more = f" ({_many(closing, 'alignment')} made besides)" if closing else ""
    return (
        f"Loops of three transforms between scans of one bone were closed{more}: what they left, a measured error, had "
        f"a median of {statistics.median(errors):.1f} um (range {min(errors):.1f} to {max(errors):.1f} um) over "
        f"{_many(len(errors), 'accepted pair')}."
    )


def _counts(result: CohortResult) -> str:
    total, counts = len(result.pairs), result.counts
    if not total:
        return "There were no pairs."
    reserved = sum(pair.reserved for pair in result.pairs)
    accepted = f"{counts['accepted']} ({100 * counts['accepted'] / total:.0f} %)"
    reservations = f", {reserved} of them with reservations" if reserved else ""
    return (
        f"Of {_many(total, 'pair')}, {accepted} {_were(counts['accepted'])} accepted{reservations}, "
        f"{counts['refused']} {_were(counts['refused'])} refused, and {counts['failed']} could not be aligned."
    )


def _accuracy(accepted: Sequence[PairResult]) -> str:
    errors = _finite(pair.expected_error_um for pair in accepted)
    dice = _finite(pair.dice for pair in accepted)
    before = _finite(pair.dice_before for pair in accepted)
    if not errors or not dice or not before:
        return ""
    return (
        f"In accepted pairs the expected error had a median of {statistics.median(errors):.1f} um (range "
        f"{min(errors):.1f} to {max(errors):.1f} um); the Dice coefficient of the cortices rose from a median of "
        f"{statistics.median(before):.2f} to {statistics.median(dice):.2f} (range {min(dice):.2f} to {max(dice):.2f})."
    )


def _cartilage(result: CohortResult) -> str:
    tried = result.of_cartilage
    measured = [pair.status for pair in tried if pair.thickness_known]
    if not tried:
        return ""
    if not measured:
        return f"Thickness of cartilage could not be measured ({_many(len(tried), 'pair')} tried)."
    others = len(measured) - measured.count("accepted")
    unsure = f" ({others} of them not accepted)" if others else ""
    left = f", and could not be in {len(tried) - len(measured)} more" if len(tried) > len(measured) else ""
    return (
        f"Thickness of cartilage was measured in {_many(len(measured), 'pair')}{unsure}{left}: along the normals of "
        "the bone surface, a layer seen through the scanner's blur was fitted to the difference of both scans."
        f"{_filled(tried)}{_left_out(tried)}"
    )


def _left_out(pairs: Iterable[PairResult]) -> str:
    """In how many pairs which compartment was not measured, where the other one was."""
    missing: Counter[str] = Counter()
    for pair in pairs:
        known = {row.get("compartment"): bool(_finite([row.get("mean_thickness_um")])) for row in pair.compartments}
        if known.pop("all", False):
            missing.update(str(name) for name, measured in known.items() if not measured)
    told = [f"the {name} compartment in {_many(count, 'pair')}" for name, count in missing.items()]
    if not told:
        return ""
    return (
        f" Neither measured nor filled {_were(missing.total())} {' and '.join(told)}: mean and volume of all are those "
        "of the other compartment there."
    )


def _filled(pairs: Iterable[PairResult]) -> str:
    """How much of the joint's surface was filled, where any of it was."""
    whole = (row for pair in pairs for row in pair.compartments if row.get("compartment") == "all")
    shares = [100 * share for share in _finite(row.get("filled_share") for row in whole if row.get("measured_share"))]
    if not shares or max(shares) < 0.5:
        return ""
    return (
        " What could not be measured, as under soft tissue or where a scan ends, was filled by a smooth surface "
        "through what lies around: "
        f"{statistics.median(shares):.0f} % of the articular surface in the median, {max(shares):.0f} % at most."
    )


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
