"""Text headers of NRRD and MetaImage, of which ITK passes over the unit, and over a sign that mirrors the scan."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..core.errors import ScanError
from .units import millimetres

CORRECT_SPACING = "correct the voxel size in the file's header"
_LONGEST = 1 << 20


def text_header(path: Path) -> dict[str, str]:
    """The fields of the header of an NRRD or MetaImage file by their names in lower case; {} for other files.

    Raises:
        OSError: the file cannot be opened.
    """
    nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    if not nrrd and not path.name.lower().endswith((".mha", ".mhd")):
        return {}
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        while file.tell() < _LONGEST and (line := file.readline(_LONGEST)):
            text = line.decode("utf-8", "replace").strip()
            if nrrd and not text:
                break
            found = re.match(r"([^:=#]+):(?!=)(.*)" if nrrd else r"([^:=]+)[:=](.*)", text)
            if found:
                fields[found[1].strip().lower()] = found[2].strip()
            if not nrrd and "elementdatafile" in fields:
                break
    return fields


def require_positive_spacing(path: Path) -> None:
    """Checks the header's spacing: ITK turns a negative one of NRRD or MetaImage into a mirrored axis without a word.

    Raises:
        ScanError: a spacing is zero, negative or not a number.
    """
    fields = text_header(path)
    for name in ("spacings", "elementspacing", "elementsize"):
        values = fields.get(name, "").split()
        # NRRD has "nan" where an axis is no length, as that of colours.
        bad = [v for v in values if not _number(v) > 0 and not (name == "spacings" and v.lower() == "nan")]
        if bad:
            raise ScanError(f"{path}: its spacing is zero or negative ({' '.join(values)})", CORRECT_SPACING)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0  # the reader says what is wrong with it


def in_millimetres(path: Path, affine: np.ndarray) -> tuple[np.ndarray, str]:
    """The affine of an NRRD or MetaImage file in mm, where its header says that it is in another unit.

    Returns:
        tuple: the affine, and what is not known of the voxel size, "" where all is.
    """
    fields = text_header(path)
    world = fields.get("space units", fields.get("distanceunits", ""))
    # A NRRD without a space has a unit for each axis.
    stated = world or ("" if "space" in fields or "space dimension" in fields else fields.get("units", ""))
    words = re.findall(r'"([^"]*)"', stated) or stated.split()
    words = [word for word in words if word.strip() not in ("", "?", "???", "none")][:3]
    if not words:
        return affine, ""
    scales = [millimetres(word) for word in words]
    known = [scale for scale in scales if scale is not None]
    if len(known) < len(scales):
        return affine, f"the unit of its voxel size is not known ({words[scales.index(None)]})"
    each = np.array(known if len(known) == 3 else known[:1] * 3)
    scaled = affine.copy()
    if world:
        scaled[:3] *= each[:, None]
    else:
        scaled[:3, :3] *= each
        scaled[:3, 3] *= each
    return scaled, ""
