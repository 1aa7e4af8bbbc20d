"""The images that an alignment gives, in memory: the subtraction, and the cortex of a scan.

Needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..bone.cortex import cortical_bone
from ..bone.threshold import find_bone_scale
from ..bone.tight_masks import reaching_past
from ..core.constants import PAPER_SPACING
from ..core.errors import OptionError, Setting
from ..imaging.equal_blur import interpolation_blur
from ..imaging.masks import mask_on
from ..imaging.resample import resample, resample_mask
from ..imaging.volume import Volume, as_scan
from ..registration.result import Alignment, require_alignment
from .segmentation import segment
from .subtraction import match_grey_values
from .subtraction import subtract as subtract_resampled

if TYPE_CHECKING:
    import SimpleITK as sitk


def subtract(
    alignment: Alignment,
    fixed: Volume | sitk.Image,
    moving: Volume | sitk.Image,
    contrast: str = "moving",
    masks: tuple[Any, Any] = (None, None),
) -> Volume:
    """Subtracts the scan without contrast agent from the one with it, in the units of the latter.

    Args:
        alignment: of the two scans.
        fixed, moving: the scans, as `align` takes them. They are not changed.
        contrast: which scan has the contrast agent, "fixed" or "moving".
        masks: of the fixed and the moving scan, as `align` takes them: where bone is looked for. Or None. Those that
            the alignment holds go before them.

    Returns:
        Volume: signed float32 on the fixed scan's grid, NaN outside the overlap of both fields of view.

    Raises:
        OptionError: the alignment or `contrast` is something else.
        ScanError: something is wrong with a scan or its mask.
    """
    alignment = require_alignment(alignment)
    if contrast not in ("fixed", "moving"):
        remedy = "give fixed or moving, the scan with contrast agent"
        raise OptionError(f"contrast {contrast!r} is unknown", remedy, Setting("contrast"))
    fixed, moving = as_scan(fixed, "fixed scan"), as_scan(moving, "moving scan")
    first, second = (
        None if mask is None else mask_on(mask, scan) for mask, scan in zip(masks, (fixed, moving), strict=True)
    )
    fit = match_grey_values(*segment(fixed, moving, alignment, (first, second)), alignment.matrix, contrast)
    blur = interpolation_blur(moving, fixed, alignment)
    return subtract_resampled(resample(moving, fixed, alignment), fixed, fit, contrast, blur)


def segment_cortex(
    scan: Volume | sitk.Image, threshold: float | None = None, mask: Any = None, working_spacing: float = PAPER_SPACING
) -> Volume:
    """Segments the cortical bone of a scan, in its own voxels; see `bone.cortex.cortical_bone`.

    Args:
        scan: the scan, a Volume or a SimpleITK image.
        threshold: grey value above which it is bone; None finds it.
        mask: as `align` takes it: where bone is looked for; None for everywhere.
        working_spacing: in mm, the length that all lengths of the method are scaled with: 0.08 for a mouse, for larger
            bones `Alignment.working_spacing`.

    Returns:
        Volume: 1 in the cortex and 0 elsewhere, uint8, on the scan's grid.

    Raises:
        ScanError: the scan or its mask cannot be used, or no threshold is found.
    """
    scan = as_scan(scan)
    where = None if mask is None else reaching_past(scan, mask_on(mask, scan), threshold, working_spacing)
    if threshold is None:
        threshold = find_bone_scale(scan, mask=where).threshold
    bone = cortical_bone(scan, threshold, working_spacing, where, resolution=float(scan.spacing.min()))
    shape = scan.voxels.shape
    cortex = resample_mask(bone.cortex, bone.affine, scan.affine, (shape[0], shape[1], shape[2]), np.eye(4))
    return Volume(cortex.astype(np.uint8), scan.affine, f"cortex of {scan.name}")
