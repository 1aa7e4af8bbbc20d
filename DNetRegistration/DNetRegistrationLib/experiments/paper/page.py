"""The report of an evaluation as one HTML page that needs nothing else: pictures are in it, scripts it has none."""

from __future__ import annotations

import base64
import html
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..statistics import has_anova
from .plan import GROUPS, METHODS, UNMOVED
from .results import CRITERIA, RE, Results
from .settings import EvaluationRecord
from .significance import VarianceAnalysis
from .tables import Grid, Line, comparison_grid, summary_grid, table_1


@dataclass(frozen=True)
class Picture:
    """A figure of the report: its caption and its file; or why it is missing."""

    caption: str
    path: Path
    missing: str = ""


#: A network that leaves more than this share of the rotation has learned nothing about it.
_LEARNED = 0.9
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1360px; margin: 2em auto; padding: 0 1.2em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2.2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 12px; margin: 0.8em 0; }
.wide { overflow-x: auto; }
th, td { padding: 0.28em 0.5em; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.2em 0; } img { max-width: 100%; } figcaption { color: #444; font-size: 0.9em; }
.missing { color: #8a4b00; } code { background: #f4f4f4; padding: 0.1em 0.3em; overflow-wrap: anywhere; }
"""


def page_of(
    evaluation: EvaluationRecord,
    results: Results,
    codes: Sequence[str],
    lines: Sequence[Line],
    compared: Sequence[VarianceAnalysis],
    figures: Sequence[Picture],
) -> str:
    """The page.

    Args:
        evaluation: settings.
        results: that it tells of.
        codes: versions of the program that measured them.
        lines: summaries of them.
        compared: analyses of variance.
        figures: 3, 4 (a) to (d), and then any number of 5.
    """
    parts = [
        "<h1>The experiments of the D-net paper</h1>",
        f"<p>{len(results)} alignments of {len(evaluation.bones)} bones, two scans each, in halves A "
        f"({_count(evaluation, 'A')}) and B ({_count(evaluation, 'B')}); {_scans(evaluation)}</p>",
        f"<p>Command: <code>{html.escape(evaluation.command)}</code><br>Measured on: {html.escape(evaluation.machine)}"
        f"<br>Program: {html.escape(', '.join(codes))}; seed {evaluation.options['seed']}</p>",
        "<h2>Table 1</h2>",
        "<p>Means. TE: translation error with the image's centre as origin; RE: rotation error; DSC: Dice of cortical "
        "bone. In brackets what the paper reports, on its own scans: the same experiments, not the same data.</p>",
        _wide(table_1(lines, evaluation.trained).html()),
        *(f"<p>{sentence}</p>" for sentence in (*order_of_the_paper(results), *unlearned(results))),
        "<h2>Training</h2>",
        _training(evaluation),
        _figure(figures[0]),
        *(part for test in results.tests() for part in _test(lines, test, figures)),
        "<h2>By strategy</h2>",
        _figure(figures[4]),
        "<h2>Surfaces</h2>",
        *(_figure(figure) for figure in figures[5:]),
        "<h2>Significance</h2>",
        *_significance(compared),
        *_failures(results),
        "<h2>How to read this</h2>",
        *_notes(),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _count(evaluation: EvaluationRecord, fold: str) -> int:
    return sum(bone.fold == fold for bone in evaluation.bones.values())


def _scans(evaluation: EvaluationRecord) -> str:
    options = evaluation.options
    if options["scans"]:
        return f"scans of {html.escape(', '.join(options['scans']))}."
    return (
        f"made-up mouse tibiae, scans of {options['size']}<sup>3</sup> voxels of "
        f"{1000 * options['spacing']:g} um, the second of each with contrast agent, in any pose."
    )


def _training(evaluation: EvaluationRecord) -> str:
    if not evaluation.trained:
        return "<p>No network was asked for.</p>"
    rows = []
    for name, one in evaluation.trained.items():
        strategy, _, method = name.partition("/")
        pairs = "-" if None in (one["iterations"], one["batch"]) else f"{one['iterations'] * one['batch']:,}"
        hours = "-" if one["hours"] is None else f"{one['hours']:.2f}"
        where = "given, not trained here" if one["given"] else one["device"] or "-"
        iterations, batch = (str(one[key] or "-") for key in ("iterations", "batch"))
        rows.append((METHODS[method].label, strategy, iterations, batch, pairs, hours, where))
    columns = ("Network", "Strategy", "Iterations", "Pairs of each", "Pairs in all", "Hours", "Device")
    paper = (
        f"<p>Recipe <code>{html.escape(evaluation.options['recipe'])}</code>, one budget for all networks but the one "
        "that says so. The paper trained each for 120,000 iterations.</p>"
    )
    return paper + _wide(Grid(columns, tuple(rows)).html())


def order_of_the_paper(results: Results) -> list[str]:
    """Whether the paper's order of methods holds: D-net before SED and SNL-SED, those before SE and ME."""
    said = []
    order = (("dnet",), ("sed", "snl-sed"), ("se", "me"))
    names = [METHODS[method].label for step in order for method in step]
    if not {method for step in order for method in step} <= set(results.methods()):
        return ["The paper's order of networks is not judged: not all five were evaluated."]
    for group, strategies in GROUPS.items():
        holds, broken = [], []
        for test in results.tests():
            for criterion in CRITERIA[test]:
                means = {}
                for method in (m for step in order for m in step):
                    values = results.values(criterion, test, method, strategies)
                    if values:
                        sign = 1 if criterion.smaller_is_better else -1
                        means[method] = sign * sum(values) / len(values)
                if len(means) < len(names):
                    continue
                inversions = [
                    f"{METHODS[worse].label} better than {METHODS[better].label}"
                    for first, second in pairwise(order)
                    for better in first
                    for worse in second
                    if means[better] >= means[worse]
                ]
                where = f"{criterion.name} in the {test} test"
                (broken if inversions else holds).append(where + (f" ({', '.join(inversions)})" if inversions else ""))
        if holds or broken:
            text = f"The paper's order (D-net, then SED and SNL-SED, then SE and ME), {group.replace('&S', ' and S')}: "
            text += f"it holds for {'; '.join(holds)}. " if holds else "it holds for none. "
            text += f"It does not for {'; '.join(broken)}." if broken else ""
            said.append(html.escape(text))
    return said


def unlearned(results: Results) -> list[str]:
    """Which networks turn scans no better than nobody: their order is chance."""
    said = []
    for group, strategies in GROUPS.items():
        nothing = results.values(RE, "rotation", UNMOVED, strategies)
        if not nothing:
            continue
        at_rest = statistics.fmean(nothing)
        means = {}
        for name in results.methods():
            values = results.values(RE, "rotation", name, strategies) if METHODS[name].network else []
            if values:
                means[METHODS[name].label] = statistics.fmean(values)
        known = [f"{label} {mean:.1f}" for label, mean in means.items()]
        not_better = [label for label, mean in means.items() if mean > _LEARNED * at_rest]
        if known:
            text = f"Mean RE in the rotation test, {group.replace('&S', ' and S')}, in degrees: left as they are "
            text += f"{at_rest:.1f}, {', '.join(known)}. "
            if not_better:
                text += f"Of the networks, {', '.join(not_better)} came out no better than leaving the scans as they "
                text += "are, or by less than a tenth: with this budget they have not learned to see how a bone is "
                text += "turned, and which of them is before which is chance."
            said.append(html.escape(text))
    return said


def _test(lines: Sequence[Line], test: str, figures: Sequence[Picture]) -> list[str]:
    number = {"rotation": 1, "translation": 2, "real": 3}[test]
    return [
        f"<h2>{test.capitalize()} test</h2>",
        _wide(summary_grid(lines, test).html()),
        _figure(figures[number]),
    ]


def _significance(compared: Sequence[VarianceAnalysis]) -> list[str]:
    if not has_anova():
        return ['<p class="missing">No analyses of variance: statsmodels is not installed; install it: '
                '<code>pip install "dnet-registration[evaluation]"</code></p>']  # fmt: skip
    if not compared:
        return ["<p>There are too few results to compare.</p>"]
    return [
        "<p>Analyses of variance of two methods at a time: two-way (method, and angle or translation) in the synthetic "
        "tests, one-way in the real test; p of the method. Where it is below 1e-4, the paper's level, the method with "
        "the better mean is named. All effects are in anova.csv.</p>",
        _wide(comparison_grid(compared).html()),
    ]


def _failures(results: Results) -> list[str]:
    failures = results.failures()
    if not failures:
        return []
    reasons = {}
    for result in failures:
        reasons.setdefault((METHODS[result.method].label, result.failure), []).append(result)
    items = "".join(
        f"<li>{html.escape(method)}: {len(of)} times, first {html.escape(of[0].bone)} in the {of[0].test} test: "
        f"{html.escape(reason)}</li>"
        for (method, reason), of in reasons.items()
    )
    return [f"<h2>Errors</h2><p>These count as an answer that nothing moves.</p><ul>{items}</ul>"]


def _notes() -> list[str]:
    notes = (
        "In the rotation and the translation test the moving scan is the fixed one, resampled: both share their noise, "
        "and nothing has changed between them. Methods that compare voxels do better there than on two scans. The "
        "real test is the one that matters.",
        "Success: the mean error over the fixed cortex is below one voxel of the working spacing (80 um for a mouse). "
        "Its interval is Wilson's at 95 %. Where the true pose is not known, there is no success to count.",
        "The DSC at the true pose is what there is to be had: two segmentations of one bone never agree fully.",
        "SITK has its lengths in mm. Where the gradient of its mutual information is below the tolerance from the "
        "start, it leaves the scans as they are, which is then its result.",
        "SITK and networks see cubes on the images' centres, as in the paper, and say their one answer. Search and "
        "full pipeline see the scans. The networks of the full pipeline are those that ship, not those trained here.",
        "Networks hold out one in eight of the bones they train on to be validated on; the tested half is never seen.",
        "The analyses of variance are the paper's. They take results as independent, although all methods align the "
        "same scans, and each scan several times; read small p with that in mind.",
    )
    return [f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in notes)}</ul>"]


def _figure(figure: Picture) -> str:
    caption = html.escape(figure.caption)
    if figure.missing:
        return f'<p class="missing">{caption} Not drawn: {html.escape(figure.missing)}.</p>'
    content = base64.b64encode(figure.path.read_bytes()).decode()
    image = f'<img alt="{html.escape(figure.path.name)}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _wide(table: str) -> str:
    return f'<div class="wide">{table}</div>'
