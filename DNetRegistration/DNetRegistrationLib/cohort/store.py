"""The folder of results: one run at a time works in it, and what was done stays done, however a run ends."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from ..bone.scan_file import ABOUT_SCAN, ScanFile
from ..core.errors import FileError, RunError, Setting
from ..core.files import make_folder, writing
from ..core.packages import needed
from .fingerprint import content_hash, options_of, paths_of, stamp, way_of_aligning
from .options import CohortOptions, folder_name
from .pairs import ROLES, Pair
from .result import PairResult
from .tables import RECORD
from .task import Done, PairTask, of_pair

_PAIRS, _LOOPS, _RECORD = "pairs", "loops", "pair.json"
_WORK, _LOCK = ".work-", ".lock"


@contextmanager
def opened_results(folder: str | os.PathLike) -> Iterator[ResultsFolder]:
    """Opens a folder of results for one run, and makes it where it is missing.

    Raises:
        FileError: it cannot be made or written.
        RunError: another run works in it.
    """
    filelock = needed("filelock", "the lock of a folder of results")
    # Absolute, since processes elsewhere write to it too.
    place = make_folder(folder, parents=True).absolute()
    # The system lets go of the lock when the process ends, however that is.
    lock = filelock.FileLock(place / _LOCK, timeout=0)
    with writing(place), suppress(filelock.Timeout):
        lock.acquire()
    if not lock.is_locked:
        problem = f"{place}: another run works in this folder"
        raise RunError(problem, "wait until it has ended, or write to another folder", Setting("output"))
    try:
        # Those of a run that was killed.
        for left in place.glob(f"{_WORK}*"):
            shutil.rmtree(left, ignore_errors=True)
        with writing(place):
            work = Path(tempfile.mkdtemp(prefix=_WORK, dir=place))
        try:
            yield ResultsFolder(place, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        lock.release()


def is_results(folder: Path) -> bool:
    """Whether a run has written, or writes, its results to a folder."""
    # Windows removes the lock when a run ends.
    return any((folder / name).is_file() for name in (_LOCK, RECORD))


class ResultsFolder:
    """A folder of results that a run works in; see `opened_results`.

    A pair's outputs are written to a folder that stands aside, and moved to their place together with a record of what
    they depend on. So a pair is either done or not.

    Args:
        place: the folder.
        work: a folder in it for what is not done yet.
    """

    def __init__(self, place: Path, work: Path) -> None:
        self.place, self.work = place, work
        self._way = way_of_aligning()
        self._rooms = {room: _Room(place / room) for room in (_PAIRS, _LOOPS)}

    def done(self, pair: Pair, options: CohortOptions) -> PairResult | None:
        """The result of a pair of an earlier run; None where there is none, or what it depends on has changed."""
        record = self.place / self._folder(pair) / _RECORD
        try:
            stored = self._rooms[_room(pair)].records[pair.name]
            result = PairResult.from_dict(stored["result"])
            valid = (stored["way"], stored["options"]) == (self._way, options_of(pair, options))
            valid = valid and all((self.place / file).is_file() for file in result.outputs.values())
            if not valid:
                return None
            now = stamp(pair, options)
            if stored["stamp"] != now and stored["content"] != content_hash(pair, options):
                return None
            places = paths_of(pair, options)
            if (stored["stamp"], stored["paths"]) != (now, places):
                stored |= {"stamp": now, "paths": places}
                _write(record, stored)
        except (OSError, ValueError, KeyError, TypeError):  # no record, or none of this program's
            return None
        return of_pair(result, pair)

    def dropped(self, pairs: Iterable[Pair], options: CohortOptions) -> list[str]:
        """The names of outputs of earlier runs that nobody asks for now: they go when their pairs are done again."""
        there: set[str] = set()
        for pair in pairs:
            with suppress(ValueError, KeyError, TypeError):  # no record, or none of this program's
                written = PairResult.from_dict(self._rooms[_room(pair)].records[pair.name]["result"]).outputs
                there |= {name for name, file in written.items() if (self.place / file).is_file()}
        return sorted(there - options.outputs.keys())

    def task(self, pair: Pair, options: CohortOptions) -> PairTask:
        """The work on a pair, with a new folder for its outputs.

        Raises:
            FileError: the place of its results holds what is not of this program; or the folder cannot be made.
        """
        folder = self._folder(pair)
        there = self.place / folder
        if there.exists() and not (there / _RECORD).is_file() and not (there.is_dir() and not any(there.iterdir())):
            raise FileError(f"{there}: is not of this program, and not replaced", "move it, or write elsewhere")
        work = make_folder(self.work / folder, parents=True)
        return PairTask(pair, options, str(work), folder)

    def keep(self, task: PairTask, done: Done, before: str) -> None:
        """Moves the outputs of a pair to their place, with a record of what they depend on.

        Args:
            task: the pair and its folders.
            done: what came of it.
            before: the `stamp` of its files before the work.

        Raises:
            FileError: the folder cannot be written.
        """
        work, there = Path(task.work), self.place / task.folder
        record = {
            "way": self._way,
            "options": options_of(task.pair, task.options),
            "paths": paths_of(task.pair, task.options),
            "stamp": before,
            "content": done.content if done.lasting else "",
            "result": done.result.to_dict(),
        }
        if not done.lasting:  # it is tried again
            record["way"] = ""
        with writing(there):
            _write(work / _RECORD, record)
            make_folder(there.parent)
            if there.exists():
                os.replace(there, Path(tempfile.mkdtemp(dir=self.work)) / "old")
            os.replace(work, there)
        self._rooms[_room(task.pair)].records[task.pair.name] = record

    def _folder(self, pair: Pair) -> str:
        """Where the outputs of a pair lie, below the folder of results: if an earlier run has put them there, where."""
        room = _room(pair)
        return f"{room}/{self._rooms[room].folder(pair.name)}"

    def forget_loops(self) -> None:
        """Removes what was aligned to close loops, and nothing else."""
        for record in self.place.glob(f"{_LOOPS}/*/{_RECORD}"):
            shutil.rmtree(record.parent, ignore_errors=True)
        with suppress(OSError):  # there are none, or what is not of this program
            (self.place / _LOOPS).rmdir()
        self._rooms[_LOOPS] = _Room(self.place / _LOOPS)


def _room(pair: Pair) -> str:
    return _LOOPS if pair.closing else _PAIRS


class _Room:
    """The folders of pairs in one place, and their records, each of which is read once.

    Args:
        place: where they lie, or will.

    Attributes:
        records: what lay there, by the names of the pairs.
    """

    def __init__(self, place: Path) -> None:
        self.records: dict[str, dict] = {}
        self._folders: dict[str, str] = {}  # by the names of the pairs
        # By the names of folders in small letters: the pairs. Where file systems pass over the case of letters, names
        # that differ in it alone are one folder.
        self._holders: dict[str, str] = {}
        for folder in sorted(place.iterdir()) if place.is_dir() else ():
            stored = _stored(folder)
            name = folder.name if stored is None else stored["result"]["name"]
            self._holders[folder.name.lower()] = name
            # Earlier versions called the folders of odd names otherwise.
            called = (folder_name(name), folder_name(name, taken=True))
            if stored is not None and (name not in self.records or folder.name in called):
                self.records[name], self._folders[name] = stored, folder.name

    def folder(self, name: str) -> str:
        """The folder of a pair: its own, where no other pair has it."""
        if name not in self._folders:
            other = folder_name(name, taken=True)
            names = chain((folder_name(name), other), (f"{other}-{number}" for number in count(2)))
            # A pair may be called as the folder of another one is.
            own = next(one for one in names if self._holders.setdefault(one.lower(), name) == name)
            self._folders[name] = own
        return self._folders[name]


def _stored(folder: Path) -> dict | None:
    """The record of a folder; None where there is none of this program's."""
    try:
        stored = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return stored if isinstance(stored["result"]["name"], str) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(frozen=True)
