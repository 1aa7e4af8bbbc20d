"""The alignment that the panel runs: scans to another process and results into the scene, a step at a time."""

from __future__ import annotations

import logging
import weakref

import qt
import slicer
from slicer.i18n import tr as _

from ..core.errors import DNetError, OptionError
from ..core.words import capital
from .job import JobOutcome, JobResult
from .parameters import OUTPUTS
from .wording import explain

#: Of all panels of the module: Slicer can show several.
_runs: weakref.WeakSet[AlignmentRun] = weakref.WeakSet()
# After so long outside the module, in ms, the process that waits for an alignment gives its memory back.
AWAY = 180_000


class AlignmentRun:
    """At most one alignment at a time, and none of a volume that another panel is aligning.

    Args:
        logic: the module's logic.
        ui: the panel's widgets; progress shows in them.
        result: the panel's `ResultView`, which is told what happens.
        compare: the panel's `CompareControls`, which mix the volumes when they are brought into view.
        changed: called when something has changed that the panel shows.
        written: called with the transform node and the placed volumes, after each step into the scene.

    Attributes:
        job: the process; None where none runs.
        log: what the process of the last alignment has told.
        preparing: PyTorch is being installed, while which the panel can be used.
    """

    def __init__(self, logic, ui, result, compare, changed, written) -> None:
        self._logic, self._ui, self._result, self._compare = logic, ui, result, compare
        self._changed, self._written = changed, written
        self.job, self._last = None, None
        self.preparing = False
        self._placed, self._outputs = (), {}  # the volumes, and the nodes to write to
        self._scans = None  # what is left to hand over of the scans
        self._pose = None  # the `UncheckedPose` that is in the scene
        self._inView = False  # the slice views show the pair
        self._done = None  # the job whose result is being written
        self._steps = None  # what is left to write of it
        self._cancelMessage = None
        _runs.add(self)
        self._away = qt.QTimer()
        self._away.setSingleShot(True)
        self._away.setInterval(AWAY)
        self._away.connect("timeout()", logic.dismiss)

    @property
    def running(self) -> bool:
        """Whether an alignment is prepared, runs, or is being written into the scene."""
        return self.preparing or self.job is not None or self._steps is not None

    @property
    def log(self) -> str:
        return "" if self._last is None else self._last.history

    def start(self, parameterNode) -> None:
        """Aligns what is selected.

        Args:
            parameterNode: called for the parameter node, which may be another one after PyTorch was installed.

        Raises:
            DNetError: it cannot be aligned.
        """
        parameters = parameterNode()
        placed = self._check(parameters)
        self._logic.request(parameters, *placed)  # what speaks against it is told before PyTorch is installed
        if not all(self._confirmSpacing(one) for one in placed):
            self._tell("plain", _("Not aligned: correct the voxel size first."))
            return
        self._ensureTorch()
        # Installing takes minutes, in which the scene can change.
        parameters = parameterNode()
        self._placed = self._check(parameters)
        request = self._logic.request(parameters, *self._placed)
        self._outputs = {name: getattr(parameters, name) for name in OUTPUTS}
        self._result.forget()
        self._inView = False
        with slicer.util.WaitCursor():
            self.job, self._scans = self._logic.start(request, self._progressed, self._posed, self._finished)
            self._last = self.job
            self._progressed(0.0, _("Starting"))
            try:
                self._handOver()
            except BaseException:
                self.job = None
                raise
        self._changed()

    def prepare(self) -> None:
        """An alignment may follow: a process gets ready for it."""
        self._away.stop()
        self._logic.prepare()

    def leave(self) -> None:
        """The user goes to another module, perhaps for long."""
        self._away.start()

    def cancel(self, message: str | None = None) -> None:
        """Ends what runs; `message` is told where a process was ended."""
        self._cancelMessage = message
        self._endSteps()
        if self.job is not None:
            self.job.cancel()
        self._scans = None

    def close(self) -> None:
        """Ends what runs, and what waits."""
        self.forget()
        self._away.stop()
        self._logic.dismiss()

    def volumeRemoved(self, node) -> None:
        """A volume is deleted: nothing is left to align where it is one of those."""
        if not any(node is placed.node for placed in self._placed):
            return
        if self.running:
            message = _("Stopped: {name} was deleted while it was being aligned.").format(name=node.GetName())
            writing = self.job is None
            self.cancel(message)
            if writing:
                self._tell("plain", message)
        self._placed = ()  # or it stays in memory

    def forget(self) -> None:
        """Ends what runs, and lets go of the scene."""
        self.cancel()
        self._placed, self._outputs = (), {}  # or the volumes stay in memory

    def _check(self, parameters):
        placed = self._logic.check(parameters.fixedVolume, parameters.movingVolume, parameters.transform)
        for run in _runs:
            if run is not self and run.running and run._placed:
                ours, theirs = ([one.node for one in pair] for pair in (placed, run._placed))
                if ours[1] in theirs or theirs[1] in ours:  # one would move what the other measures
                    name = ours[1].GetName()
                    raise OptionError(f"{name}: is being aligned already", "wait until that has ended, or cancel it")
        return placed

    def _confirmSpacing(self, placed) -> bool:
        doubt = self._logic.spacingDoubt(placed)
        question = _(
            "{name}: {doubt}. Correct it in the module Volumes, or align anyway. Of a SkyScan stack, "
            "SkyscanReconImport of the extension SlicerMorph reads the voxel size."
        )
        return not doubt or slicer.util.confirmOkCancelDisplay(question.format(name=placed.name, doubt=doubt))

    def _ensureTorch(self) -> None:
        self.preparing = True
        self._tell("plain", _("Preparing PyTorch…"))
        try:
            self._logic.ensureTorch()
        finally:
            self.preparing = False
            self._changed()

    def _progressed(self, fraction: float, stage: str) -> None:
        self._ui.statusLabel.text = capital(stage)
        self._ui.progressBar.value = round(100 * fraction)

    def _handOver(self) -> None:
        """Hands a part of the scans to the process; the next one when the application has had its turn."""
        if next(self._scans, self._scans) is self._scans or self.job is None:
            self._scans = None
        else:
            qt.QTimer.singleShot(0, self._handOverMore)

    def _handOverMore(self) -> None:
        if self._scans is None or self.job is None:
            return
        try:
            self._handOver()
        except Exception as problem:
            self.job = None
            self._giveUp(problem)

    def _posed(self, matrix) -> None:
        """Shows a pose that is being checked."""
        self._takePoseBack()
        chosen = self._outputs["transform"]
        try:
            self._pose = self._logic.showPose(
                *self._placed, matrix, chosen if chosen is not None and chosen.GetScene() is not None else None
            )
        except DNetError:  # it comes again with the result, and is told then
            return
        self._bringIntoView()
        self._tell("plain", _("Shown as aligned; checking whether it can be trusted…"))

    def _finished(self, result: JobResult) -> None:
        job, self.job = self.job, None
        outputs, self._outputs = self._outputs, {}
        if result.alignments:
            self._done = job
            if self._pose is not None:
                outputs["transform"] = self._pose.transform
            try:
                self._steps = self._logic.write(*self._placed, result, outputs)
            except Exception as problem:
                self._giveUp(problem)
            else:
                self._progressed(1.0, _("Showing the result"))
                self._nextStep()
            return
        self._takePoseBack()
        if result.outcome is JobOutcome.CANCELLED:
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
                self._pose = None  # it is checked now
                self._result.replaced()
                self._written(transform, self._placed)
                self._bringIntoView()
                qt.QTimer.singleShot(0, self._nextStep)
                return
            self._endSteps()
            self._result.forget()
            self._logic.showSurfaces()
        except Exception as problem:
            self._giveUp(problem)
        self._changed()

    def _bringIntoView(self) -> None:
        # Once: the user may have looked closer since.
        if not self._inView:
            self._inView = True
            self._compare.reset()
            self._logic.showLayers(*self._placed)

    def _takePoseBack(self) -> None:
        pose, self._pose = self._pose, None
        if pose is not None:
            pose.take_back()

    def _endSteps(self) -> None:
        """Lets go of a result that is written, or will not be."""
        self._steps = None
        done, self._done = self._done, None
        if done is not None:
            done.close()

    def _giveUp(self, problem: Exception) -> None:
        self._endSteps()
        self._takePoseBack()
        if isinstance(problem, DNetError):
            self._tell("bad", explain(problem))
        else:
            logging.error("The result could not be shown", exc_info=problem)
            self._tell("bad", _("The result could not be shown: {problem}").format(problem=problem))

    def _tell(self, kind: str, text: str, details: str = "") -> None:
        self._result.tell(kind, text, details)
        self._changed()
