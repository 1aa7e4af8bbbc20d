"""The kinds of adversarial pairs: each a function of a generator that draws two scans and what befell them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.random import Generator

from ..geometry.transforms import affine_matrix
from ..imaging.volume import Volume
from . import damage, solids
from .cases import SIZE, SPACING, Case, draw_seed, joined, of_bone, of_scans, of_solid, thick_grid
from .damage import Seen
from .grid import Grid
from .knees import LARGE, SCENES, make_knee
from .pairs import SHARED, random_rotation
from .scanner import scan
from .session import Session
from .shape import Shape
from .solids import Solid, placed
from .tibia import Animal

# What a wrong grid, a hidden or a changed bone may still amount to when an answer that is right must be accepted.
_SLIGHT_STRAIN, _SLIGHT_LOSS = 0.01, 0.2


def _logarithmic(generator: Generator, low: float, high: float) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _chosen(generator: Generator, *choices: str) -> str:
    return str(generator.choice(choices))


def _cut_or_whole(generator: Generator) -> dict:
    return {"keep": 0.5 if generator.random() < 0.4 else 1.0}


def plain(generator: Generator) -> Case:
    """Nothing is wrong."""
    return of_bone(generator, **_cut_or_whole(generator))


def metal(generator: Generator) -> Case:
    """Metal of any size and place, in the scanner, in the bone, or in one of the scans."""
    case = of_bone(generator, scale=_chosen(generator, "hu", "raw", "attenuation"))
    where = _chosen(generator, "scanner", "bone", "fixed", "moving")
    size, factor = _logarithmic(generator, 0.06, 0.6), _logarithmic(generator, 3, 30)
    shape, solid = _metal_solid(generator, size)
    half = SIZE * SPACING / 2
    if where == "bone" or generator.random() < 0.4:
        center = case.fixed.world[generator.integers(len(case.bones))] + generator.normal(0, 0.3, 3)
    else:
        center = generator.uniform(-0.85 * half, 0.85 * half, 3)
    pose = affine_matrix(random_rotation(generator), center)
    poses = {"fixed": pose, "moving": case.matrix @ pose if where == "bone" else pose}
    rays = _logarithmic(generator, 0.1, 1.5) if generator.random() < 0.5 else 0.0
    ceiling = float(generator.uniform(1.5, 6)) if generator.random() < 0.3 else None
    spokes, phase = int(generator.integers(1, 5)), generator.uniform(0, 2 * np.pi)
    for role in poses if where in ("scanner", "bone") else (where,):
        if rays:
            middle, strength = poses[role][:3, 3], rays * case.contrast
            # Bound now: the loop goes on.
            add_rays = partial(
                damage.streaked, center=middle, radius=2 * size, strength=strength, spokes=spokes, phase=phase
            )
            case = case.change(add_rays, role)
        case = case.paint(placed(solid, poses[role]), factor, "brighter", role)
        if ceiling:
            case = case.change(partial(damage.clipped, level=case.level(ceiling)), role)
    lost = case.hidden(placed(solid, pose))
    case = case.ask(lost < _SLIGHT_LOSS and rays < 0.4)
    return case.tell(where=where, shape=shape, size_mm=size, factor=factor, rays=rays, ceiling=ceiling, hidden=lost)


def _metal_solid(generator: Generator, size: float) -> tuple[str, Solid]:
    shapes = {
        "ball": solids.ball(size),
        "wire": solids.capsule(0.4 * size, 4 * size),
        "plate": solids.box(3 * size, 1.5 * size, 0.5 * size),
        "hook": solids.union(
            *(
                placed(solids.box(*halves), affine_matrix(np.eye(3), center))
                for halves, center in (
                    ((0.5 * size, 0.5 * size, 1.5 * size), (0, 0, size)),
                    ((0.5 * size, 1.5 * size, 0.5 * size), (0, size, 0)),
                    ((size, 0.5 * size, 0.5 * size), (0.5 * size, 0, 0)),
                )
            )
        ),
    }
    shape = _chosen(generator, *shapes)
    return shape, shapes[shape]


def holder(generator: Generator) -> Case:
    """A tube, a platform or rods of hydroxyapatite that stay where they are while the bone is put back otherwise."""
    size = 80
    case = of_bone(generator, size=size, max_translation=0.4, scale=_chosen(generator, "hu", "raw", "attenuation"))
    half = size * SPACING / 2
    what = _chosen(generator, "tube", "platform", "rods")
    share = _logarithmic(generator, 0.15, 1.3)
    tilt = random_rotation(generator, max_angle=0.15)
    if what == "tube":
        wall = generator.uniform(0.1, 0.4)
        parts = [(solids.hollow(solids.cylinder(generator.uniform(0.75, 0.95) * half), wall), np.zeros(3), share)]
    elif what == "platform":
        thick = generator.uniform(0.1, 0.4)
        parts = [(solids.box(0.8 * half, thick, 0.8 * half), np.array([0, 0.95 * half - thick, 0]), share)]
    else:
        count, turn = int(generator.integers(3, 6)), generator.uniform(0, 2 * np.pi)
        radius = generator.uniform(0.15, 0.35)
        angles = turn + np.linspace(0, generator.uniform(1.0, 3.0), count)
        places = [np.array([np.cos(a), np.sin(a), 0]) * (0.9 * half - radius) for a in angles]
        rods = np.linspace(0.25, share + 0.25, count)
        parts = [(solids.cylinder(radius, 0.8 * half), at, one) for at, one in zip(places, rods, strict=True)]
    lost = 0.0
    for solid, center, one in parts:
        there = placed(solid, affine_matrix(tilt, tilt @ center))
        lost += case.hidden(there)
        case = case.paint(there, one, "brighter")
    return case.ask(lost < _SLIGHT_LOSS).tell(what=what, share=share, hidden=lost)


def strain(generator: Generator) -> Case:
    """A voxel size that is wrong, along one axis of a scan, all of them, or one up and another down."""
    case = of_bone(generator, **_cut_or_whole(generator))
    amount = _logarithmic(generator, 0.005, 0.15) * generator.choice((-1, 1))
    form, scan_role = _chosen(generator, "x", "y", "z", "uniform", "opposed"), _chosen(generator, "fixed", "moving")
    scale = np.ones(3)
    if form == "uniform":
        scale += amount
    elif form == "opposed":
        first, second = generator.permutation(3)[:2]
        scale[[first, second]] += (amount, -amount)
    else:
        scale["xyz".index(form)] += amount
    case = case.change(lambda seen: damage.restated(seen, damage.in_axes(seen.volume, np.diag(scale))), scan_role)
    return case.ask(abs(amount) <= _SLIGHT_STRAIN).tell(form=form, amount=float(amount), scan=scan_role)


def shear(generator: Generator) -> Case:
    """Slices that are shifted against each other, as where the tilt of a gantry is dropped."""
    case = of_bone(generator, **_cut_or_whole(generator))
    amount = _logarithmic(generator, 0.005, 0.3) * generator.choice((-1, 1))
    scan_role, along = _chosen(generator, "fixed", "moving"), int(generator.integers(2))
    linear = np.eye(3)
    linear[along, 2] = amount
    case = case.change(lambda seen: damage.restated(seen, damage.in_axes(seen.volume, linear)), scan_role)
    return case.ask(abs(amount) <= _SLIGHT_STRAIN).tell(along="xy"[along], amount=float(amount), scan=scan_role)


def _restacked(repeat: bool, generator: Generator) -> Case:
    case = of_bone(generator)
    count = round(_logarithmic(generator, 1, 12))
    scan_role, scattered = _chosen(generator, "fixed", "moving"), bool(generator.random() < 0.4)
    kept = np.arange(4, SIZE - 4)
    start = int(generator.integers(len(kept) - count))
    chosen = generator.choice(kept, count, replace=False) if scattered else kept[start : start + count]
    repeats = np.ones(SIZE, int)
    repeats[chosen] = 2 if repeat else 0
    order = np.repeat(np.arange(SIZE), repeats)
    case = case.change(lambda seen: damage.restacked(seen, 2, order), scan_role)
    # The error depends on where the slices are.
    return case.ask(False).tell(slices=sorted(int(one) for one in chosen), scattered=scattered, scan=scan_role)


def missing(generator: Generator) -> Case:
    """Slices are missing, and nothing says so."""
    return _restacked(False, generator)


def doubled(generator: Generator) -> Case:
    """Slices are there twice, and nothing says so."""
    return _restacked(True, generator)


def two_bones(generator: Generator) -> Case:
    """A knee, two legs, or a bone and a phantom, each bone moved on its own."""
    bend = float(generator.uniform(5, 90))
    options = {
        "scene": _chosen(generator, *SCENES), "bend": (bend, bend), "contrast": bool(generator.random() < 0.5),
        "keep": 0.7 if generator.random() < 0.4 else 1.0,
    }  # fmt: skip
    knee = make_knee(draw_seed(generator), **options)
    told = {"shares": knee.shares.tolist(), "shared": knee.shared.tolist(), "scale": knee.drawn["scale"]}
    drawn, scans = {**options, "bend": bend, **told}, (knee.fixed, knee.moving)
    # Of a small bone, or one that only one scan shows, nothing need be said.
    large = np.flatnonzero((knee.shares >= LARGE) & (knee.shared >= SHARED))
    return joined([of_scans(scans, knee.fixed_bones == one + 1, knee.matrices[one], False, drawn) for one in large])


def mirrored(generator: Generator) -> Case:
    """One scan shows the mirror image: a left and a right leg, or slices in reverse order."""
    if generator.random() < 0.5:
        return of_bone(generator, impostor="mirror", **_cut_or_whole(generator)).tell(how="leg")
    axis = int(generator.integers(3))
    case = of_bone(generator, **_cut_or_whole(generator))
    size = case.moving.volume.size[axis]
    case = case.change(lambda seen: damage.restacked(seen, axis, np.arange(size)[::-1]), "moving")
    return case.unlike().tell(how="xyz"[axis])


def other(generator: Generator) -> Case:
    """The same bone of another animal."""
    return of_bone(generator, impostor="animal", **_cut_or_whole(generator))


def littermate(generator: Generator) -> Case:
    """The same bone of a relative."""
    amount = float(generator.uniform(0.05, 0.6))
    options = {"kind": "tibia", "impostor": "relative", "relative_amount": amount, **_cut_or_whole(generator)}
    return of_bone(generator, **options).tell(amount=amount)


@dataclass(frozen=True, eq=False)
class _Refilled(Animal):
    """A tibia with the spongy bone of another one."""

    donor: Animal | None = None

    @cached_property
    def shape(self) -> Shape:
        own = Animal(self.genes, self.structure, self.left).shape
        return own if self.donor is None else replace(own, spongiosa=self.donor.shape.spongiosa)


def refilled(generator: Generator) -> Case:
    """The same outline, filled with the trabeculae of another animal."""
    animal, donor = (Animal.draw(draw_seed(generator)) for _ in range(2))
    other = _Refilled(animal.genes, animal.structure, animal.left, donor)
    return of_bone(generator, kind="tibia", fixed_animal=animal, moving_animal=other)


def _wall(generator: Generator) -> float | None:
    """Of a hollow solid, or None for one that is full."""
    return float(generator.uniform(0.15, 0.4)) if generator.random() < 0.5 else None


def ball(generator: Generator) -> Case:
    """A ball in any orientation."""
    return of_solid(generator, solids.ball(generator.uniform(0.7, 1.8)), wall=_wall(generator))


def shaft(generator: Generator) -> Case:
    """A straight shaft that leaves the field of view at both ends."""
    return of_solid(generator, solids.cylinder(generator.uniform(0.4, 1.2)), wall=_wall(generator))


def capped(generator: Generator) -> Case:
    """A cylinder, which may be turned about its axis."""
    solid = solids.cylinder(generator.uniform(0.4, 1.2), generator.uniform(0.8, 1.8))
    return of_solid(generator, solid, wall=_wall(generator))


def crop(generator: Generator) -> Case:
    """A piece of a tibia's shaft. Only its curvature and the fibula tell where along its axis it lies."""
    return _piece_of_shaft(generator)


