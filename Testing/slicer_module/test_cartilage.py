"""Cartilage in Slicer: what comes from the process, the nodes that it ends in, and what the panel says of it."""

from __future__ import annotations

import numpy as np
import pytest
from cartilages import made_measurement
from DNetRegistrationLib import make_pair
from DNetRegistrationLib.cartilage import measure as module
from DNetRegistrationLib.core.errors import OptionError, ScanError, Setting
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.outputs.segmentation import Cortices
from DNetRegistrationLib.slicer_module.contents import Contents
from DNetRegistrationLib.slicer_module.measured_cartilage import MeasuredCartilage
from DNetRegistrationLib.slicer_module.request import CARTILAGE_KINDS as KINDS
from DNetRegistrationLib.slicer_module.request import Joint, read_request
from panels import Launcher, click, select_two_volumes
from scene_nodes import FLIP, MODULE, add_volume, aligned, put_under, rigid, volume_node

DOME = np.diag((0.05, 0.05, 0.05, 1.0))
DOME[:3, 3] = -0.8, -0.8, 0.5
DOME = rigid(3) @ DOME


@pytest.fixture
def pair(panel):
    return select_two_volumes(panel)


def scan() -> Volume:
    """Around the dome of `made_measurement`, once that is carried by ``rigid(3)``."""
    return Volume(np.zeros((16, 33, 33), np.uint8), DOME, "scan")


def measured(monkeypatch, contrast="moving", wanted=KINDS, found=None, **changes):
    """As `measure_cartilage` would answer; `asked` is what it was given."""
    asked = []
    matrix = rigid(5)
    where = rigid(3) if contrast == "moving" else matrix @ rigid(3)  # the map lies on the scan without agent

    def measure(*scans, **given):
        asked.append((scans[1:], given))
        if isinstance(found, Exception):
            raise found
        return made_measurement(where, **changes)

    monkeypatch.setattr(module, "measure_cartilage", measure)
    fixed, moving = scan(), Volume(np.zeros((2, 2, 2)), np.eye(4), "moving")
    joint = Joint("region", [1.0, 2.0, 3.0])
    cartilage = MeasuredCartilage.measured(fixed, moving, aligned(matrix), wanted, contrast, ("first", "second"), joint)
    return cartilage, asked[0], (fixed, moving)


@pytest.mark.parametrize("contrast", ["moving", "fixed"])
def test_the_map_lies_in_the_world_of_the_fixed_scan(monkeypatch, contrast):
    cartilage, (scans, given), (fixed, moving) = measured(monkeypatch, contrast)
    plain = 0 if contrast == "moving" else 1
    assert scans == ((fixed, moving), (moving, fixed))[plain] and given["agent_in"] == contrast
    assert given["mask"] == ("first", "second")[plain] and not given["anyway"]
    assert given["region"] == "region" and given["medial"] == [1.0, 2.0, 3.0]
    true = made_measurement(rigid(3)).map
    np.testing.assert_allclose(cartilage.surface.points, true.points, atol=1e-12)
    np.testing.assert_allclose(cartilage.surface.normals, true.normals, atol=1e-12)
    # The voxels of the layer: above the dome of 1 mm, by no more than the layer is thick, voxel by voxel.
    heights = []
    for z, y, x in np.argwhere(cartilage.layer):
        there = np.linalg.solve(rigid(3), (cartilage.affine @ (x, y, z, 1)))[:3]
        heights.append(1000 * (np.linalg.norm(there) - 1))
        assert heights[-1] < (60 if there[0] < 0 else 30) + 5
    assert len(heights) > 100 and min(heights) > -3
    assert not cartilage.layer[0].any() and not cartilage.layer[..., -1].any()  # a margin, so that surfaces close


@pytest.mark.parametrize("wanted", [KINDS, ("cartilage",), ("thickness",), ("layer",)])
def test_files_hold_the_same(monkeypatch, tmp_path, wanted):
    cartilage, *_ = measured(monkeypatch, wanted=wanted)
    Contents(cartilage=cartilage).write(tmp_path)
    read = Contents.read(tmp_path).cartilage
    assert read.told == cartilage.told and read.limit_um == cartilage.limit_um
    np.testing.assert_equal(read.table, cartilage.table)  # with NaN
    assert (read.table is None) == ("cartilage" not in wanted) and (read.layer is None) == ("layer" not in wanted)
    assert (read.surface is None) == ("thickness" not in wanted)
    if read.surface is not None:
        for name, array in vars(cartilage.surface).items():
            np.testing.assert_array_equal(getattr(read.surface, name), array)
    np.testing.assert_array_equal(read.affine, cartilage.affine)
    assert read.layer is None or np.array_equal(read.layer, cartilage.layer)


