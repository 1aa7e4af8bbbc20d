"""The paper's experiments as one function: from scans to trained networks, to results of pairs, to a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...core.errors import OptionError, Setting
from ...core.files import make_folder
from ...core.progress import ProgressFunction, no_progress, part
from ...networks.weights import weights_path
from ..store import ResultStore
from .cohort import CohortError, check_bones, find_bones, write_bones
from .plan import METHODS, PlannedNetwork, networks, plan
from .report import write_results
from .settings import PAIRS, SCANS, SETTINGS, TRAINING, EvaluationOptions, EvaluationRecord

#: The share of aligning in the progress of aligning and reporting.
_ALIGNING = 0.95


def evaluate(
    options: EvaluationOptions | None = None,
    /,
    *,
    progress: ProgressFunction = no_progress,
    tell: Callable[[str], None] = lambda line: None,
    spell: Callable[[EvaluationOptions], str] = repr,
    **keywords,
) -> Path | None:
    """Runs the experiments of the paper, or continues them where they were stopped, and writes tables and report.

    Networks are trained on one half of the animals and tested on the other (Sec. 2.4), beside SimpleITK as the paper
    sets it and this project's own ways (Sec. 2.5). What has been trained or measured in the folder is not done again.

    Args:
        options: all options; or None, and
        keywords: the fields of `EvaluationOptions`. Given with `options`, they replace fields of it.
        progress: called with a message and the fraction of the current stage that is done: scans, training, alignment.
        tell: called with each line about what is trained, and what is left to align.
        spell: writes the options that give these results, for the report.

    Returns:
        The path of the report, ``report.html``; None with `train_only`.

    Raises:
        OptionError: an option has a value that cannot be used.
        CohortError: scans cannot be used. Its `problems` are all that is wrong with them.
        FileError: the folder holds an evaluation of other scans or settings, or files that are damaged; or something
            cannot be written.
        DNetError: of the kind that fits, where training or the work in other processes fails.
        KeyboardInterrupt: interrupted. What was trained and measured is kept.

    Example:
        >>> evaluate(output="quick", quick=True)  # doctest: +SKIP
        PosixPath('quick/report.html')
    """
    options = EvaluationOptions(**keywords) if options is None else replace(options, **keywords)
    options = options.resolved()
    folder = make_folder(options.output, parents=True)
    record = _prepare(options, folder, spell(options), progress)
    _require_bones(record, options.subjects)
    weights = _train(record, options, folder, progress, tell)
    if options.train_only:
        return None
    _measure(record, weights, options, folder, part(progress, 0, _ALIGNING), tell)
    return write_report(folder, options.subjects, part(progress, _ALIGNING, 1))


def write_report(
    folder: str | os.PathLike,
    subjects: Sequence[str] | None = None,
    progress: ProgressFunction = no_progress,
) -> Path:
    """Writes tables, figures and report of what an evaluation has measured so far, and returns the report's path.

    Args:
        folder: of the evaluation.
        subjects: names of the bones in Fig. 5; None for the first two that were tested.
        progress: called with the fraction done and a message.

    Raises:
        OptionError: there is no bone of a name in `subjects`.
        FileError: the folder holds no results yet, or damaged ones; or something cannot be written.
    """
    record = EvaluationRecord.load(Path(folder))
    _require_bones(record, subjects)
    return write_results(record, Path(folder), subjects, progress)


def _prepare(options: EvaluationOptions, folder: Path, command: str, progress: ProgressFunction) -> EvaluationRecord:
    """Finds and checks the scans, and keeps the record of them; refuses a folder with another evaluation."""
    record = EvaluationRecord.begun(options, command)
    before = EvaluationRecord.load(folder) if (folder / SETTINGS).exists() else None
    if before is not None:
        # Before scans are made that do not belong there.
        before.require_continuable(record, folder)
        record = replace(record, trained=before.trained)
    scans = options.scans
    if not scans:
        if before is None:
            # Scans belong to this evaluation from the first one on, also when it is interrupted before the last.
            record.save(folder)
        making = part(progress, 0, 0.5)
        scans = write_bones(folder / SCANS, options.animals, options.seed, options.size, options.spacing, making)
    trained_here = [network for network, given in _networks(options).items() if given is None]
    cohort = find_bones(scans, options.seed, least=2 if trained_here else 1)
    wrong, fingerprint = check_bones(cohort.bones, options.scan_spacing, part(progress, 0.5, 1))
    problems = [*cohort.problems, *wrong]
    if problems:
        raise CohortError(problems)
    bones = {bone.name: bone for bone in cohort.bones}
    record = replace(record, options={**record.options, "fingerprint": fingerprint}, bones=bones)
    if before is not None:
        before.require_continuable(record, folder)
    record.save(folder)
    return record


def _require_bones(record: EvaluationRecord, subjects: Sequence[str] | None) -> None:
    for name in subjects or ():
        if name not in record.bones:
            known = ", ".join(list(record.bones)[:8])
            raise OptionError(f"there is no bone {name!r}", f"choose from {known}, ...", Setting("subjects"))


def _networks(options: EvaluationOptions) -> dict[PlannedNetwork, Path | None]:
    """The networks of an evaluation, each with the file of weights that is given for it, or ships."""
    found = {}
    for network in networks(options.strategies, options.methods):
        given = options.weights.get(network.name, options.weights.get(network.method, METHODS[network.method].shipped))
        found[network] = weights_path(given) if given else None
    return found


def _train(
    record: EvaluationRecord,
    options: EvaluationOptions,
    folder: Path,
    progress: ProgressFunction,
    tell: Callable[[str], None],
) -> Mapping:
    """Trains what is missing, and records it; returns the weights of each network."""
    from .training import train_all

    trained = train_all(_networks(options), record.bones, options, folder / TRAINING, progress, tell)
    record.trained.update({network.name: one.plain() for network, one in trained.items()})
    record.save(folder)
    return {network: one.weights for network, one in trained.items()}


def _measure(
    record: EvaluationRecord,
    weights: Mapping,
    options: EvaluationOptions,
    folder: Path,
    progress: ProgressFunction,
    tell: Callable[[str], None],
) -> None:
    from .measure import PairResult, measure_all, missing

    store = ResultStore(folder / PAIRS, PairResult)
    folds = {bone.name: bone.fold for bone in record.bones.values()}
    pairs = plan(folds, options.strategies, options.methods, options.tests, options.steps)
    left = missing(pairs, store, weights)
    tell(f"\n{len(pairs)} pairs of scans to align, {len(pairs) - len(left)} of them done")
    measure_all(left, record.bones, weights, store, options.jobs, options.scan_spacing, progress)
