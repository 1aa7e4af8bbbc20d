"""Reads DICOM: which scans a folder holds, and where the slices or frames of one lie by their own words.

Every slice states its position and its orientation. A gantry that is tilted, or a table that drifts, gives slices that
do not lie straight behind each other; the grid is sheared then. Distances between slices that a header states beside
that are not believed, since some are negative or those of another protocol.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..core.errors import ScanError
from .dicom_grid import EXPORT_AGAIN, grid_of, in_order
from .dicom_header import NEGATIVE, PHOTOMETRIC, Header, copy_without
from .dicom_planes import Plane, doubled, places_of, read_planes
from .itk_reader import FoundImage, blank, read_file, read_series, stack_slices
from .series import Series, choose

#: Sizes that ITK reads, and that the planes state otherwise.
_SIZES = ("SpacingBetweenSlices", "PixelSpacing")

#: What tells two acquisitions in one series apart, in the order in which it is tried.
_APART = (
    ("acquisition", "AcquisitionNumber"),
    ("acquisition", "FrameAcquisitionNumber"),
    ("time point", "TemporalPositionIdentifier"),
    ("time point", "TemporalPositionIndex"),
    ("stack", "StackID"),
    ("acquired at", "AcquisitionDateTime"),
    ("acquired at", "AcquisitionTime"),
    ("contrast agent", "ContrastBolusAgent"),
    ("echo", "EchoNumbers"),
    ("kernel", "ConvolutionKernel"),
    ("kVp", "KVP"),
    ("kind", "ImageType"),
)


def read_dicom(
    path: Path, files: Iterable[Path], series: str | int | None, role: str | None, header_only: bool = False
) -> FoundImage:
    """Reads one scan of some DICOM files.

    Args:
        path: the file or folder that messages name.
        files: its DICOM files; other files among them are passed over.
        series: which scan, where there are several: its number, UID or description.
        role: "fixed" or "moving" where the scan is one of a pair.
        header_only: give `blank` voxels.

    Raises:
        OSError: a file cannot be opened.
        PackageError: pydicom is missing.
        ScanError: there is no image, a file is damaged, the scan chosen has gaps, or its slices do not lie on a regular
            grid.
    """
    listed = _list_series(path, files)
    if not listed:
        raise ScanError(f"{path}: the DICOM files hold no image", "give the folder of an image series")
    chosen = choose(path, listed, series, role)
    planes = in_order(list(chosen.members))
    if len(planes) == 1:
        rows, columns = planes[0].shape
        remedy = "give a 3D scan, or the folder of all its slices"
        raise ScanError(f"{path}: is a single 2D image ({columns} x {rows})", remedy)
    affine, lacks = grid_of(path, planes)
    if header_only:
        bits = planes[0].header.whole("BitsStored")
        return FoundImage(
            blank((len(planes), *planes[0].shape), "u1" if bits <= 8 else "f4"), affine, lacks, anatomical=True
        )
    return FoundImage(_voxels(path, planes), affine, lacks, anatomical=True)


def _list_series(path: Path, files: Iterable[Path]) -> list[Series]:
    series: dict[str, list[Plane]] = defaultdict(list)
    for plane in read_planes(path, files):
        series[plane.header.text("SeriesInstanceUID") or "series without UID"].append(plane)
    listed = []
    for uid, planes in series.items():
        groups = _apart(planes)
        for label, group in groups.items():
            rows, columns = group[0].shape
            description = ", ".join(text for text in (group[0].text("SeriesDescription"), label) if text)
            name = uid if len(groups) == 1 else f"{uid}#{list(groups).index(label) + 1}"
            number = group[0].header.number("SeriesNumber")
            key = sys.maxsize if number is None else number, uid
            size = f"{columns} x {rows} x {len(group)}"
            listed.append((key, Series(name, description, size, group)))
    return [found for _, found in sorted(listed, key=lambda item: item[0])]


# --- several acquisitions in one series ------------------------------------------------------------------------------


def _apart(planes: list[Plane]) -> dict[str, list[Plane]]:
    """Parts the planes of one series into scans, by what each is called; one without a name where there is one only."""
    views: dict[tuple, list[Plane]] = defaultdict(list)
    for plane in planes:
        turned = None if plane.place is None else tuple(np.round(plane.place.axes.ravel(), 2) + 0.0)
        views[plane.shape, turned].append(plane)
    found: dict[str, list[Plane]] = {}
    for number, group in enumerate(views.values(), 1):
        view = f"view {number}" if len(views) > 1 else ""
        for label, part in _acquisitions(group).items():
            found[", ".join(text for text in (view, label) if text)] = part
    return found


def _acquisitions(planes: list[Plane]) -> dict[str, list[Plane]]:
    if not doubled(places_of(planes)):
        return {"": planes}
    for word, keyword in _APART:
        groups: dict[str, list[Plane]] = defaultdict(list)
        for plane in planes:
            groups[plane.text(keyword)].append(plane)
        if len(groups) > 1 and all(len(group) > 1 and not doubled(places_of(group)) for group in groups.values()):
            return {f"{word} {value or 'none'}": groups[value] for value in sorted(groups, key=_by_number)}
    return {"": planes}


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return np.inf, text


# --- voxels -----------------------------------------------------------------------------------------------------------


def _voxels(path: Path, planes: list[Plane]) -> np.ndarray:
    firsts: dict[Path, Plane] = {}
    for plane in planes:
        firsts.setdefault(plane.file, plane)
    files = list(firsts)
    if len(files) == len(planes):
        kinds = {(plane.slope, *_stored(plane.header)) for plane in planes}
        if len(kinds) == 1 and not any(_misleads(plane.header) for plane in planes):
            return read_series(files, path)
        return stack_slices(files, path, lambda file: _decoded(firsts[file])[0])
    whole = {file: _decoded(plane) for file, plane in firsts.items()}
    for file, voxels in whole.items():
        if len(voxels) <= max(plane.frame for plane in planes if plane.file == file):
            raise ScanError(f"{file}: holds fewer frames than its header says", EXPORT_AGAIN)
    slopes = {plane.slope for plane in planes}
    if len(slopes) == 1 and len(files) == 1:
        voxels = whole[files[0]]
        frames = [plane.frame for plane in planes]
        count = len(voxels)
        if frames == list(range(count)):
            return voxels
        start, step = frames[0], frames[1] - frames[0]
        if frames == list(range(start, start + step * len(frames), step)):  # a part, or all in reverse: no copy
            return voxels[start::step][: len(frames)]
        return voxels[frames]
    kind = np.float32 if len(slopes) > 1 else np.result_type(*[v.dtype for v in whole.values()])
    stacked = np.empty((len(planes), *planes[0].shape), kind)
    # ITK applies the slope of the first frame to all.
    for index, plane in enumerate(planes):
        values = whole[plane.file][plane.frame]
        slope, intercept = plane.applied
        if plane.applied != plane.slope:
            values = (values.astype(np.float64) - intercept) / slope * plane.slope[0] + plane.slope[1]
        stacked[index] = values
    return stacked


def _decoded(plane: Plane) -> np.ndarray:
    """The voxels of a plane's file, decoded by GDCM within SimpleITK."""
    file, header = plane.file, plane.header
    if not _misleads(header):
        return read_file(file, file)
    with TemporaryDirectory(prefix="dnet-") as folder:
        copy = Path(folder) / "copy.dcm"
        copy_without(file, copy, _SIZES)
        voxels = read_file(copy, file)
    if not plane.negative:
        return voxels
    if voxels.dtype.kind != "u":
        return -1 - voxels
    return min(2 ** header.whole("BitsStored") - 1, np.iinfo(voxels.dtype).max) - voxels


def _misleads(header: Header) -> bool:
    """Tells whether ITK would take a file for something else, or refuse it.

    It refuses sizes that make no sense. It inverts the stored values of MONOCHROME1, and then applies the slope to
    them; of 12 bits it inverts only some.
    """
    between, pixel = _SIZES
    no_distance = header.text(between) and not header.number(between)
    no_size = header.states(pixel) and header.numbers(pixel, 2) is None
    return bool(no_distance or no_size or header.text(PHOTOMETRIC) == NEGATIVE)


def _stored(header: Header) -> tuple[int, int, int]:
    """Bits, sign and samples of the stored values."""
    return header.whole("BitsStored"), header.whole("PixelRepresentation"), header.whole("SamplesPerPixel")
