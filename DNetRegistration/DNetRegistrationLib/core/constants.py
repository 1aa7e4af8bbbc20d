"""Sizes of the paper that several rooms share."""

CUBE_SIZE = 64
PAPER_SPACING = 0.08
