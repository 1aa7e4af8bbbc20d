"""The paper's experiments as one function: from scans to trained networks, to results of pairs, to a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...core.errors import OptionError, Setting
from ...core.files import make_folder
from ...core.progress import Progress, say
from ..store import ResultStore
from .cohort import CohortError, check_bones, find_bones
from .plan import PlannedNetwork, networks, plan
from .report import write_results
from .settings import PAIRS, SCANS, SETTINGS, TRAINING, EvaluationOptions, EvaluationRecord


def evaluate(options: EvaluationOptions | None = None, /, **keywords) -> Path | None:
    """Runs the experiments of the paper, or continues them where they were stopped, and writes tables and report.

    Networks are trained on one half of the animals and tested on the other (Sec. 2.4), beside SimpleITK as the paper
    sets it and this project's own ways (Sec. 2.5). What has been trained or measured in the folder is not done again.
    Prints what it does.

    Args:
        options: all options; or None, and
        keywords: the fields of `EvaluationOptions`. Given with `options`, they replace fields of it.

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
    record = _prepare(options, folder)
    _require_bones(record, options.subjects)
    weights = _train(record, options, folder)
    if options.train_only:
        return None
    _measure(record, weights, options, folder)
    return write_report(folder, options.subjects, options.verbose)


def write_report(folder: str | os.PathLike, subjects: Sequence[str] | None = None, verbose: bool = False) -> Path:
    """Writes tables, figures and report of what an evaluation has measured so far, and returns the report's path.

    Args:
        folder: of the evaluation.
        subjects: names of the bones in Fig. 5; None for the first two that were tested.
        verbose: print a line for each stage where no terminal shows the progress.

    Raises:
        OptionError: there is no bone of a name in `subjects`.
        FileError: the folder holds no results yet, or damaged ones; or something cannot be written.
    """
    folder = Path(folder)
    record = EvaluationRecord.load(folder)
    _require_bones(record, subjects)
    with Progress(verbose) as progress:
        report = write_results(record, folder, subjects, progress)
    say(f"tables, figures and report are in {folder}; open {report}")
    return report


def _prepare(options: EvaluationOptions, folder: Path) -> EvaluationRecord:
    """Finds and checks the scans, and keeps the record of them; refuses a folder with another evaluation."""
    record = EvaluationRecord.begun(options)
    before = EvaluationRecord.load(folder) if (folder / SETTINGS).exists() else None
    if before is not None:
        # Before scans are made that do not belong there.
        before.require_continuable(record, folder)
        record = replace(record, trained=before.trained)
    trained_here = [one for one in _networks(options) if _given(options, one) is None]
    with Progress(options.verbose) as progress:
        scans = options.scans
        if not scans:
            from .synthetic import write_bones

            if before is None:
                # Scans belong to this evaluation from the first one on, also when it is interrupted before the last.
                record.save(folder)
            scans = write_bones(
                folder / SCANS, options.animals, options.seed, options.size, options.spacing, progress.part(0, 0.5)
            )
        cohort = find_bones(scans, options.seed, least=2 if trained_here else 1)
        wrong, fingerprint = check_bones(cohort.bones, options.scan_spacing, progress.part(0.5, 1))
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


def _networks(options: EvaluationOptions) -> list[PlannedNetwork]:
    return networks(options.strategies, options.methods)


def _given(options: EvaluationOptions, network: PlannedNetwork) -> Path | None:
    """The file of weights that the options give for a network."""
    path = options.weights.get(network.name, options.weights.get(network.method))
    return None if path is None else Path(path)


def _train(record: EvaluationRecord, options: EvaluationOptions, folder: Path):
    """Trains what is missing, and records it; returns the weights of each network."""
    from .training import Budget, TrainingPlan, train_all

    training = TrainingPlan(
        options.recipe,
        Budget(options.iterations, options.batch),
        Budget(options.own_iterations, options.own_batch),
        options.seed,
        options.device,
        options.precision,
    )
    wanted = {network: _given(options, network) for network in _networks(options)}
    with Progress(options.verbose) as progress:
        trained = train_all(wanted, record.bones, training, folder / TRAINING, options.scan_spacing, progress)
    record.trained.update({network.name: one.plain() for network, one in trained.items()})
    record.save(folder)
    return {network: one.weights for network, one in trained.items()}


def _measure(record: EvaluationRecord, weights: Mapping, options: EvaluationOptions, folder: Path) -> None:
    from .measure import PairResult, measure_all, missing

    store = ResultStore(folder / PAIRS, PairResult)
    folds = {bone.name: bone.fold for bone in record.bones.values()}
    pairs = plan(folds, options.strategies, options.methods, options.tests, options.steps)
    left = missing(pairs, store, weights)
    say(f"\n{len(pairs)} pairs of scans to align, {len(pairs) - len(left)} of them done")
    with Progress(options.verbose) as progress:
        measure_all(left, record.bones, weights, store, options.jobs, options.scan_spacing, progress)