def littermate_crop(generator: Generator) -> Case:
    """The same piece of the shafts of two relatives: their shapes differ by a tenth of a voxel."""
    amount = _logarithmic(generator, 0.03, 0.3)
    return _piece_of_shaft(generator, amount).unlike().tell(amount=amount)


def _piece_of_shaft(generator: Generator, amount: float = 0.0) -> Case:
    """A piece of a tibia's shaft, and the same piece of it, or of a relative that is so far away."""
    animal, middle = Animal.draw(draw_seed(generator)), np.array([0, 0, generator.uniform(-8, -4.5)])
    other = animal.relative(draw_seed(generator), amount) if amount else animal
    grid, turn = Grid.centered(SIZE, SPACING), random_rotation(generator)
    pose = affine_matrix(turn, -turn @ middle)
    matrix = affine_matrix(random_rotation(generator), generator.uniform(-0.4, 0.4, 3))
    scale = _chosen(generator, "hu", "raw", "attenuation")
    contrasts = (False, bool(generator.random() < 0.5))
    first, second = (
        scan(one, Session.draw(draw_seed(generator), one, contrast=contrast, scale=scale), grid, at)
        for one, contrast, at in zip((animal, other), contrasts, (pose, matrix @ pose), strict=True)
    )
    scans = Volume(first.voxels, grid.affine), Volume(second.voxels, grid.affine)
    return of_scans(scans, first.bone, matrix, False, {"scale": scale, "middle_mm": float(middle[2])})


