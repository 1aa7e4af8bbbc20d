"""A CSV file that grows by one row at a time."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any, TextIO

from .files import append, atomic_write

# How a cell begins that spreadsheets compute, or that begins as what `no_formula` gives.
_FORMULA = tuple("=+-@\t\r'")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class CsvTable:
    """Rows in memory and in a CSV file. The first row names the columns; the file is complete after each row.

    Args:
        path: of the file, or None to keep the rows in memory only.
        rows: those that exist already. They replace the content of the file.

    Raises:
        FileError: the file cannot be written.
    """

    def __init__(self, path: Path | None, rows: list[dict[str, Any]]) -> None:
        self.path, self.rows = path, list(rows)
        if path is not None:
            with atomic_write() as staging, open(staging.path(path), "w", newline="", encoding="utf-8") as stream:
                for row in self.rows:
                    self._write(stream, row, header=row is self.rows[0])

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row.

        Raises:
            FileError: the file cannot be written.
        """
        self.rows.append(row)
        if self.path is None:
            return
        stream = io.StringIO(newline="")
        self._write(stream, row, header=len(self.rows) == 1)
        try:
            append(self.path, stream.getvalue().encode())
        except BaseException:
            self.rows.pop()
            raise

    def _write(self, stream: TextIO, row: dict[str, Any], header: bool) -> None:
        writer = csv.DictWriter(stream, list(self.rows[0]), restval="", extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else no_formula(v) for name, v in row.items()})


def plain_cell(value: Any) -> str:
    """A value as a cell: numbers with six digits, and nothing where one is not known."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else str(value)


def no_formula(value: Any) -> Any:
    """A value for a cell. Text that a spreadsheet would compute, such as the name of a file, has an apostrophe before.

    Example:
        >>> no_formula("=SUM(A1:A9).nrrd"), no_formula("-1.5"), no_formula(-1.5)
        ("'=SUM(A1:A9).nrrd", '-1.5', -1.5)
    """
    if not isinstance(value, str) or value[:1] not in _FORMULA or len(value) == 1 or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def with_formula(text: str) -> str:
    """What `no_formula` was given."""
    return text[1:] if text.startswith("'") else text
