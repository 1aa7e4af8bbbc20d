"""Synthetic pairs of scans of one tibia, with the transform between them known exactly."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.files import atomic_write
from ..geometry.transforms import mean_point_error, rotation_error_deg, write_transform
from ..imaging.volume import Volume
from .arrays import Arrays
from .random_bones import draw_animal
from .scanner import BACKGROUNDS, SCALES, Grid, Scan, Session, scan
from .tibia import CENTER, Animal

# Cut scans of a pair share at least this fraction of the smaller one's visible bone: the field of view of a repeated
# scan is aimed at the same joint, and with less there is nothing to align.
SHARED = 0.4
IMPOSTORS = ("animal", "relative", "mirror")


@dataclass(frozen=True)
class SyntheticPair:
    """Two scans and the truth about them.

    Attributes:
        fixed, moving: the scans. Without further wishes fixed is without, moving with contrast.
        matrix: ``(4, 4)`` float64, fixed to moving points, LPS mm. For an impostor, the poses' relation only.
        same: whether both are scans of one bone.
        fixed_bone, moving_bone: ``(z, y, x)`` bool, voxels at least half mineralised tissue of the tibia or fibula.
        fixed_cartilage, moving_cartilage: ``(z, y, x)`` uint8 volume fraction of articular cartilage, 255 for all.
        fixed_pose, moving_pose: ``(4, 4)`` float64, the animal's frame to the world.
        fixed_animal, moving_animal: the same object unless this is an impostor.
        drawn: what was drawn, for reports: plain numbers and words.
    """

    fixed: Volume
    moving: Volume
    matrix: np.ndarray
    same: bool
    fixed_bone: np.ndarray
    moving_bone: np.ndarray
    fixed_cartilage: np.ndarray
    moving_cartilage: np.ndarray
    fixed_pose: np.ndarray
    moving_pose: np.ndarray
    fixed_animal: Animal
    moving_animal: Animal
    drawn: dict


def make_pair(
    seed: int,
    *,
    size=64,
    spacing=0.08,
    contrast: bool = True,
    keep: float = 1.0,
    max_translation: float = 0.64,
    rotations: str = "uniform",
    max_angle: float = np.pi,
    matrix: np.ndarray | None = None,
    kind: str = "tibia",
    impostor: str | None = None,
    relative_amount: float = 0.3,
    fixed_animal: Animal | None = None,
    moving_animal: Animal | None = None,
    fixed_grid: Grid | None = None,
    moving_grid: Grid | None = None,
    scale: str | None = None,
    background: str | None = None,
    circle: float | None = None,
    clean: bool = False,
    device: str | None = None,
) -> SyntheticPair:
    """Draws a tibia and scans it twice, turned any way; the same for the same arguments.

    Args:
        seed: of everything not given.
        size: voxels along x, y, z, or one number.
        spacing: mm along x, y, z, or one number.
        contrast: the moving scan is with contrast agent.
        keep: each scan is cut on one side of its box, a side drawn at random, so that a fraction U(keep, 1) of its
            bone voxels remains; 1 cuts nothing. Sizes become unequal. Both still share `SHARED` of the smaller one's.
        max_translation: the bone moves by U(-this, this) mm per axis against the grids' (uncut) centres.
        rotations: "uniform" over SO(3), or "axis-angle", the paper's angle U(-pi, pi) about a uniform axis.
        max_angle: largest relative rotation, in radians; smaller than pi draws "axis-angle" within it.
        matrix: the relation of the two (fixed to moving, LPS mm) instead of a drawn one.
        kind: of bone, "tibia" or one of `variety.KINDS`.
        impostor: the moving scan is of another "animal", of a "relative" in shape space, or of the "mirror" image.
        relative_amount: how far the relative is, 0 to 1.
        fixed_animal, moving_animal: scan these instead; they make an impostor when they differ.
        fixed_grid, moving_grid: scan these grids instead of `size` and `spacing` about the world's origin.
        scale: "hu", "raw", "byte" or "attenuation"; drawn when None. Both scans are from one scanner.
        background: "air", "water" or "fixative"; drawn for each session when None.
        circle: reconstruct within a cylinder of this radius over half the width only; outside is NaN (float scans)
            or the lowest value.
        clean: bone in air, no noise, no artefacts, nothing else (cartilage in air looks like water).
        device: None for NumPy, or a torch device.

    Raises:
        ValueError: an option is not one of those above.
    """
    if impostor not in (None, *IMPOSTORS):
        raise ValueError(f"impostor {impostor!r} is unknown; give one of {', '.join(IMPOSTORS)}")
    if scale not in (None, *SCALES):
        raise ValueError(f"scale {scale!r} is unknown; give one of {', '.join(SCALES)}")
    if background not in (None, *BACKGROUNDS):
        raise ValueError(f"background {background!r} is unknown; give one of {', '.join(BACKGROUNDS)}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}; give a fraction above 0 and at most 1")
    if impostor == "relative" and kind != "tibia":
        raise ValueError(f"bones of the kind {kind!r} have no relatives; give impostor animal or mirror, or kind tibia")
    generator = np.random.default_rng([seed, 0])
    seeds = [int(s) for s in generator.integers(1 << 62, size=4)]
    fixed_animal = fixed_animal or draw_animal(kind, seeds[0])
    if moving_animal is None:
        moving_animal = {
            None: lambda: fixed_animal,
            "animal": lambda: draw_animal(kind, seeds[1]),
            "relative": lambda: fixed_animal.relative(seeds[1], relative_amount),
            "mirror": fixed_animal.mirrored,
        }[impostor]()
    drawn_scale = str(generator.choice(list(SCALES), p=[0.4, 0.35, 0.15, 0.1]))
    scale = scale or drawn_scale
    fixed_grid = fixed_grid or Grid.centered(size, spacing)
    moving_grid = moving_grid or Grid.centered(size, spacing)

    fixed_turn, relative = random_rotation(generator), random_rotation(generator, rotations, max_angle)
    jitter = generator.uniform(-1, 1, 3) * min(0.25, max_translation)
    shift = generator.uniform(-1, 1, 3) * max_translation
    fixed_pose = _rigid(fixed_turn, fixed_grid.center + jitter - fixed_turn @ CENTER)
    if matrix is None:
        matrix = _rigid(relative, moving_grid.center + shift - relative @ fixed_grid.center)
    matrix = np.array(matrix, float)
    moving_pose = matrix @ fixed_pose

    options = dict(scale=scale, background=background, clean=clean)
    sessions = [
        replace(Session.draw(seeds[2], fixed_animal, **options), circle=circle),
        replace(Session.draw(seeds[3], moving_animal, contrast=contrast, **options), circle=circle),
    ]
    arrays = Arrays(device)
    scans = [
        _as_numpy(scan(animal, session, grid, pose, device), arrays, session)
        for animal, session, grid, pose in (
            (fixed_animal, sessions[0], fixed_grid, fixed_pose),
            (moving_animal, sessions[1], moving_grid, moving_pose),
        )
    ]
    grids = [fixed_grid, moving_grid]
    cuts, shared = _cuts(generator, scans, grids, matrix, keep)
    fixed, moving = (
        Volume(one.voxels[cut], _cut_affine(grid, cut), name)
        for one, grid, cut, name in zip(scans, grids, cuts, ("fixed scan", "moving scan"), strict=True)
    )
    drawn = {
        "seed": seed,
        "scale": scale,
        "backgrounds": [session.background for session in sessions],
        "contrast": bool(contrast),
        "uptake_hu": sessions[1].uptake,
        "noise_hu": [session.noise for session in sessions],
        "fragments": [len(session.fragments) for session in sessions],
        "rotation_deg": rotation_error_deg(np.eye(4), matrix),
        "shift_mm": (matrix[:3, :3] @ fixed_grid.center + matrix[:3, 3] - moving_grid.center).tolist(),
        "shared": shared,
        "impostor": impostor,
        "kind": kind,
        "osteoarthritis": fixed_animal.osteoarthritis,
        "left": fixed_animal.left,
    }
    return SyntheticPair(
        fixed, moving, matrix, moving_animal is fixed_animal,
        scans[0].bone[cuts[0]], scans[1].bone[cuts[1]], scans[0].cartilage[cuts[0]], scans[1].cartilage[cuts[1]],
        fixed_pose, moving_pose, fixed_animal, moving_animal, drawn,
    )  # fmt: skip


def target_registration_error(pair: SyntheticPair, matrix) -> float:
    """Mean distance, in mm, over the fixed scan's bone voxels, of where `matrix` puts them and where they are."""
    points = pair.fixed.to_world(np.argwhere(pair.fixed_bone)[:, ::-1])
    return mean_point_error(matrix, pair.matrix, points)


