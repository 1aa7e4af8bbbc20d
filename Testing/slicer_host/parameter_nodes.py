"""`slicer.parameterNodeWrapper`: typed parameters in a vtkMRMLScriptedModuleNode, bound to widgets.

Offered: nodes, str, bool, int, float, pathlib.Path, enumerations, `Optional` and unions of these, with `Annotated` and
Default, WithinRange, Minimum, Maximum, Choice, Exclude, Decimals, SingleStep. Values are stored under the names that
Slicer uses, so that a scene saved here means the same there. Not offered: lists, tuples, dicts, parameter packs, Any.
"""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from dataclasses import dataclass

import slicer
import vtk

from .ctk_widgets import ctk
from .mrml_widgets import qMRMLNodeComboBox, qMRMLSliderWidget
from .pythonqt import QtObject, qt

SlicerParameterNamePropertyName = "SlicerParameterName"
PATHS = (pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePath)


class Default:
    """The value of a parameter that was never set."""

    def __init__(self, value=None, *, generator=None):
        self._value, self._generator = value, generator

    @property
    def value(self):
        return self._generator() if self._generator else self._value


class Validator:
    """What a value must satisfy to be stored."""

    def validate(self, value) -> None:
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value) -> None:
        if value is None:
            raise ValueError("Value must not be None")


class IsInstance(Validator):
    def __init__(self, classtype):
        self.classtype = classtype

    def validate(self, value) -> None:
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type '{self.classtype}', is type '{type(value)}' value '{value}'")


class WithinRange(Validator):
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Minimum(Validator):
    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must not be less than {self.minimum}, is {value}")


class Maximum(Validator):
    def __init__(self, maximum):
        self.maximum = maximum

    def validate(self, value) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must not be greater than {self.maximum}, is {value}")


class Choice(Validator):
    def __init__(self, choices):
        self.choices = choices

    def validate(self, value) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be one of: {self.choices}")


class Exclude(Validator):
    def __init__(self, excludedValues):
        self.excludedValues = excludedValues

    def validate(self, value) -> None:
        if value in self.excludedValues:
            raise ValueError(f"Value is {value}, which is excluded")


@dataclass
class Decimals:
    """Decimals of a spin box or slider."""

    value: int


@dataclass
class SingleStep:
    """Step of a spin box or slider."""

    value: float


# How values are written into the node


class _Text:
    """A value kept as a string parameter."""

    def __init__(self, kind, to_text=str, from_text=None, default=None):
        self.kind, self.to_text, self.from_text, self.default = kind, to_text, from_text or kind, default

    def accepts(self, value) -> bool:
        wanted = (int, float) if self.kind is float else self.kind
        return isinstance(value, wanted) and not (self.kind in (int, float) and isinstance(value, bool))

    def is_in(self, node, name) -> bool:
        return node.HasParameter(name)

    def write(self, node, name, value) -> None:
        node.SetParameter(name, self.to_text(value))

    def read(self, node, name):
        return self.from_text(node.GetParameter(name))

    def remove(self, node, name) -> None:
        node.UnsetParameter(name)


class _Node(_Text):
    """A node, kept as a node reference; an empty parameter of the same name says that it was set."""

    def accepts(self, value) -> bool:
        return value is None or isinstance(value, self.kind)

    def write(self, node, name, value) -> None:
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class _Union:
    """One of several types, each under its own name `<name>.<index>`."""

    def __init__(self, members, kinds):
        self.members = members
        self.default = None if type(None) in kinds else members[0].default

    def accepts(self, value) -> bool:
        return any(member.accepts(value) for member in self.members)

    def is_in(self, node, name) -> bool:
        return any(member.is_in(node, f"{name}.{index}") for index, member in enumerate(self.members))

    def write(self, node, name, value) -> None:
        # None belongs to the member for None, not to a node that is not there.
        order = sorted(range(len(self.members)), key=lambda i: isinstance(self.members[i], _Node) and value is None)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            index = next(i for i in order if self.members[i].accepts(value))
            self.members[index].write(node, f"{name}.{index}", value)

    def read(self, node, name):
        for index, member in enumerate(self.members):
            if member.is_in(node, f"{name}.{index}"):
                return member.read(node, f"{name}.{index}")
        raise KeyError(f"Unable to find value for name: {name}")

    def remove(self, node, name) -> None:
        for index, member in enumerate(self.members):
            member.remove(node, f"{name}.{index}")


