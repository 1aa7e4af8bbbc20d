"""Trains a network: from options to checkpoint, weights, logs and curves.

Needs torch and NumPy only, unless it trains on a user's scans or draws curves.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..core.errors import FileError, OptionError, RunError, Setting
from ..core.files import atomic_write, make_folder
from ..core.pictures import require_matplotlib
from ..core.progress import ProgressFunction, no_progress
from ..core.threads import available_processors, torch_threads
from ..core.words import counted
from ..networks.contract import Network
from ..networks.registry import build
from ..networks.weights import LoadedWeights, load_weights
from ..registration.devices import choose_device
from . import checkpoints
from .checkpoints import Checkpoint
from .curves import draw_curves
from .dataset import BoneDataset, dataset_of_scans, load_dataset, save_dataset, synthetic_dataset
from .distributed import Processes, launched
from .hardware import describe, keep_freed_memory, precision_on, room_for_pairs, slow_precision, wait_for
from .optimizers import require_muon
from .pairs import PairSource
from .recipes import KINDS, MATCHING, NO_CURRICULUM, SIAMESE, Recipe, recipe_for, recipe_options
from .run import LOG, VALIDATION, WEIGHTS, Pace, Run
from .trainer import Trainer

HELD_OUT = 0.125  # share of the bones that are for validation only
CURVES = "curves.png"
# Iterations of a made-up run that tells apart the shares of stages, and those that are timed at each resolution.
_STAGED, _TIMED = 1000, 2
# Weights that were trained once are trained on with this share of the learning rate. Six iterations from the D-net that
# ships took its median error from 7.2 degrees to 20 at the whole rate, 10.5 at a fifth and 7.8 at a twentieth.
LATER_RATE = 0.05


@dataclass(frozen=True)
class TrainingOptions(Pace):
    """What to train, on what, how, where, and at which pace.

    Attributes:
        network: "equivariant", or one of the paper's five: "dnet", "snl-sed", "sed", "se", "me".
        output: the folder of the run, made where it is missing. A run that was begun there continues.
        recipe: "fast", or "paper" as published.
        changes: fields of `recipes.Recipe` that differ from the recipe's, by name. In "resolution_schedule" None keeps
            an item as it is.
        start: weights to begin with: a file, or the name of weights that ship. Then the recipe's easy starts are left
            out: all begin with the motion, any rotation and whole cubes. So is most of its learning rate, which would
            undo what the weights have learned. Cubes lie where the weights have learned to see them.
        seed: of weights, bones and pairs.
        scans: a folder of the user's scans, to be trained on instead of synthetic bones, see
            `dataset.dataset_of_scans`.
        scan_spacing: their voxel size in mm where files lack it, a tuple of one number or three.
        dataset: a file that keeps the synthetic bones; it is made where it is missing.
        device: "auto", "cpu", "cuda" or "cuda:1".
        jobs: processes that make synthetic bones; None for all processors.
        threads: of the CPU to train with; None for as many as there are processors, or as torch is set to.
        half: write weights in half precision, half the size.
        plot: draw the curves too; needs matplotlib.
        log_every, validate_every, validation_pairs, checkpoint_minutes, minutes: see `run.Pace`.
    """

    network: str
    output: str | os.PathLike
    recipe: str = "fast"
    changes: Mapping[str, Any] = field(default_factory=dict)
    start: str | os.PathLike | None = None
    seed: int = 0
    scans: str | os.PathLike | None = None
    scan_spacing: tuple[float, ...] | None = None
    dataset: str | os.PathLike | None = None
    device: str = "auto"
    jobs: int | None = None
    threads: int | None = None
    half: bool = False
    plot: bool = False

    def decided_recipe(self, start: LoadedWeights | None = None) -> Recipe:
        """The recipe with what `start` leaves out and with the `changes`.

        Args:
            start: the weights to begin with, where they are loaded already.

        Raises:
            OptionError: there is no such recipe or field, a value is out of range, or it is not for this network.
            FileError: the weights to begin with cannot be read.
        """
        recipe = recipe_for(self.recipe, self.network)
        if self.start is not None:
            recipe = replace(recipe, **NO_CURRICULUM, learning_rate=_later(recipe.learning_rate))
            if "placement" not in self.changes:
                start = load_weights(self.start) if start is None else start
                recipe = replace(recipe, placement=start.placement)
        changes = dict(self.changes)
        for name in changes:
            if name not in recipe_options():
                raise OptionError(f"a recipe has no {name!r}", f"change some of {', '.join(recipe_options())}")
        _require_fitting_loss(changes.get("loss"), self.network)
        shares = changes.get("resolution_schedule")
        if isinstance(shares, list | tuple) and len(shares) == len(recipe.resolution_schedule):
            items = zip(recipe.resolution_schedule, shares, strict=True)
            changes["resolution_schedule"] = tuple(kept if new is None else new for kept, new in items)
        if self.network not in SIAMESE:
            for name, cannot in _SIAMESE_ALONE.items():
                if name in changes and changes[name] != NO_CURRICULUM[name]:
                    raise OptionError(f"{name}: the network {self.network!r} {cannot}", "leave it out", Setting(name))
        if self.scans is not None:
            for name in ("dataset", "bones", "kinds"):
                if name in changes or (name == "dataset" and self.dataset is not None):
                    problem = f"{name}: is of synthetic bones, not of scans"
                    raise OptionError(problem, "leave one of the two out", Setting(name))
        return replace(recipe, **changes)


_SIAMESE_ALONE = {"pose_pretraining": "has no pose of each scan", "resolution_schedule": "sees whole cubes alone"}


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind.

    Attributes:
        weights: the weights file; its model card lies beside it.
        finished: all iterations were made; otherwise the time was up.
        iterations: how many were made.
        validation: the last figures, by the kind of views ("whole", "cut"), see `validation.Figures`.
        rank: of this process among those that trained together; 0 also where it trained alone.
    """

    weights: Path
    finished: bool
    iterations: int
    validation: dict[str, dict[str, Any]]
    rank: int = 0


