"""The panel of the module: what the user selects and clicks, and what it says."""

import logging
import sys

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from ..core.errors import DNetError
from .bond import forget_check_sums
from .cohort_section import CohortSection
from .logic import DNetRegistrationLogic
from .panel_alignments import AlignmentList
from .panel_choices import Choices
from .panel_compare import CompareControls
from .panel_masks import MaskControls
from .panel_result import ResultView
from .panel_run import AlignmentRun
from .panel_thresholds import ThresholdControls
from .parameters import FILE, OUTPUTS
from .scene import alignment_of, find_transforms, is_applied, last_scans, outputs_of, undo
from .standing import current_alignment
from .wording import explain


class DNetRegistrationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel; it needs the widgets of Resources/UI/DNetRegistration.ui."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._updating = False
        self._pair = (None, None)  # IDs of the volumes that the panel was last brought up to date with
        self._observed = []

    @property
    def running(self) -> bool:
        """Whether an alignment runs, or its result is being written into the scene."""
        return self._run.running

    @property
    def job(self):
        """The `job.Job` that aligns; None where none runs."""
        return self._run.job

    # The panel's life

    def setup(self) -> None:
        """Builds the panel, when the module is first opened."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DNetRegistration.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = DNetRegistrationLogic()
        self._thresholds = ThresholdControls(self.ui, self.onChosen)
        self._masks = MaskControls(self.ui, self.onChosen)
        self._choices = Choices(self.ui, self.onChosen, self.logic.findDevices)
        self._compare = CompareControls(self.ui)
        self._alignments = AlignmentList(self.ui)
        self._result = ResultView(self.ui)
        self._run = AlignmentRun(self.logic, self.ui, self._result, self._compare, self._update, self._select)
        self.cohort = CohortSection(self.logic, uiWidget.layout(), self._showPair)

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._update)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self._offerSampleData)
        self.ui.alignButton.connect("clicked(bool)", self.onAlignButton)
        self.ui.undoButton.connect("clicked(bool)", self.onUndoButton)
        self.ui.flipButton.connect("clicked(bool)", self.onFlipButton)
        self.ui.sampleDataButton.connect("clicked(bool)", self.onSampleDataButton)
        self.ui.logButton.connect("clicked(bool)", self.onLogButton)
        self.ui.automaticThresholdCheckBox.connect("clicked(bool)", self.onAutomaticThresholdClicked)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Ends what still runs, when the module or the application is closed."""
        self._run.close()
        self.cohort.close()
        self._choices.close()
        self.setParameterNode(None)
        self._thresholds.forget()
        self._masks.forget()
        self._compare.forget()
        self._alignments.forget()
        self.removeObservers()

    def enter(self) -> None:
        """The user comes to the module."""
        forget_check_sums()
        self.initializeParameterNode()

    def exit(self) -> None:
        """The user goes to another module; a running alignment goes on."""
        # First: taking outlines away changes the scene, which would bring the panel up to date and them back.
        self._disconnectParameterNode()
        self._thresholds.hide()
        self._masks.hide()
        self._compare.pause()
        self._run.leave()

    def onReload(self) -> None:
        """The developer clicks Reload: the library is read anew too, where Slicer would read only the module's file."""
        library = __package__.partition(".")[0]
        for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller, event) -> None:
        """The scene is about to be closed: the alignment of its volumes ends."""
        self._run.close()
        self._thresholds.forget()
        self._masks.forget()
        self._compare.forget()
        self._alignments.forget()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """The scene is closed."""
        self._result.forget()
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event) -> None:
        """A scene was loaded, and with it perhaps what the panel held when it was saved."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        """A volume that is being aligned may be deleted, or what moves it onto the other one."""
        from .scene_outputs import hide_bones

        self._run.volumeRemoved(node)
        if is_applied(node) and not slicer.mrmlScene.IsClosing():
            hide_bones(node)  # the moving bone will no longer lie there

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node, connected to the panel."""
        parameters = self.logic.getParameterNode()
        if not parameters.fixedVolume and not parameters.movingVolume:
            scans = last_scans(slicer.mrmlScene)
            if len(scans) == 2:
                parameters.fixedVolume, parameters.movingVolume = scans
        self.setParameterNode(parameters)

    def setParameterNode(self, parameterNode) -> None:
        """Connects the panel to a parameter node, or to none."""
        self._disconnectParameterNode()
        self._parameterNode = parameterNode
        self._pair = (None, None)
        self._observe()
        if parameterNode:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            # The wrapper would never be let go by the mixin, which holds on to what it has once observed.
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    def _disconnectParameterNode(self) -> None:
        if self._parameterNodeGuiTag is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)

    # What the user does

    def onAlignButton(self, clicked=False) -> None:
        """Aligns, or cancels what is running."""
        if self.job is not None:
            self._run.cancel(_("Cancelled: nothing was changed."))
            return
        if self.running:
            return
        self._compare.reset()
        try:
            self._run.start(lambda: self._parameterNode)
        except DNetError as error:
            self._tell("bad", explain(error))
        except Exception as problem:
            logging.exception("The alignment could not be started")
            self._tell("bad", _("The alignment could not be started: {problem}").format(problem=problem))

    def onUndoButton(self, clicked=False) -> None:
        """Puts the moving volume back where it was."""
        moving = self._parameterNode.movingVolume
        if undo(moving):
            text = _("Undone: {name} is no longer moved by the alignment.")
            self._tell("plain", text.format(name=moving.GetName()))

    def onSampleDataButton(self, clicked=False) -> None:
        """Loads two scans to try the module on, and selects them."""
        from .sample_data import loadSampleData

        fixed, moving, _truth = loadSampleData()
        with slicer.util.NodeModify(self._parameterNode):
            self._parameterNode.fixedVolume, self._parameterNode.movingVolume = fixed, moving

    def onLogButton(self, clicked=False) -> None:
        """Shows what the process of the last alignment has told."""
        text = _("The process that aligned told this; please send it with a report of a problem.")
        slicer.util.infoDisplay(text, windowTitle=_("Log of the process"), detailedText=self._run.log)

    def onFlipButton(self, clicked=False) -> None:
        """Puts the voxels of a volume in reverse order, as they were where its slices were stacked the wrong way."""
        role, axis = self.ui.flipSelector.itemData(self.ui.flipSelector.currentIndex).split()
        volume = getattr(self._parameterNode, f"{role}Volume")
        if volume is not None and volume.GetImageData() is not None and not self.running:
            self.logic.flip(volume, axis)
            text = _("{name}: its voxels now lie in reverse order along {axis}. Flip again to take it back.")
            self._tell("plain", text.format(name=volume.GetName(), axis=axis))

    def onAutomaticThresholdClicked(self, automatic: bool) -> None:
        """By hand, thresholds begin where they would be found, and their outlines lie on what they are of."""
        from .scene_compare import show_mixed

        if not automatic:
            self._thresholds.reset(self._parameterNode)
            volumes = self._parameterNode.fixedVolume, self._parameterNode.movingVolume
            if all(volumes):
                self._compare.reset()
                show_mixed(*volumes, fit=True)
        self._update()

    def onChosen(self, name: str, value) -> None:
        """The user has set a parameter for which there is no widget of Slicer's own."""
        if self._parameterNode and not self._updating:
            setattr(self._parameterNode, name, value)

    def _select(self, transform, placed) -> None:
        """Selects the nodes that the result was written to."""
        # Another scene that was added meanwhile may have brought another pair.
        if self._parameterNode and all(getattr(self._parameterNode, f"{p.role}Volume") is p.node for p in placed):
            with slicer.util.NodeModify(self._parameterNode):
                self._parameterNode.transform = transform
                for name, node in outputs_of(transform).items():
                    setattr(self._parameterNode, name, node)

    def _showPair(self, fixed, moving, transform) -> bool:
        """Selects a pair of a cohort that was loaded, unless another pair is being aligned; returns whether it does."""
        if not self._parameterNode or self.running:
            return False
        with slicer.util.NodeModify(self._parameterNode):
            self._parameterNode.fixedVolume, self._parameterNode.movingVolume = fixed, moving
            self._parameterNode.transform = transform
        return True

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
                self._masks.update(self._parameterNode, shown=entered and not self.running)
                self._choices.update(self._parameterNode)
            self._updateButtons()
            found = None if self.running else self._alignmentOfPair()
            self._result.update(self._parameterNode, self.running, found)
            self._compare.update(self._parameterNode, found)
            self._alignments.update(self._parameterNode, found)
        finally:
            self._updating = False

    def _matchPair(self) -> None:
        """Selects what belongs to the pair of volumes, when that has changed."""
        from .scene_compare import show_mixed
        from .scene_outputs import is_filled

        parameters = self._parameterNode
        volumes = parameters.fixedVolume, parameters.movingVolume
        self._observe(*(volume for volume in volumes if volume))
        pair = tuple(volume.GetID() if volume else None for volume in volumes)
        if pair == self._pair:
            return
        if all(volumes) and self._pair != (None, None):  # chosen now; a scene that was loaded has its own views
            self._result.forget()  # what is said of a volume that is gone stays
            show_mixed(*volumes, fit=True)
        self._pair = pair
        # Outputs of another pair would be written over.
        selected = parameters.transform
        found = self._alignmentOfPair()
        known = found[0] if found else None
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

    def _alignmentOfPair(self):
        """What the scene says of the selected volumes, see `current_alignment`."""
        parameters = self._parameterNode
        if not parameters or not parameters.fixedVolume or not parameters.movingVolume:
            return None
        return current_alignment(parameters.fixedVolume, parameters.movingVolume, parameters.transform)

    def _observe(self, *volumes) -> None:
        """Follows volumes, what they stand under, their voxels, and the transforms of their alignments."""
        nodes = [*volumes, *(find_transforms(*volumes) if len(volumes) == 2 else ())]
        if nodes == [node for node, _tags in self._observed]:
            return
        # Not by the mixin: it holds on to what it has once observed, and with it to the voxels.
        for node, tags in self._observed:
            for tag in tags:
                node.RemoveObserver(tag)
        events = (
            vtk.vtkCommand.ModifiedEvent,
            slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
            slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
        )
        self._observed = [(node, [node.AddObserver(e, self.onVolumeChanged) for e in events]) for node in nodes]

    def onVolumeChanged(self, caller, event) -> None:
        """What was said of the volumes may hold no longer."""
        self._result.forget()
        self._update()

    def _updateButtons(self) -> None:
        running, why = self.running, self._whyNot()
        self.ui.alignButton.text = (
            _("Preparing PyTorch…") if self._run.preparing else _("Cancel") if running else why or _("Align")
        )
        self.ui.alignButton.enabled = self.job is not None or (not running and not why)
        if self._parameterNodeGuiTag is not None and not running and not why:
            self._run.prepare()
        self.ui.statusLabel.visible = self.ui.progressBar.visible = running and not self._run.preparing
        for name in ("inputs", "outputs", "advanced"):
            getattr(self.ui, f"{name}CollapsibleButton").enabled = not running
        moving = self._parameterNode.movingVolume if self._parameterNode else None
        self.ui.logButton.enabled = bool(self._run.log)
        self._offerSampleData()
        self.ui.undoButton.enabled = not running and moving is not None and self.logic.isAligned(moving)

    def _offerSampleData(self, caller=None, event=None) -> None:
        """Where nothing is loaded."""
        loaded = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") > 0
        self.ui.sampleDataButton.visible = not loaded and not self.running

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
        if parameters.table and parameters.table is parameters.cartilage:
            return _("Two outputs are the same table")
        return ""

    def _tell(self, kind: str, text: str) -> None:
        self._result.tell(kind, text)
        self._update()
