"""Results of a long measurement, kept in a CSV file that grows by a row each, so that an interrupted run resumes.

Each row ends with a checksum. A last row that was cut short, as when the process is killed, is dropped and measured
again. Any other change to the file is an error, and so are results that other code measured.

Example:
    >>> @dataclass(frozen=True)  # doctest: +SKIP
    ... class Timing:
    ...     pair: int
    ...     seconds: float
    ...     code: str = measuring_code("experiments/timing.py")
    ...
    ...     @property
    ...     def key(self):
    ...         return self.pair
    >>> store = ResultStore(folder / "pairs.csv", Timing)  # doctest: +SKIP
    >>> missing = [pair for pair in pairs if pair not in store.results]  # doctest: +SKIP
    >>> store.add(Timing(missing[0], 1.5))  # doctest: +SKIP
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Collection, Hashable
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ..core.csv_table import no_formula, with_formula
from ..core.errors import FileError, OptionError, Setting, one_line
from ..core.files import append, atomic_write
from ..core.provenance import code_hash
from ..version import __version__

# Rooms that decide what the alignment of two scans, real or synthetic, gives.
_ALIGNING = ("core", "geometry", "imaging", "bone", "networks", "registration", "synthesis", "experiments/metrics.py")


def measuring_code(*modules: str) -> str:
    """Identifies the code that measures, so that results of different code are not put together.

    Code that shows results has no part in it: it may change while a measurement goes on.

    Args:
        modules: further folders or files of the package that decide the results.

    Returns:
        the version, and a hash of all code that aligns and of these modules.
    """
    return f"{__version__}+{code_hash(*_ALIGNING, *modules)}"


def chosen(names: Collection[str] | None, known: Collection[str], quantity: str) -> list[str]:
    """The known names that were asked for, in their order; all for None."""
    for name in names or ():
        if name not in known:
            raise OptionError(f"{name!r} is unknown", f"choose from {', '.join(known)}", Setting(quantity))
    return [name for name in known if names is None or name in names]


class Result(Protocol):
    """A frozen dataclass that a `ResultStore` keeps.

    Its fields are annotated as int, float, bool, str or tuple[float, ...]; its module imports ``annotations`` from
    ``__future__``. The default of `code` identifies the code that measures. `key` tells one result from another.
    """

    @property
    def code(self) -> str: ...

    @property
    def key(self) -> Hashable: ...


R = TypeVar("R", bound=Result)

_READ: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": with_formula,
    "bool": {"True": True, "False": False}.__getitem__,
    "tuple[float, ...]": lambda text: tuple(float(part) for part in text.split()),
}


# Remedy and setting.
_ELSEWHERE = "write to another folder, or remove the file to measure anew", Setting("output")


class ResultStore(Generic[R]):
    """Results by their key, in memory and in a file.

    Args:
        path: the CSV file, which need not exist yet; None keeps results in memory only.
        kind: the dataclass of the results.
        any_code: also reads results of other code, to show them. None may be added then.

    Attributes:
        results: by key, in the order in which they were added. Of two with the same key the later one counts.

    Raises:
        FileError: the file cannot be read, is damaged, or holds results of other code.
    """

    def __init__(self, path: Path | None, kind: type[R], any_code: bool = False) -> None:
        self.path, self.kind = path, kind
        self._names = [f.name for f in fields(kind)]
        self._read = [_READ[f.type] for f in fields(kind)]
        code = next(f.default for f in fields(kind) if f.name == "code")
        self.results: dict[Hashable, R] = {}
        if path is None or not path.exists():
            return
        try:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            remedy = "restore it from a copy, or remove it to measure anew"
            raise FileError(f"{path}: cannot be read ({one_line(error)})", remedy) from error
        whole = text[: text.rfind("\n") + 1]
        self._parse(whole)
        others = {result.code for result in self.results.values()} - {code}
        if others and not any_code:
            versions = f"{others.pop()}, this is {code}"
            raise FileError(f"{path}: holds results of another version of this program ({versions})", *_ELSEWHERE)
        if whole != text:
            with atomic_write() as staging:
                staging.path(path).write_bytes(whole.encode("utf-8", "surrogateescape"))

    def add(self, result: R) -> None:
        """Keeps a result.

        Raises:
            DNetError: the file cannot be written.
        """
        if self.path is not None:
            cells = [_to_text(getattr(result, name)) for name in self._names]
            is_new = not self.path.exists() or self.path.stat().st_size == 0
            head = _line([*self._names, "check"]) if is_new else b""
            append(self.path, head + _line([*cells, _checksum(cells)]))
        self.results[result.key] = result

    def _parse(self, text: str) -> None:
        rows = csv.reader(io.StringIO(text, newline=""))
        if next(rows, None) not in (None, [*self._names, "check"]):
            raise FileError(f"{self.path}: has other columns than this version writes", *_ELSEWHERE)
        for row in rows:
            cells, check = row[:-1], row[-1] if row else ""
            if len(cells) != len(self._names) or check != _checksum(cells):
                raise FileError(
                    f"{self.path}: line {rows.line_num} is damaged or was changed (its checksum is another)",
                    "restore the file from a copy, or remove that line to have it measured again",
                )
            result = self.kind(*(read(cell) for read, cell in zip(self._read, cells, strict=True)))
            self.results[result.key] = result


def _to_text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(repr(float(part)) for part in value)
    # repr keeps every digit of a float. A message is joined into one line.
    return repr(float(value)) if isinstance(value, float) else no_formula(" ".join(str(value).split()))


def _line(cells: list[str]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    # File names need not be UTF-8.
    return stream.getvalue().encode("utf-8", "surrogateescape")


def _checksum(cells: list[str]) -> str:
    content = "\x1f".join(cells).encode("utf-8", "surrogateescape")
    return f"{zlib.crc32(content):08x}"