def train(
    options: TrainingOptions,
    *,
    progress: ProgressFunction | None = None,
    report: Callable[[str], None] = lambda line: None,
    spell: Callable[[TrainingOptions], str] = repr,
) -> TrainingResult:
    """Trains a network, or continues a training; writes checkpoint, weights with their model card, logs and curves.

    Args:
        options: what to do.
        progress: called with a fraction and a message while bones are made or read.
        report: called with each line that tells how it goes.
        spell: words options for the model card, as what to do to train so again and to train on.

    Raises:
        OptionError: options do not fit each other, the network or the device.
        FileError: the folder, weights or bones cannot be used, or hold a run with other options.
        ScanError: a scan cannot be used.
        PackageError: matplotlib or Muon is missing.
        RunError: training failed, or there is too little memory.
        KeyboardInterrupt: interrupted; checkpoint and weights are there.

    Example:
        >>> from DNetRegistrationLib import TrainingOptions, train
        >>> options = TrainingOptions("equivariant", "runs/mine", start="equivariant", scans="my-scans",
        ...     changes={"iterations": 300, "learning_rate": 2e-4})
        >>> train(options, report=print).weights  # doctest: +SKIP
        PosixPath('runs/mine/weights.pt')
    """
    start = _loaded_start(options)
    recipe = options.decided_recipe(start)
    if options.plot:
        require_matplotlib("a plot of the curves")
    if recipe.optimizer == "muon":
        require_muon()
    with launched(options.device) as processes, torch_threads(options.threads):
        report = report if processes.first else (lambda line: None)
        progress = progress if processes.first and progress is not None else no_progress
        run = _prepared(options, recipe, start, processes, progress, report, spell)
        try:
            with _enough_memory(run.recipe.micro_batch):
                finished = run.go()
        finally:
            # Also of an interrupted run.
            if options.plot and processes.first:
                title = f"{options.network}, recipe {recipe.name}"
                with atomic_write() as staging:
                    rows = run.log.rows
                    stages = {run.recipe.stage_at(row["iteration"]) for row in rows[1:]} - {0, 1}
                    draw_curves(rows, run.validations.rows, staging.path(run.folder / CURVES), title, stages)
    if not finished:
        report("the time is up before all iterations were made; the same options go on from there")
    last = {line["views"]: line for line in run.validations.rows}
    return TrainingResult(run.folder / WEIGHTS, finished, run.trainer.iteration, last, processes.rank)


