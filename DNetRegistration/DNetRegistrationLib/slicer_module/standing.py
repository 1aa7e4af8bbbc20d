"""How two volumes lie now, beside how an alignment laid them: whether its verdict still holds."""

from __future__ import annotations

from enum import Enum

import slicer

from .bond import Bond
from .scene import BOND, alignment_of, find_transforms, is_under, transform_above


class Standing(Enum):
    """How two volumes lie now, beside how an alignment laid them."""

    LAID = "as aligned, by the transform"
    HARDENED = "as aligned, without the transform"
    APART = "not so; the moving volume would, under the transform"
    MOVED = "neither so"
    EDITED = "their voxels are others"
    UNKNOWN = "what was aligned is not on record"


#: Where the verdict of an alignment holds.
AS_ALIGNED = Standing.LAID, Standing.HARDENED


def standing(transform, fixed, moving) -> Standing:
    """How two volumes lie now. The verdict of the alignment holds in those of `AS_ALIGNED`, and nowhere else.

    Args:
        transform: the transform node of an alignment of the two.
        fixed, moving: the volume nodes.
    """
    bond = Bond.from_json(transform.GetAttribute(BOND))
    if bond is None:
        return Standing.UNKNOWN
    ways = bond.same_voxels(fixed, moving)
    if not ways:
        return Standing.EDITED
    if any(bond.holds(fixed, moving, way) for way in ways):
        return Standing.LAID if is_under(moving, transform) else Standing.HARDENED
    return Standing.APART if _would_lie(transform, fixed, moving) else Standing.MOVED


def standings(fixed, moving) -> list[tuple[slicer.vtkMRMLLinearTransformNode, Standing]]:
    """The transform nodes of all alignments of two volumes, and how the volumes lie beside each."""
    return [(node, standing(node, fixed, moving)) for node in find_transforms(fixed, moving)]


def choosable(fixed, moving) -> list[slicer.vtkMRMLLinearTransformNode]:
    """The alignments under whose transform two volumes lie, or would: one of each bone, say; by number."""
    found = [(node, alignment_of(node)) for node in find_transforms(fixed, moving) if _would_lie(node, fixed, moving)]
    known = [(node, alignment.bone) for node, alignment in found if alignment is not None]
    known.sort(key=lambda one: (one[1].number if one[1] else 0, one[0].GetName(), one[0].GetID()))
    return [node for node, _bone in known]


def current_alignment(fixed, moving, preferred=None) -> tuple[slicer.vtkMRMLLinearTransformNode, Standing] | None:
    """What the scene says of two volumes: the transform node of their alignment, and how they lie; None where of none.

    Of several alignments it is one by which they lie, else the one above the moving volume, else `preferred`.
    """
    found = standings(fixed, moving)
    above = transform_above(moving)
    found.sort(key=lambda one: (one[0] is not above, one[0] is not preferred))
    laid = [one for one in found if one[1] in AS_ALIGNED]
    return next(iter(laid + found), None)


def _would_lie(transform, fixed, moving) -> bool:
    """Whether a moving volume lies as aligned once it is put under the transform node; hardened, it does not."""
    bond = Bond.from_json(transform.GetAttribute(BOND))
    ways = [] if bond is None else bond.same_voxels(fixed, moving)
    return any(bond.holds(fixed, moving, way, transform) for way in ways)
