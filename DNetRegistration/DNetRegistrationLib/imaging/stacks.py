"""Reads a folder of numbered slices: TIFF, PNG, BMP or JPEG, one file each."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

from ..core.errors import ScanError
from .itk_reader import FoundImage, image_affine, read_itk, scalar_3d, shared_voxels
from .series import Series, choose

#: Kinds of file that hold slices but not the distance between them.
SLICE_SUFFIXES = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")


def natural(path: Path) -> list:
    """A sort key that puts slice 10 after slice 9."""
    # Text and numbers alternate, so that text is compared with text and a number with a number.
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path.name.lower())]


def read_stack(folder: Path, files: list[Path], series: str | int | None, role: str | None) -> FoundImage:
    """Reads one stack of the slices of a folder.

    Args:
        folder: the folder that messages name.
        files: its slices, in their natural order.
        series: which stack, where there are several: its number or its name pattern.
        role: "fixed" or "moving" where the scan is one of a pair.

    Raises:
        ScanError: there is one slice only, one is missing, or they do not go together.
    """
    stacks: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        # scan_rec0001.bmp and scan_rec0002.bmp are one stack; scan_rec_spr.bmp, a preview, does not belong to it.
        stacks[re.sub(r"[0-9]+(?=[^0-9]*$)", "#", file.stem) + file.suffix.lower()].append(file)
    if len(stacks) > 1 and series is None:
        # Pictures that stand alone beside a stack are previews, logs or masks, not slices.
        several = {pattern: members for pattern, members in stacks.items() if len(members) > 1}
        stacks = several or {"all": files}
    listed = [Series(pattern, "slices", f"{len(group)} files", group) for pattern, group in stacks.items()]
    chosen = choose(folder, listed, series, role)
    members = list(chosen.members)
    if len(members) == 1:
        remedy = f"put all slices there, or give {members[0]} if it is 3D"
        raise ScanError(f"{folder}: the folder holds one image", remedy)
    _require_even_numbers(folder, members)
    image = scalar_3d(read_itk(members, folder), folder, grey_as_colours=True)
    x, y, _ = image.GetSpacing()
    hint = "" if x == y == 1 else f" (in the slices: {x:.6g} x {y:.6g} mm, but not between them)"
    return FoundImage(
        shared_voxels(image), image_affine(image), f"its kind of file does not store the voxel size{hint}"
    )


def _require_even_numbers(folder: Path, files: list[Path]) -> None:
    """Checks that no slice is missing from a stack, which would shift all that follow."""
    last_numbers = [re.findall(r"[0-9]+", file.stem)[-1:] for file in files]
    if not all(last_numbers):
        return
    numbers = [int(found[0]) for found in last_numbers]
    steps = [after - before for before, after in pairwise(numbers)]
    step = Counter(steps).most_common(1)[0][0]
    for file, taken in zip(files, steps, strict=False):
        if taken != step:
            raise ScanError(
                f"{folder}: the numbers of the slices jump by {taken} after {file.name}, elsewhere by {step}",
                "add the missing slices, or keep only the slices of one scan in the folder",
            )
