"""Folders of scans, read by name: ``NAME_pre`` and ``NAME_post`` are two scans of one animal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import FileError
from .reading import VOLUME_SUFFIXES

#: Kinds of file that hold a scan. Folders hold one too, as stacks of slices.
SCAN_SUFFIXES = (*VOLUME_SUFFIXES, ".tif", ".tiff")
#: The last words of the names of a pair's scans, without and with contrast agent.
PRE_POST = (("pre", "post"),)


@dataclass(frozen=True)
class ScanPair:
    """Two scans of one animal: its name, the scan without and the scan with contrast agent."""

    name: str
    pre: Path
    post: Path


@dataclass(frozen=True)
class ScanFolder:
    """The scans of a folder, in the order of their file names.

    Attributes:
        pairs: both scans of an animal.
        singles: scans whose names do not say that they belong to a pair, by name.
        unpaired: scans whose partner is missing, and the name that it would have.
        problems: one for each further scan of a name that another scan has already; that scan is left out.
    """

    pairs: list[ScanPair]
    singles: dict[str, Path]
    unpaired: dict[Path, str]
    problems: list[FileError]


def find_scans(
    folder: str | os.PathLike, words: Sequence[tuple[str, str]] = PRE_POST, slices: bool = True
) -> ScanFolder:
    """Finds the scans of a folder, and pairs them by name. Hidden files are passed over.

    Args:
        folder: where scans lie. Folders in it are not searched.
        words: the last words of the names of a pair, after an underscore.
        slices: folders of slices and TIFF files count as scans. Few of them store the voxel size.

    Raises:
        FileError: there is no such folder, or no scan in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder of scans", "check the path")
    suffixes = SCAN_SUFFIXES if slices else VOLUME_SUFFIXES
    scans: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in suffixes if path.name.lower().endswith(s)), "")
        if path.name.startswith(".") or not (suffix or (slices and path.is_dir())):
            continue
        name = path.name[: len(path.name) - len(suffix)]
        if name in scans:
            problems.append(FileError(f"{scans[name]}: {path.name} beside it has the same name", "keep one of them"))
        scans.setdefault(name, path)
    if not scans:
        kinds = ", ".join(suffixes) + (", or folders of slices" if slices else "")
        raise FileError(f"{folder}: holds no scans ({kinds})", "check the path")
    found = ScanFolder([], {}, {}, problems)
    partners = {one: other for pair in words for one, other in (pair, pair[::-1])}
    for name, path in scans.items():
        stem, _, word = name.rpartition("_")
        partner = f"{stem}_{partners.get(word)}"
        if not stem or word not in partners:
            found.singles[name] = path
        elif partner not in scans:
            found.unpaired[path] = partner
        elif (word, partners[word]) in words:
            found.pairs.append(ScanPair(stem, path, scans[partner]))
    return found
