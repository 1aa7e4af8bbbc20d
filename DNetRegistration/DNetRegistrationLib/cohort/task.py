"""The work on one pair, as a process of its own does it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..bone.scan_file import ABOUT_SCAN
from ..core.errors import DNetError, OptionError, ScanError, known_error, one_line
from ..core.progress import ProgressFunction, no_progress
from ..core.words import choice, sentence
from ..geometry.loops import spread_points
from ..outputs.paths import OutputPaths
from .options import CohortOptions
from .pairs import ABOUT_CARTILAGE, ROLES, Pair
from .result import PairResult, Pictures


@dataclass(frozen=True)
class PairTask:
    """A pair to align, with what the work on it needs. It can be sent to another process.

    Attributes:
        pair: the pair; it has both scans.
        options: what holds for all pairs.
        work: the folder that its outputs are written to.
        folder: where they will lie, below the folder of results.
    """

    pair: Pair
    options: CohortOptions
    work: str
    folder: str


@dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes:
        result: what came of the pair.
        lasting: it would be the same another time: it is not the failure of a process, of memory or of a package.
        content: identifies the files as they were when the work began; see `fingerprint.content_hash`.
    """

    result: PairResult
    lasting: bool
    content: str = ""


def do_pair(task: PairTask, progress: ProgressFunction = no_progress) -> Done:
    """Aligns a pair and writes its outputs. Whatever goes wrong is a result that failed."""
    from .fingerprint import content_hash

    began = time.perf_counter()
    lasting, content = True, ""
    try:
        progress(0.0, "looking at the files")
        with suppress(OSError):  # reading the scans says what is wrong with them
            content = content_hash(task.pair, task.options)
        result = _aligned(task, progress, began)
    except Exception as error:
        known = error if isinstance(error, DNetError) else known_error(error)
        told = f"unexpected {type(error).__name__}: {one_line(error)}" if known is None else known.problem
        remedy = "report it, with the scans if you can" if known is None else remedy_of(known)
        result = failed_pair(task.pair, told, remedy)
        lasting = isinstance(error, ScanError | OptionError)
    return Done(result, lasting, content)


def of_pair(result: PairResult, pair: Pair) -> PairResult:
    """The result as that of a pair: its name, paths and columns may have changed since."""
    return replace(result, **_names(pair))


def _names(pair: Pair) -> dict[str, Any]:
    """What a result holds of the pair that it is of."""
    fixed, moving = ("" if scan is None else scan.path for scan in (pair.fixed, pair.moving))
    names = {name: getattr(pair, name) for name in ("name", "identities", "columns", "given")}
    return {**names, "fixed": fixed, "moving": moving}


def remedy_of(error: DNetError) -> str:
    """What to do about an error, with the column of a list that does it; "" where that is not known.

    Example:
        >>> from DNetRegistrationLib.core.errors import Setting
        >>> remedy_of(ScanError("a.tif: has no voxel size", "give it in mm", Setting("spacing", "fixed")))
        'give it in mm, in a list as fixed_spacing'
    """
    setting = error.setting
    if not error.remedy or setting is None:
        return error.remedy or ""
    if setting.quantity in ("contrast", *ABOUT_CARTILAGE):
        return f"{error.remedy}, in a list as {setting.quantity}"
    if setting.quantity not in ABOUT_SCAN:
        return error.remedy
    roles = ROLES if setting.scan is None else (setting.scan,)
    return f"{error.remedy}, in a list as {choice([f'{role}_{setting.quantity}' for role in roles])}"


def failed_pair(pair: Pair, problem: str, remedy: str) -> PairResult:
    """The result of a pair that could not be aligned."""
    return PairResult(**_names(pair), status="failed", verdict=f"Failed: {problem}.", remedy=remedy)


def _aligned(task: PairTask, progress: ProgressFunction, began: float) -> PairResult:
    from .align_files import align_files

    pair, options = task.pair, task.options
    assert pair.fixed is not None and pair.moving is not None
    own = {name: getattr(pair, name) for name in ("initial", "contrast", *ABOUT_CARTILAGE)}
    given = options.of_alignment() | {name: value for name, value in own.items() if value is not None}
    done = align_files(
        pair.fixed, pair.moving, options.paths(Path(task.work)), lenient=True, progress=progress, **given
    )
    (alignment,), (paths,) = done.alignments, done.outputs
    outputs = _below(paths, task.folder)
    compartments: tuple[dict[str, Any], ...] = ()
    warnings = list(alignment.warnings)
    if done.unmeasured is not None:
        told = "; ".join(filter(None, (done.unmeasured.problem, remedy_of(done.unmeasured))))
        warnings.append(sentence(f"cartilage could not be measured: {told}"))
    if done.cartilage is not None:
        from ..outputs.cartilage_table import rows

        warnings += done.cartilage.warnings
        compartments = tuple(rows(done.cartilage))
    return PairResult(
        **_names(pair),
        status="accepted" if alignment.accepted else "refused",
        verdict=alignment.verdict,
        doubts=tuple(alignment.doubts),
        warnings=tuple(warnings),
        surroundings=alignment.surroundings,
        confidence=alignment.confidence,
        expected_error_um=alignment.expected_error_um,
        dice_before=alignment.dice_before,
        dice=alignment.dice,
        rotation_deg=alignment.rotation_deg,
        moved_um=1000 * float((alignment.translation_mm**2).sum() ** 0.5),
        matrix=tuple(alignment.matrix.ravel().tolist()),
        marks=done.marks,
        bone_points=tuple(spread_points(done.bone_points).ravel().tolist()) if len(done.bone_points) else (),
        hypothesis=alignment.hypothesis,
        working_spacing_um=1000 * alignment.working_spacing,
        compartments=compartments,
        seconds=time.perf_counter() - began,
        check_error_um=None if alignment.check is None else alignment.check.error_um,
        folder=task.folder,
        outputs=outputs,
        pictures=Pictures(
            **{one.name: outputs.get(_PICTURES.get(one.name, one.name)) for one in fields(Pictures)},
        ),
    )


#: Outputs that `Pictures` calls by another name.
_PICTURES = {"cartilage": "cartilage_picture"}


def _below(paths: OutputPaths, folder: str) -> dict[str, str]:
    return {name: f"{folder}/{path.name}" for name, path in paths.wanted().items()}
