"""The stand-in for Slicer itself: what the tests of the module rely on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import places
import pytest
import slicer_host

MODULE = """
import pathlib
import sys
from typing import Annotated, Optional

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


class Tiny(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Tiny")
        parent.categories = ["Registration"]
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Tiny", sampleName="Cube", uris=["local"], fileNames=["cube"], nodeNames=["Cube"],
        loadFiles=[False], customDownloader=makeCube)


def makeCube(source):
    import numpy

    return [slicer.util.addVolumeFromArray(numpy.ones((4, 4, 4)), name=source.nodeNames[0])]


@parameterNodeWrapper
class TinyParameterNode:
    inputVolume: slicer.vtkMRMLScalarVolumeNode
    outputTransform: Optional[slicer.vtkMRMLLinearTransformNode]
    threshold: Annotated[float, WithinRange(-10, 10)] = 1.5
    device: Annotated[str, Choice(["auto", "cpu"]), Default("auto")]
    invert: bool = False
    weights: pathlib.Path


class TinyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.events = []
        self._guiTag = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/Tiny.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = TinyLogic()
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onEndClose)
        self.initializeParameterNode()

    def initializeParameterNode(self):
        if self._guiTag is not None:
            self.parameters.disconnectGui(self._guiTag)
        self.parameters = TinyParameterNode(self.logic.getParameterNode())
        self._guiTag = self.parameters.connectGui(self.ui)

    def enter(self):
        self.events.append("enter")

    def exit(self):
        self.events.append("exit")

    def cleanup(self):
        self.removeObservers()
        self.parameters.disconnectGui(self._guiTag)

    def onStartClose(self, caller, event):
        self.events.append("start close")
        self.parameters.disconnectGui(self._guiTag)
        self._guiTag = None

    def onEndClose(self, caller, event):
        self.events.append("end close")
        self.initializeParameterNode()

    def onApply(self):
        self.events.append(slicer.util.confirmOkCancelDisplay("Go on?"))
        slicer.util.errorDisplay("It did not work.", detailedText="why")


class TinyLogic(ScriptedLoadableModuleLogic):
    def twice(self, value):
        return 2 * value
"""

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0">
 <class>Tiny</class>
 <widget class="qMRMLWidget" name="Tiny">
  <layout class="QVBoxLayout" name="verticalLayout">
   <item>
    <widget class="ctkCollapsibleButton" name="inputsButton">
     <property name="text"><string>Inputs</string></property>
     <layout class="QFormLayout" name="formLayout">
      <item row="0" column="0">
       <widget class="QLabel" name="label"><property name="text"><string>Volume:</string></property></widget>
      </item>
      <item row="0" column="1">
       <widget class="qMRMLNodeComboBox" name="inputSelector">
        <property name="nodeTypes">
         <stringlist notr="true"><string>vtkMRMLScalarVolumeNode</string></stringlist>
        </property>
        <property name="showChildNodeTypes"><bool>false</bool></property>
        <property name="addEnabled"><bool>false</bool></property>
        <property name="removeEnabled"><bool>false</bool></property>
        <property name="noneEnabled"><bool>true</bool></property>
        <property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property>
       </widget>
      </item>
      <item row="1" column="1">
       <widget class="qMRMLNodeComboBox" name="outputSelector">
        <property name="nodeTypes">
         <stringlist notr="true"><string>vtkMRMLLinearTransformNode</string></stringlist>
        </property>
        <property name="baseName"><string>Alignment</string></property>
        <property name="noneEnabled"><bool>true</bool></property>
        <property name="SlicerParameterName" stdset="0"><string>outputTransform</string></property>
       </widget>
      </item>
      <item row="2" column="1">
       <widget class="ctkSliderWidget" name="thresholdSlider">
        <property name="SlicerParameterName" stdset="0"><string>threshold</string></property>
       </widget>
      </item>
      <item row="3" column="1">
       <widget class="QComboBox" name="deviceBox">
        <property name="SlicerParameterName" stdset="0"><string>device</string></property>
       </widget>
      </item>
      <item row="4" column="1">
       <widget class="QCheckBox" name="invertBox">
        <property name="text"><string>Invert</string></property>
        <property name="SlicerParameterName" stdset="0"><string>invert</string></property>
       </widget>
      </item>
      <item row="5" column="1">
       <widget class="ctkPathLineEdit" name="weightsEdit">
        <property name="SlicerParameterName" stdset="0"><string>weights</string></property>
       </widget>
      </item>
     </layout>
    </widget>
   </item>
   <item>
    <widget class="QPushButton" name="applyButton"><property name="text"><string>Apply</string></property></widget>
   </item>
  </layout>
 </widget>
 <customwidgets/>
 <connections>
  <connection>
   <sender>Tiny</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
   <receiver>inputSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot>
  </connection>
  <connection>
   <sender>Tiny</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
   <receiver>outputSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot>
  </connection>
 </connections>
</ui>
"""


