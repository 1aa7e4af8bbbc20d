"""Recipes: everything that decides what a training run computes, by name and field by field.

Needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SIAMESE = ("se", "sed", "snl-sed", "dnet")
TABLE_1 = (*SIAMESE, "me")
KINDS = ("tibia", "long", "flat", "irregular")
_ALL = ",".join(KINDS)
NETWORKS = (*TABLE_1, "equivariant")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: of the recipe that this is, or began as.
        loss: one of `losses.LOSSES`, or "own": the network has its own.
        both_directions: the loss also of (moving, fixed) with the inverse motion, from one pass through the trunk.
        iterations: steps of the optimizer.
        batch: pairs of one iteration, of all processes together.
        part: pairs that are drawn and go through the network at once; None chooses what fits the device. A batch is
            made of parts, and the processes of a distributed run share them out: with one size of parts, how many
            processes there are changes nothing.
        optimizer: "sgd" (with momentum 0.9), "adamw", or "muon" (see `muon`; torch 2.9 or later).
        learning_rate: the largest.
        warmup: share of the iterations over which the learning rate rises linearly from zero, in either stage.
        decay: "linear": besides it falls in proportion to the iterations that are left; "cosine": after the warmup it
            falls to zero along half a cosine, in the last stage; "none": it stays.
        weight_decay: of weights, not of biases and norms; not for "sgd".
        clip: largest norm of the gradient, or 0 for any.
        average: weights are averaged over iterations with this decay (EMA), anew in each stage, 0 for not at all. The
            averaged weights are validated and saved.
        precision: "float32", "bfloat16" (autocast; sums of norms, loss and rotations stay in float32), or "auto":
            bfloat16 on GPUs that have it. On a processor it is not chosen by itself: there its backward passes can be
            slower.
        rotations: of the pairs, "uniform" on SO(3) or "axis-angle" (Sec. 2.3).
        first_angle: the largest rotation at the start, in degrees, of the fixed scan's bone against the bank's and of
            moving against fixed. Where both are small, the answer is nearly linear in what is seen, and a network of
            Table 1 learns within hundreds of pairs what it does not in thousands that are turned any way.
        widening: share of the iterations over which that grows, linearly, to all rotations.
        posing: share of the iterations, the first ones, in which a `SIAMESE` network learns nothing but where the bone
            lies in each scan against the bank's frame, see `poses`; in the others it learns the motion too. 0 for no
            poses at all.
        linked_voxels: of the partner, that a non-local link looks at in training; 0 for all, see
            `networks.NonLocalLink.sampled`.
        coarsest: share of the iterations, the first ones, on cubes of an eighth of the resolution;
        coarser: share of the first that are on cubes of that or of a quarter, not less than `coarsest`,
        coarse: and of those that are not on whole ones, not less than `coarser`; `SIAMESE` networks only.
        placement: cubes on the "bone", as `align` places them, or on the image's "center", as the paper does.
        cut_share: share of the pairs whose fields of view are cut,
        keep: on one side, down to a fraction U(keep, 1) of their bone, as in `synthesis.make_pair`.
        contrast: share of the pairs in which one scan is with contrast agent.
        kinds: of synthetic bones, names with commas between; as frequent among each other as in `bank_synthetic.KINDS`.
        bones: how many synthetic bones are made to draw pairs from, those for validation among them.
    """

    name: str
    loss: str
    both_directions: bool
    iterations: int
    batch: int
    part: int | None
    optimizer: str
    learning_rate: float
    warmup: float
    decay: str
    weight_decay: float
    clip: float
    average: float
    precision: str
    rotations: str
    first_angle: float
    widening: float
    posing: float
    linked_voxels: int
    coarsest: float
    coarser: float
    coarse: float
    placement: str
    cut_share: float
    keep: float
    contrast: float
    kinds: str
    bones: int

    @property
    def posing_iterations(self) -> int:
        return round(self.posing * self.iterations)

    @property
    def in_stages(self) -> bool:
        """Whether iterations differ in more than their learning rate, by their share of all."""
        return bool(self.posing or self.widening or max(self.coarsest, self.coarser, self.coarse))

    def learning_rate_at(self, iteration: int) -> float:
        """Of the step from `iteration`, 0 and up, to the next."""
        posing = iteration < self.posing_iterations
        left = 1 - iteration / self.iterations
        if not posing:
            iteration -= self.posing_iterations
        iterations = self.posing_iterations if posing else self.iterations - self.posing_iterations
        warmup = self.warmup * iterations
        risen = min((iteration + 1) / warmup, 1.0) if warmup else 1.0
        if self.decay == "linear":
            return self.learning_rate * risen * max(left, 0.0)
        if risen < 1 or posing or self.decay == "none":
            return self.learning_rate * risen
        done = min(max((iteration - warmup) / max(iterations - warmup, 1), 0.0), 1.0)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def reduction_at(self, iteration: int) -> int:
        """By how much the cubes of this iteration are smaller: 8, 4, 2 or 1."""
        return next((r for r, end in zip((8, 4, 2), self._changes, strict=True) if iteration < end), 1)

    def reductions_from(self, iteration: int) -> dict[int, int]:
        """How many iterations, from this one on, are at each reduction."""
        found = {}
        for reduction, end in zip((8, 4, 2, 1), (*self._changes, self.iterations), strict=True):
            found[reduction] = max(0, end - iteration)
            iteration = max(iteration, end)
        return found

    def stage_at(self, iteration: int) -> int:
        """The iteration at which that stage began which this one is of: another resolution, or the motion."""
        return max(began for began in (0, self.posing_iterations, *self._changes) if began <= iteration)

    @property
    def _changes(self) -> tuple[int, ...]:
        """The first iterations that are no longer at an eighth, at a quarter, at half of the resolution."""
        return tuple(math.ceil(share * self.iterations) for share in (self.coarsest, self.coarser, self.coarse))

    def largest_angle_at(self, iteration: int) -> float:
        """The largest rotation between the two of a pair, in radians; pi is all rotations."""
        widening = self.widening * self.iterations
        done = iteration / widening if iteration < widening else 1.0
        return math.radians(self.first_angle + done * (180.0 - self.first_angle))

    def in_parts(self, processes: int, room: int) -> Recipe:
        """With `part` decided: as many pairs as a device has `room` for, and as `processes` can share.

        Raises:
            ValueError: the batch cannot be made of such parts.
        """
        share, left = divmod(self.batch, processes)
        if left:
            raise ValueError(f"{processes} processes cannot share a batch of {self.batch}; give another --batch")
        if self.part is None:
            return replace(self, part=max(n for n in range(1, min(share, room) + 1) if share % n == 0))
        if share % self.part:
            raise ValueError(f"a share of {share} pairs cannot be made of parts of {self.part}; give another --part")
        return self


