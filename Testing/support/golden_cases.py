"""The golden set: pairs whose alignments are on record, and how two alignments of one pair are compared.

The record (`golden.json`) proves that a change of the code, of torch or of the machine changed nothing. It says nothing
about whether an alignment is right: the benchmark does that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from DNetRegistrationLib import Alignment, Volume, align, make_pair, read_volume
from DNetRegistrationLib.synthesis.grid import Grid
from DNetRegistrationLib.synthesis.pairs import random_rotation

RECORD = Path(__file__).with_name("golden.json")

#: Seeds of these pairs. Neither the calibration nor the benchmark uses them.
_FIRST_SEED = 7_000_000


@dataclass(frozen=True)
class Golden:
    """One pair of the golden set.

    Attributes:
        name: unique, and the name in the record.
        scans: makes the fixed and the moving scan.
        options: to `align`.
    """

    name: str
    scans: Callable[[], tuple[Volume, Volume]]
    options: dict = field(default_factory=dict)

    def aligned(self, change: Change | None = None) -> Answer:
        """Aligns the pair, after `change` was made to the scans where one is given."""
        fixed, moving = self.scans()
        points = bone_points(fixed)
        if change is None:
            return Answer.of(align(fixed, moving, device="cpu", **self.options), points)
        changed = align(change.scan(fixed), change.scan(moving), device="cpu", **self.options)
        return Answer.of(changed, points, change.carried)


@dataclass(frozen=True)
class Answer:
    """What is recorded of an alignment.

    Attributes:
        matrix: ``(4, 4)`` float64, fixed to moving points, LPS mm.
        points: ``(n, 3)`` bone of the fixed scan, LPS mm.
        accepted, confidence, expected_error_um, dice_before, dice, hypothesis, mirrored: of the `Alignment`.
    """

    matrix: np.ndarray
    points: np.ndarray
    accepted: bool
    confidence: float
    expected_error_um: float
    dice_before: float
    dice: float
    hypothesis: str
    mirrored: bool

    @classmethod
    def of(cls, alignment: Alignment, points: np.ndarray, carried: np.ndarray | None = None) -> Answer:
        """The answer for unchanged scans, where both were moved by `carried` ``(4, 4)``."""
        matrix = alignment.matrix
        if carried is not None:
            matrix = np.linalg.inv(carried) @ matrix @ carried
        names = ("accepted", "confidence", "expected_error_um", "dice_before", "dice", "hypothesis", "mirrored")
        return cls(matrix, points, *(getattr(alignment, name) for name in names))

    def to_dict(self) -> dict:
        """Plain values for JSON, whose floats keep every bit."""
        values = {
            "accepted": bool(self.accepted),
            "hypothesis": self.hypothesis,
            "mirrored": bool(self.mirrored),
            "matrix": [float(value) for value in self.matrix[:3].ravel()],
        }
        numbers = ("confidence", "expected_error_um", "dice_before", "dice")
        return values | {name: float(getattr(self, name)) for name in numbers}

    def apart_um(self, recorded: dict) -> float:
        """Mean distance over the fixed scan's bone between where this and the recorded answer put it."""
        difference = self.matrix[:3] - np.reshape(recorded["matrix"], (3, 4))
        return 1000 * float(np.linalg.norm(self.points @ difference[:, :3].T + difference[:, 3], axis=1).mean())


@dataclass(frozen=True)
class Change:
    """Something done to both scans that should not matter.

    Attributes:
        scan: changes one scan.
        carried: ``(4, 4)``, where it moves the scans in the world, if it does.
    """

    scan: Callable[[Volume], Volume]
    carried: np.ndarray | None = None


