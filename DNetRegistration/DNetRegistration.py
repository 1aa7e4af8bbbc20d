"""The Slicer module: select two scans of one bone, click Align. A thin face over `DNetRegistrationLib`."""

import contextlib
import enum
import logging
import os
import shutil
import sys
from typing import Annotated

import ctk
import qt
import slicer
import vtk
from DNetRegistrationLib import ScanError, available_weights
from DNetRegistrationLib.job import HOME, Ended, How, Job, Options
from DNetRegistrationLib.torch_setup import TorchUnavailable, ensure_torch, require_torch
from slicer import (
    vtkMRMLLinearTransformNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

SAMPLE_CATEGORY = "D-net registration"
SAMPLE_NAME = "DNetRegistrationMouseTibia"
# A synthetic mouse tibia, 128^3 voxels of 40 um, turned by 125 degrees between the scans.
SAMPLE = {"seed": 0, "size": 128, "spacing": 0.04}


class DNetRegistration(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("D-net Registration")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.dependencies = []
        self.parent.contributors = ["The DNetRegistration developers"]
        self.parent.helpText = _(
            "<p>Aligns two micro-CT scans of the same bone, turned any way round, such as a mouse tibia without and "
            "with contrast agent, and says plainly whether to trust the result.</p>"
            "<p>Select the fixed and the moving volume and click Align. Two scans to try it on are in the module "
            "Sample Data, under D-net registration.</p>"
        )
        self.parent.acknowledgementText = _(
            "<p>The task and the network are those of J.-Q. Zheng, N. H. Lim, B. W. Papież: <i>D-net: Siamese based "
            "Network with Mutual Attention for Volume Alignment</i>, ShapeMI workshop at MICCAI, 2020; please cite it "
            "when you use this module. This is an independent implementation. The authors' page marks the method as "
            "patent pending.</p>"
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Offers the synthetic pair in the module Sample Data."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=SAMPLE_CATEGORY,
        sampleName=SAMPLE_NAME,
        thumbnailFileName=os.path.join(os.path.dirname(__file__), "Resources", "Icons", f"{SAMPLE_NAME}.png"),
        # Nothing is downloaded: the files are made here, on first use.
        uris=["", "", ""],
        fileNames=["0001_fixed.nrrd", "0001_moving.nrrd", "0001_truth.tfm"],
        nodeNames=["PreContrast", "PostContrast", "TrueTransform"],
        customDownloader=loadSampleData,
    )


def loadSampleData(source=None) -> list:
    """Loads the synthetic pair; made on first use and kept in Slicer's cache folder.

    Returns:
        The nodes PreContrast, PostContrast and TrueTransform, which carries the second onto the first when the second
        is put under it.
    """
    from DNetRegistrationLib.files import make_folder
    from DNetRegistrationLib.synthesis import synthesize
    from DNetRegistrationLib.version import __version__

    folder = make_folder(os.path.join(slicer.app.cachePath, f"{SAMPLE_NAME}-{__version__}"), parents=True)
    paths = [folder / name for name in ("0001_fixed.nrrd", "0001_moving.nrrd", "0001_truth.tfm")]
    with slicer.util.WaitCursor():
        if not all(path.is_file() for path in paths):
            synthesize(folder, 1, **SAMPLE)
        nodes = [slicer.util.loadVolume(str(path)) for path in paths[:2]]
        nodes.append(slicer.util.loadTransform(str(paths[2])))
    for node, name in zip(nodes, ("PreContrast", "PostContrast", "TrueTransform"), strict=True):
        node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
    return nodes


class Contrast(enum.Enum):
    """Which scan has the contrast agent."""

    moving = "moving"
    fixed = "fixed"

    def label(self) -> str:
        return {"moving": _("Moving volume"), "fixed": _("Fixed volume")}[self.value]


class Hypotheses(enum.Enum):
    """Where poses come from."""

    auto = "auto"
    dnet = "dnet"
    search = "search"

    def label(self) -> str:
        return {"auto": _("Network, then search"), "dnet": _("Network only"), "search": _("Search only")}[self.value]


class Refine(enum.Enum):
    """To which resolution a pose is refined."""

    native = "native"
    working = "working"
    none = "none"

    def label(self) -> str:
        return {"native": _("To native voxels"), "working": _("To the working spacing"), "none": _("Not at all")}[
            self.value
        ]


@parameterNodeWrapper
class DNetRegistrationParameterNode:
    """What the panel holds; saved with the scene.

    Thresholds are in the grey values of each volume, and count unless `automaticThreshold`; `workingSpacing` is in mm,
    0 for automatic; `weights` is the name of shipped weights, empty for the default, or ``file:`` and a path.
    """

    fixedVolume: vtkMRMLScalarVolumeNode
    movingVolume: vtkMRMLScalarVolumeNode
    transform: vtkMRMLLinearTransformNode
    segmentation: vtkMRMLSegmentationNode
    table: vtkMRMLTableNode
    resampled: vtkMRMLScalarVolumeNode
    subtraction: vtkMRMLScalarVolumeNode
    contrast: Contrast = Contrast.moving
    automaticThreshold: bool = True
    fixedThreshold: float = 0.0
    movingThreshold: float = 0.0
    hypotheses: Hypotheses = Hypotheses.auto
    refine: Refine = Refine.native
    workingSpacing: Annotated[float, WithinRange(0, 10)] = 0.0
    weights: str = ""
    device: str = "auto"


class DNetRegistrationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.job = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._updating = False
        self._message = None  # (kind, text, details) of what has just happened, before what the transform says
        self._pair = (None, None)  # IDs of the volumes that the panel was last brought up to date with
        self._observed = None
        self._previews = {}
        self._deviceProcess = None

    # The panel's life

    def setup(self) -> None:
        """Builds the panel, when the module is first opened."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DNetRegistration.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = DNetRegistrationLogic()
        self._previewTimer = qt.QTimer()
        self._previewTimer.setSingleShot(True)
        self._previewTimer.setInterval(60)
        self._previewTimer.connect("timeout()", self._showOutlines)
        self._fillChoices()

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._update)
        self.ui.alignButton.connect("clicked(bool)", self.onAlignButton)
        self.ui.undoButton.connect("clicked(bool)", self.onUndoButton)
        self.ui.automaticThresholdCheckBox.connect("clicked(bool)", self.onAutomaticThresholdClicked)
        self.ui.fixedThresholdSlider.connect("valueChanged(double)", self.onFixedThresholdChanged)
        self.ui.movingThresholdSlider.connect("valueChanged(double)", self.onMovingThresholdChanged)
        self.ui.weightsSelector.connect("currentIndexChanged(int)", self.onWeightsChanged)
        self.ui.weightsPath.connect("currentPathChanged(QString)", self.onWeightsChanged)
        self.ui.deviceSelector.connect("currentIndexChanged(int)", self.onDeviceChanged)
        self.ui.advancedCollapsibleButton.connect("contentsCollapsed(bool)", self.onAdvancedCollapsed)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Ends what still runs, when the module or the application is closed."""
        self._cancel(None)
        if self._deviceProcess is not None:
            self._deviceProcess.kill()
        self._previewTimer.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """The user comes to the module."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """The user goes to another module; a running alignment goes on."""
        self._hideOutlines()
        self._disconnectParameterNode()

    def onSceneStartClose(self, caller, event) -> None:
        """The scene is about to be closed: the alignment of its volumes ends."""
        self._cancel(None)
        self._hideOutlines()
        self._previews.clear()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """The scene is closed."""
        self._message = None
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        """A volume that is being aligned is deleted: nothing is left to align."""
        if self.job is not None and any(node is placed.node for placed in self._placed):
            self._cancel(_("Stopped: {name} was deleted while it was being aligned.").format(name=node.GetName()))

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node, connected to the panel."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode) -> None:
        """Connects the panel to a parameter node, or to none."""
        self._disconnectParameterNode()
        self._parameterNode = parameterNode
        self._pair = (None, None)
        self._observeMoving(None)
        if parameterNode:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    def _disconnectParameterNode(self) -> None:
        if self._parameterNodeGuiTag is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)

    # What the user does

    def onAlignButton(self, clicked=False) -> None:
        """Aligns, or cancels what is running."""
        if self.job is not None:
            self._cancel(_("Cancelled: nothing was changed."))
            return
        try:
            self._start()
        except (ScanError, TorchUnavailable) as problem:
            self._tell("bad", str(problem))
        except Exception as problem:
            logging.exception("The alignment could not be started")
            self._tell("bad", _("The alignment could not be started: {problem}").format(problem=problem))

    def onUndoButton(self, clicked=False) -> None:
        """Puts the moving volume back where it was."""
        moving = self._parameterNode.movingVolume
        if self.logic.undo(moving):
            self._tell("plain", _("Undone: {name} is back where it was.").format(name=moving.GetName()))

    def onAutomaticThresholdClicked(self, automatic: bool) -> None:
        """By hand, thresholds begin where they would be found."""
        if not automatic:
            for role in ("fixed", "moving"):
                self._resetThreshold(role)
        self._update()

    def onFixedThresholdChanged(self, value: float) -> None:
        self._setThreshold("fixed", value)

    def onMovingThresholdChanged(self, value: float) -> None:
        self._setThreshold("moving", value)

    def onWeightsChanged(self, value=None) -> None:
        """Shipped weights, or a file."""
        if self._parameterNode and not self._updating:
            name = self.ui.weightsSelector.itemData(self.ui.weightsSelector.currentIndex)
            # "file:" alone stands for a file that has not been chosen yet.
            self._parameterNode.weights = name + (self.ui.weightsPath.currentPath if name == "file:" else "")

    def onDeviceChanged(self, index: int) -> None:
        if self._parameterNode and not self._updating and index >= 0:
            self._parameterNode.device = self.ui.deviceSelector.itemData(index)

    def onAdvancedCollapsed(self, collapsed: bool) -> None:
        """The devices are looked for when the list comes into view, in a process: torch is slow to import."""
        if not collapsed and self._deviceProcess is None:
            self._deviceProcess = self.logic.findDevices(self._addDevices)

    # Alignment

    def _start(self) -> None:
        parameters = self._parameterNode
        placed = self.logic.check(parameters.fixedVolume, parameters.movingVolume, parameters.transform)
        options = self.logic.options(parameters)
        for one in placed:
            doubt = self.logic.spacingDoubt(one)
            if doubt and not slicer.util.confirmOkCancelDisplay(
                _("{name}: {doubt}. Correct it in the module Volumes, or align anyway.").format(
                    name=one.name, doubt=doubt
                )
            ):
                self._tell("plain", _("Not aligned: correct the voxel size first."))
                return
        self.logic.ensureTorch()
        self._hideOutlines()
        self._message, self._placed = None, placed
        with slicer.util.WaitCursor():
            self.job = self.logic.start(*placed, options, self._onProgress, self._onFinished)
        self._onProgress(0.0, _("Starting"))
        self._update()

    def _cancel(self, message: str | None) -> None:
        self._cancelMessage = message
        if self.job is not None:
            self.job.cancel()

    def _onProgress(self, fraction: float, stage: str) -> None:
        self.ui.statusLabel.text = stage[:1].upper() + stage[1:]
        self.ui.progressBar.value = round(100 * fraction)

    def _onFinished(self, ended: Ended) -> None:
        self.job = None
        if ended.alignment is not None:
            try:
                with slicer.util.WaitCursor():
                    self._write(ended)
            except ScanError as problem:
                self._tell("bad", str(problem))
            except Exception as problem:
                logging.exception("The result could not be shown")
                self._tell("bad", _("The result could not be shown: {problem}").format(problem=problem))
            self._update()
        elif ended.how is How.CANCELLED:
            self._tell("plain", self._cancelMessage or "")
        else:
            logging.error(f"{ended.message}\n{ended.log}")
            self._tell("bad", ended.message, ended.log if ended.how is How.CRASHED else "")

    def _write(self, ended: Ended) -> None:
        parameters = self._parameterNode
        nodes = {name: getattr(parameters, name) for name in OUTPUTS} if parameters else {}
        transform = self.logic.write(*self._placed, ended, nodes)
        if parameters:
            from DNetRegistrationLib.scene_outputs import outputs_of

            with slicer.util.NodeModify(parameters):
                parameters.transform = transform
                for name, node in outputs_of(transform).items():
                    setattr(parameters, name, node)
        self.logic.show(*self._placed)

    # Keeping the panel up to date

    def _update(self, caller=None, event=None) -> None:
        """Brings all that depends on parameters and scene up to date."""
        if self._updating or self.logic is None or slicer.mrmlScene.IsClosing():
            return
        self._updating = True
        try:
            if self._parameterNode:
                self._matchPair()
                self._updateThresholds()
                self._updateChoices()
            self._updateButtons()
            self._updateResult()
        finally:
            self._updating = False

    def _matchPair(self) -> None:
        """Selects what belongs to the pair of volumes, when that has changed."""
        from DNetRegistrationLib.scene import alignment_of, find_transform
        from DNetRegistrationLib.scene_outputs import outputs_of

        parameters = self._parameterNode
        volumes = parameters.fixedVolume, parameters.movingVolume
        pair = tuple(volume.GetID() if volume else None for volume in volumes)
        if pair == self._pair:
            return
        if all(volumes) and self._pair != (None, None):  # what is said of a volume that is gone stays
            self._message = None
        self._pair = pair
        self._observeMoving(volumes[1])
        # Outputs of another pair would be written over.
        known = find_transform(*volumes) if all(volumes) else None
        selected = parameters.transform
        if known is not None and selected is not known:
            outputs = outputs_of(known)
        elif known is None and alignment_of(selected) is not None:
            outputs = {}
        else:
            return
        with slicer.util.NodeModify(parameters):
            parameters.transform = known
            for name in OUTPUTS[1:]:
                setattr(parameters, name, outputs.get(name))

    def _observeMoving(self, volume) -> None:
        """Follows what the moving volume stands under, for Undo; `volume` may be None."""
        event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        if self._observed is not None:
            self.removeObserver(self._observed, event, self._update)
        self._observed = volume
        if volume is not None:
            self.addObserver(volume, event, self._update)

    def _updateButtons(self) -> None:
        running, why = self.job is not None, self._whyNot()
        self.ui.alignButton.text = _("Cancel") if running else why or _("Align")
        self.ui.alignButton.enabled = running or not why
        self.ui.statusLabel.visible = self.ui.progressBar.visible = running
        for name in ("inputs", "outputs", "advanced"):
            getattr(self.ui, f"{name}CollapsibleButton").enabled = not running
        moving = self._parameterNode.movingVolume if self._parameterNode else None
        self.ui.undoButton.enabled = not running and moving is not None and self.logic.isAligned(moving)

    def _whyNot(self) -> str:
        """Why Align cannot be clicked; empty where it can."""
        parameters = self._parameterNode
        if not parameters or not parameters.fixedVolume:
            return _("Select a fixed volume")
        if not parameters.movingVolume:
            return _("Select a moving volume")
        if parameters.fixedVolume is parameters.movingVolume:
            return _("Fixed and moving are the same volume")
        if not parameters.fixedVolume.GetImageData():
            return _("The fixed volume is empty")
        if not parameters.movingVolume.GetImageData():
            return _("The moving volume is empty")
        if parameters.weights == "file:":
            return _("Choose a weights file, or shipped weights")
        for volume in (parameters.resampled, parameters.subtraction):
            if volume and volume in (parameters.fixedVolume, parameters.movingVolume):
                return _("An output would replace an input")
        if parameters.resampled and parameters.resampled is parameters.subtraction:
            return _("Two outputs are the same volume")
        return ""

    def _updateResult(self) -> None:
        from DNetRegistrationLib.scene import FIXED_ROLE, MOVING_ROLE, alignment_of

        if self._message is not None:
            self._showMessage(*self._message)
            return
        parameters = self._parameterNode
        transform = parameters.transform if parameters else None
        alignment = alignment_of(transform)
        if self.job is not None:
            self._showMessage("plain", _("Aligning…"), "")
        elif alignment is None or self._pair != (
            transform.GetNodeReferenceID(FIXED_ROLE),
            transform.GetNodeReferenceID(MOVING_ROLE),
        ):
            self._showMessage("plain", _("Not aligned yet."), "")
        else:
            self._showMessage("good" if alignment.accepted else "doubt", alignment.verdict, resultText(alignment))

    def _tell(self, kind: str, text: str, details: str = "") -> None:
        self._message = (kind, text, details)
        self._update()
        if self._parameterNode is None:
            self._updateButtons()

    def _showMessage(self, kind: str, text: str, details: str) -> None:
        self.ui.verdictLabel.text = text
        self.ui.verdictLabel.styleSheet = STYLES[kind]
        self.ui.detailsLabel.text = details
        self.ui.detailsLabel.visible = bool(details)

    # Thresholds

    def _updateThresholds(self) -> None:
        parameters = self._parameterNode
        manual = not parameters.automaticThreshold
        for role in ("fixed", "moving"):
            volume, slider = getattr(parameters, f"{role}Volume"), getattr(self.ui, f"{role}ThresholdSlider")
            preview = self._preview(role) if manual and volume else None
            slider.enabled = preview is not None
            if preview is None:
                continue
            value = getattr(parameters, f"{role}Threshold")
            reach = max(preview.high - preview.low, 1e-9)
            digits = next((n for n in range(6) if 10**-n <= reach / 500), 6)
            with signalsBlocked(slider):
                slider.decimals = digits
                slider.singleStep = 10.0**-digits
                slider.minimum, slider.maximum = min(preview.low, value), max(preview.high, value)
                slider.value = value
        if manual and self.job is None and self._parameterNodeGuiTag is not None:
            self._previewTimer.start()
        else:
            self._hideOutlines()

    def _preview(self, role: str):
        """The averaged scan of a role, made anew when another volume is selected or its voxels change."""
        from DNetRegistrationLib.scene import place
        from DNetRegistrationLib.scene_preview import ThresholdPreview

        volume = getattr(self._parameterNode, f"{role}Volume")
        stamp = (volume.GetID(), volume.GetImageData().GetMTime()) if volume and volume.GetImageData() else None
        known, before, preview = role in self._previews, *self._previews.get(role, (None, None))
        if stamp is not None and stamp != before:
            try:
                with slicer.util.WaitCursor():
                    preview = ThresholdPreview.of(place(volume))
            except ScanError:
                preview = None
            self._previews[role] = stamp, preview
            if known:  # another volume than before: its own threshold
                self._resetThreshold(role)
        return preview if stamp is not None else None

    def _resetThreshold(self, role: str) -> None:
        preview = self._preview(role)
        if preview is not None:
            value = preview.automatic if preview.automatic is not None else (preview.low + preview.high) / 2
            setattr(self._parameterNode, f"{role}Threshold", value)

    def _setThreshold(self, role: str, value: float) -> None:
        if self._parameterNode and not self._updating:
            setattr(self._parameterNode, f"{role}Threshold", value)

    def _showOutlines(self) -> None:
        from DNetRegistrationLib.scene_preview import show_outline

        parameters = self._parameterNode
        if not parameters or parameters.automaticThreshold or self.job is not None:
            return
        for role in ("fixed", "moving"):
            preview = self._preview(role)
            if preview is not None:
                show_outline(preview, getattr(parameters, f"{role}Threshold"), role)

    def _hideOutlines(self) -> None:
        self._previewTimer.stop()
        if self._previews:
            from DNetRegistrationLib.scene_preview import hide_outlines

            hide_outlines(slicer.mrmlScene)

    # Choices that depend on what is there

    def _fillChoices(self) -> None:
        for name in available_weights():
            self.ui.weightsSelector.addItem(_("{name} (ships with the module)").format(name=name), name)
        self.ui.weightsSelector.addItem(_("From a file"), "file:")
        self.ui.weightsPath.filters = ctk.ctkPathLineEdit.Files
        self.ui.deviceSelector.addItem(_("Automatic"), "auto")
        self.ui.deviceSelector.addItem(_("CPU"), "cpu")

    def _addDevices(self, devices) -> None:
        with signalsBlocked(self.ui.deviceSelector):
            for name, label in devices:
                index = self.ui.deviceSelector.findData(name)
                if index < 0:
                    self.ui.deviceSelector.addItem(label, name)
                else:
                    self.ui.deviceSelector.setItemText(index, label)
        self._update()

    def _updateChoices(self) -> None:
        parameters = self._parameterNode
        selector, name = self.ui.weightsSelector, parameters.weights
        file = name.removeprefix("file:") if name.startswith("file:") else None
        index = selector.findData("file:") if file is not None else max(0, selector.findData(name))
        with signalsBlocked(selector, self.ui.weightsPath):
            selector.currentIndex = index
            if file is not None and file != self.ui.weightsPath.currentPath:
                self.ui.weightsPath.currentPath = file
        network = parameters.hypotheses is not Hypotheses.search
        selector.enabled, self.ui.weightsPath.enabled = network, network and file is not None
        selector = self.ui.deviceSelector
        with signalsBlocked(selector):
            if selector.findData(parameters.device) < 0:
                selector.addItem(_("{name} (not found here)").format(name=parameters.device), parameters.device)
            selector.currentIndex = selector.findData(parameters.device)
        self.ui.contrastSelector.enabled = parameters.subtraction is not None


OUTPUTS = ("transform", "segmentation", "table", "resampled", "subtraction")

# Colours of their own for text and ground, so that they can be read in light and dark themes.
STYLES = {
    "plain": "",
    "good": "background-color: #d7f0dd; color: #0f3d1f; padding: 6px; border-radius: 4px;",
    "doubt": "background-color: #ffeec2; color: #4a3600; padding: 6px; border-radius: 4px;",
    "bad": "background-color: #f8d7da; color: #58151c; padding: 6px; border-radius: 4px;",
}


def resultText(alignment) -> str:
    """An alignment in a few lines: overlap, confidence, motion, origin, time."""

    def number(value, form: str) -> str:
        return _("unknown") if value is None else format(value, form)

    x, y, z = alignment.translation_mm
    lines = [
        _("Dice of the cortices: {before} before, {after} after").format(
            before=number(alignment.dice_before, ".3f"), after=number(alignment.dice, ".3f")
        ),
        _("Confidence: {percent} % that the mean error is below {voxel} µm").format(
            percent=number(None if alignment.confidence is None else 100 * alignment.confidence, ".1f"),
            voxel=f"{1000 * alignment.working_spacing:.3g}",
        ),
        _("Expected error: {error} µm, mean over the bone").format(error=number(alignment.expected_error_um, ".1f")),
        _("Rotation: {angle}°; translation of the bone: {length} mm").format(
            angle=number(alignment.rotation_deg, ".2f"), length=f"{(x * x + y * y + z * z) ** 0.5:.3f}"
        ),
        _("Found by {path} on {device}, in {seconds} s").format(
            path={"dnet": _("the network"), "search": _("the search over all rotations")}.get(
                alignment.hypothesis, alignment.hypothesis
            ),
            device={"cpu": _("the CPU")}.get(alignment.device, alignment.device),
            seconds=number(alignment.seconds.get("total"), ".1f"),
        ),
        *alignment.warnings,
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def signalsBlocked(*widgets):
    """Changes made to the widgets in the block are not taken for the user's."""
    before = [widget.blockSignals(True) for widget in widgets]
    try:
        yield
    finally:
        for widget, blocked in zip(widgets, before, strict=True):
            widget.blockSignals(blocked)


class DNetRegistrationLogic(ScriptedLoadableModuleLogic):
    """Alignment of volume nodes, without a panel too."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.launch = None  # what starts a process, see `DNetRegistrationLib.job.Launch`; None is Qt

    def getParameterNode(self) -> DNetRegistrationParameterNode:
        """The panel's parameters, in the scene."""
        return DNetRegistrationParameterNode(super().getParameterNode())

    def align(
        self,
        fixedNode,
        movingNode,
        *,
        transformNode=None,
        segmentationNode=None,
        tableNode=None,
        resampledNode=None,
        subtractionNode=None,
        contrast="moving",
        **options,
    ):
        """Aligns two volume nodes here and now; needs no panel.

        Args:
            fixedNode, movingNode: scalar volume nodes, which may stand under rigid transforms.
            transformNode: takes the result; None is that of an earlier alignment of the moving volume, or a new one.
            segmentationNode, tableNode, resampledNode, subtractionNode: are written where they are given.
            contrast: which scan has the contrast agent, "fixed" or "moving"; for the subtraction.
            options: to `DNetRegistrationLib.align`: threshold, device, weights, hypotheses, refine, progress, ...

        Returns:
            The transform node above the moving volume, and the `DNetRegistrationLib.Alignment`.

        Raises:
            ValueError: something is wrong with a volume or an option; the message names it and the remedy.
            TorchUnavailable: PyTorch is missing; the message says what to do.

        Example:
            >>> logic = slicer.util.getModuleLogic("DNetRegistration")
            >>> transform, alignment = logic.align(getNode("PreContrast"), getNode("PostContrast"))
            >>> alignment.accepted
            True
        """
        fixed, moving = self.check(fixedNode, movingNode, transformNode)
        require_torch()
        from DNetRegistrationLib import align
        from DNetRegistrationLib.scene_outputs import Contents, write_result

        scans = fixed.volume(), moving.volume()
        alignment = align(*scans, **options)
        given = transformNode, segmentationNode, tableNode, resampledNode, subtractionNode
        nodes = {name: node for name, node in zip(OUTPUTS, given, strict=True) if node is not None}
        contents = Contents.computed(*scans, alignment, nodes, contrast)
        return write_result(fixed, moving, alignment, nodes, contents), alignment

    def check(self, fixedNode, movingNode, transformNode=None):
        """Where two volumes stand, if they can be aligned and the result be written to a transform node (or None).

        Raises:
            ScanError: they cannot.
        """
        from DNetRegistrationLib.scene import check_transform, place

        if fixedNode is not None and fixedNode is movingNode:
            raise ScanError(f"{fixedNode.GetName()}: is both the fixed and the moving volume; select two scans")
        placed = place(fixedNode), place(movingNode)
        if transformNode is not None:
            check_transform(transformNode, *placed)
        return placed

    def spacingDoubt(self, placed) -> str | None:
        """Why the voxel size of a volume looks lost; None where it does not."""
        from DNetRegistrationLib.volume import spacing_doubt

        return spacing_doubt(placed.volume())

    def options(self, parameters) -> Options:
        """The parameters of the panel as options of a job."""
        manual = not parameters.automaticThreshold
        return Options(
            fixed_threshold=parameters.fixedThreshold if manual else None,
            moving_threshold=parameters.movingThreshold if manual else None,
            working_spacing=parameters.workingSpacing or None,
            device=parameters.device,
            weights=parameters.weights.removeprefix("file:") or None,
            hypotheses=parameters.hypotheses.value,
            refine=parameters.refine.value,
            contrast=parameters.contrast.value,
            resampled=parameters.resampled is not None,
            subtraction=parameters.subtraction is not None,
        )

    def ensureTorch(self) -> None:
        """Asks the PyTorch extension to install torch where it is missing.

        Raises:
            TorchUnavailable: it is not ready for use; the message says what to do.
        """

        def installer():
            import PyTorchUtils

            return PyTorchUtils.PyTorchUtilsLogic()

        ensure_torch(installer)

    def start(self, fixed, moving, options, progress, finished) -> Job:
        """Starts an alignment in the background.

        Args:
            fixed, moving: from `check`.
            options: from `options`.
            progress: called with a fraction and the stage.
            finished: called once with a `DNetRegistrationLib.job.Ended`, to be given to `write` where it aligned.

        Raises:
            ScanError: the scans cannot be written to the temporary folder.
        """
        job = Job(
            fixed.volume(),
            moving.volume(),
            options,
            python=self.python(),
            launch=self._launch,
            progress=progress,
            finished=finished,
            temporary=slicer.app.temporaryPath,
        )
        job.start()
        return job

    def write(self, fixed, moving, ended: Ended, nodes: dict):
        """Writes what a background job found into the scene; returns the transform node.

        Args:
            fixed, moving: from `check`, as they were when it started.
            ended: its end.
            nodes: output nodes to write to, by name; transform, segmentation and table are made where they are None.

        Raises:
            ScanError: a volume has changed or is gone, or a file cannot be read; the scene is as it was.
        """
        from DNetRegistrationLib.scene_outputs import Contents, write_result

        contents = Contents.read(ended.folder, ended.alignment)
        return write_result(fixed, moving, ended.alignment, nodes, contents)

    def show(self, fixed, moving) -> None:
        """Shows both volumes in the slice views, and all there is in 3D."""
        from DNetRegistrationLib.scene_outputs import show_pair

        show_pair(fixed.node, moving.node)

    def isAligned(self, movingNode) -> bool:
        """Whether a volume stands under the transform of an alignment of it."""
        from DNetRegistrationLib.scene import transform_above

        return transform_above(movingNode) is not None

    def undo(self, movingNode) -> bool:
        """Puts a moving volume back where it was before it was aligned; false where it is not aligned."""
        from DNetRegistrationLib.scene import undo
        from DNetRegistrationLib.scene_outputs import hide_cortices

        transform = movingNode.GetParentTransformNode()
        undone = undo(movingNode)
        if undone:
            hide_cortices(transform)
        return undone

    def findDevices(self, found):
        """Looks for the devices that can align, in the background; `found` is called with names and labels."""
        from DNetRegistrationLib.device_list import parse_devices

        pieces = []
        return self._launch(
            [self.python(), "-m", "DNetRegistrationLib.device_list"],
            {"PYTHONPATH": str(HOME)},
            pieces.append,
            lambda status: found(parse_devices(b"".join(pieces).decode("utf-8", "replace"))),
        )

    def python(self) -> str:
        """Slicer's Python without the application."""
        return shutil.which("PythonSlicer") or sys.executable

    def _launch(self, *arguments):
        if self.launch is not None:
            return self.launch(*arguments)
        from DNetRegistrationLib.qt_process import QtProcess

        return QtProcess(*arguments)


class DNetRegistrationTest(ScriptedLoadableModuleTest):
    """Aligns the sample data and compares with the truth; run from Reload and Test, or by ctest."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Runs all tests."""
        self.setUp()
        self.test_sampleData()

    def test_sampleData(self) -> None:
        """The moving volume comes to lie where the true transform puts it, to half a voxel, and Undo takes it back."""
        import numpy as np

        self.delayDisplay("Making the sample data")
        fixed, moving, truth = loadSampleData()
        before = slicer.util.arrayFromVolume(moving).copy()
        self.delayDisplay("Aligning")
        logic = DNetRegistrationLogic()
        transform, alignment = logic.align(fixed, moving)
        self.assertTrue(alignment.accepted, alignment.verdict)
        bounds = np.zeros(6)
        moving.GetBounds(bounds)
        found, true = (slicer.util.arrayFromTransformMatrix(node) for node in (transform, truth))
        # Corners of a cube of 2.5 mm about the middle of the volume: the bone's ends lie within.
        corners = np.stack(np.meshgrid(*[(-1.25, 1.25)] * 3), -1).reshape(-1, 3)
        error = np.linalg.norm(corners @ (found - true)[:3, :3].T + (found - true)[:3, 3], axis=1).max()
        self.assertLess(error, 0.02)
        self.assertIs(moving.GetParentTransformNode(), transform)
        self.assertTrue(logic.undo(moving))
        self.assertIsNone(moving.GetParentTransformNode())
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(moving), before))
        self.delayDisplay("Test passed")