# Sec. 2.3 and 2.4. The paper does not tell its batch: 8 was taken. Its two volumes come of one scan; here that is so in
# half of the pairs, and in the others one of two scans is with contrast agent, as where the network is used.
_PAPER = Recipe(
    name="paper",
    loss="paper",
    both_directions=False,
    iterations=120_000,
    batch=8,
    part=None,
    optimizer="sgd",
    learning_rate=1e-4,
    warmup=0.0,
    decay="none",
    weight_decay=0.0,
    clip=0.0,
    average=0.0,
    precision="float32",
    rotations="axis-angle",
    first_angle=180.0,
    widening=0.0,
    posing=0.0,
    linked_voxels=0,
    coarsest=0.0,
    coarser=0.0,
    coarse=0.0,
    placement="center",
    cut_share=0.0,
    keep=1.0,
    contrast=0.5,
    kinds=_ALL,
    bones=100,
)

# Shares of stages and resolutions are those of the runs that made the D-net that ships, as one.
_FAST = Recipe(
    name="fast",
    loss="points",
    both_directions=True,
    iterations=40_000,
    batch=64,
    part=None,
    optimizer="muon",
    learning_rate=2e-3,
    warmup=0.02,
    decay="linear",
    weight_decay=0.01,
    clip=1.0,
    average=0.999,
    precision="auto",
    rotations="uniform",
    first_angle=180.0,
    widening=0.0,
    posing=0.46,
    linked_voxels=256,
    coarsest=0.19,
    coarser=0.64,
    coarse=0.69,
    placement="bone",
    cut_share=0.5,
    keep=0.5,
    contrast=0.5,
    kinds=_ALL,
    bones=400,
)

# A descriptor that does not change under rotation needs no curriculum, and few pairs: from 100 to 300 iterations the
# errors on unseen bones fell by a tenth.
_FAST_EQUIVARIANT = replace(
    _FAST, loss="own", both_directions=False, iterations=300, batch=16, optimizer="adamw", learning_rate=1e-3,
    decay="cosine", average=0.99, precision="float32", posing=0.0, linked_voxels=0, coarsest=0.0, coarser=0.0,
    coarse=0.0, bones=112,
)  # fmt: skip

RECIPES = ("paper", "fast")
DECAYS = ("linear", "cosine", "none")
OPTIMIZERS = ("sgd", "adamw", "muon")
PRECISIONS = ("auto", "float32", "bfloat16")


def recipe_for(name: str, network: str) -> Recipe:
    """The recipe of this name, as it is for this network.

    Raises:
        ValueError: there is no such recipe, or not for this network.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    if network not in NETWORKS:
        raise ValueError(f"there is no network {network!r}; choose one of {', '.join(NETWORKS)}")
    if network == "equivariant":
        if name == "paper":
            raise ValueError("the recipe 'paper' is for the networks of the paper; take 'fast' for 'equivariant'")
        return _FAST_EQUIVARIANT
    if name == "paper":
        return _PAPER
    if network == "me":
        # In a mixed encoder the other direction is a second pass.
        easy = {"first_angle": 80.0, "widening": 0.8}
        return replace(_FAST, **easy, both_directions=False, posing=0.0, coarsest=0.0, coarser=0.0, coarse=0.0)
    return _FAST
