"""The panel in the stand-in for Slicer: selects, clicks, and answers in place of the process that aligns."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from DNetRegistrationLib.outputs.segmentation import Cortices
from DNetRegistrationLib.slicer_module import events
from DNetRegistrationLib.slicer_module.contents import Contents, place_of
from DNetRegistrationLib.slicer_module.request import read_request
from scene_nodes import add_volume, aligned, positions


def select(panel, fixed, moving):
    panel.ui.fixedSelector.setCurrentNode(fixed)
    panel.ui.movingSelector.setCurrentNode(moving)


def select_two_volumes(panel) -> tuple:
    """Two small volumes, selected; nothing that could be aligned."""
    fixed, moving = add_volume("PreContrast", "oblique"), add_volume("PostContrast", "far")
    select(panel, fixed, moving)
    return fixed, moving


class Launcher:
    """In place of a process: answers when the event loop next runs, with events and an exit status.

    Args:
        matrix: of the alignment that it tells; None tells of none.
        status: with which it ends.
        told: events that it tells first.
        said: what it writes beside them.
        held: it waits for `answer`.
        pose: the matrix that it tells of before it is checked.
        bones: of several bones, what each alignment says: changes to it, with its matrix among them.
        changes: to what the alignment says.
    """

    def __init__(self, matrix=None, status=0, told=(), said=b"", held=False, pose=None, bones=None, **changes):
        self.matrix, self.status, self.told, self.said, self.held = matrix, status, told, said, held
        self.pose, self.killed, self.pid = pose, False, 0
        self.bones = bones or ([] if matrix is None else [{"matrix": matrix, **changes}])

    def __call__(self, command, environment, output, errors, end):
        import qt

        self.folder = Path(command[-1])
        self.output, self.errors, self.end = output, errors, end
        if not self.held:
            qt.QTimer.singleShot(0, self.answer)
        return self

    def tell(self, event, **values):
        self.output(events.to_line(event, **values).encode() + b"\n")

    def answer(self):
        self.tell(events.PROGRESS, fraction=0.4, message="searching all rotations")
        for one in self.told:
            self.tell(**one)
        self.errors(self.said)
        if self.pose is not None:
            self.tell(events.POSE, matrix=self.pose.tolist())
        if self.bones:
            for number in range(len(self.bones)):
                self.write_outputs(place_of(self.folder, number))
            self.tell(events.RESULT, alignments=[aligned(**bone).to_dict() for bone in self.bones])
        self.end(self.status)

    def write_outputs(self, folder):
        request = read_request(self.folder)
        fixed, options = request.fixed, request.options
        mask = np.zeros(fixed.voxels.shape, bool)
        mask[2:7, 2:7, 2:7] = True
        full = {
            name: np.full(mask.shape, number, np.float32)
            for number, name in enumerate(("resampled", "subtraction"), 1)
            if getattr(options, name)
        }
        Contents(Cortices(mask, mask, fixed.affine), **full).write(folder)

    def kill(self):
        self.killed = True
        self.end(-9)  # as Qt tells it, before kill returns


def click(host, panel, launcher, seconds=10):
    panel.logic.launch = launcher
    panel.ui.alignButton.click()
    host.wait_until(lambda: not panel.running, seconds)


def snapshot():
    """All nodes with their names, and where all volumes are: what a run that fails must not change."""
    import slicer

    nodes = [slicer.mrmlScene.GetNthNode(i) for i in range(slicer.mrmlScene.GetNumberOfNodes())]
    return (
        [(node.GetID(), node.GetName()) for node in nodes],
        [positions(node).tolist() for node in nodes if node.IsA("vtkMRMLVolumeNode")],
    )


def leftovers() -> list[str]:
    import slicer

    return [name for name in os.listdir(slicer.app.temporaryPath) if name.startswith("dnet-")]
