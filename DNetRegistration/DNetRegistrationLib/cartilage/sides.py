"""Which side of a joint is medial: by a point that is given, or by the fibula. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bone.cortex import CorticalBone
from ..core.errors import OptionError, Setting
from ..imaging.volume import Volume
from .articular import JointEnd
from .compartments import halves, lateral_by_fibula
from .mesh import Mesh

# What to look at where a point on the medial side is not there.
_CHECK = "check its signs, which are those of LPS (of RAS the first two change)"
# A medial side may lie so far beyond a cut view, as a share of the scan's longest edge.
_BEYOND_VIEW = 0.25


def check_medial(medial: Sequence[float] | None, plain: Volume) -> None:
    """Checks a point on the medial side by the header of the scan without agent.

    Raises:
        OptionError: it is none, or lies far from the scan.
    """
    if medial is None:
        return
    point = np.asarray(medial, float)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise OptionError("the point on the medial side is not three numbers", "give x, y, z in mm", Setting("medial"))
    # A point may lie beside the scan; one in another world lies far away.
    size = np.array(plain.size)
    if np.linalg.norm(point - plain.to_world((size - 1) / 2)) > np.linalg.norm(plain.affine[:3, :3] @ size):
        raise OptionError(
            f"the point on the medial side lies {_outside(point, plain):.1f} mm outside {plain.name}",
            f"give it in the world of the scan without contrast agent, in mm; {_CHECK}",
            Setting("medial"),
        )


def _outside(point: np.ndarray, scan: Volume) -> float:
    """How far a point lies outside a scan's voxels, mm; 0 inside."""
    index = scan.to_index(point)
    return float(np.linalg.norm(scan.affine[:3, :3] @ (index - np.clip(index, -0.5, scan.size - 0.5))))


def doubtful_medial(medial: Sequence[float] | None, plain: Volume) -> list[str]:
    """Warns of a point on the medial side that may be of another world; one just beyond a cut view may be right."""
    if medial is None:
        return []
    point, longest = np.asarray(medial, float), float(plain.extent.max())
    apart, turned = (_outside(one, plain) for one in (point, point * (-1, -1, 1)))
    near = _BEYOND_VIEW * longest
    if not apart > near or not (turned <= near or apart > longest):
        return []
    return [f"the point on the medial side lies {apart:.1f} mm outside {plain.name}: {_CHECK}"]


def lateral_side(
    mesh: Mesh, end: JointEnd, bone: CorticalBone, threshold: float, medial: Sequence[float] | None
) -> tuple[np.ndarray, bool, list[str]]:
    """Which points of an articular surface are lateral.

    Args:
        mesh: of the surface, ``n`` points.
        end: of the bone, at the joint.
        bone: with its fibula.
        threshold: of bone.
        medial: ``(3,)`` a point on the medial side, LPS mm, which counts more than the fibula.

    Returns:
        ``(n,)`` bool; whether it is known; and warnings.
    """
    direction, first = halves(mesh.points, mesh.areas, end.axis)
    lateral = lateral_by_fibula(bone, threshold, end, direction)
    warnings = []
    if medial is not None:
        fibula = lateral
        middle = np.average(mesh.points, axis=0, weights=mesh.areas)
        lateral = -float(np.sign((np.asarray(medial, float) - middle) @ direction))
        if fibula * lateral < 0:
            warnings.append(
                "the point on the medial side lies on the side of the fibula, which is lateral; the point counts: "
                f"{_CHECK}"
            )
    if lateral == 0:
        warnings.append(
            "medial and lateral may be swapped: the fibula is not seen apart; give a point on the medial side"
        )
    return first if lateral <= 0 else ~first, lateral != 0, warnings
