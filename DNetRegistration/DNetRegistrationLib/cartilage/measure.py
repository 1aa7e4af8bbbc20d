"""Measures cartilage: from an alignment and two scans to thickness, volume and uptake. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bone.cortex import GRID, CorticalBone, cortical_bone
from ..bone.threshold import find_bone_scale
from ..core.errors import OptionError, ScanError, Setting
from ..core.words import sentence
from ..imaging.masks import mask_on
from ..imaging.morphology import dilate
from ..imaging.resample import averaged, interpolate
from ..imaging.volume import Volume, as_scan
from ..registration.result import Alignment, require_alignment
from .agent import Agent, look_for_agent
from .articular import JointEnd, JointSurface, articular_surface, joint_end, outer_surface
from .compartments import halves
from .extent import Extent, find_extent
from .filling import rise_from_rim, smooth_surface
from .mesh import Mesh
from .result import CartilageMeasurement, Reason, ThicknessMap
from .sides import check_medial, doubtful_medial, lateral_side
from .sight import COARSE, Sight, look
from .table import measured_compartments, tabulate
from .tissue import Tissue, find_tissue

if TYPE_CHECKING:
    import SimpleITK as sitk

# Where the scan ends at more than this share of the articular surface's border, the surface goes on beyond it.
_CUT = 0.05
# In voxels with an edge longer than this, mm, what a sharper scan shows of bone's edge is taken for a layer: where the
# point spreads' variances differ by more than this share of the voxel's square, 43 um were given as 3 +- 6 um.
_FINE, _UNLIKE_BLUR = 0.0255, 0.15
# A mask may be so much closer than the bone, voxels.
_CLOSE = 2


def measure_cartilage(
    alignment: Alignment,
    plain: Volume | sitk.Image,
    contrast: Volume | sitk.Image,
    *,
    agent_in: str = "moving",
    mask: Any = None,
    region: Any = None,
    medial: Sequence[float] | None = None,
    anyway: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> CartilageMeasurement:
    """Measures the cartilage of a bone finer than a voxel.

    The bone's surface is where it reaches half its height in the scan without agent. Along its normals both scans are
    interpolated, once each. The difference is fitted with a layer seen through the scanner's blur. Before that, place,
    grey values and blur of the scans are matched on the bone just below the cartilage.

    Args:
        alignment: of the two scans, as `align` gives it.
        plain: the scan without contrast agent, a Volume or a SimpleITK image.
        contrast: the scan with it, likewise.
        agent_in: which scan of the alignment has the agent, "moving" or "fixed".
        mask: where bone is looked for in the scan without agent, as `align` takes it. The place of the one bone that
            the alignment is of goes before it.
        region: where the articular surface is, as a mask on the scan without agent; found by itself when None.
        medial: ``(3,)`` a point on the medial side, in the world of the scan without agent, LPS mm. When None the
            fibula tells.
        anyway: measure although the alignment was not accepted.
        progress: called with a fraction and a message.

    Raises:
        OptionError: the alignment was not accepted or is another thing, or an option has a value that it cannot have.
        ScanError: something is wrong with a scan or a mask, no bone surface is in view of both scans, or the agent is
            in the other scan.

    Example:
        >>> found = measure_cartilage(alignment, plain, contrast)  # doctest: +SKIP
        >>> found.compartment("medial").mean_thickness_um  # doctest: +SKIP
        41.3
    """
    tell = progress or (lambda fraction, message: None)
    alignment = require_alignment(alignment)
    if agent_in not in ("moving", "fixed"):
        raise OptionError(f"agent_in {agent_in!r} is unknown", "give moving or fixed", Setting("contrast"))
    if not alignment.accepted and not anyway:
        problem = f"the alignment was not accepted, so cartilage is not measured: {alignment.why}"
        raise OptionError(problem, "look at it, and measure anyway if it is right", Setting("anyway"))
    plain, contrast = as_scan(plain, "scan without agent"), as_scan(contrast, "scan with agent")
    matrix: np.ndarray = np.asarray(alignment.matrix, np.float64)
    threshold = alignment.fixed_threshold
    if agent_in == "fixed":
        matrix, threshold = np.linalg.inv(matrix), alignment.moving_threshold
    if not np.isfinite(threshold):
        threshold = find_bone_scale(plain).threshold
    tell(0.0, "outlining bone")
    if alignment.bone is not None and alignment.bone.masks is not None:
        mask = alignment.bone.masks[0 if agent_in == "moving" else 1]
    mask = None if mask is None else mask_on(mask, plain)
    marked = None if region is None else mask_on(region, plain, quantity="region")
    alone, bone, end = _outlined(plain, threshold, alignment.working_spacing, mask)
    check_medial(medial, plain)
    warnings = [] if alignment.accepted else [f"the alignment was not accepted: {alignment.why}"]
    warnings += doubtful_medial(medial, plain)
    surface, end = _surface(alone, bone, end, threshold, marked)
    tell(0.2, "matching the bone under the cartilage")
    sight = look(plain, contrast, surface, matrix)
    tell(0.4, "fitting layers")
    coarse = float(max(plain.spacing.max(), contrast.spacing.max()))
    marks = medial, marked is not None
    return _measured(plain.name, alignment, sight, coarse, surface.facing, bone, end, threshold, *marks, warnings)


def _outlined(
    plain: Volume, threshold: float, spacing: float, mask: np.ndarray | None
) -> tuple[Volume, CorticalBone, JointEnd | None]:
    """The scan with the bone of a mask alone, that bone, and its end at the joint."""
    if mask is None:
        bone = cortical_bone(plain, threshold, spacing)
        return plain, bone, joint_end(bone, threshold)
    with np.errstate(invalid="ignore"):
        dense = plain.voxels > threshold
        # Masks are drawn close to the bone, and its edge is blurred.
        other = dense & ~dilate(mask, _CLOSE)
        bare = plain.voxels[~dense & np.isfinite(plain.voxels)]
    alone = replace(plain, voxels=np.where(other, np.median(bare) if len(bare) else threshold, plain.voxels))
    bone = cortical_bone(alone, threshold, spacing)
    # A mask that leaves out what is not bone does not cut the bone, as the border of the scan does.
    left_out, _ = averaged(replace(plain, voxels=other.astype(np.float32)), spacing * GRID)
    end = joint_end(replace(bone, grey=np.where(left_out > 0.5, np.nan, bone.grey)), threshold)
    # The fibula may lie out of the mask.
    return alone, replace(bone, grey=averaged(plain, spacing * GRID)[0]), end


def _surface(
    plain: Volume,
    bone: CorticalBone,
    end: JointEnd | None,
    threshold: float,
    marked: np.ndarray | None,
) -> tuple[JointSurface, JointEnd]:
    """The surface that may bear cartilage: where it is marked, there."""
    if marked is not None or end is None:
        mesh = outer_surface(plain, bone, threshold)
        if marked is not None and len(mesh.points):
            inside = interpolate(marked.astype(np.float32), plain.affine, mesh.points)
            mesh, _ = mesh.part(np.nan_to_num(inside) > 0.5)
        surface = JointSurface.whole(mesh)
    else:
        surface = articular_surface(plain, bone, end, threshold)
        mesh = surface.mesh
    if len(mesh.points) < 50:
        where = "in it" if marked is None else "in the region"
        raise ScanError(
            f"{plain.name}: found no bone surface {where} that cartilage could lie on",
            "check that this is the scan without contrast agent, its bone threshold, and that its voxels have edges of "
            f"at most {1000 * COARSE:.0f} um",
            Setting("threshold" if marked is None else "region"),
        )
    if end is None or marked is not None:
        mean = (mesh.normals * mesh.areas[:, None]).sum(0)
        axis = mean / max(float(np.linalg.norm(mean)), 1e-12)
        top = mesh.points[(mesh.points @ axis).argmax()]
        center = np.average(mesh.points, axis=0, weights=mesh.areas)
        end = JointEnd(axis, top, center + ((top - center) @ axis) * axis)
    return surface, end


def _measured(
    name: str,
    alignment: Alignment,
    around: Sight,
    coarse: float,
    facing: np.ndarray,
    bone: CorticalBone,
    end: JointEnd,
    threshold: float,
    medial: Sequence[float] | None,
    marked: bool,
    warnings: list[str],
) -> CartilageMeasurement:
    """The map and its table; `name` is that of the scan without agent. Further warnings are added to those given."""
    given = list(warnings)
    sight, left = around.part(facing)
    every, shape_error = around.fit()
    agent = look_for_agent(every.part(left), sight)
    if not agent.found and agent.in_the_other_scan(surely=True):
        raise ScanError(
            f"{name}: a bright layer lies on the bone in this scan, which should be the one without contrast agent",
            "swap the scans, or say which one has the agent",
            Setting("contrast"),
        )
    areas = sight.mesh.areas
    _, first = halves(sight.mesh.points, areas, end.axis)
    tissue = find_tissue(agent, around, every, facing, first)
    in_view = float(1 - areas[tissue.reason == Reason.EDGE_OF_VIEW].sum() / areas.sum())
    if not agent.found:
        warnings.append(agent.absence(in_view))
    # Where a region is marked, its border is no rim.
    rise = rise_from_rim(sight.mesh, tissue.telling, tissue.thickness_um, sight.at_end | marked, first)
    extent = find_extent(agent, tissue, in_view, rise, marked)
    warnings += extent.warnings
    unlike = coarse > _FINE and abs(sight.match.blur_mm2) > _UNLIKE_BLUR * sight.step**2
    mesh, left = sight.mesh.part(extent.articular)
    lateral, sides_known, told_of_sides = lateral_side(mesh, end, bone, threshold, medial)
    found = _map(agent, tissue, extent, rise, mesh, left, lateral, nothing=coarse > COARSE or unlike)
    found, left_out = measured_compartments(found)
    measured = bool(found.measured.any())
    border = mesh.border()
    cut = float(sight.at_end[left][border].mean()) if len(border) else 0.0
    if measured and cut > _CUT:
        warnings.append(
            f"the scan without contrast agent ends at {math.ceil(100 * cut)} % of the border of the cartilage: "
            "areas and volumes are of what it shows, not of whole compartments"
        )
    # What holds for all of the joint is told above.
    if agent.found and not extent.hidden and coarse <= COARSE:
        told = f"one scan is too much sharper than the other to tell layers in voxels of {1000 * coarse:.0f} um"
        warnings += [f"{told}, so nothing is measured; reconstruct both alike, or finer"] if unlike else left_out
    if coarse > COARSE:
        # Layers are looked for to find agent in the wrong scan; else what they show does not count.
        told = f"voxels of {1000 * coarse:.0f} um are too coarse for cartilage of a mouse, so nothing is measured"
        warnings = [*given, f"{told}: {1000 * COARSE:.0f} um is the most"]
    if not measured and agent.in_the_other_scan(surely=False):
        warnings.append(
            f"the scan that should be without contrast agent, {name}, bears more of a bright layer than the other "
            "one: check which scan has the agent"
        )
    if measured:
        warnings += told_of_sides
    told_agent = agent.told(in_view, measured)
    if agent.found and told_agent is None and coarse <= COARSE:
        warnings.append(agent.doubt())
    least = 3 * sight.bare_error(agent.level) if agent.found and coarse <= COARSE else np.nan
    if agent.found and least > 1000 * sight.step:
        warnings.append(f"layers below {least:.0f} um cannot be told from none at this voxel size and noise")
    match = sight.match
    return CartilageMeasurement(
        map=found,
        compartments=tabulate(found, sight, agent.level, 1000 * shape_error, tissue.unresolved[left]),
        least_thickness_um=float(least),
        blur_um=1000 * sight.agent_blur,
        shift_um=1000 * match.shift,
        slope=match.slope,
        offset=match.offset,
        agent=told_agent if coarse <= COARSE else None,
        accepted=bool(alignment.accepted),
        sides_known=sides_known if coarse <= COARSE else None,
        warnings=[sentence(text) for text in warnings],
    )


def _map(
    agent: Agent,
    tissue: Tissue,
    extent: Extent,
    rise: np.ndarray,
    mesh: Mesh,
    left: np.ndarray,
    lateral: np.ndarray,
    nothing: bool,
) -> ThicknessMap:
    """The map.

    Args:
        agent, tissue, extent: of the surface that faces the joint.
        rise: how thick cartilage is expected to be there; see `rise_from_rim`.
        mesh, left: the articular part of that surface, and which of its points that has; see `Mesh.part`.
        lateral: bool, which points of the part are lateral.
        nothing: nothing can be measured.
    """
    sight, layers, articular = agent.sight, agent.layers, extent.articular
    reason, error = tissue.reason.copy(), tissue.error_um
    if extent.hidden:
        reason[articular & (reason == Reason.MEASURED)] = Reason.SOFT_TISSUE
    # Within the articular surface a thin layer counts, though it cannot be told from none at one point.
    thin = articular & ~agent.covered & (layers.level > 0) & agent.found
    thickness = np.where(thin, tissue.by_amount_um, tissue.thickness_um)
    reason[thin & (reason == Reason.MEASURED) & tissue.untold] = Reason.UNCERTAIN
    error = np.where((thickness > 0) & ~tissue.unresolved, error, sight.bare_error(agent.level))
    reason[(reason == Reason.MEASURED) & (nothing | (error > tissue.most_error_um))] = Reason.UNCERTAIN
    measured = reason == Reason.MEASURED
    known = (measured & (tissue.sure | thin)) | tissue.carried
    around_it = smooth_surface(sight.mesh, known, thickness, rise)
    return ThicknessMap(
        points=mesh.points,
        normals=sight.normals[left],
        triangles=mesh.triangles,
        areas_mm2=mesh.areas,
        compartment=lateral.astype(int),
        thickness_um=np.where(measured, thickness, np.nan)[left],
        standard_error_um=np.where(measured, error, np.nan)[left],
        uptake=np.where(agent.covered & measured, layers.level, np.nan)[left],
        reason=reason[left],
        filled_um=np.where(measured, thickness, np.clip(around_it, 0, None))[left],
    )
