"""Measures what a user of the module waits for, on the stand-in for Slicer, and takes the README's pictures.

    python Tools/slicer_benchmark.py [--large] [--pictures FOLDER]

Prints how long the module takes to load (required: below 0.5 s) and, while the sample pair is aligned by a click, the
longest time for which the window did not react (required: 0.3 s at most; with --large, two scans of 512^3 voxels, 3 s).
Processor time is printed beside it: on a machine that does other work too, only that can be compared. The window of the
stand-in is Qt's, the scene is Slicer's own; Slicer's views, which draw the result, are not measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "Testing" / "support"), str(ROOT / "DNetRegistration")]

import numpy as np
import slicer_host
import vtk


def load(host) -> None:
    began = time.perf_counter()
    host.load(ROOT / "DNetRegistration" / "DNetRegistration.py")
    print(f"module loaded in {time.perf_counter() - began:.2f} s, torch imported: {'torch' in sys.modules}")


def align(host, panel, fixed, moving) -> None:
    """Selects the volumes, clicks, and notes the gaps between the beats of the event loop."""
    from PySide6 import QtCore

    panel.ui.fixedSelector.setCurrentNode(fixed)
    panel.ui.movingSelector.setCurrentNode(moving)
    host.process_events(0.3)
    gaps, last = [], [time.perf_counter(), time.process_time()]

    def beat() -> None:
        now = [time.perf_counter(), time.process_time()]
        gaps.append((now[0] - last[0], now[1] - last[1], panel.ui.statusLabel.text))
        last[:] = now

    timer = QtCore.QTimer()
    timer.setInterval(10)
    timer.timeout.connect(beat)
    timer.start()
    began = last[0]
    panel.ui.alignButton.click()
    while panel.running:
        QtCore.QCoreApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
    host.process_events(0.05)
    timer.stop()
    voxels = " x ".join(str(n) for n in fixed.GetImageData().GetDimensions())
    print(f"{voxels} voxels: {panel.ui.verdictLabel.text} In all {time.perf_counter() - began:.1f} s.")
    for wall, processor, stage in sorted(gaps, reverse=True)[:3]:
        print(f"  did not react for {wall:.2f} s ({processor:.2f} s of processor time), before: {stage}")


def take_pictures(host, panel, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    panel.parent.resize(420, 640)
    host.process_events(0.2)
    host.widget_picture(panel.parent, folder / "panel.png")
    for view in ("Red", "Yellow", "Green"):
        host.slice_picture(view, folder / f"slice-{view.lower()}.png", size=(500, 500))
    host.three_d_picture(folder / "surfaces.png", size=(500, 500), azimuth=30, elevation=15)
    print(f"pictures are in {folder}")


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
    parser.add_argument(
        "--pictures", metavar="FOLDER", type=Path, help="write pictures of the panel and the views there"
    )
    options = parser.parse_args()
    host = slicer_host.start()
    load(host)
    from DNetRegistrationLib.slicer_module.sample_data import loadSampleData

    panel = host.open("DNetRegistration")
    panel.parent.show()
    fixed, moving, _truth = loadSampleData()
    align(host, panel, fixed, moving)
    if options.pictures is not None:
        take_pictures(host, panel, options.pictures)
    if options.large:
        align(host, panel, *large_pair((fixed, moving)))


if __name__ == "__main__":
    main()
