"""A user's own scans as bones of a dataset: found in a folder, laid on each other, as bone values T (Eq. 5)."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..bone.cube import points_of_bone
from ..bone.images import BoneImage, NativeScan, native_scan
from ..bone.prepare import PreparedScan, prepare
from ..bone.threshold import find_bone_scale
from ..core.constants import PAPER_SPACING
from ..core.errors import FileError, ScanError, one_line
from ..geometry.transform_files import read_transform
from ..imaging.scan_folders import find_scans
from ..imaging.volume import Volume, read_volume
from ..registration.align import align

# Slices resampled at a time.
_SLAB = 16


@dataclass(frozen=True)
class BoneScans:
    """The scans of one bone.

    Attributes:
        name: of the bone.
        plain: the scan without contrast agent, or the only one.
        contrast: the scan with contrast agent, or None.
        transform: file of the transform from `plain` to `contrast`; where it is None, they are aligned.
        plain_spacing, contrast_spacing: voxel size in mm where the file does not say it, one number or three.
    """

    name: str
    plain: Path
    contrast: Path | None = None
    transform: Path | None = None
    plain_spacing: tuple[float, ...] | None = None
    contrast_spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ResampledBone:
    """Bone values ``(d, d, d)`` float32 without and with contrast agent, and the ``(2, 3, 4)`` `BoneDataset.fields`."""

    values: tuple[Tensor, Tensor]
    fields: np.ndarray


def find_bone_scans(folder) -> list[BoneScans]:
    """The bones of a table, or of a folder by the names of its scans: ``NAME_pre`` with ``NAME_post``, and single ones.

    Args:
        folder: of scans; or a CSV file with a line a bone and the columns name and pre, and if wanted post, transform,
            pre_spacing and post_spacing (mm, "0.01" or "0.01,0.01,0.02"). The columns of a list of pairs to align, id,
            fixed, moving, fixed_spacing and moving_spacing, mean the same. Paths are relative to the table; other
            columns are passed over.

    Raises:
        FileError: there is no such folder, no scan in it, one without its partner, or two of one name; or a table
            cannot be read, lacks a column, or names a file that is not there.
    """
    if Path(folder).suffix.lower() == ".csv":
        return _in_table(Path(folder))
    found = find_scans(folder)
    if found.problems:
        raise found.problems[0]
    for path, partner in found.unpaired.items():
        raise FileError(f"{path}: its partner {partner}.* is missing", "add it, or rename the scan to use it by itself")
    entries = []
    for pair in found.pairs:
        transform = pair.pre.with_name(f"{pair.name}.tfm")
        entries.append(BoneScans(pair.name, pair.pre, pair.post, transform if transform.exists() else None))
    entries += [BoneScans(name, path) for name, path in found.singles.items()]
    return sorted(entries, key=lambda entry: entry.plain)


# Columns of a list of pairs to align, by what they mean here.
_ALSO = {"id": "name", "fixed": "pre", "moving": "post", "fixed_spacing": "pre_spacing",
         "moving_spacing": "post_spacing"}  # fmt: skip


def _in_table(path: Path) -> list[BoneScans]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: cannot be read as CSV ({one_line(error)})", "save it as CSV in UTF-8") from error
    found = []
    for number, line in enumerate(lines, 2):
        cells = {_ALSO.get(key, key): (value or "").strip() for key, value in line.items() if isinstance(key, str)}
        where = f"{path}: line {number}"
        for column in ("name", "pre"):
            if not cells.get(column):
                raise FileError(f"{where} has no {column}", "give each bone a name, and a scan in the column pre")
        files = [path.parent / cells[key] if cells.get(key) else None for key in ("pre", "post", "transform")]
        for file in files:
            if file is not None and not file.exists():
                raise FileError(f"{file}: there is no such file ({where})", "correct the path")
        spacings = [_spacing(cells.get(key, ""), where) for key in ("pre_spacing", "post_spacing")]
        found.append(BoneScans(cells["name"], *files, *spacings))
    if not found:
        raise FileError(f"{path}: lists no bones", "give columns name and pre, and a line for each bone")
    return found


def _spacing(text: str, where: str) -> tuple[float, ...] | None:
    if not text:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(0 < value < math.inf for value in values):
        raise FileError(f"{where} has the spacing {text!r}", "give mm, one number or three as in 0.01,0.01,0.02")
    return values


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
        ScanError: a scan cannot be read, shows no bone, or cannot be aligned with its partner.
    """
    own = entry.plain_spacing, entry.contrast_spacing
    volumes = [
        read_volume(path, spacing or scan_spacing)
        for path, spacing in zip((entry.plain, entry.contrast), own, strict=True)
        if path is not None
    ]
    natives = [native_scan(volume, find_bone_scale(volume), None, torch.device("cpu")) for volume in volumes]
    matrices = [np.eye(4)]
    if entry.contrast is not None:
        matrices.append(_between(entry, *volumes))
    # A single scan is its own partner.
    scans = prepare(natives[0], natives[-1])[: len(volumes)]
    larger = scans[0].cube.spacing / PAPER_SPACING
    to_world = np.eye(4)  # from mm about the middle of the grid
    to_world[:3, :3] = larger * own_axes(scans[0].images[-1])
    to_world[:3, 3] = scans[0].place.center
    values, fields = [], []
    for scan, matrix in zip(scans, matrices, strict=True):
        values.append(_on_grid(_image(scan, spacing * larger), matrix @ to_world, size, spacing))
        fields.append(_field(scan.native, matrix @ to_world))
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


def _between(entry: BoneScans, plain: Volume, contrast: Volume) -> np.ndarray:
    """The ``(4, 4)`` transform from the scan without to the one with contrast agent, LPS mm."""
    if entry.transform is not None:
        return read_transform(entry.transform)
    alignment = align(plain, contrast, hypotheses="search")
    if not alignment.accepted:
        raise ScanError(
            f"{entry.contrast}: could not be aligned with {entry.plain.name} for sure",
            f"put the transform beside them as {entry.name}.tfm, or drop _pre and _post from both names",
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
