"""Recipes: everything that decides what a training run computes, by name and field by field.

A field of `Recipe` is the one place that says what it is, which values it takes and what the command line calls it.
Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from ..core.constants import PLACEMENTS
from ..core.errors import OptionError, Setting

SIAMESE = ("se", "sed", "snl-sed", "dnet")
TABLE_1 = (*SIAMESE, "me")
NETWORKS = (*TABLE_1, "equivariant")
#: Kinds of synthetic bones, and how frequent they are in a dataset.
KINDS = {"tibia": 0.55, "long": 0.15, "flat": 0.1, "irregular": 0.2}
MATCHING = "matching"  # the loss of the equivariant network
PRECISIONS = ("auto", "float32", "bfloat16")
LARGEST_ANGLE = 180.0

DATA, OPTIMIZATION = "data", "optimization"  # what a field is about


@dataclass(frozen=True)
class Option:
    """What a field of a recipe may be set to.

    Attributes:
        help: in a few words.
        about: `DATA` or `OPTIMIZATION`.
        kind: int, float or str; of its items, where the field is a tuple.
        choices: the known values, or None.
        low, high: the range of a number.
        old: its name in checkpoints, cards and options of earlier versions.
    """

    help: str
    about: str = OPTIMIZATION
    kind: type = float
    choices: Sequence[str] | None = None
    low: float = 0.0
    high: float = 1.0
    old: str | None = None


def _option(default: Any, help: str, **more: Any) -> Any:
    """A field that a user may set."""
    kind = str if "choices" in more else more.pop("kind", float)
    return field(default=default, metadata={"option": Option(help, kind=kind, **more)})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the paper's recipe (Sec. 2.3 and 2.4).

    The paper does not tell its batch: 8 was taken. Its two volumes come of one scan; here that is so in half of the
    pairs, and in the others one of two scans is with contrast agent, as where the network is used.

    Raises:
        OptionError: a value is out of range.
    """

    #: Of the recipe that this is, or began as.
    name: str = "paper"
    iterations: int = _option(120_000, "steps of the optimizer", kind=int, low=1, high=10**9)
    batch: int = _option(8, "pairs of a step, of all processes", kind=int, low=1, high=100_000)
    #: A batch consists of micro-batches, and the processes of a distributed run share these: with one size of
    #: micro-batch the number of processes changes nothing. None takes what fits the device.
    micro_batch: int | None = _option(
        None, "pairs at once, less takes less memory", kind=int, low=1, high=100_000, old="part"
    )
    learning_rate: float = _option(1e-4, "the largest", low=1e-9, high=10)
    #: Share of the iterations over which the learning rate rises linearly from zero, in each of two stages.
    warmup: float = 0.0
    loss: str = _option(
        "paper",
        "Eq. 6, displaced points, or angles; matching is the equivariant network's",
        choices=("paper", "points", "geodesic", MATCHING),
    )
    #: The loss counts (moving, fixed) with the inverse motion too, from one pass through the trunk.
    both_directions: bool = False
    #: Muon needs torch 2.9, see `optimizers`.
    optimizer: str = _option("sgd", "sgd has a momentum of 0.9", choices=("sgd", "adamw", "muon"))
    #: "linear" falls in proportion to the iterations that are left, besides the warmup; "cosine" falls to zero along
    #: half a cosine after the warmup, in the last stage; "none" stays.
    decay: str = _option("none", "how the learning rate falls", choices=("linear", "cosine", "none"))
    #: Of matrices; biases and norms do not decay.
    weight_decay: float = _option(0.0, "not for sgd")
    grad_clip: float = _option(0.0, "largest norm of the gradient; 0: any", high=1e9, old="clip")
    #: The averaged weights (EMA, anew in each stage) are validated and saved.
    ema_decay: float = _option(0.0, "decay of averaged weights; 0: none", high=0.999999, old="average")
    #: "bfloat16" is autocast; sums of norms, loss and rotations stay in float32. "auto" does not choose it on a
    #: processor, where its backward passes can be slower.
    precision: str = _option("float32", "auto: bfloat16 on GPUs that have it", choices=PRECISIONS)
    #: Degrees, of the fixed scan's bone against the dataset's and of moving against fixed. Where both are small, the
    #: answer is nearly linear in what is seen, and a network of Table 1 learns within hundreds of pairs what it does
    #: not in thousands that are in any orientation.
    initial_angle: float = _option(
        LARGEST_ANGLE, "largest rotation at the start,", low=1, high=LARGEST_ANGLE, old="first_angle"
    )
    #: The largest angle grows linearly.
    angle_curriculum: float = _option(0.0, "all rotations after this share of the iterations", old="widening")
    #: The first iterations, in which a `SIAMESE` network learns nothing but the bone's pose in each scan, see
    #: `pose_stage`; in the others it learns the motion too. 0 for no poses at all.
    pose_pretraining: float = _option(0.0, "share of iterations for the pose of each scan alone", old="posing")
    #: Of the partner, see `networks.layers.NonLocalLink`.
    linked_voxels: int = _option(0, "that a link looks at; 0: all, as when used", kind=int, high=4096)
    #: `SIAMESE` networks only. A share is not less than the one before it.
    resolution_schedule: tuple[float, float, float] = _option(
        (0.0, 0.0, 0.0),
        "shares of the iterations after which cubes change from 1/8 of the resolution to 1/4, to 1/2 and to all of it",
    )
    rotations: str = _option(
        "axis-angle", "over SO(3), or as the paper draws them", about=DATA, choices=("uniform", "axis-angle")
    )
    #: The paper's are on the image's centre. Wherever the network is asked, its cubes lie as in training.
    placement: str = _option("center", "cubes on the bone, or on the image's centre", about=DATA, choices=PLACEMENTS)
    cut_share: float = _option(0.0, "share of the pairs with cut fields of view,", about=DATA)
    #: A cut leaves a fraction U(keep, 1) on one side, as in `synthesis.pairs.make_pair`.
    keep: float = _option(1.0, "down to this share of their bone", about=DATA, low=0.01)
    contrast: float = _option(0.5, "share of the pairs with contrast agent in one scan", about=DATA)
    #: As frequent among each other as in `KINDS`.
    kinds: tuple[str, ...] = _option(tuple(KINDS), "of synthetic bones", about=DATA, choices=tuple(KINDS))
    bones: int = _option(100, "synthetic bones, 1/8 to validate", about=DATA, kind=int, low=2, high=100_000)

    def __post_init__(self) -> None:
        defaults = {one.name: one.default for one in fields(self)}
        for name, option in recipe_options().items():
            value, default = getattr(self, name), defaults[name]
            if isinstance(default, tuple):
                _check_several(name, value, option, len(default))
                object.__setattr__(self, name, tuple(value))  # JSON has lists
            elif value is not None or default is not None:
                _check(name, value, option)
        if (self.initial_angle < LARGEST_ANGLE) != (self.angle_curriculum > 0):
            raise OptionError(
                "initial_angle and angle_curriculum belong together",
                "give both, from which angle rotations grow and for how long",
                Setting("initial_angle" if self.angle_curriculum > 0 else "angle_curriculum"),
            )
        if list(self.resolution_schedule) != sorted(self.resolution_schedule):
            shares = ", ".join(f"{share:g}" for share in self.resolution_schedule)
            remedy = "give shares of which none is less than the last"
            raise OptionError(f"resolution_schedule {shares} falls", remedy, Setting("resolution_schedule"))

    @property
    def pose_iterations(self) -> int:
        """Iterations for poses alone."""
        return round(self.pose_pretraining * self.iterations)

    @property
    def in_stages(self) -> bool:
        """Whether iterations differ in more than their learning rate, by their share of all."""
        return bool(self.pose_pretraining or self.angle_curriculum or max(self.resolution_schedule))

    def learning_rate_at(self, iteration: int) -> float:
        """Of the step from `iteration`, 0 and up, to the next."""
        poses_alone = iteration < self.pose_iterations
        left = 1 - iteration / self.iterations
        if not poses_alone:
            iteration -= self.pose_iterations
        iterations = self.pose_iterations if poses_alone else self.iterations - self.pose_iterations
        warmup = self.warmup * iterations
        risen = min((iteration + 1) / warmup, 1.0) if warmup else 1.0
        if self.decay == "linear":
            return self.learning_rate * risen * max(left, 0.0)
        if risen < 1 or poses_alone or self.decay == "none":
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
        """The iteration at which the stage of this one began: another resolution, or the motion."""
        return max(began for began in (0, self.pose_iterations, *self._changes) if began <= iteration)

    @property
    def _changes(self) -> tuple[int, ...]:
        """The first iterations that are no longer at an eighth, at a quarter, at half of the resolution."""
        return tuple(math.ceil(share * self.iterations) for share in self.resolution_schedule)

    def largest_angle_at(self, iteration: int) -> float:
        """The largest rotation between the two of a pair, in radians; pi is all rotations."""
        growing = self.angle_curriculum * self.iterations
        done = iteration / growing if iteration < growing else 1.0
        return math.radians(self.initial_angle + done * (LARGEST_ANGLE - self.initial_angle))

    def in_micro_batches(self, processes: int, room: int) -> Recipe:
        """The recipe with `micro_batch` decided: the pairs that a device has `room` for and `processes` can share.

        Raises:
            OptionError: the batch cannot be made of such micro-batches.
        """
        share, left = divmod(self.batch, processes)
        if left:
            raise OptionError(
                f"{processes} processes cannot share a batch of {self.batch}", "give another", Setting("batch")
            )
        if self.micro_batch is None:
            return replace(self, micro_batch=max(n for n in range(1, min(share, room) + 1) if share % n == 0))
        if share % self.micro_batch:
            raise OptionError(
                f"a share of {share} pairs cannot be made of micro-batches of {self.micro_batch}",
                "give another size",
                Setting("micro_batch"),
            )
        return self


