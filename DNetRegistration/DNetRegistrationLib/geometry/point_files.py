"""Files of points carried by a transform: fiducials and markups of Slicer, and CSV. All but the points stays as it is.

Needs no torch.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import FileError, one_line
from ..core.spreadsheet import read_sheet, with_point

POINT_ENDINGS = (".fcsv", ".mrk.json", ".csv")

#: Points of RAS as LPS, and back.
RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
#: Before Slicer 4.6 the coordinate system of .fcsv was a number.
_SYSTEMS = {"0": "RAS", "1": "LPS", "2": "IJK"}
#: Kinds of markups that are their points alone.
_OF_POINTS = ("Fiducial", "Line", "Curve", "ClosedCurve", "Angle")


class _Damaged(Exception):
    """What is wrong with a file of points."""


def carried_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points ``(..., 3)`` mapped by a ``(4, 4)`` matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def carried_point_file(path: Path, matrix: np.ndarray) -> tuple[str, int]:
    """The text of a file of points with its points mapped, and their number.

    Args:
        path: ``.fcsv`` or ``.mrk.json`` of Slicer in LPS or RAS, as the file says (of ``.fcsv`` the positions alone are
            mapped, since versions of Slicer differ in what its orientations mean); or ``.csv`` with a header that names
            columns x, y and z, or without a header and x, y, z in the first three: LPS, mm. Cells are parted by
            commas, semicolons or tabs; numbers have a point, or a comma where that does not part cells.
        matrix: ``(4, 4)``, rigid, where the points lie to where they go, LPS mm.

    Raises:
        FileError: it cannot be read, or is none of these.
    """
    name = path.name.lower()
    try:
        if name.endswith(".csv"):
            return _csv(path.read_bytes(), matrix)
        text = path.read_text("utf-8-sig")
        return _fcsv(text, matrix) if name.endswith(".fcsv") else _markups(text, matrix)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({one_line(error)})", "check the file and its permissions") from error
    except (_Damaged, UnicodeDecodeError, csv.Error) as error:
        problem = f"{path}: is no file of points ({one_line(error)})"
        raise FileError(problem, f"give {', '.join(POINT_ENDINGS)} with positions in mm") from error


def _in_system(matrix: np.ndarray, system: str) -> np.ndarray:
    """The matrix for points in a coordinate system of Slicer."""
    if system not in ("LPS", "RAS"):
        raise _Damaged(f"its coordinate system is {system[:20]!r}, not LPS or RAS")
    return matrix if system == "LPS" else RAS @ matrix @ RAS


def _position(values: Any) -> np.ndarray:
    try:
        point = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        point = np.empty(0)
    if point.shape != (3,) or not (np.abs(point) < 1e30).all():
        raise _Damaged("a position is not three numbers")
    return point


def _moved(row: list[str], places: list[int], matrix: np.ndarray, comma: bool = False) -> list[str]:
    """A row with its point mapped; its numbers have a point, or a comma."""
    if max(places) >= len(row):
        raise _Damaged("a row has too few columns")
    row = list(row)
    point = _position([with_point(row[i]) if comma else row[i] for i in places])
    for place, value in zip(places, carried_points(point, matrix), strict=True):
        row[place] = repr(float(value)).replace(".", ",") if comma else repr(float(value))
    return row


def _fcsv(text: str, matrix: np.ndarray) -> tuple[str, int]:
    found = re.search(r"^#\s*CoordinateSystem\s*=\s*(\w+)", text, re.MULTILINE)
    system = found[1].upper() if found else "RAS"
    matrix, lines, count = _in_system(matrix, _SYSTEMS.get(system, system)), [], 0
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            row = _moved(line.split(","), [1, 2, 3], matrix)
            line, count = ",".join(row), count + 1
        lines.append(line)
    if not count:
        raise _Damaged("it holds no points")
    return "\n".join(lines) + "\n", count


def _markups(text: str, matrix: np.ndarray) -> tuple[str, int]:
    try:
        content = json.loads(text)
        markups = content["markups"]
        listed = [(one, one["type"], one.get("coordinateSystem", "LPS"), one["controlPoints"]) for one in markups]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged("it lacks what Slicer's markups have") from error
    count = 0
    for markup, kind, system, points in listed:
        if kind not in _OF_POINTS:
            raise _Damaged(f"a markup of the kind {str(kind)[:20]!r} is more than its points")
        if markup.get("coordinateUnits", "mm") not in ("mm", ["mm"]):
            raise _Damaged("its unit is not mm")
        own = _in_system(matrix, str(system).upper())
        for point in points:
            # A point that is not placed yet has no position.
            if point.get("positionStatus", "defined") != "defined" and not point.get("position"):
                continue
            point["position"] = carried_points(_position(point.get("position")), own).tolist()
            if point.get("orientation"):
                point["orientation"] = (own[:3, :3] @ _axes(point["orientation"])).ravel().tolist()
            count += 1
    if not count:
        raise _Damaged("it holds no points")
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n", count


def _axes(values: Any) -> np.ndarray:
    try:
        return np.array(values, np.float64).reshape(3, 3)
    except (TypeError, ValueError):
        raise _Damaged("an orientation is not nine numbers") from None


def _csv(content: bytes, matrix: np.ndarray) -> tuple[str, int]:
    sheet = read_sheet(content)
    rows = [row for _, row in sheet.rows]
    places, header = [0, 1, 2], []
    if rows and not _is_number(with_point(rows[0][0])):
        names = [cell.strip().lower() for cell in rows[0]]
        if [names.count(axis) for axis in "xyz"] == [1, 1, 1]:
            places, header = [names.index(axis) for axis in "xyz"], [rows.pop(0)]
        else:
            raise _Damaged("its header does not name one column each x, y and z")
    if not rows:
        raise _Damaged("it holds no points")
    # Where commas part cells, 1,5 for 1.5 would be taken for two numbers.
    for row in rows:
        if header and any(cell.strip() for cell in row[len(header[0]) :]):
            raise _Damaged("a row has more cells than the header; are commas both in numbers and between them?")
        if not header and any(_is_number(with_point(cell)) for cell in row[3:]):
            raise _Damaged("a row has more than three numbers, and no header says which are x, y and z")
    cells = [cell for row in rows for place, cell in enumerate(row) if place in places]
    comma = sheet.delimiter != "," and any("," in cell for cell in cells)
    moved = [_moved(row, places, matrix, comma) for row in rows]
    out = io.StringIO()
    csv.writer(out, delimiter=sheet.delimiter, lineterminator="\n").writerows([*header, *moved])
    return (sheet.stated and sheet.stated + "\n") + out.getvalue(), len(rows)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
