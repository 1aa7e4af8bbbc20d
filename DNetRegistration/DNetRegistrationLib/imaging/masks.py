"""Masks: images that say where to look in a scan, from any grid put onto the scan's own.

Needs no torch.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ScanError, Setting
from .resample import resample_mask
from .volume import Volume, as_volume, check_affine, check_image, is_image, reversed_along, spacing_doubt

if TYPE_CHECKING:
    import SimpleITK as sitk

#: Kinds of file whose voxels may be vectors: in Slicer's segmentations each layer is a component.
_LAYERED = (".nrrd", ".nhdr")

# Grids that differ by less than this share of a voxel are one.
_SAME_GRID = 1e-3
# Voxel sizes that differ by less than this share are one: resolutions in TIFF are rounded.
_SAME_SIZE = 0.01


def read_mask(
    path: str | os.PathLike, scan: Volume | sitk.Image, segment: str | int | None = None, role: str | None = None
) -> np.ndarray:
    """Reads a mask of a scan: of any kind that `read_volume` reads, or a segmentation of Slicer (``.seg.nrrd``).

    It may lie on another grid, or show a part of the scan only. Where the scan was read with another voxel size than
    its file states, or flipped, the mask lies on the scan as its file states it. A mask whose file states no voxel size
    must have as many voxels as the scan. So it is taken voxel for voxel where its file states no place and the scan's
    voxel size.

    Args:
        path: the file or folder.
        scan: the scan that it belongs to, as `read_volume` gave it, or as a SimpleITK image.
        segment: the name or the identifier of a segment, or a label that no other segment has. None takes all voxels
            above 0.
        role: "fixed" or "moving" where the scan is one of a pair; errors then say whose setting is the remedy.

    Returns:
        ``(z, y, x)`` bool, for the voxels of `scan`. It may be empty; `mask_on` checks that.

    Raises:
        ScanError: it cannot be read, has no such segment, lies outside the scan, or nothing says where it lies.
    """
    from .reading import read_image

    path, scan = Path(path), as_volume(scan, "scan")
    if path.name.lower().endswith(_LAYERED) and path.is_file():
        labels, affine, lacks = _read_layers(path, segment, role)
        placed = True
    else:
        found = read_image(path, None, role)
        labels, affine, lacks = _labelled(found.voxels, segment, path, role), found.affine, bool(found.lacks)
        placed = found.placed
    mask = _placed(Volume(labels, affine, str(path)), lacks, placed, scan, role)
    marked = _resampled(mask, scan, _stated(scan), f"{mask.name}: the mask", Setting("mask", role))
    return reversed_along(marked, scan.flipped_axes)


def check_mask(
    path: str | os.PathLike, scan: Volume, segment: str | int | None = None, role: str | None = None
) -> None:
    """Checks a mask of a scan by headers: what `read_mask` refuses, but for what its voxels tell.

    Args:
        path, segment, role: as `read_mask` takes them.
        scan: the scan, or its header.

    Raises:
        ScanError: see `read_mask`.
    """
    from .reading import read_image

    path = Path(path)
    if path.name.lower().endswith(_LAYERED) and path.is_file():
        (mask, lacks), placed = _layers_header(path, segment, role), True
    else:
        _label(segment, path, role)
        found = read_image(path, None, role, header_only=True)
        mask, lacks, placed = Volume(found.voxels, found.affine, str(path)), bool(found.lacks), found.placed
    mask = _placed(mask, lacks, placed, scan, role)
    check_image(mask)
    if _apart(mask, replace(scan, affine=_stated(scan))):
        raise _elsewhere(scan, f"{mask.name}: the mask", Setting("mask", role))


def _apart(mask: Volume, scan: Volume) -> bool:
    """Whether the boxes of two grids lie apart along an axis of one of them; nearly so for grids that are turned."""
    for one, other in ((mask, scan), (scan, mask)):
        corners = np.stack(np.meshgrid(*((-0.5, n - 0.5) for n in other.size), indexing="ij"), -1).reshape(8, 3)
        index = one.to_index(other.to_world(corners))
        if ((index.max(0) < -0.5) | (index.min(0) > one.size - 0.5)).any():
            return True
    return False


def _stated(scan: Volume) -> np.ndarray:
    """The affine of a scan as its file states it, where masks lie that were drawn on it."""
    return scan.affine if scan.stated_affine is None else scan.stated_affine


def _placed(mask: Volume, lacks: bool, placed: bool, scan: Volume, role: str | None) -> Volume:
    """The mask where it lies: where its file does not say so, and it has as many voxels as the scan, on the scan.

    Args:
        mask: as its file states it.
        lacks: the file states no voxel size.
        placed: the file states where it lies. If not, voxels of another size are not the scan's.
        scan, role: see `read_mask`.

    Raises:
        ScanError: nothing says where it lies.
    """
    stated = np.linalg.norm(_stated(scan)[:3, :3], axis=0)
    nowhere = not placed and np.allclose(mask.spacing, stated, rtol=_SAME_SIZE, atol=0)
    if mask.voxels.shape == scan.voxels.shape and (lacks or nowhere or spacing_doubt(mask)):
        return replace(mask, affine=_stated(scan))
    if lacks:
        raise ScanError(
            f"{mask.name}: the mask states no voxel size, and has {_times(mask.voxels)} voxels where {scan.name} has "
            f"{_times(scan.voxels)}",
            "save it with its voxel size, or with as many voxels as the scan",
            Setting("mask", role),
        )
    return mask


def mask_on(
    mask: Any, scan: Volume, role: str | None = None, name: str | None = None, quantity: str = "mask"
) -> np.ndarray:
    """Puts a mask onto the grid of a scan by nearest neighbour. Outside of the mask's grid is outside of the mask.

    Args:
        mask: a Volume or SimpleITK image on any grid, or an array of the scan's shape; true where it is above 0. Of
            vectors, as the layers of a segmentation are, any component counts.
        scan: the scan.
        role: "fixed" or "moving" where the scan is one of a pair; errors then say whose setting is the remedy.
        name: what errors call it, as the file that it was read from; None for the mask of the scan.
        quantity: the argument that it was given as; errors name it, also as the setting to change.

    Returns:
        ``(z, y, x)`` bool of the scan's shape.

    Raises:
        ScanError: an array of another shape, or nothing of the scan is in the mask.
    """
    setting = Setting(quantity, role)
    called = f"{scan.name}: its {quantity}" if name is None else f"{name}: the {quantity}"
    if isinstance(mask, str | os.PathLike):
        raise ScanError(f"{called} is a path: {os.fspath(mask)!r}", "read it first, with read_mask", setting)
    if is_image(mask) and not isinstance(mask, Volume):
        mask = _from_sitk(mask, f"the {quantity} of {scan.name}")
    if isinstance(mask, Volume):
        mask = _resampled(mask, scan, scan.affine, called, setting)
    mask = np.asarray(mask)
    if mask.shape != scan.voxels.shape:
        problem = f"{called} has {mask.shape} voxels (z, y, x) and the scan {scan.voxels.shape}"
        raise ScanError(problem, "give an array of the scan's shape, or an image that says where it lies", setting)
    mask = mask if mask.dtype == bool else mask > 0
    if not mask.any():
        raise ScanError(f"{called} is empty", "mark where to look, or leave it out", setting)
    return mask


def _resampled(mask: Volume, scan: Volume, affine: np.ndarray, called: str, setting: Setting) -> np.ndarray:
    """Where a mask is above 0, by nearest neighbour on a grid of the scan's shape and an ``(4, 4)`` affine."""
    check_image(mask)
    marked, (z, y, x) = mask.voxels > 0, scan.voxels.shape
    tolerance = _SAME_GRID * np.linalg.norm(affine[:3, :3], axis=0).min()
    if marked.shape == (z, y, x) and np.allclose(mask.affine, affine, rtol=0, atol=tolerance):
        return marked
    found = resample_mask(marked, mask.affine, affine, (z, y, x), np.eye(4), whole_voxels=True)
    if marked.any() and not found.any():
        raise _elsewhere(scan, called, setting)
    return found