def random_rotation(generator: np.random.Generator, rotations: str = "uniform", max_angle: float = np.pi) -> np.ndarray:
    """A ``(3, 3)`` rotation: "uniform" on SO(3), or "axis-angle": angle U(-max, max), axis uniform (Sec. 2.3)."""
    if rotations not in ("uniform", "axis-angle"):
        raise ValueError(f"rotations {rotations!r} is unknown; give uniform or axis-angle")
    if rotations == "uniform" and max_angle >= np.pi:
        w, x, y, z = (q := generator.standard_normal(4)) / np.linalg.norm(q)
    else:
        half = generator.uniform(-max_angle, max_angle) / 2
        axis = generator.standard_normal(3)
        w, (x, y, z) = np.cos(half), np.sin(half) * axis / np.linalg.norm(axis)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def synthesize(
    folder,
    count: int,
    seed: int = 0,
    *,
    progress: Callable[[float, str], None] | None = None,
    suffix: str = ".nrrd",
    **options,
) -> Path:
    """Writes pairs with their truth into an existing folder, and returns the path of ``truth.csv``.

    Per pair: ``0001_fixed.nrrd``, ``0001_moving.nrrd`` and ``0001_truth.tfm`` (fixed to moving, LPS mm, as
    resampling wants it); for all, ``truth.csv`` with the 16 numbers of each matrix by rows and what was drawn. A
    pair's files appear together or not at all, the table once all are there.

    Args:
        count: how many pairs; they are those of seeds `seed`, `seed + 1`, ...
        progress: called with the fraction done and a message.
        options: to `make_pair`.
    """
    import SimpleITK as sitk

    folder, rows = Path(folder), []
    for number in range(1, count + 1):
        if progress is not None:
            progress((number - 1) / count, f"pair {number} of {count}")
        pair = make_pair(seed + number - 1, **options)
        name = f"{number:04d}"
        with atomic_write() as staging:
            for role in ("fixed", "moving"):
                path = staging.path(folder / f"{name}_{role}{suffix}")
                sitk.WriteImage(getattr(pair, role).to_sitk(), str(path), True)
            write_transform(pair.matrix, staging.path(folder / f"{name}_truth.tfm"))
        entries = {f"m{row}{column}": repr(float(pair.matrix[row, column])) for row in range(4) for column in range(4)}
        drawn = {key: json.dumps(value) for key, value in pair.drawn.items()}
        rows.append({"pair": name, "same": pair.same, **entries, **drawn})
    with atomic_write() as staging, open(staging.path(folder / "truth.csv"), "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0] if rows else ["pair"])
        writer.writeheader()
        writer.writerows(rows)
    if progress is not None:
        progress(1.0, f"{count} pairs written")
    return folder / "truth.csv"


def _rigid(rotation, translation) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def _as_numpy(scan: Scan, arrays: Arrays, session: Session) -> Scan:
    voxels, bone, cartilage = (arrays.numpy(values) for values in (scan.voxels, scan.bone, scan.cartilage))
    return Scan(voxels.astype(SCALES[session.scale][2], copy=False), bone, cartilage)


def _cut_affine(grid: Grid, cut) -> np.ndarray:
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [c.start for c in reversed(cut)]
    return affine


def _cuts(generator, scans, grids, matrix, keep):
    """Slices (z, y, x) to keep of both scans, and the share of the smaller visible bone that both show."""
    # Some thousand points are plenty to measure overlap.
    steps = [max(1, min(one.bone.shape) // 32) for one in scans]
    points = [np.argwhere(one.bone[::s, ::s, ::s]) * s for one, s in zip(scans, steps, strict=True)]
    best = None
    for _ in range(50 if keep < 1 else 1):
        cuts = [_cut(generator, one.bone, generator.uniform(keep, 1)) for one in scans]
        shared = _shared(points, steps, cuts, grids, matrix)
        if best is None or shared > best[1]:
            best = cuts, shared
        if shared >= SHARED:
            return cuts, shared
    return best


def _cut(generator, bone, fraction):
    cut = [slice(0, n) for n in bone.shape]
    axis, from_low = int(generator.integers(3)), bool(generator.integers(2))
    if fraction < 1:
        count = bone.sum(tuple(a for a in range(3) if a != axis)).astype(float)
        total = np.cumsum(count if from_low else count[::-1])
        kept = max(int(np.searchsorted(total, fraction * total[-1])) + 1, min(8, count.size))
        cut[axis] = slice(0, kept) if from_low else slice(count.size - kept, count.size)
    return tuple(cut)


def _shared(points, steps, cuts, grids, matrix) -> float:
    def inside(index, cut):
        return np.all([(index[:, a] >= cut[a].start) & (index[:, a] <= cut[a].stop - 1) for a in range(3)], axis=0)

    seen = [p[inside(p, cut)] for p, cut in zip(points, cuts, strict=True)]
    # The smaller one's bone, taken into the other scan.
    volumes = [len(s) * np.prod(g.spacing) * step**3 for s, g, step in zip(seen, grids, steps, strict=True)]
    small = int(volumes[1] < volumes[0])
    world = matrix if small == 0 else np.linalg.inv(matrix)
    other = np.linalg.inv(grids[1 - small].affine) @ world @ grids[small].affine
    index = seen[small][:, ::-1] @ other[:3, :3].T + other[:3, 3]
    return float(inside(index[:, ::-1], cuts[1 - small]).mean()) if len(index) else 0.0
