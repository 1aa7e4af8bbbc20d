"""The lines of JSON that a worker writes and the panel reads, an event each. How an alignment ended, the job decides.

    {"event": "ready"}
    {"event": "progress", "fraction": 0.4, "message": "searching all rotations"}
    {"event": "pose", "matrix": [[1.0, 0.0, 0.0, 0.2], ...]}
    {"event": "warning", "message": "..."}
    {"event": "error", "kind": "ScanError", "problem": "...", "remedy": "...", "setting": {"quantity": "spacing", ...}}
    {"event": "result", "alignments": [{...}]}
    {"event": "found", "rows": [["pair", "fixed", "moving", "voxels", "problem"], ...]}

Needs neither Slicer nor torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from ..core.errors import (
    DNetError,
    FileError,
    OptionError,
    PackageError,
    RunError,
    ScanError,
    Setting,
    known_error,
    one_line,
)

READY, PROGRESS, POSE, WARNING, ERROR, RESULT = "ready", "progress", "pose", "warning", "error", "result"
#: What the check of a cohort found; see `cohort_worker`.
FOUND = "found"

#: The values that an event must have, and their types; an error's "remedy" and "setting" may be null.
_VALUES: dict[str, dict[str, type | tuple[type, ...]]] = {
    READY: {},
    PROGRESS: {"fraction": (int, float), "message": str},
    POSE: {"matrix": list},
    WARNING: {"message": str},
    ERROR: {"kind": str, "problem": str, "remedy": (str, type(None)), "setting": (dict, type(None))},
    RESULT: {"alignments": list},
    FOUND: {"rows": list},
}

_KINDS = {kind.__name__: kind for kind in (DNetError, ScanError, OptionError, FileError, PackageError, RunError)}


def to_line(event: str, **values) -> str:
    """An event as a line, without its end; `values` are of JSON's own types."""
    return json.dumps({"event": event, **values}, allow_nan=False)


def from_line(line: bytes) -> dict | None:
    """The event of a line; None where the line is something else, such as what a library prints."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    name = event.get("event") if isinstance(event, dict) else None
    values = _VALUES.get(name) if isinstance(name, str) else None
    complete = values is not None and all(isinstance(event.get(key, ...), kind) for key, kind in values.items())
    if name == POSE and complete:
        complete = _is_matrix(event["matrix"])
    return event if complete else None


def _is_matrix(rows: list) -> bool:
    """Whether these are four rows of four numbers."""
    return len(rows) == 4 and all(
        isinstance(row, list) and len(row) == 4 and all(isinstance(value, (int, float)) for value in row)
        for row in rows
    )


def error_values(error: BaseException) -> dict:
    """An exception as the values of an error event. The kind of one that nobody expected is its class's name."""
    known = error if isinstance(error, DNetError) else known_error(error)
    if known is None:
        return {"kind": type(error).__name__, "problem": one_line(error), "remedy": None, "setting": None}
    setting = None if known.setting is None else asdict(known.setting)
    return {"kind": type(known).__name__, "problem": known.problem, "remedy": known.remedy, "setting": setting}


def error_of(values: dict) -> DNetError | None:
    """The error of an error event; None where it is one that nobody expected."""
    kind = _KINDS.get(values["kind"])
    if kind is None:
        return None
    setting = None if values["setting"] is None else Setting(**values["setting"])
    return kind(values["problem"], values["remedy"], setting)
