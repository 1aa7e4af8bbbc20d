"""A stand-in for the Slicer application, in which a scripted module runs without Slicer.

How to use it, in a test:

    from slicer_host.fixtures import host            # skips where PySide6 or slicer-core are missing

    def test_align(host, tmp_path):
        module = host.load("DNetRegistration/DNetRegistration.py")   # slicer.modules.dnetregistration
        widget = host.open("DNetRegistration")       # selects the module: real .ui, setup(), enter()
        widget.ui.alignButton.click()
        host.wait_until(lambda: not widget.logic.running, seconds=60)     # runs the event loop
        host.dialogs.will_answer("Yes")              # the answer to the next question
        assert host.dialogs.texts == ["..."]         # every message shown
        host.slice_picture("Red", tmp_path / "red.png")
        host.widget_picture(widget.parent, tmp_path / "panel.png")

Also: `close_scene`, `quit`, `reset`, `use_theme(dark)`, `set_main_window(shown)`, `click_sample_data(name)`,
`three_d_picture`, `process_events`, and `installations`, what was asked of slicer.packaging.

Or by hand: `host = slicer_host.start()`. Afterwards `import qt, ctk, slicer, SampleData` work everywhere, with
`slicer.app`, `slicer.mrmlScene`, `slicer.modules` and `slicer.util` as in Slicer's Python console.

Exceptions in slots, timers and VTK observers, which Slicer only prints, are printed and kept in `host.errors`; the
fixture fails the test that leaves one there, or a question of the module that has no answer queued, or an answer that
was never asked for.

What is real: the scene, nodes, logics, storage and displayable managers (slicer-core), `slicer.util`, Qt's widgets and
event loop, processes. What stands in: PythonQt (`pythonqt`), the `ctk` and `qMRML` widgets, the application object, the
parameter node wrapper, the scripted module's base classes, translation, packaging, Sample Data. Of these, most of
what is Python comes from a checkout of Slicer where one is given (`own_python`). A name the host lacks raises
AttributeError, as a name that Slicer lacks does; look it up in Slicer's source before adding it.

What it cannot show: how Slicer's own style, docking and DPI scaling make a panel look; rulers, corner annotation and
mouse interaction in the views; Windows and macOS; Slicer's launcher and its environment; the C++ side of extensions.
Python threads run freely here and hardly in Slicer, so a module that relies on them proves nothing here. The layout is
always four-up. The real `ctk` and `qMRML` widgets have more properties than the host's; a `.ui` that sets those is
refused until they are added. Qt is 6 here; Slicer may have 5.15.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import types
from pathlib import Path

__all__ = ["Host", "start", "why_unusable"]

_host = None


def why_unusable() -> str:
    """Why the host cannot run here, for the message of a skipped test; an empty string where it can."""
    from importlib import metadata

    for package in ("PySide6-Essentials", "slicer-core"):
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            return f"{package} is not installed"
        # Seen on Python 3.11: 6.12 loses a reference to None in every call, until Python aborts; 6.8 to 6.11 do not.
        number = tuple(int(part) for part in version.split(".")[:2])
        if package == "PySide6-Essentials" and number >= (6, 12) and sys.version_info < (3, 12):
            return f"PySide6 {version} crashes Python before 3.12; install PySide6-Essentials<6.12"
    try:
        import PySide6.QtWidgets  # noqa: F401
        import slicer  # noqa: F401
    except ImportError as problem:  # libraries of the system that are missing
        return str(problem)
    return ""


def start() -> Host:
    """The one host of this process."""
    global _host
    if _host is None:
        _host = Host()
    return _host


class Host:
    """The running stand-in: what tests do to it, and what it has recorded."""

    def __init__(self) -> None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        import slicer
        import slicer.util
        from PySide6 import QtCore

        from . import pythonqt

        # Order matters: each of these needs the ones before it.
        sys.modules["qt"] = pythonqt.qt
        from . import application, ctk_widgets

        self._home = application.temporary_home()
        QtCore.qInstallMessageHandler(application.quiet_plugin)
        slicer.app = application.qSlicerApplication(self._home)
        sys.modules["ctk"] = ctk_widgets.ctk
        from . import dialogs, layout, mrml_widgets, pictures, python_modules, sample_data, scene

        self.errors = pythonqt.errors
        self.dialogs = dialogs.dialogs
        self.installations = python_modules.installations
        self._scene = scene.make_scene(self._home / "cache")
        slicer.mrmlScene = self._scene.mrml
        slicer.modules = types.SimpleNamespace()
        slicer.selfTests = {}
        for module in (application, mrml_widgets, layout):
            for name, value in vars(module).items():
                if isinstance(value, type) and name.startswith(("qSlicer", "qMRML")):
                    setattr(slicer, name, value)
        from . import own_python, parameter_nodes, scripted_module, ui_loader  # noqa: F401

        slicer.qSlicerScriptedLoadableModule = scripted_module.qSlicerScriptedLoadableModule
        slicer.qSlicerScriptedLoadableModuleWidget = scripted_module.qSlicerScriptedLoadableModuleWidget
        imitated = {
            "ScriptedLoadableModule": scripted_module.module,
            "parameterNodeWrapper": parameter_nodes.module,
            "i18n": python_modules.i18n,
            "packaging": python_modules.packaging,
        }
        for name, module in (imitated | own_python.modules()).items():
            sys.modules[f"slicer.{name}"] = module
            setattr(slicer, name, module)
        sys.modules["SampleData"] = sample_data.module
        slicer.app._start(self._scene)
        for name, logic in self._scene.module_logics.items():
            module = application.qSlicerCoreModule(name, logic)
            slicer.app.moduleManager()._modules[name] = module
            setattr(slicer.modules, name.lower(), module)
        self._built_in = dict(vars(slicer.modules))
        self._scripted_module = scripted_module
        self.click_sample_data = sample_data.click
        self.slice_picture = pictures.slice_picture
        self.three_d_picture = pictures.three_d_picture
        self.widget_picture = pictures.widget_picture
        self.use_theme = application.use_theme
        self.use_theme(dark=False)
        sys.excepthook = pythonqt.record_error
        atexit.register(self.quit)  # or Qt crashes on what modules have still running

    def load(self, path: str | Path):
        """Load a scripted module from its file; returns what `slicer.modules.<name>` is."""
        return self._scripted_module.load_module(path)

    def open(self, name: str):
        """Select a module as the user does, and return its widget (the Python class)."""
        import slicer.util

        slicer.util.selectModule(name)
        return slicer.util.getModuleWidget(name)

    def process_events(self, seconds: float = 0.0) -> None:
        """Run the event loop, for a while if asked."""
        from PySide6 import QtCore

        end = time.monotonic() + seconds
        while True:
            QtCore.QCoreApplication.processEvents()
            QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
            if time.monotonic() >= end:
                return
            time.sleep(0.005)

    def wait_until(self, condition, seconds: float = 30.0) -> None:
        """Run the event loop until the condition holds; AssertionError if it does not within the time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"did not happen within {seconds} s; errors so far: {self.errors}")
            self.process_events(0.01)

    def quit(self) -> None:
        """What Slicer does when its window is closed: every scripted module is cleaned up and unloaded."""
        import slicer

        for name, module in list(slicer.app.moduleManager()._modules.items()):
            if isinstance(module, slicer.qSlicerScriptedLoadableModule):
                self._scripted_module.unload_module(name)
        self.process_events()

    def close_scene(self) -> None:
        """File > Close Scene."""
        import slicer

        slicer.mrmlScene.Clear(False)

    def set_main_window(self, shown: bool) -> None:
        """With False, as under `--no-main-window`: messages are only logged and no module can be selected."""
        import slicer
        from PySide6 import QtCore

        window = slicer.app._main_window
        QtCore.QObject.setObjectName(window, "qSlicerMainWindow" if shown else "absent")

    def reset(self) -> None:
        """Back to an empty scene without loaded modules, recorded dialogs and errors."""
        import slicer

        from . import scene

        self.quit()
        self.set_main_window(True)
        self.use_theme(dark=False)
        scene.restore(self._scene)
        vars(slicer.modules).clear()
        vars(slicer.modules).update(self._built_in)
        slicer.app._testing = False
        self.dialogs.clear()
        self.installations.clear()
        self.errors.clear()
