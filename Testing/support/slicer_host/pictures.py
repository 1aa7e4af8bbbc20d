"""Pictures of slice views, the 3D view and widgets, without a display.

Pictures are rendered off screen (VTK falls back to EGL or software by itself) by the real displayable managers of the
segmentations, models and transforms; what a Slicer window adds around them (rulers, corner annotation, sliders) is not
there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk
from PySide6 import QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

_SLICE_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLModelSliceDisplayableManager",
)
_THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLColorLegendDisplayableManager",
)


def _window(renderer, size):
    """An off-screen window. VTK looks for an X server first and reports that it found none."""
    warnings = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.SetGlobalWarningDisplay(0)
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()  # the displayable managers crash without one
    window.SetInteractor(interactor)
    window.Render()
    vtk.vtkObject.SetGlobalWarningDisplay(warnings)
    return window


def _displayable_managers(factory, names, renderer, view_node):
    for name in names:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    group = factory.InstantiateDisplayableManagers(renderer)
    group.SetMRMLDisplayableNode(view_node)
    return group


def _read_window(window) -> np.ndarray:
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()


def save_picture(pixels: np.ndarray, path: str | Path) -> Path:
    """Write (rows, columns, 3) 8-bit pixels, the top row first, as a PNG."""
    rows, columns, _ = pixels.shape
    data = np.ascontiguousarray(pixels).tobytes()
    image = QtGui.QImage(data, columns, rows, 3 * columns, QtGui.QImage.Format.Format_RGB888)
    return _save(image, path)


def _save(image: QtGui.QImage, path: str | Path) -> Path:
    if not image.save(str(path)):
        raise OSError(f"could not write {path}")
    return Path(path)


class SliceView:
    """One slice view: the image of its logic and the outlines of the displayable managers, in an off-screen window."""

    def __init__(self, logic, size: tuple[int, int]):
        self.logic = logic
        logic.ResizeSliceNode(*size)
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        actor = self.actor = vtk.vtkActor2D()
        actor.SetMapper(self.mapper)
        actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
        self.renderer = vtk.vtkRenderer()
        self.renderer.SetBackground(0, 0, 0)
        self.window = _window(self.renderer, size)
        self.renderer.AddActor(actor)  # before the displayable managers: it would hide their fill
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self.managers = _displayable_managers(factory, _SLICE_MANAGERS, self.renderer, logic.GetSliceNode())

    def render(self) -> np.ndarray:
        image = self.logic.GetImageDataConnection()  # None while no volume is shown
        self.actor.SetVisibility(image is not None)
        self.mapper.SetInputConnection(image)
        self.window.Render()
        return _read_window(self.window)

    def close(self) -> None:
        self.managers.SetMRMLDisplayableNode(None)
        self.window.Finalize()


def slice_picture(name: str = "Red", path: str | Path | None = None, size=(400, 400), fit: bool = True) -> np.ndarray:
    """The slice view as it would look in Slicer, (rows, columns, 3) uint8; also written to `path` if one is given.

    `name` is "Red", "Yellow" or "Green"; which slice is shown, and of which volumes, is what the scene says. With `fit`
    the field of view is fitted to the background first, as the button in the view's bar does; the slice stays.
    """
    logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
    view = SliceView(logic, size)
    try:
        if fit:
            offset = logic.GetSliceOffset()
            logic.FitSliceToBackground()
            logic.SetSliceOffset(offset)
        pixels = view.render()
    finally:
        view.close()
    if path is not None:
        save_picture(pixels, path)
    return pixels


def three_d_picture(
    path: str | Path | None = None, size=(400, 400), elevation: float = 0.0, azimuth: float = 0.0
) -> np.ndarray:
    """The 3D view from the front, turned by `azimuth` and `elevation` (degrees), fitted to what is visible."""
    logic = slicer.app.layoutManager().threeDWidget(0).viewLogic()
    renderer = vtk.vtkRenderer()
    window = _window(renderer, size)
    factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
    node = logic.GetViewNode()
    box, labels = node.GetBoxVisible(), node.GetAxisLabelsVisible()
    managers = _displayable_managers(factory, _THREE_D_MANAGERS, renderer, node)
    try:
        node.SetBoxVisible(0)
        node.SetAxisLabelsVisible(0)
        # Slicer's views are there before any legend, and hear of each as it comes.
        for legend in slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode", slicer.mrmlScene):
            slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.NodeAddedEvent, legend)
        window.Render()
        camera = renderer.GetActiveCamera()
        camera.SetFocalPoint(0, 0, 0)
        camera.SetPosition(0, 500, 0)
        camera.SetViewUp(0, 0, 1)
        camera.Azimuth(azimuth)
        camera.Elevation(elevation)
        renderer.ResetCamera()
        renderer.ResetCameraClippingRange()
        window.Render()
        pixels = _read_window(window)
    finally:
        node.SetBoxVisible(box)
        node.SetAxisLabelsVisible(labels)
        managers.SetMRMLDisplayableNode(None)
        window.Finalize()
    if path is not None:
        save_picture(pixels, path)
    return pixels


def widget_picture(widget, path: str | Path, width: int | None = None, scale: float = 1.0) -> Path:
    """A widget as it looks, laid out at `width` (its own hint otherwise), drawn at `scale` times the resolution."""
    base = QtWidgets.QWidget
    base.ensurePolished(widget)
    base.show(widget)
    QtWidgets.QApplication.processEvents()
    if width is not None:
        layout = base.layout(widget)
        height = layout.totalHeightForWidth(width) if layout is not None and layout.hasHeightForWidth() else -1
        base.resize(widget, width, height if height > 0 else base.sizeHint.__get__(widget)().height())
        QtWidgets.QApplication.processEvents()
    image = QtGui.QImage(base.size(widget) * scale, QtGui.QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(scale)
    base.render(widget, image)
    return _save(image, path)
