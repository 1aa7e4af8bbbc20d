"""Alignment of volume nodes, without a panel too."""

import json
import shutil
import sys

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from ..core.errors import OptionError
from .job import HOME, Job, JobResult
from .parameters import FILE, OUTPUTS, DNetRegistrationParameterNode
from .request import Options
from .scene import check_transform, place, transform_above, undo
from .torch_setup import ensure_torch, require_torch


class DNetRegistrationLogic(ScriptedLoadableModuleLogic):
    """What the panel does, for scripts too."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.launch = None  # what starts a process, see `job.Launch`; None is Qt

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
            options: to `alignment.align`: threshold, device, weights, hypotheses, refine, progress, ...

        Returns:
            The transform node above the moving volume, and the `Alignment`.

        Raises:
            ScanError, OptionError: a volume or an option cannot be used; the message names it and the remedy.
            PackageError: PyTorch is missing; the message says what to do.

        Example:
            >>> logic = slicer.util.getModuleLogic("DNetRegistration")
            >>> transform, alignment = logic.align(getNode("PreContrast"), getNode("PostContrast"))
            >>> alignment.accepted
            True
        """
        fixed, moving = self.check(fixedNode, movingNode, transformNode)
        require_torch()
        from ..registration.align import align
        from .scene_outputs import Contents, write_result

        scans = fixed.volume(), moving.volume()
        alignment = align(*scans, **options)
        given = transformNode, segmentationNode, tableNode, resampledNode, subtractionNode
        nodes = {name: node for name, node in zip(OUTPUTS, given, strict=True) if node is not None}
        contents = Contents.computed(*scans, alignment, nodes, contrast)
        return write_result(fixed, moving, alignment, nodes, contents), alignment

    def check(self, fixedNode, movingNode, transformNode=None):
        """Where two volumes stand, if they can be aligned and the result be written to a transform node.

        None as transform is that of an earlier alignment of the moving volume, or a new one.

        Raises:
            ScanError, OptionError: they cannot.
        """
        if fixedNode is not None and fixedNode is movingNode:
            raise OptionError(f"{fixedNode.GetName()}: is both the fixed and the moving volume", "select two scans")
        placed = place(fixedNode, "fixed"), place(movingNode, "moving")
        transform = transformNode or transform_above(movingNode)
        if transform is not None:
            check_transform(transform, *placed)
        return placed

    def spacingDoubt(self, placed) -> str | None:
        """Why the voxel size of a volume looks lost; None where it does not."""
        from ..imaging.volume import spacing_doubt

        return spacing_doubt(placed.volume())

    def options(self, parameters) -> Options:
        """The parameters of the panel as options of a job."""
        manual = not parameters.automaticThreshold
        return Options(
            fixed_threshold=parameters.fixedThreshold if manual else None,
            moving_threshold=parameters.movingThreshold if manual else None,
            working_spacing=parameters.workingSpacing or None,
            device=parameters.device,
            weights=parameters.weights.removeprefix(FILE) or None,
            hypotheses=parameters.hypotheses.value,
            refine=parameters.refine.value,
            contrast=parameters.contrast.value,
            resampled=parameters.resampled is not None,
            subtraction=parameters.subtraction is not None,
        )

    def ensureTorch(self) -> None:
        """Asks the PyTorch extension to install torch where it is missing.

        Raises:
            PackageError: it is not ready for use; the message says what to do.
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
            finished: called once with a `job.JobResult`, to be given to `write` where it aligned.

        Raises:
            FileError: the scans cannot be written to the temporary folder.
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

    def write(self, fixed, moving, result: JobResult, nodes: dict):
        """Writes what a background job found into the scene, in steps between which the application can go on.

        Args:
            fixed, moving: from `check`, as they were when it started.
            result: its end.
            nodes: output nodes to write to, by name; transform, segmentation and table are made where they are None.

        Returns:
            An iterator that writes, and yields the transform node after each step.

        Raises:
            FileError: a file cannot be read. From the first step: see `scene.apply_alignment`. The scene is as it was.
        """
        from .scene_outputs import Contents, write_steps

        # Read at once: the files go when the job has told of its end.
        return write_steps(fixed, moving, result.alignment, nodes, Contents.read(result.folder, result.alignment))

    def show(self, fixed, moving) -> None:
        """Shows both volumes in the slice views, and all there is in 3D."""
        from .scene_outputs import show_pair

        show_pair(fixed.node, moving.node)

    def isAligned(self, movingNode) -> bool:
        """Whether a volume stands under the transform of an alignment of it."""
        return transform_above(movingNode) is not None

    def undo(self, movingNode) -> bool:
        """Puts a moving volume back where it was before it was aligned; false where it is not aligned."""
        from .scene_outputs import hide_cortices

        transform = movingNode.GetParentTransformNode()
        undone = undo(movingNode)
        if undone:
            hide_cortices(transform)
        return undone

    def findDevices(self, found):
        """Looks for the devices that can align, in the background; `found` is called with names and labels."""
        pieces = []

        def finished(status) -> None:
            found([tuple(device) for device in json.loads(b"".join(pieces).splitlines()[-1])] if status == 0 else [])

        command = [self.python(), "-m", "DNetRegistrationLib.registration.devices"]
        return self._launch(command, {"PYTHONPATH": str(HOME)}, pieces.append, lambda text: None, finished)

    def python(self) -> str:
        """Slicer's Python without the application."""
        return shutil.which("PythonSlicer") or sys.executable

    def _launch(self, *arguments):
        if self.launch is not None:
            return self.launch(*arguments)
        from .qt_process import QtProcess

        return QtProcess(*arguments)