def plate(generator: Generator) -> Case:
    """A plate that leaves the field of view on all sides."""
    return of_solid(generator, solids.box(9, 9, generator.uniform(0.2, 0.8)), wall=_wall(generator))


def symmetric(generator: Generator) -> Case:
    """A solid that some turns take to itself."""
    size, form = generator.uniform(0.8, 1.3), generator.uniform(0.4, 0.8)
    shapes = {
        "cube": solids.box(size, size, size),
        "box": solids.box(1.5 * size, size, form * size),
        "square box": solids.box(1.5 * form * size, size, size),
        "prism 3": solids.prism(3, 0.7 * size, 1.3 * size),
        "prism 6": solids.prism(6, 0.8 * size, 1.3 * size),
        "cross": solids.cross(1.5 * size, 0.5 * form * size),
        "tetrahedron": solids.tetrahedron(0.6 * size),
        "checkerboard": solids.checkerboard(1.3 * size, form * size),
    }
    shape = _chosen(generator, *shapes)
    return of_solid(generator, shapes[shape], wall=_wall(generator)).tell(shape=shape)


def slender(generator: Generator) -> Case:
    """A bone as thin as a mouse's ulna, without trabeculae. Its bend, its taper and its width determine the pose."""
    measures, wall = _slender_measures(generator)
    return of_solid(generator, solids.bent_tube(**measures), True, wall).tell(**measures)