@pytest.fixture
def tiny(host, tmp_path):
    """The panel of a small module with one widget of each kind."""
    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    (tmp_path / "Tiny.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "Resources" / "UI" / "Tiny.ui").write_text(UI)
    host.load(tmp_path / "Tiny.py")
    return host.open("Tiny")


def test_module_is_found_as_in_slicer(host, tiny):
    import slicer

    assert slicer.modules.tiny.title == "Tiny" and slicer.modules.tiny.categories == ["Registration"]
    assert slicer.modules.TinyWidget is tiny
    assert slicer.util.getModuleLogic("Tiny").twice(3) == 6
    assert tiny.events == ["enter"]
    slicer.util.selectModule("Data")
    assert tiny.events == ["enter", "exit"]


def test_click_asks_and_tells(host, tiny):
    host.dialogs.will_answer("Cancel")
    tiny.ui.applyButton.click()
    host.dialogs.will_answer("OK")
    tiny.ui.applyButton.click()
    assert tiny.events == ["enter", False, True]
    assert host.dialogs.texts == ["Go on?", "It did not work."] * 2
    assert host.dialogs.shown[1].kind == "critical" and host.dialogs.shown[1].detailed_text == "why"


def test_question_without_an_answer_is_recorded_and_declined(host, tiny):
    tiny.ui.applyButton.click()
    assert tiny.events == ["enter", False]
    assert len(host.errors) == 1 and "no answer was queued" in str(host.errors[0])
    host.errors.clear()


def test_errors_in_slots_and_observers_are_kept(host):
    import qt
    import slicer
    import vtk

    def fail(*_arguments):
        raise RuntimeError("in a slot")

    button = qt.QPushButton("x")
    button.clicked.connect(fail)
    button.click()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, fail)
    node.Modified()
    qt.QTimer.singleShot(0, fail)
    host.process_events(0.05)
    assert [str(error) for error in host.errors] == ["in a slot"] * 3
    host.errors.clear()


def test_node_selector_follows_the_scene(host, tiny):
    import slicer

    selector = tiny.ui.inputSelector
    changes = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: changes.append(node and node.GetName()))
    first = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2)), name="first")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert selector.nodeCount() == 1 and selector.currentNode() is None  # no child types; None stays chosen
    selector.setCurrentNode(first)
    assert tiny.parameters.inputVolume is first
    first.SetName("renamed")
    slicer.mrmlScene.RemoveNode(first)
    assert selector.currentNode() is None and selector.currentNodeID == ""
    assert changes == ["first", "renamed", None]


def test_node_selector_without_none_chooses_and_creates(host):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLTextNode"]
    selector.baseName = "Note"
    selector.setMRMLScene(slicer.mrmlScene)
    one = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "one")
    two = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "two")
    assert selector.currentNode() is one
    slicer.mrmlScene.RemoveNode(one)
    assert selector.currentNode() is two
    made = selector.addNode()
    assert selector.currentNode() is made and made.GetName().startswith("Note")
    selector.setMRMLScene(None)
    assert not selector.enabled and selector.nodeCount() == 0


