"""Aligns for the panel, in a process of its own: ``python -m DNetRegistrationLib.slicer_module.worker FOLDER``.

FOLDER is that of a `job.Job`. The process loads PyTorch and aligns a tiny pair, so that all that is slow the first time
is done, and waits for the one request that is to come. Events (see `events`) go to the standard output, everything else
to the standard error. It ends with the application, and clears the folder where that has died.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..core.errors import PackageError, Setting, one_line
from ..core.private_folder import is_abandoned
from ..core.progress import part
from ..core.threads import let_threads_sleep
from ..imaging.masks import mask_on
from .contents import Contents, place_of
from .events import ERROR, POSE, PROGRESS, READY, RESULT, WARNING, error_values, to_line
from .request import Joint, is_requested, read_request

# Seconds between looks for the request, and for the life of the application. A pipe from it would tell both at once,
# but Slicer starts its Python through a launcher, which does not hand the standard input on.
_SOON, _NOW_AND_THEN = 0.02, 1.0


def align_request(folder: Path, tell: Callable[..., None]):
    """Aligns the scans in the folder of a job, and leaves there what is wanted.

    Args:
        folder: see `request` and `contents`.
        tell: called with an event and its values.

    Returns:
        A list of the `Alignment`; or of one for each bone that moved by itself, the largest first.

    Raises:
        DNetError: something is wrong with a scan or an option, or the results cannot be written.
    """
    told = -1.0, ""

    def progress(fraction: float, message: str) -> None:
        nonlocal told
        if message != told[1] or fraction - told[0] >= 0.01:
            told = fraction, message
            tell(PROGRESS, fraction=fraction, message=message)

    bones = None

    def posed(matrix: np.ndarray, segmented: tuple) -> None:
        nonlocal bones
        bones = segmented
        tell(POSE, matrix=matrix.tolist())

    from ..registration.align import align

    progress(0.0, "reading the scans")
    request = read_request(folder)
    fixed, moving, options = request.fixed, request.moving, request.options
    given = (request.fixed_mask, fixed, "fixed"), (request.moving_mask, moving, "moving")
    masks = tuple(None if mask is None else mask_on(mask, scan, role) for mask, scan, role in given)
    found = align(
        fixed,
        moving,
        threshold=(options.fixed_threshold, options.moving_threshold),
        spacing=options.working_spacing,
        fixed_mask=masks[0],
        moving_mask=masks[1],
        initial=None if options.initial is None else np.array(options.initial),
        device=options.device,
        weights=options.weights,
        hypotheses=options.hypotheses,
        refine=options.refine,
        bone=options.bone,
        progress=part(progress, 0.05, 0.8),
        posed=posed,
    )
    joint = Joint(request.region, request.medial)
    alignments = found if isinstance(found, list) else [found]
    for number, alignment in enumerate(alignments):
        further = part(progress, *(0.8 + 0.2 * (number + end) / len(alignments) for end in (0, 1)))
        contents = Contents.computed(
            fixed, moving, alignment, bones, options.wanted, options.contrast, masks, further, joint
        )
        contents.write(place_of(folder, number))
    progress(1.0, "handing over the result")
    return alignments


def warm_up(cancelled: Callable[[], bool]) -> None:
    """Does once, on a tiny pair, what an alignment does: the first time all of it is slow.

    Args:
        cancelled: called often; when it returns true, it ends.
    """
    from scipy import ndimage

    from ..imaging.volume import Volume
    from ..registration.align import align

    # A lumpy shell of bone with struts, 24 voxels of 0.1 mm, and the same turned by a quarter.
    size = 24
    index = (np.indices((size, size, size)) - (size - 1) / 2) / size
    lumps = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=index.shape[1:]), 1.2)
    lumps /= lumps.std()
    radius = np.sqrt((index.T**2 / (0.24**2, 0.3**2, 0.42**2)).sum(-1).T) + 0.1 * lumps
    bone = (radius < 1) & ((radius > 0.75) | (lumps > 0.8))
    noise = np.random.default_rng(1).normal(scale=15, size=(2, *bone.shape))
    fixed, moving = (ndimage.gaussian_filter(1000.0 * bone, 0.7) + noise).astype(np.float32)
    affine = np.diag((0.1, 0.1, 0.1, 1.0))
    turned = np.array([[0, -1, 0, 0.2], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]) @ affine
    # What fails here fails again on the scans, and is told then.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        align(Volume(fixed, affine), Volume(moving, turned), cancelled=cancelled)


def _load_torch() -> None:
    let_threads_sleep()
    try:
        import torch  # noqa: F401
    except Exception as error:  # an installation that is broken fails in many ways
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise PackageError(f"PyTorch does not load ({cause})", "install it anew", Setting("torch")) from error


def _end_with_the_application(folder: Path) -> None:
    while not is_abandoned(folder):
        time.sleep(_NOW_AND_THEN)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main(folder: str) -> int:
    """Waits for the request of a folder, and answers it.

    Returns:
        The exit status: 0 where it aligned, accepted or not, else 2.
    """
    place = Path(folder)
    stream = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print is no event
    threading.Thread(target=_end_with_the_application, args=(place,), daemon=True).start()

    def tell(event: str, **values) -> None:
        print(to_line(event, **values), file=stream, flush=True)

    try:
        tell(PROGRESS, fraction=0.0, message="loading PyTorch")
        _load_torch()
        if not is_requested(place):
            warm_up(lambda: is_requested(place))
        tell(READY)
        while not is_requested(place):
            time.sleep(_SOON)
        warnings.showwarning = lambda message, *place: tell(WARNING, message=str(message))
        alignments = align_request(place, tell)
    except Exception as error:
        traceback.print_exc()
        tell(ERROR, **error_values(error))
        return 2
    tell(RESULT, alignments=[one.to_dict() for one in alignments])
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stderr.flush()
    # Taking PyTorch down in order takes longer than its memory takes to be given back.
    os._exit(status)