def slender_relative(generator: Generator) -> Case:
    """Such bones of two relatives, whose measures differ by some percent, their lengths by half as much."""
    measures, wall = _slender_measures(generator)
    amount = _logarithmic(generator, 0.03, 0.15)
    shares = {name: amount / 2 if name == "half" else amount for name in measures}
    others = {name: value * (1 + shares[name] * generator.normal()) for name, value in measures.items()}
    both = [solids.bent_tube(**one) for one in (measures, others)]
    case = of_solid(generator, both[0], wall=wall, other=both[1]).unlike()
    return case.tell(amount=amount, **measures, other=others)


def _slender_measures(generator: Generator) -> tuple[dict[str, float], float]:
    """Those of `solids.bent_tube`, and the thickness of its wall in mm."""
    uniform = generator.uniform
    measures = {
        "radius": uniform(0.22, 0.45), "half": uniform(1.6, 2.2), "bend": uniform(0.2, 0.7),
        "taper": uniform(0.5, 0.8), "flatness": uniform(0.6, 0.85),
    }  # fmt: skip
    return measures, uniform(0.12, 0.2)


def padding(generator: Generator) -> Case:
    """Voxels of one value around the scan: air, NaN, or brighter than bone."""
    value = _chosen(generator, "lowest", "medium", "NaN", "bright")
    case = of_bone(generator, scale="attenuation" if value == "NaN" else None)
    scans = _chosen(generator, "both", "fixed", "moving")
    before, after = generator.integers(0, 30, (2, 3))
    bright = float(generator.uniform(1, 3))

    def pad(seen: Seen) -> Seen:
        grey = {"lowest": np.nanmin(seen.volume.voxels), "medium": case.medium, "NaN": np.nan}
        level = grey.get(value, case.level(bright))
        if seen.volume.voxels.dtype.kind != "f":
            limits = np.iinfo(seen.volume.voxels.dtype)
            level = int(np.clip(np.rint(level), limits.min, limits.max))
        return damage.padded(seen, before.tolist(), after.tolist(), level)

    case = case.change(pad, scans).ask(value != "bright")
    voxels = {"before": before.tolist(), "after": after.tolist()}
    return case.tell(value=value, scans=scans, **voxels, **({"share": bright} if value == "bright" else {}))


def clipped(generator: Generator) -> Case:
    """Saturated above a level between bone's surroundings and the densest bone."""
    share, scans = float(generator.uniform(0.3, 1.1)), _chosen(generator, "both", "fixed", "moving")
    case = of_bone(generator)
    case = case.change(lambda seen: damage.clipped(seen, case.level(share)), scans)
    return case.ask(share > 0.7).tell(share=share, scans=scans)


def wrapped(generator: Generator) -> Case:
    """Grey values that overflow within bone."""
    share, scans = float(generator.uniform(0.5, 1.2)), _chosen(generator, "both", "fixed", "moving")
    case = of_bone(generator)
    return (
        case.change(lambda seen: damage.wrapped(seen, case.level(share)), scans)
        .ask(False)
        .tell(share=share, scans=scans)
    )


def inverted(generator: Generator) -> Case:
    """Bone is dark, in one scan or in both."""
    scans = _chosen(generator, "both", "fixed", "moving")
    return of_bone(generator).change(damage.inverted, scans).ask(False).tell(scans=scans)


