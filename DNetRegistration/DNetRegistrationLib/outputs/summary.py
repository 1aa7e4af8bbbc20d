"""An alignment in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from ..core.words import percent, plain
from ..registration.result import Alignment, Check


def summary(alignment: Alignment, files: Iterable[str | Path] = ()) -> str:
    """An alignment in words, the verdict first.

    Args:
        alignment: the alignment.
        files: the outputs that were written.
    """
    voxel = 1000 * alignment.working_spacing
    x, y, z = alignment.translation_mm
    error = alignment.expected_error_um
    rows = [
        *(() if alignment.bone is None else (("bone", alignment.bone.name),)),
        ("verdict", alignment.verdict),
        *(("warning", text) for text in alignment.remarks),
        ("confidence", f"{percent(alignment.confidence)} that the error is below one voxel of {plain(voxel, 3)} um"),
        ("expected error", f"{number(error, '.2f' if error < 100 else '.0f')} um, mean over the bone"),
        *(() if alignment.check is None else (("repeatability", checked(alignment.check)),)),
        ("Dice of cortices", f"{alignment.dice_before:.3f} before, {alignment.dice:.3f} aligned"),
        ("rotation", f"{alignment.rotation_deg:.3f} degrees"),
        ("bone moved by", f"{x:.4f}, {y:.4f}, {z:.4f} mm (its centroid, LPS)"),
        ("found by", f"{found_by(alignment)}, on {alignment.device}"),
        ("time", timing(alignment.seconds)),
        *(("written", str(path)) for path in files),
    ]
    return "\n".join(f"{label:<17} {text}" for label, text in rows)


def checked(check: Check) -> str:
    """What came of turning the scan and aligning again, in words."""
    if not math.isfinite(check.error_um):
        return "unknown, since the moving scan could not be aligned again when it was turned"
    return f"{check.error_um:.2f} um at most, with the moving scan turned and aligned again {len(check.repeats)} times"


def found_by(alignment: Alignment) -> str:
    """Where an alignment came from, in words."""
    spread = alignment.network_spread_um
    doubt = f", whose answers spread by {spread:.0f} um" if math.isfinite(spread) else ""
    words = {"dnet": f"network ({alignment.network}){doubt}", "initial": "given start"}
    return words.get(alignment.hypothesis, alignment.hypothesis)


def number(value: float, style: str) -> str:
    """A number in the style of `format`; "unknown" where it is NaN or infinite."""
    return format(value, style) if math.isfinite(value) else "unknown"


def timing(seconds: dict[str, float]) -> str:
    """The total time and the share of each stage that took any, from seconds by stage."""
    shares = {stage: value for stage, value in seconds.items() if stage != "total"}
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in shares.items() if value >= 0.005)
    return f"{seconds.get('total', sum(shares.values())):.2f} s ({stages})"
