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
from .amount import BRIGHT_BEYOND, amount_tells, level_around, thickness_by_amount
from .articular import JointEnd, JointSurface, articular_surface, joint_end, outer_surface
from .compartments import across, articular_cover, articular_within, lateral_by_fibula, parting
from .filling import carried_on, rise_from_rim, smooth_surface
from .layer import THICKEST, Layers
from .result import CartilageMeasurement, Compartment, Reason, ThicknessMap, summarise
from .sight import COARSE, MISMATCH, Sight, look
from .surroundings import look_beside

if TYPE_CHECKING:
    import SimpleITK as sitk

# A layer is one where chi-squared says so, and its level is at least this share of the typical one; brighter than this
# share is soft tissue.
_EVIDENCE, _LEAST_LEVEL, _MOST_LEVEL = 16.0, 0.35, 1.8
# Noise and small mismatches look like a layer on at most this share of a surface without agent. Media that differ look
# like more, but fainter than this share of bone: up to 0.1 of it in 24 pairs without agent, to 0.12 of what the other
# scan shows more. In 24 pairs with agent that could be measured it was 0.165 and more.
_NO_AGENT, _LEAST_AGENT = 0.05, 0.13
# That the joint bears no agent takes scans that both show more than this share of it.
_IN_VIEW = 0.5
# A layer is hidden where what lies around the bone differs by as much, as air and liquid do. So where the scan with
# agent is brighter than the other one by more than this share of bone up to this height, mm, on more than this share of
# what both show, agent is not denied, nor a faint layer claimed as agent where nothing is measured. It was so on 0 to
# 0.09 of 8 joints without agent in like media, or in water and fixative, and on 0.07 to 0.77 of 6 in air, or in air and
# liquid; on 0.57 of one with agent in air and liquid, which was denied.
_BRIGHTER, _AROUND_IT, _AS_MEDIA = 0.2, 0.1, 0.2
_FAINT_AGENT = 2 * _LEAST_AGENT
# Where nothing is measured and the scan that should be without agent bears so many times as much of a layer as the
# other one, agent may be in it: of 13 pairs of bones among soft tissue 0 to 3.7 times the right way, up to hundreds the
# wrong way.
_OTHER_WAY = 5.0
# Where a layer like the one on the joint lies on this share of the bone beside it, all of it may be soft tissue; where
# it does so near a point, that point's may be.
_SPREAD, _NEAR_SPREAD = 0.25, 0.3
# Cartilage of one joint is one material, and smooth. What is thick enough to be resolved, from so many widths of the
# blur on, and fainter than this share of the median level is not of it; nor is what is less faint but thicker than this
# multiple of the median thickness, nor what is as thick and as rough: standard deviation over mean among neighbours.
_RESOLVED, _FAINT = 2.5, 0.75
_LESS_FAINT, _THICK = 0.85, 1.4
_ROUGH = 0.2
# A layer that is hidden and lies apart from it covers at most this share of its area, else its border is not known: on
# 26 pairs that were measured it was at most 0.12, and 1.22 on one of which half the volume was missing.
_APART = 0.3
# A compartment is measured where at least this share of it is: the rest, which is filled from around it, may be unlike
# it, and what hides it reaches into what is measured. Standard error of the mean, as a share of it, for all of the
# rest: on 55 compartments of 20 um filled parts were off by 0.28 of the mean.
_LEAST_SHARE, _REST_ERROR = 0.6, 0.25
# Standard error that the model of scanner and layer leaves to a mean, in voxels: twice it held 95 % of those errors.
_MODEL_ERROR = 0.1
# Where the scan ends at more than this share of the articular surface's border, the surface goes on beyond it.
_CUT = 0.05
# The rim is about so wide, mm.
_RIM = 0.4
# Cartilage covers most of what faces the joint, but leaves free its rim and its middle.
_HARDLY, _EVERYWHERE = 0.45, 0.85
# A fit that leaves so many times more than others do is of something else.
_MISFIT = 8.0
# In voxels with an edge longer than this, mm, what a sharper scan shows of bone's edge is taken for a layer: where the
# point spreads' variances differ by more than this share of the voxel's square, 43 um were given as 3 +- 6 um.
_FINE, _UNLIKE_BLUR = 0.0255, 0.15
# A mask may be so much closer than the bone, voxels.
_CLOSE = 2
# What is to be done where soft tissue hides the joint.
_UNMEASURED = "nothing is measured; a region of the joint says where to measure all the same"
# What to look at where a point on the medial side is not there.
_CHECK_MEDIAL = "check its signs, which are those of LPS (of RAS the first two change)"
# A medial side may lie so far beyond a cut view, as a share of the scan's longest edge.
_BEYOND_VIEW = 0.25
# Thickness is uncertain from here on: standard error over the blur.
_UNCERTAIN = 0.5
# A layer that is not resolved is as uncertain as its level, by this share of it.
_LEVEL_ERROR = 0.12


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
    warnings += _doubtful_medial(medial, plain)
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
            f"give it in the world of the scan without contrast agent, in mm; {_CHECK_MEDIAL}",
            Setting("medial"),
        )


