"""CSV as spreadsheets of any country write it, with the numbers that they write."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass


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