def _elsewhere(scan: Volume, called: str, setting: Setting) -> ScanError:
    problem = f"{called} lies elsewhere, and holds no voxel of {scan.name}"
    return ScanError(problem, "draw it on that scan, and keep its coordinates", setting)


def _times(voxels: np.ndarray) -> str:
    return " x ".join(str(n) for n in voxels.shape[::-1])


def _from_sitk(image: sitk.Image, name: str) -> Volume:
    """A mask in memory: any component of an image above 0."""
    import SimpleITK as sitk

    if not _has_layers(image):
        return Volume.from_sitk(image, name)
    layers = sitk.GetArrayViewFromImage(image).reshape(*image.GetSize()[::-1], -1)
    geometry = image.GetSpacing(), image.GetDirection(), image.GetOrigin()
    return Volume.from_geometry(np.any(layers > 0, axis=-1), *geometry, name)


def _has_layers(image: sitk.Image) -> bool:
    return image.GetDimension() == 3 and "vector" in image.GetPixelIDTypeAsString()


def _read_layers(path: Path, segment: str | int | None, role: str | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """The mask of an NRRD file whose voxels may be vectors: where it is true, its affine, and what the file lacks."""
    image, layers, affine, lacks = _layers(path)
    chosen = _chosen(image, layers.shape[-1], segment, path, role)
    if segment is None:
        mask = np.any(layers > 0, axis=-1)
    elif chosen is not None:
        layer, label = chosen
        mask = layers[..., layer] == label
    else:
        mask = _labelled(layers[..., 0], segment, path, role)
    return mask, affine, lacks


def _layers_header(path: Path, segment: str | int | None, role: str | None) -> tuple[Volume, bool]:
    """By its header: where the mask of such a file lies, without its voxels, and whether it lacks a voxel size."""
    from .itk_reader import READERS, blank, header_affine, opened_header, read_itk_header
    from .text_headers import in_millimetres

    found = opened_header(path, READERS[".nrrd"])
    if found.GetDimension() == 3 and found.GetNumberOfComponents() > 1:
        voxels, affine = blank(found.GetSize()[::-1], "u1"), header_affine(found)
    else:
        image = read_itk_header(path, READERS[".nrrd"])
        voxels, affine = image.voxels, image.affine
    if _chosen(found, found.GetNumberOfComponents(), segment, path, role) is None:
        _label(segment, path, role)
    affine, lacks = in_millimetres(path, affine)
    return Volume(voxels, affine, str(path)), bool(lacks)


def _chosen(
    image: sitk.Image | sitk.ImageFileReader, layers: int, segment: str | int | None, path: Path, role: str | None
) -> tuple[int, int] | None:
    """The layer and the label of a segment of an image or its header; None where none is asked for, or it lists none.

    Raises:
        ScanError: it has no such segment, or its list is damaged.
    """
    try:
        segments = _segments(image)
    except ValueError as error:
        raise ScanError(f"{path}: its list of segments is damaged", "save the segmentation again") from error
    if segment is None or not segments:
        return None
    # Names go before labels, which several segments may share that lie in layers of their own.
    named = [one for one in segments if str(segment) in one[:2]]
    chosen = named[:1] or [one for one in segments if str(segment) == str(one[3])]
    if len(chosen) != 1:
        names = ", ".join(name or identifier for identifier, name, _, _ in chosen or segments)
        shared = f"the label {segment} is that of several segments"
        problem = f"{path}: {shared if chosen else f'has no segment {str(segment)!r}'}"
        raise ScanError(problem, f"choose one of {names}", Setting("segment", role))
    _, _, layer, label = chosen[0]
    if not 0 <= layer < layers:
        raise ScanError(f"{path}: its list of segments is damaged", "save the segmentation again")
    return layer, label


def read_layers(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The layers of a segmentation of Slicer (``.seg.nrrd``): ``(z, y, x, layers)``, their affine, and header fields.

    Raises:
        ScanError: it cannot be read, or states no voxel size.
    """
    image, layers, affine, lacks = _layers(path)
    if lacks:
        raise ScanError(f"{path}: states no voxel size", "save the segmentation again")
    check_affine(affine, str(path))
    return layers, affine, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


def _layers(path: Path) -> tuple[sitk.Image, np.ndarray, np.ndarray, bool]:
    """An NRRD image, its voxels ``(z, y, x, components)``, its affine, and whether the file lacks a voxel size."""
    import SimpleITK as sitk

    from .itk_reader import READERS, image_affine, read_itk, scalar_3d
    from .text_headers import in_millimetres

    image = read_itk([path], path, READERS[".nrrd"])
    if not _has_layers(image):
        image = scalar_3d(image, path)
    affine, lacks = in_millimetres(path, image_affine(image))
    # An array has no axis for a single layer.
    return image, sitk.GetArrayFromImage(image).reshape(*image.GetSize()[::-1], -1), affine, bool(lacks)


def _segments(image: sitk.Image | sitk.ImageFileReader) -> list[tuple[str, str, int, int]]:
    """Identifier, name, layer and label of each segment of an image with the fields of vtkMRMLSegmentationStorageNode.

    Before Slicer 4.11 each segment had a layer of its own, and neither layer nor label was written.
    """
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    found: list[tuple[str, str, int, int]] = []
    while (start := f"Segment{len(found)}_") + "ID" in fields:
        layer, label = fields.get(start + "Layer", len(found)), fields.get(start + "LabelValue", 1)
        found.append((fields[start + "ID"], fields.get(start + "Name", ""), int(layer), int(label)))
    return found


def _labelled(voxels: np.ndarray, label: str | int | None, path: Path, role: str | None) -> np.ndarray:
    """Where a label image has a label; without one, where it is above 0."""
    wanted = _label(label, path, role)
    if wanted is None:
        return voxels > 0
    mask = voxels == wanted
    if not mask.any():
        raise ScanError(f"{path}: has no voxel of the label {label}", "give another label", Setting("segment", role))
    return mask


def _label(label: str | int | None, path: Path, role: str | None) -> float | None:
    """The label of a label image as a number; None for none."""
    try:
        return None if label is None else float(label)
    except ValueError as error:
        problem = f"{path}: has labels without names, and so no segment {str(label)!r}"
        raise ScanError(problem, "give the number of the label", Setting("segment", role)) from error
