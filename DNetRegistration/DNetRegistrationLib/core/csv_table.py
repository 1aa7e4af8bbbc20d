"""Tables that grow by a line at a time, kept as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from .files import staged, writing


class Table:
    """Lines under the names of the first one; the file holds them all after each.

    Args:
        path: of the CSV file, or None to keep the lines in memory only.
        lines: those that are there already: they replace the file, so that it tells what they tell and no more.
    """

    def __init__(self, path: Path | None, lines: list[dict[str, Any]]) -> None:
        self.path, self.lines = path, list(lines)
        if path is not None:
            with staged() as staging, open(staging.path(path), "w", newline="", encoding="utf-8") as stream:
                for line in self.lines:
                    self._write(stream, line, header=line is self.lines[0])

    def add(self, line: dict[str, Any]) -> None:
        """Raises `ScanError` where the file cannot be written."""
        self.lines.append(line)
        if self.path is not None:
            with writing(self.path), open(self.path, "a", newline="", encoding="utf-8") as stream:
                self._write(stream, line, header=len(self.lines) == 1)

    def _write(self, stream, line: dict[str, Any], header: bool) -> None:
        writer = csv.DictWriter(stream, list(self.lines[0]), restval="", extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in line.items()})
