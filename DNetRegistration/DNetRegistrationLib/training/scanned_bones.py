"""A user's own scans as bones of a dataset: found in a folder, laid on each other, as bone values T (Eq. 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bone.cube import points_of_bone
from ..bone.images import BoneImage, NativeScan
from ..bone.prepare import PreparedScan
from ..bone.scan_file import ABOUT_SCAN, NUMBERS, ScanFile, one_of, scan_of_cells
from ..core.constants import PAPER_SPACING
from ..core.errors import FileError, ScanError
from ..core.spreadsheet import read_list
from ..geometry.transform_files import read_transform, read_truth
from ..imaging.scan_folders import find_scans
from ..registration.align import align
from ..registration.inputs import checked_inputs
from ..registration.preparation import found_bone
from ..registration.watch import Watch

# Slices resampled at a time.
_SLAB = 16


@dataclass(frozen=True)
class BoneScans:
    """The scans of one bone.

    Attributes:
        name: of the bone.
        fixed: a scan of it, without contrast agent where there are two.
        moving: another scan, or None.
        transform: file of the transform from `fixed` to `moving`; where it is None, they are aligned.
        initial: file of a transform that the alignment tries first.
        contrast: which of the two has the contrast agent, "fixed" or "moving".
        animal: that the bone is of; where it is empty, the bone's name.
    """

    name: str
    fixed: ScanFile
    moving: ScanFile | None = None
    transform: Path | None = None
    initial: Path | None = None
    contrast: str = "moving"
    animal: str = ""


@dataclass(frozen=True)
class ResampledBone:
    """Bone values ``(d, d, d)`` float32 without and with contrast agent, and the ``(2, 3, 4)`` `BoneDataset.fields`."""

    values: tuple[Tensor, Tensor]
    fields: np.ndarray


def find_bone_scans(folder, tell: Callable[[str], None] = lambda line: None) -> list[BoneScans]:
    """The bones of a table, or of a folder by the names of its scans: ``NAME_pre`` with ``NAME_post``, and single ones.

    In a folder ``NAME_fixed`` and ``NAME_moving`` are a pair too, and masks, called after a scan, are passed over.

    Args:
        folder: of scans; or a CSV file with a line a bone, parted by commas, semicolons or tabs, and the columns name
            and pre, and if wanted post, transform, initial, contrast, and what else is to be said of each scan:
            pre_spacing (mm, "0.01" or "0.01 0.01 0.02"), post_mask and others, see `ScanFile`; and animal, where
            several lines are of one. The columns of a list of pairs to align, id, fixed, moving, fixed_spacing and
            others, mean the same, and lines of one id are of one animal. Paths are relative to the table;
            other columns are passed over.
        tell: called with a line about what is passed over in a folder.

    Raises:
        FileError: there is no such folder, no scan in it, one without its partner, or two of one name; or a table
            cannot be read, lacks a column, has a cell that cannot be used, or names a file that is not there.
    """
    if Path(folder).suffix.lower() == ".csv":
        return _in_table(Path(folder))
    found = find_scans(folder)
    if found.problems:
        raise found.problems[0]
    for path, partner in found.unpaired.items():
        raise FileError(f"{path}: its partner {partner}.* is missing", "add it, or rename the scan to use it by itself")
    if found.masks:
        more = f" and {len(found.masks) - 1} more" if len(found.masks) > 1 else ""
        tell(f"passed over, since they are called like masks: {found.masks[0].name}{more}")
    entries = [
        BoneScans(pair.name, ScanFile(str(pair.pre)), ScanFile(str(pair.post)), pair.transform) for pair in found.pairs
    ]
    entries += [BoneScans(name, ScanFile(str(path))) for name, path in found.singles.items()]
    return sorted(entries, key=lambda entry: entry.fixed.path)


_CALLED = {"name": "id", "pre": "fixed", "post": "moving"}
#: Columns of a table of bones, as those of a list of pairs are called.
AS_OF_PAIRS = _CALLED | {f"{word}_{one}": f"{_CALLED[word]}_{one}" for word in ("pre", "post") for one in ABOUT_SCAN}
_CONTRAST = one_of("fixed", "moving")


def _in_table(path: Path) -> list[BoneScans]:
    sheet = read_list(path)
    header = [name.lower() for name in sheet.header]
    names = [AS_OF_PAIRS.get(name, name) for name in header]
    called = dict(zip(names, header, strict=True))
    for name in filter(None, called):
        if names.count(name) > 1:
            raise FileError(f"{path}: has two columns that mean {called[name]}", "keep one of them")
    found: dict[str, BoneScans] = {}
    for line, too_long, cells in sheet.lines(names, tuple(f"_{name}" for name in NUMBERS)):
        bone = _of_row(f"{path}: line {line}", path.parent, cells, called, too_long)
        if bone.name in found:
            raise FileError(f"{path}: line {line} is the second of the name {bone.name!r}", "give each its own name")
        found[bone.name] = bone
    if not found:
        raise FileError(f"{path}: lists no bones", "give columns name and pre, and a line for each bone")
    return list(found.values())


def _of_row(where: str, folder: Path, cells: dict[str, str], called: dict[str, str], too_long: bool) -> BoneScans:
    """The bone of a row of a table; `called` has the names of the columns in the file."""
    if too_long:
        remedy = "put quotes about a cell with commas in it, or part cells by semicolons"
        raise FileError(f"{where} has more cells than there are columns", remedy)
    for column, usual in (("id", "name"), ("fixed", "pre")):
        if not cells.get(column):
            remedy = "give each bone a name, and a scan in the column pre"
            raise FileError(f"{where} has no {called.get(column, usual)}", remedy)
    scans = []
    for role in ("fixed", "moving"):
        scan, wrong = scan_of_cells(role, cells, folder, called)
        if scan is None:
            about = [f"moving_{name}" for name in ABOUT_SCAN] + ["transform", "initial"]
            wrong += [f"has {called[name]} but no {called.get('moving', 'post')}" for name in about if cells.get(name)]
        if wrong:
            raise FileError(f"{where} {wrong[0]}", "correct it")
        scans.append(scan)
    transform, initial = (folder / cells[key] if cells.get(key) else None for key in ("transform", "initial"))
    files = [Path(path) for scan in scans if scan is not None for path in scan.paths]
    for file in (*files, transform, initial):
        if file is not None and not file.exists():
            raise FileError(f"{file}: there is no such file ({where})", "correct the path")
    try:
        contrast = _CONTRAST(cells.get("contrast") or "moving")
    except ValueError as error:
        raise FileError(f"{where} has {cells['contrast']!r} as contrast, {error}", "correct it") from error
    # In a list of pairs one bone may be scanned at several times.
    name = "_".join(filter(None, (cells["id"], cells.get("time"))))
    animal = cells.get("animal") or (cells["id"] if cells.get("time") else "")
    return BoneScans(name, scans[0], scans[1], transform, initial, contrast, animal)


def animals_of(bones: Sequence[BoneScans]) -> list[str]:
    """A name for each bone, which those share that are of one animal or of one file."""
    first: dict[str, int] = {}
    animals = list(range(len(bones)))
    for number, bone in enumerate(bones):
        scans = [scan.image for scan in (bone.fixed, bone.moving) if scan is not None]
        for mark in (f"animal {bone.animal or bone.name}", *(f"scan {one}" for one in scans)):
            one, other = animals[number], animals[first.setdefault(mark, number)]
            animals = [min(one, other) if animal in (one, other) else animal for animal in animals]
    return [bones[number].name for number in animals]


def resample_bone(entry: BoneScans, size: int, spacing: float, scan_spacing=None) -> ResampledBone:
    """Resamples the scans of a bone onto one grid along the bone's own axes, about its centroid.

    So bones scanned in any orientation lie alike in a dataset, as synthetic ones do, and look alike when training
    begins with small rotations (`recipes.Recipe.initial_angle`).

    Args:
        entry: the scans.
        size: of the grid, voxels along each axis.
        spacing: of the grid, in mm of a bone that fits the cube at 0.08 mm. A larger bone is made smaller to fit, as
            `align` does by the working spacing.
        scan_spacing: true voxel size of the scans in mm, where the files do not say it.

    Raises:
        ScanError: a scan or its mask cannot be read, a scan shows no bone, or cannot be aligned with its partner.
    """
    files = [scan for scan in (entry.fixed, entry.moving) if scan is not None]
    files = [scan.with_spacing(scan_spacing) for scan in files]
    volumes = [scan.read(None) for scan in files]
    masks = [scan.read_mask(None, volume) for scan, volume in zip(files, volumes, strict=True)]
    # A single scan is its own partner.
    pair = {
        "fixed": volumes[0], "moving": volumes[-1], "fixed_mask": masks[0], "moving_mask": masks[-1],
        "threshold": (files[0].threshold, files[-1].threshold), "hypotheses": "search",
    }  # fmt: skip
    matrices = [np.eye(4)] if entry.moving is None else [np.eye(4), _between(entry, pair)]
    inputs = checked_inputs(**pair, spacing=None, initial=None, weights=None, refine="native", bone=None)
    # As `align` sees them: within their masks, and without metal.
    scans = found_bone(inputs, torch.device("cpu"), Watch(None, None))[: len(volumes)]
    larger = scans[0].cube.spacing / PAPER_SPACING
    to_world = np.eye(4)  # from mm about the middle of the grid
    to_world[:3, :3] = larger * own_axes(scans[0].images[-1])
    to_world[:3, 3] = scans[0].place.center
    values, fields = [], []
    for scan, matrix in zip(scans, matrices, strict=True):
        values.append(_on_grid(_image(scan, spacing * larger), matrix @ to_world, size, spacing))
        fields.append(_field(scan.native, matrix @ to_world))
    if entry.contrast == "fixed":
        values, fields = values[::-1], fields[::-1]
    return ResampledBone((values[0], values[-1]), np.stack((fields[0], fields[-1])))


def own_axes(image: BoneImage) -> np.ndarray:
    """The principal axes of a bone as columns, ``(3, 3)`` in the world, z along its length; a rotation.

    The longer tail of bone tells the two ways of z and of y apart: mean cubes of coordinates are positive.
    """
    points, weight = points_of_bone(image)
    points = points - np.average(points, axis=0, weights=weight)
    axes = np.linalg.eigh((points.T * weight) @ points)[1]
    axes *= np.where(weight @ (points @ axes) ** 3 < 0, -1.0, 1.0)
    axes[:, 0] = np.cross(axes[:, 1], axes[:, 2])
    return axes


def _between(entry: BoneScans, pair: dict[str, Any]) -> np.ndarray:
    """The ``(4, 4)`` transform from the fixed to the moving scan, LPS mm; `pair` is what `align` takes."""
    if entry.transform is not None:
        return read_truth(entry.transform)
    initial = None if entry.initial is None else read_transform(entry.initial)
    alignment = align(**pair, initial=initial)
    if not alignment.accepted:
        verdict = alignment.verdict.rstrip(".")
        raise ScanError(
            f"{pair['moving'].name}: could not be aligned with {pair['fixed'].name} for sure ({verdict})",
            f"put the transform beside them as {entry.name}.tfm or into the column transform of a table; or train on "
            "both as two bones, in a folder by names without _pre and _post",
        )
    return alignment.matrix


def _image(scan: PreparedScan, spacing: float) -> BoneImage | NativeScan:
    """The coarsest image of a scan with voxels up to `spacing` mm. They are means, so resampling does not alias."""
    fine = [image for image in scan.images if image.spacing.max() <= spacing * 1.001]
    return fine[-1] if fine else scan.images[0]


def _on_grid(image: BoneImage | NativeScan, to_world: np.ndarray, size: int, spacing: float) -> Tensor:
    matrix = torch.from_numpy(np.linalg.inv(image.affine) @ to_world)
    axis = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * spacing
    out = torch.empty((size, size, size))
    for start in range(0, size, _SLAB):
        grid = torch.stack(torch.meshgrid(axis[start : start + _SLAB], axis, axis, indexing="ij")[::-1], -1)
        index = grid.view(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
        out[start : start + _SLAB] = image.sample(index.float())[0].view(-1, size, size)
    return out


def _field(scan: NativeScan, to_world: np.ndarray) -> np.ndarray:
    """``(3, 4)``: mm about the middle of the grid to coordinates within -1 and 1 in the scan's field of view."""
    size = np.array(scan.shape[::-1])
    unit = np.diag((*(2 / size), 1.0))
    unit[:3, 3] = 1 / size - 1
    return (unit @ np.linalg.inv(scan.affine) @ to_world)[:3]
