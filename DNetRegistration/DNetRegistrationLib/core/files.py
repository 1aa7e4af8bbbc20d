"""Atomic writing: files appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import FileError, one_line
from .interrupts import held_back

if os.name == "posix":
    import fcntl

_PREFIX, _LOCK = ".dnet-", "lock"
# After so many seconds an empty temporary folder without a lock is not about to have one.
_UNLOCKED_S = 60.0
# Bytes that a file is read by.
_BLOCK = 1 << 20


class Staging:
    """Outputs that are written beside their places under temporary names and moved there together.

    Every temporary file stands in the folder of its target. So the move is a rename, and a full disk or a missing
    right shows before anything of the user's is replaced.
    """

    #: Bytes that must be free before an output is begun. Some writers do not notice a full disk (ITK's text and MATLAB
    #: transforms) and one brings the process down (HDF5), so small outputs are assured of their room beforehand.
    room = 1 << 20

    def __init__(self) -> None:
        self._moves: dict[Path, Path] = {}  # from each target's temporary file
        # By the folder that each stands in: files to come, and those that they replace.
        self._folders: dict[Path, tuple[Path, Path]] = {}
        self._made = ExitStack()

    def path(self, target: str | os.PathLike) -> Path:
        """Where to write what shall become `target`: in a temporary folder beside it, with its ending in small letters.

        ITK knows no others. A link is followed: what it leads to is replaced.

        Raises:
            FileError: the folder is missing, not a folder, full or not writable, or `target` is itself a folder, or
                a device or a pipe.
        """
        target = Path(target)
        if target.is_dir():
            raise FileError(f"{target}: cannot be written, it is a folder", "give a file name")
        place = Path(os.path.realpath(target)) if target.is_symlink() else target
        if not place.parent.exists():
            problem = f"{target}: cannot be written, its folder does not exist"
            raise FileError(problem, f"create {place.parent} first")
        if not place.parent.is_dir():
            raise FileError(f"{target}: cannot be written, {place.parent} is not a folder", "write elsewhere")
        if place.exists() and not place.is_file():
            raise FileError(f"{target}: cannot be written, it is a device or a pipe", "give the name of a file")
        with writing(target):
            if place.exists() and not os.access(place, os.W_OK):
                raise PermissionError("the file there is write-protected")
            if place.parent not in self._folders:
                made = self._made.enter_context(temporary_folder(place.parent))
                self._folders[place.parent] = made / "new", made / "old"
                for folder in self._folders[place.parent]:
                    folder.mkdir()
            name, dot, ending = place.name.partition(".")
            temporary = self._folders[place.parent][0] / f"{name}{dot}{ending.lower()}"
            while temporary in self._moves.values():
                temporary = temporary.with_name(f"_{temporary.name}")
            temporary.write_bytes(bytes(self.room))
            temporary.unlink()
        self._moves[place] = temporary
        return temporary

    def commit(self) -> None:
        """Moves every file to its place; when one cannot be moved, those before it are as they were.

        Signals wait until all are moved. A file that was there before hands on its mode and, where possible, its owner.

        Raises:
            FileError: a file was not written, or cannot be moved; none is then.
        """
        for target, temporary in self._moves.items():
            if not temporary.is_file():
                raise FileError(f"{target}: was not written", "check the disk and try again")
        moved: list[tuple[Path, Path]] = []
        with held_back():
            try:
                for target, temporary in self._moves.items():
                    before = self._folders[target.parent][1] / target.name
                    with writing(target):
                        if target.exists():
                            _keep(target, before)
                            _take_on(temporary, target.stat())
                        moved.append((target, before))
                        os.replace(temporary, target)
            except BaseException:
                for target, before in reversed(moved):
                    with suppress(OSError):
                        if before.exists():
                            os.replace(before, target)
                        elif not self._moves[target].exists():
                            target.unlink()
                raise
        self._moves.clear()

    def discard(self) -> None:
        """Removes the files that were not moved."""
        self._made.close()
        self._folders.clear()
        self._moves.clear()


@contextmanager
def temporary_folder(parent: str | os.PathLike | None = None) -> Iterator[Path]:
    """Yields a new folder in `parent`, which vanishes when the block ends.

    When the process is killed, the next such folder that is made there removes it.

    Args:
        parent: an existing folder; None for the system's own for temporary files.

    Raises:
        OSError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir() if parent is None else parent)
    _clear_dead(parent)
    folder = lock = None
    try:
        with held_back():
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            # The system takes a lock away when the process that holds it ends.
            lock = open(folder / _LOCK, "wb")
            if os.name == "posix":
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        with held_back():
            if folder is not None:
                _empty(folder)
                if lock is not None:
                    lock.close()
                shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Removes all but the lock: who is killed meanwhile leaves a folder that can be told to be dead."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif entry.name != _LOCK:
            with suppress(OSError):
                os.unlink(entry.path)


def _clear_dead(folder: Path) -> None:
    """Removes temporary folders in a folder whose makers have ended without doing so, as by SIGKILL."""
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if entry.name.startswith(_PREFIX)]
    except OSError:
        return
    for one in found:
        with suppress(OSError):
            if stat.S_ISDIR(one.lstat().st_mode) and _is_dead(one):
                _empty(one)
                shutil.rmtree(one, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    """Whether the maker of a temporary folder has ended; an `OSError` where that cannot be told."""
    lock = folder / _LOCK
    if not lock.exists():  # it ended, or will lock it in a moment; or it is another program's
        return time.time() - folder.stat().st_mtime > _UNLOCKED_S and not any(folder.iterdir())
    if os.name != "posix":
        lock.unlink()  # an error where it is open
        return True
    with open(lock, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error where it is held
    return True


def _keep(target: Path, before: Path) -> None:
    """Keeps a file under a second name."""
    try:
        os.link(target, before)
    except OSError:  # a file system without hard links
        shutil.copy2(target, before)


def _take_on(temporary: Path, before: os.stat_result) -> None:
    """Gives a file the owner and the mode of the one that it replaces, as far as this user may."""
    with suppress(OSError, AttributeError):
        os.chown(temporary, before.st_uid, before.st_gid)
    with suppress(OSError):
        os.chmod(temporary, stat.S_IMODE(before.st_mode))


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


def blocks_of(path: str | os.PathLike) -> Iterator[bytes]:
    """The content of a file, a block at a time.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def append(path: str | os.PathLike, content: bytes) -> None:
    """Adds to the end of a file, which is made where it is missing; all of it or, where that fails, nothing.

    Raises:
        FileError: it cannot be written.
    """
    with writing(path), open(path, "ab", buffering=0) as stream:
        end = stream.seek(0, os.SEEK_END)
        try:
            rest = memoryview(content)
            while rest:  # a disk that becomes full takes a part first
                rest = rest[stream.write(rest) :]
        except BaseException:
            stream.truncate(end)
            raise


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
