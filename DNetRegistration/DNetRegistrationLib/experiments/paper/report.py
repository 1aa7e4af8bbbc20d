"""Writes what an evaluation gives: tables, figures, and the report, one HTML page that needs no other file.

All of it comes from what is stored: the record, results of pairs, training logs; Fig. 5 also from the scans.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DNetError, FileError, PackageError
from ...core.files import atomic_write, writing
from ...core.pictures import require_matplotlib
from ...core.progress import ProgressFunction, no_progress
from ..statistics import has_anova
from ..store import ResultStore
from ..tables import html, markdown, write_csv
from .figures import draw_positions, draw_strategies, draw_subjects, draw_training
from .measure import PairResult
from .plan import METHODS, PlannedPair
from .results import LEARNED, NOT_LEARNED, EvaluationResults
from .settings import PAIRS, TRAINING, EvaluationRecord
from .significance import analyses
from .surfaces import PlacedSurface, draw_surfaces
from .tables import (
    PAPER_ORDER,
    effect_numbers,
    error_table,
    order_table,
    results_table,
    significance_table,
    summaries,
    summary_numbers,
    table_1,
    table_1_numbers,
    training_table,
)

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    remedy = 'install it: pip install "dnet-registration[evaluation]"'
    raise PackageError("the report of an evaluation needs jinja2", remedy) from error

#: The methods of Fig. 5: the paper's three, and this project's own.
SHOWN = ("me", "sed", "dnet", "equivariant", "full")
REPORT, TABLE, TABLE_CSV, SUMMARY, ANOVA = "report.html", "table1.md", "table1.csv", "summary.csv", "anova.csv"
_TEMPLATE = "report.html.jinja"
_NOT_LEARNED = (
    f"{NOT_LEARNED.capitalize()}: the network's mean RE is not below {LEARNED:g} times what its answers would have if "
    "they were given to the other pairs. So it does not see how a pair is turned. Its errors and its place among the "
    "others are chance, and cannot be compared with the paper's. Numbers stand in the CSV files alone."
)


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report: its caption and its file; or why it is missing."""

    caption: str
    path: Path
    missing: str = ""

    @property
    def base64(self) -> str:
        """The file's content, as it stands in the page."""
        return base64.b64encode(self.path.read_bytes()).decode()


def write_results(
    record: EvaluationRecord,
    folder: Path,
    subjects: Sequence[str] | None,
    progress: ProgressFunction = no_progress,
) -> Path:
    """Writes tables, figures and report into the folder of an evaluation, from what is stored there.

    Args:
        record: of the evaluation.
        folder: its folder.
        subjects: names of the bones in Fig. 5; None for the first two that have been tested.
        progress: called with the fraction done and a message.

    Returns:
        The report's path.

    Raises:
        FileError: there are no results, or damaged ones; or something cannot be written.
    """
    store = ResultStore(folder / PAIRS, PairResult, any_code=True)
    results = EvaluationResults(store.results.values(), record.trained)
    if not len(results):
        raise FileError(f"{folder / PAIRS}: holds no results to show yet", "evaluate first")
    progress(0.05, "tables")
    summary = summaries(results)
    analysed = list(analyses(results)) if has_anova() else []
    first = table_1(summary, record.trained)
    note = "" if summary.learned.all() else f"\n{_NOT_LEARNED}\n"
    with atomic_write() as staging, writing(folder):
        staging.path(folder / TABLE).write_text(markdown(first) + f"\n{note}", encoding="utf-8")
        write_csv(table_1_numbers(summary), staging.path(folder / TABLE_CSV))
        write_csv(summary_numbers(summary), staging.path(folder / SUMMARY))
        if analysed:
            write_csv(effect_numbers(analysed), staging.path(folder / ANOVA))
    if subjects is None:
        real = results.frame[results.frame.test == "real"]
        subjects = sorted(set(real.bone))[:2]
    figures = _figures(record, results, folder, subjects, progress)
    page = _page(
        record=record,
        options=record.options,
        pairs=len(results),
        halves=Counter(bone.fold for bone in record.bones.values()),
        codes=sorted({result.code for result in store.results.values()}),
        table_1=first,
        note=note.strip(),
        order=order_table(summary),
        paper_order=", then ".join(" and ".join(METHODS[name].label for name in place) for place in PAPER_ORDER),
        training=training_table(results, record.trained),
        tests={test: results_table(summary, test) for test in results.tests},
        figures=figures,
        subjects=[figures[f"bone {name}"] for name in subjects],
        has_anova=has_anova(),
        significance=significance_table(analysed),
        errors=error_table(results),
    )
    with atomic_write() as staging, writing(folder / REPORT):
        staging.path(folder / REPORT).write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    progress(1.0, "done")
    return folder / REPORT