def _store(kind):
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = typing.get_args(kind)
        return _Union([_store(member) for member in kinds], kinds)
    if kind is type(None):
        return _Text(kind, to_text=lambda value: "None", from_text=lambda text: None)
    if kind is bool:
        return _Text(bool, lambda value: "True" if value else "False", lambda text: text == "True", False)
    if kind in (int, float):
        return _Text(kind, default=0)
    if kind is str:
        return _Text(str, default="")
    if kind in PATHS:
        return _Text(kind, default=kind())
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return _Node(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _Text(kind, lambda value: value.name, lambda text: kind[text], next(iter(kind)))
    raise TypeError(f"the host has no parameters of type {kind}")


def _split(annotated):
    if typing.get_origin(annotated) is typing.Annotated:
        kind, *annotations = typing.get_args(annotated)
        return kind, annotations
    return annotated, []


@dataclass
class _Parameter:
    name: str
    kind: object
    annotations: list
    store: object
    default: Default

    def write(self, node, value) -> None:
        if value is None and not self.store.accepts(None):
            raise ValueError("Value must not be None")
        if not self.store.accepts(value):
            raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}' value '{value}'")
        for annotation in self.annotations:
            if isinstance(annotation, Validator):
                annotation.validate(value)
        self.store.write(node, self.name, value)

    def read(self, node):
        if not self.store.is_in(node, self.name):
            self.write(node, self.default.value)
        return self.store.read(node, self.name)


def _parameter(owner, name, hint) -> _Parameter:
    kind, annotations = _split(hint)
    store = _store(kind)
    defaults = [annotation for annotation in annotations if isinstance(annotation, Default)]
    default = defaults[0] if defaults else Default(store.default)
    if hasattr(owner, name):
        default = Default(getattr(owner, name))
    return _Parameter(name, kind, annotations, store, default)


# The wrapped class


def parameterNodeWrapper(classtype=None):
    """Class decorator: annotated names become typed properties of a parameter node."""
    return _wrap if classtype is None else _wrap(classtype)


def _wrap(classtype):
    hints = typing.get_type_hints(classtype, include_extras=True)
    parameters = {name: _parameter(classtype, name, hint) for name, hint in hints.items()}
    for name, parameter in parameters.items():
        setattr(
            classtype,
            name,
            property(
                lambda self, parameter=parameter: parameter.read(self.parameterNode),
                lambda self, value, parameter=parameter: parameter.write(self.parameterNode, value),
            ),
        )
    for name, member in vars(_Wrapper).items():
        if callable(member) and (name == "__init__" or not name.startswith("__")):
            if name != "__init__" and hasattr(classtype, name):
                raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
            setattr(classtype, name, member)
    classtype.allParameters = parameters
    classtype._is_parameter_node_wrapper = True
    return classtype


def isParameterNodeWrapper(class_or_object) -> bool:
    return getattr(class_or_object, "_is_parameter_node_wrapper", False)


class _Wrapper:
    """The methods that a wrapped class is given."""

    def __init__(self, parameterNode, prefix=None):
        if prefix:
            raise NotImplementedError("the host has no prefixes of parameters")
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple] = {}
        self._next_gui, self._updating = 0, False
        for parameter in self.allParameters.values():
            parameter.read(parameterNode)  # writes the defaults

    def default(self, name):
        return self._checked(name).default

    def dataType(self, name):
        parameter = self._checked(name)
        kind = parameter.kind
        return typing.Annotated[(kind, *parameter.annotations)] if parameter.annotations else kind

    def getValue(self, name):
        return self._checked(name).read(self.parameterNode)

    def setValue(self, name, value):
        self._checked(name).write(self.parameterNode, value)

    def _checked(self, name):
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")
        return self.allParameters[name]

    def connectGui(self, gui):
        """Bind every widget that has a dynamic property SlicerParameterName; returns a tag for `disconnectGui`."""
        widgets = gui.findChildren(qt.QWidget) if isinstance(gui, QtObject) else list(vars(gui).values())
        named = ((widget.property(SlicerParameterNamePropertyName), widget) for widget in widgets)
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping):
        connectors = {name: _connector(widget, self._checked(name)) for name, widget in mapping.items()}
        tag, self._next_gui = self._next_gui, self._next_gui + 1
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.connect(lambda name=name, connector=connector: self._from_gui(name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._to_gui())
        self._guis[tag] = connectors, observer
        return tag

    def disconnectGui(self, tag):
        connectors, observer = self._guis.pop(tag, ({}, None))
        for connector in connectors.values():
            connector.disconnect()
        if observer is not None:
            self.RemoveObserver(observer)

    def _from_gui(self, name, connector):
        if not self._updating:
            with slicer.util.NodeModify(self):
                self.setValue(name, connector.read())

    def _to_gui(self):
        if self._updating:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self):
                for connectors, _ in list(self._guis.values()):
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, was_modifying):
        return self.parameterNode.EndModify(was_modifying)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        self.parameterNode.Modified()


