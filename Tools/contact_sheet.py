"""A picture of the bones that networks are trained on: ``python Tools/contact_sheet.py OUT.png``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "DNetRegistration")]

import numpy as np
from DNetRegistrationLib.core.files import atomic_write
from DNetRegistrationLib.synthesis.pairs import make_pair
from DNetRegistrationLib.synthesis.random_bones import KINDS

COLUMNS = 6
SIZE, SPACING = 96, 5.12 / 96
WINDOW = -300, 3300  # HU


def draw_contact_sheet(path: Path, seed: int = 0, columns: int = COLUMNS) -> None:
    """Writes a PNG: for each kind of bone a row of slices without, and one of projections with contrast agent.

    Args:
        path: of the picture.
        seed: of the bones; each column is another one.
        columns: how many of each kind.
    """
    from matplotlib.figure import Figure

    kinds = ("tibia", *KINDS)
    figure = Figure(figsize=(1.25 * columns, 2.5 * len(kinds)), dpi=100, layout="constrained", facecolor="black")
    axes = figure.subplots(2 * len(kinds), columns, squeeze=False)
    for row, kind in enumerate(kinds):
        for column in range(columns):
            pair = make_pair(seed + column, kind=kind, size=SIZE, spacing=SPACING, matrix=np.eye(4), scale="hu")
            # Through the middle of the bone.
            middle = int(np.median(np.nonzero(pair.fixed_bone)[0]))
            pictures = pair.fixed.voxels[middle], pair.moving.voxels.max(0)
            for axis, picture in zip(axes[2 * row : 2 * row + 2, column], pictures, strict=True):
                axis.imshow(picture, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
                axis.set(xticks=(), yticks=())
        for line, what in enumerate(("slice, without", "projection, with")):
            axes[2 * row + line, 0].set_ylabel(f"{kind}\n{what}", color="white", fontsize=7)
    with atomic_write() as staging:
        figure.savefig(staging.path(path), format="png")


if __name__ == "__main__":
    draw_contact_sheet(Path(sys.argv[1]))