def test_parameters_follow_widgets_and_scene_files(host, tiny, tmp_path):
    import pathlib

    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.float32), name="scan")
    assert (tiny.ui.thresholdSlider.minimum, tiny.ui.thresholdSlider.maximum) == (-10, 10)
    assert tiny.ui.thresholdSlider.value == tiny.parameters.threshold == 1.5
    tiny.ui.inputSelector.setCurrentNode(volume)
    tiny.ui.thresholdSlider.value = 2.25
    tiny.ui.deviceBox.currentIndex = 1
    tiny.ui.invertBox.checked = True
    tiny.ui.weightsEdit.currentPath = "a/b.pt"
    made = tiny.ui.outputSelector.addNode()
    assert made.GetName() == "Alignment"
    with pytest.raises(ValueError):
        tiny.parameters.threshold = 11.0
    with pytest.raises(TypeError):
        tiny.parameters.invert = 1

    node = tiny.parameters.parameterNode  # the names under which Slicer's own wrapper keeps values
    assert node.GetParameter("threshold") == "2.25" and node.GetParameter("invert") == "True"
    assert node.GetNodeReference("inputVolume") is volume and node.GetNodeReference("outputTransform.0") is made

    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    host.close_scene()
    assert tiny.events[-2:] == ["start close", "end close"]
    assert tiny.parameters.threshold == 1.5 and tiny.ui.inputSelector.currentNode() is None
    assert not tiny.ui.invertBox.checked and tiny.ui.deviceBox.currentText == "auto"

    slicer.util.loadScene(str(path))
    tiny.initializeParameterNode()
    parameters = tiny.parameters
    assert parameters.inputVolume.GetName() == "scan" and parameters.outputTransform.GetName() == "Alignment"
    assert (parameters.threshold, parameters.device, parameters.invert) == (2.25, "cpu", True)
    assert parameters.weights == pathlib.Path("a/b.pt")
    assert tiny.ui.inputSelector.currentNode().GetName() == "scan" and tiny.ui.thresholdSlider.value == 2.25


def test_console_process_streams_while_the_event_loop_runs(host):
    import shutil

    import slicer

    code = "import sys, time\nfor i in range(3):\n    print(i, flush=True); time.sleep(0.1)\nsys.exit(5)"
    lines, ends = [], []
    slicer.util.launchConsoleProcess(
        [shutil.which("PythonSlicer"), "-c", code],
        blocking=False,
        logCallback=lines.append,
        completedCallback=ends.append,
    )
    assert lines == []  # it does not block
    host.wait_until(lambda: ends, 20)
    assert lines == ["0", "1", "2"] and ends == [5]


def test_qprocess_ends_when_killed(host):
    import qt

    process = qt.QProcess()
    ended = []
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: ended.append(status))
    process.start(sys.executable, ["-c", "import time; time.sleep(60)"])
    assert process.waitForStarted(5000)
    process.kill()
    host.wait_until(lambda: ended, 10)
    assert ended == [qt.QProcess.CrashExit]


def test_refuses_what_pythonqt_refuses(host, tmp_path):
    import qt
    import slicer

    button = qt.QPushButton("x")
    with pytest.raises(AttributeError):
        button.colour = "red"
    with pytest.raises(AttributeError):
        button.colour  # noqa: B018
    with pytest.raises(TypeError):
        button.text()
    with pytest.raises(TypeError, match="keyword"):
        qt.QPushButton("x", parent=None)
    with pytest.raises(TypeError, match="keyword"):
        button.setText(text="y")
    with pytest.raises(ValueError, match="does not exist"):
        button.connect("pressed(int)", print)
    with pytest.raises(AttributeError):
        qt.Signal  # noqa: B018
    with pytest.raises(AttributeError):
        slicer.app.noSuchThing  # noqa: B018
    source = tmp_path / "Wrong.py"
    source.write_text("import qt\nanswer = qt.QMessageBox.StandardButton.Ok\n")
    with pytest.raises(AssertionError, match=r"Wrong.py:2: qt.QMessageBox.StandardButton.Ok"):
        host.load(source)


def test_sample_data_is_made_by_the_panels_button_alone(host, tiny):
    import SampleData
    import slicer

    host.click_sample_data("Cube")
    assert slicer.util.arrayFromVolume(slicer.util.getNode("Cube")).shape == (4, 4, 4)
    # Scripts go by the addresses, of which it has none.
    with pytest.raises(IndexError):
        SampleData.downloadSample("Cube")


