"""What a worker shall align, and how: files in a folder that the panel and the worker share.

Needs neither Slicer nor torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..imaging.volume import Volume
from .raw_files import RawFile

#: What can be wanted of the cartilage: the table, the map on the bone's surface, and the voxels of the layer.
CARTILAGE_KINDS = ("cartilage", "thickness", "layer")

_FILE = "request.json"


@dataclass(frozen=True)
class JobOptions:
    """How to align, and what to make of it. Names and meanings are those of `align` and `Contents.computed`."""

    fixed_threshold: float | None = None
    moving_threshold: float | None = None
    working_spacing: float | None = None
    device: str = "auto"
    weights: str | None = None
    hypotheses: str = "auto"
    refine: str = "native"
    contrast: str = "moving"
    resampled: bool = False
    subtraction: bool = False
    bone: str | None = None
    initial: list[list[float]] | None = None
    cartilage: bool = False
    thickness: bool = False
    layer: bool = False

    @property
    def wanted(self) -> set[str]:
        """The outputs that are wanted beside the pose."""
        return {
            "segmentation",
            *(name for name in ("resampled", "subtraction", *CARTILAGE_KINDS) if getattr(self, name)),
        }


Masks = tuple["Volume | None", "Volume | None"]


def write_request(
    folder: Path, fixed: Volume, moving: Volume, options: JobOptions, masks: Masks = (None, None)
) -> Iterator[None]:
    """Writes scans and options into a folder; yields between parts. At the end the request is there, all at once.

    Masks, of the fixed and of the moving scan, lie on grids of their own.

    Raises:
        OSError: they cannot be written.
    """
    scans = {}
    volumes = {"fixed": fixed, "moving": moving, "fixed mask": masks[0], "moving mask": masks[1]}
    for role, scan in volumes.items():
        if scan is None:
            continue
        file = RawFile.of(folder / f"{role}.raw", scan.voxels)
        yield from file.write(scan.voxels)
        scans[role] = {"name": scan.name, "affine": scan.affine.tolist(), "voxels": file.to_dict()}
    beginning = folder / f"{_FILE}.part"
    beginning.write_text(json.dumps({"scans": scans, "options": asdict(options)}), encoding="ascii")
    os.replace(beginning, folder / _FILE)


def is_requested(folder: Path) -> bool:
    """Whether there is a request in a folder."""
    return (folder / _FILE).exists()


def read_request(folder: Path) -> tuple[Volume, Volume, JobOptions, Masks]:
    """What `write_request` wrote: the scans, under their own names, options and masks. The voxels stay in the files."""
    request = json.loads((folder / _FILE).read_text(encoding="ascii"))
    volumes = {
        role: Volume(
            RawFile.from_dict(folder, scan["voxels"]).mapped(),
            np.array(scan["affine"]),
            scan["name"],
            spacing_given=True,  # whoever wrote the request was asked about spacings that look lost
        )
        for role, scan in request["scans"].items()
    }
    masks = volumes.get("fixed mask"), volumes.get("moving mask")
    return volumes["fixed"], volumes["moving"], JobOptions(**request["options"]), masks
