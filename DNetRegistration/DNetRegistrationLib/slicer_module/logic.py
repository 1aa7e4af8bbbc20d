"""Alignment of volume nodes, for the panel and for scripts."""

import json
import shutil
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from ..core.errors import DNetError, OptionError, Setting
from ..core.threads import let_threads_sleep
from .cohort_job import CohortJob
from .job import Job, JobResult
from .parameters import FILE, OUTPUTS, ROLES, BoneChoice, DNetRegistrationParameterNode, plain_role
from .request import CARTILAGE_KINDS, JobOptions, Joint, Request
from .scene import check_transform, place, seen_pose, transform_above, undo
from .scene_pose import UncheckedPose
from .torch_setup import ensure_torch, require_torch
from .worker_process import ENVIRONMENT


class DNetRegistrationLogic(ScriptedLoadableModuleLogic):
    """Aligns volume nodes: at once, for scripts, or in the background, for the panel."""

    _prepared = False  # since the last alignment
    _waiting: Job | None = None  # of all panels together

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.launch = None  # the `worker_process.Launch` that starts processes; None is Qt

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
        cartilageNode=None,
        thicknessNode=None,
        cartilageSegment=False,
        regionMask=None,
        medialPoint=None,
        anyway=False,
        contrast="moving",
        fixedMask=None,
        movingMask=None,
        **options,
    ):
        """Aligns two volume nodes, and returns when it is done. Needs no panel.

        Args:
            fixedNode, movingNode: scalar volume nodes, which may stand under rigid transforms.
            transformNode: takes the result; None is the one of an earlier alignment of the moving volume, or a new one.
            segmentationNode, tableNode, resampledNode, subtractionNode: are written to where they are given.
            cartilageNode, thicknessNode: a table node and a model node, for the cartilage that is measured where they
                are given, or where it is to be a segment.
            cartilageSegment: cartilage is the third segment of `segmentationNode`.
            regionMask: where the joint is on the scan without agent, as the masks below.
            medialPoint: a markups node with one point on the medial side of that scan.
            anyway: measure cartilage although the alignment is not accepted.
            contrast: the scan with contrast agent, "fixed" or "moving"; for the subtraction and the cartilage.
            fixedMask, movingMask: where to look for bone: a segmentation node, of which all segments count, or a pair
                of one and the ID of a segment; a label volume node; or a markups ROI node.
            options: of `registration.align.align`: threshold, device, weights, hypotheses, refine, progress, ...

        Returns:
            The transform node above the moving volume, and the `Alignment`. With ``bone="each"`` a list of such pairs,
            the largest bone first: each bone has a transform and outputs of its own, and nodes that were given are
            for the largest.

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
        from ..imaging.masks import mask_on
        from ..registration.align import align
        from .contents import Contents
        from .scene_outputs import write_each

        scans, bones = (fixed.volume(), moving.volume()), []
        masks = [
            None if mask is None else mask_on(mask, scan, placed.role)
            for mask, scan, placed in zip(
                self._masks((fixedMask, movingMask), (fixed, moving)), scans, (fixed, moving), strict=True
            )
        ]
        options |= {
            f"{placed.role}_mask": mask for placed, mask in zip((fixed, moving), masks, strict=True) if mask is not None
        }
        joint = self._joint(regionMask, medialPoint, fixed if contrast == "moving" else moving)
        found = align(*scans, **options, posed=lambda matrix, segmented: bones.append(segmented))
        alignments = found if isinstance(found, list) else [found]
        given = transformNode, segmentationNode, tableNode, resampledNode, subtractionNode, cartilageNode, thicknessNode
        nodes = {name: node for name, node in zip(OUTPUTS, given, strict=True) if node is not None}
        wanted = {*nodes, "layer"} if cartilageSegment else set(nodes)
        segmented = bones[-1] if bones else None
        contents = [
            Contents.computed(*scans, one, segmented, wanted, contrast, masks, joint=joint, anyway=anyway)
            for one in alignments
        ]
        transforms = dict.fromkeys(write_each(fixed, moving, alignments, nodes, contents))  # in order, once each
        pairs = list(zip(reversed(transforms), alignments, strict=True))
        return pairs if isinstance(found, list) else pairs[0]

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

    def request(self, parameters, fixed, moving) -> Request:
        """What a parameter node asks for.

        Args:
            parameters: the parameter node.
            fixed, moving: from `check`.

        Raises:
            ScanError: a mask cannot be used.
            OptionError: what is asked for does not go together.
        """
        options = self.options(parameters, moving)
        measured = bool(options.wanted & set(CARTILAGE_KINDS))
        if measured and parameters.bone is BoneChoice.each:
            setting = Setting("bone", value=BoneChoice.largest.value)
            raise OptionError("cartilage is measured on one bone", "align the largest", setting)
        given = [(getattr(parameters, f"{role}Mask"), getattr(parameters, f"{role}Segment")) for role in ROLES]
        masks = self._masks([None if node is None else (node, segment) for node, segment in given], (fixed, moving))
        request = Request(fixed.volume(), moving.volume(), options, *masks)
        if not measured:
            return request
        plain = fixed if plain_role(parameters) == "fixed" else moving
        region = None if parameters.regionMask is None else (parameters.regionMask, parameters.regionSegment)
        joint = self._joint(region, parameters.medialPoint, plain)
        return replace(request, region=joint.region, medial=joint.medial)

    def _masks(self, given, volumes):
        from .scene_masks import mask_of

        pairs = [mask if isinstance(mask, tuple) else (mask, "") for mask in given]
        return tuple(
            None if node is None else mask_of(node, placed, segment)
            for (node, segment), placed in zip(pairs, volumes, strict=True)
        )

    def _joint(self, region, medial, plain) -> Joint:
        from .scene_masks import mask_of, point_of

        node, segment = region if isinstance(region, tuple) else (region, "")
        return Joint(
            None if node is None else mask_of(node, plain, segment, Setting("region")),
            None if medial is None else point_of(medial, plain, Setting("medial")),
        )

    def flip(self, volume, axis: str) -> None:
        """Puts the voxels of a volume node in reverse order along an index axis: "x", "y" or "z"."""
        voxels = slicer.util.arrayFromVolume(volume)
        voxels[:] = np.flip(voxels, "zyx".index(axis)).copy()
        slicer.util.arrayFromVolumeModified(volume)

    def options(self, parameters, moving=None) -> JobOptions:
        """The options of a job that a parameter node holds.

        Args:
            parameters: the parameter node.
            moving: from `check`; it is needed where the pose that is seen is tried first.
        """
        manual = not parameters.automaticThreshold
        return JobOptions(
            fixed_threshold=parameters.fixedThreshold if manual else None,
            moving_threshold=parameters.movingThreshold if manual else None,
            working_spacing=parameters.workingSpacing or None,
            device=parameters.device,
            weights=parameters.weights.removeprefix(FILE) or None,
            hypotheses=parameters.hypotheses.value,
            refine=parameters.refine.value,
            bone=parameters.bone.value if parameters.bone is not BoneChoice.all else None,
            initial=seen_pose(moving).tolist() if parameters.startAsSeen and moving is not None else None,
            contrast=parameters.contrast.value,
            resampled=parameters.resampled is not None,
            subtraction=parameters.subtraction is not None,
            cartilage=parameters.cartilage is not None,
            thickness=parameters.thickness is not None,
            layer=parameters.cartilageSegment,
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

    def prepare(self) -> None:
        """Starts a process that loads PyTorch and waits for one alignment, where none does and it can be started.

        There is one at most. One that cannot be started, or ends by itself, is not tried again before an alignment.
        """
        kind = type(self)
        if kind._prepared:
            return
        kind._prepared = True
        with suppress(DNetError):
            require_torch()
            job = self._newJob()
            job.start()
            kind._waiting = job

    def dismiss(self) -> None:
        """Ends the process that waits for an alignment."""
        job = self._take()
        if job is not None:
            job.cancel()

    def start(self, request: Request, progress, posed, finished):
        """Begins an alignment in the background, in the process that waits for one or in a new one.

        Args:
            request: from `request`.
            progress, posed, finished: see `job.Job.align`; where it aligned, `write` takes the result.

        Returns:
            The `job.Job`, and an iterator that hands the scans to it, with the application's turn between its steps.

        Raises:
            FileError: the temporary folder cannot be used; by the iterator too.
        """
        job = self._take()
        if job is None or not job.alive:
            job = self._newJob()
            job.start()
        return job, job.align(request, progress=progress, posed=posed, finished=finished)

    def showPose(self, fixed, moving, matrix, transformNode=None) -> UncheckedPose:
        """Lays the moving volume where it will lie if nothing speaks against it; see `scene_pose`.

        Args:
            fixed, moving: from `check`, before the job started.
            matrix: ``(4, 4)``, fixed to moving, LPS mm.
            transformNode: see `align`.
        """
        return UncheckedPose(fixed, moving, matrix, transformNode)

    def write(self, fixed, moving, result: JobResult, nodes: dict):
        """Writes the result of a job into the scene, in steps between which the application can go on.

        Args:
            fixed, moving: from `check`, before the job started.
            result: of the job, which is closed when all is written.
            nodes: the output nodes by name; transform, segmentation and table are made where they are None.

        Returns:
            An iterator that writes, and yields the transform node after each step.

        Raises:
            FileError: a file of the job cannot be read; by the iterator too.
            ScanError, OptionError: from the first step, see `scene.apply_alignment`; the scene is as it was.
        """
        from .contents import Contents, place_of
        from .scene_outputs import write_each

        contents = [Contents.read(place_of(result.folder, number)) for number in range(len(result.alignments))]
        return write_each(fixed, moving, result.alignments, nodes, contents)

    def showLayers(self, fixed, moving) -> None:
        """Shows both volumes in the slice views."""
        from .scene_compare import show_mixed

        show_mixed(fixed.node, moving.node, fit=True)

    def showSurfaces(self) -> None:
        """Turns the 3D views to what is there."""
        from .scene_outputs import show_surfaces

        show_surfaces()

    def isAligned(self, movingNode) -> bool:
        """Whether a volume stands under the transform of its alignment."""
        return transform_above(movingNode) is not None

    def undo(self, movingNode) -> bool:
        """Puts a moving volume back where it was before it was aligned; returns false where it is not aligned."""
        from .scene_outputs import hide_bones

        transform = movingNode.GetParentTransformNode()
        undone = undo(movingNode)
        if undone:
            hide_bones(transform)
        return undone

    def findDevices(self, found):
        """Looks for the devices that can align, in the background.

        Args:
            found: called with pairs of a name and a label; with none where torch is missing.

        Returns:
            The `worker_process.Process` that looks.
        """
        pieces = []

        def finished(status) -> None:
            found(_devices(b"".join(pieces)) if status == 0 else [])

        command = [self.python(), "-m", "DNetRegistrationLib.registration.devices"]
        return self._launch(command, ENVIRONMENT, pieces.append, lambda text: None, finished)

    def startCohort(self, what: str, scans: str, results: str, progress, finished) -> CohortJob:
        """Begins the check or the alignment of a cohort in the background; see `cohort_job.CohortJob`."""
        return CohortJob(
            what, scans, results, python=self.python(), launch=self._launch, progress=progress, finished=finished
        )

    def python(self) -> str:
        """The interpreter of processes: Slicer's Python without the application."""
        return shutil.which("PythonSlicer") or sys.executable

    def _take(self) -> Job | None:
        """The process that waits, which from now on does not."""
        kind = type(self)
        job, kind._waiting, kind._prepared = kind._waiting, None, False
        return job

    def _newJob(self) -> Job:
        return Job(python=self.python(), launch=self._launch, temporary=slicer.app.temporaryPath)

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
