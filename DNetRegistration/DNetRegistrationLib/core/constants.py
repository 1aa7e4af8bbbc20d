"""Sizes of the paper that several rooms share."""

CUBE_SIZE = 64
PAPER_SPACING = 0.08
#: The edge of a scan, in mm.
FIELD_OF_VIEW = CUBE_SIZE * PAPER_SPACING