def _outside(point: np.ndarray, scan: Volume) -> float:
    """How far a point lies outside a scan's voxels, mm; 0 inside."""
    index = scan.to_index(point)
    return float(np.linalg.norm(scan.affine[:3, :3] @ (index - np.clip(index, -0.5, scan.size - 0.5))))


def _doubtful_medial(medial: Sequence[float] | None, plain: Volume) -> list[str]:
    """Warns of a point on the medial side that may be of another world; one just beyond a cut view may be right."""
    if medial is None:
        return []
    point, longest = np.asarray(medial, float), float(plain.extent.max())
    apart, turned = (_outside(one, plain) for one in (point, point * (-1, -1, 1)))
    near = _BEYOND_VIEW * longest
    if not apart > near or not (turned <= near or apart > longest):
        return []
    return [f"the point on the medial side lies {apart:.1f} mm outside {plain.name}: {_CHECK_MEDIAL}"]


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
    first = list(warnings)
    sight, left = around.part(facing)
    mesh = sight.mesh
    every, doubt = around.fit()
    layers = every.part(left)
    covered, level = _covered(layers, sight)
    borne = layers, covered
    agent = mesh.areas[covered].sum() > _NO_AGENT * mesh.areas.sum() and level > _LEAST_AGENT * sight.contrast
    other_way = None
    if not agent:
        other_way = _other_way(sight)
        if _bears_more(sight, other_way, borne, 4 * _NO_AGENT):
            raise ScanError(
                f"{name}: a bright layer lies on the bone in this scan, which should be the one without contrast agent",
                "swap the scans, or say which one has the agent",
                Setting("contrast"),
            )
        # That nothing is seen does not say that the bone is bare.
        covered, level = np.zeros(len(covered), bool), np.nan
    reason = _reasons(layers, sight, covered, level)
    in_view = 1 - mesh.areas[reason == Reason.EDGE_OF_VIEW].sum() / mesh.areas.sum()
    brighter = _brighter(sight)
    if not agent:
        warnings.append(_no_agent(sight, in_view, brighter))
    seen = covered & (reason == Reason.MEASURED)
    cover = covered & (reason != Reason.SOFT_TISSUE)
    typical = float(np.median(layers.thickness_mm[seen])) if seen.any() else 0.0
    beside = look_beside(around.mesh, facing, every, _EVIDENCE, level, typical)
    alike = beside.near > _NEAR_SPREAD
    usual = float(np.median(layers.level[seen])) if seen.any() else 0.0
    resolved = seen & (layers.level > _FAINT * usual) & (layers.thickness_mm > _RESOLVED * sight.agent_blur)
    nearby = level_around(mesh, seen, resolved & ~alike, layers.level)
    amount = 1000 * thickness_by_amount(layers, nearby)
    untold = ~amount_tells(layers, nearby)
    fitted = 1000 * layers.thickness_mm
    unresolved = np.where(untold, fitted, np.minimum(amount, fitted)) < 1000 * _RESOLVED * sight.agent_blur
    other, thick = _unlike(layers, sight, seen, usual, _typical_of_sides(sight, end, seen, layers), unresolved)
    doubted = seen & (alike | other | thick)
    reason[doubted] = Reason.SOFT_TISSUE
    error = 1000 * layers.error_mm * np.sqrt(np.maximum(layers.misfit, 1))
    most_error = 1000 * _UNCERTAIN * max(sight.agent_blur, sight.step)
    reason[covered & untold & unresolved & (reason == Reason.MEASURED)] = Reason.UNCERTAIN
    unresolved = (unresolved | (error > most_error)) & ~untold
    thickness = np.where(covered, np.where(unresolved, amount, fitted), 0.0)
    # What is measured, a layer or bare bone; specks of a layer apart from the rest are of something else.
    sure = reason == Reason.MEASURED
    # Single points among hidden ones are as doubtful: 490 of one plateau said 3 um, where 23 are true.
    lonely = sure & (mesh.smoothing(2) @ sure.astype(np.float32) <= 0.5)
    reason[lonely], sure = Reason.UNCERTAIN, sure & ~lonely
    sure &= ~covered | articular_cover(mesh, covered & sure)
    further = carried_on(mesh, covered & sure, doubted, thickness, layers.level)
    # Thick cartilage goes on from thinner; soft tissue that is taken for cartilage begins with a step.
    back = further & thick & ~alike & ~other
    reason[back], sure = Reason.MEASURED, sure | back
    # Where a region is marked, its border is no rim.
    rise = rise_from_rim(mesh, sure | further, thickness, sight.at_end | marked)
    articular, hidden = np.ones(len(covered), bool), False
    if agent and marked:
        warnings.append(
            "in the given region all that lies on the bone counts as cartilage: soft tissue is not looked for"
        )
    elif agent:
        share = mesh.areas[articular_cover(mesh, cover & ~alike)].sum() / mesh.areas.sum()
        hidden = beside.share > _SPREAD or share < _HARDLY
        if beside.share > _SPREAD:
            beyond = math.ceil(100 * beside.share)
            told = f"on {beyond} % of the bone beside the joint lies a layer like the one on the joint"
            warnings.append(f"{told}: soft tissue with contrast agent, not told from cartilage, so {_UNMEASURED}")
        elif share < _HARDLY:
            least = math.floor(100 * share)
            told = f"only {least} % of the bone that faces the joint bears a layer free of soft tissue"
            if in_view < _EVERYWHERE:
                told += f", and a scan's field of view ends on {100 * (1 - in_view):.0f} %"
            warnings.append(f"{told}: what it is cannot be told, so {_UNMEASURED}")
        elif share > _EVERYWHERE:
            warnings.append("agent lies on all of the bone that faces the joint: soft tissue may lie on the cartilage")
        if not hidden:
            # Where soft tissue lies, the border goes where the layer around it would end.
            articular = articular_within(mesh, smooth_surface(mesh, sure | further, thickness, rise))
            # Cartilage may lie under what is far from all that was measured.
            apart = mesh.areas[covered & ~sure & ~articular].sum() / max(mesh.areas[articular].sum(), 1e-12)
            hidden = bool(apart > _APART)
            if hidden:
                told = (
                    "soft tissue with contrast agent lies on large parts of the joint apart from what could be measured"
                )
                warnings.append(f"{told}: where cartilage ends there cannot be told, so {_UNMEASURED}")
        if hidden:
            articular = articular_cover(mesh, cover)
            reason[articular & (reason == Reason.MEASURED)] = Reason.SOFT_TISSUE
    # Within the articular surface a thin layer counts, though it cannot be told from none at one point.
    thin = articular & ~covered & (layers.level > 0) & agent
    thickness = np.where(thin, amount, thickness)
    untold |= amount > 1000 * sight.agent_blur
    reason[thin & (reason == Reason.MEASURED) & untold] = Reason.UNCERTAIN
    error = np.where((thickness > 0) & ~unresolved, error, _bare_error(sight, level))
    reason[(reason == Reason.MEASURED) & (error > most_error)] = Reason.UNCERTAIN
    unlike = coarse > _FINE and abs(sight.match.blur_mm2) > _UNLIKE_BLUR * sight.step**2
    if coarse > COARSE or unlike:
        reason[reason == Reason.MEASURED] = Reason.UNCERTAIN
    measured = reason == Reason.MEASURED
    around_it = smooth_surface(mesh, (measured & (sure | thin)) | further, thickness, rise)
    doubts = np.where(unresolved, _LEVEL_ERROR * thickness, 0)
    kept, left = mesh.part(articular)
    found = ThicknessMap(
        points=kept.points,
        normals=sight.normals[left],
        triangles=kept.triangles,
        areas_mm2=kept.areas,
        compartment=np.zeros(len(left), int),
        thickness_um=np.where(measured, thickness, np.nan)[left],
        standard_error_um=np.where(measured, error, np.nan)[left],
        uptake=np.where(covered & measured, layers.level, np.nan)[left],
        reason=reason[left],
        filled_um=np.where(measured, thickness, np.clip(around_it, 0, None))[left],
    )
    compartments, sides_known, told_of_sides, left_out = _compartments(
        found, sight, bone, end, threshold, medial, level, 1000 * doubt, doubts[left]
    )
    border = kept.border()
    cut = float(sight.at_end[left][border].mean()) if len(border) else 0.0
    if found.measured.any() and cut > _CUT:
        warnings.append(
            f"the scan without contrast agent ends at {math.ceil(100 * cut)} % of the border of the cartilage: "
            "areas and volumes are of what it shows, not of whole compartments"
        )
    # What holds for all of the joint is told above.
    if agent and not hidden and coarse <= COARSE:
        told = f"one scan is too much sharper than the other to tell layers in voxels of {1000 * coarse:.0f} um"
        warnings += [f"{told}, so nothing is measured; reconstruct both alike, or finer"] if unlike else left_out
    if coarse > COARSE:
        # Layers are looked for to find agent in the wrong scan; else what they show does not count.
        told = f"voxels of {1000 * coarse:.0f} um are too coarse for cartilage of a mouse, so nothing is measured"
        warnings = [*first, f"{told}: {1000 * COARSE:.0f} um is the most"]
    if not found.measured.any() and _bears_more(sight, other_way or _other_way(sight), borne):
        warnings.append(
            f"the scan that should be without contrast agent, {name}, bears more of a bright layer than the other "
            "one: check which scan has the agent"
        )
    if found.measured.any():
        warnings += told_of_sides
    told_agent: bool | None = bool(agent)
    if not agent and not (in_view > _IN_VIEW and brighter <= _AS_MEDIA):
        told_agent = None
    elif agent and not found.measured.any() and level < _FAINT_AGENT * sight.contrast and brighter > _AS_MEDIA:
        told_agent = None
        if coarse <= COARSE:
            told = "whether it is contrast agent cannot be told: the layer on the joint's surface is faint"
            warnings.append(f"{told}, and {_media(brighter)}")
    least = 3 * _bare_error(sight, level) if agent and coarse <= COARSE else np.nan
    if agent and least > 1000 * sight.step:
        warnings.append(f"layers below {least:.0f} um cannot be told from none at this voxel size and noise")
    match = sight.match
    return CartilageMeasurement(
        map=found,
        compartments=compartments,
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


def _brighter(sight: Sight) -> float:
    """The share of the surface that both scans show on which the one with agent is much brighter around the bone."""
    around = (sight.heights > sight.blur) & (sight.heights < _AROUND_IT)
    seen = sight.seen[:, around]
    height = np.where(seen, sight.difference[:, around], 0).sum(1) / np.maximum(seen.sum(1), 1)
    areas, known = sight.mesh.areas, seen.any(1)
    return float(areas[height > _BRIGHTER * sight.contrast].sum() / max(areas[known].sum(), 1e-12))


def _media(brighter: float) -> str:
    """Says that media may differ, and what to do, where `_brighter` is that."""
    return (
        f"on {100 * brighter:.0f} % of that surface, where both scans show it, the scan with agent is brighter than "
        "the other one around the bone too, as where one lay in air and the other in liquid, which hides a layer; scan "
        "both in the same medium"
    )


def _no_agent(sight: Sight, in_view: float, brighter: float) -> str:
    """Says that no agent was found, where both scans show a share of the joint, and `_brighter` is that."""
    if brighter > _AS_MEDIA:
        beside = f"; both scans show {math.floor(100 * in_view)} % of that surface" if in_view < _EVERYWHERE else ""
        return (
            "whether there is contrast agent on the surface taken for the joint's cannot be told, so no cartilage is "
            f"measured: {_media(brighter)}{beside}"
        )
    least = f"{100 * _LEAST_AGENT:.0f} % of the brightness of bone"
    told = f"no contrast agent of {least} was found on the surface that was taken for the joint's"
    if not in_view > _IN_VIEW:
        return (
            f"{told} where both scans show it, which is {math.floor(100 * in_view)} % of it, so no cartilage is "
            "measured: whether there is agent elsewhere cannot be told; it takes scans that both show the joint"
        )
    return (
        f"{told}, so no cartilage is measured: check that one of the two scans was made with agent, and which one, and "
        "that this surface is the joint's, which may be another where the view cuts the bone on several sides: a "
        "region of the joint says where it is; at this voxel size and noise a layer half as bright as bone would be "
        f"seen from {3 * _bare_error(sight, sight.contrast / 2):.0f} um on"
    )


def _covered(layers: Layers, sight: Sight) -> tuple[np.ndarray, float]:
    """``(n,)`` bool, where a layer is seen, and the typical level of layers."""
    clear = (layers.evidence > 2 * _EVIDENCE) & (layers.level > 0) & (layers.thickness_mm < THICKEST - 0.01)
    # Soft tissue hangs on the rim: the middle of the surface says what cartilage looks like.
    weight = sight.mesh.areas * clear * np.minimum(sight.mesh.border_distance() / _RIM, 1) ** 2
    if not weight.sum() > 0:
        return np.zeros(len(clear), bool), np.nan
    order = np.argsort(layers.level)
    typical = float(layers.level[order][np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)])
    covered = (layers.evidence > _EVIDENCE) & (layers.level > _LEAST_LEVEL * typical)
    # What fades less than the match of bone is sure of is no layer.
    return covered & (layers.level * layers.thickness_mm > 4 * MISMATCH * sight.contrast), typical


