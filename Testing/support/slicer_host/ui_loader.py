"""`qt.QUiLoader`: a `.ui` file becomes the host's own widgets, and a class that the host does not offer is an error."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import slicer
from PySide6 import QtCore, QtUiTools

from .ctk_widgets import ctk
from .pythonqt import property_names, qt


def widget_class(name: str) -> type:
    """The host's class for a class name of a `.ui` file."""
    for module in (slicer, ctk, qt):
        found = getattr(module, name, None)
        if isinstance(found, type):
            return found
    raise RuntimeError(f"the .ui file asks for {name}, which the host does not offer")


class QUiLoader(QtUiTools.QUiLoader):
    """Builds the host's classes, and makes the connections itself, since Qt does not know the types of MRML."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._unknown = []

    def createWidget(self, class_name, parent=None, name=""):
        if class_name == "Line":  # what Designer calls a QFrame
            return super().createWidget(class_name, parent, name)
        try:
            widget = widget_class(class_name)(parent)
        except RuntimeError as problem:  # raised again by load: C++ would swallow it here
            self._unknown.append(problem)
            return super().createWidget("QWidget", parent, name)
        QtCore.QObject.setObjectName(widget, name)
        return widget

    def createLayout(self, class_name, parent=None, name=""):
        layout = widget_class(class_name)()
        QtCore.QObject.setObjectName(layout, name)
        if parent is not None and parent.layout() is None:
            parent.setLayout(layout)
        return layout

    def load(self, file, parent=None):
        """Load from an open QFile, as `slicer.util.loadUI` does."""
        tree = ElementTree.fromstring(bytes(file.readAll().data()))
        connections = tree.find("connections")
        wanted = [] if connections is None else [_texts(entry) for entry in connections]
        if connections is not None:
            tree.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer, parent)
        if self._unknown:
            raise self._unknown[0]
        _check_properties(tree, widget)
        for sender, signal, receiver, slot in wanted:
            _named(widget, sender).connect(signal, _named(widget, receiver), slot)
        return widget


def _texts(entry) -> tuple[str, ...]:
    return tuple(entry.findtext(tag) for tag in ("sender", "signal", "receiver", "slot"))


def _check_properties(tree, root) -> None:
    """Of a property that the class has not got Qt makes a dynamic one, which does nothing; here it is an error."""
    for element in tree.iter("widget"):
        if element.get("class") == "Line":
            continue
        known = property_names(_named(root, element.get("name")))
        for entry in element.findall("property"):
            if entry.get("name") == "buddy":  # known to the form builder alone
                _named(root, entry.findtext("cstring"))
            elif entry.get("stdset") != "0" and entry.get("name") not in known:
                where = f"{element.get('class')} {element.get('name')}"
                raise RuntimeError(f"the .ui file sets {entry.get('name')} of {where}, which the host does not know")


def _named(root, name: str):
    if root.objectName == name:
        return root
    found = root.findChild("QObject", name)
    if found is None:
        raise RuntimeError(f"a connection of the .ui file names {name}, which is not in it")
    return found


qt.QUiLoader = QUiLoader
