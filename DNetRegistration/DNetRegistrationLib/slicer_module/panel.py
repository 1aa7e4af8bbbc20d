"""The panel of the module: what the user selects and clicks, and what it says."""

import logging
import sys

import ctk
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from ..core.errors import DNetError
from ..networks.weights import available_weights
from .job import JobOutcome, JobResult
from .logic import DNetRegistrationLogic
from .panel_text import STYLES, resultText
from .panel_thresholds import ThresholdControls, signalsBlocked
from .parameters import FILE, OUTPUTS, Hypotheses
from .scene import FIXED_ROLE, MOVING_ROLE, alignment_of, find_transform, lies_as_aligned, transform_above
from .wording import explain


class DNetRegistrationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel; it needs the widgets of Resources/UI/DNetRegistration.ui."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.job = None  # the alignment that runs in the background
        self._steps = None  # what is left to write of its result
        self._preparing = False  # PyTorch is being installed, while which the panel can be used
        self._placed, self._outputs = (), {}  # the volumes of the alignment that runs, and the nodes it writes to
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._updating = False
        self._message = None  # (kind, text, details) of what has just happened, before what the transform says
        self._pair = (None, None)  # IDs of the volumes that the panel was last brought up to date with
        self._observed = []
        self._deviceProcess = None

    @property
    def running(self) -> bool:
        """Whether an alignment runs, or its result is being written into the scene."""
        return self._preparing or self.job is not None or self._steps is not None

    # The panel's life

    def setup(self) -> None:
        """Builds the panel, when the module is first opened."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DNetRegistration.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = DNetRegistrationLogic()
        self._thresholds = ThresholdControls(self.ui, self.onThresholdChanged)
        self._fillChoices()

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._update)
        self.ui.alignButton.connect("clicked(bool)", self.onAlignButton)
        self.ui.undoButton.connect("clicked(bool)", self.onUndoButton)
        self.ui.automaticThresholdCheckBox.connect("clicked(bool)", self.onAutomaticThresholdClicked)
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
        self.setParameterNode(None)
        self._thresholds.forget()
        self.removeObservers()

    def enter(self) -> None:
        """The user comes to the module."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """The user goes to another module; a running alignment goes on."""
        # First: taking outlines away changes the scene, which would bring the panel up to date and them back.
        self._disconnectParameterNode()
        self._thresholds.hide()

    def onReload(self) -> None:
        """The developer clicks Reload: the library is read anew too, where Slicer would read only the module's file."""
        library = __package__.partition(".")[0]
        for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller, event) -> None:
        """The scene is about to be closed: the alignment of its volumes ends."""
        self._cancel(None)
        self._placed, self._outputs = (), {}  # or the volumes stay in memory
        self._thresholds.forget()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """The scene is closed."""
        self._message = None
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event) -> None:
        """A scene was loaded, and with it perhaps what the panel held when it was saved."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        """A volume that is being aligned is deleted: nothing is left to align."""
        if not any(node is placed.node for placed in self._placed):
            return
        if self.running:
            message = _("Stopped: {name} was deleted while it was being aligned.").format(name=node.GetName())
            writing = self.job is None
            self._cancel(message)
            if writing:
                self._tell("plain", message)
        self._placed = ()  # or it stays in memory

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node, connected to the panel."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode) -> None:
        """Connects the panel to a parameter node, or to none."""
        self._disconnectParameterNode()
        self._parameterNode = parameterNode
        self._pair = (None, None)
        self._observe()
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
        if self.running:
            return
        try:
            self._start()
        except DNetError as error:
            self._tell("bad", explain(error))
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
            self._thresholds.reset(self._parameterNode)
        self._update()

    def onThresholdChanged(self, role: str, value: float) -> None:
        """A slider was moved."""
        if self._parameterNode and not self._updating:
            setattr(self._parameterNode, f"{role}Threshold", value)

    def onWeightsChanged(self, value=None) -> None:
        """Shipped weights, or a file."""
        if self._parameterNode and not self._updating:
            name = self.ui.weightsSelector.itemData(self.ui.weightsSelector.currentIndex)
            # `FILE` alone stands for a file that has not been chosen yet.
            self._parameterNode.weights = name + (self.ui.weightsPath.currentPath if name == FILE else "")

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
        self._ensureTorch()
        # Installing takes minutes, in which the scene can change.
        parameters = self._parameterNode
        placed = self.logic.check(parameters.fixedVolume, parameters.movingVolume, parameters.transform)
        self._thresholds.hide()
        self._message, self._placed = None, placed
        self._outputs = {name: getattr(parameters, name) for name in OUTPUTS}
        with slicer.util.WaitCursor():
            job = self.logic.start(*placed, options, self._onProgress, self._onFinished)
        if not job.over:  # a program that is missing may be told of at once
            self.job = job
            self._onProgress(0.0, _("Starting"))
        self._update()

    def _ensureTorch(self) -> None:
        self._preparing = True
        self._tell("plain", _("Preparing PyTorch…"))
        try:
            self.logic.ensureTorch()
        finally:
            self._preparing = False
            self._update()

    def _cancel(self, message: str | None) -> None:
        self._cancelMessage, self._steps = message, None
        if self.job is not None:
            self.job.cancel()

    def _onProgress(self, fraction: float, stage: str) -> None:
        self.ui.statusLabel.text = stage[:1].upper() + stage[1:]
        self.ui.progressBar.value = round(100 * fraction)

    def _onFinished(self, result: JobResult) -> None:
        self.job = None
        outputs, self._outputs = self._outputs, {}
        if result.alignment is not None:
            try:
                self._steps = self.logic.write(*self._placed, result, outputs)
            except Exception as problem:
                self._giveUp(problem)
            else:
                self._onProgress(1.0, _("Showing the result"))
                self._nextStep()
        elif result.outcome is JobOutcome.CANCELLED:
            self._tell("plain", self._cancelMessage or "")
        else:
            logging.error(f"{result.error}\n{result.log}")
            self._tell("bad", explain(result.error), result.log if result.outcome is JobOutcome.CRASHED else "")

    def _nextStep(self) -> None:
        """Writes a part of the result into the scene; the next one when the application has had its turn."""
        if self._steps is None:  # the scene was closed, or a volume deleted
            return
        try:
            transform = next(self._steps, None)
            if transform is not None:
                self._select(transform)
                qt.QTimer.singleShot(0, self._nextStep)
                return
            self._steps = None
            self.logic.show(*self._placed)
        except Exception as problem:
            self._giveUp(problem)
        self._update()

    def _giveUp(self, problem: Exception) -> None:
        self._steps = None
        if isinstance(problem, DNetError):
            self._tell("bad", explain(problem))
        else:
            logging.error("The result could not be shown", exc_info=problem)
            self._tell("bad", _("The result could not be shown: {problem}").format(problem=problem))

    def _select(self, transform) -> None:
        """Selects the nodes that were written to."""
        from .scene_outputs import outputs_of

        # Another scene that was added meanwhile may have brought another pair.
        if self._parameterNode and all(getattr(self._parameterNode, f"{p.role}Volume") is p.node for p in self._placed):
            with slicer.util.NodeModify(self._parameterNode):
                self._parameterNode.transform = transform
                for name, node in outputs_of(transform).items():
                    setattr(self._parameterNode, name, node)

    # Keeping the panel up to date

    def _update(self, caller=None, event=None) -> None:
        """Brings all that depends on parameters and scene up to date."""
        if self._updating or self.logic is None or slicer.mrmlScene.IsClosing():
            return
        self._updating = True
        try:
            if self._parameterNode:
                self._matchPair()
                entered = self._parameterNodeGuiTag is not None
                self._thresholds.update(self._parameterNode, shown=entered and not self.running)
                self._updateChoices()
            self._updateButtons()
            self._updateResult()
        finally:
            self._updating = False

    def _matchPair(self) -> None:
        """Selects what belongs to the pair of volumes, when that has changed."""
        from .scene_outputs import is_filled, outputs_of

        parameters = self._parameterNode
        volumes = parameters.fixedVolume, parameters.movingVolume
        pair = tuple(volume.GetID() if volume else None for volume in volumes)
        if pair == self._pair:
            return
        if all(volumes) and self._pair != (None, None):  # what is said of a volume that is gone stays
            self._message = None
        self._pair = pair
        self._observe(*(volume for volume in volumes if volume))
        # Outputs of another pair would be written over.
        known = find_transform(*volumes) if all(volumes) else None
        selected = parameters.transform
        if known is not None and selected is not known:
            outputs = outputs_of(known)
        elif known is None:
            chosen = {name: getattr(parameters, name) for name in OUTPUTS[1:]}
            outputs = {name: node for name, node in chosen.items() if node and not is_filled(node)}
            known = None if alignment_of(selected) is not None else selected
        else:
            return
        with slicer.util.NodeModify(parameters):
            parameters.transform = known
            for name in OUTPUTS[1:]:
                setattr(parameters, name, outputs.get(name))

    def _observe(self, *volumes) -> None:
        """Follows what volumes stand under, for Undo and for what can be said of the result."""
        # Not by the mixin: it holds on to what it has once observed, and with it to the voxels.
        event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        for volume, tag in self._observed:
            volume.RemoveObserver(tag)
        self._observed = [(volume, volume.AddObserver(event, self.onTransformed)) for volume in volumes]

    def onTransformed(self, caller, event) -> None:
        """What was said of where the volumes stand holds no longer."""
        self._message = None
        self._update()

    def _updateButtons(self) -> None:
        running, why = self.running, self._whyNot()
        self.ui.alignButton.text = (
            _("Preparing PyTorch…") if self._preparing else _("Cancel") if running else why or _("Align")
        )
        self.ui.alignButton.enabled = self.job is not None or (not running and not why)
        self.ui.statusLabel.visible = self.ui.progressBar.visible = running and not self._preparing
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
        if parameters.weights == FILE:
            return _("Choose a weights file, or shipped weights")
        for volume in (parameters.resampled, parameters.subtraction):
            if volume and volume in (parameters.fixedVolume, parameters.movingVolume):
                return _("An output would replace an input")
        if parameters.resampled and parameters.resampled is parameters.subtraction:
            return _("Two outputs are the same volume")
        return ""

    def _updateResult(self) -> None:
        if self._message is not None:
            self._showMessage(*self._message)
            return
        parameters = self._parameterNode
        transform = parameters.transform if parameters else None
        alignment = alignment_of(transform)
        if self.running:
            self._showMessage("plain", _("Aligning…"), "")
        elif alignment is None or self._pair != (
            transform.GetNodeReferenceID(FIXED_ROLE),
            transform.GetNodeReferenceID(MOVING_ROLE),
        ):
            self._showMessage("plain", _("Not aligned yet."), "")
        elif transform_above(parameters.movingVolume) is not transform:
            self._showMessage(
                "plain",
                _("Aligned, but not applied: click Align, or put the moving volume under {name}.").format(
                    name=transform.GetName()
                ),
                "",
            )
        elif not lies_as_aligned(transform):
            self._showMessage(
                "doubt", _("Moved by hand since it was aligned: nothing vouches for this. Undo, or align again."), ""
            )
        else:
            self._showMessage("good" if alignment.accepted else "doubt", alignment.verdict, resultText(alignment))

    def _tell(self, kind: str, text: str, details: str = "") -> None:
        self._message = (kind, text, details)
        self._update()

    def _showMessage(self, kind: str, text: str, details: str) -> None:
        self.ui.verdictLabel.text = text
        self.ui.verdictLabel.styleSheet = STYLES[kind]
        self.ui.detailsLabel.text = details
        self.ui.detailsLabel.visible = bool(details)

    # Choices that depend on what is there

    def _fillChoices(self) -> None:
        for name in available_weights():
            self.ui.weightsSelector.addItem(_("{name} (ships with the module)").format(name=name), name)
        self.ui.weightsSelector.addItem(_("From a file"), FILE)
        self.ui.weightsPath.filters = ctk.ctkPathLineEdit.Files
        self.ui.deviceSelector.addItem(_("Automatic"), "auto")
        self.ui.deviceSelector.addItem(_("CPU"), "cpu")

    def _addDevices(self, devices) -> None:
        if not devices:  # torch is missing: next time they may be found
            self._deviceProcess = None
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
        file = name.removeprefix(FILE) if name.startswith(FILE) else None
        index = selector.findData(FILE) if file is not None else max(0, selector.findData(name))
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
