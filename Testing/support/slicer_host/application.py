"""`slicer.app` and the objects it hands out: modules, files, settings, main window."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .layout import qSlicerLayoutManager
from .pythonqt import QtObject, qt

VERSION = (5, 12)


def _constant(kind, value):
    return QtCore.Property(kind, lambda self: value, constant=True)


class qSlicerModuleManager(QtObject, QtCore.QObject):
    """All modules by name, those of the wheel's logics and those loaded by the host."""

    _offered = True
    moduleAboutToBeUnloaded = QtCore.Signal(str)
    moduleLoaded = QtCore.Signal(str)

    def __init__(self):
        QtCore.QObject.__init__(self)
        self._modules = {}

    def module(self, name: str):
        return self._modules.get(name)

    def factoryManager(self):
        return self

    def loadedModuleNames(self):
        return list(self._modules)


class qSlicerCoreModule(QtObject, QtCore.QObject):
    """A module written in C++, of which only the logic is here."""

    _offered = True

    def __init__(self, name: str, logic):
        QtCore.QObject.__init__(self)
        self._name, self._logic = name, logic

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return None

    name = QtCore.Property(str, lambda self: self._name)


class qSlicerModuleSelector(QtObject, QtCore.QObject):
    """The menu of modules: selecting one leaves the current module and enters the new one."""

    _offered = True
    moduleSelected = QtCore.Signal(str)

    def __init__(self, manager):
        QtCore.QObject.__init__(self)
        self._manager, self._selected = manager, ""

    def selectModule(self, name: str) -> None:
        if name == self._selected:
            return
        for module_name, action in ((self._selected, "exit"), (name, "enter")):
            module = self._manager.module(module_name)
            representation = module.widgetRepresentation() if module is not None else None
            if representation is not None:
                getattr(representation, action)()
        self._selected = name
        self.moduleSelected(name)

    selectedModule = QtCore.Property(str, lambda self: self._selected)


class qSlicerMainWindow(QtObject, QtWidgets.QMainWindow):
    """The main window, never shown: it makes messages appear and modules selectable, as with a real one."""

    _offered = True

    def __init__(self, manager):
        QtWidgets.QMainWindow.__init__(self)
        QtCore.QObject.setObjectName(self, "qSlicerMainWindow")
        self._selector = qSlicerModuleSelector(manager)

    def moduleSelector(self):
        return self._selector


class qSlicerCoreIOManager(QtObject, QtCore.QObject):
    """Reading and writing of nodes and scenes through the real storage nodes and logics, for the common file types."""

    _offered = True
    _BY_ENDING = (
        (".seg.nrrd", "SegmentationFile"),
        (".mrb", "SceneFile"),
        (".mrml", "SceneFile"),
        ((".nrrd", ".nii", ".nii.gz", ".mha", ".mhd", ".nhdr"), "VolumeFile"),
        ((".h5", ".tfm", ".mat", ".txt"), "TransformFile"),
        ((".csv", ".tsv"), "TableFile"),
        ((".vtp", ".vtk", ".stl", ".ply", ".obj"), "ModelFile"),
    )

    def __init__(self, app):
        QtCore.QObject.__init__(self)
        self._application = app

    def fileType(self, filename: str) -> str:
        name = str(filename).lower()
        return next((kind for ending, kind in self._BY_ENDING if name.endswith(ending)), "NoFile")

    def loadNodes(self, file_type, properties, loaded=None, messages=None) -> bool:
        logics = self._application._host_scene.module_logics
        path = properties["fileName"]
        name = properties.get("name") or Path(path).name.split(".")[0]
        if file_type == "SceneFile":
            return self._load_scene(path, properties.get("clear", True))
        if file_type == "VolumeFile":
            node = logics["Volumes"].AddArchetypeVolume(path, name, 1 if properties.get("labelmap") else 0)
            if node is not None and properties.get("show", True):
                selection = self._application.applicationLogic().GetSelectionNode()
                selection.SetActiveVolumeID(node.GetID())
                self._application.applicationLogic().PropagateVolumeSelection()
        elif file_type == "SegmentationFile":
            node = logics["Segmentations"].LoadSegmentationFromFile(path, True, name)
        elif file_type == "TransformFile":
            node = logics["Transforms"].AddTransform(path, slicer.mrmlScene)
        elif file_type == "TableFile":
            node = logics["Tables"].AddTable(path, name)
        elif file_type == "ModelFile":
            node = logics["Models"].AddModel(path)
        else:
            node = None
        if node is None:
            return False
        if loaded is not None:
            loaded.AddItem(node)
        return True

    def _load_scene(self, path: str, clear: bool) -> bool:
        scene = slicer.mrmlScene
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def fileWriterFileType(self, node) -> str:
        return f"{node.GetClassName()} writer"

    def saveNodes(self, file_type, properties, messages=None) -> bool:
        path = str(properties["fileName"])
        scene = slicer.mrmlScene
        if file_type == "SceneFile":
            if path.endswith(".mrb"):
                return bool(scene.WriteToMRB(path))
            if path.endswith(".mrml"):
                scene.SetURL(path)
                return bool(scene.Commit())
            Path(path).mkdir(parents=True, exist_ok=True)
            return bool(self._application.applicationLogic().SaveSceneToSlicerDataBundleDirectory(path, None))
        node = scene.GetNodeByID(properties["nodeID"])
        storage = node.GetStorageNode()
        if storage is None:
            node.AddDefaultStorageNode(path)
            storage = node.GetStorageNode()
        storage.SetFileName(path)
        storage.SetUseCompression(1 if properties.get("useCompression", True) else 0)
        return bool(storage.WriteData(node))


