"""Checks of the arguments of `align`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import OptionError, Setting
from ..geometry.transforms import matrix_of
from ..imaging.masks import mask_on
from ..imaging.volume import Volume, as_scan, check_pair_spacing
from ..networks.weights import DEFAULT_WEIGHTS, LoadedWeights, available_weights, load_weights, weights_stamp

HYPOTHESES, REFINEMENTS = ("auto", "dnet", "search"), ("native", "working", "none")
BONES = ("largest", "each")


@dataclass(frozen=True)
class AlignmentInputs:
    """The checked arguments of `align`.

    Attributes:
        fixed, moving: the scans.
        masks: ``(z, y, x)`` bool on the scans' grids, or None.
        thresholds: of the fixed and the moving scan, or None to find them.
        spacing: working spacing in mm, or None to choose it.
        initial: ``(4, 4)`` float64, or None.
        network: to ask for poses, or None.
        hypotheses: one of `HYPOTHESES`.
        refine: one of `REFINEMENTS`.
        bone: one of `BONES`, or None to align all bone as one.
    """

    fixed: Volume
    moving: Volume
    masks: tuple[np.ndarray | None, np.ndarray | None]
    thresholds: tuple[float | None, float | None]
    spacing: float | None
    initial: Tensor | None
    network: LoadedWeights | None
    hypotheses: str
    refine: str
    bone: str | None = None


def checked_inputs(
    fixed: Any,
    moving: Any,
    *,
    threshold: Any,
    spacing: Any,
    fixed_mask: Any,
    moving_mask: Any,
    initial: Any,
    weights: Any,
    hypotheses: Any,
    refine: Any,
    bone: Any,
) -> AlignmentInputs:
    """Checks the arguments, which are those of `align`.

    Raises:
        ScanError: something is wrong with a scan or its mask.
        OptionError: another argument has a value that cannot be used.
        FileError: the weights file cannot be read.
    """
    _check_choice("hypotheses", hypotheses, HYPOTHESES)
    _check_choice("refine", refine, REFINEMENTS)
    if bone is not None:
        _check_bone(bone)
    spacing = _optional_number(spacing, "the working spacing", Setting("working_spacing"))
    if spacing is not None and not (np.isfinite(spacing) and spacing > 0):
        problem = f"the working spacing must be above 0 mm, not {spacing}"
        raise OptionError(problem, "leave it out to have it chosen", Setting("working_spacing"))
    fixed, moving = as_scan(fixed, "fixed scan"), as_scan(moving, "moving scan")
    check_pair_spacing(fixed, moving)
    masked = (fixed_mask, fixed, "fixed"), (moving_mask, moving, "moving")
    fixed_mask, moving_mask = (None if mask is None else mask_on(mask, scan, role) for mask, scan, role in masked)
    return AlignmentInputs(
        fixed=fixed,
        moving=moving,
        masks=(fixed_mask, moving_mask),
        thresholds=_thresholds(threshold),
        spacing=spacing,
        initial=None if initial is None else _initial(initial),
        network=_network(hypotheses, weights),
        hypotheses=hypotheses,
        refine=refine,
        bone=bone,
    )


def _check_bone(bone: Any) -> None:
    if not isinstance(bone, str):
        problem, remedy = f"the bone is a {type(bone).__name__}", "mark one bone by masks of the scans instead"
        raise OptionError(problem, remedy, Setting("bone"))
    _check_choice("bone", bone, BONES)


def _check_choice(quantity: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"{quantity} {value!r} is unknown", f"give one of {', '.join(choices)}", Setting(quantity))


def _thresholds(threshold: Any) -> tuple[float | None, float | None]:
    pair = tuple(threshold) if isinstance(threshold, list | tuple | np.ndarray) else (threshold, threshold)
    if len(pair) != 2:
        remedy = "give one number, or a pair for the fixed and the moving scan"
        raise OptionError(f"the bone threshold is {threshold!r}", remedy, Setting("threshold"))
    first, second = (
        _optional_number(value, "the bone threshold", Setting("threshold", role))
        for value, role in zip(pair, ("fixed", "moving"), strict=True)
    )
    return first, second


def _optional_number(value: Any, name: str, setting: Setting) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{name} must be a number, not {value!r}", None, setting) from error


def _initial(initial: Any) -> Tensor:
    try:
        return torch.from_numpy(matrix_of(initial, "the initial transform"))
    except OptionError as error:
        raise OptionError(error.problem, error.remedy, Setting("initial")) from error


def _network(hypotheses: str, weights: Any) -> LoadedWeights | None:
    if hypotheses == "search":
        return None
    if weights is not None and not isinstance(weights, str | os.PathLike):
        remedy = "give the name of shipped weights or the path of a weights file"
        raise OptionError(f"the weights are {weights!r}", remedy, Setting("weights"))
    if weights is None and hypotheses == "auto" and DEFAULT_WEIGHTS not in available_weights():
        return None
    chosen = weights or DEFAULT_WEIGHTS
    return _loaded(os.fspath(chosen), weights_stamp(chosen))


@lru_cache(maxsize=2)
def _loaded(weights: str, stamp: tuple) -> LoadedWeights:
    """The network, which takes longer to load than to ask; loaded anew when the file has another `stamp`."""
    return load_weights(weights)
