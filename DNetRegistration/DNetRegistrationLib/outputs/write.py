"""Writes the outputs of an alignment, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import Staging, atomic_write, writing
from ..core.progress import part
from ..geometry.transform_files import write_transform
from ..imaging.masks import mask_on
from ..imaging.nrrd import TYPES, write_nrrd
from ..imaging.resample import cast_like, resample
from ..imaging.volume import Volume, write_image
from ..registration.result import Alignment
from .overlay import write_overlay
from .paths import OutputPaths, check_grid, check_outputs
from .report import write_report
from .segmentation import segment, write_segmentation
from .subtraction import match_grey_values, subtract


def write_outputs(
    alignment: Alignment | Sequence[Alignment],
    fixed: Volume,
    moving: Volume,
    paths: OutputPaths | None = None,
    *,
    contrast: str = "moving",
    masks: tuple[Any, Any] = (None, None),
    progress: Callable[[float, str], None] | None = None,
    **outputs: str | os.PathLike | None,
) -> None:
    """Writes outputs of an alignment. When one of them fails, none appears and none is replaced.

    Args:
        alignment: the alignment, accepted or not; or one of each bone. The names of their files are numbered then, as
            in ``report_1.json``.
        fixed, moving: the scans it aligns.
        paths: where the outputs go; or None, and
        outputs: the fields of `OutputPaths` as keywords. transform: ``.tfm``, ``.h5`` or ``.mat``; report: ``.json``;
            overlay: ``.png``, ``.pdf`` or ``.svg``; segmentation: ``.seg.nrrd``; resampled and subtraction: scan files.
        contrast: which scan has the contrast agent, "fixed" or "moving".
        masks: of the fixed and the moving scan, as `align` takes them: where bone is looked for. Or None.
        progress: called with a fraction and a message.

    Raises:
        FileError: an output cannot be written; the error names the file.
        ScanError: a mask cannot be used.
        OptionError, PackageError: see `check_outputs`.

    Example:
        >>> write_outputs(alignment, fixed, moving, overlay="overlay.png", report="report.json")  # doctest: +SKIP
    """
    paths = OutputPaths(**outputs) if paths is None else paths
    tell = progress or (lambda fraction, message: None)
    if isinstance(alignment, Alignment):
        every = [(alignment, paths)]
    else:
        every = [(one, paths.numbered(number)) for number, one in enumerate(alignment, 1)]
    for _, one_paths in every:
        check_outputs(one_paths, contrast=contrast)
        check_grid(one_paths, fixed)
    first, second = (
        None if mask is None else mask_on(mask, scan) for mask, scan in zip(masks, (fixed, moving), strict=True)
    )
    with atomic_write() as staging:
        for number, (one, one_paths) in enumerate(every):
            report_part = part(tell, number / len(every), (number + 1) / len(every))
            _stage(staging, one, fixed, moving, one_paths.wanted(), contrast, (first, second), report_part)
    tell(1.0, "outputs written")


def _stage(
    staging: Staging,
    alignment: Alignment,
    fixed: Volume,
    moving: Volume,
    wanted: dict[str, Path],
    contrast: str,
    masks: tuple[np.ndarray | None, np.ndarray | None],
    tell: Callable[[float, str], None],
) -> None:
    """Writes the outputs of one alignment where they are staged."""
    matrix = np.asarray(alignment.matrix, np.float64)
    staged = {name: staging.path(path) for name, path in wanted.items()}
    if "transform" in wanted:
        with writing(wanted["transform"]):
            write_transform(matrix, staged["transform"])
    if "report" in wanted:
        with writing(wanted["report"]):
            write_report(alignment, fixed, moving, staged["report"])
    if {"overlay", "segmentation", "subtraction"} & wanted.keys():
        tell(0.0, "outlining bone")
        bones = segment(fixed, moving, alignment, masks)
    if "overlay" in wanted:
        tell(0.2, "drawing the picture")
        with writing(wanted["overlay"]):
            write_overlay(staged["overlay"], alignment, fixed, moving, bones)
    if "segmentation" in wanted:
        tell(0.3, "writing the segmentation")
        with writing(wanted["segmentation"]):
            write_segmentation(staged["segmentation"], fixed, bones, matrix)
    if {"resampled", "subtraction"} & wanted.keys():
        tell(0.4, "resampling the moving scan")
        carried = resample(moving, fixed, matrix)
    if "resampled" in wanted:
        tell(0.8, "writing the resampled scan")
        _write_scan(cast_like(carried, moving), staged["resampled"], wanted["resampled"])
    if "subtraction" in wanted:
        tell(0.9, "writing the subtraction")
        fit = match_grey_values(*bones, matrix, contrast)
        _write_scan(subtract(carried, fixed, fit, contrast), staged["subtraction"], wanted["subtraction"])


def _write_scan(volume: Volume, temporary: Path, target: Path) -> None:
    # SimpleITK converts what NRRD has no name for, truth values and half precision.
    if temporary.name.lower().endswith(".nrrd") and volume.voxels.dtype.name in TYPES:
        with writing(target):
            write_nrrd(temporary, volume.voxels, volume.voxels.shape, volume.voxels.dtype, volume.affine)
    else:
        write_image(volume.to_sitk(), temporary, target)
