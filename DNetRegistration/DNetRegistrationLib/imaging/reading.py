"""Reads one three-dimensional SimpleITK image: from a file, a folder of numbered slices or a DICOM folder."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import ScanError, Setting, one_line
from ..core.quiet import quietly
from .truncation import is_truncated

if TYPE_CHECKING:
    import SimpleITK as sitk

#: Kinds of file that hold a scan with its voxel size.
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")

#: Kinds of file that hold slices but not the distance between them.
SLICE_SUFFIXES = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")

#: DICOM slices count as evenly spaced while their steps differ by at most this share of a step: numbers are rounded.
_UNEVEN = 0.02

_ENDS_EARLY = "the file ends early (a broken copy or download)"
_COPY_AGAIN = "copy or export it again"
_CORRECT_SPACING = "correct the voxel size in the file's header"


@dataclass(frozen=True)
class FoundImage:
    """An image read from a path.

    Attributes:
        image: three-dimensional, with one real number a voxel.
        knows_spacing: whether the kind of file stores the voxel size along all three axes.
    """

    image: sitk.Image
    knows_spacing: bool


def read_image(path: str | os.PathLike, series: str | int | None = None, role: str | None = None) -> FoundImage:
    """Reads the image at `path`: a file, a folder of numbered slices, or a DICOM folder.

    Args:
        path: the file or folder.
        series: which scan of a folder that holds several: its number in the list of the error message (from 1), its
            UID (for slices: their name pattern), or its description.
        role: "fixed" or "moving" where the scan is one of a pair; errors then say whose setting is the remedy.

    Raises:
        ScanError: there is no such scan, or no single three-dimensional one with one value a voxel.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_folder(path, series, role)
        if not path.exists():
            raise ScanError(f"{path}: there is no such file or folder", "check the path")
        if path.stat().st_size == 0:
            raise ScanError(f"{path}: the file is empty", "export or copy the scan again")
        image = _read([path], path)
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({one_line(error)})", "check the file and its permissions") from error
    if image.GetDimension() == 3 and image.GetSize()[2] == 1:
        image = image[:, :, 0]
    picture = path.suffix.lower() in SLICE_SUFFIXES
    return FoundImage(scalar_3d(image, path, grey_as_colours=picture), knows_spacing=not picture)


def scalar_3d(image: sitk.Image, name: object, grey_as_colours: bool = False) -> sitk.Image:
    """Checks that an image is three-dimensional with one real number a voxel, or plainly stands for one.

    Args:
        image: a fourth axis of length one is dropped.
        name: what messages call it.
        grey_as_colours: whether three equal colours are one grey value. Readers of pictures make them out of a palette,
            as every 8-bit BMP has.

    Returns:
        SimpleITK.Image: `image` itself where nothing had to be dropped.

    Raises:
        ScanError: two or four dimensions, colours or other vectors, complex numbers.
    """
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    size = " x ".join(str(n) for n in image.GetSize())
    if image.GetDimension() == 2:
        raise ScanError(f"{name}: is a single 2D image ({size})", "give a 3D scan, or the folder of all its slices")
    if image.GetDimension() != 3:
        raise ScanError(
            f"{name}: has {image.GetDimension()} dimensions ({size})", "give one 3D scan, as of one time point"
        )
    kind = image.GetPixelIDTypeAsString()
    if "complex" in kind:
        raise ScanError(f"{name}: holds complex numbers", "give one real value a voxel, such as the magnitude")
    channels = image.GetNumberOfComponentsPerPixel()
    if "vector" in kind or channels > 1:
        grey = _grey(image) if grey_as_colours else None
        if grey is not None:
            return grey
        raise ScanError(
            f"{name}: holds {channels} values a voxel (colour or vectors)", "export it with one grey value a voxel"
        )
    if not re.search(r"(integer|float)$", kind):
        raise ScanError(f"{name}: holds {kind} voxels", "export it with one grey value a voxel")
    return image


def _grey(image: sitk.Image) -> sitk.Image | None:
    """Takes one channel of an image whose colours are all equal and whose opacity is constant; else None."""
    import SimpleITK as sitk

    values = sitk.GetArrayViewFromImage(image)
    colours = 3 if values.shape[-1] >= 3 else 1
    for channel in range(1, values.shape[-1]):
        same = values[..., 0] if channel < colours else values[:1, :1, :1, channel]
        if not (values[..., channel] == same).all():
            return None
    return sitk.VectorIndexSelectionCast(image, 0)