def test_settings_are_not_the_users(host):
    import qt
    import slicer

    settings = qt.QSettings()
    settings.setValue("DNet/key", 3)
    settings.sync()
    assert settings.fileName().startswith(slicer.app.slicerHome)


def _volume(values, spacing=(1.0, 1.0, 1.0), name="scan"):
    import slicer
    import vtk

    to_ras = vtk.vtkMatrix4x4()
    for i in range(3):
        to_ras.SetElement(i, i, spacing[i])
    return slicer.util.addVolumeFromArray(values, ijkToRAS=to_ras, name=name)


def test_slice_picture_shows_the_voxels(host):
    import slicer

    rng = np.random.default_rng(3)
    values = rng.integers(0, 256, (5, 20, 20)).astype(np.uint8)
    node = _volume(values)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 255)
    display.InterpolateOff()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    slicer.app.layoutManager().sliceWidget("Red").sliceLogic().SetSliceOffset(2.0)
    pixels = host.slice_picture("Red", size=(200, 200))
    assert pixels.shape == (200, 200, 3)
    # An axial view looks from the feet: R runs to the left, A up; voxel (i, j) is at R = i, A = j. The 20 mm of the
    # volume fill the 200 pixels, so a voxel is 10 pixels wide.
    seen = pixels[5::10, 5::10, 0].astype(int)
    np.testing.assert_allclose(seen, values[2, ::-1, ::-1], atol=1)


def test_segments_are_outlined_in_slices_and_surfaces_in_3d(host, tmp_path):
    import slicer

    volume = _volume(np.full((20, 40, 40), 100, np.uint8))
    volume.CreateDefaultDisplayNodes()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bones")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("bone", "bone", (1.0, 0.0, 0.0))
    mask = np.zeros((20, 40, 40), np.uint8)
    mask[5:15, 10:30, 10:30] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment, volume)
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetDisplayNode().SetVisibility2DFill(False)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    slicer.app.layoutManager().sliceWidget("Red").sliceLogic().SetSliceOffset(10.0)

    pixels = host.slice_picture("Red", tmp_path / "red.png", size=(400, 400)).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 80)
    rows, columns = np.nonzero(red)
    # The square is 20 of 40 mm wide, half of the view; an outline is thin, and there is nothing red inside.
    assert abs(rows.min() - 100) <= 8 and abs(rows.max() - 300) <= 8
    assert abs(columns.min() - 100) <= 8 and abs(columns.max() - 300) <= 8
    assert not red[130:270, 130:270].any() and (tmp_path / "red.png").stat().st_size > 500

    surface = host.three_d_picture(tmp_path / "3d.png").astype(int)
    reddish = surface[..., 0] - surface[..., 1] > 50
    assert reddish.mean() > 0.05 and reddish[200, 200]


def test_widget_picture_is_the_panel(host, tiny, tmp_path):
    from PIL import Image

    path = host.widget_picture(tiny.parent, tmp_path / "panel.png", width=420)
    picture = np.asarray(Image.open(path).convert("L"))
    assert picture.shape[1] == 420 and picture.std() > 5
    tiny.ui.inputsButton.collapsed = True
    assert tiny.ui.applyButton.isVisible() and not tiny.ui.inputSelector.isVisible()
    tiny.ui.invertBox.setVisible(False)
    tiny.ui.inputSelector.setVisible(True)  # not yet: its section is closed
    assert not tiny.ui.inputSelector.isVisible()
    smaller = np.asarray(Image.open(host.widget_picture(tiny.parent, tmp_path / "closed.png", width=420)))
    assert smaller.shape[0] < picture.shape[0]
    tiny.ui.inputsButton.collapsed = False
    assert tiny.ui.inputSelector.isVisible() and not tiny.ui.invertBox.isVisible()


