"""Trains the networks of each strategy, all with one budget, or takes weights that are given.

The folder of a strategy holds its training bones and the run of each network, which continues where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...core.errors import FileError, Setting, one_line
from ...core.files import atomic_write, make_folder, writing
from ...core.progress import ProgressFunction, no_progress
from ...networks.weights import load_weights
from ...training.dataset import BoneDataset, dataset_of_bones, load_dataset, save_dataset
from ...training.recipes import SIAMESE
from ...training.run import TRAINED_FOR_ONE, WEIGHTS
from ...training.scanned_bones import BoneScans
from ...training.session import TrainingOptions, iterations_within, train
from .measure import WeightsFile
from .plan import METHODS, STRATEGIES, PlannedNetwork, ScannedBone, Strategy
from .settings import DEFAULTS, EvaluationOptions

BONES = "bones.pt"
#: In the folder of a run: how many iterations take the time that it was given.
MEASURED = "measured.json"
#: At most so many validations in a run, and at most so many pairs in each.
VALIDATIONS, VALIDATION_PAIRS = 10, 32


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that is ready, with facts of its model card.

    Attributes:
        weights: its file.
        given: it was not trained here.
        iterations, batch, hours, device: of its training; None where the card does not say.
        parameters: their number.
    """

    weights: WeightsFile
    given: bool
    iterations: int | None
    batch: int | None
    hours: float | None
    device: str | None
    parameters: int

    def plain(self) -> dict[str, Any]:
        """The facts for JSON, with the hash of the weights instead of their path."""
        return {**asdict(self), "weights": self.weights.sha256}


def train_all(
    wanted: Mapping[PlannedNetwork, Path | None],
    bones: Mapping[str, ScannedBone],
    options: EvaluationOptions,
    folder: Path,
    progress: ProgressFunction = no_progress,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[PlannedNetwork, TrainedNetwork]:
    """Trains each network to its budget, unless its weights are given.

    Args:
        wanted: the file of the weights of each network, or None to train it.
        bones: of the evaluation, by name.
        options: how to train, resolved.
        folder: for all runs, made where it is missing.
        progress: called with a fraction and a message while scans are read.
        tell: called with each line about a training.

    Raises:
        ScanError: a scan cannot be used.
        FileError: given weights cannot be read, or are of another network.
        RunError: training failed.
        KeyboardInterrupt: interrupted. What was trained is kept.
    """
    ready = {}
    for number, (network, given) in enumerate(wanted.items(), 1):
        file = given
        if file is None:
            run = folder / network.strategy / network.method
            done = _iterations(run)
            if done is None or done != _budgeted(network, options, run):
                tell(f"\ntraining {number} of {len(wanted)}: {METHODS[network.method].label}, {network.strategy}")
                dataset = _dataset(STRATEGIES[network.strategy], bones, folder, options.scan_spacing, progress)
                _train(network, options, dataset, run, tell)
            file = run / WEIGHTS
        ready[network] = _trained(network, file, given=given is not None)
    return ready


def make_dataset(
    bones: Sequence[ScannedBone],
    contrast: bool,
    spacing: Sequence[float] | None = None,
    progress: ProgressFunction = no_progress,
) -> BoneDataset:
    """Resamples bones to train on: both scans of each bone, or only the one without contrast agent.

    Two scans that cannot be aligned for sure become two bones.

    Raises:
        ScanError: a scan cannot be used at all.
    """
    scans = [BoneScans(bone.name, bone.pre, bone.post if contrast else None, bone.transform) for bone in bones]
    found = dataset_of_bones(scans, scan_spacing=spacing, progress=progress, apart=True)
    return replace(found, made={"contrast": contrast})


def _dataset(
    strategy: Strategy, bones: Mapping[str, ScannedBone], folder: Path, spacing, progress: ProgressFunction
) -> Path:
    """The file of a strategy's training bones, written where it is missing."""
    path = make_folder(folder / strategy.name, parents=True) / BONES
    if not path.exists():
        of_fold = [bone for bone in bones.values() if bone.fold == strategy.train]
        save_dataset(make_dataset(of_fold, strategy.contrast, spacing, progress), path)
    return path


def _train(
    network: PlannedNetwork, evaluation: EvaluationOptions, dataset: Path, run: Path, tell: Callable[[str], None]
) -> None:
    batch = evaluation.budget(network.method)[1]
    iterations = _budgeted(network, evaluation, run)
    if iterations is None:
        iterations = _measured(network, evaluation, dataset, run)
        tell(f"{iterations} iterations take {evaluation.processor_minutes:g} minutes of processor time")
    options = _options(network, evaluation, dataset, run, iterations, batch)
    train(options, report=tell)


def _budgeted(network: PlannedNetwork, evaluation: EvaluationOptions, run: Path) -> int | None:
    """The iterations of a training; None where those that fit its time have not been measured yet."""
    if METHODS[network.method].own_budget or evaluation.processor_minutes is None:
        return evaluation.budget(network.method)[0]
    path = run / MEASURED
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["iterations"]) if path.is_file() else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "delete the folder, and the network is trained anew"
        raise FileError(f"{path}: cannot be read, or is damaged ({one_line(error)})", remedy) from error


