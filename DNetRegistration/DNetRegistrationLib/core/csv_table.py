"""A CSV file that grows by one row at a time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, TextIO

from .files import atomic_write, writing


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
        if self.path is not None:
            with writing(self.path), open(self.path, "a", newline="", encoding="utf-8") as stream:
                self._write(stream, row, header=len(self.rows) == 1)

    def _write(self, stream: TextIO, row: dict[str, Any], header: bool) -> None:
        writer = csv.DictWriter(stream, list(self.rows[0]), restval="", extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