def overlap(generator: Generator) -> Case:
    """Fields of view that have 5 to 80 % of the smaller one's bone in common."""
    wanted = float(generator.uniform(0.05, 0.8))
    case = of_bone(generator)
    best = None
    for _ in range(200):
        cuts = [_draw_cut(generator, seen) for seen in (case.fixed, case.moving)]
        fixed, moving = (damage.cropped(seen, *cut) for seen, cut in zip((case.fixed, case.moving), cuts, strict=True))
        views = fixed.inside, moving.inside
        fewest = min(view.sum() for view in views)
        # A scan that shows next to nothing of the bone is no scan of it.
        if fewest < 0.15 * len(case.bones):
            continue
        shared = float((views[0] & views[1]).sum() / fewest)
        if best is None or abs(shared - wanted) < abs(best[0] - wanted):
            best = shared, fixed, moving
    if best is None:
        return case.tell(shared=1.0)
    shared, fixed, moving = best
    return replace(case, fixed=fixed, moving=moving).ask(shared >= SHARED).tell(shared=shared)


def _draw_cut(generator: Generator, seen: Seen) -> tuple[list[int], list[int]]:
    """Lowest and one after the highest indices x, y, z of a field of view, cut on a side."""
    low, high = [0, 0, 0], [int(n) for n in seen.volume.size]
    axis = int(generator.integers(3))
    left = max(int(generator.uniform(0.2, 1) * high[axis]), 10)
    if generator.random() < 0.5:
        high[axis] = left
    else:
        low[axis] = high[axis] - left
    return low, high


def _blobs(generator: Generator, case: Case, low: float, high: float) -> Solid:
    """One to three balls of radius `low` to `high` mm about points of the bone, in the fixed scan's world."""
    centers = case.fixed.world[generator.integers(len(case.bones), size=generator.integers(1, 4))]
    return solids.union(
        *(placed(solids.ball(generator.uniform(low, high)), affine_matrix(np.eye(3), at)) for at in centers)
    )


def callus(generator: Generator) -> Case:
    """New bone has grown around the old one between the scans."""
    case = of_bone(generator, **_cut_or_whole(generator))
    share, blob = float(generator.uniform(0.45, 0.9)), _blobs(generator, case, 0.3, 0.75)
    there = placed(blob, case.matrix)
    before = case.moving.volume.voxels > case.level(0.5)
    case = case.paint(there, share, "brighter", "moving")
    grown = float((case.moving.volume.voxels > case.level(0.4)).sum() / max(before.sum(), 1)) - 1
    return case.ask(grown < 0.5).tell(share=share, grown=grown)


def resorbed(generator: Generator) -> Case:
    """Part of the bone is gone in the second scan."""
    case = of_bone(generator, **_cut_or_whole(generator))
    blob = _blobs(generator, case, 0.2, 0.6)
    lost = case.hidden(blob)
    there = placed(blob, case.matrix)
    case = case.paint(there, 0, "darker", "moving")
    return case.ask(lost < _SLIGHT_LOSS).tell(lost=lost)


def thick(generator: Generator) -> Case:
    """Slices thicker than voxels are wide, not the same in both scans."""
    grids, told = {}, {}
    for role in ("fixed", "moving"):
        plane, factor = generator.uniform(0.05, 0.1), generator.uniform(1, 4)
        grid = grids[f"{role}_grid"] = thick_grid(plane, factor, generator.integers(3))
        told[f"{role}_mm"] = grid.spacing.tolist()
    return of_bone(generator, **grids).tell(**told)


def kernel(generator: Generator) -> Case:
    """Scanners that blur and sharpen differently."""
    case = of_bone(generator, **_cut_or_whole(generator))
    told = {}
    for role in ("fixed", "moving"):
        sigma, amount = float(generator.uniform(0.5, 1.5)), float(generator.uniform(0.3, 1.5))
        if generator.random() < 0.5:
            case = case.change(lambda seen, s=sigma, a=amount: damage.sharpened(seen, s, a), role)
            told[role] = ["sharpened", sigma, amount]
        else:
            case = case.change(lambda seen, s=sigma: damage.blurred(seen, s), role)
            told[role] = ["blurred", sigma]
    return case.tell(**told)


def clinical(generator: Generator) -> Case:
    """Bones and voxels as large as in a clinic, slices up to four times as thick, far from the origin."""
    factor = _logarithmic(generator, 5, 20)
    make = thick if generator.random() < 0.5 else plain
    return make(generator).change(lambda seen: damage.enlarged(seen, factor)).tell(factor=factor)