def _other_way(sight: Sight) -> tuple[Layers, np.ndarray]:
    """Layers in the scan that should be without agent, and ``(n,)`` where they are."""
    layers, _ = sight.fit(-1.0)
    covered, level = _covered(layers, sight)
    return layers, covered & (level > _LEAST_AGENT * sight.contrast)


def _bears_more(
    sight: Sight,
    other_way: tuple[Layers, np.ndarray],
    found: tuple[Layers, np.ndarray],
    least_share: float = 2 * _NO_AGENT,
) -> bool:
    """Whether agent may be in the scan that should be without it: of `_other_way`, and of what was found."""
    areas = sight.mesh.areas
    there, here = (
        float((areas * layers.level * layers.thickness_mm)[chosen].sum()) for layers, chosen in (other_way, found)
    )
    return bool(areas[other_way[1]].sum() > least_share * areas.sum()) and there > _OTHER_WAY * here


def _reasons(layers: Layers, sight: Sight, covered: np.ndarray, level: float) -> np.ndarray:
    """``(n,)`` values of `Reason`."""
    heights = sight.heights
    reason = np.full(len(covered), int(Reason.MEASURED))
    typical = float(np.median(layers.misfit[covered])) if covered.any() else 1.0
    endless = (layers.thickness_mm > THICKEST - 0.01) | (layers.closed < _EVIDENCE)
    bright = layers.level > _MOST_LEVEL * level
    reason[covered & (endless | bright | (layers.misfit > _MISFIT * max(typical, 1.0)))] = Reason.SOFT_TISSUE
    above = heights[None] > 3 * sight.blur
    within = heights[None] < layers.thickness_mm[:, None] + 0.03
    inner = np.where(np.isfinite(sight.smoothed), sight.smoothed, -np.inf)[:, heights <= 0].max(1)
    dense = float(np.median(inner[np.isfinite(inner)]))
    low = dense - sight.contrast / max(sight.match.slope, 1e-9)
    with np.errstate(invalid="ignore"):
        hard = sight.smoothed > low + 0.6 * (dense - low)
    reason[(hard & above & within).any(1)] = Reason.FRAGMENT
    needed = (heights[None] > -2 * sight.step) & (heights[None] < layers.thickness_mm[:, None] + 2 * sight.step)
    reason[(~sight.seen & needed).any(1)] = Reason.EDGE_OF_VIEW
    return reason


