"""Uses transforms that were found: carries other scans, labels, segmentations, points and meshes.

A transform maps the points of its fixed scan to those of its moving scan, as files of ITK do. To apply it is to carry
what lies in the moving scan onto the fixed scan. Needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..core.errors import FileError, OptionError, ScanError, Setting
from ..core.files import atomic_write, writing
from ..core.provenance import MARKED
from ..core.words import choice, counted
from ..geometry.mesh_files import MESH_ENDINGS, carry_mesh
from ..geometry.point_files import POINT_ENDINGS, carried_point_file, carried_points
from ..geometry.transform_files import read_transform, stated_mark
from ..geometry.transforms import composed, inverted
from ..imaging.masks import read_layers
from ..imaging.nrrd import write_nrrd
from ..imaging.resample import are_labels, cast_like, resample, resample_labels
from ..imaging.volume import (
    Volume,
    as_volume,
    is_image,
    read_header,
    read_labels,
    read_volume,
    require_holdable,
)
from .paths import SCAN_ENDINGS
from .write import scan_mark, write_scan

if TYPE_CHECKING:
    import SimpleITK as sitk

INTERPOLATIONS = ("auto", "spline", "nearest")
_SEGMENTATION = ".seg.nrrd"


@dataclass(frozen=True)
class Applied:
    """What `apply_to_file` did.

    Attributes:
        matrix: ``(4, 4)`` of all transforms together: where the result lies to where it came from, LPS mm.
        what: what was carried and how, for a person.
        warnings: sentences on transforms of alignments that are not accepted.
    """

    matrix: np.ndarray
    what: str
    warnings: tuple[str, ...] = ()


@overload
def apply_transform(
    what: np.ndarray, *transforms: Any, inverse: bool = False, grid: None = None, interpolation: str = "auto"
) -> np.ndarray: ...
@overload
def apply_transform(
    what: Volume | sitk.Image, *transforms: Any, inverse: bool = False, grid: Any = None, interpolation: str = "auto"
) -> Volume: ...
def apply_transform(
    what: Any, *transforms: Any, inverse: bool = False, grid: Any = None, interpolation: str = "auto"
) -> Any:
    """Carries a scan, labels or points from the moving scan's place to the fixed scan's, in memory.

    Args:
        what: a `Volume` or a SimpleITK image, which lies where the moving scan does; or points ``(..., 3)``, LPS mm.
        transforms: one or more, applied in this order: `Alignment`, ``(4, 4)`` matrix or SimpleITK transform. Each maps
            fixed to moving points, LPS mm. The second carries on what the first has carried, so that its moving scan is
            the first one's fixed scan.
        inverse: carry back, from the fixed scan of the last to the moving scan of the first.
        grid: a `Volume` or SimpleITK image on whose grid a scan or labels are resampled. None keeps the voxels, and
            their affine tells where they lie: nothing is interpolated.
        interpolation: "spline", as `resample` does it, for grey values; "nearest" for labels and masks; "auto" takes
            "nearest" where `are_labels` holds.

    Returns:
        The points; or a `Volume`. By "spline" it is float32, NaN outside the field of view; by "nearest" it keeps its
        dtype, and is 0 there.

    Raises:
        OptionError: a transform or an option cannot be used.
        ScanError: the scan or the grid cannot be used.

    Example:
        >>> turn = np.array([[0, -1, 0, 5], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        >>> apply_transform(np.array([[5.0, 2.0, 1.0]]), turn)
        array([[2., 0., 1.]])
    """
    if interpolation not in INTERPOLATIONS:
        raise OptionError(
            f"interpolation {interpolation!r} is unknown", "give auto, spline or nearest", Setting("interpolation")
        )
    if not transforms:
        raise OptionError("no transform is given", "give one", Setting("transform"))
    matrix = composed(transforms, inverse)
    if isinstance(what, str | os.PathLike):
        remedy = "read it first, with read_volume (or carry the file, with apply_to_file of outputs.apply)"
        raise OptionError(f"what to carry is a path: {os.fspath(what)!r}", remedy)
    if not is_image(what):
        try:
            points = np.asarray(what, np.float64)
        except (TypeError, ValueError):
            problem = f"what to carry is of the type {type(what).__name__}"
            raise OptionError(problem, "give a Volume, a SimpleITK image, or points (..., 3) in mm") from None
        if points.ndim < 1 or points.shape[-1] != 3:
            raise OptionError(f"points of the shape {points.shape} are not three-dimensional", "give (..., 3) in mm")
        if grid is not None:
            raise OptionError("points have no grid", "leave the grid out", Setting("grid"))
        return carried_points(points, inverted(matrix))
    volume = as_volume(what)
    if grid is None:
        return replace(volume, affine=inverted(matrix) @ volume.affine, stated_affine=None)
    target = as_volume(grid, "grid")
    if _is_nearest(volume, interpolation):
        shape: Any = target.voxels.shape
        voxels = resample_labels(volume.voxels, volume.affine, target.affine, shape, matrix)
        return Volume(voxels, target.affine, volume.name)
    return resample(volume, target, matrix)


def _is_nearest(volume: Volume, interpolation: str) -> bool:
    return interpolation == "nearest" or (interpolation == "auto" and are_labels(volume.voxels))


def apply_to_file(
    source: str | os.PathLike,
    target: str | os.PathLike,
    transforms: Sequence[tuple[str | os.PathLike, bool]],
    *,
    grid: str | os.PathLike | None = None,
    interpolation: str = "auto",
    spacing: Sequence[float] | None = None,
    series: str | None = None,
    flip: str | None = None,
    grid_spacing: Sequence[float] | None = None,
    grid_series: str | None = None,
) -> Applied:
    """Carries what a file holds, and writes it to another file.

    Args:
        source: a scan, a label image or a mask of any kind that `read_volume` reads; a segmentation of Slicer
            (``.seg.nrrd``); points (see `carried_point_file`); or a mesh (see `carry_mesh`).
        target: a scan file, ``.seg.nrrd``, points of the same kind, or a mesh of any kind. It appears whole, or not.
        transforms: files that `read_transform` reads, in the order in which they are applied; with each, whether it is
            inverted, and carries from its fixed scan to its moving one.
        grid: a scan on whose grid a scan or labels are resampled; None keeps their voxels, and turns their axes.
        interpolation: see `apply_transform`.
        spacing, series, flip, grid_spacing, grid_series: of `source` and of `grid`, as `read_volume` takes them. What
            the alignment took in reverse order is taken so here too, as are labels of the whole scan.

    Raises:
        DNetError: a file cannot be read or written, or they do not go together; nothing is written then.
    """
    source, target = Path(source), Path(target)
    if not transforms:
        problem = "no transform is given (a file alone is converted in Python, by read_volume and write_volume)"
        raise OptionError(problem, "give one", Setting("transform"))
    if interpolation not in INTERPOLATIONS:
        raise OptionError(f"interpolation {interpolation!r} is unknown", "give auto, spline or nearest")
    inputs = [source, *(Path(path) for path, _ in transforms), *([] if grid is None else [Path(grid)])]
    for one in inputs:
        if os.path.realpath(one) == os.path.realpath(target):
            raise FileError(f"{target}: would replace {one}", "give it a name of its own")
    kind, endings = _kind(source)
    if not target.name.lower().endswith(endings):
        raise FileError(f"{target}: {kind} cannot be written to this kind of file", f"use {choice(endings)}")
    if grid is not None and kind in ("points", "a mesh"):
        raise OptionError(f"{source}: {kind} has no grid", "leave the grid out", Setting("grid"))
    # Where the scan ends, about whose middle it is flipped, is known of images alone: segments may be of a part of it.
    if flip is not None and kind != "an image":
        problem = f"{source}: {kind} cannot be flipped, since where the scan ends is not known"
        raise OptionError(problem, "carry an image of the whole scan, or leave the flip out", Setting("flip", "scan"))
    if not source.exists():
        raise FileError(f"{source}: there is no such file or folder", "check the path")
    matrix = np.eye(4)
    marks = {}
    for path, inverse in transforms:
        step = read_transform(path)
        if mark := stated_mark(path):
            marks[os.fspath(path)] = mark
        matrix = matrix @ (inverted(step) if inverse else step)
    warnings = tuple(f"{path}: the alignment that it is of is {mark}" for path, mark in marks.items())
    there = None if grid is None else read_header(grid, grid_spacing, grid_series, role="grid")
    with atomic_write() as staging:
        temporary = staging.path(target)
        if kind == "points":
            text, count = carried_point_file(source, inverted(matrix))
            with writing(target):
                temporary.write_text(text, "utf-8")
            return Applied(matrix, counted(count, "point"), warnings)
        if kind == "a mesh":
            with writing(target):
                count = carry_mesh(source, temporary, inverted(matrix))
            return Applied(matrix, f"a mesh of {counted(count, 'point')}", warnings)
        if kind == "a segmentation":
            what = _carry_segmentation(source, target, temporary, matrix, there, list(marks.values()))
            return Applied(matrix, what, warnings)
        volume = read_labels(source, spacing, series, role="scan")
        nearest = _is_nearest(volume, interpolation)
        if not nearest:
            volume = read_volume(source, spacing, series, role="scan", flip=flip)
        elif flip is not None:
            volume = volume.flipped(flip)
        carried = apply_transform(volume, matrix, grid=there, interpolation="nearest" if nearest else "spline")
        if there is not None and not _arrived(volume, there, matrix):
            raise ScanError(
                f"{source}: lies wholly outside the grid of {grid} once it is carried",
                "check the direction and the order of the transforms, and which scan gives the grid",
            )
        require_holdable(carried, target)
        cast = cast_like(carried, volume) if there is not None and not nearest else carried
        write_scan(cast, temporary, target, _joined([scan_mark(source), *marks.values()]))
    how = "labels, by nearest neighbour" if nearest else "grey values, by cubic splines"
    how = "an image voxel for voxel, with other axes in its header" if there is None else how
    return Applied(matrix, how, warnings)


def _kind(source: Path) -> tuple[str, tuple[str, ...]]:
    """What a file holds, by its name, and the endings that it can be written to."""
    name = source.name.lower()
    if name.endswith(_SEGMENTATION):
        return "a segmentation", (_SEGMENTATION,)
    for ending in POINT_ENDINGS:
        if name.endswith(ending):
            return "points", (ending,)
    return ("a mesh", MESH_ENDINGS) if name.endswith(MESH_ENDINGS) else ("an image", SCAN_ENDINGS)


def _arrived(volume: Volume, grid: Volume, matrix: np.ndarray) -> bool:
    """Whether any voxel of the grid lies in an image: of a coarse sample of it, and of its corners."""
    index = np.stack(np.meshgrid(*(np.linspace(-0.5, n - 0.5, 65) for n in grid.size), indexing="ij"), -1)
    found = volume.to_index(carried_points(grid.to_world(index), matrix))
    if ((found >= -0.5) & (found <= volume.size - 0.5)).all(-1).any():
        return True
    # An image that is small beside the grid may lie between the samples.
    index = np.stack(np.meshgrid(*(np.linspace(-0.5, n - 0.5, 65) for n in volume.size), indexing="ij"), -1)
    found = grid.to_index(carried_points(volume.to_world(index), inverted(matrix)))
    return bool(((found >= -0.5) & (found <= grid.size - 0.5)).all(-1).any())


def _joined(marks: Iterable[str]) -> str:
    """Marks as one, each once; one that a NIfTI file has cut short is the one that it begins."""
    found = list(dict.fromkeys(mark for mark in marks if mark))
    return "; ".join(mark for mark in found if not any(one != mark and one.startswith(mark) for one in found))


def _carry_segmentation(
    source: Path, target: Path, temporary: Path, matrix: np.ndarray, grid: Volume | None, marks: list[str]
) -> str:
    layers, own, header = read_layers(source)
    affine = inverted(matrix) @ own
    if grid is not None:
        affine, shape = grid.affine, grid.voxels.shape
        layers = resample_labels(layers, own, affine, (shape[0], shape[1], shape[2]), matrix)
    keys = {key: value for key, value in header.items() if key.startswith("Segment")}
    # Where the source's image lay in its own reference geometry is no longer so.
    for key in ("Segmentation_ReferenceImageExtentOffset", "Segmentation_ConversionParameters"):
        keys.pop(key, None)
    extent = " ".join(f"0 {n - 1}" for n in layers.shape[2::-1])
    keys |= {key: extent for key in keys if key.endswith("_Extent")}
    keys["Segmentation_ReferenceImageExtentOffset"] = "0 0 0"
    if mark := _joined([header.get(MARKED, ""), *marks]):
        keys[MARKED] = mark
    shape = layers.shape if layers.shape[3] > 1 else layers.shape[:3]
    with writing(target):
        write_nrrd(temporary, layers.reshape(shape), shape, layers.dtype, affine, keys, compress=True)
    count = sum(key.endswith("_ID") for key in keys)
    return f"a segmentation of {count} segments" + ("" if grid is None else ", by nearest neighbour")
