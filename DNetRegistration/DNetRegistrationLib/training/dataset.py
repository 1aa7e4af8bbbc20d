"""A dataset of bones to make training pairs of: bone values T (Eq. 5), without and with contrast agent, in memory.

Synthetic bones are made from a seed (`synthetic_dataset`), with torch and NumPy alone; a user's own scans come from a
folder (`dataset_of_scans`). A dataset can be kept in a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import DNetError, FileError, OptionError, one_line
from ..core.files import atomic_write, writing
from ..core.processes import completed_calls
from ..core.progress import ProgressFunction, no_progress
from ..core.provenance import code_hash
from ..core.words import counted
from . import synthetic_bones
from .recipes import KINDS

if TYPE_CHECKING:
    from .scanned_bones import BoneScans

# Bone values are stored in steps of 1 / 128 up to 2, a byte each: rounding is a tenth of a scan's own noise, and only
# metal is beyond 2.
STEPS = 128
# Voxel size of a bone's grid in mm, finer than the cubes', so that turning a bone hardly blurs it; and the grid's
# edge in mm, the diagonal of a cube of 64 voxels of 0.08 mm.
GRID_SPACING, GRID_EDGE = 0.06, 8.88

_FORMAT = "DNetRegistration bank 2"
_KEYS = {"format", "code", "sha256", "plain", "contrast", "spacing", "names", "fields", "made", "animals"}
# The code that decides how bones come out.
_CODE = (
    "bone", "imaging", "synthesis", "core/constants.py", "training/dataset.py", "training/scanned_bones.py",
    "training/synthetic_bones.py",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class BoneDataset:
    """Bones, each on a grid of its own with the bone about the middle, as two scans that lie on each other.

    Attributes:
        plain: ``(n, d, d, d)`` bone values, [z, y, x], without contrast agent: uint8 in steps of 1 / 128, or any
            floating-point numbers.
        contrast: the same with contrast agent; as `plain` where there was no such scan.
        spacing: voxel size in mm. Bones too large for the canonical cube at 0.08 mm are as small as `align` shows them
            to a network.
        names: of the bones.
        fields: ``(n, 2, 3, 4)`` float64, for both scans: takes mm from the middle of the grid, (x, y, z), to
            coordinates that are within -1 and 1 in the scan's field of view. None where the whole grid is seen.
        made: what they were made from, in plain words and numbers.
        animals: of each bone: those of one are not parted. None where each is of another.
    """

    plain: Tensor
    contrast: Tensor
    spacing: float
    names: list[str]
    fields: Tensor | None = None
    made: dict[str, Any] = field(default_factory=dict)
    animals: list[str] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def device(self) -> torch.device:
        return self.plain.device

    @property
    def unit(self) -> float:
        """The bone value that a stored 1 stands for."""
        return 1.0 if self.plain.is_floating_point() else 1 / STEPS

    def values(self, number: int, contrast: bool = False) -> Tensor:
        """``(d, d, d)`` float32 bone values of one bone."""
        return (self.contrast if contrast else self.plain)[number].float() * self.unit

    def to(self, device: str | torch.device) -> BoneDataset:
        """The same dataset on another device."""
        return replace(self, plain=self.plain.to(device), contrast=self.contrast.to(device))

    def split(self, fraction: float, seed: int) -> tuple[BoneDataset, BoneDataset]:
        """Bones to train on, and a `fraction` of them, at least one, drawn at random, to validate on.

        All bones of an animal are on one side, and no fewer to train on than to validate on.

        Raises:
            OptionError: none is left to train on.
        """
        count = len(self)
        wanted = max(1, round(fraction * count))
        animals = np.array(range(count) if self.animals is None else self.animals)
        held: list[int] = []
        for number in np.random.default_rng([seed, 8]).permutation(count):
            of_one = [] if number in held else np.flatnonzero(animals == animals[number]).tolist()
            if len(held) < wanted and 2 * (len(held) + len(of_one)) <= count:
                held += of_one
        if not held:
            animal = "" if count < 2 else ", all of one animal,"
            raise OptionError(
                f"of {counted(count, 'bone')}{animal} none can be held out for validation with any left to train on",
                "give bones of more animals",
            )
        return self._of(sorted(set(range(count)) - set(held))), self._of(sorted(held))

    def _of(self, numbers: list[int]) -> BoneDataset:
        return replace(
            self,
            plain=self.plain[numbers],
            contrast=self.contrast[numbers],
            names=[self.names[number] for number in numbers],
            fields=None if self.fields is None else self.fields[numbers],
            animals=None if self.animals is None else [self.animals[number] for number in numbers],
        )


def synthetic_dataset(
    count: int,
    seed: int,
    *,
    device: str | torch.device = "cpu",
    kinds: Mapping[str, float] = KINDS,
    spacing: float = GRID_SPACING,
    processes: int = 1,
    progress: ProgressFunction = no_progress,
) -> BoneDataset:
    """Scans synthetic bones. The first bones of a dataset are those of a smaller one of the same seed.

    The result is the same for the same arguments, however many processes share the work.

    Args:
        count: of bones, 6.5 MB each.
        seed: of everything.
        device: where the dataset shall be.
        kinds: of bones, with how frequent each is, in any unit.
        spacing: in mm; up to 0.06 a scan takes the fewest samples a voxel.
        processes: to scan with.
        progress: called with the fraction done and a message.

    Raises:
        OptionError: no bones, an unknown kind, or frequencies that are not.
        RunError: a process died.
    """
    if count < 1:
        raise OptionError(f"a dataset of {count} bones is none", "give at least 1")
    synthetic_bones.check_kinds(kinds)
    device, size = torch.device(device), round(GRID_EDGE / spacing)
    tasks = [synthetic_bones.BoneTask(seed, number, dict(kinds), size, spacing) for number in range(count)]
    sides = torch.empty((2, count, size, size, size), dtype=torch.uint8, device=device)
    names = [""] * count
    if processes > 1 and count > 1:
        made = completed_calls(synthetic_bones.scan_twice, [(task,) for task in tasks], processes)
    else:
        made = (synthetic_bones.scan_twice(task) for task in tasks)
    with closing(made) as scanned:
        for done, (number, name, *scans) in enumerate(scanned, 1):
            names[number] = name
            for side, scan in zip(sides, scans, strict=True):
                side[number] = quantized(torch.as_tensor(scan))
            progress(done / count, f"{done} of {counted(count, 'bone')} scanned")
    facts = {"seed": seed, "count": count, "kinds": dict(kinds), "device": device.type}
    return BoneDataset(sides[0], sides[1], spacing, names, made=facts)


def dataset_of_scans(
    folder,
    *,
    scan_spacing=None,
    device: str | torch.device = "cpu",
    progress: ProgressFunction = no_progress,
    tell: Callable[[str], None] = lambda line: None,
) -> BoneDataset:
    """A user's own scans, read from a folder.

    ``NAME_pre.nrrd`` and ``NAME_post.nrrd`` (or any kind of file or folder that `read_volume` knows) are one bone
    without and with contrast agent, in any pose. The second is laid on the first by ``NAME.tfm`` (a transform from pre
    to post, as `write_transform` writes it) or ``NAME_truth.tfm``, or where there is none, by `align`. Every other scan
    is a bone of its own, but masks are passed over; see `scanned_bones.find_bone_scans`.

    Args:
        folder: of the scans; or a CSV file that lists them, see `scanned_bones.find_bone_scans`.
        scan_spacing: the true voxel size of all scans in mm, one number or three, where the files do not say it.
        device: where the dataset shall be.
        progress: called with the fraction done and a message.

    Raises:
        FileError: no scans, or one without its partner.
        ScanError: one that cannot be read or aligned.
    """
    from .scanned_bones import find_bone_scans

    bones = find_bone_scans(folder, tell)
    found = dataset_of_bones(bones, scan_spacing=scan_spacing, device=device, progress=progress)
    return replace(found, made={"folder": str(folder)})


def dataset_of_bones(
    bones: Sequence[BoneScans],
    *,
    scan_spacing: Sequence[float] | float | None = None,
    device: str | torch.device = "cpu",
    progress: ProgressFunction = no_progress,
    apart: bool = False,
) -> BoneDataset:
    """Resamples the scans of bones.

    Args:
        bones: their scans.
        scan_spacing: the true voxel size of all scans in mm, one number or three, where the files do not say it.
        device: where the dataset shall be.
        progress: called with the fraction done and a message.
        apart: two scans of a bone that cannot be aligned for sure are two bones, instead of an error.

    Raises:
        ScanError: a scan cannot be read or aligned.
    """
    from .scanned_bones import BoneScans, animals_of, resample_bone

    size = round(GRID_EDGE / GRID_SPACING)
    names: list[str] = []
    animals: list[str] = []
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    fields: list[np.ndarray] = []

    def add(bone: BoneScans, animal: str) -> None:
        found = resample_bone(bone, size, GRID_SPACING, scan_spacing)
        names.append(bone.name)
        animals.append(animal)
        fields.append(found.fields)
        for side, values in zip(sides, found.values, strict=True):
            side.append(quantized(values))

    for number, (bone, animal) in enumerate(zip(bones, animals_of(bones), strict=True)):
        progress(number / len(bones), f"reading {bone.name}")
        try:
            add(bone, animal)
        except DNetError:
            if bone.moving is None or not apart:
                raise
            for scan in (bone.fixed, bone.moving):
                add(BoneScans(Path(scan.path).name, scan), animal)
    progress(1.0, f"{counted(len(bones), 'bone')} read")
    plain, contrast = (torch.stack(side).to(device) for side in sides)
    seen = torch.from_numpy(np.stack(fields))
    return BoneDataset(plain, contrast, GRID_SPACING, names, seen, animals=animals)


def quantized(values: Tensor) -> Tensor:
    """Bone values as a dataset keeps them: uint8, in steps of 1 / 128."""
    return (values.float() * STEPS).round_().clamp_(0, 255).to(torch.uint8)


def save_dataset(dataset: BoneDataset, path: str | os.PathLike) -> None:
    """Writes a dataset to one file, which appears whole or not at all.

    Raises:
        FileError: it cannot be written there.
    """
    content = {
        "format": _FORMAT,
        "code": code_hash(*_CODE),
        "plain": dataset.plain.cpu().contiguous(),
        "contrast": dataset.contrast.cpu().contiguous(),
        "spacing": dataset.spacing,
        "names": dataset.names,
        "fields": dataset.fields,
        "made": json.dumps(dataset.made),
        "animals": dataset.animals,
    }
    content["sha256"] = _digest(content)
    with atomic_write() as staging:
        temporary = staging.path(path)
        with writing(path):
            torch.save(content, temporary)


def load_dataset(path: str | os.PathLike, device: str | torch.device = "cpu") -> BoneDataset:
    """The dataset of a file; loading it runs nothing from it.

    Raises:
        FileError: the file is missing, damaged, no dataset, or one that this version of the code would make otherwise.
    """
    path, remedy = Path(path), "delete it and have it made again"
    if not path.is_file():
        raise FileError(f"{path}: there is no such dataset of bones", "check the path")
    try:
        stream = path.open("rb")
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({one_line(error)})", "check the file and its permissions") from error
    with stream:
        try:
            content = torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Also what `weights_only` answers to a file that names code to run: it has not been run.
            raise FileError(f"{path}: no dataset of bones (no PyTorch file of plain tensors)", remedy) from error
        except Exception as error:  # torch's reader raises many kinds on damaged archives
            raise FileError(f"{path}: damaged or truncated", remedy) from error
    if not isinstance(content, dict) or set(content) != _KEYS or content["format"] != _FORMAT:
        raise FileError(f"{path}: a PyTorch file, but no dataset of bones of this version", remedy)
    if content["code"] != code_hash(*_CODE):
        raise FileError(f"{path}: was made by another version of this program", remedy)
    try:
        same = content["sha256"] == _digest(content)
        made = json.loads(content["made"])
        parts = (content[key] for key in ("plain", "contrast", "spacing", "names", "fields"))
        dataset = BoneDataset(*parts, made, content["animals"])
    except (RuntimeError, TypeError, ValueError) as error:  # fields of other kinds than those that are written
        raise FileError(f"{path}: damaged, or no dataset of bones", remedy) from error
    if not same:
        raise FileError(f"{path}: changed since it was written (its SHA-256 is another)", remedy)
    return dataset.to(device)


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 of everything else that a file holds."""
    digest = hashlib.sha256()
    for key in sorted(content.keys() - {"sha256"}):
        value = content[key]
        if isinstance(value, Tensor):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().data)
        else:
            digest.update(f"{key} {value!r}".encode())
    return digest.hexdigest()
