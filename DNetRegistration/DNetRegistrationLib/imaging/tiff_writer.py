"""Writes scans as TIFF stacks that ImageJ and BoneJ open with their voxel size.

ImageJ's tags hold the voxel size alone. Where the scan lies, and how its axes run, stands in the text that ImageJ shows
as "Info", and is read back from there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from ..core.errors import FileError
from ..core.packages import needed
from ..core.provenance import MARKED

_KEY = "DNetRegistration grid"
#: ImageJ's own limit of a file with one directory a page; larger ones have only the first.
_LARGE = 3_900_000_000
_WHOLE_IN_FLOAT = 1 << 24


def write_tiff(
    voxels: np.ndarray, affine: np.ndarray, temporary: str | Path, target: str | Path, mark: str = ""
) -> None:
    """Writes a stack for ImageJ: 8 and 16 bits without sign as they are, all else in single precision.

    Args:
        voxels: ``(z, y, x)`` real numbers.
        affine: ``(4, 4)``, index (x, y, z) to world LPS mm.
        temporary: where to write.
        target: what errors call the file.
        mark: a line that is added to what ImageJ shows as "Info".

    Raises:
        FileError: the voxels are whole numbers that single precision does not hold.
        PackageError: tifffile is missing.
        OSError: it could not be written.
    """
    tifffile = needed("tifffile", f"{target}: TIFF")
    kind = np.dtype(voxels.dtype)
    if kind == np.bool_:
        kind = np.dtype(np.uint8)
    elif kind.kind in "iu" and kind.name not in ("uint8", "uint16"):
        kind = np.dtype(np.float32)
        if max(abs(int(voxels.min())), abs(int(voxels.max()))) > _WHOLE_IN_FLOAT:
            raise FileError(f"{target}: TIFF for ImageJ cannot hold its grey values exactly", "write .nrrd or .mha")
    elif kind.kind == "f":
        kind = np.dtype(np.float32)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    grid = {"size": list(voxels.shape[::-1]), "affine": np.asarray(affine, np.float64).tolist()}
    info = f"{_KEY}: {json.dumps(grid)}" + (f"\n{MARKED}: {mark}" if mark else "")
    tifffile.imwrite(
        temporary,
        voxels.astype(kind, copy=False),
        imagej=True,
        resolution=(1 / spacing[0], 1 / spacing[1]),
        # One directory for all pages, as ImageJ writes what is above 4 GB.
        truncate=voxels.size * kind.itemsize > _LARGE,
        metadata={"axes": "ZYX", "spacing": float(spacing[2]), "unit": "mm", "Info": info},
    )


def tiff_mark(path: Path) -> str:
    """The mark that `write_tiff` wrote into a file; empty of any other."""
    tifffile = needed("tifffile", f"{path}: TIFF")
    with tifffile.TiffFile(path) as file:
        info = str((file.imagej_metadata or {}).get("Info", ""))
    found = re.search(rf"^{MARKED}: (.+)$", info, re.MULTILINE)
    return found[1] if found else ""


def stated_grid(info: object, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray | None:
    """The ``(4, 4)`` affine, index (x, y, z) to world LPS mm, that ImageJ's "Info" holds of `write_tiff`.

    ImageJ keeps the text when it crops or scales: None where it is not of this size (x, y, z) and voxel size in mm.
    """
    found = re.search(rf"{_KEY}: (\{{.*\}})", str(info))
    try:
        grid = json.loads(found[1]) if found else {}
        affine = np.array(grid["affine"], np.float64).reshape(4, 4)
        same = tuple(grid["size"]) == size and np.allclose(np.linalg.norm(affine[:3, :3], axis=0), spacing, rtol=1e-5)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return affine if same and np.array_equal(affine[3], (0, 0, 0, 1)) else None