def nodes_of(measurement, **given):
    """The nodes that it is written to, beside an alignment of two volumes, the fixed one under transforms."""
    from DNetRegistrationLib.slicer_module.scene import outputs_of, place
    from DNetRegistrationLib.slicer_module.scene_outputs import write_steps

    fixed, moving = add_volume("fixed", "left"), add_volume("moving", "far")
    put_under(fixed, rigid(8), rigid(9))
    mask = np.zeros((8, 8, 8), bool)
    mask[2:5, 2:5, 2:5] = True
    contents = Contents(Cortices(mask, mask, DOME), cartilage=measurement)
    placed = place(fixed, "fixed"), place(moving, "moving")
    *_, transform = write_steps(*placed, aligned(rigid(1)), given, contents)
    return transform, outputs_of(transform)


def test_what_nobody_looked_for_is_an_empty_cell(host, monkeypatch):
    cartilage, *_ = measured(monkeypatch, agent=None, sides_known=None)
    _, outputs = nodes_of(cartilage)
    table = outputs["cartilage"]
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    assert {table.GetCellText(0, names.index(name)) for name in ("agent", "sides_known")} == {""}
    assert table.GetCellText(0, names.index("alignment_accepted")) == "yes"


def test_nodes_hold_what_was_measured(host, monkeypatch):
    import slicer
    from DNetRegistrationLib.slicer_module.scene_compare import Solid, show_solid, solid_of, solids

    cartilage, *_ = measured(monkeypatch)
    transform, outputs = nodes_of(cartilage)
    true, model = made_measurement(rigid(3)), outputs["thickness"]
    points = slicer.util.arrayFromModelPoints(model)
    for index in range(0, len(points), 97):  # where the dome is, by MRML's own methods
        world = [0.0, 0.0, 0.0]
        model.TransformPointToWorld(points[index].tolist(), world)
        np.testing.assert_allclose((FLIP @ (*world, 1))[:3], true.map.points[index], atol=1e-6)
    thickness = slicer.util.arrayFromModelPointData(model, "Thickness (µm)")
    np.testing.assert_allclose(thickness, true.map.thickness_um)
    assert model.GetPolyData().GetNumberOfPolys() == len(true.map.triangles)
    display = model.GetDisplayNode()
    assert display.GetActiveScalarName() == "Thickness (µm)" and display.GetScalarRange() == (0.0, 60.0)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(model)
    assert legend.GetVisibility() and legend.GetTitleText() == "Cartilage (µm)"
    # The table, cell by cell.
    table = outputs["cartilage"]
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    assert [table.GetCellText(row, 0) for row in range(3)] == ["medial", "lateral", "all"]
    for row, one in enumerate(true.compartments):
        for name in ("area_mm2", "volume_mm3", "mean_thickness_um", "standard_error_um"):
            cell = table.GetTable().GetValue(row, names.index(name)).ToDouble()
            assert cell == pytest.approx(getattr(one, name))
        assert table.GetCellText(row, names.index("sides_known")) == "yes"
    # The segment, in the colour of the pictures.
    segmentation = outputs["segmentation"].GetSegmentation()
    assert list(segmentation.GetSegmentIDs()) == ["FixedCorticalBone", "MovingCorticalBone", "Cartilage"]
    assert segmentation.GetSegment("Cartilage").GetColor() == (1.0, 0.85, 0.1)
    labels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(outputs["segmentation"], "Cartilage")
    assert np.count_nonzero(labels) == np.count_nonzero(cartilage.layer)
    # Seen at once, alone.
    assert solids(transform) == list(Solid) and solid_of(transform) is Solid.THICKNESS
    segments = outputs["segmentation"].GetDisplayNode()
    seen = [segments.GetSegmentVisibility3D(name) for name in segmentation.GetSegmentIDs()]
    assert seen == [True, False, False] and segments.GetSegmentOpacity3D("FixedCorticalBone") < 0.3
    show_solid(transform, Solid.CORTICES)
    seen = [segments.GetSegmentVisibility3D(name) for name in segmentation.GetSegmentIDs()]
    assert seen == [True, True, True] and segments.GetSegmentOpacity3D("FixedCorticalBone") == 0.5


