"""The result of an alignment. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ..core.jsonable import jsonable
from ..geometry.transforms import rotation_error_deg, to_sitk


class AlignmentCancelled(Exception):
    """The caller's `cancelled` returned true; nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where the moving scan's bone lies, and how sure that is.

    Numbers that are not known, as in a report of another program version, are NaN.

    Attributes:
        accepted: whether verification passed.
        verdict: a sentence that says whether to trust it and, if not, what to check.
        warnings: sentences on what else a user should know.
        doubts: what speaks against the answer, or limits what it holds for, as words that do not change: of a refused
            answer the likeliest reason first, of an accepted one what its warnings tell of.
        confidence: 0 to 1, calibrated probability that the target registration error is below one working voxel.
        expected_error_um: estimate of the target registration error.
        dice_before, dice: overlap of the cortical bone as the scans lie in the world, and aligned.
        translation_mm: ``(3,)`` displacement of the fixed bone's centroid, LPS.
        matrix: ``(4, 4)`` float64, fixed to moving points, LPS mm, rigid.
        hypothesis: "dnet", "search" or "initial": where the answer came from, accepted or not.
        working_spacing: in mm.
        fixed_threshold, moving_threshold: bone thresholds, in each scan's units.
        seconds: time by stage: preprocess, dnet, search, refine, verify; and total.
        device: where it ran.
        network, weights_sha256: of the network that proposed, or None where none ran.
        mirrored: the scans fit as mirror images of each other, and only so. A report does not hold it.
    """

    accepted: bool
    verdict: str
    warnings: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    confidence: float
    expected_error_um: float
    dice_before: float
    dice: float
    translation_mm: np.ndarray
    matrix: np.ndarray
    hypothesis: str
    working_spacing: float
    fixed_threshold: float = math.nan
    moving_threshold: float = math.nan
    seconds: dict[str, float] = field(default_factory=dict)
    device: str
    network: str | None = None
    weights_sha256: str | None = None
    mirrored: bool = False

    @property
    def transform(self) -> Any:
        """``SimpleITK.AffineTransform`` of the same map, fixed to moving, as a resampler wants it."""
        return to_sitk(self.matrix)

    @property
    def rotation_deg(self) -> float:
        """Angle of the rotation, 0 to 180 degrees."""
        return rotation_error_deg(np.eye(4), self.matrix)

    def to_dict(self) -> dict[str, Any]:
        """All attributes and `rotation_deg` as JSON's own types; numbers that are not known are None."""
        names = [one.name for one in fields(self)]
        names.insert(names.index("translation_mm"), "rotation_deg")  # where a reader of the report looks for it
        return jsonable({name: getattr(self, name) for name in names})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Alignment:
        """The alignment of which `to_dict` made these values; other keys are passed over.

        Raises:
            KeyError, TypeError, ValueError: values are missing or of the wrong kind.
        """
        chosen = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        for one in fields(cls):
            # Annotations are strings here. JSON has no NaN, so `to_dict` made it None.
            if one.type == "float" and one.name in chosen:
                chosen[one.name] = math.nan if chosen[one.name] is None else float(chosen[one.name])
        chosen["matrix"] = np.asarray(values["matrix"], np.float64).reshape(4, 4)
        chosen["translation_mm"] = np.asarray(values["translation_mm"], np.float64).reshape(3)
        return cls(**chosen)
