"""A bank of bones to make training pairs of: bone values T (Eq. 5), without and with contrast agent, ready in memory.

Synthetic bones are made from a seed (`build_bank`), with torch and NumPy alone; a user's own scans come from a folder
(`bank_of_scans`). A bank can be kept in a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ScanError, one_line
from ..core.files import atomic_write, writing
from ..core.processes import fresh_processes
from . import bank_synthetic
from .bank_synthetic import KINDS

# Bone values are stored in steps of 1 / 128 up to 2, a byte each: rounding is a tenth of a scan's own noise, and only
# metal is beyond 2.
STEPS = 128
# Voxel size in mm. Finer than the cubes', so that turning a bone hardly blurs it.
BANK_SPACING = 0.06
# Edge of a bone's grid, mm: as long as the diagonal of a cube of 64 voxels of 0.08 mm.
EDGE = 8.88

_FORMAT = "DNetRegistration bank 1"
_KEYS = {"format", "code", "sha256", "plain", "contrast", "spacing", "names", "fields", "made"}
# What decides how a bank comes out.
_CODE = (
    "bone/images", "bone/threshold", "core/constants", "imaging/tensors", "synthesis/fields", "synthesis/random_bones",
    "synthesis/grid", "synthesis/scanner", "synthesis/session", "synthesis/shape", "synthesis/surroundings",
    "synthesis/tibia", "training/bank", "training/bank_scans", "training/bank_synthetic",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bank:
    """Bones, each on a grid of its own with the bone about the middle, as two scans that lie on each other.

    Attributes:
        plain: ``(n, d, d, d)`` bone values, [z, y, x], without contrast agent: uint8 in steps of 1 / 128, or any
            floating-point numbers.
        contrast: the same with contrast agent; as `plain` where there was no such scan.
        spacing: voxel size in mm. Bones larger than fit the canonical cube at 0.08 mm are here as small as `align`
            shows them to a network.
        names: of the bones.
        fields: ``(n, 2, 3, 4)`` float64, for both scans: takes mm from the middle of the grid, (x, y, z), to
            coordinates that are within -1 and 1 in the scan's field of view. None where the grid is seen as a whole.
        made: from what, in plain words and numbers.
    """

    plain: Tensor
    contrast: Tensor
    spacing: float
    names: list[str]
    fields: Tensor | None = None
    made: dict[str, Any] = field(default_factory=dict)

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

    def to(self, device) -> Bank:
        """The same bank on another device."""
        return replace(self, plain=self.plain.to(device), contrast=self.contrast.to(device))

    def split(self, fraction: float, seed: int) -> tuple[Bank, Bank]:
        """Bones to train on and others to validate on: of these a `fraction`, at least one, drawn at random.

        Raises:
            ScanError: that leaves none to train on.
        """
        held = max(1, round(fraction * len(self)))
        if held >= len(self):
            raise ScanError(
                f"bank: of {len(self)} bones, {held} would be held out for validation, none left to train on; "
                "give more bones or hold out a smaller share"
            )
        order = np.random.default_rng([seed, 8]).permutation(len(self)).tolist()
        return self._of(sorted(order[held:])), self._of(sorted(order[:held]))

    def _of(self, numbers: list[int]) -> Bank:
        return replace(
            self,
            plain=self.plain[numbers],
            contrast=self.contrast[numbers],
            names=[self.names[number] for number in numbers],
            fields=None if self.fields is None else self.fields[numbers],
        )


def build_bank(
    count: int,
    seed: int,
    *,
    device: str | torch.device = "cpu",
    kinds: Mapping[str, float] = KINDS,
    spacing: float = BANK_SPACING,
    processes: int = 1,
    progress: Callable[[float, str], None] | None = None,
) -> Bank:
    """Scans synthetic bones; a bank's first bones are those of a smaller one of the same seed.

    The same for the same arguments, however many processes share the work. On a GPU (other random numbers: other noise)
    the scans are computed there.

    Args:
        count: of bones, 6.5 MB each.
        seed: of everything.
        device: where the bank shall be.
        kinds: of bones, with how frequent each is, in any unit.
        spacing: in mm; up to 0.06 a scan takes the fewest samples a voxel.
        processes: to scan with, on a CPU.
        progress: called with the fraction done and a message.

    Raises:
        ValueError: no bones, an unknown kind, or frequencies that are not.
        ScanError: a process died.
    """
    if count < 1:
        raise ValueError(f"a bank of {count} bones is none; give at least 1")
    bank_synthetic.check_kinds(kinds)
    device, size = torch.device(device), round(EDGE / spacing)
    tasks = [bank_synthetic.Task(seed, number, dict(kinds), size, spacing) for number in range(count)]
    sides = torch.empty((2, count, size, size, size), dtype=torch.uint8, device=device)
    names = []

    def add(made) -> None:
        name, *scans = made
        for side, scan in zip(sides, scans, strict=True):
            side[len(names)] = stored(torch.as_tensor(scan))
        names.append(name)
        if progress is not None:
            progress(len(names) / count, f"{len(names)} of {count} bones scanned")

    if processes > 1 and count > 1:
        try:
            with fresh_processes(min(processes, count), threads=1) as pool:
                for made in pool.map(bank_synthetic.scanned_twice, tasks):
                    add(made)
        except BrokenProcessPool as error:
            raise ScanError("a process that scans bones died, of too little memory perhaps; give fewer") from error
    else:
        for task in tasks:
            add(bank_synthetic.scanned_twice(task))
    made = {"seed": seed, "count": count, "kinds": dict(kinds), "device": device.type}
    return Bank(sides[0], sides[1], spacing, names, made=made)


def bank_of_scans(
    folder,
    *,
    scan_spacing=None,
    device: str | torch.device = "cpu",
    progress: Callable[[float, str], None] | None = None,
) -> Bank:
    """A user's own scans, read from a folder.

    ``NAME_pre.nrrd`` and ``NAME_post.nrrd`` (or any kind of file or folder that `read_volume` knows) are one bone
    without and with contrast agent, in any pose: the second is laid on the first by ``NAME.tfm`` (fixed to moving, as
    ``align --transform`` writes it for pre and post), or where there is none, by `align`. Every other scan is a bone of
    its own without a partner.

    Args:
        folder: of the scans.
        scan_spacing: the true voxel size of all scans in mm, one number or three, where the files do not say it.
        device: where the bank shall be.
        progress: called with the fraction done and a message.

    Raises:
        FileError: no scans, or one without its partner.
        ScanError: one that cannot be read or aligned.
    """
    from .bank_scans import find_entries, resampled

    entries = find_entries(folder)
    size = round(EDGE / BANK_SPACING)
    sides = torch.empty((2, len(entries), size, size, size), dtype=torch.uint8, device=device)
    fields = []
    for number, entry in enumerate(entries):
        if progress is not None:
            progress(number / len(entries), f"reading {entry.name}")
        bone = resampled(entry, size, BANK_SPACING, scan_spacing)
        for side, values in zip(sides, bone.values, strict=True):
            side[number] = stored(values)
        fields.append(bone.fields)
    if progress is not None:
        progress(1.0, f"{len(entries)} bones read")
    names = [entry.name for entry in entries]
    return Bank(sides[0], sides[1], BANK_SPACING, names, torch.from_numpy(np.stack(fields)), {"folder": str(folder)})


def stored(values: Tensor) -> Tensor:
    """Bone values as a bank keeps them: uint8."""
    return (values.float() * STEPS).round_().clamp_(0, 255).to(torch.uint8)


def save_bank(bank: Bank, path: str | os.PathLike) -> None:
    """Writes a bank to one file, which appears whole or not at all.

    Raises:
        ScanError: it cannot be written there.
    """
    content = {
        "format": _FORMAT,
        "code": code_version(),
        "plain": bank.plain.cpu().contiguous(),
        "contrast": bank.contrast.cpu().contiguous(),
        "spacing": bank.spacing,
        "names": bank.names,
        "fields": bank.fields,
        "made": json.dumps(bank.made),
    }
    content["sha256"] = _digest(content)
    with atomic_write() as staging:
        temporary = staging.path(path)
        with writing(path):
            torch.save(content, temporary)


def load_bank(path: str | os.PathLike, device: str | torch.device = "cpu") -> Bank:
    """The bank of a file; loading it runs nothing from it.

    Raises:
        ScanError: the file is missing, damaged, no bank, or one that this version of the code would make otherwise.
    """
    path, remedy = Path(path), "delete it and have it made again"
    if not path.is_file():
        raise ScanError(f"{path}: there is no such bank of bones; check the path")
    with _reading(path) as stream:
        try:
            content = torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Also what `weights_only` answers to a file that names code to run: it has not been run.
            raise ScanError(f"{path}: no bank of bones (no PyTorch file of plain tensors); {remedy}") from error
        except Exception as error:  # torch's reader raises many kinds on damaged archives
            raise ScanError(f"{path}: damaged or truncated; {remedy}") from error
    if not isinstance(content, dict) or set(content) != _KEYS or content["format"] != _FORMAT:
        raise ScanError(f"{path}: a PyTorch file, but no bank of bones of this version; {remedy}")
    if content["code"] != code_version():
        raise ScanError(f"{path}: was made by another version of this program; {remedy}")
    if content["sha256"] != _digest(content):
        raise ScanError(f"{path}: changed since it was written (its SHA-256 is another); {remedy}")
    made = json.loads(content["made"])
    bank = Bank(*(content[key] for key in ("plain", "contrast", "spacing", "names", "fields")), made)
    return bank.to(device)


def code_version() -> str:
    """SHA-256 of the code that decides how banks come out."""
    digest = hashlib.sha256()
    for name in _CODE:
        path = Path(__file__).parent.parent / f"{name}.py"
        if path.is_file():
            digest.update(path.read_text(encoding="utf-8").encode())
    return digest.hexdigest()


def _reading(path: Path):
    try:
        return path.open("rb")
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({one_line(error)}); check the file and its permissions") from error


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 of all that a file holds but this."""
    digest = hashlib.sha256()
    for key in sorted(content.keys() - {"sha256"}):
        value = content[key]
        if isinstance(value, Tensor):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().data)
        else:
            digest.update(f"{key} {value!r}".encode())
    return digest.hexdigest()