def iterations_within(options: TrainingOptions, seconds: float) -> int:
    """How many iterations, one at least, take so long, with the shares that the recipe gives to its stages.

    On a processor it is the processor's time that counts, of all threads, so that other work beside it changes little;
    on a GPU it is time that passes. Some iterations of each resolution are made and timed. Making bones, the head of
    the pose stage and validation are not counted.

    Args:
        options: of the training, which has not begun. How many iterations they ask for does not matter.
        seconds: the time.

    Raises:
        DNetError: as `train`.
    """
    start, processes = _loaded_start(options), Processes()
    recipe = replace(options.decided_recipe(start), iterations=_STAGED)
    device = _prepared_device(options.device, processes)
    network, _ = _network(options, start)
    recipe = recipe.in_micro_batches(1, room_for_pairs(device))
    bones, _ = _bones(options, recipe, device, processes, no_progress).split(HELD_OUT, options.seed)

    def clock() -> float:
        wait_for(device)
        return time.process_time() if device.type == "cpu" else time.perf_counter()

    with torch_threads(options.threads):
        trainer = Trainer(network, recipe, _pairs(bones, recipe, options.seed), device, options.seed)
        mean, began = 0.0, 0
        for share in recipe.reductions_from(0).values():
            if share:
                # The first one warms up.
                mean += share / _STAGED * min([trainer.cost(began, clock) for _ in range(1 + _TIMED)][1:])
            began += share
    return max(1, round(seconds / mean))


def _prepared(
    options: TrainingOptions,
    recipe: Recipe,
    weights: LoadedWeights | None,
    processes: Processes,
    progress: ProgressFunction,
    report: Callable[[str], None],
    spell: Callable[[TrainingOptions], str],
) -> Run:
    """The run of these options, new or continued; reports a line about it, and one about a slow precision."""
    device = _prepared_device(options.device, processes)
    if processes.first and (slow := slow_precision(device, precision_on(device, recipe.precision))):
        report(slow)
    folder = make_folder(options.output, parents=True)
    network, start = _network(options, weights)
    settings = _settings(options, recipe, start)
    checkpoint = _checkpoint(folder, settings, processes)
    if checkpoint is not None and "micro_batch" not in options.changes:
        recipe = replace(recipe, micro_batch=checkpoint.micro_batch)
    recipe = recipe.in_micro_batches(processes.count, room_for_pairs(device))
    bones = _bones(options, recipe, device, processes, progress, report)
    settings["dataset"] = _description(bones)
    if checkpoint is not None:
        _require_same(checkpoint.settings, settings, folder)
    training, held_out = bones.split(HELD_OUT, options.seed)
    pairs = _pairs(training, recipe, _seed_of_pairs(options.seed, start))
    if checkpoint is None and start is None and network.pairs_to_fit:
        network.to(device).fit(pairs.draw(0, network.pairs_to_fit))
    run = Run(
        Trainer(network, recipe, pairs, device, options.seed, processes),
        _validation(held_out, recipe, options.seed),
        folder,
        settings,
        options,
        card={
            "seed": options.seed,
            "dataset": settings["dataset"],
            "start": start,
            "command": spell(_as_run(options, recipe, folder)),
            "go_on": spell(_to_train_on(options, recipe, start, folder)),
        },
        checkpoint=checkpoint,
        half=options.half,
        report=report,
    )
    report(f"{_in_words(run)}; {counted(len(training), 'bone')}, {len(held_out)} more for validation")
    if checkpoint is not None:
        report(f"going on from iteration {run.trainer.iteration} in {folder}")
    return run


def _in_words(run: Run) -> str:
    network, recipe, processes = run.trainer.network, run.recipe, run.processes
    count = sum(p.numel() for p in network.parameters())
    several = f" in each of {processes.count} processes" if processes.count > 1 else ""
    return (
        f"{network.name} ({count:,} parameters), recipe {recipe.name}: "
        f"{counted(recipe.iterations, 'iteration')} of {counted(recipe.batch, 'pair')} in micro-batches of "
        f"{recipe.micro_batch}, on {describe(run.trainer.device)}{several}"
    )


