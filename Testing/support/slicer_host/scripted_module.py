"""`slicer.ScriptedLoadableModule`, and what Slicer does around a scripted module: loading it, its panel, unloading."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui

from .ctk_widgets import kept
from .mrml_widgets import qMRMLWidget
from .pythonqt import QtObject, pyside_only_spellings, qt, record_error


class ScriptedLoadableModule:
    """Base of a module's description."""

    def __init__(self, parent):
        super().__init__()
        self.parent = parent
        self.moduleName = self.__class__.__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        for ending in (".svg", ".png"):
            icon = Path(parent.path).parent / "Resources" / "Icons" / (self.moduleName + ending)
            if icon.is_file():
                parent.icon = qt.QIcon(str(icon))
                break
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def runTest(self, msec=100, **kwargs):
        test_class = getattr(sys.modules[self.__module__], self.moduleName + "Test", None)
        if test_class is None:
            raise AssertionError(f"Test case class not found: {self.__module__}.{self.moduleName}Test")
        test = test_class()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """Base of a module's panel. Without developer mode there is no Reload and Test section, and the host has none."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = self.__class__.__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        if parent is None:
            self.parent = qMRMLWidget()
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename):
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self):
        pass

    def cleanup(self):
        pass

    def onReload(self):
        """The button Reload of developer mode; Slicer shows errors in a message."""
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, moduleName):
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """Base of a module's logic, with its parameter node."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = self.__class__.__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                # Closing the scene takes the attribute away.
                if node.GetAttribute("ModuleName") != self.moduleName:
                    node.SetAttribute("ModuleName", self.moduleName)
                return node
        elif self.getAllParameterNodes():
            return self.getAllParameterNodes()[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self):
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of a module's self test."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        super(unittest.TestCase, self).__init__()
        self.messageDelay = 50

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        slicer.util.delayDisplay(message, min(self.messageDelay, 100))

    def runTest(self):
        """Override this to run all tests."""


module = types.ModuleType("slicer.ScriptedLoadableModule", __doc__)
module.__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]
for _name in module.__all__:
    setattr(module, _name, globals()[_name])


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The panel as Slicer sees it: what is around the Python class, and calls its setup, enter and exit."""

    _offered = True

    def __init__(self, module_name):
        qMRMLWidget.__init__(self)
        qt.QVBoxLayout(self)
        self._module_name, self._python = module_name, None
        self._entered = False

    def self(self):
        return self._python

    def _call(self, method: str) -> None:
        """Slicer prints what these methods raise and goes on."""
        function = getattr(self._python, method, None)
        if function is None:
            return
        try:
            function()
        except Exception:
            record_error(*sys.exc_info())

    def reload(self) -> None:
        """Makes the Python panel, of the module's file as it was last read."""
        widget_name = self._module_name + "Widget"
        self._python = getattr(sys.modules[self._module_name], widget_name)(self)
        setattr(slicer.modules, widget_name, self._python)
        self.setup()

    def setup(self) -> None:
        self._call("setup")

    def enter(self) -> None:
        self._entered = True
        self._call("enter")

    def exit(self) -> None:
        self._entered = False
        self._call("exit")

    isEntered = QtCore.Property(bool, lambda self: self._entered)


class qSlicerScriptedLoadableModule(QtObject, QtCore.QObject):
    """A scripted module as Slicer sees it: the `parent` of the module's Python class."""

    _offered = True
    title = kept(str, "title", "")
    helpText = kept(str, "helpText", "")
    acknowledgementText = kept(str, "acknowledgementText", "")
    categories = kept("QStringList", "categories", [])
    contributors = kept("QStringList", "contributors", [])
    dependencies = kept("QStringList", "dependencies", [])
    associatedNodeTypes = kept("QStringList", "associatedNodeTypes", [])
    icon = kept(QtGui.QIcon, "icon", QtGui.QIcon())
    hidden = kept(bool, "hidden", False)
    index = kept(int, "index", -1)
    widgetRepresentationCreationEnabled = kept(bool, "creation", True)

    def __init__(self, path: Path):
        QtCore.QObject.__init__(self)
        self._path, self._representation = str(path), None
        self._module_name = path.stem
        self._python_module, self._instance = None, None

    path = QtCore.Property(str, lambda self: self._path)
    name = QtCore.Property(str, lambda self: self._module_name)

    def logic(self):
        return None  # the C++ logic of a scripted module; slicer.util.getModuleLogic asks the panel

    def createNewWidgetRepresentation(self):
        widget_class = getattr(self._python_module, self._module_name + "Widget", None)
        if widget_class is None or not self.widgetRepresentationCreationEnabled:
            return None
        representation = qSlicerScriptedLoadableModuleWidget(self._module_name)
        QtCore.QObject.setObjectName(representation, self._module_name + "ModuleWidget")
        representation.reload()
        representation.setMRMLScene(slicer.mrmlScene)
        return representation

    def widgetRepresentation(self):
        """The panel, made when first asked for."""
        if self._representation is None:
            self._representation = self.createNewWidgetRepresentation()
        return self._representation


def load_module(path: str | Path):
    """Load a scripted module from its file, as Slicer does at start; returns `slicer.modules.<name>`.

    Raises what the file raises, ImportError included, and AssertionError for names that only PySide6 understands.
    """
    path = Path(path).resolve()
    wrong = pyside_only_spellings(path)
    if wrong:
        raise AssertionError("not known to PythonQt: " + ", ".join(wrong))
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    python_module = importlib.util.module_from_spec(spec)
    sys.modules[name] = python_module
    spec.loader.exec_module(python_module)
    loaded = qSlicerScriptedLoadableModule(path)
    loaded._python_module = python_module
    loaded._instance = getattr(python_module, name)(loaded)
    setattr(slicer.modules, name.lower(), loaded)
    setattr(slicer.modules, name + "Instance", loaded._instance)
    slicer.app.moduleManager()._modules[name] = loaded
    if hasattr(loaded._instance, "setup"):
        loaded._instance.setup()
    # Slicer emits this once, after all modules are loaded.
    slicer.app.startupCompleted()
    slicer.app.disconnect("startupCompleted()")
    return loaded


def unload_module(name: str) -> None:
    """Clean up a module's panel and forget the module and its Python file."""
    manager = slicer.app.moduleManager()
    representation = manager.module(name)._representation
    if representation is not None:
        selector = slicer.app._main_window.moduleSelector()
        if selector.selectedModule == name:
            selector.selectModule("")
        manager.moduleAboutToBeUnloaded(name)
        representation.close()
        representation.deleteLater()
    manager._modules.pop(name)
    for attribute in (name.lower(), name + "Instance", name + "Widget"):
        if hasattr(slicer.modules, attribute):
            delattr(slicer.modules, attribute)
    sys.modules.pop(name, None)
    slicer.selfTests.pop(name, None)
