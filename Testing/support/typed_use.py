"""A program of a user's, for mypy alone: what it gets is known, and what does not exist is told.

mypy also tells an "ignore" for which there is no reason.
"""

from __future__ import annotations

from DNetRegistrationLib import Alignment, align, check_alignment, read_mask, read_volume
from typing_extensions import assert_type


def program() -> None:
    fixed, moving = read_volume("before.nrrd", spacing=0.01), read_volume("after.nrrd", flip="z")
    one = align(fixed, moving, threads=2, fixed_mask=read_mask("mask.nrrd", fixed))
    assert_type(one, Alignment)
    assert_type(align(fixed, moving, bone="largest"), Alignment)
    assert_type(align(fixed, moving, bone="each", refine="working"), list[Alignment])
    assert_type(check_alignment(one, fixed, moving), Alignment)
    align(fixed, moving, threds=2)  # type: ignore[call-overload]
    align(fixed, moving, refine="fine")  # type: ignore[call-overload]
    read_volume("before.nrrd", spacing="0.01")  # type: ignore[arg-type]