class qSlicerApplication(QtObject, QtWidgets.QApplication):
    """`slicer.app`. What it does not offer raises AttributeError, also where the real one has it."""

    _offered = True
    startupCompleted = QtCore.Signal()
    slicerHome = QtCore.Property(str, lambda self: self._home)
    temporaryPath = QtCore.Property(str, lambda self: self._temporary)
    cachePath = QtCore.Property(str, lambda self: self._home + "/cache")
    documentationBaseUrl = _constant(str, "https://slicer.readthedocs.io/en/latest/")
    os = _constant(str, {"win32": "win", "darwin": "macosx"}.get(sys.platform, "linux"))

    def __init__(self, home: Path):
        QtWidgets.QApplication.__init__(self, ["Slicer"])
        base = QtCore.QCoreApplication
        base.setApplicationName("Slicer")
        base.setOrganizationName("slicer.org")
        base.setApplicationVersion(f"{VERSION[0]}.{VERSION[1]}.0")
        self._home, self._temporary = str(home), str(home / "temporary")
        self._original_environment = QtCore.QProcessEnvironment.systemEnvironment()
        self._testing = False
        Path(self._temporary).mkdir(parents=True, exist_ok=True)
        _make_python_slicer(home)
        # Settings of the test run only: the user's own are neither read nor written.
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        for scope in (QtCore.QSettings.Scope.UserScope, QtCore.QSettings.Scope.SystemScope):
            QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, scope, str(home / "settings"))

    def _start(self, host_scene) -> None:
        self._host_scene = host_scene
        self._module_manager = qSlicerModuleManager()
        self._io_manager = qSlicerCoreIOManager(self)
        self._layout_manager = qSlicerLayoutManager(host_scene)
        self._main_window = qSlicerMainWindow(self._module_manager)

    def mrmlScene(self):
        return self._host_scene.mrml

    def applicationLogic(self):
        return self._host_scene.application_logic

    def moduleManager(self):
        return self._module_manager

    def coreIOManager(self):
        return self._io_manager

    def ioManager(self):
        return self._io_manager

    def layoutManager(self):
        return self._layout_manager

    def testingEnabled(self) -> bool:
        return self._testing

    def userSettings(self):
        return qt.QSettings()

    settings = userSettings

    def startupEnvironment(self):
        """The environment before Slicer added its own paths, so without the folder of PythonSlicer."""
        return self._original_environment

    def translate(self, context: str, text: str) -> str:
        return text

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"https://slicer.readthedocs.io/en/latest/user_guide/modules/{name.lower()}.html"

    def pauseRender(self) -> None:
        pass

    def resumeRender(self) -> None:
        pass

    def restart(self) -> None:
        raise AssertionError("the module asked Slicer to restart, which the host cannot do")


def _make_python_slicer(home: Path) -> None:
    """A PythonSlicer on the path, as in an installed Slicer: this Python, without application and scene."""
    folder = home / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / ("PythonSlicer.bat" if os.name == "nt" else "PythonSlicer")
    if os.name == "nt":
        script.write_text(f'@"{sys.executable}" %*\n')
    else:
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    os.environ["PATH"] = str(folder) + os.pathsep + os.environ.get("PATH", "")


def temporary_home() -> Path:
    """A folder for everything that Slicer keeps between sessions, gone with the process."""
    home = Path(tempfile.mkdtemp(prefix="slicer-host-"))
    (home / "cache").mkdir()
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def quiet_plugin(kind, context, message: str) -> None:
    """Qt's messages on stderr, without the one that its off-screen plugin repeats for every window."""
    if "propagateSizeHints" not in message:
        print(message, file=sys.stderr)


def use_theme(dark: bool) -> None:
    """Qt's Fusion style, on which Slicer's own is built, with light or dark colours."""
    QtWidgets.QApplication.setStyle("Fusion")
    QtWidgets.QApplication.setPalette(_dark_palette() if dark else QtWidgets.QApplication.style().standardPalette())


def _dark_palette() -> QtGui.QPalette:
    palette, role = QtGui.QPalette(), QtGui.QPalette.ColorRole
    grey = {role.Window: 55, role.Base: 40, role.AlternateBase: 50, role.Button: 60, role.ToolTipBase: 55}
    for kind, level in grey.items():
        palette.setColor(kind, QtGui.QColor(level, level, level))
    for kind in (role.WindowText, role.Text, role.ButtonText, role.ToolTipText):
        palette.setColor(kind, QtGui.QColor(230, 230, 230))
        palette.setColor(QtGui.QPalette.ColorGroup.Disabled, kind, QtGui.QColor(130, 130, 130))
    palette.setColor(role.Highlight, QtGui.QColor(42, 130, 218))
    palette.setColor(role.Link, QtGui.QColor(90, 170, 255))
    return palette
