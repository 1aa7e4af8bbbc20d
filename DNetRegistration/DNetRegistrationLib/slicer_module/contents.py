"""What an alignment puts into the scene beside its transform, computed, and handed over in a folder as raw files.

Needs neither Slicer nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bone.cortex import CorticalBone
from ..core.errors import FileError, one_line
from ..core.files import writing
from ..core.progress import no_progress, part
from ..imaging.resample import cast_like, resample
from ..imaging.volume import Volume
from ..outputs.segmentation import Cortices, on_fixed_grid, segment
from ..registration.result import Alignment
from .measured_cartilage import MeasuredCartilage
from .raw_files import RawFile
from .request import ANYWHERE, CARTILAGE_KINDS, Joint

_FILE = "contents.json"


def place_of(folder: Path, number: int) -> Path:
    """Where the folder of a job holds the contents of one of its alignments, counted from 0."""
    return folder / f"alignment {number}"


@dataclass(frozen=True)
class Contents:
    """What is written beside the transform; None where it is not wanted.

    Attributes:
        cortices: of both scans.
        resampled: ``(z, y, x)``, the moving scan on the fixed scan's grid.
        subtraction: ``(z, y, x)`` float32, NaN outside the overlap of the fields of view.
        reach: of the subtraction: values up to so far from 0 are to be told apart.
        cartilage: what was measured, or why nothing was.
    """

    cortices: Cortices | None = None
    resampled: np.ndarray | RawFile | None = None
    subtraction: np.ndarray | RawFile | None = None
    reach: float = 0.0
    cartilage: MeasuredCartilage | None = None

    @classmethod
    def computed(
        cls,
        fixed: Volume,
        moving: Volume,
        alignment: Alignment,
        bones: tuple[CorticalBone, CorticalBone] | None,
        wanted: Collection[str],
        contrast: str,
        masks: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
        progress: Callable[[float, str], None] = no_progress,
        joint: Joint = ANYWHERE,
        anyway: bool = False,
    ) -> Contents:
        """Computes what is wanted.

        Args:
            fixed, moving, alignment: the scans, and how they lie.
            bones: the cortical bone of both, as `align` has segmented it; None segments it here.
            wanted: of "segmentation", "resampled", "subtraction", and of `request.CARTILAGE_KINDS`.
            contrast: which scan has the contrast agent, "fixed" or "moving".
            masks: see `outputs.segmentation.segment`.
            progress: called with a fraction and a message.
            joint: what the user says of it, for the cartilage.
            anyway: measure cartilage although the alignment was not accepted.
        """
        measuring = bool(set(CARTILAGE_KINDS) & set(wanted))
        whole, progress = progress, part(progress, 0.0, 0.5 if measuring else 1.0)
        cortices = resampled = difference = None
        reach = 0.0
        if bones is None and {"segmentation", "subtraction"} & set(wanted):
            progress(0.0, "outlining bone")
            bones = segment(fixed, moving, alignment, masks)
        if bones is not None and "segmentation" in wanted:
            cortices = on_fixed_grid(*bones, alignment.matrix)
        if {"resampled", "subtraction"} & set(wanted):
            progress(0.1, "resampling the moving scan")
            carried = resample(moving, fixed, alignment.matrix)
        if "resampled" in wanted:
            progress(0.8, "rounding the resampled scan")
            resampled = cast_like(carried, moving).voxels
        if bones is not None and "subtraction" in wanted:
            progress(0.9, "subtracting the scans")
            # Slow to import: the window only reads what they give.
            from ..imaging.equal_blur import interpolation_blur
            from ..outputs.subtraction import farthest, match_grey_values, subtract

            fit = match_grey_values(*bones, alignment.matrix, contrast)
            blur = interpolation_blur(moving, fixed, alignment.matrix)
            difference = subtract(carried, fixed, fit, contrast, blur).voxels
            reach = farthest(difference)
        cartilage = None
        if measuring:
            scans = fixed, moving, alignment
            cartilage = MeasuredCartilage.measured(
                *scans, wanted, contrast, masks, joint, anyway, part(whole, 0.5, 1.0)
            )
        return cls(cortices, resampled, difference, reach, cartilage)

    def write(self, folder: Path) -> None:
        """Writes all of it into a folder, which is made.

        Raises:
            FileError: it cannot be written.
        """
        names = ("resampled", "subtraction")
        arrays = {name: array for name in names if isinstance(array := getattr(self, name), np.ndarray)}
        values: dict = {"reach": self.reach}
        if self.cortices is not None:
            values["affine"] = self.cortices.affine.tolist()
            arrays |= {"fixed cortex": self.cortices.fixed, "moving cortex": self.cortices.moving}
        with writing(folder):
            folder.mkdir(exist_ok=True)
            for name, array in arrays.items():
                file = RawFile.of(folder / f"{name}.raw", array)
                for _ in file.write(array):
                    pass
                values[name] = file.to_dict()
            if self.cartilage is not None:
                values["cartilage"] = self.cartilage.write(folder)
            (folder / _FILE).write_text(json.dumps(values), encoding="ascii")

    @classmethod
    def read(cls, folder: Path) -> Contents:
        """What was written into a folder. The voxels of the volumes stay in their files.

        Raises:
            FileError: it cannot be read.
        """
        try:
            values = json.loads((folder / _FILE).read_text(encoding="ascii"))
            told = values.pop("cartilage", None)
            cartilage = None if told is None else MeasuredCartilage.read(folder, told)
            files = {key: RawFile.from_dict(folder, one) for key, one in values.items() if isinstance(one, dict)}
            cortices = None
            if "affine" in values:
                fixed, moving = (
                    np.fromfile(files[key].path, files[key].dtype).reshape(files[key].shape)
                    for key in ("fixed cortex", "moving cortex")
                )
                cortices = Cortices(fixed, moving, np.array(values["affine"]))
        except (OSError, ValueError, KeyError) as error:
            raise FileError(f"{folder}: the result cannot be read ({one_line(error)})", "align again") from error
        return cls(cortices, files.get("resampled"), files.get("subtraction"), values["reach"], cartilage)
