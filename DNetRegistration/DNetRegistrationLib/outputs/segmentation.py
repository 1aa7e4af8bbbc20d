"""Both cortices of an aligned pair: segmented, on one grid, and in a file that Slicer opens.

Needs neither torch nor Slicer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bone.cortex import CorticalBone, cortical_bone
from ..bone.tight_masks import reaching_past
from ..core.provenance import MARKED
from ..core.threads import of_both
from ..imaging.nrrd import write_nrrd
from ..imaging.packed import PackedMask
from ..imaging.resample import resample_mask
from ..imaging.volume import Volume
from ..registration.result import Alignment
from .colors import CARTILAGE, FIXED, MOVING

#: Cortices are drawn and saved at this share of the working spacing (0.03 mm for a mouse), or in the scan's own voxels.
RESOLUTION = 0.375
#: Identifier, name and colour of each segment.
SEGMENTS = (
    ("FixedCorticalBone", "Fixed cortical bone", FIXED),
    ("MovingCorticalBone", "Moving cortical bone", MOVING),
)
#: The segment that follows them where cartilage was measured.
CARTILAGE_SEGMENT = ("Cartilage", "Cartilage", CARTILAGE)


@dataclass(frozen=True)
class Cortices:
    """The cortical bone of the fixed scan and, on the same grid, of the aligned moving one. They may overlap.

    Attributes:
        fixed, moving: ``(z, y, x)`` bool.
        affine: ``(4, 4)``, index (x, y, z) to world LPS mm.
    """

    fixed: np.ndarray
    moving: np.ndarray
    affine: np.ndarray


def segment(
    fixed: Volume,
    moving: Volume,
    alignment: Alignment,
    masks: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> tuple[CorticalBone, CorticalBone]:
    """Segments the cortical bone of each scan, on its own grid, in voxels of about `RESOLUTION` of the working spacing.

    Finer than that the cortex is not segmented, and surfaces of it are slow to show.

    Args:
        fixed, moving: the scans.
        alignment: of the two; its thresholds and working spacing are used.
        masks: ``(z, y, x)`` bool arrays of where bone is looked for, or None. Where the alignment knows where it has
            looked in these scans, that goes before them.
    """
    spacing = alignment.working_spacing
    thresholds = alignment.fixed_threshold, alignment.moving_threshold
    if alignment.bone is not None and alignment.bone.masks is not None:
        masks = alignment.bone.masks
    else:
        masks = of_both(_looked_at, (fixed, moving), alignment.masks, masks, thresholds, (spacing,) * 2)
    first, second = (
        cortical_bone(scan, threshold, spacing, mask, resolution=RESOLUTION * spacing)
        for scan, threshold, mask in zip((fixed, moving), thresholds, masks, strict=True)
    )
    return first, second


def _looked_at(
    scan: Volume, known: PackedMask | None, given: np.ndarray | None, threshold: float, spacing: float
) -> np.ndarray | None:
    """Where bone is looked for: as the alignment knows it, else as `align` does it with a mask that is given."""
    seen = None if known is None else known.on(scan)
    return reaching_past(scan, given, threshold, spacing) if seen is None else seen


def on_fixed_grid(fixed: CorticalBone, moving: CorticalBone, matrix: np.ndarray) -> Cortices:
    """Both cortices on the grid of the fixed one. `matrix` ``(4, 4)`` maps fixed to moving points, LPS mm."""
    carried = resample_mask(moving.cortex, moving.affine, fixed.affine, fixed.cortex.shape, matrix)
    return Cortices(fixed.cortex, carried, fixed.affine)


def write_segmentation(
    path: str | Path,
    fixed: Volume,
    bones: tuple[CorticalBone, CorticalBone],
    matrix: np.ndarray,
    cartilage: np.ndarray | None = None,
    mark: str = "",
) -> None:
    """Writes a ``.seg.nrrd`` on the fixed scan's grid, with the fixed cortex, the aligned moving one, and cartilage.

    Each segment has a layer of its own, a component of the image: one layer for both would lose their overlap.

    Args:
        path: the file, ``.seg.nrrd``.
        fixed: the fixed scan, for its grid.
        bones: segmentations of the fixed and the moving scan.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.
        cartilage: ``(z, y, x)`` bool on the fixed scan's grid; None where it was not measured.
        mark: of the alignment, as `Alignment.mark` gives it.

    Raises:
        OSError: it could not be written.
    """
    shape = fixed.voxels.shape
    layers = [
        resample_mask(bone.cortex, bone.affine, fixed.affine, shape, placed)
        for bone, placed in zip(bones, (np.eye(4), matrix), strict=True)
    ]
    if cartilage is not None:
        layers.append(cartilage)
    keys = _keys(shape, len(layers)) | ({MARKED: mark} if mark else {})
    write_nrrd(path, _slices(layers), (*shape, len(layers)), np.uint8, fixed.affine, keys, compress=True)


def _slices(layers: list[np.ndarray]) -> Iterator[np.ndarray]:
    for planes in zip(*layers, strict=True):
        yield np.stack(planes, axis=-1).astype(np.uint8)


def _keys(shape: tuple[int, int, int], count: int) -> dict[str, str]:
    """The header fields of vtkMRMLSegmentationStorageNode. A segment without an extent would be read as empty."""
    extent = " ".join(f"0 {n - 1}" for n in shape[::-1])
    keys = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for index, (identifier, name, color) in enumerate((*SEGMENTS, CARTILAGE_SEGMENT)[:count]):
        keys |= {
            f"Segment{index}_ID": identifier,
            f"Segment{index}_Name": name,
            f"Segment{index}_NameAutoGenerated": "0",
            f"Segment{index}_Color": " ".join(str(c) for c in color),
            f"Segment{index}_ColorAutoGenerated": "0",
            f"Segment{index}_Extent": extent,
            f"Segment{index}_LabelValue": "1",
            f"Segment{index}_Layer": str(index),
        }
    return keys
