"""What a measurement of cartilage finds: a map on the bone's surface, and a table of its compartments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np

from ..core.jsonable import jsonable


class Reason(IntEnum):
    """Why a point of the articular surface has no thickness; `Reason.MEASURED` where it has one."""

    MEASURED = 0
    SOFT_TISSUE = 1
    FRAGMENT = 2
    EDGE_OF_VIEW = 3
    UNCERTAIN = 4

    @property
    def text(self) -> str:
        """For a reader."""
        return {
            Reason.MEASURED: "measured",
            Reason.SOFT_TISSUE: "soft tissue or liquid with contrast agent touches it, as bright as the layer",
            Reason.FRAGMENT: "something as dense as bone lies on it",
            Reason.EDGE_OF_VIEW: "a scan's field of view ends there",
            Reason.UNCERTAIN: "noise or blur leave the thickness open",
        }[self]


@dataclass(frozen=True, eq=False)
class ThicknessMap:
    """Cartilage thickness at ``n`` points of the articular surface, worn places included.

    The surface is where bone in the scan *without* agent reaches half its height over what lies on it.

    Attributes:
        points: ``(n, 3)`` on the bone's surface, in the world of the scan without agent, LPS mm.
        normals: ``(n, 3)`` unit vectors out of the bone.
        triangles: ``(m, 3)`` int, indices of points; seen from outside they turn counterclockwise.
        areas_mm2: ``(n,)`` of the surface that each point stands for.
        compartment: ``(n,)`` int, index of `CartilageMeasurement.compartments`.
        thickness_um: ``(n,)`` along the normal; 0 where bone is bare, NaN where not measured.
        standard_error_um: ``(n,)`` of the thickness; NaN where not measured.
        uptake: ``(n,)`` what agent adds to the cartilage, in grey values of the scan with agent; NaN where no layer is.
        reason: ``(n,)`` int, values of `Reason`.
        filled_um: ``(n,)`` the thickness, and where it was not measured what that around it says; NaN where too little
            of a compartment was measured.
    """

    points: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    areas_mm2: np.ndarray
    compartment: np.ndarray
    thickness_um: np.ndarray
    standard_error_um: np.ndarray
    uptake: np.ndarray
    reason: np.ndarray
    filled_um: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """``(n,)`` bool."""
        return self.reason == Reason.MEASURED


@dataclass(frozen=True, kw_only=True)
class Compartment:
    """Cartilage of one part of the articular surface; means are weighted by area.

    What could not be measured is filled from what lies around it, so that thickness and volume are of the same surface
    whenever an animal is scanned. The sum of several parts is of those that were measured.

    Numbers that are not known are NaN. The names in brackets are those of Eckstein et al. (Osteoarthritis Cartilage
    14:974, 2006).

    Attributes:
        name: "medial", "lateral" or "all" (areas and volumes are sums, means are over both).
        area_mm2: of the articular bone surface, worn places included (tAB); NaN where no thickness was measured.
        measured_share, filled_share: of that area, 0 to 1; the thickness of the rest is not known.
        covered_share: of the measured area, where a layer is, 0 to 1.
        volume_mm3: of the cartilage on the area that was measured or filled.
        mean_thickness_um: worn places count as 0 (ThCtAB).
        median_thickness_um, sd_thickness_um, p5_thickness_um, p95_thickness_um: of the same distribution.
        standard_error_um: of the mean thickness, from noise, from how well the scans match and from what was filled.
        uptake: mean over the layer, in grey values of the scan with agent.
    """

    name: str
    area_mm2: float
    measured_share: float
    filled_share: float
    covered_share: float
    volume_mm3: float
    mean_thickness_um: float
    median_thickness_um: float
    sd_thickness_um: float
    p5_thickness_um: float
    p95_thickness_um: float
    standard_error_um: float
    uptake: float

    def to_dict(self) -> dict[str, Any]:
        """All attributes, by their names."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, kw_only=True)
