"""Transform files, and the angle between two transforms. Needs no torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from ..core.errors import ScanError, one_line


def read_transform(path) -> np.ndarray:
    """The ``(4, 4)`` matrix of a transform file, fixed to moving points, LPS mm.

    Raises:
        ScanError: it cannot be read, or is not rigid.
    """
    import SimpleITK as sitk

    from ..core.quiet import quietly
    from .rigid import from_sitk

    if not Path(path).is_file():
        raise ScanError(f"{path}: there is no such transform file; check the path")
    try:
        with quietly():
            transform = sitk.ReadTransform(os.fspath(path))
    except RuntimeError as error:
        raise ScanError(f"{path}: is no transform file ({one_line(error)}); give .tfm, .h5 or .mat") from error
    try:
        return from_sitk(transform)
    except ValueError as error:
        raise ScanError(f"{path}: {error}") from error


def write_transform(transform, path) -> None:
    """Writes a SimpleITK transform to a staged path."""
    import SimpleITK as sitk

    sitk.WriteTransform(transform, os.fspath(path))


def rotation_error_deg(first: np.ndarray, second: np.ndarray) -> float:
    """The angle between the rotations of two ``(4, 4)`` transforms, in degrees, exact also where it is tiny."""
    turn = first[:3, :3].T @ second[:3, :3]
    return math.degrees(math.atan2(np.linalg.norm(turn - turn.T) / math.sqrt(8), (np.trace(turn) - 1) / 2))
