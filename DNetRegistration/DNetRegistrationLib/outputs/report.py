"""The JSON report of an alignment.

Needs no torch.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from ..cartilage.result import CartilageMeasurement
from ..core.errors import FileError, Setting, one_line
from ..core.jsonable import jsonable
from ..core.provenance import versions
from ..imaging.grey_fit import GreyFit
from ..imaging.volume import Volume
from ..registration.result import Alignment
from ..version import __version__

T = TypeVar("T")

#: Units of the numbers in a report, by key; coordinates are LPS.
UNITS = {
    "matrix": "mm, fixed to moving points, LPS",
    "translation_mm": "mm, LPS",
    "rotation_deg": "degrees",
    "expected_error_um": "um",
    "network_spread_um": "um",
    "working_spacing": "mm",
    "spacing": "mm",
    "center": "mm, LPS, in the fixed scan",
    "error_um": "um",
    "threshold": "grey values of the scan",
    "grey_value_fit": "grey values: contrast = slope * plain + offset",
    "seconds": "s",
}


def read_report(path: str | Path) -> Alignment:
    """The alignment of a report that `write_report` wrote.

    Raises:
        FileError: it cannot be read, or is no such report.
    """

    def alignment(values: dict[str, Any]) -> Alignment:
        thresholds = {f"{role}_threshold": values[role]["threshold"] for role in ("fixed", "moving")}
        return Alignment.from_dict(values | thresholds)

    return _taken(path, alignment)


def read_scans(path: str | Path) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
    """The scans that a report is of: of "fixed" and "moving" the size in voxels and the voxel size in mm, x, y, z.

    Raises:
        FileError: see `read_report`.
    """

    def scans(values: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
        return {
            role: (tuple(map(int, values[role]["size"])), tuple(map(float, values[role]["spacing"])))
            for role in ("fixed", "moving")
        }

    return _taken(path, scans)


def no_report(path: str | Path) -> FileError:
    """The error of a file that is no report."""
    return FileError(
        f"{path}: is no report of an alignment", "give the one that was written with it", Setting("report")
    )


def _taken(path: str | Path, take: Callable[[dict[str, Any]], T]) -> T:
    """What is taken from the values of a report."""
    try:
        return take(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        problem = f"{path}: cannot be read ({one_line(error)})"
        raise FileError(problem, "check the path and its permissions", Setting("report")) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise no_report(path) from error


def report(
    alignment: Alignment,
    fixed: Volume,
    moving: Volume,
    cartilage: CartilageMeasurement | None = None,
    contrast: str | None = None,
    fit: GreyFit | None = None,
) -> dict[str, Any]:
    """What a report says, as plain Python numbers, words, lists and dicts; what is not a number is None.

    Lengths are in mm, `expected_error_um` in um, `rotation_deg` in degrees. `matrix` maps fixed to moving points in
    LPS, as transform files do; `translation_mm` is the displacement of the fixed bone's centroid.

    Args:
        alignment: the alignment.
        fixed, moving: the scans it aligns.
        cartilage: what was measured; it stands under ``cartilage``.
        contrast: which scan was said to have the contrast agent.
        fit: the straight line between the grey values of the two, where they were subtracted.
    """
    values = alignment.to_dict()
    del values["mirrored"]  # the verdict says it
    scans = {
        role: {
            "name": str(volume.name),
            "size": jsonable(volume.size),
            "spacing": jsonable(volume.spacing),
            "threshold": values.pop(f"{role}_threshold"),
            "dtype": volume.voxels.dtype.name,
            "flip": volume.flipped_axes or None,
        }
        for role, volume in (("fixed", fixed), ("moving", moving))
    }
    measured = {} if cartilage is None else {"cartilage": cartilage.to_dict()}
    made = {
        "contrast": contrast,
        "grey_value_fit": None if fit is None else jsonable(vars(fit)),
        "units": UNITS,
        "made": {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join(sys.argv),
            "versions": versions(),
        },
    }
    return {**values, **scans, **measured, **made, "version": __version__}


def write_report(
    alignment: Alignment,
    fixed: Volume,
    moving: Volume,
    path: str | Path,
    cartilage: CartilageMeasurement | None = None,
    contrast: str | None = None,
    fit: GreyFit | None = None,
) -> None:
    """Writes `report` of the same arguments as JSON, UTF-8.

    Raises:
        OSError: it could not be written.
    """
    values = report(alignment, fixed, moving, cartilage, contrast, fit)
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    # File names need not be UTF-8; what is not is written as escapes rather than lost.
    Path(path).write_bytes((text + "\n").encode("utf-8", "backslashreplace"))
