"""A scan as its owner names it, on a command line or in a table: a path, and what its file does not say."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..core.errors import OptionError, Setting
from ..core.words import choice

if TYPE_CHECKING:
    import numpy as np

    from ..imaging.volume import Volume


@dataclass(frozen=True)
class ScanFile:
    """A scan, and what its file does not say.

    Attributes:
        path: the file, or the folder of slices.
        spacing: voxel size in mm, one number or three (x, y, z), in place of the file's own.
        series: which scan of a folder or file that holds several.
        threshold: grey value above which it is bone; None to find it.
        mask: file of an image or a segmentation; bone is looked for only where it is above 0.
        segment: the segment or the label of the mask that counts; None for all.
        flip: index axis, x, y or z, along which the voxels lie in reverse order.
    """

    path: str
    spacing: tuple[float, ...] | None = None
    series: str | None = None
    threshold: float | None = None
    mask: str | None = None
    segment: str | None = None
    flip: str | None = None

    def read(self, role: str | None) -> Volume:
        """The scan, as the "fixed" or the "moving" one of a pair, or by itself."""
        from ..imaging.volume import read_volume

        return read_volume(self.path, self.spacing, self.series, name=self.path, role=role, flip=self.flip)

    def read_header(self, role: str) -> Volume:
        """What its headers say, and what they show to be wrong; see `imaging.volume.read_header`."""
        from ..imaging.volume import read_header

        return read_header(self.path, self.spacing, self.series, name=self.path, role=role)

    def read_mask(self, role: str | None, scan: Volume) -> np.ndarray | None:
        """The mask as a boolean array of the shape of the scan or its header; None where there is none.

        Raises:
            ScanError: it cannot be read, or holds nothing of the scan.
            OptionError: a segment is chosen of no mask.
        """
        from ..imaging.masks import mask_on, read_mask

        self._check_segment(role, scan)
        if self.mask is None:
            return None
        return mask_on(read_mask(self.mask, scan, self.segment, role), scan, role, self.mask)

    def check_mask(self, role: str | None, header: Volume) -> None:
        """Checks the mask by its header and that of the scan; see `imaging.masks.check_mask`.

        Raises:
            ScanError, OptionError: as `read_mask` does, but for what voxels tell.
        """
        from ..imaging.masks import check_mask

        self._check_segment(role, header)
        if self.mask is not None:
            check_mask(self.mask, header, self.segment, role)

    def _check_segment(self, role: str | None, scan: Volume) -> None:
        if self.mask is None and self.segment is not None:
            problem = f"{scan.name}: the segment {self.segment} is given, but no mask"
            raise OptionError(problem, "give the file of the mask too", Setting("mask", role))

    def with_spacing(self, spacing: float | Sequence[float] | None) -> ScanFile:
        """The scan with a voxel size in mm, one number or three, where none is said of it."""
        if spacing is None or self.spacing is not None:
            return self
        values = (spacing,) if isinstance(spacing, int | float) else spacing
        return replace(self, spacing=tuple(float(value) for value in values))

    @property
    def about(self) -> dict[str, Any]:
        """What is said of it beside its path."""
        return {name: value for name in ABOUT_SCAN if (value := getattr(self, name)) is not None}

    @property
    def image(self) -> tuple[str, str | None]:
        """Tells scans apart, by whatever path they are given: the real path, and which scan of it."""
        # The first scan of a file that holds one is the file.
        first = self.series == "1" and not os.path.isdir(self.path)
        return os.path.realpath(self.path), None if first else self.series

    @property
    def identity(self) -> str:
        """Tells apart what is aligned: scans, and the bones of one scan that a mask or its segments part."""
        path, *others = *self.image, None if self.mask is None else os.path.realpath(self.mask), self.segment
        return path if others == [None] * 3 else json.dumps([path, *others])

    @property
    def paths(self) -> list[str]:
        """The paths that it is read from."""
        return [path for path in (self.path, self.mask) if path is not None]


#: Folders of DICOM lie no further down.
_LEVELS = 5

#: What is said of a scan beside its path.
ABOUT_SCAN = tuple(one.name for one in fields(ScanFile) if one.name != "path")
#: Of these, numbers.
NUMBERS = ("spacing", "threshold")


def one_of(*words: str) -> Callable[[str], str]:
    """Reads a cell that holds one of these words; raises ValueError otherwise."""

    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"not {choice(words)}")
        return text

    return convert


def _voxel_sizes(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(0 < value < 1e30 for value in values):
        raise ValueError("not one or three voxel sizes in mm, as 0.01 or 0.01 0.01 0.02")
    return values


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("not a number, as 1200.5")
    return value


_CELLS: dict[str, Callable[[str], Any]] = {
    "spacing": _voxel_sizes,
    "threshold": _number,
    "flip": one_of("x", "y", "z"),
}


def scan_of_cells(
    role: str, cells: Mapping[str, str], folder: Path, called: Mapping[str, str] = MappingProxyType({})
) -> tuple[ScanFile | None, list[str]]:
    """A scan of a row of a table, and what is wrong with its cells, in words that follow "the row ...".

    Args:
        role: what the row's columns begin with, "fixed" or "moving".
        cells: of the row, by column: the path, ``fixed``, and what is said of the scan, ``fixed_spacing`` and others.
        folder: of the table, from which paths count.
        called: what the table calls its columns, where it is something else.

    Returns:
        The scan, None where its path is empty; without what is wrong.
    """
    about: dict[str, Any] = {}
    wrong = []
    for name in ABOUT_SCAN:
        column = f"{role}_{name}"
        text = cells.get(column, "")
        try:
            if text:
                about[name] = str(folder / text) if name == "mask" else _CELLS.get(name, str)(text)
        except ValueError as error:
            wrong.append(f"has {text!r} as {called.get(column, column)}, {error}")
    path = cells.get(role)
    return (ScanFile(str(folder / path), **about) if path else None), wrong


def members(path: str | Path) -> list[Path]:
    """The file itself and those of its voxels; or the folder and what lies in it."""
    path = Path(path)
    return [path, *(path.iterdir() if path.is_dir() else beside(path))]


def beside(path: Path) -> list[Path]:
    """The files of voxels that lie beside a header, where they are there."""
    from ..imaging.text_headers import data_files

    if not path.is_file():
        return []
    other = {".hdr": ".img", ".img": ".hdr"}.get(path.suffix.lower())
    files = [*data_files(path)] if other is None else [path.with_suffix(other)]
    return [file for file in files if file.is_file()]


def files_of(path: str | Path) -> Iterator[tuple[str, Path]]:
    """The files that a scan is read from, in an order and with names that do not depend on where it lies."""
    path = Path(path)
    if not path.is_dir():
        yield "", path
        yield from ((f"data {number}", file) for number, file in enumerate(beside(path)))
        return
    for folder, folders, names in os.walk(path):
        inside = os.path.relpath(folder, path)
        folders[:] = sorted(one for one in folders if not one.startswith(".") and inside.count(os.sep) < _LEVELS)
        for name in sorted(names):
            if not name.startswith("."):
                yield f"{inside}/{name}", Path(folder) / name
