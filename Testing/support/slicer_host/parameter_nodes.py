"""`slicer.parameterNodeWrapper`: typed parameters in a vtkMRMLScriptedModuleNode, bound to widgets.

Offered: nodes, str, bool, int, float, pathlib.Path, enumerations, `Optional` and unions of these, with `Annotated` and
Default, WithinRange and Choice. Not offered: other validators, Decimals, SingleStep, lists, tuples, dicts, parameter
packs, Any.
"""

from __future__ import annotations

import types
import typing

import slicer
import vtk

from . import parameters
from .parameter_widgets import connector_for
from .parameters import make_parameter
from .pythonqt import QtObject, qt

SlicerParameterNamePropertyName = "SlicerParameterName"


def parameterNodeWrapper(classtype=None):
    """Class decorator: annotated names become typed properties of a parameter node."""
    return _wrap if classtype is None else _wrap(classtype)


def _wrap(classtype):
    hints = typing.get_type_hints(classtype, include_extras=True)
    parameters = {name: make_parameter(classtype, name, hint) for name, hint in hints.items()}
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
    return classtype


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
        connectors = {name: connector_for(widget, self._checked(name)) for name, widget in mapping.items()}
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


module = types.ModuleType("slicer.parameterNodeWrapper", __doc__)
module.__all__ = [
    *("parameterNodeWrapper", "SlicerParameterNamePropertyName", "Default", "Validator", "WithinRange", "Choice"),
]
for _name in module.__all__:
    setattr(module, _name, globals().get(_name) or getattr(parameters, _name))
