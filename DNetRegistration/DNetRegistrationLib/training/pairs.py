"""Training pairs (Sec. 2.3), made of a dataset of bones on its device.

Each side of a pair is what `align` would show a network of a scan: a bone in any orientation in a field of view of
5.12 mm, which is cut or not, and a cube of 64^3 voxels of 0.08 mm placed on what is left of the bone. The truth is
exact: bones are resampled once, straight from the dataset to the cube.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..core.constants import PLACEMENTS, Placement
from ..core.errors import OptionError
from ..core.words import choice
from ..networks.batch import PairBatch
from ..synthesis.pairs import random_rotation
from .dataset import BoneDataset
from .fields_of_view import HALF_VIEW, Blocks, Drawn, find_views
from .resampler import Resampler

# At most so far, in mm along each axis, a bone lies off the middle of the fixed scan's field of view; and the middle of
# the fixed field of view off that of the moving one (Sec. 2.3).
JITTER, SHIFT = 0.25, 0.64
# At most so far, in mm along each axis, a cube's centre lies off the bone's centroid: two voxels.
PLACING = 0.16

# Ways to cut a pair that are tried for enough overlap; about one in 30 has too little.
_TRIES = 4


@dataclass(frozen=True, eq=False)
class PairSource:
    """Makes batches of pairs; a batch depends on the dataset, the options and its number alone.

    Attributes:
        dataset: the bones. A pair shows one of them twice.
        seed: of everything.
        rotations: of moving against fixed: "uniform" over SO(3), or "axis-angle", the paper's. The fixed scan is turned
            uniformly.
        max_angle: largest rotation of the fixed scan's bone against the dataset's, and of moving against fixed,
        radians;
            below pi both are "axis-angle" within it.
        keep: cut fields of view leave a fraction U(keep, 1) of the bone, on one side of the view drawn at random. Both
            still share `synthesis.pairs.SHARED` of the smaller one's bone.
        cut_share: share of the pairs that are cut.
        placement: of cubes: on the "bone" that is left, within `PLACING`, or on the "center" of the (uncut) field of
            view. There the translation is U(-0.64, 0.64) mm along each axis, as in the paper.
        contrast: share of the pairs in which one of the two scans is with contrast agent; in the others the same scan
            without is seen twice.
        scale: bone values are scaled by U(1 - scale, 1 + scale), each scan by its own.
        noise: variance of the noise added to bone values, the paper's N(0, 0.001) read as N(mean, variance): a standard
            deviation of 0.03 is about that of a scan, and one of 0.001 would be nothing. It is added where there is
            bone, and values stay at least 0: T leaves no noise elsewhere, nor below its threshold.

    Raises:
        OptionError: an option is out of range, or a bone does not lie about the middle of its grid.
    """

    dataset: BoneDataset
    seed: int
    rotations: str = "uniform"
    max_angle: float = math.pi
    keep: float = 0.5
    cut_share: float = 0.5
    placement: Placement = "bone"
    contrast: float = 0.5
    scale: float = 0.05
    noise: float = 0.001

    def __post_init__(self) -> None:
        for name, choices in (("rotations", ("uniform", "axis-angle")), ("placement", PLACEMENTS)):
            if getattr(self, name) not in choices:
                raise OptionError(f"{name} {getattr(self, name)!r} is unknown", f"give {choice(choices)}")
        if not 0 < self.keep <= 1:
            raise OptionError(f"keep is {self.keep}", "give a fraction above 0 and at most 1")
        for name in ("cut_share", "contrast", "scale"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} is {getattr(self, name)}", "give a share from 0 to 1")
        if not self.noise >= 0:
            raise OptionError(f"noise is {self.noise}", "give a variance, 0 or more")
        # In view whichever way it is turned.
        seen = ((self._blocks.places.norm(dim=-1) < HALF_VIEW) * self._blocks.counts).sum(-1).amin(1)
        if not seen.all():
            name = self.dataset.names[int((seen == 0).nonzero()[0])]
            raise OptionError(f"{name} shows no bone about the middle of its grid", "leave it out")

    def draw(self, number: int, count: int, *, max_angle: float | None = None, reduction: int = 1) -> PairBatch:
        """A batch on the dataset's device: the same for the same number, count and angle, whatever was drawn before.

        Args:
            number: of the batch, 0 or more.
            count: of pairs.
            max_angle: instead of the source's own, since a curriculum widens it.
            reduction: 1, 2, 4 or 8, by which a cube has fewer voxels along each axis: means, with less noise.
        """
        drawn = self._drawn(number, count, self.max_angle if max_angle is None else max_angle)
        views = find_views(drawn, self._blocks)
        fields = self.dataset.fields
        if fields is not None:
            fields = fields[drawn.bones[:, None], drawn.contrast.astype(np.int64)]
        inside = views.inside(fields, reduction).to(self.dataset.device)
        scans = list(zip(drawn.bones.repeat(2).tolist(), drawn.contrast.ravel().tolist(), strict=True))
        images = self._resampler(reduction)(scans, views.to_bone.flatten(0, 1), inside.flatten(0, 1))
        images = images.unflatten(0, (count, 2))
        self._vary(images, drawn, self.noise / reduction**3)
        inside = inside.float()
        return PairBatch(
            fixed=images[:, 0, None],
            moving=images[:, 1, None],
            fixed_inside=inside[:, 0, None],
            moving_inside=inside[:, 1, None],
            rotation=views.rotation,
            translation=views.translation,
            to_bone=views.to_bone,
        )

    @cached_property
    def _blocks(self) -> Blocks:
        # Positions are computed in float64, which not every device knows.
        device = self.dataset.device
        return Blocks(self.dataset, torch.device("cpu") if device.type == "mps" else device)

    @cached_property
    def _resamplers(self) -> dict[int, Resampler]:
        return {}

    def _resampler(self, reduction: int) -> Resampler:
        if reduction not in self._resamplers:
            self._resamplers[reduction] = Resampler(self.dataset, reduction)
        return self._resamplers[reduction]

    def _drawn(self, number: int, count: int, max_angle: float) -> Drawn:
        generator = np.random.default_rng([self.seed, number, 10])
        uniform, tries = generator.uniform, (count, 2, _TRIES)
        fixed_turn = np.stack([random_rotation(generator, max_angle=max_angle) for _ in range(count)])
        rotation = np.stack([random_rotation(generator, self.rotations, max_angle) for _ in range(count)])
        one_side = generator.integers(2, size=(count, 1)) == np.arange(2)
        cut = generator.random((count, 1, 1)) < self.cut_share
        placing = uniform(-PLACING, PLACING, (count, 2, 3))
        return Drawn(
            bones=generator.integers(len(self.dataset), size=count),
            contrast=one_side & (generator.random((count, 1)) < self.contrast),
            rotation=rotation,
            turn=np.stack((fixed_turn, rotation @ fixed_turn), 1),
            jitter=uniform(-JITTER, JITTER, (count, 3)),
            shift=uniform(-SHIFT, SHIFT, (count, 3)),
            fraction=np.where(cut, uniform(self.keep, 1, tries), 1.0),
            axis=generator.integers(3, size=tries),
            from_low=generator.random(tries) < 0.5,
            placing=placing if self.placement == "bone" else None,
            scale=uniform(1 - self.scale, 1 + self.scale, (count, 2)),
            noise_seed=int(generator.integers(1 << 62)),
        )

    def _vary(self, images: Tensor, drawn: Drawn, variance: float) -> None:
        """Scales intensities and adds noise, in place."""
        device = images.device
        images *= torch.from_numpy(drawn.scale).float().to(device)[..., None, None, None]
        if variance:
            generator = torch.Generator(device).manual_seed(drawn.noise_seed)
            noise = torch.randn(images.shape, generator=generator, device=device).mul_(variance**0.5)
            images += noise.mul_(images > 0)
            images.clamp_(min=0)
