"""``dnet-registration train``. Needs torch and NumPy only, unless it trains on a user's scans or draws curves."""

from __future__ import annotations

import hashlib
import re
import shlex
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import OptionError, ScanError
from ..core.files import make_folder, staged
from ..core.progress import Progress, say
from ..networks.siamese import build
from ..networks.weights import load_weights
from ..version import PROGRAM
from . import checkpoints
from .bank import Bank, bank_of_scans, build_bank, load_bank, save_bank
from .bank_synthetic import KINDS
from .checkpoints import Checkpoint
from .curves import draw_curves
from .distributed import Processes, launched
from .hardware import describe, keep_freed_memory, room_for_pairs, training_device
from .optimizers import require_muon
from .pairs import PairSource
from .recipes import SIAMESE, Recipe, recipe_for
from .run import LOG, VALIDATION, WEIGHTS, Pace, Run
from .trainer import Trainer

HELD_OUT = 0.125  # share of the bones that are for validation only
FITTED = 16  # pairs from which a network may learn the range of its inputs before it is trained
CURVES = "curves.png"

# Options that stand for a field of the recipe of the same name.
OVERRIDES = (
    "iterations", "batch", "part", "learning_rate", "loss", "optimizer", "decay", "weight_decay", "clip",
    "average", "precision", "rotations", "first_angle", "widening", "posing", "linked_voxels", "coarsest", "coarser",
    "coarse", "placement", "cut_share", "keep", "contrast", "kinds", "bones",
)  # fmt: skip
_WHOLE = "sees whole cubes alone"
_SIAMESE_ALONE = {"posing": "has no pose of each scan", "coarsest": _WHOLE, "coarser": _WHOLE, "coarse": _WHOLE}
# Easy starts of a recipe, which weights that were trained once need no more.
EASY = {"first_angle": 180.0, "widening": 0.0, "posing": 0.0, "coarsest": 0.0, "coarser": 0.0, "coarse": 0.0}
# Of the first learning rate, what weights that have been trained are gone on with.
GOING_ON = 0.2


