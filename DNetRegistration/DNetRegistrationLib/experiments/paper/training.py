"""Trains the networks of each strategy by the ``train`` command, all with one budget; or takes weights that were given.

Each strategy's folder holds its bank of bones and a run of ``train`` for each network, which goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.console import say
from ...core.errors import ScanError
from ...core.files import make_folder
from ...networks.weights import load_weights
from ...training.bank import BANK_SPACING, EDGE, Bank, save_bank, stored
from ...training.bank_scans import Entry, resampled
from ...training.run import WEIGHTS
from .cohort import Bone
from .measure import Weights
from .plan import METHODS, STRATEGIES, Network, Strategy

BANK = "bones.pt"
#: Most validations in the course of a run, most pairs of each, and pairs that are trained on for one that validates.
VALIDATIONS, VALIDATION_PAIRS, TRAINED_FOR_ONE = 10, 32, 8


@dataclass(frozen=True)
class Budget:
    """For how long a network is trained: steps of the optimizer, and pairs of each."""

    iterations: int
    batch: int

    @property
    def pairs(self) -> int:
        return self.iterations * self.batch


@dataclass(frozen=True)
class Training:
    """How networks are trained.

    Attributes:
        recipe: of the ``train`` command.
        budget: of all networks.
        own: of those that have a budget of their own.
        seed: of weights and pairs.
        device: to train on.
        precision: of `recipes.PRECISIONS`, for the networks of the paper.
    """

    recipe: str
    budget: Budget
    own: Budget
    seed: int
    device: str
    precision: str = "auto"

    def of(self, method: str) -> Budget:
        """The budget of a method's network."""
        return self.own if METHODS[method].own_budget else self.budget


@dataclass(frozen=True)
class Trained:
    """A network that is ready, and what its model card tells.

    Attributes:
        weights: its file.
        given: it was not trained here.
        iterations, batch, hours, device: of the training, as far as they are known.
        parameters: how many it has.
    """

    weights: Weights
    given: bool
    iterations: int | None
    batch: int | None
    hours: float | None
    device: str | None
    parameters: int

    def plain(self) -> dict[str, Any]:
        """For JSON, without the path."""
        return {**asdict(self), "weights": self.weights.sha256}


