"""What an evaluation was asked for and what it is made of, kept in one file beside its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ScanError, one_line
from ...core.files import staged, writing
from ...version import __version__
from .cohort import Bone

#: In the folder of an evaluation: its settings, its results, scans that were made up, networks.
SETTINGS, PAIRS, SCANS, TRAINING = "evaluation.json", "pairs.csv", "scans", "training"
_FORMAT = "DNetRegistration evaluation 1"


@dataclass(frozen=True)
class Evaluation:
    """All settings of an evaluation, as they are kept beside its results.

    Attributes:
        options: plain values by the names of the options.
        bones: by name.
        trained: for each network, ``S1/dnet``, what is known of its training.
        machine: what it ran on, in words.
        command: the command line, without paths of this machine.
    """

    options: dict[str, Any]
    bones: dict[str, Bone]
    trained: dict[str, dict[str, Any]]
    machine: str
    command: str

    def save(self, folder: Path) -> None:
        """Raises `ScanError` where it cannot be written."""
        content = {
            "format": _FORMAT,
            "version": __version__,
            "command": self.command,
            "machine": self.machine,
            "options": self.options,
            "trained": self.trained,
            "bones": {bone.name: _plain(bone, folder) for bone in self.bones.values()},
        }
        with staged() as staging, writing(folder / SETTINGS):
            text = json.dumps(content, indent=1)
            staging.path(folder / SETTINGS).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Raises `ScanError` where there is none, or a damaged one."""
        path = folder / SETTINGS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError("another format")
            bones = {name: _bone(name, entry, folder) for name, entry in content["bones"].items()}
            return cls(
                content["options"], bones, dict(content["trained"]), str(content["machine"]), str(content["command"])
            )
        except FileNotFoundError as error:
            raise ScanError(f"{path}: is not there, so nothing was evaluated in this folder yet; check it") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ScanError(
                f"{path}: cannot be read, or is damaged ({one_line(error)}); restore it from a copy, or evaluate "
                "into another folder"
            ) from error


def _plain(bone: Bone, folder: Path) -> dict[str, str | None]:
    def of(path: Path | None) -> str | None:
        if path is None:
            return None
        # Made-up scans move with the folder.
        inside = path.resolve().is_relative_to(folder.resolve())
        return str(path.resolve().relative_to(folder.resolve()) if inside else path.resolve())

    return {
        "animal": bone.animal, "fold": bone.fold, "pre": of(bone.pre), "post": of(bone.post),
        "transform": of(bone.transform),
    }  # fmt: skip


def _bone(name: str, entry: Mapping[str, Any], folder: Path) -> Bone:
    transform = entry["transform"]
    return Bone(
        name,
        entry["animal"],
        entry["fold"],
        folder / entry["pre"],
        folder / entry["post"],
        None if transform is None else folder / transform,
    )
