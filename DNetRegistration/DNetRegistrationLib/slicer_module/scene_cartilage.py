"""The cartilage of an alignment in the scene: a table, a coloured model, and what the panel tells of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

from .scene import ATTRIBUTE, FLIP, Placed, node_id
from .scene_models import write_model

if TYPE_CHECKING:
    from ..cartilage.result import ThicknessMap
    from .measured_cartilage import MeasuredCartilage

#: The attribute with what was measured, or why nothing was.
CARTILAGE = f"{ATTRIBUTE}cartilage"


def write_told(transform, cartilage: MeasuredCartilage | None) -> None:
    """Notes at the transform node of an alignment what was measured; None takes the note away."""
    transform.SetAttribute(CARTILAGE, None if cartilage is None else json.dumps(cartilage.told))


def told_of(transform) -> dict | None:
    """What was noted; None where nothing was."""
    try:
        values = json.loads(transform.GetAttribute(CARTILAGE) or "null")
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def write_cartilage_table(node, rows: list[dict]) -> None:
    """Writes a row for each compartment, units in the names of the columns.

    Args:
        node: a ``vtkMRMLTableNode``; what it held is replaced.
        rows: of `outputs.cartilage_table.rows`; none leaves the table empty.
    """
    with slicer.util.NodeModify(node):
        node.RemoveAllColumns()
        for name in rows[0] if rows else ():
            values = [row[name] for row in rows]
            numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
            column = vtk.vtkDoubleArray() if numeric else vtk.vtkStringArray()
            column.SetName(name)
            for value in values:
                column.InsertNextValue(float(value) if numeric else _cell(value))
            node.AddColumn(column)


def _cell(value: str | bool | None) -> str:
    """Text of a cell; none where it is not known."""
    if value is None:
        return ""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def write_thickness(node, surface: ThicknessMap, limit_um: float, fixed: Placed) -> None:
    """Writes the map of thickness as a coloured model under the parent transform of the fixed volume.

    Args:
        node: a ``vtkMRMLModelNode``; what it held is replaced.
        surface: in the world of the fixed scan; an empty one leaves the model empty.
        limit_um: where the colours end.
        fixed: the fixed volume.
    """
    to_local = np.linalg.solve(fixed.to_world, FLIP)
    points = surface.points @ to_local[:3, :3].T + to_local[:3, 3]
    cells = np.concatenate((np.full((len(surface.triangles), 1), 3), surface.triangles), 1)
    data = vtk.vtkPolyData()
    data.SetPoints(vtk.vtkPoints())
    data.GetPoints().SetData(numpy_to_vtk(np.ascontiguousarray(points), deep=True))
    data.SetPolys(vtk.vtkCellArray())
    data.GetPolys().ImportLegacyFormat(numpy_to_vtkIdTypeArray(np.ascontiguousarray(cells.ravel()), deep=True))
    normals = numpy_to_vtk(np.ascontiguousarray((surface.normals @ to_local[:3, :3].T).astype(np.float32)), deep=True)
    normals.SetName("Normals")
    data.GetPointData().SetNormals(normals)
    scalars = {
        "Thickness (µm)": surface.thickness_um.astype(np.float32),
        "Standard error (µm)": surface.standard_error_um.astype(np.float32),
        "Uptake": surface.uptake.astype(np.float32),
        "Compartment": surface.compartment.astype(np.int32),
        "Reason": surface.reason.astype(np.int32),
    }
    node.SetAndObserveTransformNodeID(node_id(fixed.node.GetParentTransformNode()))
    write_model(node, data, scalars, limit_um or 1.0, "Cartilage (µm)")
