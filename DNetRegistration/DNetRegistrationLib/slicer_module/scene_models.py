"""Models that are coloured by a quantity at each of their points, with a colour bar, as in the pictures."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk

from ..outputs.thickness_surface import VIRIDIS
from .scene import ATTRIBUTE

_COLORS = f"{ATTRIBUTE}colors"  # the attribute of the table of colours; there is one a scene


def write_model(node, surface: vtk.vtkPolyData, scalars: dict[str, np.ndarray], limit: float, title: str) -> None:
    """Writes a surface that is coloured by its first scalars, from 0 on. Triangles where those are NaN are not drawn.

    Args:
        node: a ``vtkMRMLModelNode``; what it held is replaced. It is visible afterwards.
        surface: in the node's own RAS; the scalars are added to it.
        scalars: ``(n,)`` each, by name.
        limit: where the colours end.
        title: of the colour bar.
    """
    for name, values in scalars.items():
        array = numpy_to_vtk(np.ascontiguousarray(values), deep=True, array_type=get_vtk_array_type(values.dtype))
        array.SetName(name)
        surface.GetPointData().AddArray(array)
    node.SetAndObservePolyData(surface)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    with slicer.util.NodeModify(display):
        display.SetActiveScalar(next(iter(scalars)), vtk.vtkAssignAttribute.POINT_DATA)
        display.SetAndObserveColorNodeID(_colors(node.GetScene()).GetID())
        display.SetScalarVisibility(True)
        display.SetScalarRangeFlag(display.UseManualScalarRange)
        display.SetScalarRange(0.0, limit)
        # The colour of NaN would be lost with the scene.
        display.SetThresholdEnabled(True)
        display.SetThresholdRange(0.0, float(np.finfo(np.float32).max))
        display.SetAmbient(0.3)  # or what is turned away from the light is too dark to tell the colour
        display.SetVisibility2D(False)
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(display)
    legend.SetTitleText(title)
    legend.SetLabelFormat("%.0f")
    show_model(node, True)


def show_model(node, shown: bool) -> None:
    """Shows a model of `write_model` with its colour bar, or hides both."""
    for number in range(node.GetNumberOfDisplayNodes()):
        node.GetNthDisplayNode(number).SetVisibility(shown)


def _colors(scene) -> slicer.vtkMRMLColorTableNode:
    """The table of colours, even steps to the eye; not every Slicer has it of its own."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode", scene):
        if node.GetAttribute(_COLORS) is not None:
            return node
    node = scene.CreateNodeByClass("vtkMRMLColorTableNode")
    node.UnRegister(None)
    node.SetName(scene.GenerateUniqueName("Viridis"))
    node.SetAttribute(_COLORS, "viridis")
    node.SetTypeToUser()
    count = 256
    node.SetNumberOfColors(count)
    parts = np.linspace(0, 1, len(VIRIDIS))
    for index, share in enumerate(np.linspace(0, 1, count)):
        color = [float(np.interp(share, parts, VIRIDIS[:, channel])) / 255 for channel in range(3)]
        node.SetColor(index, f"{share:.3f}", *color, 1.0)
    node.HideFromEditorsOn()
    scene.AddNode(node)
    return node
