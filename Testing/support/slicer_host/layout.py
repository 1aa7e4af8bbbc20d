"""`slicer.app.layoutManager()`: the views of the four-up layout over the real view logics, without windows."""

from __future__ import annotations

import slicer
from PySide6 import QtCore

from .pythonqt import QtObject
from .scene import Scene


class qMRMLSliceControllerWidget(QtObject, QtCore.QObject):
    """The bar above a slice view: only fitting."""

    _offered = True

    def __init__(self, logic):
        QtCore.QObject.__init__(self)
        self._logic = logic

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()


class qMRMLSliceView(QtObject, QtCore.QObject):
    """The picture of a slice view, which here is rendered only by `slice_picture`."""

    _offered = True

    def __init__(self, logic):
        QtCore.QObject.__init__(self)
        self._logic = logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def forceRender(self) -> None:
        self._logic.GetBlend().Update()


class qMRMLSliceWidget(QtObject, QtCore.QObject):
    """A slice view with the real slice logic."""

    _offered = True

    def __init__(self, logic):
        QtCore.QObject.__init__(self)
        self._logic, self._controller, self._view = logic, qMRMLSliceControllerWidget(logic), qMRMLSliceView(logic)

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def sliceController(self):
        return self._controller

    def sliceView(self):
        return self._view

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()


class qMRMLThreeDView(QtObject, QtCore.QObject):
    """The picture of a 3D view, which here is rendered only by `three_d_picture`."""

    _offered = True

    def __init__(self, logic):
        QtCore.QObject.__init__(self)
        self._logic = logic

    def resetFocalPoint(self) -> None:
        pass

    def resetCamera(self, *_options) -> None:
        pass

    def forceRender(self) -> None:
        pass


class qMRMLThreeDWidget(QtObject, QtCore.QObject):
    """A 3D view with the real view logic."""

    _offered = True

    def __init__(self, logic):
        QtCore.QObject.__init__(self)
        self._logic, self._view = logic, qMRMLThreeDView(logic)

    def viewLogic(self):
        return self._logic

    def threeDView(self):
        return self._view


class qSlicerLayoutManager(QtObject, QtCore.QObject):
    """The four-up layout: Red, Yellow and Green slice views and one 3D view, whatever `layout` is set to."""

    _offered = True
    layoutChanged = QtCore.Signal(int)

    def __init__(self, scene: Scene):
        QtCore.QObject.__init__(self)
        self._scene = scene
        self._slices = {name: qMRMLSliceWidget(logic) for name, logic in scene.slice_logics.items()}
        self._three_d = qMRMLThreeDWidget(scene.view_logic)
        self._layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView

    def sliceViewNames(self):
        return list(self._slices)

    def sliceWidget(self, name: str):
        return self._slices.get(name)

    def threeDWidget(self, index):
        return self._three_d if index in (0, "1") else None

    def mrmlSliceLogics(self):
        return self._scene.application_logic.GetSliceLogics()

    def mrmlScene(self):
        return self._scene.mrml

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        view = self._three_d.threeDView()
        view.resetFocalPoint()
        view.resetCamera()

    def setLayout(self, layout: int) -> None:
        if layout != self._layout:
            self._layout = layout
            self.layoutChanged(layout)

    layout = QtCore.Property(int, lambda self: self._layout, setLayout, notify=layoutChanged)
    threeDViewCount = QtCore.Property(int, lambda self: 1)
    tableViewCount = QtCore.Property(int, lambda self: 0)
    plotViewCount = QtCore.Property(int, lambda self: 0)
