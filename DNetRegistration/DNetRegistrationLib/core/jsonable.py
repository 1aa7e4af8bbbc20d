"""Values as JSON's own types."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def jsonable(value: Any) -> Any:
    """Converts numpy values, paths and nested containers to plain dicts, lists, numbers, words and None.

    NaN and infinity, which JSON lacks, become None.

    Example:
        >>> jsonable({"size": np.array((3, 4)), "dice": float("nan")})
        {'size': [3, 4], 'dice': None}
    """
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
