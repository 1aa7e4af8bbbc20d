"""Writes everything that an evaluation gives: tables, figures, and the report.

All of it comes from what is stored: settings, results of pairs, training logs; Fig. 5 from the scans besides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...core.errors import DNetError, FileError
from ...core.files import staged, writing
from ..statistics import has_anova
from ..store import ResultStore
from .figures import draw_curves, draw_positions, draw_strategies, draw_subjects
from .measure import PairResult
from .page import Picture, page_of
from .plan import GROUPS, METHODS, PlannedPair
from .results import Results
from .settings import PAIRS, TRAINING, EvaluationRecord
from .significance import comparisons
from .surfaces import CannotDrawError, PlacedSurface, draw_surfaces
from .tables import summaries, table_1, write_comparisons, write_summary, write_table_1

#: The methods of Fig. 5: the paper's three, and this project's own.
SHOWN = ("me", "sed", "dnet", "equivariant", "full")
REPORT, TABLE, TABLE_CSV, SUMMARY, ANOVA = "report.html", "table1.md", "table1.csv", "summary.csv", "anova.csv"


def write_results(
    evaluation: EvaluationRecord,
    folder: Path,
    subjects: Sequence[str] | None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> Path:
    """Writes tables, figures and report into the folder of an evaluation, from what is stored there.

    Args:
        evaluation: its settings.
        folder: of it.
        subjects: bones shown in Fig. 5, or None for the first two that have been tested.
        progress: called with the fraction done and a message.

    Returns:
        The report's path.

    Raises:
        ScanError: there are no results, or they are damaged; or something cannot be written.
    """
    store = ResultStore(folder / PAIRS, PairResult, any_code=True)
    results = Results(store.results.values(), evaluation.trained)
    if not len(results):
        raise FileError(f"{folder / PAIRS}: holds no results to show yet", "evaluate first")
    progress(0.05, "tables")
    lines = summaries(results)
    compared = list(comparisons(results)) if has_anova() else []
    with staged() as staging, writing(folder):
        table = table_1(lines, evaluation.trained).markdown()
        staging.path(folder / TABLE).write_text(table + "\n", encoding="utf-8")
        write_table_1(staging.path(folder / TABLE_CSV), lines)
        write_summary(staging.path(folder / SUMMARY), lines)
        if compared:
            write_comparisons(staging.path(folder / ANOVA), compared)
    if subjects is None:
        subjects = results.bones("real")[:2]
    figures = _figures(evaluation, results, folder, subjects, progress)
    with staged() as staging, writing(folder / REPORT):
        codes = sorted({result.code for result in store.results.values()})
        page = page_of(evaluation, results, codes, lines, compared, figures)
        staging.path(folder / REPORT).write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    progress(1.0, "done")
    return folder / REPORT


def _figures(
    evaluation: EvaluationRecord,
    results: Results,
    folder: Path,
    subjects: Sequence[str],
    progress: Callable[[float, str], None],
) -> list[Picture]:
    spread = "Mean and standard deviation; bars that reach the bottom of a logarithmic axis include zero."
    first = [s for s in GROUPS["S1&S2"] if s in results.strategies()] or results.strategies()
    shown = f"strategies {' and '.join(first)}" if len(first) > 1 else f"strategy {first[0]}"
    trained_by = next(iter(s for s in ("S1", *results.strategies()) if (folder / TRAINING / s).is_dir()), "S1")
    runs = {
        name: folder / TRAINING / trained_by / name
        for name in METHODS
        if (folder / TRAINING / trained_by / name).is_dir()
    }
    drawings = [
        (
            "figure3.png",
            f"Figure 3. Training curves, strategy {trained_by}. Lines: means over the training pairs, smoothed. "
            "Markers: means over validation pairs of bones that were not trained on. The loss of the equivariant "
            "network is another quantity and not shown.",
            lambda: draw_curves(runs),
        ),
        (
            "figure4a.png",
            f"Figure 4 (a). Rotation test: errors and DSC against the angle, {shown}. {spread}",
            lambda: draw_positions(results, "rotation"),
        ),
        (
            "figure4b.png",
            f"Figure 4 (b). Translation test: errors and DSC against the translation, {shown}. {spread}",
            lambda: draw_positions(results, "translation"),
        ),
        (
            "figure4c.png",
            f"Figure 4 (c). Real test: DSC of the scan without against the one with contrast agent by bone, {shown}.",
            lambda: draw_subjects(results),
        ),
        (
            "figure4d.png",
            "Figure 4 (d). DSC by strategy, mean and standard deviation.",
            lambda: draw_strategies(results),
        ),
    ]
    for number, name in enumerate(subjects, 1):
        caption = (
            f"Figure 5. {name}, real test: cortex of the scan without contrast agent (white) and of the one with it "
            "(red) as methods put it."
        )
        drawings.append((f"figure5_{number}.png", caption, partial(_surfaces, evaluation, results, name)))
    pictures = []
    for number, (file, caption, draw) in enumerate(drawings):
        progress(0.3 + 0.7 * number / len(drawings), f"drawing {file}")
        pictures.append(Picture(caption, folder / file, _drawn(draw, folder / file)))
    return pictures


def _drawn(draw: Callable[[], Any], path: Path) -> str:
    """Draws and writes a picture; or says why not, and removes what an earlier report has left."""
    why = 'matplotlib is not installed; install it: pip install "dnet-registration[evaluation]"'
    if find_spec("matplotlib") is not None:
        try:
            figure = draw()
            why = "" if figure is not None else "there are no results for it"
        except (CannotDrawError, DNetError) as error:
            why = str(error)
    if why:
        path.unlink(missing_ok=True)
        return why
    with staged() as staging, writing(path):
        figure.savefig(staging.path(path))
    return ""


def _surfaces(evaluation: EvaluationRecord, results: Results, name: str):
    """Fig. 5 of one bone, None where it has no results."""
    strategies = [s for s in GROUPS["S1&S2"] if s in results.strategies()] or results.strategies()
    of_bone = {
        method: [r for r in results.of("real", method, strategies) if r.bone == name] for method in results.methods()
    }
    found = {method: its[0] for method, its in of_bone.items() if its}
    if not found:
        return None
    from .pairs import load_pair

    spacing = evaluation.options.get("scan_spacing")
    planned = PlannedPair("real", name, "both", 0, 0.0, ())
    bones = load_pair(planned, evaluation.bones[name], None if spacing is None else tuple(spacing)).bones
    shown = [method for method in SHOWN if method in found] or list(found)[: len(SHOWN)]
    placed = [PlacedSurface(METHODS[method].label, found[method].matrix, found[method].dice) for method in shown]
    return draw_surfaces(name, bones, placed)