class RecordedPair:
    """A pair as it was aligned.

    Attributes:
        pair: the pair.
        weights: the file of the network's weights, where they are not some that ship.
        content: identifies the files as they were.
    """

    pair: Pair
    weights: str | None
    content: str

    def holds(self) -> bool:
        """Whether all files that had a part in the result are those that it came of. Reads them."""
        options = CohortOptions(weights=self.weights)
        try:
            return options.weights_file() == self.weights and self.content == content_hash(self.pair, options)
        except OSError:
            return False


def recorded_pair(place: str | os.PathLike, result: PairResult) -> RecordedPair:
    """What the folder of results knows of how a pair was aligned.

    Args:
        place: the folder of results.
        result: of a pair that was aligned.

    Raises:
        FileError: there is no record of it.
    """
    record = Path(place) / result.folder / _RECORD
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
        said, paths = json.loads(stored["options"]), stored["paths"]
        scans = {}
        for role in ROLES:
            about = {name: said[f"{role}_{name}"] for name in ABOUT_SCAN} | {"mask": paths[f"{role}_mask"]}
            spacing = None if about["spacing"] is None else tuple(about["spacing"])
            scans[role] = ScanFile(paths[f"{role}_path"], **{**about, "spacing": spacing})
        # Records of earlier versions know no region.
        medial = said.get("medial")
        pair = Pair(
            name=result.name,
            fixed=scans["fixed"],
            moving=scans["moving"],
            initial=paths["initial"],
            region=paths.get("region"),
            region_segment=said.get("region_segment"),
            medial=None if medial is None else tuple(medial),
        )
        return RecordedPair(pair, paths["weights"], stored["content"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{record}: is no record of a pair", "run the cohort again") from error


def _write(path: Path, values: dict) -> None:
    """Writes a record so that a reader sees the old one or the new one."""
    beside = path.with_suffix(".new")
    # Names of files need not be UTF-8.
    beside.write_bytes(json.dumps(values, allow_nan=False).encode("ascii"))
    os.replace(beside, path)
    with suppress(OSError):
        beside.unlink()
