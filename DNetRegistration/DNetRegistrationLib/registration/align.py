"""Aligns two scans: the public function."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypedDict, overload

import numpy as np
import torch

from ..bone.cortex import CorticalBone
from ..bone.tight_masks import reaching_past
from ..core.threads import of_both, torch_threads
from ..imaging.packed import PackedMask
from ..imaging.volume import Volume
from .devices import choose_device, device_fault
from .each_bone import align_bones
from .inputs import AlignmentInputs, checked_inputs
from .one_pair import align_pair
from .result import Alignment
from .slips import slips
from .verdict import Doubt
from .watch import Watch

if TYPE_CHECKING:
    import SimpleITK as sitk
    from typing_extensions import Unpack


class _Options(TypedDict, total=False):
    """The options of `align` but `bone`, which says what it returns."""

    threshold: float | tuple[float | None, float | None] | None
    spacing: float | None
    fixed_mask: Volume | sitk.Image | np.ndarray | None
    moving_mask: Volume | sitk.Image | np.ndarray | None
    initial: np.ndarray | None
    device: str
    weights: str | os.PathLike | None
    hypotheses: Literal["auto", "dnet", "search"]
    refine: Literal["native", "working", "none"]
    threads: int | None
    progress: Callable[[float, str], None] | None
    cancelled: Callable[[], bool] | None
    posed: Callable[[np.ndarray, tuple[CorticalBone, CorticalBone]], None] | None


@overload
def align(
    fixed: Volume | sitk.Image,
    moving: Volume | sitk.Image,
    *,
    bone: Literal["largest"] | None = None,
    **options: Unpack[_Options],
) -> Alignment: ...
@overload
def align(
    fixed: Volume | sitk.Image, moving: Volume | sitk.Image, *, bone: Literal["each"], **options: Unpack[_Options]
) -> list[Alignment]: ...
def align(
    fixed: Volume | sitk.Image,
    moving: Volume | sitk.Image,
    *,
    threshold: float | tuple[float | None, float | None] | None = None,
    spacing: float | None = None,
    fixed_mask: Volume | sitk.Image | np.ndarray | None = None,
    moving_mask: Volume | sitk.Image | np.ndarray | None = None,
    initial: np.ndarray | None = None,
    device: str = "auto",
    weights: str | os.PathLike | None = None,
    hypotheses: Literal["auto", "dnet", "search"] = "auto",
    refine: Literal["native", "working", "none"] = "native",
    bone: Literal["largest", "each"] | None = None,
    threads: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    posed: Callable[[np.ndarray, tuple[CorticalBone, CorticalBone]], None] | None = None,
) -> Alignment | list[Alignment]:
    """Aligns two scans of one bone in any orientation; or of several bones, each of which moved on its own.

    Args:
        fixed, moving: `Volume` or SimpleITK images. They are not changed.
        threshold: bone is above, in the scans' units. None finds it; one number is for both scans; of a pair (fixed,
            moving) either may be None.
        spacing: working spacing in mm. None takes 0.08 mm or, for a larger bone, what lets it fill the canonical cube.
        fixed_mask, moving_mask: Volumes or SimpleITK images on any grid, or arrays of the scans' shapes. Bone is looked
            for only where they are above 0; one of the bone itself is widened by four working voxels, so that it shows
            what surrounds the bone. `read_mask` reads files.
        initial: ``(4, 4)`` fixed to moving, LPS mm, tried first.
        device: "auto", "cpu", "cuda" (or "cuda:1", ...), "mps".
        weights: name of shipped weights, or a path; None is the shipped default.
        hypotheses: "dnet" (the network alone), "search" (the search alone), or "auto": the network, where its weights
            are installed, then the search if no proposal verifies.
        refine: "native", "working" (end at the working spacing) or "none" (the hypothesis as it is).
        bone: None aligns all bone in view as one. "largest" and "each" are for bones that moved on their own, as those
            of a knee: the scans are parted into them, and the largest or each one is aligned as if masks had marked it
            in both scans. A bone that is marked by masks of your own needs no `bone`.
        threads: of the CPU. None takes what torch is set to, but no more than the processors that this process may use.
            A forked process always uses one. Results with other numbers differ by rounding, up to 1e-6 mm.
        progress: called with a fraction, 0 to 1, and a message.
        cancelled: called often; when it returns true, `AlignmentCancelled` is raised.
        posed: called as soon as a pose is refined, before it is examined, with ``(4, 4)`` fixed to moving, LPS mm, and
            the cortical bone of the fixed and the moving scan. Nothing vouches for the pose yet, and what is examined
            may lead to another one. Called again where the work is done anew; not called where `bone` is given.

    Returns:
        Alignment: of the best pose. Where no pose verified, ``accepted`` is False. For "each", a list of them, the
        largest bone first; `Alignment.bone` says which one it is. It is None where no bone was found by itself, and the
        alignment is that of all bone.

    Raises:
        ScanError: something is wrong with a scan or its mask.
        OptionError: another argument has a value that cannot be used.
        FileError: the weights file cannot be read.
        AlignmentCancelled: see `cancelled`.
    """
    with torch_threads(threads):
        inputs = checked_inputs(
            fixed,
            moving,
            threshold=threshold,
            spacing=spacing,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            initial=initial,
            weights=weights,
            hypotheses=hypotheses,
            refine=refine,
            bone=bone,
        )
        watch, chosen = Watch(progress, cancelled, posed), choose_device(device)
        with watch.stage("preprocess"):
            scans = inputs.fixed, inputs.moving
            masks = of_both(reaching_past, scans, inputs.masks, inputs.thresholds, (inputs.spacing,) * 2)
            inputs = replace(inputs, masks=masks)
        slipped = slips(inputs.fixed, inputs.moving)
        watch.warnings.extend(doubt.sentence for doubt in slipped)
        try:
            return _aligned(inputs, chosen, watch, slipped)
        except (RuntimeError, TypeError) as error:
            why = device_fault(error)
            if chosen.type == "cpu" or why is None:
                raise
        # Outside the `except` block the traceback is gone, and with it the device memory that it holds.
        if chosen.type == "cuda":
            torch.cuda.empty_cache()
        watch.warnings.append(f"{chosen} {why}; the CPU did the work instead.")
        return _aligned(inputs, torch.device("cpu"), watch, slipped)


def _aligned(
    inputs: AlignmentInputs, device: torch.device, watch: Watch, slipped: Sequence[Doubt]
) -> Alignment | list[Alignment]:
    """What is asked for, with the masks that it was found in, and with what looks like a slip among its doubts."""
    first, second = (
        None if mask is None else PackedMask.of(mask, scan)
        for mask, scan in zip(inputs.masks, (inputs.fixed, inputs.moving), strict=True)
    )
    kinds = [doubt.kind for doubt in slipped]

    def whole(found: Alignment) -> Alignment:
        return replace(found, masks=(first, second), doubts=list(dict.fromkeys((*found.doubts, *kinds))))

    found = align_pair(inputs, device, watch) if inputs.bone is None else align_bones(inputs, device, watch)
    return whole(found) if isinstance(found, Alignment) else [whole(one) for one in found]
