"""An alignment that no scans were needed for."""

from __future__ import annotations

import numpy as np
from DNetRegistrationLib import Alignment


def made_alignment(matrix=None, **changes) -> Alignment:
    """An accepted alignment that the search found, with other attributes where they are given."""
    values = dict(
        matrix=np.eye(4) if matrix is None else np.asarray(matrix, float),
        accepted=True,
        verdict="Accepted: the bones lie on each other.",
        reason="the bones lie on each other.",
        confidence=0.97,
        expected_error_um=3.4,
        dice_before=0.11,
        dice=0.93,
        hypothesis="search",
        seconds={"preprocess": 0.25, "dnet": 0.0, "search": 0.5, "total": 0.8},
        translation_mm=np.array((0.1, -0.2, 0.3)),
        device="cpu",
        fixed_threshold=500.0,
        moving_threshold=700.0,
        working_spacing=0.08,
    )
    return Alignment(**{**values, **changes})
