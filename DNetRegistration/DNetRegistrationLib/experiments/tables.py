"""Tables as pandas data frames: results to group and count, text to read as Markdown or HTML, numbers as CSV."""

from __future__ import annotations

import html as _html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..core.csv_table import no_formula
from ..core.errors import PackageError

try:
    import pandas
except ImportError as error:
    raise PackageError(
        "tables of results need pandas", 'install it: pip install "dnet-registration[benchmark]"'
    ) from error


@dataclass(frozen=True)
class Finding:
    """A row of a table of what was measured and what is required of it; `holds` is None where nothing is required."""

    what: str
    measured: str
    required: str = ""
    holds: bool | None = None


def frame(kind: type, results: Iterable[Any], *properties: str) -> pandas.DataFrame:
    """Results as a data frame, a row each: the fields of the dataclass `kind` and these of its properties."""
    names = [*(field.name for field in fields(kind)), *properties]
    return pandas.DataFrame([[getattr(result, name) for name in names] for result in results], columns=names)


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> pandas.DataFrame:
    """A table to read: names of columns, and rows of text."""
    return pandas.DataFrame(list(rows), columns=list(columns), dtype=object)


def findings_table(findings: Iterable[Finding]) -> pandas.DataFrame:
    """Findings as a table to read."""
    marks = {True: "yes", False: "NO", None: ""}
    rows = [(f.what, f.measured, f.required, marks[f.holds]) for f in findings]
    return text_table(("what", "measured", "required", "holds"), rows)


def markdown(table: pandas.DataFrame) -> str:
    """A `text_table` as Markdown, with columns aligned so that it also reads well as it stands."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in _lines(table)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells)


def html(table: pandas.DataFrame) -> str:
    """A `text_table` as an HTML table. Cells are text: markup in them is escaped."""
    head, *body = (
        "".join(f"<{tag}>{_html.escape(str(cell))}</{tag}>" for cell in row)
        for tag, row in zip(("th", *["td"] * len(table)), _lines(table), strict=True)
    )
    rows = "\n".join(f"<tr>{row}</tr>" for row in body)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def write_csv(table: pandas.DataFrame, path) -> None:
    """Writes a table to a CSV file: floats with six digits, nothing where a value is missing."""
    for name in table.select_dtypes(exclude="number"):
        table = table.assign(**{name: table[name].map(no_formula)})
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def number(value: float, form: str = "") -> str:
    """Text of a number: "-" for NaN, "no result" for infinity.

    Args:
        value: the number.
        form: a format specification; by default three significant digits, without an exponent for large numbers.
    """
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "no result"
    return format(value, form or (",.0f" if abs(value) >= 100 else ".3g"))


def _lines(table: pandas.DataFrame) -> list[Sequence[Any]]:
    return [list(table.columns), *table.itertuples(index=False, name=None)]
