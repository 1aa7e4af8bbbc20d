"""The table of a measurement of cartilage, as CSV or JSON."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from ..cartilage.result import CartilageMeasurement
from ..core.csv_table import plain_cell
from ..version import __version__


def rows(found: CartilageMeasurement) -> list[dict[str, Any]]:
    """One row a compartment: the attributes of `Compartment`, and what holds for all of them, units in the names."""
    whole = {
        "least_thickness_um": found.least_thickness_um,
        "agent": found.agent,
        "sides_known": found.sides_known,
        "alignment_accepted": found.accepted,
    }
    table = []
    for one in found.compartments:
        values = one.to_dict()
        table.append({"compartment": values.pop("name"), **values, **whole})
    return table


def write_table(found: CartilageMeasurement, path: str | Path) -> None:
    """Writes `rows` as ``.csv``, an empty cell where a number is not known; or the whole measurement as ``.json``.

    Raises:
        OSError: it could not be written.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        text = json.dumps({**found.to_dict(), "version": __version__}, indent=2, allow_nan=False, ensure_ascii=False)
        # Names of files in warnings need not be UTF-8.
        path.write_bytes((text + "\n").encode("utf-8", "backslashreplace"))
        return
    table = rows(found)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows({name: plain_cell(value) for name, value in row.items()} for row in table)


def cartilage_summary(found: CartilageMeasurement) -> str:
    """Some lines that tell a reader what was measured."""
    lines = [] if found.accepted else [f"{'cartilage':<17} NOT TO BE TRUSTED: the alignment was not accepted"]
    for one in found.compartments:
        if math.isnan(one.mean_thickness_um):
            values = "not measured"
        else:
            values = (
                f"{one.mean_thickness_um:.1f} +- {one.standard_error_um:.1f} um, {one.volume_mm3:.4f} mm3, "
                f"{100 * one.measured_share:.0f} % of {one.area_mm2:.2f} mm2 measured"
                + (f", {100 * one.filled_share:.0f} % filled" if one.filled_share >= 0.005 else "")
            )
        lines.append(f"{'cartilage ' + one.name:<17} {values}")
    if math.isfinite(found.least_thickness_um):
        lines.append(f"{'thinnest seen':<17} {found.least_thickness_um:.1f} um, at this noise and voxel size")
    return "\n".join([*lines, *(f"{'warning':<17} {warning}" for warning in found.warnings)])
