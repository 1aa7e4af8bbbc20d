"""Measures what a user of the module waits for, on the stand-in for Slicer.

    python Tools/slicer_benchmark.py [--large] [--volumes] [--cold]

Prints how long the module takes to load (required: below 0.5 s). Then it clicks Align on the sample pair and, with
--large, on two scans of 512^3 voxels, and prints when the moving volume lies in its place and when verdict and cortices
are there, where that time goes, and the longest times for which the window did not react. Required of the sample pair,
on two idle cores, are 1.5 s, 2.5 s and 0.2 s; of the large one 6 s in all, 15 s with both volumes, and 0.5 s.

Processor time is printed beside it, of the process that aligns and of the window: on a machine that does other work
too, only that can be compared. The window of the stand-in is Qt's, the scene is Slicer's own; Slicer's views, which
draw the result, are not measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "Testing" / "support"), str(ROOT / "DNetRegistration")]

import numpy as np
import slicer_host
import vtk


@dataclass(frozen=True)
class Moment:
    """Wall and processor time, in s; that of the process that aligns is NaN where the system does not tell."""

    wall: float
    process: float
    window: float

    def since(self, before: Moment) -> str:
        """The three times that have passed, as a row of the table."""
        passed = (self.wall - before.wall, self.process - before.process, self.window - before.window)
        return "".join(f"{seconds:9.2f}" for seconds in passed)


class Timeline:
    """Notes when something ends, from the click on.

    Args:
        logic: of the panel. The processes that it starts are followed, and the parts of its work in the window.
    """

    def __init__(self, logic) -> None:
        from DNetRegistrationLib.slicer_module.qt_process import QtProcess

        self.marks: list[tuple[Moment, str]] = []
        self.ready, self.memory, self._pid = False, 0.0, 0

        def launch(command, environment, output, errors, end):
            self.ready, process = False, None

            def heard(piece: bytes) -> None:
                self._pid = process.pid
                self._heard(piece)

            process = QtProcess(command, environment, lambda piece: heard(piece) or output(piece), errors, end)
            return process

        logic.launch = launch
        for name in ("showPose", "showLayers", "showSurfaces"):
            setattr(logic, name, self._noting(getattr(logic, name), name))
        write = logic.write
        logic.write = lambda *arguments: self._steps(write(*arguments))

    def begin(self) -> Moment:
        """Forgets what was, and returns the moment."""
        self.marks, self.memory = [], 0.0
        return self.now()

    def now(self) -> Moment:
        """This moment."""
        try:
            stat = Path(f"/proc/{self._pid}/stat").read_text().rsplit(")", 1)[1].split()
            process = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:  # it has ended, or this is not Linux
            process = self.marks[-1][0].process if self.marks else float("nan")
        return Moment(time.perf_counter(), process, time.process_time())

    def note(self, what: str) -> None:
        """Notes that something has ended."""
        self.marks.append((self.now(), what))

    def when(self, what: str) -> float:
        """Wall time of a note."""
        return next(moment.wall for moment, text in self.marks if text == what)

    def table(self, began: Moment) -> None:
        """Prints where the time goes; what takes less than 0.05 s goes with what follows."""
        print(f"    {'':44}     wall  process   window")
        last = began
        for (moment, what), (_, following) in pairwise([*self.marks, (None, "")]):
            if what != following and (moment.wall - last.wall >= 0.05 or not following):
                print(f"    {what:44.44}{moment.since(last)}")
                last = moment
        print(f"  the process took {self.memory / 1e9:.2f} GB of memory at most")

    def _heard(self, piece: bytes) -> None:
        from DNetRegistrationLib.slicer_module import events

        with suppress(OSError, IndexError):  # it has ended, or this is not Linux
            peak = Path(f"/proc/{self._pid}/status").read_text().split("VmHWM:")[1].split()[0]
            self.memory = max(self.memory, 1024.0 * int(peak))
        # A piece is a line or several: the worker writes each at once.
        for event in filter(None, map(events.from_line, piece.splitlines())):
            self.ready = self.ready or event["event"] == events.READY
            self.note(f"until: {event['message']}" if event["event"] == events.PROGRESS else f"until: {event['event']}")

    def _noting(self, function, name: str):
        def call(*arguments):
            result = function(*arguments)
            self.note(name)
            return result

        return call

    def _steps(self, steps):
        for number, step in enumerate(steps):
            self.note("the rest into the scene" if number else "transform and table into the scene")
            yield step


def load(host) -> None:
    began = time.perf_counter()
    host.load(ROOT / "DNetRegistration" / "DNetRegistration.py")
    print(f"module loaded in {time.perf_counter() - began:.2f} s, torch imported: {'torch' in sys.modules}")


def align(host, panel, timeline: Timeline, fixed, moving, volumes: bool, cold: bool) -> None:
    """Selects the volumes, clicks, and notes the gaps between the beats of the event loop."""
    from PySide6 import QtCore

    timeline.ready = False
    panel.logic.dismiss()
    panel.ui.fixedSelector.setCurrentNode(fixed)
    panel.ui.movingSelector.setCurrentNode(moving)
    for selector in (panel.ui.resampledSelector, panel.ui.subtractionSelector) if volumes else ():
        selector.addNode("vtkMRMLScalarVolumeNode")
    host.process_events(0.1)
    if not cold:
        host.wait_until(lambda: timeline.ready, 120)
    began = timeline.begin()
    gaps, last = [], began

    def beat() -> None:
        nonlocal last
        now = timeline.now()
        gaps.append((now.wall - last.wall, now.window - last.window, panel.ui.statusLabel.text))
        last = now

    timer = QtCore.QTimer()
    timer.setInterval(10)
    timer.timeout.connect(beat)
    timer.start()
    panel.ui.alignButton.click()
    timeline.note("click")
    while panel.running:
        QtCore.QCoreApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
    timeline.note("verdict")
    host.process_events(0.05)
    timer.stop()
    name = " x ".join(str(n) for n in fixed.GetImageData().GetDimensions()) + " voxels"
    print(f"{name}{', with both volumes' if volumes else ''}{', cold' if cold else ''}: {panel.ui.verdictLabel.text}")
    pose, verdict = (timeline.when(what) - began.wall for what in ("showPose", "verdict"))
    print(f"  transform in the scene after {pose:.2f} s, verdict and cortices after {verdict:.2f} s")
    timeline.table(began)
    for wall, processor, stage in sorted(gaps, reverse=True)[:3]:
        print(f"  did not react for {wall:.2f} s ({processor:.2f} s of processor time), before: {stage}")


def large_pair(nodes) -> list:
    """Nodes of 512^3 voxels of 10 um: the sample's scans, each voxel divided into 4^3, since size is the point."""
    import slicer

    large = []
    for node in nodes:
        voxels = slicer.util.arrayFromVolume(node)
        for axis in range(3):
            voxels = np.repeat(voxels, 4, axis)
        divided = np.diag((0.25, 0.25, 0.25, 1.0))
        divided[:3, 3] = -0.375
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        affine = slicer.util.arrayFromVTKMatrix(matrix) @ divided
        large.append(slicer.util.addVolumeFromArray(voxels.astype(np.uint16), ijkToRAS=affine, name="large"))
    return large


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="also two scans of 512^3 voxels: 4 GB")
    parser.add_argument("--volumes", action="store_true", help="with resampled and subtraction volume")
    parser.add_argument("--cold", action="store_true", help="click at once, before the process is ready")
    options = parser.parse_args()
    host = slicer_host.start()
    load(host)
    from DNetRegistrationLib.slicer_module.sample_data import loadSampleData

    panel = host.open("DNetRegistration")
    panel.parent.show()
    timeline = Timeline(panel.logic)
    fixed, moving, _truth = loadSampleData()
    align(host, panel, timeline, fixed, moving, options.volumes, options.cold)
    if options.large:
        align(host, panel, timeline, *large_pair((fixed, moving)), options.volumes, options.cold)
    panel.cleanup()


if __name__ == "__main__":
    main()
