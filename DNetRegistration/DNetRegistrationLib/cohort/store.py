"""The folder of results: one run at a time works in it, and what was done stays done, however a run ends."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.errors import FileError, RunError, Setting
from ..core.files import make_folder, writing
from ..core.packages import needed
from .fingerprint import content_hash, options_of, stamp, way_of_aligning
from .options import CohortOptions, folder_name
from .pairs import ROLES, Pair
from .result import PairResult
from .scan_file import ScanFile
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

    def done(self, pair: Pair, options: CohortOptions) -> PairResult | None:
        """The result of a pair of an earlier run; None where there is none, or what it depends on has changed."""
        folder = _folder(pair)
        record = self.place / folder / _RECORD
        try:
            stored = json.loads(record.read_text(encoding="utf-8"))
            result = PairResult.from_dict(stored["result"])
            valid = (stored["way"], stored["options"]) == (self._way, options_of(pair, options))
            valid = valid and all((self.place / file).is_file() for file in result.outputs.values())
            if not valid:
                return None
            now = stamp(pair, options)
            if stored["stamp"] != now:
                if stored["content"] != content_hash(pair, options):
                    return None
                _write(record, {**stored, "stamp": now})
        except (OSError, ValueError, KeyError, TypeError):  # no record, or none of this program's
            return None
        return of_pair(result, pair)

    def task(self, pair: Pair, options: CohortOptions) -> PairTask:
        """The work on a pair, with a new folder for its outputs.

        Raises:
            FileError: the place of its results holds what is not of this program; or the folder cannot be made.
        """
        folder = _folder(pair)
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

    def forget(self, task: PairTask) -> None:
        """Removes what is half done of a pair."""
        shutil.rmtree(task.work, ignore_errors=True)


def _folder(pair: Pair) -> str:
    """Where the outputs of a pair lie, below the folder of results."""
    return f"{_LOOPS if pair.closing else _PAIRS}/{folder_name(pair.name)}"


def recorded_pair(place: str | os.PathLike, result: PairResult) -> tuple[Pair, str]:
    """The scans of a result as they were read, and what identifies the files that were; see `is_recorded`.

    Args:
        place: the folder of results.
        result: of a pair that was aligned.

    Returns:
        The pair, without a mask, and the hash; that is "" where other files than the scans had a part in the result.

    Raises:
        FileError: there is no record of it.
    """
    record = Path(place) / result.folder / _RECORD
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
        said, content = json.loads(stored["options"]), stored["content"]
        scans = {
            role: ScanFile(
                path,
                spacing=None if said[f"{role}_spacing"] is None else tuple(said[f"{role}_spacing"]),
                series=said[f"{role}_series"],
                flip=said[f"{role}_flip"],
            )
            for role, path in zip(ROLES, (result.fixed, result.moving), strict=True)
        }
        others = said["fixed_mask"] or said["moving_mask"] or said["initial"] or said["weights"] == "a file"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{record}: is no record of a pair", "run the cohort again") from error
    pair = Pair(name=result.name, fixed=scans["fixed"], moving=scans["moving"], columns=result.columns)
    return pair, "" if others else content


def is_recorded(pair: Pair, content: str) -> bool:
    """Whether the files of a pair are those of its record. Reads all of them."""
    try:
        return content == content_hash(pair, CohortOptions())
    except OSError:
        return False


def _write(path: Path, values: dict) -> None:
    """Writes a record so that a reader sees the old one or the new one."""
    beside = path.with_suffix(".new")
    # Names of files need not be UTF-8.
    beside.write_bytes(json.dumps(values, allow_nan=False).encode("ascii"))
    os.replace(beside, path)
    with suppress(OSError):
        beside.unlink()
