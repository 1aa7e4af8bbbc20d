"""The commands: from parsed arguments to files and a summary. Each returns the exit status."""

from __future__ import annotations

import math
import os
import shlex
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..core.console import Progress, say
from ..core.errors import NAME, ScanError
from ..core.files import make_folder, staged
from ..geometry.transforms import read_transform, rotation_error_deg, write_transform
from ..imaging.volume import Volume, read_volume, write_volume
from ..outputs.summary import summary
from ..outputs.write import check_outputs, write_outputs
from .arguments import build_parser

ACCEPTED, NOT_ACCEPTED = 0, 1
OUTPUTS = ("transform", "report", "overlay", "resampled", "segmentation", "subtraction")


def run_align(options) -> int:
    """``dnet-registration align``."""
    alignment = align_files(options)
    return ACCEPTED if alignment.accepted else NOT_ACCEPTED


def align_files(options):
    """Reads, aligns, writes and says what came out; returns the `Alignment`."""
    _share_processors()
    outputs = {name: getattr(options, name) for name in OUTPUTS if getattr(options, name) is not None}
    given = (options.fixed, options.moving, options.fixed_mask, options.moving_mask, options.initial, options.weights)
    inputs = [path for one in given if one is not None for path in _members(one)]
    check_outputs(**outputs, contrast=options.contrast, inputs=inputs)
    with Progress(options.verbose) as progress:
        progress(0.0, "reading the fixed scan")
        fixed = _read_scan(options, "fixed")
        progress(0.05, "reading the moving scan")
        moving = _read_scan(options, "moving")
        masks = tuple(_read_mask(options, role, scan) for role, scan in (("fixed", fixed), ("moving", moving)))
        initial = None if options.initial is None else read_transform(options.initial)
        # Only now, since it brings torch with it: what is wrong with a file is told at once.
        from ..registration.align import align

        thresholds = (options.fixed_threshold, options.moving_threshold)
        alignment = align(
            fixed,
            moving,
            threshold=None if thresholds == (None, None) else thresholds,
            spacing=options.working_spacing,
            fixed_mask=masks[0],
            moving_mask=masks[1],
            initial=initial,
            device=options.device,
            weights=options.weights,
            hypotheses=options.hypotheses,
            refine=options.refine,
            progress=progress.part(0.1, 0.8),
        )
        write_outputs(
            alignment,
            fixed,
            moving,
            **outputs,
            contrast=options.contrast,
            masks=masks,
            progress=progress.part(0.8, 1.0),
        )
    say(summary(alignment, outputs.values()))
    if not outputs:
        say(f"Nothing was saved: give --transform, --overlay or others (see {NAME} align --help).")
    return alignment


def run_demo(options) -> int:
    """``dnet-registration demo``."""
    _share_processors()
    from ..geometry.rigid import to_sitk
    from ..synthesis.pairs import make_pair, target_registration_error

    began = time.perf_counter()
    folder = make_folder(options.output)
    pair = make_pair(options.seed, size=options.size, spacing=options.spacing)
    with staged() as staging:
        for role in ("fixed", "moving"):
            write_volume(getattr(pair, role), staging.path(folder / f"{role}.nrrd"))
        write_transform(to_sitk(pair.matrix), staging.path(folder / "truth.tfm"))
    voxels = " x ".join(str(n) for n in pair.fixed.size)
    say(
        f"Two scans of a synthetic mouse tibia, {voxels} voxels of {1000 * options.spacing:g} um, the second with\n"
        f"contrast agent and turned by {pair.drawn['rotation_deg']:.1f} degrees, are in {folder}. To align them:\n"
    )
    names = {
        "transform": "transform.tfm",
        "report": "report.json",
        "overlay": "overlay.png",
        "resampled": "resampled.nrrd",
        "segmentation": "segmentation.seg.nrrd",
        "subtraction": "subtraction.nrrd",
    }
    pictures = find_spec("matplotlib") is not None
    if not pictures:
        del names["overlay"]
    command = ["align", str(folder / "fixed.nrrd"), str(folder / "moving.nrrd")]
    command += [word for name, file in names.items() for word in (f"--{name}", str(folder / file))]
    say(f"  {NAME} {shlex.join(command)}\n")
    alignment = align_files(build_parser().parse_args(command + ["--verbose"] * options.verbose))

    error = 1000 * target_registration_error(pair, alignment.matrix)
    angle = rotation_error_deg(pair.matrix, alignment.matrix)
    say(f"{'true error':<17} {error:.2f} um, mean over the bone; {angle:.4f} degrees of rotation")
    say(f"{'all of the demo':<17} {time.perf_counter() - began:.1f} s")
    if not pictures:
        say('No picture was drawn, for that install matplotlib: pip install "dnet-registration[pictures]"')
    return ACCEPTED if alignment.accepted else NOT_ACCEPTED


def run_synthesize(options) -> int:
    """``dnet-registration synthesize``."""
    from ..synthesis.pairs import synthesize

    folder = make_folder(options.folder)
    with Progress(options.verbose) as progress:
        table = synthesize(
            folder,
            options.count,
            options.seed,
            progress=progress,
            suffix=options.format,
            size=options.size,
            spacing=options.spacing,
            keep=options.keep,
            max_translation=options.max_translation,
            max_angle=math.radians(options.max_angle),
            contrast=not options.no_contrast,
            clean=options.clean,
            impostor=options.impostor,
        )
    say(f"{options.count} pairs and {table} written")
    return ACCEPTED


def run_benchmark(options) -> int:
    """``dnet-registration benchmark``: 0 when everything measured holds, 1 when something does not."""
    from ..experiments.benchmark.run import run

    return ACCEPTED if run(options) else NOT_ACCEPTED


def _share_processors() -> None:
    """Makes the threads of torch, which is not loaded yet, wait without spinning.

    Those that spin keep the very core that the one they wait for needs: beside other work on two cores an alignment
    took 40 s instead of 6. On idle cores this costs 0.1 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _members(path) -> list[Path]:
    """The file itself, or the files of a folder."""
    path = Path(path)
    return [path, *path.iterdir()] if path.is_dir() else [path]


def _read_scan(options, role: str) -> Volume:
    path, spacing, series = (getattr(options, role + what) for what in ("", "_spacing", "_series"))
    return read_volume(path, spacing, series, name=path, role=role)


def _read_mask(options, role: str, scan: Volume) -> np.ndarray | None:
    path = getattr(options, f"{role}_mask")
    if path is None:
        return None
    mask = read_volume(path, getattr(options, f"{role}_spacing"), name=path, role=role)
    tolerance = 1e-3 * scan.spacing.min()
    if not (np.array_equal(mask.size, scan.size) and np.allclose(mask.affine, scan.affine, atol=tolerance)):
        raise ScanError(f"{path}: the mask does not lie on the grid of {scan.name}; resample it to that grid")
    return mask.voxels > 0
