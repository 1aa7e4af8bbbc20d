"""Which widget shows which kind of parameter: the connectors of `slicer.parameterNodeWrapper`."""

from __future__ import annotations

import enum

from .ctk_widgets import ctk
from .mrml_widgets import qMRMLNodeComboBox, qMRMLSliderWidget
from .parameters import (
    PATHS,
    Choice,
    NodeStore,
    Parameter,
    UnionStore,
    WithinRange,
)
from .pythonqt import qt


class Connector:
    """One widget that shows one parameter: how it is read and written, and which signal says that it changed."""

    def __init__(self, widget, signal: str | None, read, write):
        self.widget, self.signal, self.read, self.write = widget, signal, read, write
        self._changed = None

    def connect(self, changed) -> None:
        self._changed = lambda: changed()
        if self.signal:
            getattr(self.widget, self.signal).connect(self._changed)

    def disconnect(self) -> None:
        if self.signal and self._changed is not None:
            getattr(self.widget, self.signal).disconnect(self._changed)
        self._changed = None


def _attribute(widget, name: str, convert=lambda value: value):
    return lambda: convert(getattr(widget, name)), lambda value: setattr(widget, name, value)


def connector_for(widget, parameter: Parameter) -> Connector:
    kind, widget_type = parameter.kind, type(widget)
    if kind is bool and widget_type is qt.QCheckBox:
        return Connector(widget, "stateChanged", *_attribute(widget, "checked"))
    if kind is bool and widget_type is qt.QPushButton:
        widget.checkable = True
        return Connector(widget, "toggled", *_attribute(widget, "checked"))
    if kind in (int, float) and widget_type in _NUMBER_WIDGETS:
        return _number_connector(widget, parameter)
    if widget_type in (qt.QComboBox, ctk.ctkComboBox):
        return _combo_box_connector(widget, parameter)
    if kind is str and widget_type is qt.QLineEdit:
        return Connector(
            widget, "textChanged", lambda: widget.text, lambda value: widget.text == value or widget.setText(value)
        )
    if kind is str and widget_type is qt.QLabel:
        return Connector(widget, None, *_attribute(widget, "text"))
    if kind in PATHS and widget_type is ctk.ctkPathLineEdit:
        return Connector(
            widget,
            "currentPathChanged",
            lambda: kind(widget.currentPath),
            lambda value: setattr(widget, "currentPath", str(value)),
        )
    if widget_type is qMRMLNodeComboBox:
        members = parameter.store.members if isinstance(parameter.store, UnionStore) else [parameter.store]
        nodes = [member.kind for member in members if isinstance(member, NodeStore)]
        if nodes:
            widget.nodeTypes = [node.__name__ for node in nodes]
            return Connector(widget, "currentNodeChanged", widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{widget_type}'.")


_SLIDERS = (ctk.ctkSliderWidget, qMRMLSliderWidget, qt.QSlider)
_NUMBER_WIDGETS = (*_SLIDERS, qt.QSpinBox, qt.QDoubleSpinBox, ctk.ctkDoubleSpinBox)


def _number_connector(widget, parameter: Parameter) -> Connector:
    whole = parameter.kind is int
    if not whole and type(widget) in (qt.QSlider, qt.QSpinBox):
        raise RuntimeError(f"Unable to create GUI connector from datatype 'float' to widget type '{type(widget)}'.")
    if whole and type(widget) not in (qt.QSlider, qt.QSpinBox):
        widget.decimals = 0
    within = next((found for found in parameter.annotations if isinstance(found, WithinRange)), None)
    if within is None and type(widget) in _SLIDERS:
        raise RuntimeError("Cannot have a connection to a slider where the type is unbounded.")
    lowest, highest = (-(2**31), 2**31 - 1) if type(widget) is qt.QSpinBox else (float("-inf"), float("inf"))
    widget.minimum, widget.maximum = (within.minimum, within.maximum) if within else (lowest, highest)
    convert = int if whole else float
    return Connector(
        widget,
        "valueChanged",
        lambda: convert(widget.value),
        lambda value: setattr(widget, "value", convert(value)),
    )


def _combo_box_connector(widget, parameter: Parameter) -> Connector:
    if isinstance(parameter.kind, type) and issubclass(parameter.kind, enum.Enum):
        values = list(parameter.kind)
        label = getattr(parameter.kind, "label", lambda member: member.name)
        labels = [label(value) for value in values]
    else:
        choice = next((found for found in parameter.annotations if isinstance(found, Choice)), None)
        if choice is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        values = list(choice.choices)
        labels = [str(value) for value in values]
    widget.clear()
    for text in labels:
        widget.addItem(text)

    def write(value):
        if value not in values:
            raise ValueError(f"Unable to find value {value} in choices {values}")
        widget.currentIndex = values.index(value)

    return Connector(widget, "currentIndexChanged", lambda: values[widget.currentIndex], write)
