"""Files that appear whole or not at all, and the error that says what is wrong with one."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from .errors import ScanError, one_line


class Staging:
    """Outputs written beside their places under temporary names, and moved there together.

    Every temporary file stands in the folder of its target, so that the move is a rename and a full disk or a missing
    right shows before anything of the user's is replaced.
    """

    #: Bytes that must be free before an output is begun. Some writers do not notice a full disk (ITK's text and MATLAB
    #: transforms) and one brings the process down (HDF5), so small outputs are assured of their room beforehand.
    room = 1 << 20

    def __init__(self) -> None:
        self._moves: list[tuple[Path, Path]] = []
        self._folders: list[tempfile.TemporaryDirectory] = []

    def path(self, target) -> Path:
        """Where to write what shall become `target`: same name and suffix, in a temporary folder beside it.

        Raises:
            ScanError: the folder is missing, not a folder, full or not writable, or `target` is itself a folder.
        """
        target = Path(target)
        if target.is_dir():
            raise ScanError(f"{target}: cannot be written, it is a folder; give a file name")
        if not target.parent.exists():
            raise ScanError(f"{target}: cannot be written, its folder does not exist; create {target.parent} first")
        if not target.parent.is_dir():
            raise ScanError(f"{target}: cannot be written, {target.parent} is not a folder; write elsewhere")
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
        """Moves everything written to its place.

        Raises:
            ScanError: something was not written, when nothing is moved; or cannot be moved.
        """
        for temporary, target in self._moves:
            if not temporary.is_file():
                raise ScanError(f"{target}: was not written; check the disk and try again")
        for temporary, target in self._moves:
            with writing(target):
                os.replace(temporary, target)
        self._moves.clear()

    def discard(self) -> None:
        """Removes whatever was not moved."""
        while self._folders:
            self._folders.pop().cleanup()
        self._moves.clear()


@contextmanager
def writing(target):
    """Turns what goes wrong with writing `target` inside the block into a one-line `ScanError`.

    The operating system's errors and the `RuntimeError` of SimpleITK's writers are meant; others pass.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        message = f"{target}: cannot be written ({one_line(error)}); check the folder and the disk, or write elsewhere"
        raise ScanError(message) from error


@contextmanager
def staged():
    """A `Staging` whose files all move into place when the block ends well, and all vanish when it does not.

    Example:
        >>> with staged() as staging:  # doctest: +SKIP
        ...     staging.path("report.json").write_text("{}")
    """
    staging = Staging()
    try:
        yield staging
        staging.commit()
    finally:
        staging.discard()


def make_folder(path, parents: bool = False) -> Path:
    """The folder `path`, made where it is missing; those above it too with `parents`.

    Raises:
        ScanError: it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise ScanError(f"{folder}: the folder cannot be made ({one_line(error)}); give another one") from error
    return folder
