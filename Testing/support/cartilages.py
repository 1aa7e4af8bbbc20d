"""A measurement of cartilage that no scans were needed for: a dome with a layer of known thickness."""

from __future__ import annotations

import numpy as np
from DNetRegistrationLib.cartilage.result import CartilageMeasurement, Reason, ThicknessMap, summarise


def made_measurement(placed=None, **changes) -> CartilageMeasurement:
    """A cap of a sphere of 1 mm: 60 um thick where x < 0 (medial), 30 um elsewhere (lateral), with a bare spot, and a
    rim that was not measured. `placed` ``(4, 4)`` carries it elsewhere."""
    placed = np.eye(4) if placed is None else placed
    side = 41
    x, y = (one.ravel() for one in np.meshgrid(*2 * [np.linspace(-0.6, 0.6, side)], indexing="ij"))
    normals = np.stack((x, y, np.sqrt(1 - x**2 - y**2)), 1)
    corner = np.arange(side * side).reshape(side, side)
    a, b, c, d = (one.ravel() for one in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    triangles = np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1)))
    thickness = np.where(x < 0, 60.0, 30.0)
    thickness[np.hypot(x - 0.3, y) < 0.1] = 0
    reason = np.where(y > 0.5, Reason.SOFT_TISSUE, Reason.MEASURED)
    measured = reason == Reason.MEASURED
    found = ThicknessMap(
        points=normals @ placed[:3, :3].T + placed[:3, 3],
        normals=normals @ placed[:3, :3].T,
        triangles=triangles,
        areas_mm2=0.0009 / normals[:, 2],
        compartment=(x >= 0).astype(int),
        thickness_um=np.where(measured, thickness, np.nan),
        standard_error_um=np.where(measured, 2.0, np.nan),
        uptake=np.where(measured & (thickness > 0), 1000.0, np.nan),
        reason=reason.astype(int),
        filled_um=np.where(measured, thickness, np.nan),
    )
    rows = [summarise(name, found.compartment == k, found, 0.5) for k, name in enumerate(("medial", "lateral"))]
    values = dict(
        map=found,
        compartments=(*rows, summarise("all", np.ones(len(x), bool), found, 0.5)),
        least_thickness_um=7.5,
        blur_um=9.0,
        shift_um=np.array((0.0, 1.0, 2.0)),
        slope=1.1,
        offset=-20.0,
        agent=True,
        accepted=True,
        sides_known=True,
    )
    return CartilageMeasurement(**{**values, **changes})
