"""All files an alignment leaves behind, together or not at all."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..bone.cortex import cortical_bone
from ..core.errors import ScanError
from ..core.files import atomic_write, writing
from ..imaging.nrrd import TYPES, write_nrrd
from ..imaging.resample import cast_like, resample
from ..imaging.volume import Volume, write_image
from .overlay import write_overlay
from .report import write_report
from .segmentation import write_segmentation
from .subtraction import match_grey_values, subtract

_SCAN = (".nrrd", ".nii", ".nii.gz", ".mha")
#: What the name of each output may end in.
ENDINGS = {
    "transform": (".tfm", ".h5", ".mat"),
    "report": (".json",),
    "overlay": (".png", ".pdf", ".svg"),
    "resampled": _SCAN,
    "segmentation": (".seg.nrrd",),
    "subtraction": _SCAN,
}
#: Cortices are drawn and saved at this share of the working spacing (0.03 mm for a mouse), or in the scan's own voxels.
FINE = 0.375


def check_outputs(
    *,
    transform=None,
    report=None,
    overlay=None,
    resampled=None,
    segmentation=None,
    subtraction=None,
    contrast: str = "moving",
    inputs: Iterable = (),
) -> None:
    """Finds out before the long work whether the outputs can be written; leaves nothing behind.

    Args:
        transform, report, overlay, resampled, segmentation, subtraction: paths, or None for what is not wanted.
        contrast: which scan has the contrast agent.
        inputs: the files the scans came from, which no output may replace.

    Raises:
        ScanError: an ending that is not known, two outputs in one file, an output that would replace a scan, a folder
            that is missing or not writable, or a picture without matplotlib.
    """
    wanted = {
        name: Path(path)
        for name, path in (
            ("transform", transform),
            ("report", report),
            ("overlay", overlay),
            ("resampled", resampled),
            ("segmentation", segmentation),
            ("subtraction", subtraction),
        )
        if path is not None
    }
    if contrast not in ("fixed", "moving"):
        raise ScanError(f"contrast {contrast!r} is unknown; give fixed or moving, the scan with contrast agent")
    taken = {_identity(path): "one of the scans" for path in inputs}
    for name, path in wanted.items():
        ending = path.name.lower()
        if not ending.endswith(ENDINGS[name]) or (name != "segmentation" and ending.endswith(".seg.nrrd")):
            raise ScanError(
                f"{path}: the {name} cannot be written to this kind of file; use {' or '.join(ENDINGS[name])}"
            )
        if (other := taken.setdefault(_identity(path), f"the {name}")) != f"the {name}":
            raise ScanError(f"{path}: the {name} would replace {other}; give it a name of its own")
    if "overlay" in wanted and importlib.util.find_spec("matplotlib") is None:
        raise ScanError(
            f'{wanted["overlay"]}: a picture needs matplotlib; install it: pip install "dnet-registration[pictures]"'
        )
    with atomic_write() as staging:
        for path in wanted.values():
            staging.path(path)
        staging.discard()


def _identity(path) -> str:
    return os.path.normcase(os.path.realpath(path))


def write_outputs(
    alignment,
    fixed: Volume,
    moving: Volume,
    *,
    transform=None,
    report=None,
    overlay=None,
    resampled=None,
    segmentation=None,
    subtraction=None,
    contrast: str = "moving",
    masks: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    progress: Callable[[float, str], None] | None = None,
) -> None:
    """Writes what is wanted of an alignment. When one output fails, none appears and none is replaced.

    Args:
        alignment: an `Alignment`, accepted or not.
        fixed, moving: the scans it aligns.
        transform: ``.tfm``, ``.h5`` or ``.mat``: fixed to moving points, LPS mm, as ITK wants it for resampling.
        report: ``.json``; see `report.report`.
        overlay: ``.png``, ``.pdf`` or ``.svg``; see `overlay.draw_overlay`.
        resampled: a scan file: the moving scan on the fixed scan's grid, in its own dtype; see `imaging.resample`.
        segmentation: ``.seg.nrrd``: both cortices on the fixed scan's grid; see `segmentation.write_segmentation`.
        subtraction: a scan file: contrast minus plain on the fixed scan's grid; see `subtraction.subtract`.
        contrast: which scan has the contrast agent, "fixed" or "moving".
        masks: boolean arrays of the scans' shapes that limit where bone is looked for, or None.
        progress: called with a fraction and a message.

    Raises:
        ScanError: something cannot be written; it names the file.
    """
    check_outputs(
        transform=transform,
        report=report,
        overlay=overlay,
        resampled=resampled,
        segmentation=segmentation,
        subtraction=subtraction,
        contrast=contrast,
    )
    say = progress or (lambda fraction, message: None)
    matrix = np.asarray(alignment.matrix, np.float64)
    with atomic_write() as staging:
        if transform is not None:
            _write_transform(alignment.transform, staging.path(transform), transform)
        if report is not None:
            with writing(report):
                write_report(alignment, fixed, moving, staging.path(report))
        if overlay is not None or segmentation is not None or subtraction is not None:
            say(0.0, "outlining bone")
            fine = FINE * alignment.working_spacing
            bones = tuple(
                cortical_bone(volume, threshold, alignment.working_spacing, mask, resolution=fine)
                for volume, threshold, mask in zip(
                    (fixed, moving), (alignment.fixed_threshold, alignment.moving_threshold), masks, strict=True
                )
            )
        if overlay is not None:
            say(0.2, "drawing the picture")
            with writing(overlay):
                write_overlay(staging.path(overlay), alignment, fixed, moving, bones)
        if segmentation is not None:
            say(0.3, "writing the segmentation")
            with writing(segmentation):
                write_segmentation(staging.path(segmentation), fixed, bones, matrix)
        if resampled is not None or subtraction is not None:
            say(0.4, "resampling the moving scan")
            carried = resample(moving, fixed, matrix)
        if resampled is not None:
            say(0.8, "writing the resampled scan")
            _write_scan(cast_like(carried, moving), staging.path(resampled), resampled)
        if subtraction is not None:
            say(0.9, "writing the subtraction")
            fit = match_grey_values(*bones, matrix, contrast)
            _write_scan(subtract(carried, fixed, fit, contrast), staging.path(subtraction), subtraction)
    say(1.0, "outputs written")


def _write_transform(transform, temporary: Path, target) -> None:
    import SimpleITK as sitk

    with writing(target):
        sitk.WriteTransform(transform, os.fspath(temporary))


def _write_scan(volume: Volume, temporary: Path, target) -> None:
    # SimpleITK converts what NRRD has no name for, truth values and half precision.
    if temporary.name.lower().endswith(".nrrd") and volume.voxels.dtype.name in TYPES:
        with writing(target):
            write_nrrd(temporary, volume.voxels, volume.voxels.shape, volume.voxels.dtype, volume.affine)
    else:
        write_image(volume.to_sitk(), temporary, target)
