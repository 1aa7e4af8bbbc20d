"""Sizes of the paper that several rooms share, and where the cubes lie that a network sees."""

from typing import Literal, get_args

CUBE_SIZE = 64
PAPER_SPACING = 0.08
#: The edge of a scan, in mm.
FIELD_OF_VIEW = CUBE_SIZE * PAPER_SPACING

#: Where a network's cubes lie: on the bone, or on the centre of the image as in the paper.
Placement = Literal["bone", "center"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
