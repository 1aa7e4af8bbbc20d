"""The JSON report of an alignment.

Needs no torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from ..imaging.volume import Volume
from ..version import __version__


@dataclass(frozen=True)
class ReportedAlignment:
    """An alignment as its report tells it: attributes as in `Alignment`, without torch.

    What is not a number in the report (JSON knows no NaN) is None here.
    """

    matrix: np.ndarray
    accepted: bool
    verdict: str
    confidence: float | None
    expected_error_um: float | None
    dice_before: float | None
    dice: float | None
    rotation_deg: float
    translation_mm: np.ndarray
    hypothesis: str
    working_spacing: float
    device: str
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    network: str | None = None
    weights_sha256: str | None = None
    fixed_threshold: float | None = None
    moving_threshold: float | None = None

    @classmethod
    def of(cls, alignment) -> ReportedAlignment:
        """The same, of an `Alignment` (or of one like it)."""
        return cls.from_dict({one.name: _plain(getattr(alignment, one.name)) for one in fields(cls)})

    @classmethod
    def from_dict(cls, values: dict) -> ReportedAlignment:
        """From plain values: of a report, or of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: values are missing or of the wrong kind.
        """
        known = {one.name for one in fields(cls)}
        chosen = {name: value for name, value in values.items() if name in known}
        for role in ("fixed", "moving"):
            if role in values:
                chosen[f"{role}_threshold"] = values[role]["threshold"]
        chosen["matrix"] = np.asarray(values["matrix"], np.float64).reshape(4, 4)
        chosen["translation_mm"] = np.asarray(values["translation_mm"], np.float64).reshape(3)
        return cls(**chosen)

    def to_dict(self) -> dict:
        """As JSON's own types."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def found_by(alignment) -> str:
    """Where an alignment came from, in words."""
    words = {"dnet": f"network ({alignment.network})", "initial": "given start"}
    return words.get(alignment.hypothesis, alignment.hypothesis)


def read_report(path: str | Path) -> ReportedAlignment:
    """The alignment of a report that `write_report` wrote.

    Raises:
        OSError: it cannot be read.
        KeyError, TypeError, ValueError: it is not such a report.
    """
    return ReportedAlignment.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


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