def run_train(options: Namespace) -> int:
    """Trains, or goes on with training, and writes checkpoint, weights, logs and curves; 0 when that is done."""
    if options.plot and find_spec("matplotlib") is None:
        raise ScanError('--plot needs matplotlib; install it: pip install "dnet-registration[pictures]"')
    recipe = _recipe(options)
    if recipe.optimizer == "muon":
        require_muon()
    with launched(options.device) as processes:
        device = training_device(options.device, processes.local)
        # All parts of a batch have one shape: the fastest kernels are worth looking for.
        torch.backends.cudnn.benchmark = device.type == "cuda"
        if device.type == "cpu":
            keep_freed_memory()
        folder = make_folder(options.output, parents=True)
        network, start = _network(options)
        count = sum(p.numel() for p in network.parameters())
        settings = _settings(options, recipe, start)
        checkpoint = _checkpoint(folder, settings, processes)
        if checkpoint is not None and options.part is None:
            recipe = replace(recipe, part=checkpoint.part)
        try:
            recipe = recipe.in_parts(processes.count, room_for_pairs(device))
        except ValueError as error:
            raise OptionError(str(error)) from error
        bank = _bank(options, recipe, device, processes)
        settings["bank"] = _description(bank)
        if checkpoint is not None:
            _require_same(checkpoint.settings, settings, folder)
        training, held_out = bank.split(HELD_OUT, options.seed)
        card = {
            "seed": options.seed,
            "bank": settings["bank"],
            "start": start,
            "command": _command(options, recipe, options.start, folder),
            "go_on": _command(options, _gone_on(recipe, start), WEIGHTS, folder.with_name(f"{folder.name}-on")),
        }
        pairs = _pairs(training, recipe, _seed_of_pairs(options.seed, start))
        if checkpoint is None and start is None and hasattr(network, "fit_descriptors"):
            network.to(device).fit_descriptors(pairs.draw(0, FITTED))
        run = Run(
            Trainer(network, recipe, pairs, device, options.seed, processes),
            _validation(held_out, recipe, options.seed),
            folder,
            settings,
            Pace(
                options.log_every,
                options.validate_every or max(1, recipe.iterations // 40),
                options.validation_pairs,
                options.checkpoint_minutes,
                options.minutes,
            ),
            card=card,
            checkpoint=checkpoint,
            half=options.half,
        )
        if processes.first:
            several = f" in each of {processes.count} processes" if processes.count > 1 else ""
            say(
                f"{options.network} ({count:,} parameters), recipe {recipe.name}: {recipe.iterations} iterations of "
                f"{recipe.batch} pairs in parts of {recipe.part}, on {describe(device)}{several}; "
                f"{len(training)} bones, {len(held_out)} more for validation"
            )
            if checkpoint is not None:
                say(f"going on from iteration {run.trainer.iteration} in {folder}")
        try:
            with _enough_memory(recipe.part):
                finished = run.go()
        finally:
            # Also of an interrupted run.
            if options.plot and processes.first:
                with staged() as staging:
                    title = f"{options.network}, recipe {recipe.name}"
                    draw_curves(run.log.lines, run.validations.lines, staging.path(folder / CURVES), title)
    if processes.first:
        say(f"weights and model card are in {folder / WEIGHTS}; use them with {PROGRAM} align --weights")
        if not finished:
            say("the time is up before all iterations were made; the same command goes on from there")
    return 0


def _recipe(options: Namespace) -> Recipe:
    try:
        recipe = recipe_for(options.recipe, options.network)
    except ValueError as error:
        raise OptionError(f"{error}; see {PROGRAM} train --help") from error
    if options.start is not None:
        recipe = replace(recipe, **EASY)
    given = {name: getattr(options, name) for name in OVERRIDES if getattr(options, name) is not None}
    if recipe.loss == "own" and "loss" in given:
        raise OptionError(f"--loss: the network {options.network!r} has its own; leave it out")
    for name, cannot in _SIAMESE_ALONE.items():
        if given.get(name) and options.network not in SIAMESE:
            raise OptionError(f"--{name}: the network {options.network!r} {cannot}; leave it out")
    if options.scans is not None:
        for name in ("bank", "bones", "kinds"):
            if getattr(options, name) is not None:
                raise OptionError(f"--{name} is of synthetic bones; leave it out, or --scans")
    recipe = replace(recipe, **given)
    if (recipe.first_angle < EASY["first_angle"]) != (recipe.widening > 0):
        raise OptionError("--first-angle and --widening: give both, from which angle and for how long rotations widen")
    for lower, upper in (("coarsest", "coarser"), ("coarser", "coarse")):
        if getattr(recipe, lower) > getattr(recipe, upper):
            raise OptionError(
                f"--{upper} {getattr(recipe, upper):g} is less than --{lower} {getattr(recipe, lower):g}; give both, "
                "the finer cubes up to the later share"
            )
    return recipe


def _network(options: Namespace) -> tuple[nn.Module, dict[str, Any] | None]:
    """The network as it begins, the same in all processes, and the card of the weights that it begins with."""
    torch.manual_seed(options.seed)
    network = build(options.network)
    if options.start is None:
        return network, None
    loaded = load_weights(options.start)
    if loaded.network.name != options.network:
        raise ScanError(
            f"--start {options.start}: has weights of {loaded.network.name!r}, not of {options.network!r}; "
            f"give others, or --network {loaded.network.name}"
        )
    return loaded.network, loaded.card


def _settings(options: Namespace, recipe: Recipe, start: dict[str, Any] | None) -> dict[str, Any]:
    """What must be the same for a run to be gone on with, by the names of the options."""
    decided = asdict(recipe)
    # Parts may have to become smaller, for want of memory. More iterations train on, unless they shift stages.
    del decided["part"]
    if not recipe.in_stages:
        del decided["iterations"]
    return {
        "network": options.network,
        "recipe": decided.pop("name"),
        "seed": options.seed,
        "start": start and start["sha256"],
        "scans": options.scans and Path(options.scans).name,
        "scan_spacing": _triple(options.scan_spacing),
        **decided,
    }


def _checkpoint(folder: Path, settings: dict, processes: Processes) -> Checkpoint | None:
    # Other machines need not see the first one's disk.
    stored = processes.from_first(checkpoints.content(folder) if processes.first else None)
    if stored is None:
        foreign = [name for name in (LOG, VALIDATION, WEIGHTS) if (folder / name).exists()]
        if processes.first and foreign:
            raise ScanError(f"{folder}: holds a {foreign[0]}, but no checkpoint to go on from; give another --output")
        return None
    checkpoint = checkpoints.parse(stored, folder)
    _require_same(checkpoint.settings, settings, folder)
    return checkpoint


def _require_same(stored: dict[str, Any], given: dict[str, Any], folder: Path) -> None:
    for name, value in given.items():
        if stored.get(name) != value:
            option = name.replace("_", "-")
            raise ScanError(
                f"{folder}: its checkpoint is of a run with {option} {stored.get(name)}, not {value}; "
                "give the options of that run to go on with it, or another --output, with its weights to --start"
            )


def _bank(options: Namespace, recipe: Recipe, device: torch.device, processes: Processes) -> Bank:
    kinds = {kind: KINDS[kind] for kind in recipe.kinds.split(",")}
    with Progress(options.verbose) as bar:
        progress = bar if processes.first else None
        if options.scans is not None:
            return bank_of_scans(options.scans, scan_spacing=options.scan_spacing, device=device, progress=progress)
        synthetic = partial(
            build_bank,
            recipe.bones,
            options.seed,
            device=device,
            kinds=kinds,
            processes=max(1, options.jobs // processes.beside),
            progress=progress,
        )
        if options.bank is None:
            return synthetic()
        path = Path(options.bank)
        if processes.first and not path.exists():
            save_bank(synthetic(), path)
        processes.from_first(None)  # until it is there
        bank = load_bank(path, device)
    held = ",".join(bank.made.get("kinds", kinds))
    if held != recipe.kinds:
        raise ScanError(
            f"{path}: holds bones of the kinds {held}, not {recipe.kinds}; give --kinds {held}, or another file"
        )
    if len(bank) != recipe.bones:
        raise ScanError(
            f"{path}: holds {len(bank)} bones, not {recipe.bones}; give --bones {len(bank)}, or another file"
        )
    return bank


def _description(bank: Bank) -> dict[str, Any]:
    """What a bank was made from; of a folder the last part, since a model card travels."""
    made = {key: value for key, value in bank.made.items() if key not in ("device", "count")}
    if "folder" in made:
        made["folder"] = Path(made["folder"]).name
    digest = hashlib.sha256("\n".join(bank.names).encode("utf-8", "surrogateescape")).hexdigest()
    return {**made, "bones": len(bank), "spacing_mm": bank.spacing, "names_sha256": digest}


def _seed_of_pairs(seed: int, start: dict[str, Any] | None) -> int:
    """Of the run's seed; weights that are gone on with see other pairs than those that made them."""
    return seed if start is None else int(start["sha256"][:12], 16) ^ seed


def _pairs(bank: Bank, recipe: Recipe, seed: int) -> PairSource:
    return PairSource(
        bank,
        seed,
        rotations=recipe.rotations,
        keep=recipe.keep,
        cut_share=recipe.cut_share,
        mode=recipe.placement,
        contrast=recipe.contrast,
    )


def _validation(bank: Bank, recipe: Recipe, seed: int) -> dict[str, PairSource]:
    """Pairs turned uniformly over SO(3), one scan with contrast agent; with whole and, where trained for, cut views."""
    shares = {"whole": 0.0, "cut": 1.0} if recipe.cut_share and recipe.keep < 1 else {"whole": 0.0}
    return {
        kind: PairSource(bank, seed, keep=recipe.keep, cut_share=share, mode=recipe.placement, contrast=1.0)
        for kind, share in shares.items()
    }


@contextmanager
def _enough_memory(part: int) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|allocate memory", str(error)):
            raise
        raise ScanError(f"not enough memory for {part} pairs at once; give a smaller --part") from error


def _gone_on(recipe: Recipe, start: dict[str, Any] | None) -> Recipe:
    """The same for weights that were trained by it, which were gone on with already where they had a `start`."""
    rate = recipe.learning_rate * (GOING_ON if start is None and recipe.decay != "none" else 1.0)
    return replace(recipe, **EASY, learning_rate=float(f"{rate:.3g}"))


def _triple(spacing: tuple[float, ...] | None) -> str | None:
    return spacing and ",".join(f"{length}" for length in spacing)


def _command(options: Namespace, recipe: Recipe, start: str | None, output: Path) -> str:
    """The command line of a run, with all of its recipe, since defaults change; of paths the last part, since a model
    card travels.
    """
    given = {"network": options.network, "recipe": recipe.name}
    given |= {name: getattr(recipe, name) for name in OVERRIDES}
    if recipe.loss == "own":
        del given["loss"]
    if options.scans is not None:
        del given["kinds"], given["bones"]
    given |= {"seed": options.seed, "scan_spacing": _triple(options.scan_spacing)}
    for name, path in (("scans", options.scans), ("bank", options.bank), ("start", start), ("output", output)):
        given[name] = path and Path(path).resolve().name
    words = ((f"--{name.replace('_', '-')}", f"{value}") for name, value in given.items() if value is not None)
    return shlex.join((PROGRAM, "train", *chain.from_iterable(words)))
