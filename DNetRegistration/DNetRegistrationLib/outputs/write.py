"""Writes the outputs of an alignment, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cartilage.result import CartilageMeasurement
from ..core.errors import OptionError, Setting
from ..core.files import Staging, atomic_write, writing
from ..core.progress import part
from ..core.provenance import MARKED, NOT_ACCEPTED
from ..core.threads import thread_limit
from ..core.words import ascii_line
from ..geometry.transform_files import write_transform_at
from ..imaging.equal_blur import interpolation_blur
from ..imaging.itk_reader import reader_of
from ..imaging.masks import mask_on
from ..imaging.nrrd import TYPES, write_nrrd
from ..imaging.resample import cast_like, resample
from ..imaging.tiff_writer import tiff_mark, write_tiff
from ..imaging.volume import Volume, as_scan, write_image
from ..registration.result import Alignment, alignments
from .before_after import before_and_after, write_slices
from .cartilage_table import write_table
from .overlay import write_overlay
from .paths import OutputPaths, check_grid, check_outputs
from .report import write_report
from .segmentation import segment, write_segmentation
from .subtraction import match_grey_values, subtract
from .thickness_picture import write_picture
from .thickness_surface import write_surface
from .thickness_volume import thickness_volume

if TYPE_CHECKING:
    import SimpleITK as sitk

# ITK's name of the description in a NIfTI file, and how many letters it takes; of more it writes nothing at all.
_NOTES, _MOST_NOTES = "ITK_FileNotes", 79
_MARKED_BY_ITK = ("NrrdImageIO", "MetaImageIO", "NiftiImageIO")


def write_outputs(
    alignment: Alignment | Sequence[Alignment],
    fixed: Volume | sitk.Image,
    moving: Volume | sitk.Image,
    paths: OutputPaths | None = None,
    *,
    contrast: str = "moving",
    masks: tuple[Any, Any] = (None, None),
    measurement: CartilageMeasurement | None = None,
    threads: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    **outputs: str | os.PathLike | None,
) -> None:
    """Writes outputs of an alignment. When one of them fails, none appears and none is replaced.

    Args:
        alignment: the alignment, accepted or not; or one of each bone. The names of their files are numbered then, as
            in ``report_1.json``.
        fixed, moving: the scans it aligns, as `align` takes them.
        paths: where the outputs go; or None, and
        outputs: the fields of `OutputPaths` as keywords. transform: ``.tfm``, ``.h5`` or ``.mat``; report: ``.json``;
            overlay: ``.png``, ``.pdf`` or ``.svg``; before and after: ``.webp`` or ``.png``; segmentation:
            ``.seg.nrrd``; resampled and subtraction: scan files; cartilage: ``.csv`` or ``.json``; thickness: ``.vtp``
            or ``.ply``; thickness_volume: a scan file; cartilage_picture: ``.png``, ``.pdf`` or ``.svg``.
        contrast: which scan has the contrast agent, "fixed" or "moving".
        masks: of the fixed and the moving scan, as `align` takes them: where bone is looked for. Or None. Those that
            the alignment holds go before them.
        measurement: what `measure_cartilage` found for this alignment. The report and the segmentation hold it too.
        threads: of the CPU, at most; None for as many as processors.
        progress: called with a fraction and a message.

    Raises:
        FileError: an output cannot be written; the error names the file.
        ScanError: something is wrong with a scan or its mask.
        OptionError: the alignment is another thing; an output of cartilage is wanted, and it was not measured; or see
            `check_outputs`.
        PackageError: see `check_outputs`.

    Example:
        >>> write_outputs(alignment, fixed, moving, overlay="overlay.png", report="report.json")  # doctest: +SKIP
    """
    paths = OutputPaths(**outputs) if paths is None else paths
    tell = progress or (lambda fraction, message: None)
    alone = isinstance(alignment, Alignment)
    every = [(one, paths if alone else paths.numbered(n)) for n, one in enumerate(alignments(alignment), 1)]
    if measurement is None and (missing := paths.of_cartilage):
        problem = f"the {missing[0].replace('_', ' ')} cannot be written, cartilage was not measured"
        raise OptionError(problem, "measure it first", Setting(missing[0]))
    if measurement is not None and len(every) > 1:
        raise OptionError("cartilage was measured on one bone of several", "align the largest alone", Setting("bone"))
    for _, one_paths in every:
        check_outputs(one_paths, contrast=contrast)
    fixed, moving = as_scan(fixed, "fixed scan"), as_scan(moving, "moving scan")
    for _, one_paths in every:
        check_grid(one_paths, fixed)
    first, second = (
        None if mask is None else mask_on(mask, scan) for mask, scan in zip(masks, (fixed, moving), strict=True)
    )
    with thread_limit(threads), atomic_write() as staging:
        for number, (one, one_paths) in enumerate(every):
            report_part = part(tell, number / len(every), (number + 1) / len(every))
            _stage(staging, one, fixed, moving, one_paths.wanted(), contrast, (first, second), measurement, report_part)
    tell(1.0, "outputs written")


def _stage(
    staging: Staging,
    alignment: Alignment,
    fixed: Volume,
    moving: Volume,
    wanted: dict[str, Path],
    contrast: str,
    masks: tuple[np.ndarray | None, np.ndarray | None],
    measurement: CartilageMeasurement | None,
    tell: Callable[[float, str], None],
) -> None:
    """Writes the outputs of one alignment where they are staged."""
    matrix = np.asarray(alignment.matrix, np.float64)
    staged = {name: staging.path(path) for name, path in wanted.items()}
    if "transform" in wanted:
        write_transform_at(alignment, staged["transform"], wanted["transform"])
    flickered = {"before", "after"} & wanted.keys()
    if flickered or {"overlay", "segmentation", "subtraction"} & wanted.keys():
        tell(0.0, "outlining bone")
        bones = segment(fixed, moving, alignment, masks)
    if flickered:
        pictures = before_and_after(fixed, moving, bones, matrix, alignment.mark)
        for name, slices in zip(("before", "after"), pictures, strict=True):
            if name in wanted:
                with writing(wanted[name]):
                    write_slices(staged[name], slices)
    layer = subtraction = None
    if measurement is not None and {"segmentation", "thickness_volume"} & wanted.keys():
        # The map lies in the world of the scan without agent.
        placed = np.eye(4) if contrast == "moving" else np.linalg.inv(matrix)
        layer = thickness_volume(measurement.map, fixed, placed)
    if "segmentation" in wanted:
        tell(0.3, "writing the segmentation")
        with writing(wanted["segmentation"]):
            mask = None if layer is None else layer.voxels > 0
            write_segmentation(staged["segmentation"], fixed, bones, matrix, mask, alignment.mark)
    if measurement is not None:
        tell(0.35, "writing the cartilage")
        _stage_cartilage(staged, wanted, measurement, (fixed, moving), matrix, contrast)
    if layer is not None and "thickness_volume" in wanted:
        write_scan(layer, staged["thickness_volume"], wanted["thickness_volume"], alignment.mark)
    if {"resampled", "subtraction"} & wanted.keys():
        tell(0.4, "resampling the moving scan")
        carried = resample(moving, fixed, matrix)
    if "resampled" in wanted:
        tell(0.8, "writing the resampled scan")
        write_scan(cast_like(carried, moving), staged["resampled"], wanted["resampled"], alignment.mark)
    fit = None
    if "subtraction" in wanted:
        tell(0.9, "writing the subtraction")
        fit = match_grey_values(*bones, matrix, contrast)
        subtraction = subtract(carried, fixed, fit, contrast, interpolation_blur(moving, fixed, matrix))
        write_scan(subtraction, staged["subtraction"], wanted["subtraction"], alignment.mark)
    if "overlay" in wanted:
        tell(0.95, "drawing the picture")
        with writing(wanted["overlay"]):
            write_overlay(staged["overlay"], alignment, fixed, moving, bones, subtraction)
    if "report" in wanted:
        with writing(wanted["report"]):
            write_report(alignment, fixed, moving, staged["report"], measurement, contrast, fit)


def _stage_cartilage(
    staged: dict[str, Path],
    wanted: dict[str, Path],
    measurement: CartilageMeasurement,
    scans: tuple[Volume, Volume],
    matrix: np.ndarray,
    contrast: str,
) -> None:
    """Writes table, surface and picture where they are staged."""
    if "cartilage" in wanted:
        with writing(wanted["cartilage"]):
            write_table(measurement, staged["cartilage"])
    if "thickness" in wanted:
        with writing(wanted["thickness"]):
            write_surface(measurement, staged["thickness"])
    if "cartilage_picture" in wanted:
        agent, placed = (scans[1], matrix) if contrast == "moving" else (scans[0], np.linalg.inv(matrix))
        with writing(wanted["cartilage_picture"]):
            write_picture(staged["cartilage_picture"], measurement, agent, placed)


def write_scan(volume: Volume, temporary: Path, target: Path, mark: str = "") -> None:
    """Writes a scan to a temporary path, of the kind that its ending says; errors name `target`.

    A `mark`, as `Alignment.mark` gives it, stands in the header: as `MARKED` in NRRD and MetaImage, as the description
    in NIfTI, in what ImageJ shows as "Info" in TIFF.

    Raises:
        FileError: it cannot be written.
    """
    if temporary.name.lower().endswith((".tif", ".tiff")):
        with writing(target):
            write_tiff(volume.voxels, volume.affine, temporary, target, mark)
        return
    # SimpleITK converts what NRRD has no name for, truth values and half precision.
    if temporary.name.lower().endswith(".nrrd") and volume.voxels.dtype.name in TYPES:
        with writing(target):
            keys = {MARKED: mark} if mark else None
            write_nrrd(temporary, volume.voxels, volume.voxels.shape, volume.voxels.dtype, volume.affine, keys)
    else:
        image = volume.to_sitk()
        if mark:
            image.SetMetaData(MARKED, mark)
            image.SetMetaData(_NOTES, mark[:_MOST_NOTES])
        write_image(image, temporary, target)


def scan_mark(path: Path) -> str:
    """What `write_scan` wrote into a file of an alignment that is not accepted; empty of any other file or folder."""
    import SimpleITK as sitk

    name = path.name.lower()
    if not path.is_file():
        return ""
    if name.endswith((".tif", ".tiff")):
        return tiff_mark(path)
    # By its name: ITK knows no endings in capital letters.
    kind = "NiftiImageIO" if name.endswith((".nii", ".nii.gz")) else reader_of(path)
    if kind not in _MARKED_BY_ITK:
        return ""
    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(path))
    reader.SetImageIO(kind)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return ""
    key = MARKED if reader.HasMetaDataKey(MARKED) else _NOTES
    told = reader.GetMetaData(key) if reader.HasMetaDataKey(key) else ""
    # Of another program's header it may be anything.
    return ascii_line(told) if told.startswith(NOT_ACCEPTED) else ""
