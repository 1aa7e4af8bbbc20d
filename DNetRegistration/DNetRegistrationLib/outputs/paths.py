"""The files that an alignment can be written to: their names, what they may end in, and whether they can be written.

Needs neither NumPy nor torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import FileError, OptionError, Setting
from ..core.files import atomic_write, is_unicode
from ..core.packages import needed
from ..core.pictures import require_matplotlib, require_pillow
from ..core.words import choice

if TYPE_CHECKING:
    from ..imaging.volume import Volume

#: Kinds of files for scans.
SCAN_ENDINGS = (".nrrd", ".nii", ".nii.gz", ".mha", ".tif", ".tiff")


@dataclass(frozen=True)
class OutputPaths:
    """Where the outputs of an alignment go; None for an output that is not wanted.

    Attributes:
        transform: ``.tfm``, ``.h5`` or ``.mat``: fixed to moving points, LPS mm, as ITK wants it for resampling.
        report: ``.json``; see `report.report`.
        overlay: ``.png``, ``.pdf`` or ``.svg``; see `overlay.draw_overlay`.
        before, after: ``.webp`` or ``.png``: slices of the moving scan as it lies and aligned; see `before_after`.
        resampled: a scan file: the moving scan on the fixed scan's grid, in its own dtype; see `imaging.resample`.
        segmentation: ``.seg.nrrd``: both cortices on the fixed scan's grid; see `segmentation.write_segmentation`.
        subtraction: a scan file: contrast minus plain on the fixed scan's grid; see `subtraction.subtract`.
        cartilage: ``.csv`` or ``.json``: a row for each compartment; see `cartilage_table.write_table`.
        thickness: ``.vtp`` or ``.ply``: the bone's surface with scalars; see `thickness_surface.write_surface`.
        thickness_volume: a scan file: thickness in um on the fixed scan's grid; see `thickness_volume`.
        cartilage_picture: ``.png``, ``.pdf`` or ``.svg``; see `thickness_picture.draw_thickness`.
    """

    transform: str | os.PathLike | None = field(default=None, metadata={"endings": (".tfm", ".h5", ".mat")})
    report: str | os.PathLike | None = field(default=None, metadata={"endings": (".json",)})
    overlay: str | os.PathLike | None = field(default=None, metadata={"endings": (".png", ".pdf", ".svg")})
    before: str | os.PathLike | None = field(default=None, metadata={"endings": (".webp", ".png")})
    after: str | os.PathLike | None = field(default=None, metadata={"endings": (".webp", ".png")})
    resampled: str | os.PathLike | None = field(default=None, metadata={"endings": SCAN_ENDINGS})
    segmentation: str | os.PathLike | None = field(default=None, metadata={"endings": (".seg.nrrd",)})
    subtraction: str | os.PathLike | None = field(default=None, metadata={"endings": SCAN_ENDINGS})
    cartilage: str | os.PathLike | None = field(default=None, metadata={"endings": (".csv", ".json")})
    thickness: str | os.PathLike | None = field(default=None, metadata={"endings": (".vtp", ".ply")})
    thickness_volume: str | os.PathLike | None = field(default=None, metadata={"endings": SCAN_ENDINGS})
    cartilage_picture: str | os.PathLike | None = field(default=None, metadata={"endings": (".png", ".pdf", ".svg")})

    def numbered(self, number: int) -> OutputPaths:
        """The paths of one bone of several: its number stands before the ending, as in ``report_2.json``."""
        return OutputPaths(**{name: _numbered(path, number, ENDINGS[name]) for name, path in self.wanted().items()})

    def wanted(self) -> dict[str, Path]:
        """The paths of the outputs that are wanted, by name."""
        return {name: Path(getattr(self, name)) for name in ENDINGS if getattr(self, name) is not None}

    @property
    def of_cartilage(self) -> list[str]:
        """The names of the wanted outputs that cartilage must be measured for."""
        return [name for name in CARTILAGE if getattr(self, name) is not None]

    def without_cartilage(self) -> OutputPaths:
        """The other outputs."""
        return replace(self, **dict.fromkeys(CARTILAGE, None))


#: What the name of each output may end in, by the output's name.
ENDINGS: dict[str, tuple[str, ...]] = {one.name: one.metadata["endings"] for one in fields(OutputPaths)}
# What an output is called in messages, where its name is none.
_CALLED = {
    "before": "picture before",
    "after": "picture after",
    "resampled": "resampled scan",
    "cartilage": "table of cartilage",
    "thickness": "map of thickness",
}
#: The outputs that cartilage must be measured for.
CARTILAGE = ("cartilage", "thickness", "thickness_volume", "cartilage_picture")


def check_outputs(paths: OutputPaths, *, contrast: str = "moving", inputs: Iterable[str | os.PathLike] = ()) -> None:
    """Checks before the long work that the outputs can be written; leaves nothing behind.

    Args:
        paths: where the outputs go.
        contrast: which scan has the contrast agent, "fixed" or "moving".
        inputs: the files the scans came from, which no output may replace.

    Raises:
        FileError: an ending is not known, two outputs go to one file, an output would replace a scan, or a folder is
            missing or not writable.
        OptionError: `contrast` is something else.
        PackageError: a picture is wanted, and matplotlib or Pillow is missing.
    """
    wanted = paths.wanted()
    if contrast not in ("fixed", "moving"):
        remedy = "give fixed or moving, the scan with contrast agent"
        raise OptionError(f"contrast {contrast!r} is unknown", remedy, Setting("contrast"))
    taken = {_identity(path): "one of the scans" for path in inputs}
    for name, path in wanted.items():
        ending, called = path.name.lower(), f"the {_CALLED.get(name, name.replace('_', ' '))}"
        if not ending.endswith(ENDINGS[name]) or (name != "segmentation" and ending.endswith(".seg.nrrd")):
            problem = f"{path}: {called} cannot be written to this kind of file"
            raise FileError(problem, f"use {choice(ENDINGS[name])}", Setting(name))
        if not is_unicode(path):
            raise FileError(f"{path}: its name is not UTF-8", "give it another name", Setting(name))
        if (other := taken.setdefault(_identity(path), called)) != called:
            raise FileError(f"{path}: {called} would replace {other}", "give it a name of its own", Setting(name))
    for name in ("overlay", "cartilage_picture"):
        if name in wanted:
            require_matplotlib(f"{wanted[name]}: a picture")
    for name in ("before", "after"):
        if name in wanted:
            require_pillow(f"{wanted[name]}: a picture")
    for path in wanted.values():
        if path.suffix.lower() in (".tif", ".tiff"):
            needed("tifffile", f"{path}: TIFF")
    with atomic_write() as staging:
        for path in wanted.values():
            staging.path(path)
        staging.discard()


def _numbered(path: Path, number: int, endings: tuple[str, ...]) -> Path:
    # The longest ending goes first: .nii.gz ends in what is none.
    known = [one for one in endings if path.name.lower().endswith(one)]
    length = len(max(known, key=len, default=path.suffix))
    end = len(path.name) - length
    return path.with_name(f"{path.name[:end]}_{number}{path.name[end:]}")


def check_grid(paths: OutputPaths, fixed: Volume) -> None:
    """Checks that the files for scans can hold the grid of the fixed scan.

    Raises:
        FileError: the grid is sheared, as that of a tilted gantry, and a kind of file holds no shear.
    """
    from ..imaging.volume import require_holdable

    for name, path in paths.wanted().items():
        if ENDINGS[name] == SCAN_ENDINGS:
            require_holdable(fixed, path)


def _identity(path: str | os.PathLike) -> str:
    return os.path.normcase(os.path.realpath(path))
