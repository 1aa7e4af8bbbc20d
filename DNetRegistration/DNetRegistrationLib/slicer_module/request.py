"""What a worker shall align, and how: files in a folder that the panel and the worker share.

Needs neither Slicer nor torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..imaging.nrrd import write_nrrd
from ..imaging.volume import Volume
from ..outputs.paths import OutputPaths

SEGMENTATION, RESAMPLED, SUBTRACTION = "cortices.seg.nrrd", "resampled.nrrd", "subtraction.nrrd"

_FILE = "request.json"


@dataclass(frozen=True)
class JobOptions:
    """How to align, and what to make of it. Names and meanings are those of `align` and `write_outputs`."""

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


def write_request(folder: Path, fixed: Volume, moving: Volume, options: JobOptions) -> None:
    """Writes scans and options into a folder.

    Raises:
        OSError: they cannot be written.
    """
    scans = {}
    for role, scan in (("fixed", fixed), ("moving", moving)):
        write_nrrd(folder / f"{role}.nrrd", scan.voxels, scan.voxels.shape, scan.voxels.dtype, scan.affine)
        scans[role] = {"name": scan.name, "affine": scan.affine.tolist()}
    (folder / _FILE).write_text(json.dumps({"scans": scans, "options": asdict(options)}), encoding="ascii")


def read_request(folder: Path) -> tuple[Volume, Volume, JobOptions]:
    """The scans, under their own names, and the options that `write_request` wrote."""
    import SimpleITK as sitk

    request = json.loads((folder / _FILE).read_text(encoding="ascii"))
    fixed, moving = (
        Volume(
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{role}.nrrd"))),
            np.array(scan["affine"]),
            scan["name"],
            spacing_given=True,  # whoever wrote the request was asked about spacings that look lost
        )
        for role, scan in request["scans"].items()
    )
    return fixed, moving, JobOptions(**request["options"])


def output_paths(folder: Path, options: JobOptions) -> OutputPaths:
    """The files that the worker leaves in the folder."""
    return OutputPaths(
        segmentation=folder / SEGMENTATION,
        resampled=folder / RESAMPLED if options.resampled else None,
        subtraction=folder / SUBTRACTION if options.subtraction else None,
    )
