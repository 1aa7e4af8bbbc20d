"""Alignment of volume nodes, for the panel and for scripts."""

import json
import shutil
import sys
from contextlib import suppress

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from ..core.errors import OptionError
from ..core.threads import let_threads_sleep
from .job import ENVIRONMENT, Job, JobResult
from .parameters import FILE, OUTPUTS, DNetRegistrationParameterNode
from .request import JobOptions
from .scene import check_transform, place, transform_above, undo
from .torch_setup import ensure_torch, require_torch


class DNetRegistrationLogic(ScriptedLoadableModuleLogic):
    """Aligns volume nodes: at once, for scripts, or in the background, for the panel."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.launch = None  # the `job.Launch` that starts processes; None is Qt

    def getParameterNode(self) -> DNetRegistrationParameterNode:
        """The parameter node of the panel."""
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
        """Aligns two volume nodes, and returns when it is done. Needs no panel.

        Args:
            fixedNode, movingNode: scalar volume nodes, which may stand under rigid transforms.
            transformNode: takes the result; None is the one of an earlier alignment of the moving volume, or a new one.
            segmentationNode, tableNode, resampledNode, subtractionNode: are written to where they are given.
            contrast: the scan with contrast agent, "fixed" or "moving"; for the subtraction.
            options: of `registration.align.align`: threshold, device, weights, hypotheses, refine, progress, ...

        Returns:
            The transform node above the moving volume, and the `Alignment`.

        Raises:
            ScanError, OptionError: a volume or an option cannot be used.
            PackageError: PyTorch is missing.

        Example:
            >>> logic = slicer.util.getModuleLogic("DNetRegistration")
            >>> transform, alignment = logic.align(getNode("PreContrast"), getNode("PostContrast"))
            >>> alignment.accepted
            True
        """
        fixed, moving = self.check(fixedNode, movingNode, transformNode)
        require_torch()
        let_threads_sleep()
        from ..registration.align import align
        from .scene_outputs import Contents, write_steps

        scans = fixed.volume(), moving.volume()
        alignment = align(*scans, **options)
        given = transformNode, segmentationNode, tableNode, resampledNode, subtractionNode
        nodes = {name: node for name, node in zip(OUTPUTS, given, strict=True) if node is not None}
        contents = Contents.computed(*scans, alignment, nodes, contrast)
        *_, transform = write_steps(fixed, moving, alignment, nodes, contents)
        return transform, alignment

    def check(self, fixedNode, movingNode, transformNode=None):
        """Two volumes as they stand, where they can be aligned and the transform node can take the result.

        Args:
            fixedNode, movingNode, transformNode: see `align`.

        Returns:
            A `scene.Placed` each.

        Raises:
            ScanError, OptionError: they cannot be aligned, or the transform node cannot take the result.
        """
        if fixedNode is not None and fixedNode is movingNode:
            raise OptionError(f"{fixedNode.GetName()}: is both the fixed and the moving volume", "select two scans")
        placed = place(fixedNode, "fixed"), place(movingNode, "moving")
        transform = transformNode or transform_above(movingNode)
        if transform is not None:
            check_transform(transform, *placed)
        return placed

    def spacingDoubt(self, placed) -> str | None:
        """Why the voxel size of a placed volume looks lost; None where it does not."""
        from ..imaging.volume import spacing_doubt

        return spacing_doubt(placed.volume())

    def options(self, parameters) -> JobOptions:
        """The options of a job that a parameter node holds."""
        manual = not parameters.automaticThreshold
        return JobOptions(
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
            PackageError: torch is not ready for use.
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
            finished: called once with a `job.JobResult`; where it aligned, `write` takes it.

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
        """Writes the result of a job into the scene, in steps between which the application can go on.

        Args:
            fixed, moving: from `check`, before the job started.
            result: of the job.
            nodes: the output nodes by name; transform, segmentation and table are made where they are None.

        Returns:
            An iterator that writes, and yields the transform node after each step.

        Raises:
            FileError: a file of the job cannot be read.
            ScanError, OptionError: from the first step, see `scene.apply_alignment`; the scene is as it was.
        """
        from .scene_outputs import Contents, write_steps

        # The files are read now: they are removed when the job's `finished` returns.
        return write_steps(fixed, moving, result.alignment, nodes, Contents.read(result.folder, result.alignment))

    def show(self, fixed, moving) -> None:
        """Shows both volumes in the slice views, and everything in the 3D views."""
        from .scene_outputs import show_pair

        show_pair(fixed.node, moving.node)

    def isAligned(self, movingNode) -> bool:
        """Whether a volume stands under the transform of its alignment."""
        return transform_above(movingNode) is not None

    def undo(self, movingNode) -> bool:
        """Puts a moving volume back where it was before it was aligned; returns false where it is not aligned."""
        from .scene_outputs import hide_cortices

        transform = movingNode.GetParentTransformNode()
        undone = undo(movingNode)
        if undone:
            hide_cortices(transform)
        return undone

    def findDevices(self, found):
        """Looks for the devices that can align, in the background.

        Args:
            found: called with pairs of a name and a label; with none where torch is missing.

        Returns:
            The `job.Process` that looks.
        """
        pieces = []

        def finished(status) -> None:
            found(_devices(b"".join(pieces)) if status == 0 else [])

        command = [self.python(), "-m", "DNetRegistrationLib.registration.devices"]
        return self._launch(command, ENVIRONMENT, pieces.append, lambda text: None, finished)

    def python(self) -> str:
        """The interpreter of processes: Slicer's Python without the application."""
        return shutil.which("PythonSlicer") or sys.executable

    def _launch(self, *arguments):
        if self.launch is not None:
            return self.launch(*arguments)
        from .qt_process import QtProcess

        return QtProcess(*arguments)


def _devices(output: bytes) -> list[tuple[str, str]]:
    """The devices in the last line that holds some; drivers and libraries may print lines of their own."""
    for line in reversed(output.splitlines()):
        with suppress(ValueError, TypeError, RecursionError):
            return [(str(name), str(label)) for name, label in json.loads(line)]
    return []
