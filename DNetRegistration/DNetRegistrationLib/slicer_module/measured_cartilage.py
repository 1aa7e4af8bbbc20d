"""The cartilage of an alignment on its way into the scene: measured, and handed over in a folder.

Needs neither Slicer nor torch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..cartilage.result import CartilageMeasurement, ThicknessMap
from ..core.errors import DNetError
from ..core.progress import ProgressFunction, no_progress
from ..imaging.volume import Volume
from ..outputs.cartilage_table import rows
from ..outputs.thickness_surface import color_limit_um
from ..registration.result import Alignment
from .events import error_values
from .request import ANYWHERE, Joint

_FILE = "cartilage.npz"
_NONE, _VECTORS = np.zeros(0), np.zeros((0, 3))
_NO_LAYER = np.zeros((1, 1, 1), bool)
#: Where nothing was measured.
NO_MAP = ThicknessMap(_VECTORS, _VECTORS, np.zeros((0, 3), int), *7 * [_NONE])


@dataclass(frozen=True)
class MeasuredCartilage:
    """What was measured, or why nothing was; None for what is not wanted.

    Attributes:
        told: of JSON's own types: "problem", the values of an error event, where it could not be measured; else
            "compartments" and "warnings" as `CartilageMeasurement.to_dict` has them.
        table: the rows of the table; none where nothing was measured.
        surface: the map, in the world of the fixed scan; `NO_MAP` where nothing was measured.
        limit_um: where its colours end.
        layer: ``(z, y, x)`` bool, the voxels of the cartilage.
        affine: ``(4, 4)`` of `layer`, index (x, y, z) to the world of the fixed scan, LPS mm.
    """

    told: dict[str, Any]
    table: list[dict[str, Any]] | None = None
    surface: ThicknessMap | None = None
    limit_um: float = 0.0
    layer: np.ndarray | None = None
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))

    @classmethod
    def measured(
        cls,
        fixed: Volume,
        moving: Volume,
        alignment: Alignment,
        wanted: Collection[str],
        contrast: str,
        masks: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
        joint: Joint = ANYWHERE,
        anyway: bool = False,
        progress: ProgressFunction = no_progress,
    ) -> MeasuredCartilage:
        """Measures the cartilage.

        Args:
            fixed, moving, alignment: the scans, and how they lie.
            wanted: of `request.CARTILAGE_KINDS`.
            contrast: which scan has the contrast agent, "fixed" or "moving".
            masks: of both scans, where bone is looked for.
            joint: what the user says of it.
            anyway: measure although the alignment was not accepted.
            progress: called with a fraction and a message.
        """
        from ..cartilage.measure import measure_cartilage  # slow to import: the window only reads what it gives

        plain, agent, mask = (fixed, moving, masks[0]) if contrast == "moving" else (moving, fixed, masks[1])
        try:
            found = measure_cartilage(
                alignment,
                plain,
                agent,
                agent_in=contrast,
                mask=mask,
                region=joint.region,
                medial=joint.medial,
                anyway=anyway,
                progress=progress,
            )
        except DNetError as error:
            # An alignment is not lost with it.
            return cls._of(None, {"problem": error_values(error)}, fixed, np.eye(4), wanted)
        values = found.to_dict()
        placed = np.eye(4) if contrast == "moving" else np.linalg.inv(alignment.matrix)
        told = {name: values[name] for name in ("compartments", "warnings")}
        return cls._of(found, told, fixed, placed, wanted)

    @classmethod
    def _of(
        cls,
        found: CartilageMeasurement | None,
        told: dict[str, Any],
        fixed: Volume,
        placed: np.ndarray,
        wanted: Collection[str],
    ) -> MeasuredCartilage:
        """`placed` ``(4, 4)`` is from the world of the map to that of the fixed scan."""
        table = surface = layer = None
        limit, affine = 0.0, np.eye(4)
        seen = found is not None and found.found
        if "cartilage" in wanted:
            table = [] if found is None else rows(found)
        if "thickness" in wanted:
            surface = _carried(found.map, placed) if seen else NO_MAP
            limit = color_limit_um(found.map) if seen else 0.0
        if "layer" in wanted:
            layer = _NO_LAYER
            if seen:
                from ..outputs.thickness_volume import thickness_volume

                layer, affine = _cropped(thickness_volume(found.map, fixed, placed))
        return cls(told, table, surface, limit, layer, affine)

    def write(self, folder: Path) -> dict[str, Any]:
        """Writes arrays into a folder; returns the rest, of JSON's own types (and NaN).

        Raises:
            OSError: it cannot be written.
        """
        arrays = {"affine": self.affine}
        if self.surface is not None:
            arrays |= {f"surface {name}": array for name, array in vars(self.surface).items()}
        if self.layer is not None:
            arrays["layer"] = self.layer
        np.savez(folder / _FILE, **arrays)
        return {"told": self.told, "table": self.table, "limit_um": self.limit_um}

    @classmethod
    def read(cls, folder: Path, values: dict[str, Any]) -> MeasuredCartilage:
        """What was written into a folder; `values` is what `write` returned.

        Raises:
            OSError, ValueError, KeyError: it cannot be read.
        """
        try:
            with np.load(folder / _FILE, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (BadZipFile, EOFError) as error:
            raise ValueError(str(error)) from error
        parts = {name.partition(" ")[2]: array for name, array in arrays.items() if name.startswith("surface ")}
        surface = ThicknessMap(**parts) if parts else None
        return cls(**values, surface=surface, layer=arrays.get("layer"), affine=arrays["affine"])


def _carried(found: ThicknessMap, placed: np.ndarray) -> ThicknessMap:
    """The map after a rigid motion, ``(4, 4)``."""
    rotation = placed[:3, :3].T
    return replace(found, points=found.points @ rotation + placed[:3, 3], normals=found.normals @ rotation)


def _cropped(thickness: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Where a volume is above 0, with one empty voxel around it, so that surfaces close; and the affine of that."""
    inside = thickness.voxels > 0
    if not inside.any():
        return _NO_LAYER, thickness.affine
    low, high = [], []
    for axis in range(3):
        there = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        low.append(there[0])
        high.append(there[-1] + 1)
    shift = np.eye(4)
    shift[:3, 3] = np.array(low[::-1]) - 1
    box = inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return np.pad(box, 1), thickness.affine @ shift
