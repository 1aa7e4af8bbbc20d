"""``dnet-registration evaluate``: from scans to trained networks, to results of pairs, to a report."""

from __future__ import annotations

import json
import os
import platform
import shlex
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.console import Progress, say
from ...core.errors import OptionError, ScanError
from ...core.files import make_folder
from ...version import PROGRAM
from .cohort import check_bones, find_bones
from .plan import METHODS, STEPS, STRATEGIES, TESTS, networks, plan
from .settings import PAIRS, SCANS, SETTINGS, TRAINING, Evaluation

#: What is taken where an option is not given: as it is, and with --quick.
DEFAULTS = {
    "animals": (16, 4), "size": (128, 64), "spacing": (0.04, 0.08), "steps": (STEPS, 5), "iterations": (1000, 4),
    "batch": (8, 2), "own_iterations": (300, 2), "own_batch": (16, 2), "strategies": (tuple(STRATEGIES), ("S1", "S3")),
}  # fmt: skip
#: What must be the same for an evaluation to be gone on with.
_FIXED = ("scans", "seed", "steps", "recipe", "precision", "batch", "own_batch")
_FIXED_IF_MADE_UP = ("animals", "size", "spacing")


def run_evaluate(options: Namespace) -> int:
    """Evaluates, or goes on with it, and writes the report; 0 when that is done."""
    folder = Path(options.output)
    if options.report_only:
        _report(Evaluation.load(folder), folder, options)
        return 0
    for name, (usual, quick) in DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
    given = _given_weights(options)
    make_folder(folder, parents=True)
    with Progress(options.verbose) as progress:
        evaluation = _prepared(options, folder, given, progress)
    trained = _train(evaluation, options, folder, given)
    if options.train_only:
        return 0
    _measure(evaluation, trained, options, folder)
    _report(evaluation, folder, options)
    return 0


def _given_weights(options: Namespace) -> dict[str, Path]:
    given = {}
    for name, path in options.weights:
        if not Path(path).is_file():
            raise ScanError(f"--weights {name}={path}: there is no such file; check the path")
        given[name] = Path(path)
    return given


def _prepared(options: Namespace, folder: Path, given: Mapping[str, Path], progress: Progress) -> Evaluation:
    """The scans found and checked, and the settings kept; the same as those that are there, if any are."""
    settings = {
        **{name: getattr(options, name) for name in (*DEFAULTS, "seed", "methods", "tests", "recipe", "precision")},
        "scans": [Path(path).name for path in options.scans],
        "scan_spacing": options.scan_spacing,
    }
    settings = json.loads(json.dumps(settings))  # tuples are lists from here on, as when read again
    before = Evaluation.load(folder) if (folder / SETTINGS).exists() else None
    if before is not None:
        # Before a scan is made up that does not belong there.
        _require_same(before, settings, (*_FIXED, *(() if options.scans else _FIXED_IF_MADE_UP)), folder)
    needed = [n for n in networks(options.strategies, options.methods) if not {n.name, n.method} & given.keys()]
    scans = options.scans
    if not scans:
        from .synthetic import write_bones

        if before is None:
            # What is made up from now on is this evaluation's, also when it ends in between.
            before = Evaluation({**settings, "fingerprint": None}, {}, {}, _machine(options.jobs), _command(options))
            before.save(folder)
        scans = write_bones(
            folder / SCANS, options.animals, options.seed, options.size, options.spacing, progress.part(0, 0.5)
        )
    found = find_bones(scans, options.seed, least=2 if needed else 1)
    wrong, settings["fingerprint"] = check_bones(found.bones, options.scan_spacing, progress.part(0.5, 1))
    problems = [*found.problems, *wrong]
    if problems:
        for problem in problems:
            say(f"- {problem}")
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ScanError(
            f"{count} with the scans, in the list above; mend {'them' if len(problems) > 1 else 'it'} first"
        )
    if before is not None and before.options["fingerprint"] is not None:
        _require_same(before, settings, ("fingerprint",), folder)
    trained = {} if before is None else before.trained
    evaluation = Evaluation(
        settings, {bone.name: bone for bone in found.bones}, trained, _machine(options.jobs), _command(options)
    )
    evaluation.save(folder)
    return evaluation


