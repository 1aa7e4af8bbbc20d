"""Folders of scans, read by name: ``NAME_pre`` and ``NAME_post`` are two scans of one animal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import FileError
from .reading import VOLUME_SUFFIXES

#: Kinds of file that hold a scan. Folders hold one too, as stacks of slices.
SCAN_SUFFIXES = (*VOLUME_SUFFIXES, ".tif", ".tiff")
#: The last words of the names of a pair's scans, without and with contrast agent; `synthesize` writes the second pair.
WORDS = (("pre", "post"), ("fixed", "moving"))
# Behind the name of a pair, its transform from the first to the second scan.
_TRANSFORMS = (".tfm", "_truth.tfm")
_MASK = "_mask"


@dataclass(frozen=True)
class ScanPair:
    """Two scans of one animal.

    Attributes:
        name: of the animal.
        pre, post: the scan without and the scan with contrast agent.
        transform: file beside them of the transform from pre to post, ``NAME.tfm`` or ``NAME_truth.tfm``, or None.
    """

    name: str
    pre: Path
    post: Path
    transform: Path | None = None


@dataclass(frozen=True)
class ScanFolder:
    """The scans of a folder, in the order of their file names.

    Attributes:
        pairs: both scans of an animal.
        singles: scans whose names do not say that they belong to a pair, by name.
        unpaired: scans whose partner is missing, and the name that it would have.
        masks: what is no scan by its name: segmentations (``.seg.nrrd``), and files that are called after a scan of a
            pair, as ``NAME_pre_mask``.
        problems: one for each further scan of a name that another scan has already; that scan is left out.
    """

    pairs: list[ScanPair]
    singles: dict[str, Path]
    unpaired: dict[Path, str]
    masks: list[Path]
    problems: list[FileError]


def find_scans(folder: str | os.PathLike) -> ScanFolder:
    """Finds the scans of a folder, and pairs them by name. Hidden files are passed over.

    Args:
        folder: where scans lie: files, and folders of slices. Other folders in it are not searched.

    Raises:
        FileError: there is no such folder, or no scan in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder of scans", "check the path")
    scans: dict[str, Path] = {}
    problems: list[FileError] = []
    masks: list[Path] = []
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in SCAN_SUFFIXES if path.name.lower().endswith(s)), "")
        if path.name.startswith(".") or not (suffix or path.is_dir()):
            continue
        if path.name.lower().endswith(".seg.nrrd"):
            masks.append(path)
            continue
        name = path.name[: len(path.name) - len(suffix)]
        if name in scans:
            problems.append(FileError(f"{scans[name]}: {path.name} beside it has the same name", "keep one of them"))
        scans.setdefault(name, path)
    if not scans:
        kinds = ", ".join(SCAN_SUFFIXES)
        raise FileError(f"{folder}: holds no scans ({kinds}, or folders of slices)", "check the path")
    found = ScanFolder([], {}, {}, masks, problems)
    partners = {one: other for pair in WORDS for one, other in (pair, pair[::-1])}
    paired = [name for name in scans if _partner(name, partners) in scans]
    for name, path in scans.items():
        stem, _, word = name.rpartition("_")
        partner = _partner(name, partners)
        if partner in scans:
            if (word, partners[word]) in WORDS:
                found.pairs.append(ScanPair(stem, path, scans[partner], _transform_beside(path, stem)))
        elif any(name.startswith(f"{scan}_") for scan in paired) or _masked(name) in scans:
            masks.append(path)
        elif partner is None:
            found.singles[name] = path
        else:
            found.unpaired[path] = partner
    return found


def _partner(name: str, partners: Mapping[str, str]) -> str | None:
    """The name of the other scan of a pair; None where a name does not end in a word of a pair."""
    stem, _, word = name.rpartition("_")
    return f"{stem}_{partners[word]}" if stem and word in partners else None


def _masked(name: str) -> str:
    """The name of the scan that a mask is called after; "" where it is called after none."""
    return name[: -len(_MASK)] if name.lower().endswith(_MASK) else ""


def _transform_beside(scan: Path, name: str) -> Path | None:
    paths = (scan.with_name(name + ending) for ending in _TRANSFORMS)
    return next((path for path in paths if path.is_file()), None)