def bone_points(fixed: Volume) -> np.ndarray:
    """Up to 2000 of the brightest hundredth part of the voxels, ``(n, 3)`` LPS mm: bone, however it is thresholded."""
    voxels = np.nan_to_num(np.asarray(fixed.voxels, np.float64), nan=-np.inf).ravel()
    brightest = np.sort(np.argpartition(voxels, -voxels.size // 100)[-voxels.size // 100 :])
    chosen = brightest[:: max(1, len(brightest) // 2000)]
    return fixed.to_world(np.stack(np.unravel_index(chosen, fixed.voxels.shape)[::-1], -1))


def _pair(number: int, **options) -> Callable[[], tuple[Volume, Volume]]:
    def scans() -> tuple[Volume, Volume]:
        pair = make_pair(_FIRST_SEED + number, **options)
        return pair.fixed, pair.moving

    return scans


def _grids(number: int) -> dict[str, Grid]:
    """An oblique, anisotropic, off-origin grid for each scan, of unequal sizes; every second one left-handed."""
    generator = np.random.default_rng([_FIRST_SEED, number])
    hand = np.diag((1.0, 1, -1 if number % 2 else 1))
    coarse = 0.08 * generator.uniform(0.7, 1.3, 3)
    fine = np.array((0.04, 0.05, 0.1))[generator.permutation(3)]
    return {
        "fixed_grid": Grid.centered(
            np.ceil(5.4 / coarse).astype(int), coarse, random_rotation(generator) @ hand, generator.normal(0, 300, 3)
        ),
        "moving_grid": Grid.centered(
            np.ceil(5.4 / fine).astype(int), fine, random_rotation(generator), generator.normal(0, 300, 3)
        ),
    }


def synthetic() -> list[Golden]:
    """60 synthetic pairs: whole, cut, impostors, anisotropic and oblique, finer, other bones, other options."""
    cases = [Golden(f"whole {n}", _pair(n, contrast=bool(n % 2))) for n in range(12)]
    cases += [Golden(f"cut {n}", _pair(100 + n, keep=0.5, contrast=bool(n % 2))) for n in range(12)]
    cases += [
        Golden(f"{impostor} {n}", _pair(200 + n, keep=0.75, impostor=impostor))
        for n, impostor in enumerate(("animal", "relative", "mirror") * 3)
    ]
    cases += [Golden(f"oblique {n}", _pair(300 + n, contrast=bool(n % 2), **_grids(n))) for n in range(11)]
    cases += [Golden(f"40 um {n}", _pair(400 + n, size=128, spacing=0.04, contrast=bool(n % 2))) for n in range(6)]
    cases += [Golden(f"{kind}", _pair(500 + n, kind=kind)) for n, kind in enumerate(("long", "flat", "irregular"))]
    cases += [
        Golden("search alone", _pair(600), {"hypotheses": "search"}),
        Golden("network alone", _pair(601), {"hypotheses": "dnet", "refine": "none"}),
        Golden("the paper's network", _pair(602), {"weights": "dnet"}),
        Golden("refined at the working spacing", _pair(603, size=128, spacing=0.04), {"refine": "working"}),
        Golden("thresholds given", _pair(604, scale="hu"), {"threshold": (700.0, 900.0)}),
        Golden("working spacing given", _pair(605), {"spacing": 0.1}),
        Golden("from the identity", _pair(606), {"initial": np.eye(4)}),
    ]
    return cases


def real(data: Path) -> list[Golden]:
    """Real scans: three views each of an ankle and of trabecular bone, both ankles, and the skull phantom's loop.

    Args:
        data: the folder of the real scans.
    """
    from real_pairs import ankle_views, both_ankles, trabecular_views

    ankles = data / "visible-human-ankles" / "VHF_ankles_1mm.nii.gz"
    cube = data / "lhdl-trabecular" / "3155_D_4_bc.nrrd"

    def views(make, *arguments):
        return lambda: tuple(Volume.from_sitk(seen.image) for seen in make(*arguments))

    def phantom(first: int, second: int):
        return lambda: tuple(read_volume(data / "skull-phantom" / f"scan{n}.nrrd") for n in (first, second))

    cases = [Golden(f"ankle {n}", views(ankle_views, ankles, 100 + n, 200 + n)) for n in range(3)]
    cases += [Golden(f"trabecular {n}", views(trabecular_views, cube, 300 + n, 400 + n)) for n in range(3)]
    cases += [Golden("the other ankle", views(both_ankles, ankles, 1, 2))]
    cases += [Golden(f"phantom {a} to {b}", phantom(a, b)) for a, b in ((1, 2), (2, 3), (3, 1))]
    return cases


def _last_bits(scan: Volume) -> Volume:
    """Noise of one unit in the last place of float32."""
    voxels = np.asarray(scan.voxels, np.float32)
    up = np.random.default_rng(0).random(voxels.shape) < 0.5
    return replace(scan, voxels=np.where(up, np.nextafter(voxels, np.float32(np.inf)), voxels))


def _padded(scan: Volume) -> Volume:
    """Five voxels more on each side, outside the field of view."""
    voxels = np.pad(np.asarray(scan.voxels, np.float32), 5, constant_values=np.nan)
    affine = scan.affine.copy()
    affine[:3, 3] = scan.to_world((-5, -5, -5))
    return replace(scan, voxels=voxels, affine=affine)


def _flipped(scan: Volume) -> Volume:
    """The same voxels, stored the other way round along each axis."""
    affine = scan.affine.copy()
    affine[:3, 3] = scan.to_world(np.array(scan.size) - 1)
    affine[:3, :3] *= -1
    return replace(scan, voxels=np.ascontiguousarray(scan.voxels[::-1, ::-1, ::-1]), affine=affine)


def _shift() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = 100, -100, 100
    return matrix


def _shifted(scan: Volume) -> Volume:
    return replace(scan, affine=_shift() @ scan.affine)


#: What should not matter, by name.
CHANGES = {
    "last bits": Change(_last_bits),
    "padding": Change(_padded),
    "flipped axes": Change(_flipped),
    "origin shifted": Change(_shifted, _shift()),
}


def recorded() -> dict[str, dict]:
    """The answers on record, by the name of the pair."""
    return json.loads(RECORD.read_text(encoding="utf-8"))["answers"]


def tolerance() -> dict[str, float]:
    """How far an answer may be from the recorded one; the record says what was measured."""
    return json.loads(RECORD.read_text(encoding="utf-8"))["tolerance"]


def write_record(answers: Iterable[tuple[str, Answer]], machine: dict[str, str]) -> None:
    """Replaces the recorded answers, and keeps what the file says about them."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"tolerance": {}}
    record |= {"machine": machine, "answers": {name: answer.to_dict() for name, answer in answers}}
    lines = json.dumps(record | {"answers": None}, indent=2).removesuffix("null\n}")
    rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in record["answers"].items())
    RECORD.write_text(f"{lines}{{\n{rows}\n  }}\n}}\n", encoding="utf-8")
