"""Atomic writing: files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FileError, one_line


class Staging:
    """Outputs that are written beside their places under temporary names and moved there together.

    Every temporary file stands in the folder of its target. So the move is a rename, and a full disk or a missing
    right shows before anything of the user's is replaced.
    """

    #: Bytes that must be free before an output is begun. Some writers do not notice a full disk (ITK's text and MATLAB
    #: transforms) and one brings the process down (HDF5), so small outputs are assured of their room beforehand.
    room = 1 << 20

    def __init__(self) -> None:
        self._moves: list[tuple[Path, Path]] = []
        self._folders: list[tempfile.TemporaryDirectory[str]] = []

    def path(self, target: str | os.PathLike) -> Path:
        """Where to write what shall become `target`: same name and suffix, in a temporary folder beside it.

        Raises:
            FileError: the folder is missing, not a folder, full or not writable, or `target` is itself a folder.
        """
        target = Path(target)
        if target.is_dir():
            raise FileError(f"{target}: cannot be written, it is a folder", "give a file name")
        if not target.parent.exists():
            problem = f"{target}: cannot be written, its folder does not exist"
            raise FileError(problem, f"create {target.parent} first")
        if not target.parent.is_dir():
            raise FileError(f"{target}: cannot be written, {target.parent} is not a folder", "write elsewhere")
        with writing(target):
            if target.exists() and not os.access(target, os.W_OK):
                raise PermissionError("the file there is write-protected")
            folder = tempfile.TemporaryDirectory(prefix=".dnet-", dir=target.parent)
            self._folders.append(folder)
            temporary = Path(folder.name) / target.name
            temporary.write_bytes(bytes(self.room))
            temporary.unlink()
        self._moves.append((temporary, target))
        return temporary

    def commit(self) -> None:
        """Moves every file to its place.

        Raises:
            FileError: a file was not written, and none is moved; or one cannot be moved.
        """
        for temporary, target in self._moves:
            if not temporary.is_file():
                raise FileError(f"{target}: was not written", "check the disk and try again")
        for temporary, target in self._moves:
            with writing(target):
                os.replace(temporary, target)
        self._moves.clear()

    def discard(self) -> None:
        """Removes the files that were not moved."""
        while self._folders:
            self._folders.pop().cleanup()
        self._moves.clear()


def is_unicode(path: str | os.PathLike) -> bool:
    """Tells whether a name is UTF-8, as names from an old disk are not: ITK ends the process for one that is not."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def atomic_write() -> Iterator[Staging]:
    """Yields a `Staging`. Its files move into place when the block ends well, and vanish when it does not.

    Example:
        >>> with atomic_write() as staging:  # doctest: +SKIP
        ...     staging.path("report.json").write_text("{}")
    """
    staging = Staging()
    try:
        yield staging
        staging.commit()
    finally:
        staging.discard()


@contextmanager
def writing(target: str | os.PathLike) -> Iterator[None]:
    """Turns errors of writing `target` inside the block into a `FileError`.

    These are the operating system's errors and the `RuntimeError` of SimpleITK's writers. Other errors pass.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        problem = f"{target}: cannot be written ({one_line(error)})"
        raise FileError(problem, "check the folder and the disk, or write elsewhere") from error


def make_folder(path: str | os.PathLike, parents: bool = False) -> Path:
    """Makes the folder `path` where it is missing, and with `parents` those above it; returns it.

    Raises:
        FileError: it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: the folder cannot be made ({one_line(error)})", "give another one") from error
    return folder
