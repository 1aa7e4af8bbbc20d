"""A benchmark case by case: each is measured in a process, kept as a row, and shown with all others in one table."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...core.files import atomic_write, make_folder
from ...core.processes import completed_calls
from ...core.progress import ProgressFunction
from ...core.threads import available_processors
from ..store import Result, ResultStore
from ..tables import Finding, findings_table, markdown

R = TypeVar("R", bound=Result)
T = TypeVar("T", bound="CaseTable")


@dataclass
class CaseTable(ABC, Generic[R]):
    """All results, and whether they are as required."""

    results: list[R]

    @abstractmethod
    def findings(self) -> list[Finding]:
        """What was measured. Where there is too little of it to judge what is required, that does not hold."""

    @property
    def holds(self) -> bool:
        """Whether all that is required holds."""
        return all(one.holds is not False for one in self.findings())


def measure_cases(
    measure: Callable[..., R],
    wanted: Sequence[tuple[Any, ...]],
    kind: type[R],
    table: Callable[[list[R]], T],
    *,
    name: str,
    says: Callable[[R], str],
    unit: str,
    jobs: int | None,
    output: str | os.PathLike | None,
    progress: ProgressFunction,
    tell: Callable[[str], None],
) -> T:
    """Measures the cases that are not kept yet.

    Args:
        measure: measures a case, in another process.
        wanted: the arguments of `measure` for each case, which are the key of its result too.
        kind: the dataclass of results.
        table: makes the table of results.
        name: of the files of results and table, in `output`.
        says, unit: what a result is of, and what cases are called, for the progress.
        jobs, output, progress, tell: as in `benchmark_loops`.

    Raises:
        FileError: the folder cannot be written, or holds results of other code.
        RunError: a process died.
    """
    folder = None if output is None else make_folder(output)
    store = ResultStore(None if folder is None else folder / f"{name}.csv", kind)
    missing = [key for key in wanted if key not in store.results]
    try:
        with closing(completed_calls(measure, missing, jobs or available_processors())) as measured:
            for done, result in enumerate(measured, 1):
                store.add(result)
                progress(done / len(missing), f"{says(result)}, {done} of {len(missing)} {unit}")
    finally:
        # An interrupted benchmark shows what there is.
        found = table([store.results[key] for key in wanted if key in store.results])
        if findings := found.findings():
            text = markdown(findings_table(findings))
            tell(text)
            if folder is not None:
                with atomic_write() as staging:
                    staging.path(folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    return found
