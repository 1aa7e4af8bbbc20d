"""CSV as spreadsheets of any country write it, with the numbers that they write."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import FileError, one_line

_LONGEST = 1 << 24  # bytes
#: How workbooks start: .xlsx and .ods, and .xls.
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


@dataclass(frozen=True)
class Sheet:
    """The cells of a CSV file.

    Attributes:
        rows: those that are not empty, each with the number of the line on which it ends.
        delimiter: what parts cells: a comma, a semicolon or a tab.
        stated: the line in which the file says so, "sep=;", or "".
    """

    rows: list[tuple[int, list[str]]]
    delimiter: str
    stated: str

    @property
    def header(self) -> list[str]:
        """The names of the columns: the cells of the first row, without spaces around them."""
        return [cell.strip() for cell in self.rows[0][1]] if self.rows else []

    def lines(self, names: Sequence[str], numbers: tuple[str, ...] = ()) -> Iterator[tuple[int, bool, dict[str, str]]]:
        """The rows below the first: each with its line, whether it has more cells than there are names, and its cells.

        Args:
            names: of the columns.
            numbers: how the names of columns end that hold numbers. Where commas part no cells, they may be written
                with a comma.
        """
        for line, row in self.rows[1:]:
            cells = dict(zip(names, (cell.strip() for cell in row), strict=False))
            if numbers and self.delimiter != ",":
                cells |= {name: with_point(text) for name, text in cells.items() if name.endswith(numbers)}
            yield line, len(row) > len(names), cells


def read_list(path: Path) -> Sheet:
    """Reads a CSV file that lists scans.

    Raises:
        FileError: it cannot be read, is too long, a workbook, or no CSV.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise FileError(f"{path}: is too long for a list of scans", "give a CSV file with a row for each")
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({one_line(error)})", "check the path") from error
    if content.startswith(_WORKBOOKS):
        raise FileError(f"{path}: is a workbook of a spreadsheet program", "save its table as CSV, and give that")
    try:
        return read_sheet(content)
    except csv.Error as error:
        raise FileError(f"{path}: cannot be read ({error})", "save it as CSV again") from error


def read_sheet(content: bytes) -> Sheet:
    """Reads a CSV file: UTF-8, UTF-16 with its mark, else Latin-1.

    Raises:
        csv.Error: it is no CSV.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # "Unicode text" of spreadsheets
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    first = next((line for line in text.splitlines() if line.strip()), "").strip(" ")
    # A spreadsheet may say in a line of its own what parts cells.
    stated = re.fullmatch(r"sep=([,;\t])[,;\t]*", first, re.IGNORECASE)
    delimiter = stated[1] if stated else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    return Sheet(rows[1 if stated else 0 :], delimiter, first if stated else "")


def with_point(text: str) -> str:
    """A number with a point, where it was written with a comma."""
    return text if "." in text else text.replace(",", ".")
