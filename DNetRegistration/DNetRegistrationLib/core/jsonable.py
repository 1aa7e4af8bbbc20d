"""Values as JSON's own types."""

from __future__ import annotations

import math
from dataclasses import fields
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


def attributes_of(cls: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values`, as `jsonable` made them, that are fields of a dataclass; None is NaN again in a float.

    Args:
        cls: the dataclass; its module imports ``annotations`` from ``__future__``, so that types are words.
        values: by the names of fields; other keys are passed over.

    Raises:
        TypeError, ValueError: what should be a number is none.
    """
    chosen = {one.name: values[one.name] for one in fields(cls) if one.name in values}
    for one in fields(cls):
        if one.type == "float" and one.name in chosen:
            chosen[one.name] = math.nan if chosen[one.name] is None else float(chosen[one.name])
    return chosen
