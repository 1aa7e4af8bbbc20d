"""From outcomes to findings, with what is required of each, and to the reliability plot of the confidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...core.pictures import new_figure
from ...outputs.summary import timing
from ..metrics import SUCCESS_UM
from ..statistics import median, rate
from ..tables import Finding, frame
from .large import LargePair
from .limits import at_least, at_most, count, few, many
from .parts import FAR_DEG, STAGES, Outcome
from .promises import adversarial, coverage

if TYPE_CHECKING:
    from pathlib import Path

    import pandas


@dataclass(frozen=True)
class Measurements:
    """All that the benchmark measured: outcomes of pairs, and the large pair or None."""

    outcomes: Sequence[Outcome]
    large: LargePair | None = None

    @cached_property
    def table(self) -> pandas.DataFrame:
        """A row for each outcome."""
        return frame(Outcome, self.outcomes, "success", "alone", "right")

    def of(self, *parts: str) -> pandas.DataFrame:
        """The rows of some parts."""
        return self.table[self.table.part.isin(parts)]

    @property
    def judged(self) -> bool:
        """Whether there are outcomes that tell how reliable the confidence is."""
        return len(self.of("success", "impostors")) > 0

    @property
    def holds(self) -> bool:
        """Whether all that was measured is as required."""
        return all(finding.holds is not False for finding in self.findings())

    def findings(self) -> list[Finding]:
        """What was measured, with what is required of it. Parts without outcomes are left out."""
        return [
            *_success(self.of("success")),
            *_accuracy(self.of("80 um plain"), "error at 80 um, no contrast", 0.8),
            *_accuracy(self.of("80 um contrast"), "error at 80 um, contrast", 1.5),
            *_accuracy(self.of("25 um plain"), "error at 25 um, no contrast", 0.15, 0.03),
            *_accuracy(self.of("25 um contrast"), "error at 25 um, contrast", 0.4, 0.03),
            *_impostors(self.of("impostors")),
            *_calibration(self.of("success", "impostors")),
            *_network(self.of("network whole"), "whole views", 1.0, 25.0, 0.002, 0.85),
            *_network(self.of("network cut"), "views cut to half", 2.5, None, 0.01, None),
            *_defaults(self.of("network whole"), self.of("network cut")),
            *_network(self.of("paper whole"), "D-net, 8 turns, whole views", 3.2, None, 0.02, 0.72, np.mean),
            *_repeat(self.of("repeat")),
            *_speed(self.of("speed"), "search path", 1.0),
            *_speed(self.of("default speed"), "default path", 0.4, most_network=0.15),
            *coverage(self.of("coverage whole"), "whole views"),
            *coverage(self.of("coverage cut"), "views cut to half"),
            *adversarial(self.of("adversarial")),
            *(() if self.large is None else _large(self.large)),
        ]


def _success(o: pandas.DataFrame) -> list[Finding]:
    if o.empty:
        return []
    good = o[o.success]
    found = [
        many(f"success (error below {SUCCESS_UM:g} um), views cut to half, contrast", o.success, 0.995),
        Finding("  median error of these", f"{median(o.error_um):.2f} um"),
        Finding("  accepted though wrong", count(o.accepted & ~o.success)),
    ]
    if len(good):
        found.append(few("  successes refused", ~good.accepted, 0.02))
    failed = o.failure != ""
    return [*found, *([Finding("  ended with an error", count(failed))] if failed.any() else [])]


def _accuracy(o: pandas.DataFrame, what: str, most: float, most_angle: float | None = None) -> list[Finding]:
    if o.empty:
        return []
    error, angle = median(o.error_um), median(o.angle_deg)
    spread = f"90 % below {np.percentile(o.error_um, 90):.2f}, {len(o)} pairs"
    return [
        at_most(f"median {what}", f"{error:.2f} um ({spread})", error, most, " um"),
        at_most("  its rotation error", f"{angle:.4f} degrees", angle, most_angle, " degrees"),
    ]


def _impostors(o: pandas.DataFrame) -> list[Finding]:
    if o.empty:
        return []
    kinds = ", ".join(f"{kind} {count(accepted)}" for kind, accepted in o.groupby("kind").accepted)
    return [few("impostors accepted", o.accepted, 0.005), Finding("  by kind", kinds)]


def _calibration(o: pandas.DataFrame) -> list[Finding]:
    if o.empty:
        return []
    brier = ((o.confidence - o.success) ** 2).mean()
    found = [Finding("Brier score of the confidence", f"{brier:.4f} ({len(o)} pairs)")]
    same = o[o.success & np.isfinite(o.expected_error_um)]
    if len(same):
        low, middle, high = np.percentile(same.expected_error_um / same.error_um, (10, 50, 90))
        text = f"median {middle:.2f}, 80 % within {low:.2f} to {high:.2f}"
        found.append(Finding("expected over true error", text))
    return found


def _network(
    o: pandas.DataFrame,
    what: str,
    most_angle: float,
    most_error: float | None,
    most_far: float,
    least_dice: float | None,
    average: Callable[[Iterable[float]], float] = median,
) -> list[Finding]:
    """A network alone: nothing refined, nothing searched. The goal of its rotation error is of this average."""
    o = o[o.alone.eq(True)]
    if o.empty:
        return []
    angle = float(average(o.angle_deg))
    error, overlap, true = (median(o[name]) for name in ("error_um", "dice", "dice_true"))
    angles = f"{angle:.2f} degrees (90 % below {np.percentile(o.angle_deg, 90):.2f}, {len(o)} pairs)"
    errors = f"{error:.1f} um (90 % below {np.percentile(o.error_um, 90):.1f})"
    return [
        at_most(f"network alone, {what}: {average.__name__} rotation error", angles, angle, most_angle, " degrees"),
        at_most("  its median target error", errors, error, most_error, " um"),
        few(f"  beyond {FAR_DEG:g} degrees", ~(o.angle_deg <= FAR_DEG), most_far),
        at_least("  median Dice (at the true pose)", f"{overlap:.3f} ({true:.3f})", overlap, least_dice),
    ]


def _defaults(whole: pandas.DataFrame, cut: pandas.DataFrame) -> list[Finding]:
    """The default: network, refinement, and the search where that does not verify."""
    whole, cut = (o[o.alone.eq(False)] for o in (whole, cut))
    found = []
    if len(whole):
        # Where the search had to help, the network's own answer is not known to be right.
        unaided = whole.success & (whole.hypothesis == "dnet")
        found.append(many("network and refinement, no search, whole views: success", unaided, 0.998))
    # Concatenated as arrays: pandas warns about frames without rows.
    success, accepted = (np.concatenate([whole[name], cut[name]]).astype(bool) for name in ("success", "accepted"))
    if len(success):
        helped = [count(views.hypothesis == "search") for views in (whole, cut) if len(views)]
        found += [
            many("default path, whole and cut views: success", success, 0.9995),
            Finding("  accepted though wrong", f"{int((accepted & ~success).sum())} of {len(success)}"),
            Finding("  the search had to help", ", cut: ".join(helped)),
        ]
    return found


def _repeat(o: pandas.DataFrame) -> list[Finding]:
    digests = [set(digests) for _, digests in o.groupby("seed").digest if len(digests) > 1]
    if not digests:
        return []
    # A failure has no digest, and is not the same result as another.
    equal = sum(len(each) == 1 and "" not in each for each in digests)
    return [Finding("same result twice, to the bit", f"{equal} of {len(digests)}", "all", equal == len(digests))]


def _speed(o: pandas.DataFrame, path: str, most: float, most_network: float | None = None) -> list[Finding]:
    # The first one warms up.
    o = o.sort_values("seed")[1:]
    o = o[o.failure == ""]
    if o.empty:
        return []
    seconds = {stage: median(o[f"seconds_{stage}"]) for stage in STAGES}
    found = [at_most(f"time at 64^3, {path}", timing(seconds), seconds["total"], most, " s")]
    if most_network is not None and seconds["dnet"]:
        network = seconds["dnet"]
        found.append(at_most("  the network's share", f"{network:.2f} s", network, most_network, " s"))
    return found


def _large(large: LargePair) -> list[Finding]:
    allowed = 3 * large.scans_gb + 1
    time = f"{large.seconds:.2f} s, {large.threads} threads"
    verdict = "accepted" if large.accepted else "not accepted"
    return [
        at_most("time at 512^3", time, large.seconds, 8, " s"),
        Finding("  by stage", timing(large.stages)),
        Finding("  peak memory", f"{large.peak_gb:.2f} GB", f"below {allowed:.2f} GB", large.peak_gb < allowed),
        Finding("  true error", f"{large.error_um:.3f} um, {verdict}"),
    ]


def draw_reliability(found: Measurements, path: Path) -> None:
    """Draws how often pairs succeeded against the confidence they were given, with 95 % intervals."""
    outcomes = found.of("success", "impostors")
    confidence, success = outcomes.confidence.to_numpy(), outcomes.success.to_numpy(bool)
    edges = np.linspace(0, 1, 11)
    bins = np.clip(np.digitize(confidence, edges) - 1, 0, 9)
    figure = new_figure(5, 6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color="0.7", zorder=0)
    for one in np.unique(bins):
        x, share = confidence[bins == one].mean(), rate(success[bins == one])
        upper.plot((x, x), (share.low, share.high), color="#1f4e79")
        upper.plot(x, share.share, "o", color="#1f4e79")
    upper.set(ylabel=f"share with an error below {SUCCESS_UM:g} um", ylim=(-0.02, 1.02))
    upper.set_title(f"Reliability of the confidence, {len(outcomes)} pairs, 95 % intervals", fontsize=9)
    lower.hist((confidence[success], confidence[~success]), edges, stacked=True, color=("#1f4e79", "#c55a11"),
               label=("aligned", "not aligned, or impostor"))  # fmt: skip
    lower.set(xlabel="confidence", ylabel="pairs", yscale="symlog")
    lower.legend(fontsize=7)
    figure.savefig(path)
