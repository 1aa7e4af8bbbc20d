"""The JSON report of an alignment.

Needs no torch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from .version import __version__
from .volume import Volume


def report(alignment, fixed: Volume, moving: Volume) -> dict:
    """What a report says, as plain Python numbers, words, lists and dicts; what is not a number is None.

    Lengths are in mm, `expected_error_um` in um, `rotation_deg` in degrees. `matrix` maps fixed to moving points in
    LPS, as transform files do; `translation_mm` is the displacement of the fixed bone's centroid.

    Args:
        alignment: an `Alignment`.
        fixed, moving: the scans it aligns.
    """
    return _plain(
        {
            "accepted": bool(alignment.accepted),
            "verdict": alignment.verdict,
            "warnings": alignment.warnings,
            "confidence": alignment.confidence,
            "expected_error_um": alignment.expected_error_um,
            "dice_before": alignment.dice_before,
            "dice": alignment.dice,
            "rotation_deg": alignment.rotation_deg,
            "translation_mm": alignment.translation_mm,
            "matrix": alignment.matrix,
            "hypothesis": alignment.hypothesis,
            "working_spacing": alignment.working_spacing,
            "fixed": _scan(fixed, alignment.fixed_threshold),
            "moving": _scan(moving, alignment.moving_threshold),
            "seconds": alignment.seconds,
            "device": alignment.device,
            "network": alignment.network,
            "weights_sha256": alignment.weights_sha256,
            "version": __version__,
        }
    )


def write_report(alignment, fixed: Volume, moving: Volume, path: str | Path) -> None:
    """Writes `report` as JSON, UTF-8.

    Raises:
        OSError: it could not be written.
    """
    text = json.dumps(report(alignment, fixed, moving), indent=2, allow_nan=False, ensure_ascii=False)
    # File names need not be UTF-8; what is not is written as escapes rather than lost.
    Path(path).write_bytes((text + "\n").encode("utf-8", "backslashreplace"))


def _scan(volume: Volume, threshold: float) -> dict:
    return {
        "name": str(volume.name),
        "size": volume.size,
        "spacing": volume.spacing,
        "threshold": threshold,
        "dtype": volume.voxels.dtype.name,
    }


def _plain(value):
    """JSON's own types from numpy's, paths and nested containers. JSON knows neither NaN nor infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
