"""Aligns for the panel, in a process of its own: ``python -m DNetRegistrationLib.slicer_module.worker FOLDER``.

FOLDER is that of a `job.Job`. Events (see `events`) go to the standard output, everything else to the standard error.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from ..core.errors import PackageError, Setting, one_line
from ..core.threads import let_threads_sleep
from ..outputs.write import write_outputs
from .events import ERROR, PROGRESS, RESULT, WARNING, error_values, to_line
from .request import output_paths, read_request


def align_request(folder: Path, tell: Callable[..., None]):
    """Aligns the scans in the folder of a job, and writes there what is wanted.

    Args:
        folder: see `request`.
        tell: called with an event and its values.

    Returns:
        The `Alignment`.

    Raises:
        DNetError: something is wrong with a scan or an option, or torch does not load.
    """
    told = -1.0, ""

    def progress(fraction: float, message: str) -> None:
        nonlocal told
        if message != told[1] or fraction - told[0] >= 0.01:
            told = fraction, message
            tell(PROGRESS, fraction=fraction, message=message)

    progress(0.0, "reading the scans")
    fixed, moving, options = read_request(folder)
    progress(0.05, "loading PyTorch")
    _load_torch()
    from ..registration.align import align

    alignment = align(
        fixed,
        moving,
        threshold=(options.fixed_threshold, options.moving_threshold),
        spacing=options.working_spacing,
        device=options.device,
        weights=options.weights,
        hypotheses=options.hypotheses,
        refine=options.refine,
        progress=lambda fraction, message: progress(0.1 + 0.7 * fraction, message),
    )
    write_outputs(
        alignment,
        fixed,
        moving,
        output_paths(folder, options),
        contrast=options.contrast,
        progress=lambda fraction, message: progress(0.8 + 0.2 * fraction, message),
    )
    return alignment


def _load_torch() -> None:
    let_threads_sleep()
    try:
        import torch  # noqa: F401
    except Exception as error:  # an installation that is broken fails in many ways
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise PackageError(f"PyTorch does not load ({cause})", "install it anew", Setting("torch")) from error


def main(folder: str) -> int:
    """Answers the request of a folder; returns the exit status: 0 where it aligned, accepted or not, else 2."""
    stream = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print is no event

    def tell(event: str, **values) -> None:
        print(to_line(event, **values), file=stream, flush=True)

    warnings.showwarning = lambda message, *place: tell(WARNING, message=str(message))
    try:
        alignment = align_request(Path(folder), tell)
    except Exception as error:
        traceback.print_exc()
        tell(ERROR, **error_values(error))
        return 2
    tell(RESULT, alignment=alignment.to_dict())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
