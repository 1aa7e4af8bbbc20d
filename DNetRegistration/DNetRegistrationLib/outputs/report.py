"""The JSON report of an alignment.

Needs no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..cartilage.result import CartilageMeasurement
from ..core.jsonable import jsonable
from ..imaging.volume import Volume
from ..registration.result import Alignment
from ..version import __version__


def read_report(path: str | Path) -> Alignment:
    """The alignment of a report that `write_report` wrote.

    Raises:
        OSError: it cannot be read.
        KeyError, TypeError, ValueError: it is not such a report.
    """
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    thresholds = {f"{role}_threshold": values[role]["threshold"] for role in ("fixed", "moving")}
    return Alignment.from_dict(values | thresholds)


def report(
    alignment: Alignment, fixed: Volume, moving: Volume, cartilage: CartilageMeasurement | None = None
) -> dict[str, Any]:
    """What a report says, as plain Python numbers, words, lists and dicts; what is not a number is None.

    Lengths are in mm, `expected_error_um` in um, `rotation_deg` in degrees. `matrix` maps fixed to moving points in
    LPS, as transform files do; `translation_mm` is the displacement of the fixed bone's centroid.

    Args:
        alignment: the alignment.
        fixed, moving: the scans it aligns.
        cartilage: what was measured; it stands under ``cartilage``.
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
        }
        for role, volume in (("fixed", fixed), ("moving", moving))
    }
    measured = {} if cartilage is None else {"cartilage": cartilage.to_dict()}
    return {**values, **scans, **measured, "version": __version__}


def write_report(
    alignment: Alignment,
    fixed: Volume,
    moving: Volume,
    path: str | Path,
    cartilage: CartilageMeasurement | None = None,
) -> None:
    """Writes `report` as JSON, UTF-8.

    Raises:
        OSError: it could not be written.
    """
    text = json.dumps(report(alignment, fixed, moving, cartilage), indent=2, allow_nan=False, ensure_ascii=False)
    # File names need not be UTF-8; what is not is written as escapes rather than lost.
    Path(path).write_bytes((text + "\n").encode("utf-8", "backslashreplace"))
