"""What the result of a pair depends on: its files, its options, and the program's way of aligning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from ..bone.scan_file import ABOUT_SCAN, files_of
from ..core.files import blocks_of
from ..core.jsonable import jsonable
from ..core.provenance import code_hash
from ..version import __version__
from .options import CohortOptions
from .pairs import ROLES, Pair

#: The rooms that decide what comes of a pair.
_ALIGNING = ("core", "geometry", "imaging", "bone", "networks", "registration", "cartilage", "outputs")


def way_of_aligning() -> str:
    """Identifies the program's way of aligning: its version, and a hash of all code that has a part in it."""
    return f"{__version__}+{code_hash(*_ALIGNING, 'cohort/align_files.py', 'cohort/task.py')}"


def options_of(pair: Pair, options: CohortOptions) -> str:
    """All that is said about how to align a pair, and what to write, but for the places of its files."""
    said = {f"{role}_{name}": getattr(getattr(pair, role), name) for role in ROLES for name in ABOUT_SCAN}
    for role in ROLES:
        said[f"{role}_mask"] = said[f"{role}_mask"] is not None
    said |= {one.name: getattr(options, one.name) for one in fields(options) if one.name not in ("scans", "loops")}
    said |= {"initial": pair.initial is not None, "contrast": pair.contrast or options.contrast}
    said |= {"region": pair.region is not None, "region_segment": pair.region_segment, "medial": pair.medial}
    if options.weights_file() is not None:
        said["weights"] = "a file"
    return json.dumps(jsonable(said), sort_keys=True)


def stamp(pair: Pair, options: CohortOptions) -> str:
    """Identifies the files of a pair by their names, lengths and times, which takes no reading.

    Raises:
        OSError: one is missing.
    """
    told = hashlib.sha256()
    for name, file in _files(pair, options):
        status = file.stat()
        told.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return told.hexdigest()


def content_hash(pair: Pair, options: CohortOptions) -> str:
    """Identifies the files of a pair by their content, wherever they lie and whenever they were written.

    Raises:
        OSError: one cannot be read.
    """
    told = hashlib.sha256()
    for name, file in _files(pair, options):
        told.update(f"{name}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        for block in blocks_of(file):
            told.update(block)
    return told.hexdigest()


def paths_of(pair: Pair, options: CohortOptions) -> dict[str, str | None]:
    """The files and folders that a pair is read from, by what they are; None for what is not used."""
    paths = {f"{role}_{kind}": getattr(getattr(pair, role), kind) for role in ROLES for kind in ("path", "mask")}
    return paths | {"initial": pair.initial, "region": pair.region, "weights": options.weights_file()}


def _files(pair: Pair, options: CohortOptions) -> Iterator[tuple[str, Path]]:
    """The files that a pair is read from, each with a name that does not depend on where they lie."""
    for role, root in paths_of(pair, options).items():
        if root is not None:
            yield from ((f"{role} {name}".rstrip(), file) for name, file in files_of(root))
