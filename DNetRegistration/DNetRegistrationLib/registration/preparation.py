"""Finds the bone in both scans, and prepares what is looked at from then on."""

from __future__ import annotations

import numpy as np
import torch

from ..bone.cortex import cortical_bone
from ..bone.greys import GreyFault, grey_fault
from ..bone.images import native_scan, pool_image
from ..bone.prepare import PreparedScan, prepare
from ..bone.threshold import BoneScale, BrightPiece, find_bone_scale, without_metal
from ..bone.tight_masks import REACH
from ..core.errors import ScanError, Setting
from ..core.threads import of_both
from ..core.words import plain
from ..imaging.padding import with_data
from ..imaging.volume import Volume
from .holders import ScanPair
from .inputs import AlignmentInputs
from .template import shows_edges
from .watch import Watch


class PreparedPair(ScanPair):
    @property
    def has_outline(self) -> bool:
        return self.fixed.has_outline and self.moving.has_outline

    @property
    def has_metal(self) -> bool:
        return any(scan.native.scale.bright is not None for scan in (self.fixed, self.moving))

    def mirrored(self) -> PreparedPair:
        """The fixed scan, and the mirror image of the moving one."""
        return PreparedPair(self.fixed, self.moving.mirrored(), (self.bones[0], self.bones[1].mirrored()))


def prepared(inputs: AlignmentInputs, device: torch.device, watch: Watch) -> PreparedPair:
    """Finds the bone in both scans, and prepares what search, refinement and verification look at."""
    fixed, moving = found_bone(inputs, device, watch)
    with watch.stage("verify"):
        watch.tell(0.15, "Outlining the cortices")
        volumes = inputs.fixed, inputs.moving
        masks = looked_at(fixed), looked_at(moving)
        thresholds = fixed.native.scale.threshold, moving.native.scale.threshold
        bones = of_both(cortical_bone, volumes, thresholds, (fixed.cube.spacing,) * 2, masks)
        watch.check()
        # The depth is computed on first use and kept: here cancelling is checked before and after.
        of_both(lambda bone: bone.depth, bones)
    return PreparedPair(fixed, moving, bones)


def found_bone(inputs: AlignmentInputs, device: torch.device, watch: Watch) -> tuple[PreparedScan, PreparedScan]:
    """Finds the bone in both scans, and prepares what search and refinement look at."""
    watch.tell(0.0, "Looking for bone")
    with watch.stage("preprocess"):
        volumes = inputs.fixed, inputs.moving
        masks = with_data(volumes[0], inputs.masks[0]), with_data(volumes[1], inputs.masks[1])
        scales = of_both(_bone_scale, volumes, inputs.thresholds, masks, ("fixed", "moving"))
        watch.warnings += [_brightness(v, s.bright) for v, s in zip(volumes, scales, strict=True) if s.bright]
        masks = of_both(without_metal, volumes, scales, masks)
        watch.check()
        first, second = of_both(native_scan, volumes, scales, masks, (device,) * 2)
        fixed, moving = prepare(first, second, spacing=inputs.spacing, check=watch.check)
        of_both(_check_edges, (fixed, moving), volumes)
    return fixed, moving


def grey_fault_of(pair: PreparedPair, inputs: AlignmentInputs) -> GreyFault | None:
    """What is wrong with the grey values of a scan, of the fixed one first."""
    for role, volume, scan in (("fixed", inputs.fixed, pair.fixed), ("moving", inputs.moving, pair.moving)):
        fault = grey_fault(volume, scan.native.scale.threshold, looked_at(scan), f"the {role} scan")
        if fault is not None:
            return fault
    return None


def _bone_scale(volume: Volume, threshold: float | None, mask: np.ndarray | None, role: str) -> BoneScale:
    """What `find_bone_scale` finds. Where it finds none because of the scan's grey values, the error says so."""
    try:
        return find_bone_scale(volume, threshold, mask, role)
    except ScanError as error:
        if threshold is not None:
            raise
        raise _likely_cause(error, volume, None, mask) from error


def _likely_cause(error: ScanError, volume: Volume, threshold: float | None, mask: np.ndarray | None) -> ScanError:
    """The error, or one about the grey values of the scan if these are at fault."""
    fault = grey_fault(volume, threshold, mask)
    if fault is None or fault.kind not in ("wrapped", "inverted"):
        return error
    return ScanError(f"{error.problem}: {fault.problem}", fault.remedy)


def looked_at(scan: PreparedScan) -> np.ndarray | None:
    """The mask ``(z, y, x)`` of where a scan is looked at, or None."""
    return None if scan.native.mask is None else scan.native.mask.cpu().numpy()


def _brightness(volume: Volume, piece: BrightPiece) -> str:
    place = ", ".join(plain(c, 3) for c in piece.center)
    return (
        f"{volume.name}: {plain(piece.volume, 2)} mm3 about ({place}) mm are about {piece.times:.0f} times as bright "
        "as dense bone: metal? It was left out."
    )


def _check_edges(scan: PreparedScan, volume: Volume) -> None:
    """Checks that the images that search and refinement start with show enough edges of bone."""
    for image in (scan.levels[-1], pool_image(scan.cube.as_image, 2)):
        if not shows_edges(image):
            spacing = f"the working spacing of {scan.cube.spacing:g} mm"
            error = ScanError(
                f"{volume.name}: shows too little of the surface of a bone at {spacing}",
                "check the bone threshold, the mask, which must reach past the bone by "
                f"{REACH * scan.cube.spacing:g} mm, and the voxel spacing, or give another working spacing",
                Setting("working_spacing"),
            )
            raise _likely_cause(error, volume, scan.native.scale.threshold, looked_at(scan))
