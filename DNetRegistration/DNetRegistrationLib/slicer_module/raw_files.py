"""Voxels in files without a header, which are written and read a part at a time. What they hold is told elsewhere.

Needs neither Slicer nor torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import FileError, one_line

#: Bytes of a part: about a hundredth of a second.
PART = 1 << 23


@dataclass(frozen=True)
class RawFile:
    """A file of voxels.

    Attributes:
        path: the file.
        shape: ``(z, y, x)``.
        dtype: in NumPy's short form, with the byte order, as in "<u2".
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, path: Path, voxels: np.ndarray) -> RawFile:
        """The file that `write` writes these voxels to."""
        return cls(path, voxels.shape, voxels.dtype.str)

    def write(self, voxels: np.ndarray) -> Iterator[None]:
        """Writes the voxels; yields between parts.

        Raises:
            OSError: they cannot be written.
        """
        with open(self.path, "wb") as file:
            for number, part in enumerate(_parts(voxels)):
                if number:
                    yield
                file.write(_bytes(np.ascontiguousarray(voxels[part])))

    def mapped(self) -> np.ndarray:
        """The voxels, read-only, of which only those are read that are looked at."""
        return np.memmap(self.path, self.dtype, "r", shape=self.shape).view(np.ndarray)

    def to_dict(self) -> dict:
        """Name, shape and dtype as JSON's own types."""
        return {"name": self.path.name, "shape": list(self.shape), "dtype": self.dtype}

    @classmethod
    def from_dict(cls, folder: Path, values: dict) -> RawFile:
        """The file of which `to_dict` made these values, in a folder."""
        return cls(folder / values["name"], tuple(values["shape"]), values["dtype"])


def copy_voxels(source: np.ndarray | RawFile, target: np.ndarray) -> Iterator[None]:
    """Copies voxels into a contiguous array of the same shape and type; yields after each part.

    A file is read into place, not mapped: where it fails, a mapped one would bring the application down.

    Raises:
        FileError: the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        for part in _parts(target):
            target[part] = source[part]
            yield
        return
    try:
        with open(source.path, "rb", buffering=0) as file:
            for part in _parts(target):
                room = _bytes(target[part])
                while room:
                    count = file.readinto(room)
                    if not count:
                        raise OSError("it is too short")
                    room = room[count:]
                yield
    except OSError as error:
        raise FileError(f"{source.path}: cannot be read ({one_line(error)})", "align again") from error


def _bytes(voxels: np.ndarray) -> memoryview:
    """The memory of a contiguous array."""
    return voxels.reshape(-1).view(np.uint8).data


def _parts(voxels: np.ndarray) -> Iterator[slice]:
    """Slices along z of about `PART` bytes."""
    step = max(1, PART // max(1, voxels[0].nbytes))
    for start in range(0, len(voxels), step):
        yield slice(start, start + step)
