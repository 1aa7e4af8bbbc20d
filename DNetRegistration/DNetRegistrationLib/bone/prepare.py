"""Prepares two scans to be aligned: bone images, the place of the bone, and canonical cubes at one working spacing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..core.constants import PAPER_SPACING, Placement
from .cube import BonePlace, CanonicalCube, canonical_cube, place_of_bone, working_spacing
from .images import BoneImage, NativeScan, bone_pyramid, extended


@dataclass(frozen=True)
class PreparedScan:
    """A scan that is ready to be aligned.

    Attributes:
        native: its voxels.
        levels: its bone images, finest first; the last is near the working spacing.
        place: where its bone is.
        cube: its canonical cube, on the bone.
    """

    native: NativeScan
    levels: list[BoneImage]
    place: BonePlace
    cube: CanonicalCube

    @property
    def images(self) -> list[BoneImage | NativeScan]:
        """The images of all resolutions, finest first."""
        pooled = not np.array_equal(self.levels[0].affine, self.native.affine)
        return [self.native, *self.levels] if pooled else list(self.levels)

    def image_near(self, spacing: float) -> BoneImage | NativeScan:
        """The image whose voxel size comes closest to `spacing` mm."""
        return min(self.images, key=lambda image: abs(np.log(image.spacing.mean() / spacing)))

    @property
    def has_outline(self) -> bool:
        """Whether bone ends within the field of view, instead of filling it to the border on every side."""
        values = self.levels[-1].values
        faces = [values.select(axis, side) for axis in range(3) for side in (0, -1)]
        return min(float(face.mean()) for face in faces) < 0.5 * float(values.mean())

    def cube_on(self, placement: Placement) -> CanonicalCube:
        """The canonical cube on the "bone", or on the "center" of the scan's voxels."""
        if placement == "bone":
            return self.cube
        middle = (np.array(self.native.shape[::-1]) - 1) / 2
        center = self.native.affine[:3, :3] @ middle + self.native.affine[:3, 3]
        return canonical_cube(self.levels, replace(self.place, center=center), self.cube.spacing)

    def mirrored(self) -> PreparedScan:
        """The same scan of the mirror image of the bone (x reversed)."""
        flip = np.diag((-1.0, 1.0, 1.0, 1.0))
        levels = [replace(level, affine=flip @ level.affine) for level in self.levels]
        cube = replace(
            self.cube,
            image=self.cube.image.flip(-1),
            inside=self.cube.inside.flip(-1),
            center=self.cube.center * flip.diagonal()[:3],
        )
        place = replace(self.place, center=cube.center)
        return PreparedScan(replace(self.native, affine=flip @ self.native.affine), levels, place, cube)


def prepare(
    fixed: NativeScan, moving: NativeScan, spacing: float | None = None, check: Callable[[], None] = lambda: None
) -> tuple[PreparedScan, PreparedScan]:
    """Prepares both scans for one working spacing.

    Args:
        fixed, moving: the scans.
        spacing: working spacing in mm; None chooses it by the size of the bones.
        check: called between steps; an exception from it ends the work.
    """
    pyramids = [bone_pyramid(scan, spacing or PAPER_SPACING, check) for scan in (fixed, moving)]
    places = [place_of_bone(levels[-1]) for levels in pyramids]
    working = spacing or working_spacing(*places)
    prepared = []
    for scan, levels, place in zip((fixed, moving), pyramids, places, strict=True):
        check()
        levels = extended(levels, working)
        prepared.append(PreparedScan(scan, levels, place, canonical_cube(levels, place, working)))
    return prepared[0], prepared[1]