class CartilageMeasurement:
    """The cartilage of a bone.

    Attributes:
        map: thickness point by point.
        compartments: of the articular surface; the last one, "all", is the sum of those before it. `map.compartment`
            counts from the first.
        least_thickness_um: the thinnest layer that can be told from none at this noise and voxel size.
        blur_um: standard deviation of the scanner's point spread across an edge of bone, voxels included.
        shift_um: ``(3,)`` how far the scan with agent was moved against the alignment to match the bone under the
            cartilage, at its middle, LPS.
        slope, offset: grey values of the scan with agent are ``slope * plain + offset`` in bone.
        agent: contrast agent was found; None where it cannot be told: voxels are too coarse to measure anything, none
            was found but the scans do not both show more than half of the joint, or none, or only a faint layer of
            which nothing is measured, but around the bone the scan with agent is much brighter than the other one.
        accepted: the alignment was accepted; if not, numbers may be wrong.
        sides_known: which side is medial was found by the fibula or told; if not, the names may be swapped. None where
            voxels are too coarse.
        warnings: sentences on what else a user should know.
    """

    map: ThicknessMap
    compartments: tuple[Compartment, ...]
    least_thickness_um: float
    blur_um: float
    shift_um: np.ndarray
    slope: float
    offset: float
    agent: bool | None
    accepted: bool
    sides_known: bool | None
    warnings: list[str] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether contrast agent was found, and thickness measured anywhere."""
        return bool(self.agent) and any(one.measured_share > 0 for one in self.compartments)

    def compartment(self, name: str) -> Compartment:
        """The compartment of a name.

        Raises:
            KeyError: there is none.
        """
        for one in self.compartments:
            if one.name == name:
                return one
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """All but the map as JSON's own types, and the share of the area that each reason takes; see `Reason`."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "map"}
        values["compartments"] = [one.to_dict() for one in self.compartments]
        total = float(self.map.areas_mm2.sum())
        values["shares"] = {
            reason.name.lower(): float(self.map.areas_mm2[self.map.reason == reason].sum()) / total
            if total
            else math.nan
            for reason in Reason
        }
        return jsonable(values)


def summarise(
    name: str, chosen: np.ndarray, found: ThicknessMap, systematic_um: float, together: float = 1.0
) -> Compartment:
    """The row of a table.

    Args:
        name: of the compartment.
        chosen: ``(n,)`` bool, its points.
        found: the map.
        systematic_um: standard error that all points share.
        together: how many neighbouring points share one error.
    """
    area = float(found.areas_mm2[chosen].sum())
    here, whole = chosen & found.measured, chosen & np.isfinite(found.filled_um)
    measured = float(found.areas_mm2[here].sum())
    if not measured > 0:
        nothing: dict[str, Any] = dict.fromkeys([one.name for one in fields(Compartment)], math.nan)
        # Where nothing is measured the border is not known: the area is of what was left to look at.
        return Compartment(**{**nothing, "name": name, "measured_share": 0.0, "filled_share": 0.0})
    areas, thickness = found.areas_mm2[whole], found.filled_um[whole]
    mean = float(np.average(thickness, weights=areas))
    fifth, median, ninetyfifth = _quantiles(thickness, areas, (0.05, 0.5, 0.95))
    weight, level = found.areas_mm2[here], found.uptake[here]
    # What is too thin to be told from none at one point counts for the thickness, but has no uptake.
    told = np.isfinite(level)
    random = np.sqrt((weight**2 * found.standard_error_um[here] ** 2).sum() * together) / measured
    return Compartment(
        name=name,
        area_mm2=area,
        measured_share=measured / area,
        filled_share=float(areas.sum() - measured) / area,
        covered_share=float(weight[found.thickness_um[here] > 0].sum()) / measured,
        # The volume over a curved surface: that of a layer on a sphere differs from area times thickness, but a plateau
        # is flat to some per cent of its thickness.
        volume_mm3=float(areas @ thickness) / 1000,
        mean_thickness_um=mean,
        median_thickness_um=median,
        sd_thickness_um=float(np.sqrt(np.average((thickness - mean) ** 2, weights=areas))),
        p5_thickness_um=fifth,
        p95_thickness_um=ninetyfifth,
        standard_error_um=float(np.hypot(random, systematic_um)),
        uptake=float(np.average(level[told], weights=weight[told])) if told.any() else math.nan,
    )


def _quantiles(values: np.ndarray, weights: np.ndarray, parts: tuple[float, ...]) -> list[float]:
    """Quantiles of weighted values: where the cumulative weight, counted to the middle of each, reaches the part."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) - weights[order] / 2
    return [float(np.interp(part * weights.sum(), reached, values[order])) for part in parts]