def train_all(
    wanted: Sequence[Network],
    bones: Mapping[str, Bone],
    training: Training,
    folder: Path,
    given: Mapping[str, Path],
    spacing=None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> dict[Network, Trained]:
    """Every network of `wanted`, trained to its budget or given.

    Args:
        wanted: networks.
        bones: of the evaluation, by name.
        training: how to train.
        folder: for all runs, made where it is missing.
        given: weights files by the name of a network or of a method.
        spacing: true voxel size of the scans in mm, where files lack it.
        progress: called with a fraction and a message while scans are read.

    Raises:
        ScanError: weights are of another network, scans cannot be used, or training failed.
        KeyboardInterrupt: interrupted; what was trained is kept.
    """
    ready = {}
    for number, network in enumerate(wanted, 1):
        file = given.get(network.name, given.get(network.method))
        if file is None:
            budget = training.of(network.method)
            run = folder / network.strategy / network.method
            if _iterations(run) != budget.iterations:
                say(f"\ntraining {number} of {len(wanted)}: {METHODS[network.method].label}, {network.strategy}")
                bank = _bank(STRATEGIES[network.strategy], bones, folder, spacing, progress)
                _train(network, training, bank, run)
            file = run / WEIGHTS
        ready[network] = _trained(network, file, given=file != folder / network.strategy / network.method / WEIGHTS)
    return ready


def entries(bones: Sequence[Bone], contrast: bool) -> list[Entry]:
    """Bones as the bank reads them: both scans of each, or only the one without contrast agent."""
    found = []
    for bone in bones:
        # The bank looks for the transform beside the first scan, under the entry's name.
        beside = bone.transform is not None and bone.transform == bone.pre.with_name(f"{bone.transform.stem}.tfm")
        name = bone.transform.stem if beside and contrast else bone.name
        found.append(Entry(name, bone.pre, bone.post if contrast else None))
    return found


def make_bank(
    bones: Sequence[Bone],
    contrast: bool,
    spacing=None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> Bank:
    """Bones to train on; where two scans of one cannot be laid on each other for sure, each is a bone of its own.

    Raises:
        ScanError: a scan cannot be used at all.
    """
    size = round(EDGE / BANK_SPACING)
    read, names = [], []
    todo = entries(bones, contrast)
    for number, entry in enumerate(todo):
        progress(number / len(todo), f"reading {entry.name} to train on")
        try:
            read.append(resampled(entry, size, BANK_SPACING, spacing))
            names.append(entry.name)
        except ScanError:
            if entry.contrast is None:
                raise
            for scan in (entry.plain, entry.contrast):
                read.append(resampled(Entry(scan.name, scan), size, BANK_SPACING, spacing))
                names.append(scan.name)
    plain, with_contrast = (torch.stack([stored(bone.values[side]) for bone in read]) for side in (0, 1))
    fields = torch.from_numpy(np.stack([bone.fields for bone in read]))
    return Bank(plain, with_contrast, BANK_SPACING, names, fields, {"contrast": contrast})


def _bank(
    strategy: Strategy, bones: Mapping[str, Bone], folder: Path, spacing, progress: Callable[[float, str], None]
) -> Path:
    """The file of a strategy's bones, made where it is missing."""
    path = make_folder(folder / strategy.name, parents=True) / BANK
    if not path.exists():
        of_fold = [bone for bone in bones.values() if bone.fold == strategy.train]
        save_bank(make_bank(of_fold, strategy.contrast, spacing, progress), path)
    return path


def _train(network: Network, training: Training, bank: Path, run: Path) -> None:
    from ...cli import train as command
    from ...cli.arguments import Parser
    from ...training.bank import load_bank
    from ...training.command import run_train

    budget = training.of(network.method)
    strategy = STRATEGIES[network.strategy]
    words = ["train", "--network", METHODS[network.method].network, "--output", str(run), "--bank", str(bank)]
    words += ["--bones", str(len(load_bank(bank))), "--seed", str(training.seed), "--device", training.device]
    words += ["--iterations", str(budget.iterations), "--batch", str(budget.batch), "--jobs", "1"]
    # As the tests have them: cubes on images' centres, whole fields of view.
    words += ["--placement", "center", "--cut-share", "0", "--contrast", "0.5" if strategy.contrast else "0"]
    words += ["--log-every", str(max(1, budget.iterations // 200))]
    pairs = min(VALIDATION_PAIRS, max(4, budget.pairs // TRAINED_FOR_ONE))
    times = min(VALIDATIONS, max(1, budget.pairs // TRAINED_FOR_ONE // pairs))
    words += ["--validation-pairs", str(pairs), "--validate-every", str(-(-budget.iterations // times))]
    # The equivariant network is not one of the paper's.
    own = METHODS[network.method].network == "equivariant"
    words += ["--recipe", "fast"] if own else ["--recipe", training.recipe, "--precision", training.precision]
    parser = Parser()
    command.add_parser(parser.add_subparsers()).add_argument("--verbose", action="store_true")
    run_train(parser.parse_args(words))


def _iterations(run: Path) -> int | None:
    """How many the run has made; None where it has left no weights yet."""
    card = (run / WEIGHTS).with_suffix(".json")
    try:
        return json.loads(card.read_text(encoding="utf-8")).get("iterations") if card.is_file() else None
    except (OSError, ValueError, AttributeError):
        return None


def _trained(network: Network, path: Path, given: bool) -> Trained:
    loaded = load_weights(path)
    name = METHODS[network.method].network
    if loaded.network.name != name:
        raise ScanError(f"{path}: has weights of {loaded.network.name!r}, not of {name!r}; give others with --weights")
    card = loaded.card
    return Trained(
        Weights(path, card["sha256"]),
        given,
        card.get("iterations"),
        (card.get("recipe") or {}).get("batch"),
        card.get("hours"),
        card.get("device"),
        sum(parameter.numel() for parameter in loaded.network.parameters()),
    )