def _measured(network: PlannedNetwork, evaluation: EvaluationOptions, dataset: Path, run: Path) -> int:
    """The iterations that fit the time, measured and kept: a training that goes on has the same."""
    batch = evaluation.budget(network.method)[1]
    seconds = 60 * evaluation.processor_minutes
    iterations = iterations_within(_options(network, evaluation, dataset, run, 1, batch), seconds)
    path = make_folder(run, parents=True) / MEASURED
    with atomic_write() as staging, writing(path):
        content = {"processor_minutes": evaluation.processor_minutes, "iterations": iterations}
        staging.path(path).write_text(json.dumps(content) + "\n", encoding="utf-8")
    return iterations


def _options(
    network: PlannedNetwork, evaluation: EvaluationOptions, dataset: Path, run: Path, iterations: int, batch: int
) -> TrainingOptions:
    strategy = STRATEGIES[network.strategy]
    name = METHODS[network.method].network
    shown = iterations * batch // TRAINED_FOR_ONE
    pairs = min(VALIDATION_PAIRS, max(4, shown))
    times = min(VALIDATIONS, max(1, shown // pairs))
    changes = {
        "bones": len(load_dataset(dataset)),
        "iterations": iterations,
        "batch": batch,
        # As in the paper, cubes lie on image centres. As in the tests, fields of view are whole.
        "placement": "center",
        "cut_share": 0.0,
        "contrast": 0.5 if strategy.contrast else 0.0,
    }
    if name in SIAMESE and iterations <= DEFAULTS["iterations"][1]:
        # A head that learns from random poses beforehand would take longer than all of a quick evaluation.
        changes["pose_pretraining"] = 0.0
    # The equivariant network is not one of the paper's.
    own = name == "equivariant"
    return TrainingOptions(
        name,
        run,
        "fast" if own else evaluation.recipe,
        changes if own else {**changes, "precision": evaluation.precision},
        seed=evaluation.seed,
        dataset=dataset,
        device=evaluation.device,
        jobs=1,
        log_every=max(1, iterations // 200),
        validation_pairs=pairs,
        validate_every=-(-iterations // times),
    )


def _iterations(run: Path) -> int | None:
    """The iterations of a run; None where it has written no weights yet."""
    card = (run / WEIGHTS).with_suffix(".json")
    try:
        return json.loads(card.read_text(encoding="utf-8")).get("iterations") if card.is_file() else None
    except (OSError, ValueError, AttributeError):
        return None


def _trained(network: PlannedNetwork, path: Path, given: bool) -> TrainedNetwork:
    loaded = load_weights(path)
    name = METHODS[network.method].network
    if loaded.network.name != name:
        problem = f"{path}: has weights of {loaded.network.name!r}, not of {name!r}"
        raise FileError(problem, "give those of the right network", Setting("weights"))
    card = loaded.card
    return TrainedNetwork(
        WeightsFile(path, card["sha256"]),
        given,
        card.get("iterations"),
        (card.get("recipe") or {}).get("batch"),
        card.get("hours"),
        card.get("device"),
        sum(parameter.numel() for parameter in loaded.network.parameters()),
    )
