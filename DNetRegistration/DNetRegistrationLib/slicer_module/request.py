"""What a worker shall align, and how: files in a folder that the panel and the worker share.

Needs neither Slicer nor torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
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


@dataclass(frozen=True)
class Joint:
    """What a user says of the joint, on the scan without agent. None is found by itself.

    Attributes:
        region: where the joint's surface is: a mask, on any grid.
        medial: ``(3,)`` a point on the medial side, LPS mm.
    """

    region: Volume | None = None
    medial: list[float] | None = None


ANYWHERE = Joint()


@dataclass(frozen=True)
class Request:
    """What to align, and how. All volumes lie in one world, LPS mm; masks are on grids of their own.

    Attributes:
        fixed, moving: the scans.
        options: how.
        fixed_mask, moving_mask: where to look for bone, or None.
        region, medial: of the joint, for the cartilage; see `Joint`.
    """

    fixed: Volume
    moving: Volume
    options: JobOptions = field(default_factory=JobOptions)
    fixed_mask: Volume | None = None
    moving_mask: Volume | None = None
    region: Volume | None = None
    medial: list[float] | None = None

    @property
    def volumes(self) -> dict[str, Volume]:
        """Those that are there, by their attributes."""
        found = {name: getattr(self, name) for name in _VOLUMES}
        return {name: volume for name, volume in found.items() if volume is not None}


_VOLUMES = ("fixed", "moving", "fixed_mask", "moving_mask", "region")


def write_request(folder: Path, request: Request) -> Iterator[None]:
    """Writes a request into a folder; yields between parts. At the end the request is there, all at once.

    Raises:
        OSError: it cannot be written.
    """
    scans = {}
    for role, scan in request.volumes.items():
        file = RawFile.of(folder / f"{role}.raw", scan.voxels)
        yield from file.write(scan.voxels)
        scans[role] = {"name": scan.name, "affine": scan.affine.tolist(), "voxels": file.to_dict()}
    values = {"scans": scans, "options": asdict(request.options), "medial": request.medial}
    beginning = folder / f"{_FILE}.part"
    beginning.write_text(json.dumps(values), encoding="ascii")
    os.replace(beginning, folder / _FILE)


def is_requested(folder: Path) -> bool:
    """Whether there is a request in a folder."""
    return (folder / _FILE).exists()


def read_request(folder: Path) -> Request:
    """The request that `write_request` wrote. The voxels stay in the files."""
    values = json.loads((folder / _FILE).read_text(encoding="ascii"))
    volumes = {
        role: Volume(
            RawFile.from_dict(folder, scan["voxels"]).mapped(),
            np.array(scan["affine"]),
            scan["name"],
            spacing_given=True,  # whoever wrote the request was asked about spacings that look lost
        )
        for role, scan in values["scans"].items()
    }
    return Request(**volumes, options=JobOptions(**values["options"]), medial=values["medial"])
