"""Reads one three-dimensional image: from a file, a folder of numbered slices or a folder of DICOM files."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.errors import DNetError, ScanError, Setting, one_line
from .dicom import read_dicom
from .dicom_header import is_dicom
from .foreign import misnamed, unknown_kind
from .itk_reader import (
    FoundImage,
    image_affine,
    read_itk,
    read_itk_header,
    reader_of,
    require_unicode,
    scalar_3d,
    shared_voxels,
)
from .nifti import is_nifti, read_nifti
from .scanco import is_scanco, read_scanco
from .stacks import SLICE_SUFFIXES, natural, read_stack
from .text_headers import in_millimetres, states_anatomy
from .tiff import read_tiff

#: Kinds of file that hold a scan with its voxel size.
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".isq", ".aim")

#: A disc from a clinic holds this file, and its images some folders further down.
_DISC_INDEX = "DICOMDIR"
_LEVELS = 4


def read_image(
    path: str | os.PathLike, series: str | int | None = None, role: str | None = None, header_only: bool = False
) -> FoundImage:
    """Reads the image at `path`: a file, a folder of numbered slices, or a DICOM folder.

    Args:
        path: the file or folder.
        series: which scan of a path that holds several: its number in the list of the error message (from 1), its UID
            (for slices: their name pattern), or its description.
        role: "fixed" or "moving" where the scan is one of a pair; errors then say whose setting is the remedy.
        header_only: leave the voxels where they are, and give zeros of their shape that take no memory. What headers
            and lengths of files tell to be wrong is an error all the same.

    Raises:
        ScanError: there is no such scan, or no single three-dimensional one with one value a voxel.
    """
    path = Path(path)
    require_unicode(path)
    try:
        if path.is_dir():
            return _read_folder(path, series, role, header_only)
        if not path.exists():
            raise ScanError(f"{path}: there is no such file or folder", "check the path")
        if not path.is_file():
            raise ScanError(f"{path}: is neither a file nor a folder", "check the path")
        if path.stat().st_size == 0:
            raise ScanError(f"{path}: the file is empty", "export or copy the scan again")
        if path.suffix.lower() not in SLICE_SUFFIXES and is_dicom(path):
            return read_dicom(path, [path], series, role, header_only)
        try:
            return _read_file(path, series, role, header_only)
        except DNetError:
            if (error := misnamed(path)) is not None:
                raise error from None
            raise
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({one_line(error)})", "check the file and its permissions") from error


def _read_file(path: Path, series: str | int | None, role: str | None, header_only: bool) -> FoundImage:
    if path.suffix.lower() in (".tif", ".tiff"):
        return read_tiff(path, series, role, header_only)
    wanted = "1" if series is None else str(series).strip()
    if not (wanted.isdecimal() and int(wanted) == 1):
        problem = f"{path}: the file holds one scan, and {wanted!r} of it was asked for"
        raise ScanError(problem, "leave the choice out", Setting("series", role))
    if is_nifti(path):
        return read_nifti(path, header_only)
    if is_scanco(path):
        return read_scanco(path, header_only)
    reader = reader_of(path)
    if reader is None:
        raise unknown_kind(path)
    picture = path.suffix.lower() in SLICE_SUFFIXES
    if header_only and not picture:
        found = read_itk_header(path, reader)
        return FoundImage(found.voxels, *in_millimetres(path, found.affine), states_anatomy(path))
    image = read_itk([path], path, reader)
    if image.GetDimension() == 3 and image.GetSize()[2] == 1:
        image = image[:, :, 0]
    image = scalar_3d(image, path, grey_as_colours=picture)
    affine, lacks = in_millimetres(path, image_affine(image))
    return FoundImage(shared_voxels(image), affine, lacks, states_anatomy(path))


def _read_folder(folder: Path, series: str | int | None, role: str | None, header_only: bool) -> FoundImage:
    if folder.suffix.lower() == ".zarr":
        raise unknown_kind(folder)
    files = sorted((f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")), key=natural)
    slices = [f for f in files if f.suffix.lower() in SLICE_SUFFIXES]
    others = [f for f in files if f.suffix.lower() not in SLICE_SUFFIXES]
    # DICOM files often have no suffix, or a wrong one; the preview pictures beside them are not the scan.
    dicom = [f for f in others if f.name.upper() != _DISC_INDEX and is_dicom(f)]
    if not dicom and not slices:
        below = (f for level in range(1, _LEVELS + 1) for f in folder.glob("*/" * level + "*"))
        dicom = sorted(f for f in below if f.is_file() and is_dicom(f))
    if dicom:
        return read_dicom(folder, dicom, series, role, header_only)
    if slices:
        return read_stack(folder, slices, series, role, header_only)
    single = [f.name for f in others if f.name.lower().endswith(VOLUME_SUFFIXES)]
    hint = "give a folder of numbered slices or of DICOM files"
    if single:
        hint = f"give the file itself ({single[0]})" if len(single) == 1 else f"give one of its {len(single)} files"
    raise ScanError(f"{folder}: the folder holds no images to stack", hint)
