"""Takes the pictures of the Slicer module, on the stand-in for Slicer.

    python Tools/slicer_pictures.py FOLDER

Writes the panel (empty, running, accepted, refused, masked, compared), light and dark, at 100 and 150 %, and the views.
``slicer-panel.png``, ``slicer-views.png`` and ``slicer-compare.png`` are those of `Resources`. Look at all of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "Testing" / "support"), str(ROOT / "DNetRegistration")]

import numpy as np
import slicer_host

_PLATEAU = {"azimuth": 30, "elevation": -60}  # the joint of the synthetic tibia faces down


def main(folder: Path) -> None:
    """Takes all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    host = slicer_host.start()
    host.load(ROOT / "DNetRegistration" / "DNetRegistration.py")
    import slicer
    from DNetRegistrationLib import make_pair
    from DNetRegistrationLib.slicer_module.sample_data import loadSampleData
    from DNetRegistrationLib.synthesis.pairs import JOINT
    from scene_nodes import volume_node
    from slicer_host.pictures import save_picture

    panel = host.open("DNetRegistration")
    panel.parent.show()
    ui = panel.ui

    def shoot(name: str) -> None:
        for dark in (False, True):
            host.use_theme(dark)
            for scale in (1.0, 1.5):
                path = folder / f"panel-{name}-{'dark' if dark else 'light'}-{100 * scale:.0f}.png"
                host.widget_picture(panel.parent, path, width=420, scale=scale)
        host.use_theme(False)

    def select(fixed, moving) -> None:
        ui.fixedSelector.setCurrentNode(fixed)
        ui.movingSelector.setCurrentNode(moving)
        host.process_events(0.3)

    def align() -> None:
        ui.alignButton.click()
        host.wait_until(lambda: not panel.running, 300)

    def choose(selector, value: str):
        selector.currentIndex = selector.findData(value)
        host.process_events(0.1)

    def seen(view: str) -> np.ndarray:
        return host.slice_picture(view, size=(330, 330))

    def solid(**turn) -> np.ndarray:
        return host.three_d_picture(size=(330, 330), **turn)

    shoot("empty")
    fixed, moving, _truth = loadSampleData()
    select(fixed, moving)
    # The stage that is shown is the one that was told last.
    ui.alignButton.click()
    host.wait_until(lambda: "etwork" in ui.statusLabel.text or not panel.running, 300)
    shoot("running")
    host.wait_until(lambda: not panel.running, 300)
    shoot("accepted")
    sides = {"azimuth": 30, "elevation": 15}
    save_picture(np.concatenate((seen("Yellow"), seen("Green"), solid(**sides)), 1), folder / "slicer-views.png")
    views = []
    for mode in ("checkerboard", "difference"):
        choose(ui.compareSelector, mode)
        views.append(seen("Yellow"))
    choose(ui.solidSelector, "distance")
    shoot("compared")
    views.append(solid(**sides))
    choose(ui.compareSelector, "mixed")
    region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "This bone")
    region.SetSize(2.2, 2.6, 3.4)
    ui.fixedMaskSelector.setCurrentNode(region)
    host.process_events(0.3)
    shoot("mask")
    save_picture(np.concatenate((seen("Yellow"), seen("Green")), 1), folder / "mask.png")
    host.close_scene()

    other = make_pair(15, impostor="animal")
    select(volume_node(other.fixed, "PreContrast"), volume_node(other.moving, "PostContrast"))
    align()
    shoot("refused")
    host.close_scene()

    joint = make_pair(3, size=128, spacing=0.02, focus=JOINT, max_translation=0.1)
    select(volume_node(joint.fixed, "PreContrast"), volume_node(joint.moving, "PostContrast"))
    for selector in (ui.cartilageSelector, ui.thicknessSelector):
        selector.addNode()
    ui.cartilageSegmentCheckBox.checked = True
    align()
    shoot("cartilage")
    views.append(solid(**_PLATEAU))
    save_picture(np.concatenate(views, 1), folder / "slicer-compare.png")
    save_picture(seen("Yellow"), folder / "cartilage.png")
    (folder / "panel-cartilage-light-150.png").replace(folder / "slicer-panel.png")
    panel.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where they go; made where missing")
    main(parser.parse_args().folder)
