"""Checkpoints: all that a training run needs to go on, in one file.

A checkpoint is a PyTorch file of plain tensors, numbers and strings; loading it runs nothing from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import FileError, Setting, one_line
from ..core.files import atomic_write, writing
from ..networks.tensor_files import load_plain
from .recipes import current_names

NAME = "checkpoint.pt"
_FORMAT, _OLD_FORMAT = "DNetRegistration checkpoint 2", "DNetRegistration checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run.

    Attributes:
        settings: what decides the result; plain values by name.
        micro_batch: of the recipe, as decided.
        state: of the `trainer.Trainer`.
        log, validation: the tables so far, a dict of plain values a line.
        seconds: spent so far.
    """

    settings: dict[str, Any]
    micro_batch: int
    state: dict[str, Any]
    log: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    seconds: float


_FIELDS = {
    "settings": dict,
    "micro_batch": int,
    "state": dict,
    "log": list,
    "validation": list,
    "seconds": (int, float),
}


def write(checkpoint: Checkpoint, folder: Path) -> Path:
    """Replaces the checkpoint of a folder; where that fails, the old one stays.

    Raises:
        FileError: it cannot be written.
    """
    path = folder / NAME
    with atomic_write() as staging, writing(path):
        torch.save({"format": _FORMAT, **vars(checkpoint)}, staging.path(path))
    return path


def content(folder: Path) -> bytes | None:
    """The bytes of a folder's checkpoint, None without one.

    Raises:
        FileError: it cannot be read.
    """
    path = folder / NAME
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({one_line(error)})", "check its permissions") from error


def parse(stored: bytes, folder: Path) -> Checkpoint:
    """The checkpoint in these bytes, on the CPU.

    Raises:
        FileError: they are no checkpoint.
    """
    remedy = "remove it, or choose another folder", Setting("output")
    try:
        fields = load_plain(stored)
    except Exception as error:  # torch's reader raises many kinds on damaged archives
        raise FileError(f"{folder / NAME}: damaged, or no checkpoint", *remedy) from error
    if isinstance(fields, dict) and fields.get("format") == _OLD_FORMAT:
        try:
            fields = _current(fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise FileError(f"{folder / NAME}: damaged, or no checkpoint", *remedy) from error
    if not isinstance(fields, dict) or fields.pop("format", None) != _FORMAT or set(fields) != set(_FIELDS):
        raise FileError(f"{folder / NAME}: no checkpoint of this project or version", *remedy)
    if not all(isinstance(fields[name], kind) for name, kind in _FIELDS.items()):
        raise FileError(f"{folder / NAME}: damaged, or no checkpoint", *remedy)
    return Checkpoint(**fields)


def _current(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a checkpoint that an earlier version wrote, as this one writes them."""
    fields = {name: value for name, value in fields.items() if name != "part"} | {
        "format": _FORMAT,
        "micro_batch": fields["part"],
        "settings": current_names(fields["settings"]),
    }
    # The readout of poses was a part of the network.
    state = dict(fields["state"])
    readouts = {name: _taken(state, name, "readout.") for name in ("network", "averaged")}
    composer = state.pop("composer")
    stage = {"readout": readouts["network"], "averaged": readouts["averaged"], "composer": composer}
    fields["state"] = {**state, "pose_stage": stage if readouts["network"] else None}
    return fields


def _taken(state: dict[str, Any], name: str, prefix: str) -> dict[str, Any] | None:
    """Takes the tensors under a prefix out of a module's state, where there is one."""
    if state[name] is None:
        return None
    taken = {key.removeprefix(prefix): value for key, value in state[name].items() if key.startswith(prefix)}
    state[name] = {key: value for key, value in state[name].items() if not key.startswith(prefix)}
    return taken