def _read_folder(folder: Path, series: str | int | None, role: str | None) -> FoundImage:
    files = sorted((f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")), key=_natural)
    slices = [f for f in files if f.suffix.lower() in SLICE_SUFFIXES]
    others = [f for f in files if f.suffix.lower() not in SLICE_SUFFIXES]
    # DICOM files often have no suffix, or a wrong one; the preview pictures beside them are not the scan.
    dicom = any(_looks_like_dicom(file) for file in others)
    if not dicom and others and not slices:  # old DICOM files have no mark
        import SimpleITK as sitk

        with quietly():
            dicom = bool(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))
    if dicom:
        return FoundImage(scalar_3d(_read_dicom(folder, series, role), folder), knows_spacing=True)
    if slices:
        stack = _read_stack(folder, slices, series, role)
        return FoundImage(scalar_3d(stack, folder, grey_as_colours=True), knows_spacing=False)
    single = [f.name for f in others if f.name.lower().endswith(VOLUME_SUFFIXES)]
    hint = f"give the file itself ({single[0]})" if single else "give a folder of numbered slices or of DICOM files"
    raise ScanError(f"{folder}: the folder holds no images to stack", hint)


def _looks_like_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _natural(path: Path) -> list:
    """A sort key that puts slice 10 after slice 9."""
    # Text and numbers alternate, so that text is compared with text and a number with a number.
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path.name.lower())]


def _read_stack(folder: Path, files: list[Path], series: str | int | None, role: str | None) -> sitk.Image:
    stacks: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        # scan_rec0001.bmp and scan_rec0002.bmp are one stack; scan_rec_spr.bmp, a preview, does not belong to it.
        stacks[re.sub(r"[0-9]+(?=[^0-9]*$)", "#", file.stem) + file.suffix.lower()].append(file)
    if len(stacks) > 1 and series is None:
        # Pictures that stand alone beside a stack are previews, logs or masks, not slices.
        several = {pattern: members for pattern, members in stacks.items() if len(members) > 1}
        stacks = several or {"all": files}
    listed = [_Series(pattern, "slices", f"{len(group)} files", tuple(group)) for pattern, group in stacks.items()]
    chosen = _choose(folder, listed, series, role)
    members = list(chosen.files)
    if len(members) == 1:
        remedy = f"put all slices there, or give {members[0]} if it is 3D"
        raise ScanError(f"{folder}: the folder holds one image", remedy)
    _require_even_numbers(folder, members)
    return _read(members, folder)


def _require_even_numbers(folder: Path, files: list[Path]) -> None:
    """Checks that no slice is missing from a stack, which would shift all that follow."""
    last_numbers = [re.findall(r"[0-9]+", file.stem)[-1:] for file in files]
    if not all(last_numbers):
        return
    numbers = [int(found[0]) for found in last_numbers]
    steps = [after - before for before, after in pairwise(numbers)]
    step = Counter(steps).most_common(1)[0][0]
    for file, taken in zip(files, steps, strict=False):
        if taken != step:
            raise ScanError(
                f"{folder}: the numbers of the slices jump by {taken} after {file.name}, elsewhere by {step}",
                "add the missing slices, or keep only the slices of one scan in the folder",
            )


@dataclass(frozen=True)
class _Series:
    uid: str
    description: str
    size: str
    files: tuple[Path, ...]


def _choose(folder: Path, listed: list[_Series], wanted: str | int | None, role: str | None) -> _Series:
    if wanted is None and len(listed) == 1:
        return listed[0]
    text = "" if wanted is None else str(wanted).strip()
    matches = [s for s in listed if text == s.uid] or [
        s for s in listed if text and text.lower() == s.description.strip().lower()
    ]
    if not matches and text.isdigit() and 1 <= int(text) <= len(listed):
        matches = [listed[int(text) - 1]]
    if len(matches) == 1:
        return matches[0]
    table = ", ".join(
        f"{n} is {s.uid} ({s.description or 'no description'}, {s.size})" for n, s in enumerate(listed, 1)
    )
    problem = f"holds {len(listed)} scans" if wanted is None else f"has no one scan {text!r}"
    raise ScanError(f"{folder}: the folder {problem}: {table}", "choose one by number or name", Setting("series", role))


def _read_dicom(folder: Path, series: str | int | None, role: str | None) -> sitk.Image:
    import SimpleITK as sitk

    listed = []
    with quietly():
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
            files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
            header = sitk.ImageFileReader()
            header.SetFileName(files[0])
            try:
                header.ReadImageInformation()
            except RuntimeError as error:
                raise ScanError(f"{files[0]}: cannot be read ({one_line(error)})", "export the series again") from error
            number, description = (
                header.GetMetaData(tag).strip() if header.HasMetaDataKey(tag) else ""
                for tag in ("0020|0011", "0008|103e")
            )
            width, height, frames = (*header.GetSize(), 1)[:3]
            size = f"{width} x {height} x {len(files) if len(files) > 1 else frames}"
            found = _Series(uid, description, size, tuple(Path(file) for file in files))
            listed.append((int(number) if re.fullmatch(r"[0-9]+", number) else sys.maxsize, uid, found))
    if not listed:
        raise ScanError(f"{folder}: the DICOM files hold no image", "give the folder of an image series")
    chosen = _choose(folder, [found for _, _, found in sorted(listed, key=lambda item: item[:2])], series, role)
    image = _read(list(chosen.files), folder)
    _require_even_positions(folder, chosen)
    return image