def _require_fitting_loss(loss: str | None, network: str) -> None:
    if loss is not None and (loss == MATCHING) != (network == "equivariant"):
        raise OptionError(f"loss: {loss!r} is not for the network {network!r}", "leave it out", Setting("loss"))


def _prepared_device(name: str, processes: Processes) -> torch.device:
    device = choose_device(name, ("cpu", "cuda"), processes.local)
    # All micro-batches have one shape: the fastest kernels are worth looking for.
    torch.backends.cudnn.benchmark = device.type == "cuda"
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _loaded_start(options: TrainingOptions) -> LoadedWeights | None:
    """The weights to begin with; None where there are none."""
    if options.start is None:
        return None
    loaded = load_weights(options.start)
    if loaded.network.name != options.network:
        raise FileError(
            f"{options.start}: has weights of {loaded.network.name!r}, not of {options.network!r}",
            "start from others, or choose that network",
            Setting("start"),
        )
    return loaded


def _network(options: TrainingOptions, start: LoadedWeights | None) -> tuple[Network, dict[str, Any] | None]:
    """The network as it begins, the same in all processes, and the card of the weights that it begins with."""
    torch.manual_seed(options.seed)
    return (build(options.network), None) if start is None else start


def _settings(options: TrainingOptions, recipe: Recipe, start: dict[str, Any] | None) -> dict[str, Any]:
    """What must be the same for a run to continue, by name."""
    decided = asdict(recipe)
    # Micro-batches may have to become smaller, for want of memory. More iterations train on, unless they shift stages.
    del decided["micro_batch"]
    if not recipe.in_stages:
        del decided["iterations"]
    spacing = options.scan_spacing
    return {
        "network": options.network,
        "recipe": decided.pop("name"),
        "seed": options.seed,
        "start": start and start["sha256"],
        "scans": options.scans and Path(options.scans).name,
        "scan_spacing": spacing and ",".join(f"{length}" for length in spacing),
        **decided,
    }


def _checkpoint(folder: Path, settings: dict[str, Any], processes: Processes) -> Checkpoint | None:
    # Other machines need not see the first one's disk.
    stored = processes.from_first(checkpoints.content(folder) if processes.first else None)
    if stored is None:
        # Without a line they are of a run that was killed before its first checkpoint: it begins anew.
        there = (folder / name for name in (LOG, VALIDATION, WEIGHTS))
        foreign = [path.name for path in there if path.exists() and path.stat().st_size]
        if processes.first and foreign:
            raise FileError(
                f"{folder}: holds a {foreign[0]}, but no checkpoint to go on from",
                "choose another folder",
                Setting("output"),
            )
        return None
    checkpoint = checkpoints.parse(stored, folder)
    _require_same(checkpoint.settings, settings, folder)
    return checkpoint


def _require_same(stored: dict[str, Any], given: dict[str, Any], folder: Path) -> None:
    for name, value in given.items():
        if stored.get(name) != value:
            raise FileError(
                f"{folder}: its checkpoint is of a run with {name} {stored.get(name)}, not {value}",
                "give that run's to go on with it; or start from its weights, in another folder",
                Setting("output"),
            )