def _require_same(before: Evaluation, settings: dict[str, Any], names: tuple[str, ...], folder: Path) -> None:
    for name in names:
        if before.options.get(name) != settings[name]:
            what = "voxels in its scans" if name == "fingerprint" else f"--{name.replace('_', '-')}"
            what = "scans" if name == "scans" else what
            raise ScanError(f"{folder}: holds an evaluation with other {what}; give another --output")


def _train(evaluation: Evaluation, options: Namespace, folder: Path, given: Mapping[str, Path]):
    from .training import Budget, Training, train_all

    training = Training(
        options.recipe,
        Budget(options.iterations, options.batch),
        Budget(options.own_iterations, options.own_batch),
        options.seed,
        options.device,
        options.precision,
    )
    with Progress(options.verbose) as progress:
        trained = train_all(
            networks(options.strategies, options.methods),
            evaluation.bones,
            training,
            folder / TRAINING,
            given,
            options.scan_spacing,
            progress,
        )
    evaluation.trained.update({network.name: one.plain() for network, one in trained.items()})
    evaluation.save(folder)
    return trained


def _measure(evaluation: Evaluation, trained, options: Namespace, folder: Path) -> None:
    from ..store import ResultStore
    from .measure import PairResult, measure_all, missing

    store = ResultStore(folder / PAIRS, PairResult)
    folds = {bone.name: bone.fold for bone in evaluation.bones.values()}
    tasks = plan(folds, options.strategies, options.methods, options.tests, options.steps)
    weights = {network: one.weights for network, one in trained.items()}
    left = missing(tasks, store, weights)
    say(f"\n{len(tasks)} pairs of scans to align, {len(tasks) - len(left)} of them done")
    with Progress(options.verbose) as progress:
        measure_all(left, evaluation.bones, weights, store, options.jobs, options.scan_spacing, progress)


def _report(evaluation: Evaluation, folder: Path, options: Namespace) -> None:
    from .report import write_results

    with Progress(options.verbose) as progress:
        report = write_results(evaluation, folder, _subjects(evaluation, options), progress)
    say(f"tables, figures and report are in {folder}; open {report}")


def _subjects(evaluation: Evaluation, options: Namespace) -> list[str] | None:
    """The bones of Fig. 5 that were asked for."""
    if options.subjects is None:
        return None
    names = [name.strip() for name in options.subjects.split(",")]
    for name in names:
        if name not in evaluation.bones:
            known = ", ".join(list(evaluation.bones)[:8])
            raise OptionError(f"--subjects: there is no bone {name!r}; choose from {known}, ...")
    return names


def _machine(jobs: int) -> str:
    return f"{platform.machine()}, {os.cpu_count()} processors, {jobs} processes; Python {platform.python_version()}"


def _command(options: Namespace) -> str:
    """The command line that gives these options; of paths the last part, since a report travels."""
    words = [PROGRAM, "evaluate", *(Path(path).name for path in options.scans)]
    for name in (*DEFAULTS, "seed", "recipe", "precision"):
        if name == "strategies" or (options.scans and name in ("animals", "size", "spacing")):
            continue
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    if options.scan_spacing:
        words += ["--scan-spacing", ",".join(f"{value:g}" for value in options.scan_spacing)]
    for name, known in (("strategies", STRATEGIES), ("methods", METHODS), ("tests", TESTS)):
        if len(getattr(options, name)) < len(known):
            words += [f"--{name}", ",".join(getattr(options, name))]
    for name, path in options.weights:
        words += ["--weights", f"{name}={Path(path).name}"]
    return shlex.join([*words, "--output", Path(options.output).name])
