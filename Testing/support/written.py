"""An alignment as the writers of outputs read it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk


@dataclass(frozen=True)
class Result:
    """What the writers read of an alignment."""

    matrix: np.ndarray
    accepted: bool = True
    confidence: float = 0.97
    expected_error_um: float = 3.4
    dice_before: float = 0.11
    dice: float = 0.93
    hypothesis: str = "search"
    seconds: dict = field(default_factory=lambda: {"search": np.float32(0.5)})
    rotation_deg: float = 40.2
    translation_mm: np.ndarray = field(default_factory=lambda: np.array((0.1, -0.2, 0.3)))
    verdict: str = "The same bone, aligned."
    warnings: list = field(default_factory=list)
    device: str = "cpu"
    network: str | None = None
    weights_sha256: str | None = None
    fixed_threshold: float = 500.0
    moving_threshold: float = 700.0
    working_spacing: float = 0.08

    @property
    def transform(self):
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(self.matrix[:3, :3].ravel().tolist())
        transform.SetTranslation(self.matrix[:3, 3].tolist())
        return transform