def _require_even_positions(folder: Path, series: _Series) -> None:
    """Checks for missing slices and two scans in one series: ITK reads them as if evenly spaced, and only warns."""
    import SimpleITK as sitk

    depths = []
    header = sitk.ImageFileReader()
    with quietly():
        for file in series.files:
            header.SetFileName(str(file))
            header.ReadImageInformation()
            if not (header.HasMetaDataKey("0020|0032") and header.HasMetaDataKey("0020|0037")):
                return
            position = np.array(header.GetMetaData("0020|0032").split("\\"), dtype=float)
            axes = np.array(header.GetMetaData("0020|0037").split("\\"), dtype=float)
            depths.append(position @ np.cross(axes[:3], axes[3:]))
    steps = np.diff(depths)
    if len(steps) and np.ptp(steps) > _UNEVEN * abs(np.median(steps)):
        raise ScanError(
            f"{folder}: the slices of series {series.uid} are not evenly spaced (one is missing, or two scans are "
            "mixed)",
            "export the complete series again",
        )


def _number(text: str, otherwise: float = 0.0) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise


def _read(files: list[Path], path: Path) -> sitk.Image:
    """Reads one file, or several slices as one image."""
    import SimpleITK as sitk

    for file in files:
        _require_positive_spacing(file)
        try:
            truncated = is_truncated(file)
        except ValueError as error:
            raise ScanError(f"{file}: cannot be read ({error})", "copy or export the scan again") from error
        if truncated:
            raise ScanError(f"{file}: {_ENDS_EARLY}", _COPY_AGAIN)
    try:
        with quietly() as noise:
            image = sitk.ReadImage(str(files[0])) if len(files) == 1 else sitk.ReadImage([str(file) for file in files])
    except RuntimeError as error:
        _check_slices(files, path)
        raise _explained(path, error) from error
    # The NIfTI library reports damage only in words on the terminal.
    if "** ERROR" in noise.text:
        raise ScanError(f"{path}: the file is damaged", _COPY_AGAIN)
    return image


def _explained(path: Path, error: RuntimeError) -> ScanError:
    """Words an error of ITK's readers, which raise one kind of error for every cause."""
    text = str(error)
    if "Unable to determine ImageIO reader" in text:
        remedy = "give NRRD, NIfTI, MHA, TIFF, or a folder of slices or DICOM"
        return ScanError(f"{path}: is not an image that can be read", remedy)
    if "spacing" in text and "ero" in text:
        return ScanError(f"{path}: its spacing is zero or not a number", _CORRECT_SPACING)
    if "rthonormal" in text or "determinant is 0" in text:
        return ScanError(f"{path}: the directions of its axes are singular", "correct the header")
    if "ot only" in text or "not read completely" in text or "end of file" in text.lower():
        return ScanError(f"{path}: {_ENDS_EARLY}", _COPY_AGAIN)
    if path.suffix.lower() in (".mha", ".mhd") and "No such file" in text:
        remedy = "copy the scan again, with the data file beside the header"
        return ScanError(f"{path}: its voxels are missing or cut short", remedy)
    return ScanError(f"{path}: cannot be read ({one_line(error)})", "copy or export the scan again")


def _check_slices(files: list[Path], path: Path) -> None:
    """Finds the slice that keeps a stack from being read."""
    import SimpleITK as sitk

    if len(files) == 1:
        return
    expected = None
    for file in files:
        header = sitk.ImageFileReader()
        header.SetFileName(str(file))
        try:
            with quietly():
                header.ReadImageInformation()
                size = header.GetSize()[:2]
                if expected in (None, size):
                    header.Execute()
        except RuntimeError as error:
            raise _explained(file, error) from error
        if expected is None:
            expected = size
        elif size != expected:
            raise ScanError(
                f"{path}: mixes images of {expected[0]} x {expected[1]} and {size[0]} x {size[1]} pixels (first at "
                f"{file.name})",
                "keep only the slices of one scan in the folder",
            )


def _require_positive_spacing(path: Path) -> None:
    """Checks the header's spacing: ITK silently turns a negative one of MetaImage or NRRD into a mirrored axis."""
    if not path.name.lower().endswith((".mha", ".mhd", ".nrrd", ".nhdr")):
        return
    with open(path, "rb") as file:
        header = file.read(4096)
    found = re.search(rb"^(?:ElementSpacing\s*=|spacings:)([^\r\n]*)", header, re.MULTILINE)
    values = found[1].decode("ascii", "replace").split() if found else []
    if any(_number(value, otherwise=1.0) <= 0 for value in values):
        raise ScanError(f"{path}: its spacing is zero or negative ({' '.join(values)})", _CORRECT_SPACING)