def recipe_options() -> dict[str, Option]:
    """The fields of a recipe that a user may set, by name."""
    return {one.name: one.metadata["option"] for one in fields(Recipe) if one.metadata}


Recipe.__doc__ = f"{Recipe.__doc__}\n    Attributes:\n" + "\n".join(
    f"        {name}: {option.help}" for name, option in recipe_options().items()
)


def _check(name: str, value: Any, option: Option) -> None:
    if option.choices is not None:
        if value not in option.choices:
            raise OptionError(f"{name} {value!r} is unknown", f"choose from {', '.join(option.choices)}", Setting(name))
        return
    wanted, words = (Integral, "whole number") if option.kind is int else (Real, "number")
    if not isinstance(value, wanted) or not option.low <= value <= option.high:  # type: ignore[operator]
        remedy = f"give a {words} from {option.low:g} to {option.high:g}"
        raise OptionError(f"{name} is {value}", remedy, Setting(name))


def _check_several(name: str, values: Any, option: Option, count: int) -> None:
    """Checks a field that is a tuple: of some of the choices, or of `count` numbers."""
    known = option.choices is not None
    if not isinstance(values, list | tuple) or not values or (not known and len(values) != count):
        remedy = f"give some of {', '.join(option.choices)}" if option.choices else f"give {count} numbers"
        raise OptionError(f"{name} is {values!r}", remedy, Setting(name))
    for value in values:
        _check(name, value, option)


