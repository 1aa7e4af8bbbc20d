"""All scans of a bone on one reference: the transforms of pairs, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..bone.scan_file import ScanFile
from ..core.files import atomic_write
from ..geometry.transform_files import write_transform_at
from .pairs import ROLES
from .result import PairResult


def to_reference(
    pair: PairResult, reference: str, aligned: Mapping[tuple[str, str], PairResult]
) -> dict[str, np.ndarray]:
    """The transforms that carry both scans of a pair onto the reference of their bone, by "fixed" and "moving".

    That of the fixed scan is found directly; that of the moving scan is put together of it and the pair's own. Either
    is left out where one of its parts is not accepted or a loop speaks against it.

    Args:
        pair: of the cohort.
        reference: identity of the scan that they are carried onto.
        aligned: pairs of the cohort and those that close loops, by the identities of their scans.

    Returns:
        ``(4, 4)`` each: points of the reference to points of the scan, LPS mm.
    """
    fixed = pair.identities[0]
    if reference == fixed:
        first = np.eye(4)
    elif (reference, fixed) in aligned and _sound(aligned[reference, fixed]):
        first = _matrix(aligned[reference, fixed])
    elif (fixed, reference) in aligned and _sound(aligned[fixed, reference]):
        first = np.linalg.inv(_matrix(aligned[fixed, reference]))
    else:
        return {}
    return {"fixed": first} | ({"moving": _matrix(pair) @ first} if _sound(pair) else {})


def on_reference(
    pairs: Sequence[PairResult],
    closing: Sequence[PairResult],
    references: Mapping[str, ScanFile],
    place: Path,
    ending: str | None,
) -> tuple[PairResult, ...]:
    """Writes the transforms to the reference into the folders of pairs; returns the pairs with them among the outputs.

    Args:
        pairs: of the cohort.
        closing: those that close loops.
        references: the reference by the name of the pair; see `closing.references`.
        place: the folder of results.
        ending: of the files; None to write none.

    Raises:
        FileError: one cannot be written.
    """
    aligned = {one.identities: one for one in (*closing, *pairs)}
    told = []
    for pair in pairs:
        if ending is None or not pair.folder:
            told.append(pair)
            continue
        reference = references.get(pair.name)
        found = {} if reference is None else to_reference(pair, reference.identity, aligned)
        files = {role: f"{pair.folder}/{role}-to-reference{ending}" for role in ROLES}
        with atomic_write() as staging:
            for role, matrix in found.items():
                path = place / files[role]
                write_transform_at(matrix, staging.path(path), path)
        for role in ROLES:
            if role not in found:  # one of an earlier run
                (place / files[role]).unlink(missing_ok=True)
        outputs = pair.outputs | {f"{role}_to_reference": files[role] for role in found}
        told.append(replace(pair, outputs=outputs, reference=reference.path if found and reference is not None else ""))
    return tuple(told)


def _sound(pair: PairResult) -> bool:
    return pair.status == "accepted" and "loop" not in pair.doubts


def _matrix(pair: PairResult) -> np.ndarray:
    return np.reshape(pair.matrix, (4, 4))
