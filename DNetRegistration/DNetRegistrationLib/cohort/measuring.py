"""How the cartilage of a pair is measured, as its owner asks for it, with files and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..bone.scan_file import ScanFile
from ..core.errors import OptionError, ScanError, Setting
from ..core.progress import ProgressFunction

if TYPE_CHECKING:
    import numpy as np

    from ..cartilage.result import CartilageMeasurement
    from ..imaging.volume import Volume
    from ..registration.result import Alignment


@dataclass(frozen=True, eq=False)
class PairOfScans:
    """A pair as it was read.

    Attributes:
        fixed, moving: the scans.
        masks: ``(z, y, x)`` bool of the fixed and the moving scan's shape, where bone is looked for; or None.
        region: the same, where the articular surface of the scan without agent is; or None.
    """

    fixed: Volume
    moving: Volume
    masks: tuple[np.ndarray | None, np.ndarray | None]
    region: np.ndarray | None


@contextmanager
def _of_region() -> Iterator[None]:
    """Says of the region of the joint what is said of the masks of bone elsewhere."""
    try:
        yield
    except (ScanError, OptionError) as error:
        asked = error.setting is not None and error.setting.quantity == "segment"
        setting = Setting("region_segment" if asked else "region")
        file, mask, wrong = error.problem.rpartition(": the mask ")
        problem = f"{file}: the region of the joint {wrong}" if mask else f"the region of the joint: {error.problem}"
        raise type(error)(problem, error.remedy, setting) from error


@dataclass(frozen=True)
class Measuring:
    """How cartilage is measured.

    Attributes:
        contrast: which scan has the contrast agent, "fixed" or "moving".
        anyway: measure although the alignment was not accepted.
        region: file of a mask of the scan without agent; the articular surface is where it is above 0. None to find it.
        region_segment: the segment or the label of the region that counts; None for all.
        medial: a point on the medial side, (x, y, z) in the world of the scan without agent, LPS mm; None to find it.
    """

    contrast: str = "moving"
    anyway: bool = False
    region: str | None = None
    region_segment: str | None = None
    medial: tuple[float, ...] | None = None

    @property
    def paths(self) -> list[str]:
        """The paths that it is read from."""
        return [] if self.region is None else [self.region]

    def in_order(self, fixed: Volume, moving: Volume) -> tuple[Volume, Volume]:
        """The scan without agent, and the one with it."""
        return (fixed, moving) if self.contrast == "moving" else (moving, fixed)

    def read_region(self, fixed: Volume, moving: Volume) -> np.ndarray | None:
        """The region as a boolean array of the shape of the scan without agent; None where none is given.

        Raises:
            ScanError: it cannot be read, or holds nothing of that scan.
            OptionError: a segment is chosen of no region.
        """
        plain, _ = self.in_order(fixed, moving)
        with _of_region():
            return self._region(plain).read_mask(None, plain)

    def check_headers(self, fixed: Volume, moving: Volume, wanted: bool, whole: bool = False) -> None:
        """Checks by headers where cartilage is to be measured.

        Args:
            fixed, moving: the headers of the scans.
            wanted: it will be measured; the region is read all the same.
            whole: read the voxels of the region too, and tell of one that marks nothing.

        Raises:
            ScanError, OptionError: as `read_region` and `measure` do, but for what voxels tell.
        """
        from ..cartilage.sides import check_medial

        plain, _ = self.in_order(fixed, moving)
        with _of_region():
            (self._region(plain).read_mask if whole else self._region(plain).check_mask)(None, plain)
        if wanted:
            check_medial(self.medial, plain)

    def _region(self, plain: Volume) -> ScanFile:
        return ScanFile(plain.name, mask=self.region, segment=self.region_segment)

    def measure(
        self, alignment: Alignment, pair: PairOfScans, progress: ProgressFunction
    ) -> CartilageMeasurement | None:
        """Measures the cartilage; None where the alignment was not accepted, and nobody wants it all the same.

        Args:
            alignment: of the scans.
            pair: the scans.
            progress: called with a fraction and a message.
        """
        if not (alignment.accepted or self.anyway):
            return None
        from ..cartilage.measure import measure_cartilage

        return measure_cartilage(
            alignment,
            *self.in_order(pair.fixed, pair.moving),
            agent_in=self.contrast,
            mask=pair.masks[0 if self.contrast == "moving" else 1],
            region=pair.region,
            medial=self.medial,
            anyway=self.anyway,
            progress=progress,
        )
