"""Folders of synthetic pairs in many kinds of file, some of which are wrong in ways that a run must tell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dicom_files
import numpy as np
import SimpleITK as sitk
from DNetRegistrationLib import Volume, make_pair, write_volume

FIELD_OF_VIEW = 5.12  # mm


@dataclass(frozen=True)
class Written:
    """A cohort on disk.

    Attributes:
        status: what must come of each pair, by its name.
        kinds: of the problems that headers show, by the name of the pair.
    """

    status: dict[str, str]
    kinds: dict[str, str]


def write_cohort(folder: Path, count: int, size: int, first_seed: int = 0) -> Written:
    """Writes a folder of pairs ``NAME_pre``, ``NAME_post`` of so many voxels along each axis.

    Two of them are impostors, one file is cut short, one partner is missing, and one stack of slices has lost its voxel
    size; these are the last five.

    Args:
        folder: which is made.
        count: of pairs, at least six.
        size: voxels along each axis.
        first_seed: of the first pair.
    """
    folder.mkdir(parents=True)
    spacing = FIELD_OF_VIEW / size
    status, kinds = {}, {}
    names = [f"m{number:03}" for number in range(count)]
    wrong = dict(zip(names[-5:], ("impostor", "impostor", "cut", "alone", "lost"), strict=True))
    for number, name in enumerate(names):
        what = wrong.get(name, "")
        impostor = "animal" if what == "impostor" else None
        pair = make_pair(first_seed + number, size=size, spacing=spacing, impostor=impostor)
        write = WRITERS[number % len(WRITERS)] if what in ("", "impostor") else _nrrd
        write(folder / f"{name}_pre", pair.fixed)
        if what == "lost":
            _stack(folder / f"{name}_post", pair.moving, ".tif", log=False)
        elif what != "alone":
            write(folder / f"{name}_post", pair.moving)
        if what == "cut":
            file = folder / f"{name}_post.nrrd"
            os.truncate(file, file.stat().st_size // 2)
        status[name] = {"": "accepted", "impostor": "refused"}.get(what, "failed")
        if what in KINDS:
            kinds[name] = KINDS[what]
    return Written(status, kinds)


KINDS = {"cut": "unreadable", "alone": "partner", "lost": "spacing"}


def _nrrd(path: Path, scan: Volume) -> None:
    write_volume(scan, path.with_name(f"{path.name}.nrrd"))


def _packed(path: Path, scan: Volume) -> None:
    write_volume(scan, path.with_name(f"{path.name}.nrrd"), compress=True)


def _nifti(path: Path, scan: Volume) -> None:
    write_volume(scan, path.with_name(f"{path.name}.nii.gz"))


def _meta(path: Path, scan: Volume) -> None:
    write_volume(scan, path.with_name(f"{path.name}.mha"))


def _dicom(path: Path, scan: Volume) -> None:
    header = {
        "ImageOrientationPatient": [f"{v:.8f}" for v in scan.direction[:, :2].T.ravel()],
        "PixelSpacing": [f"{v:.8g}" for v in scan.spacing[1::-1]],
    }
    dicom_files.write_series(path, _whole(scan, np.int16), scan.origin, scan.affine[:3, 2], **header)


def _bmp(path: Path, scan: Volume) -> None:
    _stack(path, scan, ".bmp", log=True)


def _tiff(path: Path, scan: Volume) -> None:
    _stack(path, scan, ".tif", log=True)


WRITERS = (_nrrd, _nifti, _meta, _packed, _dicom, _bmp, _tiff)


def _stack(path: Path, scan: Volume, ending: str, log: bool) -> None:
    """Slices, with the log of NRecon beside them, which has the voxel size, or without."""
    path.mkdir()
    # Slices lie where their numbers say, in axes of their own.
    for number, plane in enumerate(_slices(scan, np.uint8 if ending == ".bmp" else np.uint16)):
        sitk.WriteImage(sitk.GetImageFromArray(plane), str(path / f"{path.name}_rec{number:04}{ending}"))
    if log:
        pixel, last = 1000 * scan.spacing[0], scan.size[2] - 1
        text = f"[Reconstruction]\nPixel Size (um)={pixel:.8g}\nFirst Section=0\nLast Section={last}\n"
        (path / f"{path.name}_rec.log").write_text(text)


def _slices(scan: Volume, kind: type) -> Iterator[np.ndarray]:
    yield from _whole(scan, kind)


def _whole(scan: Volume, kind: type) -> np.ndarray:
    """The grey values as whole numbers of a kind, what is outside the field of view as air."""
    voxels = scan.voxels.astype(np.float64)
    low, high = np.nanmin(voxels), np.nanmax(voxels)
    top = 255 if kind is np.uint8 else 4000
    return np.nan_to_num((voxels - low) / (high - low) * top).round().astype(kind)
