"""A temporary folder that others can tell to be abandoned, once the process that made it has died."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

# The process that made a folder holds a lock on this file in it. The system frees the lock however that process ends.
LOCK = "lock"
# Between making a folder and locking it pass some microseconds. Where nothing can be locked, age has to do.
YOUNG, OLD = 60.0, 86400.0  # seconds


class PrivateFolder:
    """A new folder of this user alone.

    Args:
        prefix: of its name.
        parent: the folder that it is made in; None is the system's temporary one.

    Attributes:
        path: the folder.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, prefix: str, parent: str | os.PathLike | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = open(self.path / LOCK, "wb")
        _lock(self._lock)

    def remove(self) -> None:
        """Removes the folder with all that is in it; it is no error that it is gone."""
        self._lock.close()
        # Windows frees the files of a process some moments after its end.
        for _ in range(10):
            if not self.path.exists():
                return
            shutil.rmtree(self.path, ignore_errors=True)
            if self.path.exists():
                time.sleep(0.05)


def is_abandoned(folder: Path) -> bool:
    """Whether the process that made a `PrivateFolder` has died, or has removed the folder."""
    try:
        with open(folder / LOCK, "r+b") as file:
            return _lock(file)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def remove_abandoned(prefix: str, parent: str | os.PathLike) -> None:
    """Removes the folders of a prefix whose process has died."""
    for folder in Path(parent).glob(f"{prefix}*"):
        with suppress(OSError):
            age = time.time() - folder.stat().st_mtime
            if age > OLD or (age > YOUNG and (folder / LOCK).exists() and is_abandoned(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def _lock(file: IO[bytes]) -> bool:
    """Locks a file until it is closed; returns false where another process has locked it, or none can."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