def test_what_was_not_measured_is_not_drawn(host, monkeypatch, tmp_path):
    """Neither now nor when the scene is loaded again, where a colour of NaN would be lost."""
    import slicer

    cartilage, *_ = measured(monkeypatch)
    _, outputs = nodes_of(cartilage)
    outputs["segmentation"].GetDisplayNode().SetVisibility(False)
    slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(outputs["thickness"]).SetVisibility(False)
    pictures = []
    for again in (False, True):
        if again:
            assert slicer.util.saveScene(str(tmp_path / "scene"))
            host.close_scene()
            slicer.util.loadScene(str(next((tmp_path / "scene").glob("*.mrml"))))
        pixels = host.three_d_picture().astype(int)
        assert (
            (pixels[..., 0] > pixels[..., 1] + 30) & (pixels[..., 0] > pixels[..., 2] + 30)
        ).sum() == 0  # VTK draws NaN dark red
        pictures.append(((np.abs(pixels[..., 2] - pixels[..., 0]) > 80) | (pixels[..., 1] > pixels[..., 2])).sum())
    assert pictures[0] > 1000 and pictures[1] == pytest.approx(pictures[0], rel=0.02)


@pytest.mark.parametrize("why", ["error", "no agent"])
def test_nothing_measured_leaves_nothing_old(host, monkeypatch, why):
    """Nodes that held another measurement are emptied: it is not of this alignment."""
    before, *_ = measured(monkeypatch)
    _, outputs = nodes_of(before)
    assert outputs["thickness"].GetPolyData().GetNumberOfPoints()
    changes = {"found": ScanError("no bone", "look")} if why == "error" else {"agent": False, "warnings": ["no agent"]}
    cartilage, *_ = measured(monkeypatch, **changes)
    transform, now = nodes_of(cartilage, **outputs)
    assert all(now[name] is outputs[name] for name in ("thickness", "cartilage", "segmentation"))
    assert now["thickness"].GetPolyData().GetNumberOfPoints() == 0
    assert now["cartilage"].GetNumberOfRows() == (0 if why == "error" else 3)
    assert now["segmentation"].GetSegmentation().GetNumberOfSegments() == 2
    from DNetRegistrationLib.slicer_module.scene_compare import Solid, solid_of, solids

    assert solids(transform) == [Solid.CORTICES, Solid.DISTANCE] and solid_of(transform) is Solid.CORTICES


class Measures(Launcher):
    """Answers with cartilage where it is asked for."""

    def __init__(self, cartilage, **given):
        super().__init__(**given)
        self.cartilage = cartilage

    def write_outputs(self, folder):
        request = read_request(self.folder)
        fixed, self.options = request.fixed, request.options
        mask = np.zeros(fixed.voxels.shape, bool)
        mask[2:7, 2:7, 2:7] = True
        asked = any(getattr(self.options, name) for name in KINDS)
        Contents(Cortices(mask, mask, fixed.affine), cartilage=self.cartilage if asked else None).write(folder)


