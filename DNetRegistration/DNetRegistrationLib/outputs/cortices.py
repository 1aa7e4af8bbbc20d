"""Both cortices of an aligned pair on one grid, made from the scans or read from the command line's segmentation.

Needs neither torch nor Slicer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bone.cortex import CorticalBone, cortical_bone
from ..core.errors import ScanError, one_line
from ..imaging.resample import block_means, resample_mask
from ..imaging.volume import Volume
from .write import FINE


@dataclass(frozen=True)
class Cortices:
    """The cortical bone of the fixed scan and, carried onto it, of the moving one. They may overlap.

    Attributes:
        fixed, moving: ``(z, y, x)`` bool.
        affine: ``(4, 4)``, index (x, y, z) to world LPS mm.
    """

    fixed: np.ndarray
    moving: np.ndarray
    affine: np.ndarray


def segment(fixed: Volume, moving: Volume, alignment) -> tuple[CorticalBone, CorticalBone]:
    """The cortical bone of each scan, on its own grid, in voxels of about three eighths of the working spacing.

    That is 0.03 mm for a mouse: finer than that the cortex is not segmented, and surfaces of it are slow to show.

    Args:
        fixed, moving: the scans.
        alignment: the alignment.
    """
    thresholds = alignment.fixed_threshold, alignment.moving_threshold
    still, carried = (
        cortical_bone(scan, threshold, alignment.working_spacing, resolution=FINE * alignment.working_spacing)
        for scan, threshold in zip((fixed, moving), thresholds, strict=True)
    )
    return still, carried


def overlay(fixed: CorticalBone, moving: CorticalBone, matrix: np.ndarray) -> Cortices:
    """Both cortices on the grid of the fixed one, the moving one carried there by `matrix` (fixed to moving points)."""
    carried = resample_mask(moving.cortex, moving.affine, fixed.affine, fixed.cortex.shape, matrix)
    return Cortices(fixed.cortex, carried, fixed.affine)


def read_cortices(path: str | Path, working_spacing: float) -> Cortices:
    """The cortices of a ``.seg.nrrd`` that `segmentation.write_segmentation` wrote, in voxels as
    of `segment`.

    Args:
        path: the file.
        working_spacing: in mm.

    Raises:
        ScanError: it cannot be read.
    """
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ScanError(f"{path}: the segmentation cannot be read ({one_line(error)}); align again") from error
    layers = sitk.GetArrayViewFromImage(image)
    if layers.ndim != 4 or layers.shape[-1] != 2:
        raise ScanError(f"{path}: the segmentation does not have two layers; align again")
    geometry = image.GetSpacing(), image.GetDirection(), image.GetOrigin()
    masks = []
    for layer in range(2):
        scan = Volume.from_geometry(layers[..., layer], *geometry)
        factors = np.maximum(1, np.rint(FINE * working_spacing / scan.spacing)).astype(int)
        means, affine = block_means(scan, np.minimum(factors, scan.size))
        masks.append(means >= 0.5)
    return Cortices(masks[0], masks[1], affine)