def test_dark_theme_shows_in_pictures(host, tiny, tmp_path):
    from PIL import Image

    means = []
    for dark in (False, True):
        host.use_theme(dark=dark)
        path = host.widget_picture(tiny.parent, tmp_path / f"{dark}.png", width=420)
        means.append(np.asarray(Image.open(path).convert("L")).mean())
    assert means[0] > 180 and means[1] < 100


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("QCheckBox", "ctkNoSuchBox", "asks for ctkNoSuchBox"),
        ('name="noneEnabled"', 'name="noneEnable"', "sets noneEnable of qMRMLNodeComboBox inputSelector"),
        ("<receiver>inputSelector", "<receiver>noSuchSelector", "names noSuchSelector"),
        ("mrmlSceneChanged(", "sceneWasChanged(", "signal 'sceneWasChanged"),
    ],
)
def test_mistakes_in_a_ui_file_are_told(host, tmp_path, old, new, message):
    import slicer

    path = tmp_path / "Wrong.ui"
    path.write_text(UI.replace(old, new))
    with pytest.raises((RuntimeError, ValueError), match=re.escape(message)):
        slicer.util.loadUI(str(path))


def test_leaves_nothing_to_the_next_test(host, tiny):
    import slicer

    _volume(np.zeros((3, 3, 3), np.uint8))
    slicer.mrmlScene.GetSingletonNode("Tiny", "vtkMRMLScriptedModuleNode").SetParameter("threshold", "3")
    before = slicer.mrmlScene.GetNumberOfNodes()
    host.reset()
    assert not hasattr(slicer.modules, "tiny") and "Tiny" not in sys.modules
    assert slicer.mrmlScene.GetSingletonNode("Tiny", "vtkMRMLScriptedModuleNode") is None
    assert slicer.mrmlScene.GetNumberOfNodes() < before
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    _volume(np.zeros((3, 3, 3), np.uint8))  # no observer of the panel that was there is called, or it would be an error
    slicer.mrmlScene.Clear(False)


def test_quitting_cleans_up(host, tiny):
    import slicer

    host.quit()
    assert tiny.events == ["enter", "exit"] and not tiny.Observations
    with pytest.raises(RuntimeError, match="Could not find module"):
        slicer.util.getModule("Tiny")


def test_says_why_it_cannot_run(monkeypatch):
    from importlib import metadata

    def version(package):
        if package == "slicer-core":
            raise metadata.PackageNotFoundError
        return "6.8.3"

    monkeypatch.setattr(metadata, "version", version)
    assert slicer_host.why_unusable() == "slicer-core is not installed"


def test_without_a_main_window_messages_are_only_logged(host, tiny, caplog):
    import slicer

    host.set_main_window(False)
    slicer.util.errorDisplay("It did not work.")
    assert host.dialogs.shown == [] and "It did not work." in caplog.text
    with pytest.raises(RuntimeError, match="main window"):
        slicer.util.selectModule("Data")


def test_python_ends_well_while_a_process_runs(host, tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(places.SUPPORT)!r})
import slicer_host
host = slicer_host.start()
import qt
process = qt.QProcess()
process.start("PythonSlicer", ["-c", "import time; time.sleep(0.5)"])
assert process.waitForStarted()
button = qt.QPushButton("x")
print(button.text, process.state() == qt.QProcess.Running)
process.kill()
process.waitForFinished()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "x True\n"), ended.stderr


def test_slicers_own_python_takes_the_place_of_the_imitation(tmp_path):
    """From a checkout: its modules are what the module imports; packaging, which installs, stays imitated."""
    own = tmp_path / "Base" / "Python" / "slicer"
    (own / "parameterNodeWrapper").mkdir(parents=True)
    (own / "i18n.py").write_text("def tr(text):\n    return text.upper()\n")
    (own / "parameterNodeWrapper" / "__init__.py").write_text("from .wrapper import parameterNodeWrapper\n")
    (own / "parameterNodeWrapper" / "wrapper.py").write_text("import ctk\nparameterNodeWrapper = ctk.ctkRangeWidget\n")
    (own / "ScriptedLoadableModule.py").write_text("from slicer.i18n import tr\nword = tr('own')\n")
    program = f"""
import sys
sys.path.insert(0, {str(places.SUPPORT)!r})
import slicer_host
slicer_host.start()
import slicer
from slicer.i18n import tr
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import word
print(tr("a"), parameterNodeWrapper.__name__, word, slicer.packaging.__doc__.split()[-1])
"""
    environment = {**os.environ, "SLICER_SOURCE": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.stdout.split() == ["A", "ctkRangeWidget", "OWN", "nothing."], result.stderr