def test_the_panel_asks_for_it_and_tells(host, panel, pair, monkeypatch):
    import slicer

    ui, parameters = panel.ui, panel._parameterNode
    assert not ui.contrastSelector.enabled
    ui.cartilageSelector.addNode()
    assert ui.contrastSelector.enabled
    ui.thicknessSelector.addNode()
    ui.cartilageSegmentCheckBox.click()
    cartilage, *_ = measured(monkeypatch)
    launcher = Measures(cartilage, matrix=rigid(1))
    click(host, panel, launcher)
    assert launcher.options.wanted == {"segmentation", *KINDS}
    lines = [line for line in ui.detailsLabel.text.splitlines() if "artilage" in line]
    medial = made_measurement().compartment("medial")
    assert lines[0] == (
        f"Cartilage, medial: 60.0 ± {medial.standard_error_um:.1f} µm, {medial.volume_mm3:.4f} mm³; "
        f"{100 * medial.measured_share:.1f} % of {medial.area_mm2:.2f} mm² measured"
    )
    assert len(lines) == 3 and parameters.cartilage.GetNumberOfRows() == 3
    selector = ui.solidSelector
    assert selector.itemData(selector.currentIndex) == "thickness"
    # Hidden with the verdict, and back with it.
    ui.appliedCheckBox.click()
    assert not parameters.thickness.GetDisplayNode().GetVisibility()
    ui.appliedCheckBox.click()
    assert parameters.thickness.GetDisplayNode().GetVisibility()
    # Without it, nothing is said that was of before.
    for name in ("cartilage", "thickness"):
        getattr(ui, f"{name}Selector").setCurrentNode(None)
    ui.cartilageSegmentCheckBox.click()
    click(host, panel, Measures(cartilage, matrix=rigid(1)))
    assert "artilage" not in ui.detailsLabel.text
    assert parameters.segmentation.GetSegmentation().GetNumberOfSegments() == 2
    ui.cartilageSelector.setCurrentNode(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode"))
    ui.tableSelector.setCurrentNode(ui.cartilageSelector.currentNode())
    assert ui.alignButton.text == "Two outputs are the same table" and not ui.alignButton.enabled


@pytest.mark.parametrize(
    ("found", "changes", "said"),
    [
        (
            OptionError("the alignment was not accepted", "look at it", Setting("anyway")),
            {},
            "Cartilage was not measured: the alignment was not accepted (in the Python console, with anyway=True)",
        ),
        (
            ScanError("a bright layer lies on the bone", "swap the scans", Setting("contrast")),
            {},
            "Cartilage was not measured: a bright layer lies on the bone (under Outputs, Contrast agent in)",
        ),
        (None, {"warnings": ["no contrast agent was found, below 20 um"]}, "no contrast agent was found, below 20 µm"),
    ],
)
def test_the_panel_says_why_not(host, panel, pair, monkeypatch, tmp_path, found, changes, said):
    """Also when the scene is loaded again. The alignment is not lost with it."""
    import slicer

    cartilage, *_ = measured(monkeypatch, found=found, **changes)
    panel.ui.cartilageSelector.addNode()
    click(host, panel, Measures(cartilage, matrix=rigid(1)))
    assert panel.ui.verdictLabel.text.startswith("Accepted")
    told = said.partition(" (")
    assert told[0] in panel.ui.detailsLabel.text and told[2] in panel.ui.detailsLabel.text
    before = panel.ui.detailsLabel.text
    assert slicer.util.saveScene(str(tmp_path / "scene"))
    host.close_scene()
    slicer.util.loadScene(str(next((tmp_path / "scene").glob("*.mrml"))))
    assert panel.ui.detailsLabel.text == before


@pytest.mark.slow
def test_a_script_measures_cartilage(host):
    """For real, on a coarse synthetic joint: the mean thickness is that of the table, and the map's."""
    import slicer
    from DNetRegistrationLib.synthesis.pairs import JOINT

    host.load(MODULE)
    from DNetRegistrationLib.slicer_module.logic import DNetRegistrationLogic

    made = make_pair(3, size=64, spacing=0.04, focus=JOINT, max_translation=0.1)
    fixed, moving = volume_node(made.fixed, "fixed", rigid(2)), volume_node(made.moving, "moving")
    table, model, segmentation = (
        slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node") for kind in ("Table", "Model", "Segmentation")
    )
    DNetRegistrationLogic().align(
        fixed, moving, cartilageNode=table, thicknessNode=model, segmentationNode=segmentation, cartilageSegment=True
    )
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    mean = table.GetTable().GetValue(2, names.index("mean_thickness_um")).ToDouble()
    thickness = slicer.util.arrayFromModelPointData(model, "Thickness (µm)")
    assert 20 < mean < 80 and abs(np.nanmean(thickness) - mean) < 5
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 3
    # On the joint: within 0.1 mm of the true cartilage.
    points = slicer.util.arrayFromModelPoints(model)[::50]
    for point in points:
        world = [0.0, 0.0, 0.0]
        model.TransformPointToWorld(point.tolist(), world)
        there = (FLIP @ (*world, 1))[:3]
        assert np.linalg.norm(made.cartilage.points - there, axis=1).min() < 0.1