def _page(**content: Any) -> str:
    """The page with this content, which is text and no markup, whatever is in it: names of files are data."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["html"] = lambda table: Markup(html(table))
    return environment.get_template(_TEMPLATE).render(content)


def _figures(
    record: EvaluationRecord,
    results: EvaluationResults,
    folder: Path,
    subjects: Sequence[str],
    progress: ProgressFunction,
) -> Mapping[str, ReportFigure]:
    """Draws all figures, by what they show: "training", a test, "strategies" or "bone NAME"."""
    drawings = _drawings(record, results, folder, subjects)
    figures = {}
    for number, (name, (file, caption, draw)) in enumerate(drawings.items()):
        progress(0.3 + 0.7 * number / len(drawings), f"drawing {file}")
        figures[name] = ReportFigure(caption, folder / file, _draw(draw, folder / file))
    return figures


def _drawings(
    record: EvaluationRecord, results: EvaluationResults, folder: Path, subjects: Sequence[str]
) -> dict[str, tuple[str, str, Callable[[], Any]]]:
    """The file, the caption and the function of each figure, by what it shows."""
    spread = "Mean and standard deviation; bars that reach the bottom of a logarithmic axis include zero."
    strategies = results.main_strategies
    shown = f"{'strategies' if len(strategies) > 1 else 'strategy'} {' and '.join(strategies)}"
    trained_by = next((s for s in ("S1", *results.strategies) if (folder / TRAINING / s).is_dir()), "S1")
    runs = {name: folder / TRAINING / trained_by / name for name in METHODS}
    runs = {name: run for name, run in runs.items() if run.is_dir()}
    drawings = {
        "training": (
            "figure3.png",
            f"Figure 3. Training curves, strategy {trained_by}. Lines: means over the training pairs, smoothed. "
            "Markers: means over validation pairs of bones that were not trained on. The loss of the equivariant "
            "network is another quantity and not shown.",
            partial(draw_training, runs),
        ),
        "rotation": (
            "figure4a.png",
            f"Figure 4 (a). Rotation test: errors and DSC against the angle, {shown}. {spread}",
            partial(draw_positions, results, "rotation"),
        ),
        "translation": (
            "figure4b.png",
            f"Figure 4 (b). Translation test: errors and DSC against the translation, {shown}. {spread}",
            partial(draw_positions, results, "translation"),
        ),
        "real": (
            "figure4c.png",
            f"Figure 4 (c). Real test: DSC of the scan without against the one with contrast agent by bone, {shown}.",
            partial(draw_subjects, results),
        ),
        "strategies": (
            "figure4d.png",
            "Figure 4 (d). DSC by strategy, mean and standard deviation.",
            partial(draw_strategies, results),
        ),
    }
    for number, name in enumerate(subjects, 1):
        caption = (
            f"Figure 5. {name}, real test: cortex of the scan without contrast agent (white) and of the one with it "
            "(red) where the methods put it."
        )
        drawings[f"bone {name}"] = (f"figure5_{number}.png", caption, partial(_surfaces, record, results, name))
    return drawings


def _draw(draw: Callable[[], Any], path: Path) -> str:
    """Draws and writes a figure; or says why not, and removes the one of an earlier report."""
    try:
        require_matplotlib("a picture")
        figure = draw()
        why = "" if figure is not None else "there are no results for it"
    except DNetError as error:
        why = str(error)
    if why:
        path.unlink(missing_ok=True)
        return why
    with atomic_write() as staging, writing(path):
        figure.savefig(staging.path(path))
    return ""


def _surfaces(record: EvaluationRecord, results: EvaluationResults, name: str):
    """Fig. 5 of one bone; None where it has no results."""
    from .pairs import load_pair

    found = {}
    for method in results.methods:
        of = results.of("real", method, results.main_strategies)
        of = of[of.bone == name]
        if len(of):
            found[method] = of.iloc[0]
    if not found:
        return None
    spacing = record.options.get("scan_spacing")
    planned = PlannedPair("real", name, "both", 0, 0.0, ())
    bones = load_pair(planned, record.bones[name], None if spacing is None else tuple(spacing)).bones
    shown = [method for method in SHOWN if method in found] or list(found)[: len(SHOWN)]
    labels = {method: results.label(method, results.main_strategies) for method in shown}
    placed = [
        PlacedSurface(label, np.reshape(found[method].estimate, (4, 4)), found[method].dice)
        for method, label in labels.items()
    ]
    return draw_surfaces(name, bones, placed)