# Shares of stages and resolutions are those of the runs that made the D-net that ships, as one.
_FAST = Recipe(
    name="fast",
    iterations=40_000,
    batch=64,
    learning_rate=2e-3,
    warmup=0.02,
    loss="points",
    both_directions=True,
    optimizer="muon",
    decay="linear",
    weight_decay=0.01,
    grad_clip=1.0,
    ema_decay=0.999,
    precision="auto",
    pose_pretraining=0.46,
    linked_voxels=256,
    resolution_schedule=(0.19, 0.64, 0.69),
    rotations="uniform",
    placement="bone",
    cut_share=0.5,
    keep=0.5,
    bones=400,
)

#: Without the easy starts of a recipe, which weights that were trained once need no more.
NO_CURRICULUM = {
    "initial_angle": LARGEST_ANGLE,
    "angle_curriculum": 0.0,
    "pose_pretraining": 0.0,
    "resolution_schedule": (0.0, 0.0, 0.0),
}

# A mixed encoder has no pose of each scan, and its other direction is a second pass.
_FAST_MIXED = replace(_FAST, **{**NO_CURRICULUM, "initial_angle": 80.0, "angle_curriculum": 0.8}, both_directions=False)

# A descriptor that does not change under rotation needs no curriculum, and few pairs: from 100 to 300 iterations the
# errors on unseen bones fell by a tenth.
_FAST_EQUIVARIANT = replace(
    _FAST, **NO_CURRICULUM, loss=MATCHING, both_directions=False, iterations=300, batch=16, optimizer="adamw",
    learning_rate=1e-3, decay="cosine", ema_decay=0.99, precision="float32", linked_voxels=0, bones=112,
)  # fmt: skip

RECIPES = ("paper", "fast")


def recipe_for(name: str, network: str) -> Recipe:
    """The recipe of this name, as it is for this network.

    Raises:
        OptionError: there is no such recipe, or not for this network.
    """
    if name not in RECIPES:
        raise OptionError(f"there is no recipe {name!r}", f"choose one of {', '.join(RECIPES)}", Setting("recipe"))
    if network not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise OptionError(f"there is no network {network!r}", f"choose one of {known}", Setting("network"))
    if name == "paper":
        if network not in TABLE_1:
            problem = f"the recipe 'paper' is for the networks of the paper, not for {network!r}"
            raise OptionError(problem, "take 'fast'", Setting("recipe", value="fast"))
        return Recipe()
    return {"me": _FAST_MIXED, "equivariant": _FAST_EQUIVARIANT}.get(network, _FAST)


def current_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the names of this version, of any that an earlier one stored."""
    found = dict(stored)
    shares = [found.pop(name, 0.0) for name in ("coarsest", "coarser", "coarse") if name in found]
    if shares:
        found["resolution_schedule"] = tuple(shares)
    for name, option in recipe_options().items():
        if option.old in found:
            found[name] = found.pop(option.old)
    if found.get("loss") == "own":
        found["loss"] = MATCHING
    if "bank" in found:
        found["dataset"] = found.pop("bank")
    kinds = found.get("kinds")
    if kinds is not None:
        found["kinds"] = tuple(kinds.split(",")) if isinstance(kinds, str) else tuple(kinds)
    return found
