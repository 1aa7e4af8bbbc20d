"""Kinds of file that are not read, or not by the name they have: what each is, and the way out."""

from __future__ import annotations

import zlib
from pathlib import Path

from ..core.errors import ScanError
from .dicom_header import is_dicom

_EXPORT = "export DICOM or a stack of TIFF with the scanner's software"
_GREY = "export the reconstructed scan as DICOM"
_UNPACK = "unpack it, and give what it holds"
_WRITE = "write the voxels as NRRD or NIfTI, with their size"

#: By the ending of the name: what it is, and what to do.
_FOREIGN = {
    ".vff": ("a scan of GE's eXplore or Bruker's in-vivo scanners (VFF)", _EXPORT),
    ".vgi": ("the description of a volume of Volume Graphics (VGI)", "export DICOM or a stack of TIFF with VGStudio"),
    ".vgl": ("a project of Volume Graphics (VGL)", "export DICOM or a stack of TIFF with VGStudio"),
    ".vol": ("a volume without a header, as of VGStudio or phoenix (VOL)", _EXPORT),
    ".txm": ("a scan of Zeiss's Xradia or Versa scanners (TXM)", _EXPORT),
    ".txrm": ("the projections of Zeiss's Xradia or Versa scanners (TXRM)", _EXPORT),
    ".vox": ("a scan of PerkinElmer's or Rigaku's Quantum scanners (VOX)", _EXPORT),
    ".rsq": ("the projections of a Scanco scanner (RSQ)", _GREY),
    ".rad": ("the radiograph of a Scanco scanner (RAD)", _GREY),
    ".scv": ("the scout view of a Scanco scanner (SCV)", _GREY),
    ".gobj": ("the contours of a Scanco scanner (GOBJ)", _GREY),
    ".zarr": ("a Zarr array", _WRITE),
    ".h5": ("HDF5 of another layout than ITK's", _WRITE),
    ".hdf5": ("HDF5 of another layout than ITK's", _WRITE),
    ".nxs": ("HDF5 in the layout of NeXus", _WRITE),
    ".mat": ("variables of MATLAB", _WRITE),
    ".npy": ("a NumPy array, without a voxel size", _WRITE),
    ".raw": ("voxels without a header", "write a header beside it, as .nhdr or .mhd, and give that"),
    ".zip": ("a zip archive", _UNPACK),
    ".7z": ("a 7z archive", _UNPACK),
    ".tar": ("a tar archive", _UNPACK),
    ".tgz": ("a tar archive", _UNPACK),
    ".gz": ("a packed file", _UNPACK),
}
#: How files of a kind start, the kind, and the endings that their names have.
_STARTS = (
    (b"NRRD0", "NRRD", (".nrrd", ".nhdr")),
    (b"II*\0", "TIFF", (".tif", ".tiff")),
    (b"MM\0*", "TIFF", (".tif", ".tiff")),
    (b"\x89PNG", "PNG", (".png",)),
    (b"ObjectType", "MetaImage", (".mha", ".mhd")),
    (b"NDims", "MetaImage", (".mha", ".mhd")),
    (b"CTDATA-HEADER_V1", "ISQ", (".isq",)),
)
_NIFTI_MARKS = (b"n+1\0", b"ni1\0")


def foreign_kind(path: Path) -> tuple[str, str] | None:
    """What a file is by the ending of its name, and the way out; None where it is none of these kinds."""
    return _FOREIGN.get(path.suffix.lower())


def misnamed(path: Path) -> ScanError | None:
    """The error that the name of a file ends as another kind's does; None where it does not, or the kind is not known.

    Raises:
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        start = file.read(1024)
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return ScanError(f"{path}: is a web page, not a scan", "download the file itself")
    found: tuple[str, tuple[str, ...]] | None = next(
        ((kind, endings) for mark, kind, endings in _STARTS if start.startswith(mark)), None
    )
    if found is None and is_dicom(path):
        found = "DICOM", (".dcm",)
    if found is None and start[344:348] in _NIFTI_MARKS:
        found = "NIfTI", (".nii", ".hdr", ".img")
    if found is None and start.startswith(b"\x1f\x8b") and _unpacked(start)[344:348] in _NIFTI_MARKS:
        found = "packed NIfTI", (".nii.gz",)
    if found is None or path.name.lower().partition(";")[0].endswith(found[1]):
        return None
    kind, (ending, *_) = found
    return ScanError(f"{path}: holds {kind}, and its name ends otherwise", f"rename it, so that it ends in {ending}")


def _unpacked(start: bytes) -> bytes:
    """What the start of a gzip file holds, as far as it can be unpacked."""
    try:
        return zlib.decompressobj(wbits=31).decompress(start, 348)
    except zlib.error:
        return b""


def unknown_kind(path: Path) -> ScanError:
    """The error that a file or folder is of no kind that is read. It says what the kind is, where that is known."""
    known = foreign_kind(path)
    if known is None:
        remedy = "give NRRD, NIfTI, MHA, TIFF, or a folder of slices or DICOM"
        return ScanError(f"{path}: is not an image that can be read", remedy)
    what, remedy = known
    return ScanError(f"{path}: is {what}, which is not read", remedy)