def _bones(
    options: TrainingOptions,
    recipe: Recipe,
    device: torch.device,
    processes: Processes,
    progress: ProgressFunction,
    report: Callable[[str], None] = lambda line: None,
) -> BoneDataset:
    """The bones to train on and to validate on."""
    if options.scans is not None:
        spacing = options.scan_spacing
        return dataset_of_scans(options.scans, scan_spacing=spacing, device=device, progress=progress, tell=report)
    jobs = options.jobs or available_processors()
    made = partial(
        synthetic_dataset,
        recipe.bones,
        options.seed,
        device=device,
        kinds={kind: KINDS[kind] for kind in recipe.kinds},
        processes=max(1, jobs // processes.beside),
        progress=progress,
    )
    if options.dataset is None:
        return made()
    path = Path(options.dataset)
    if processes.first and not path.exists():
        save_dataset(made(), path)
    processes.from_first(None)  # until it is there
    bones = load_dataset(path, device)
    _require_wanted(bones, recipe, path)
    return bones


def _require_wanted(bones: BoneDataset, recipe: Recipe, path: Path) -> None:
    """Raises `FileError` where the bones of a file are not as many, or of the kinds, that the recipe asks for."""
    wanted = ",".join(recipe.kinds)
    held = ",".join(bones.made.get("kinds", recipe.kinds))
    if held != wanted:
        remedy = f"use {held}, or another file"
        raise FileError(f"{path}: holds bones of the kinds {held}, not {wanted}", remedy, Setting("kinds", value=held))
    if len(bones) != recipe.bones:
        raise FileError(
            f"{path}: holds {len(bones)} bones, not {recipe.bones}",
            f"use {len(bones)}, or another file",
            Setting("bones", value=str(len(bones))),
        )


def _description(bones: BoneDataset) -> dict[str, Any]:
    """What bones were made from; of a folder the last part, since a model card travels."""
    made = {key: value for key, value in bones.made.items() if key not in ("device", "count")}
    if "folder" in made:
        made["folder"] = Path(made["folder"]).name
    digest = hashlib.sha256("\n".join(bones.names).encode("utf-8", "surrogateescape")).hexdigest()
    return {**made, "bones": len(bones), "spacing_mm": bones.spacing, "names_sha256": digest}


def _seed_of_pairs(seed: int, start: dict[str, Any] | None) -> int:
    """The run's seed; weights that are trained on see other pairs than those that made them."""
    return seed if start is None else int(start["sha256"][:12], 16) ^ seed


def _pairs(bones: BoneDataset, recipe: Recipe, seed: int) -> PairSource:
    return PairSource(
        bones,
        seed,
        rotations=recipe.rotations,
        keep=recipe.keep,
        cut_share=recipe.cut_share,
        placement=recipe.placement,
        contrast=recipe.contrast,
    )


def _validation(bones: BoneDataset, recipe: Recipe, seed: int) -> dict[str, PairSource]:
    """Pairs turned uniformly over SO(3), one scan with contrast agent; with whole and, where trained for, cut views."""
    shares = {"whole": 0.0, "cut": 1.0} if recipe.cut_share and recipe.keep < 1 else {"whole": 0.0}
    return {
        kind: PairSource(bones, seed, keep=recipe.keep, cut_share=share, placement=recipe.placement, contrast=1.0)
        for kind, share in shares.items()
    }


@contextmanager
def _enough_memory(micro_batch: int) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|allocate memory", str(error)):
            raise
        raise RunError(
            f"not enough memory for {micro_batch} pairs at once", "use a smaller number", Setting("micro_batch")
        ) from error


def _as_run(options: TrainingOptions, recipe: Recipe, folder: Path) -> TrainingOptions:
    """The options with all of the recipe, since defaults change; of paths the last part, since a model card travels."""
    changes = {name: getattr(recipe, name) for name in recipe_options()}
    if options.scans is not None:
        del changes["kinds"], changes["bones"]

    def last(path: str | os.PathLike | None) -> str | None:
        return None if path is None else Path(path).resolve().name

    return TrainingOptions(
        options.network,
        Path(folder).resolve().name,
        recipe.name,
        changes,
        last(options.start),
        options.seed,
        last(options.scans),
        options.scan_spacing,
        last(options.dataset),
    )


def _to_train_on(
    options: TrainingOptions, recipe: Recipe, start: dict[str, Any] | None, folder: Path
) -> TrainingOptions:
    """The options to train this run's weights on with; the learning rate falls once, from a run without a start."""
    falls = start is None and recipe.decay != "none"
    rate = _later(recipe.learning_rate) if falls else recipe.learning_rate
    recipe = replace(recipe, **NO_CURRICULUM, learning_rate=rate)
    return _as_run(replace(options, start=WEIGHTS), recipe, folder.with_name(f"{folder.name}-on"))


def _later(rate: float) -> float:
    """The learning rate for weights that were trained once with this one."""
    return float(f"{LATER_RATE * rate:.3g}")