def _typical_of_sides(sight: Sight, end: JointEnd, seen: np.ndarray, layers: Layers) -> np.ndarray:
    """``(n,)`` median thickness, mm, of the layers that are seen in the compartment of each point; one may be worn."""
    points, areas = sight.mesh.points, sight.mesh.areas
    direction = across(points, areas, end.axis)
    side = points @ direction < parting(points, areas, direction)
    found = np.zeros(len(points))
    for one in (side, ~side):
        here = seen & one if (seen & one).any() else seen
        found[one] = np.median(layers.thickness_mm[here]) if here.any() else 0.0
    return found


def _unlike(
    layers: Layers, sight: Sight, seen: np.ndarray, usual: float, typical: np.ndarray, unresolved: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where a layer is not of the cartilage that most of the joint bears, or does not end there; and where it is thick.

    Args:
        layers: on the surface.
        sight: of it.
        seen: ``(n,)`` bool, where a layer is seen.
        usual: median level of those.
        typical: ``(n,)`` mm, median thickness of those of the same compartment.
        unresolved: ``(n,)`` bool, where a layer is too thin to tell its level.

    Returns:
        Both ``(n,)`` bool. What is thick alone may be cartilage.
    """
    thickness = layers.thickness_mm
    faint = ~unresolved & (layers.level < _FAINT * usual)
    thick = thickness > _THICK * typical
    near = sight.mesh.smoothing(4)
    count = np.maximum(near @ seen.astype(float), 1e-9)
    mean = near @ (seen * thickness) / count
    spread = np.sqrt(np.maximum(near @ (seen * thickness**2) / count - mean**2, 0))
    # It is soft tissue, whose edge is taken for that of the layer.
    bright = layers.beyond - (np.median(layers.beyond[seen]) if seen.any() else 0.0) > BRIGHT_BEYOND * usual
    return faint | bright | (thick & ((layers.level < _LESS_FAINT * usual) | (spread > _ROUGH * mean))), thick


def _bare_error(sight: Sight, level: float) -> float:
    """Standard error in um of the thickness of a thin layer of a known level."""
    if not level > 0:
        return float("inf")
    # The area under a thin layer's profile is level times thickness; it is spread like the blur.
    random = sight.noise * np.sqrt(2 * np.sqrt(np.pi) * sight.agent_blur * sight.step) / level
    return 1000 * float(np.hypot(random, MISMATCH * sight.contrast / level))


def _compartments(
    found: ThicknessMap,
    sight: Sight,
    bone: CorticalBone,
    end: JointEnd,
    threshold: float,
    medial: Sequence[float] | None,
    level: float,
    shape_um: float,
    doubts_um: np.ndarray,
) -> tuple[tuple[Compartment, ...], bool, list[str], list[str]]:
    """Rows of the table, whether sides are known, warnings of these, and why a compartment is left out.

    Numbers each point of the map.

    Standard errors that points share come from the shape of layers (`shape_um`), and where layers are not resolved from
    their level (``(n,)`` `doubts_um`).
    """
    # Neighbours share what they were averaged over. What all share: the match on bone, in thickness.
    together = 1 / float(np.mean(sight.near.multiply(sight.near).sum(1)))
    match = max(sight.match.error_mm, MISMATCH / 2) if np.isfinite(sight.match.error_mm) else sight.step / 4
    shift = match * min(sight.contrast / level, 5.0) if level > 0 else 0.0
    common = np.hypot(shape_um, 1000 * np.hypot(shift, _MODEL_ERROR * sight.step))

    def row(name: str, chosen: np.ndarray) -> Compartment:
        here = chosen & found.measured
        if not here.any():
            return summarise(name, chosen, found, float(common), together)
        areas = found.areas_mm2
        rest = 1 - areas[here].sum() / areas[chosen & np.isfinite(found.filled_um)].sum()
        more = (
            np.average(doubts_um[here], weights=areas[here]),
            _REST_ERROR * rest * np.average(found.thickness_um[here], weights=areas[here]),
        )
        return summarise(name, chosen, found, float(np.hypot(common, np.hypot(*more))), together)

    direction = across(found.points, found.areas_mm2, end.axis)
    lateral = lateral_by_fibula(bone, threshold, end, direction)
    told = []
    if medial is not None:
        fibula = lateral
        middle = np.average(found.points, axis=0, weights=found.areas_mm2)
        lateral = -float(np.sign((np.asarray(medial, float) - middle) @ direction))
        if fibula * lateral < 0:
            told.append(
                "the point on the medial side lies on the side of the fibula, which is lateral; the point counts: "
                f"{_CHECK_MEDIAL}"
            )
    known = lateral != 0
    if not known:
        told.append("medial and lateral may be swapped: the fibula is not seen apart; give a point on the medial side")
    direction = direction if lateral <= 0 else -direction
    # Now the direction points to the medial side.
    found.compartment[:] = found.points @ direction < parting(found.points, found.areas_mm2, direction)
    names = "medial", "lateral"
    left_out = []
    for number, name in enumerate(names):
        here = found.compartment == number
        measured = here & found.measured
        if found.areas_mm2[measured].sum() < _LEAST_SHARE * found.areas_mm2[here].sum():
            left_out.append(_why(found, here, name))
            _leave_out(found, here)
    rows = [row(name, found.compartment == number) for number, name in enumerate(names)]
    return (*rows, row("all", np.ones(len(found.points), bool))), known, told, left_out


def _why(found: ThicknessMap, points: np.ndarray, name: str) -> str:
    """Why the compartment of some points is not measured, from their reasons, the commonest first."""
    areas = np.bincount(found.reason[points], found.areas_mm2[points], len(Reason))
    shares = 100 * areas / areas.sum()
    why = sorted((one for one in Reason if one != Reason.MEASURED), key=lambda one: -shares[one])
    told = "; ".join(f"{one.text} ({shares[one]:.0f} %)" for one in why if shares[one] >= 1)
    measured = math.floor(shares[Reason.MEASURED])
    return f"the {name} compartment is not measured, since only {measured} % of it could be: {told}"


def _leave_out(found: ThicknessMap, points: np.ndarray) -> None:
    """Takes back what was measured and filled at some points."""
    found.reason[points & found.measured] = Reason.UNCERTAIN
    for values in (found.thickness_um, found.standard_error_um, found.uptake, found.filled_um):
        values[points] = np.nan
