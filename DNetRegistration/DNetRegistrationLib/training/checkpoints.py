"""Checkpoints: all that going on with a training run needs, in one file.

A checkpoint is a PyTorch file of plain tensors, numbers and strings; loading it runs nothing from it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import ScanError, one_line
from ..core.files import staged, writing

NAME = "checkpoint.pt"
_FORMAT = "DNetRegistration checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands.

    Attributes:
        settings: what was asked for and decides the result; plain values by name.
        part: of the recipe, once decided.
        state: of the `training.Trainer`.
        log, validation: the tables so far, a dict of plain values a line.
        seconds: spent so far.
    """

    settings: dict[str, Any]
    part: int
    state: dict[str, Any]
    log: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    seconds: float


_FIELDS = set(Checkpoint.__dataclass_fields__)


def write(checkpoint: Checkpoint, folder: Path) -> Path:
    """Replaces the checkpoint of a folder, or on an error leaves it as it is.

    Raises:
        ScanError: it cannot be written.
    """
    path = folder / NAME
    with staged() as staging, writing(path):
        torch.save({"format": _FORMAT, **vars(checkpoint)}, staging.path(path))
    return path


def content(folder: Path) -> bytes | None:
    """The bytes of a folder's checkpoint, None without one.

    Raises:
        ScanError: it cannot be read.
    """
    path = folder / NAME
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({one_line(error)}); check its permissions") from error


def parse(stored: bytes, folder: Path) -> Checkpoint:
    """The checkpoint in these bytes, on the CPU.

    Raises:
        ScanError: they are none.
    """
    remedy = "remove it, or give another --output"
    try:
        fields = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises many kinds on damaged archives
        raise ScanError(f"{folder / NAME}: damaged, or no checkpoint; {remedy}") from error
    if not isinstance(fields, dict) or fields.pop("format", None) != _FORMAT or set(fields) != _FIELDS:
        raise ScanError(f"{folder / NAME}: no checkpoint of this project or version; {remedy}")
    return Checkpoint(**fields)
