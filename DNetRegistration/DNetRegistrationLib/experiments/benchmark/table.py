"""From outcomes to one table, and to the reliability plot of the confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from ...outputs.summary import timing
from ..metrics import SUCCESS_UM
from ..statistics import rate
from .large import LargePair
from .parts import FAR_DEG, STAGES, Outcome
from .refinement import METHODS, RefinementOutcome


@dataclass(frozen=True)
class Results:
    """Everything measured: outcomes of pairs, the large pair or None, and refinements from common starts."""

    outcomes: Sequence[Outcome]
    large: LargePair | None = None
    refinements: Sequence[RefinementOutcome] = ()

    def of(self, part: str) -> list[Outcome]:
        """The outcomes of one part."""
        return [outcome for outcome in self.outcomes if outcome.part == part]


@dataclass(frozen=True)
class Line:
    """A line of the table; `holds` is None where nothing is required."""

    what: str
    measured: str
    required: str = ""
    holds: bool | None = None


def lines(results: Results) -> list[Line]:
    """The table of what was measured; parts without outcomes are left out."""
    table = [*_success(results.of("success"))]
    for part, what, most in (
        ("80 um plain", "error at 80 um, no contrast", 2.0),
        ("80 um contrast", "error at 80 um, contrast", 8.0),
        ("25 um plain", "error at 25 um, no contrast", 0.5),
        ("25 um contrast", "error at 25 um, contrast", 1.5),
    ):
        table += _accuracy(results.of(part), what, most, 0.03 if part.startswith("25") else None)
    table += _impostors(results.of("impostors"))
    table += _calibration(results.of("success") + results.of("impostors"))
    table += _network(results.of("network whole"), "whole views", 1.0, 25.0, 0.002, 0.85)
    table += _network(results.of("network cut"), "views cut to half", 2.5, None, 0.01, None)
    table += _defaults(results.of("network whole"), results.of("network cut"))
    table += _network(results.of("paper whole"), "D-net, whole views", 2.0, None, 0.02, 0.75)
    table += _repeat(results.of("repeat"))
    table += _refinements(results.refinements)
    table += _speed(results.of("speed"), "search path", 1.0)
    table += _speed(results.of("default speed"), "default path", 0.4, most_network=0.15)
    if results.large is not None:
        table += _large(results.large)
    return table


def format_table(table: Sequence[Line]) -> str:
    """Markdown, aligned for reading as it stands."""
    marks = {True: "yes", False: "NO", None: ""}
    cells = [("what", "measured", "required", "holds")]
    cells += [(line.what, line.measured, line.required, marks[line.holds]) for line in table]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    cells.insert(1, tuple("-" * width for width in widths))
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells)


def _rate(count: int, total: int) -> str:
    return rate([True] * count + [False] * (total - count)).counted


def _success(outcomes: list[Outcome]) -> list[Line]:
    if not outcomes:
        return []
    good = [o for o in outcomes if o.success]
    refused = sum(not o.accepted for o in good)
    wrong = sum(o.accepted and not o.success for o in outcomes)
    error = np.median([o.error_um for o in outcomes])
    rows = [
        Line(
            f"success (error below {SUCCESS_UM:g} um), views cut to half, contrast",
            _rate(len(good), len(outcomes)),
            "at least 99.5 %",
            len(good) >= 0.995 * len(outcomes),
        ),
        Line("  median error of these", f"{error:.2f} um"),
        Line("  accepted though wrong", f"{wrong} of {len(outcomes)}"),
    ]
    if good:
        rows.append(Line("  successes refused", _rate(refused, len(good)), "at most 2 %", refused <= 0.02 * len(good)))
    failures = sum(bool(o.failure) for o in outcomes)
    return rows + ([Line("  ended with an error", f"{failures} of {len(outcomes)}")] if failures else [])


def _accuracy(outcomes: list[Outcome], what: str, most: float, most_angle: float | None) -> list[Line]:
    if not outcomes:
        return []
    error, angle = (np.array([getattr(o, name) for o in outcomes]) for name in ("error_um", "angle_deg"))
    median = float(np.median(error))
    turned = float(np.median(angle))
    return [
        Line(
            f"median {what}",
            f"{median:.2f} um (90 % below {np.percentile(error, 90):.2f}, {len(outcomes)} pairs)",
            f"at most {most:g} um",
            median <= most,
        ),
        Line(
            "  its rotation error",
            f"{turned:.4f} degrees",
            "" if most_angle is None else f"at most {most_angle:g} degrees",
            None if most_angle is None else turned <= most_angle,
        ),
    ]


def _impostors(outcomes: list[Outcome]) -> list[Line]:
    if not outcomes:
        return []
    kinds = defaultdict(list)
    for outcome in outcomes:
        kinds[outcome.kind].append(outcome.accepted)
    accepted = sum(o.accepted for o in outcomes)
    each = ", ".join(f"{kind} {sum(values)} of {len(values)}" for kind, values in sorted(kinds.items()))
    return [
        Line("impostors accepted", _rate(accepted, len(outcomes)), "at most 0.5 %", accepted <= 0.005 * len(outcomes)),
        Line("  by kind", each),
    ]


def _calibration(outcomes: list[Outcome]) -> list[Line]:
    if not outcomes:
        return []
    confidence = np.array([o.confidence for o in outcomes])
    truth = np.array([o.success for o in outcomes], float)
    rows = [Line("Brier score of the confidence", f"{np.mean((confidence - truth) ** 2):.4f} ({len(outcomes)} pairs)")]
    same = [o for o in outcomes if o.success and np.isfinite(o.expected_error_um)]
    if same:
        ratio = np.percentile([o.expected_error_um / o.error_um for o in same], (10, 50, 90))
        rows.append(
            Line("expected over true error", f"median {ratio[1]:.2f}, 80 % within {ratio[0]:.2f} to {ratio[2]:.2f}")
        )
    return rows


def _network(
    outcomes: list[Outcome],
    what: str,
    most_angle: float,
    most_error: float | None,
    most_far: float,
    least_dice: float | None,
) -> list[Line]:
    """A network alone: nothing refined, nothing searched."""
    alone = [o for o in outcomes if o.way.get("refine") == "none"]
    if not alone:
        return []
    angle, error = (np.array([getattr(o, name) for o in alone]) for name in ("angle_deg", "error_um"))
    dice, true = (np.array([getattr(o, name) for o in alone]) for name in ("dice", "dice_true"))
    far = int((~(angle <= FAR_DEG)).sum())
    turned, off, overlap = float(np.median(angle)), float(np.median(error)), float(np.nanmedian(dice))
    return [
        Line(
            f"network alone, {what}: median rotation error",
            f"{turned:.2f} degrees (90 % below {np.percentile(angle, 90):.2f}, {len(alone)} pairs)",
            f"at most {most_angle:g} degrees",
            turned <= most_angle,
        ),
        Line(
            "  its median target error",
            f"{off:.1f} um (90 % below {np.percentile(error, 90):.1f})",
            "" if most_error is None else f"at most {most_error:g} um",
            None if most_error is None else off <= most_error,
        ),
        Line(
            f"  beyond {FAR_DEG:g} degrees",
            _rate(far, len(alone)),
            f"at most {100 * most_far:g} %",
            far <= most_far * len(alone),
        ),
        Line(
            "  median Dice (at the true pose)",
            f"{overlap:.3f} ({np.nanmedian(true):.3f})",
            "" if least_dice is None else f"at least {least_dice:g}",
            None if least_dice is None else overlap >= least_dice,
        ),
    ]


def _defaults(whole: list[Outcome], cut: list[Outcome]) -> list[Line]:
    """The default: network, refinement, and the search where that does not verify."""
    rows = []
    whole, cut = ([o for o in outcomes if o.way.get("hypotheses") == "auto"] for outcomes in (whole, cut))
    if whole:
        # Where the search was asked, the network's own answer is not known to be right.
        without = sum(o.success and o.hypothesis == "dnet" for o in whole)
        rows.append(
            Line(
                "network and refinement, no search, whole views: success",
                _rate(without, len(whole)),
                "at least 99.8 %",
                without >= 0.998 * len(whole),
            )
        )
    both = [*whole, *cut]
    if both:
        good = sum(o.success for o in both)
        helped = [f"{sum(o.hypothesis == 'search' for o in some)} of {len(some)}" for some in (whole, cut) if some]
        rows += [
            Line(
                "default path, whole and cut views: success",
                _rate(good, len(both)),
                "at least 99.95 %",
                good >= 0.9995 * len(both),
            ),
            Line("  accepted though wrong", f"{sum(o.accepted and not o.success for o in both)} of {len(both)}"),
            Line("  the search had to help", ", cut: ".join(helped)),
        ]
    return rows


def _repeat(outcomes: list[Outcome]) -> list[Line]:
    digests = defaultdict(set)
    counts = defaultdict(int)
    for outcome in outcomes:
        digests[outcome.seed].add(outcome.digest)
        counts[outcome.seed] += 1
    twice = [seed for seed, count in counts.items() if count > 1]
    if not twice:
        return []
    equal = sum(len(digests[seed]) == 1 and "" not in digests[seed] for seed in twice)
    return [Line("same result twice, to the bit", f"{equal} of {len(twice)}", "all", equal == len(twice))]


def _refinements(outcomes: Sequence[RefinementOutcome]) -> list[Line]:
    if not outcomes:
        return []
    rows = [Line("refinement alone, from 3 degrees and 80 um off", "median error without, with contrast; time")]
    for method in METHODS:
        of = [o for o in outcomes if o.method == method]
        plain, contrast = (np.median([o.error_um for o in of if o.contrast is c]) for c in (False, True))
        seconds = np.median([o.seconds for o in of])
        rows.append(Line(f"  {method}", f"{plain:.2f} um, {contrast:.2f} um; {seconds:.2f} s ({len(of)} pairs)"))
    return rows


def _speed(outcomes: list[Outcome], path: str, most: float, most_network: float | None = None) -> list[Line]:
    # The first one warms up.
    outcomes = [o for o in sorted(outcomes, key=lambda o: o.seed)[1:] if not o.failure]
    if not outcomes:
        return []
    stages = {stage: float(np.median([o.seconds[stage] for o in outcomes])) for stage in STAGES}
    rows = [Line(f"time at 64^3, {path}", timing(stages), f"at most {most:g} s", stages["total"] <= most)]
    if most_network is not None and stages["dnet"]:
        network = stages["dnet"]
        rows.append(
            Line("  the network's share", f"{network:.2f} s", f"at most {most_network:g} s", network <= most_network)
        )
    return rows


def _large(large: LargePair) -> list[Line]:
    allowed = 3 * large.scans_gb + 1
    return [
        Line("time at 512^3", f"{large.seconds:.2f} s, {large.threads} threads", "at most 8 s", large.seconds <= 8),
        Line("  by stage", timing(large.stages)),
        Line("  peak memory", f"{large.peak_gb:.2f} GB", f"below {allowed:.2f} GB", large.peak_gb < allowed),
        Line("  true error", f"{large.error_um:.3f} um, {'accepted' if large.accepted else 'not accepted'}"),
    ]


def plot_reliability(results: Results, staging, path) -> None:
    """Draws how often pairs succeeded against the confidence they were given; nothing without pairs or matplotlib."""
    outcomes = results.of("success") + results.of("impostors")
    if not outcomes or find_spec("matplotlib") is None:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    confidence = np.array([o.confidence for o in outcomes])
    truth = np.array([o.success for o in outcomes])
    edges = np.linspace(0, 1, 11)
    bins = np.clip(np.digitize(confidence, edges) - 1, 0, 9)
    figure = Figure(figsize=(5, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color="0.7", zorder=0)
    for one in np.unique(bins):
        inside = bins == one
        found = rate(truth[inside])
        x = confidence[inside].mean()
        upper.plot((x, x), (found.low, found.high), color="#1f4e79")
        upper.plot(x, found.share, "o", color="#1f4e79")
    upper.set(ylabel=f"share with an error below {SUCCESS_UM:g} um", ylim=(-0.02, 1.02))
    upper.set_title(f"Reliability of the confidence, {len(outcomes)} pairs, 95 % intervals", fontsize=9)
    lower.hist((confidence[truth], confidence[~truth]), edges, stacked=True, color=("#1f4e79", "#c55a11"),
               label=("aligned", "not aligned, or impostor"))  # fmt: skip
    lower.set(xlabel="confidence", ylabel="pairs", yscale="symlog")
    lower.legend(fontsize=7)
    figure.savefig(staging.path(path))