def findChildWidgetForParameter(widget, parameter):
    found = (child for child in widget.findChildren(qt.QWidget))
    return next((child for child in found if child.property(SlicerParameterNamePropertyName) == parameter), None)


# Widgets


class _Connector:
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


def _connector(widget, parameter: _Parameter) -> _Connector:
    kind, widget_type = parameter.kind, type(widget)
    if kind is bool and widget_type is qt.QCheckBox:
        return _Connector(widget, "stateChanged", *_attribute(widget, "checked"))
    if kind is bool and widget_type is qt.QPushButton:
        widget.checkable = True
        return _Connector(widget, "toggled", *_attribute(widget, "checked"))
    if kind in (int, float) and widget_type in _NUMBER_WIDGETS:
        return _number_connector(widget, parameter)
    if widget_type in (qt.QComboBox, ctk.ctkComboBox):
        return _combo_box_connector(widget, parameter)
    if kind is str and widget_type is qt.QLineEdit:
        return _Connector(
            widget, "textChanged", lambda: widget.text, lambda value: widget.text == value or widget.setText(value)
        )
    if kind is str and widget_type is qt.QLabel:
        return _Connector(widget, None, *_attribute(widget, "text"))
    if kind in PATHS and widget_type is ctk.ctkPathLineEdit:
        return _Connector(
            widget,
            "currentPathChanged",
            lambda: kind(widget.currentPath),
            lambda value: setattr(widget, "currentPath", str(value)),
        )
    if widget_type is qMRMLNodeComboBox:
        members = parameter.store.members if isinstance(parameter.store, _Union) else [parameter.store]
        nodes = [member.kind for member in members if isinstance(member, _Node)]
        if nodes:
            widget.nodeTypes = [node.__name__ for node in nodes]
            return _Connector(widget, "currentNodeChanged", widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{widget_type}'.")


_SLIDERS = (ctk.ctkSliderWidget, qMRMLSliderWidget, qt.QSlider)
_NUMBER_WIDGETS = (*_SLIDERS, qt.QSpinBox, qt.QDoubleSpinBox, ctk.ctkDoubleSpinBox)


def _number_connector(widget, parameter: _Parameter) -> _Connector:
    def annotation(kind):
        return next((found for found in parameter.annotations if isinstance(found, kind)), None)

    whole = parameter.kind is int
    if not whole and type(widget) in (qt.QSlider, qt.QSpinBox):
        raise RuntimeError(f"Unable to create GUI connector from datatype 'float' to widget type '{type(widget)}'.")
    if type(widget) not in (qt.QSlider, qt.QSpinBox):
        decimals = annotation(Decimals)
        if whole or decimals is not None:
            widget.decimals = 0 if whole else decimals.value
    step = annotation(SingleStep)
    if step is not None:
        widget.singleStep = step.value
    within, minimum, maximum = annotation(WithinRange), annotation(Minimum), annotation(Maximum)
    low = within.minimum if within else minimum.minimum if minimum else None
    high = within.maximum if within else maximum.maximum if maximum else None
    if type(widget) in _SLIDERS and (low is None or high is None):
        raise RuntimeError("Cannot have a connection to a slider where the type is unbounded.")
    widget.minimum = low if low is not None else (-(2**31) if type(widget) is qt.QSpinBox else float("-inf"))
    widget.maximum = high if high is not None else (2**31 - 1 if type(widget) is qt.QSpinBox else float("inf"))
    convert = int if whole else float
    return _Connector(
        widget,
        "valueChanged",
        lambda: convert(widget.value),
        lambda value: setattr(widget, "value", convert(value)),
    )


def _combo_box_connector(widget, parameter: _Parameter) -> _Connector:
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

    return _Connector(widget, "currentIndexChanged", lambda: values[widget.currentIndex], write)


module = types.ModuleType("slicer.parameterNodeWrapper", __doc__)
module.__all__ = [
    *("parameterNodeWrapper", "isParameterNodeWrapper", "findChildWidgetForParameter"),
    *("SlicerParameterNamePropertyName", "Default", "Decimals", "SingleStep"),
    *("Validator", "NotNone", "IsInstance", "WithinRange", "Minimum", "Maximum", "Choice", "Exclude"),
]
for _name in module.__all__:
    setattr(module, _name, globals()[_name])
