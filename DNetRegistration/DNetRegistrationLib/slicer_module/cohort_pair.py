"""A pair of a cohort, from the folder of its results into the scene."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import slicer

from ..cohort.result import PairResult
from ..cohort.store import recorded_pair
from ..core.errors import FileError
from ..imaging.volume import Volume
from ..registration.result import Alignment
from .scene import BOND, FLIP, apply_alignment, place


def load_pair(results: str | os.PathLike, pair: PairResult) -> tuple:
    """Loads both scans of a pair that was aligned, and lays the moving one on the fixed one.

    The verdict holds in the scene where all files that had a part in it are as they were. Else nothing is bound to it,
    and the panel says so.

    Args:
        results: the folder of results.
        pair: a row of its table.

    Returns:
        The fixed and the moving volume node, and the transform node.

    Raises:
        FileError, ScanError: a scan, the report or the record cannot be read; the scene is as it was.
    """
    alignment = _alignment(Path(results), pair)
    recorded = recorded_pair(results, pair)
    scans = [getattr(recorded.pair, role).read(role) for role in ("fixed", "moving")]
    # Afterwards: what is bound is what was read.
    known = recorded.holds()
    fixed, moving = (_add(scan, f"{pair.name} {role}") for scan, role in zip(scans, ("fixed", "moving"), strict=True))
    transform = apply_alignment(place(fixed, "fixed"), place(moving, "moving"), alignment)
    if not known:
        transform.RemoveAttribute(BOND)
    return fixed, moving, transform


def _alignment(results: Path, pair: PairResult) -> Alignment:
    remedy = "run the cohort again"
    if "report" not in pair.outputs:
        raise FileError(f"{pair.name}: has no report", remedy)
    path = results / pair.outputs["report"]
    try:
        return Alignment.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: is no report of an alignment", remedy) from error


def _add(scan: Volume, name: str):
    # VTK's images have no integers of 64 bits here.
    voxels = scan.voxels.astype(np.float64) if scan.voxels.dtype in (np.int64, np.uint64) else scan.voxels
    name = slicer.mrmlScene.GenerateUniqueName(name)
    return slicer.util.addVolumeFromArray(np.ascontiguousarray(voxels), ijkToRAS=FLIP @ scan.affine, name=name)
