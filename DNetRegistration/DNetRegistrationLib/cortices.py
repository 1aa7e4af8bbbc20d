"""Both cortices of an aligned pair on one grid, made from the scans or read from the command line's segmentation.

Needs neither torch nor Slicer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .averaging import block_means
from .bone import carry_over, cortical_bone
from .outputs import FINE
from .volume import Volume


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


def find_cortices(fixed: Volume, moving: Volume, alignment) -> Cortices:
    """Segments both scans, and carries the moving cortex to where the alignment puts it.

    The grid is the fixed scan's, averaged over whole blocks to voxels of about three eighths of the working spacing
    (0.03 mm for a mouse): finer than that the cortex is not segmented, and surfaces of it are slow to show.

    Args:
        fixed, moving: the scans.
        alignment: an `Alignment` or a `ReportedAlignment`.
    """
    fine = FINE * alignment.working_spacing
    still, carried = (
        cortical_bone(scan, threshold, alignment.working_spacing, resolution=fine)
        for scan, threshold in ((fixed, alignment.fixed_threshold), (moving, alignment.moving_threshold))
    )
    on_fixed = carry_over(carried.cortex, carried.affine, still.affine, still.cortex.shape, alignment.matrix)
    return Cortices(still.cortex, on_fixed, still.affine)


def read_cortices(path: str | Path, working_spacing: float) -> Cortices:
    """The cortices of a ``.seg.nrrd`` that `segmentation.write_segmentation` wrote, on the grid of `find_cortices`.

    Args:
        path: the file.
        working_spacing: in mm.

    Raises:
        ScanError: it cannot be read.
    """
    import SimpleITK as sitk

    from .files import ScanError, condensed

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ScanError(f"{path}: the segmentation cannot be read ({condensed(error)}); align again") from error
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
