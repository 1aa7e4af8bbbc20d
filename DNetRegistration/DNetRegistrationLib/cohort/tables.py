"""The tables of a cohort: a row for each pair, a row for each compartment of cartilage, and what the columns mean."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..cartilage.result import Compartment
from ..core.csv_table import plain_cell
from ..core.files import atomic_write
from .result import CohortResult, PairResult, split_verdict

TABLE, CARTILAGE, DICTIONARY = "cohort.csv", "cohort-cartilage.csv", "cohort-dictionary.csv"
RECORD, PAGE = "cohort.json", "cohort.html"

#: Columns of a pair: the attribute of `PairResult`, its unit, and what it means.
PAIR_COLUMNS = {
    "status": ("", "accepted; refused: aligned, but not to be trusted; or failed: not aligned"),
    "confidence": ("", "calibrated probability, 0 to 1, that the mean error is below one voxel of the search"),
    "expected_error_um": ("um", "estimate of the mean error over the bone"),
    "check_error_um": ("um", "how far the answer moved when the scan was turned and aligned again; empty: not tried"),
    "loop_error_um": (
        "um",
        "what is left where transforms between three scans should bring a point back; empty: no loop",
    ),
    "dice_before": ("", "overlap of the cortices as the scans lie in the world, 0 to 1"),
    "dice": ("", "overlap of the cortices as aligned, 0 to 1"),
    "rotation_deg": ("degrees", "angle of the rotation"),
    "moved_um": ("um", "how far the fixed bone's centroid moved"),
    "hypothesis": ("", "where the answer came from: dnet, search or initial"),
    "working_spacing_um": ("um", "voxel size of the search"),
    "doubts": ("", "what speaks against the answer or limits it, the gravest first; see docs/command-line.md"),
    "verdict": ("", "whether to trust it and, if not, what to check"),
    "remedy": ("", "of a pair that failed or is refused: what to do"),
    "warnings": ("", "what else to know"),
    "surroundings": ("", "what surrounds the bone where it differs between the scans, which a subtraction shows"),
    "seconds": ("s", "from the start of reading to the last output"),
    "fixed": ("", "the scan that stays"),
    "moving": ("", "the scan that is carried onto it"),
    "reference": (
        "",
        "the scan that all of this bone are carried onto; empty: no other pair of it, or none accepted leads there",
    ),
    "folder": ("", "where the outputs lie, below the folder of results"),
}
_COMPARTMENT = {
    "compartment": ("", "medial, lateral, or all: sums of areas and volumes, means and shares over both"),
    "area_mm2": ("mm2", "articular bone surface, worn places included (tAB); empty: no thickness"),
    "measured_share": ("", "of that area, 0 to 1"),
    "filled_share": ("", "of that area, filled from what lies around it, 0 to 1"),
    "covered_share": ("", "of the measured area, where a layer is, 0 to 1"),
    "volume_mm3": ("mm3", "cartilage on the area that was measured or filled"),
    "mean_thickness_um": ("um", "worn places count as 0 (ThCtAB)"),
    "median_thickness_um": ("um", "of the same distribution"),
    "sd_thickness_um": ("um", "standard deviation of the same distribution"),
    "p5_thickness_um": ("um", "its 5th percentile"),
    "p95_thickness_um": ("um", "its 95th percentile"),
    "standard_error_um": ("um", "of the mean thickness"),
    "uptake": ("grey values", "mean of what agent adds to the layer, in grey values of the scan with agent"),
    "least_thickness_um": ("um", "the thinnest layer that can be told from none"),
    "agent": ("", "whether contrast agent was found; empty: it cannot be told"),
    "sides_known": ("", "whether medial and lateral are known, and not perhaps swapped"),
    "alignment_accepted": ("", "if false, the numbers may be wrong"),
}
_VERSION = {
    "version": ("", "of DNetRegistration"),
    "code": ("", "identifies the program's way of aligning; results of one way can be compared"),
}
assert set(_COMPARTMENT) > {name for name in Compartment.__annotations__ if name != "name"}


def write_results(result: CohortResult, folder: Path) -> None:
    """Writes all tables and the record, all of them or none.

    Raises:
        FileError: one cannot be written.
    """
    extra = _carried(result.pairs)
    versions = {
        "version": result.versions.get("DNetRegistration", ""),
        "code": result.versions.get("code", ""),
    }
    pairs = [{"pair": one.name, **_columns(one, extra), **_row(one), **versions} for one in result.pairs]
    compartments = [
        {"pair": one.name, **_columns(one, extra), "status": one.status, **row, **versions}
        for one in result.pairs
        for row in one.compartments
    ]
    with atomic_write() as staging:
        _write_csv(staging.path(folder / TABLE), ["pair", *extra.values(), *PAIR_COLUMNS, *_VERSION], pairs)
        names = ["pair", *extra.values(), "status", *_COMPARTMENT, *_VERSION]
        if compartments:
            _write_csv(staging.path(folder / CARTILAGE), names, compartments)
        dictionary = _dictionary(extra, bool(compartments))
        _write_csv(staging.path(folder / DICTIONARY), ["table", "column", "unit", "meaning"], dictionary)
        text = json.dumps(result.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
        staging.path(folder / RECORD).write_bytes((text + "\n").encode("utf-8", "backslashreplace"))
    if not compartments:
        (folder / CARTILAGE).unlink(missing_ok=True)


def cell(value: Any) -> str:
    """A value as a cell of CSV, see `plain_cell`.

    Text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    text = plain_cell(value)
    if isinstance(value, float):
        return text
    return f"'{text}" if text.lstrip("'").startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def _write_csv(path: Path, names: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([cell(name) for name in names])
    writer.writerows([cell(row.get(name)) for name in names] for row in rows)
    # Names of files need not be UTF-8.
    path.write_bytes(stream.getvalue().encode("utf-8", "backslashreplace"))


def _carried(pairs: Sequence[PairResult]) -> dict[str, str]:
    """The columns that list and names bring along, and what they are called in the tables."""
    taken = {"pair", *PAIR_COLUMNS, *_COMPARTMENT, *_VERSION}
    names = dict.fromkeys(name for pair in pairs for name in pair.columns)
    return {name: f"given_{name}" if name in taken else name for name in names}


def _columns(pair: PairResult, extra: dict[str, str]) -> dict[str, str]:
    return {called: pair.columns.get(name, "") for name, called in extra.items()}


def _row(pair: PairResult) -> dict[str, Any]:
    values = {name: getattr(pair, name) for name in PAIR_COLUMNS}
    if pair.status == "refused":
        values["remedy"] = split_verdict(pair)[1]
    return values | {"doubts": "; ".join(pair.doubts), "warnings": " ".join(pair.warnings)}


def _dictionary(extra: dict[str, str], cartilage: bool) -> list[dict[str, str]]:
    carried = {called: ("", "as given by the list or the names of the scans") for called in extra.values()}
    pair = {"pair": ("", "the name of the pair")}
    status = {"status": PAIR_COLUMNS["status"]}
    tables = {TABLE: pair | carried | PAIR_COLUMNS | _VERSION}
    if cartilage:
        tables[CARTILAGE] = pair | carried | status | _COMPARTMENT | _VERSION
    return [
        {"table": table, "column": column, "unit": unit, "meaning": meaning}
        for table, columns in tables.items()
        for column, (unit, meaning) in columns.items()
    ]
