"""What is written of cartilage: read back by other programs' readers, against a dome whose layer is known."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from alignments import made_alignment
from cartilages import made_measurement
from DNetRegistrationLib.cartilage.result import Reason, summarise
from DNetRegistrationLib.core.errors import FileError, OptionError
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.outputs.cartilage_table import cartilage_summary, write_table
from DNetRegistrationLib.outputs.paths import CARTILAGE, OutputPaths, check_outputs
from DNetRegistrationLib.outputs.thickness_picture import Frame, _cuts, draw_thickness, rim, section, write_picture
from DNetRegistrationLib.outputs.thickness_surface import VIRIDIS, color_limit_um, colors, write_surface
from DNetRegistrationLib.outputs.thickness_volume import thickness_volume
from DNetRegistrationLib.outputs.write import write_outputs
from scipy.spatial.transform import Rotation


def _placed():
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix(), (130.0, -75.0, 2040.0)
    return out


def _grid(spacing, placed, mirrored=False):
    """A dark scan about the dome, oblique to it."""
    shape = tuple(int(1.9 / one) for one in spacing[::-1])
    turned = placed[:3, :3] @ Rotation.from_rotvec((0.2, 0.1, -0.3)).as_matrix()
    if mirrored:
        turned = turned @ np.diag((1, 1, -1))
    affine = np.eye(4)
    affine[:3, :3] = turned * spacing
    middle = placed[:3, :3] @ (0, 0, 0.8) + placed[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return Volume(np.zeros(shape, np.float32), affine)


def test_the_table_has_a_row_for_each_compartment_and_no_number_for_what_is_not_known(tmp_path):
    found = made_measurement(least_thickness_um=math.nan, accepted=False)
    write_table(found, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [row["compartment"] for row in table] == ["medial", "lateral", "all"]
    assert float(table[0]["mean_thickness_um"]) == pytest.approx(60)
    assert float(table[0]["volume_mm3"]) == pytest.approx(
        0.06 * float(table[0]["area_mm2"]) * float(table[0]["measured_share"]), rel=1e-5
    )
    assert {row["least_thickness_um"] for row in table} == {""}
    assert {row["alignment_accepted"] for row in table} == {"false"}
    write_table(found, tmp_path / "t.json")
    values = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert values["least_thickness_um"] is None and values["accepted"] is False
    assert values["compartments"][1]["p95_thickness_um"] == pytest.approx(30)


def test_the_summary_says_what_is_not_to_be_trusted():
    assert "60.0 +- " in cartilage_summary(made_measurement())
    assert "NOT TO BE TRUSTED" not in cartilage_summary(made_measurement())
    lines = cartilage_summary(made_measurement(accepted=False, warnings=["something"])).splitlines()
    assert "NOT TO BE TRUSTED" in lines[0] and lines[-1].endswith("something")


@pytest.mark.parametrize("ending", ["vtp", "ply"])
def test_vtk_reads_the_surface(tmp_path, ending):
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import vtk_to_numpy

    measurement = made_measurement(_placed())
    found = measurement.map
    write_surface(measurement, tmp_path / f"s.{ending}")
    reader = vtk.vtkXMLPolyDataReader() if ending == "vtp" else vtk.vtkPLYReader()
    reader.SetFileName(str(tmp_path / f"s.{ending}"))
    reader.Update()
    read = reader.GetOutput()
    # VTK's reader of PLY keeps points in single precision.
    loss = 0 if ending == "vtp" else 2e-4
    np.testing.assert_allclose(vtk_to_numpy(read.GetPoints().GetData()), found.points, rtol=0, atol=loss)
    faces = vtk_to_numpy(read.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    np.testing.assert_array_equal(faces, found.triangles)
    np.testing.assert_allclose(vtk_to_numpy(read.GetPointData().GetNormals()), found.normals, atol=1e-6)
    if ending == "ply":
        np.testing.assert_array_equal(vtk_to_numpy(read.GetPointData().GetArray("RGB")), colors(found))
        return
    assert read.GetPointData().GetScalars().GetName() == "thickness_um"
    for name in ("thickness_um", "standard_error_um", "uptake", "compartment", "reason"):
        values = vtk_to_numpy(read.GetPointData().GetArray(name))
        np.testing.assert_allclose(values, getattr(found, name), rtol=1e-6)


def test_ply_holds_scalars_by_name(tmp_path):
    measurement = made_measurement()
    found = measurement.map
    write_surface(measurement, tmp_path / "s.ply")
    header, _, content = (tmp_path / "s.ply").read_bytes().partition(b"end_header\n")
    kinds = {"double": "<f8", "float": "<f4", "int": "<i4", "uchar": "u1"}
    words = [line.split() for line in header.decode("ascii").splitlines()]
    columns = [(word[2], kinds[word[1]]) for word in words if word[0] == "property" and word[1] != "list"]
    points = np.frombuffer(content, columns, len(found.points))
    np.testing.assert_allclose(points["thickness_um"], found.thickness_um, rtol=1e-6)
    np.testing.assert_array_equal(points["reason"], found.reason)
    assert len(content) == points.nbytes + 13 * len(found.triangles)


def test_colours_are_even_and_grey_where_nothing_was_measured():
    found = made_measurement().map
    assert color_limit_um(found) == 60
    painted = colors(found)
    assert (painted[found.thickness_um == 60] == VIRIDIS[-1]).all()
    assert (painted[found.thickness_um == 30] == VIRIDIS[5]).all()
    assert (painted[found.thickness_um == 0] == VIRIDIS[0]).all()
    assert (painted[~found.measured] == painted[~found.measured][0]).all()
    matplotlib = pytest.importorskip("matplotlib")
    expected = 255 * matplotlib.colormaps["viridis"](np.linspace(0, 1, 11))[:, :3]
    np.testing.assert_allclose(VIRIDIS, expected, atol=0.6)


@pytest.mark.parametrize(("mirrored", "spacing"), [(False, (0.02, 0.02, 0.02)), (True, (0.02, 0.03, 0.025))])
def test_voxels_of_the_layer_hold_its_thickness(mirrored, spacing):
    placed = _placed()
    grid = _grid(np.array(spacing), placed, mirrored)
    painted = thickness_volume(made_measurement().map, grid, placed).voxels
    z, y, x = np.indices(painted.shape)
    points = (grid.to_world(np.stack((x, y, z), -1)) - placed[:3, 3]) @ placed[:3, :3]
    # On the unit sphere, from its formula: what lies above the surface, and along which radius.
    radius = np.linalg.norm(points, axis=-1)
    foot = points / radius[..., None]
    thickness = np.where(foot[..., 0] < 0, 60.0, 30.0)
    thickness[np.hypot(foot[..., 0] - 0.3, foot[..., 1]) < 0.1] = 0
    inside = (np.abs(foot[..., :2]) < 0.6).all(-1) & (foot[..., 1] <= 0.5) & (foot[..., 2] > 0)
    expected = np.where(inside & (radius > 1) & (1000 * (radius - 1) < thickness), thickness, 0)
    # The rims of patches, and feet a mesh width apart.
    clear = np.abs(foot[..., 0]) > 0.04
    clear &= np.abs(np.hypot(foot[..., 0] - 0.3, foot[..., 1]) - 0.1) > 0.04
    clear &= (np.abs(np.abs(foot[..., 0]) - 0.6) > 0.06) & (np.abs(foot[..., 1] + 0.6) > 0.06)
    clear &= np.abs(foot[..., 1] - 0.5) > 0.04
    clear &= (np.abs(1000 * (radius - 1) - thickness) > 1.5) & (np.abs(radius - 1) > 0.0015)
    assert (expected[clear] > 0).sum() > 1500
    np.testing.assert_array_equal(painted[clear], expected[clear])


def test_a_grid_that_the_layer_does_not_reach_stays_empty():
    grid = _grid(np.full(3, 0.1), np.eye(4))
    away = np.eye(4)
    away[0, 3] = 50
    assert not thickness_volume(made_measurement().map, grid, away).voxels.any()


def test_a_plane_cuts_a_triangle_between_its_corners():
    points = np.array([(0, 0, 0), (2, 0, 0), (0, 4, 0), (9, 9, 9)], float)
    triangles = np.array([(0, 1, 2), (1, 2, 0)])
    line, carried, known = section(
        points, points + np.array((0, 0, 1)), triangles, 0, 0.5, np.array([1, 1, 0, 1], bool)
    )
    # The plane x = 0.5 meets the edges at y = 0 and y = 3.
    for piece, above in zip(line, carried, strict=True):
        assert sorted(map(tuple, piece)) == [(0.5, 0, 0), (0.5, 3, 0)]
        np.testing.assert_array_equal(above, piece + np.array((0, 0, 1)))
    assert not known.any()
    assert len(section(points, points, triangles, 0, 5.0, np.ones(4, bool))[0]) == 0


def test_the_rim_is_what_one_triangle_has():
    square = np.array([(0, 1, 2), (0, 2, 3)])
    assert sorted(map(tuple, rim(square))) == [(0, 1), (0, 3), (1, 2), (2, 3)]


def test_one_looks_down_with_medial_on_the_left():
    placed = _placed()
    frame = Frame.of(made_measurement(placed))
    np.testing.assert_allclose(frame.out, placed[:3, 2], atol=0.03)
    np.testing.assert_allclose(frame.right, placed[:3, 0], atol=0.03)
    np.testing.assert_allclose(np.cross(frame.right, frame.up), frame.out, atol=1e-9)


def test_the_picture_says_what_it_shows_and_what_not_to_trust(tmp_path):
    pytest.importorskip("matplotlib")
    placed = _placed()
    scan = _grid(np.full(3, 0.04), placed)
    scan.voxels[...] = np.random.default_rng(0).normal(100, 10, scan.voxels.shape)
    words = _texts(draw_thickness(made_measurement(), scan, placed))
    assert "medial\n60.0 µm" in words and "200 µm" in words and "NOT ACCEPTED" not in words
    words = _texts(draw_thickness(made_measurement(accepted=False, sides_known=False), scan, placed))
    assert "NOT ACCEPTED" in words and "medial (?)" in words
    # A person who sees a grey map alone learns why; no sentence is cut off, however many there are.
    for count in (1, 2, 4, 8):
        told = [f"Agent {'lies on bone ' * 12}{number}, so nothing is measured." for number in range(count)]
        figure = draw_thickness(made_measurement(warnings=told), scan, placed)
        assert all(one in _texts(figure).replace("\n", " ") for one in told)
        _no_word_on_another(figure)
    for ending in ("png", "svg", "pdf"):
        write_picture(tmp_path / f"p.{ending}", made_measurement(), scan, placed)
        assert (tmp_path / f"p.{ending}").stat().st_size > 5000


def test_a_compartment_that_was_not_measured_is_not_cut_and_the_title_is_of_all():
    pytest.importorskip("matplotlib")
    placed, known = _placed(), made_measurement()
    scan = _grid(np.full(3, 0.04), placed)
    medial = known.map.compartment == 0
    blank = {
        name: np.where(medial, np.nan, getattr(known.map, name))
        for name in ("thickness_um", "standard_error_um", "uptake", "filled_um")
    }
    found = replace(known.map, reason=np.where(medial, Reason.UNCERTAIN, known.map.reason), **blank)
    sides = [summarise(name, found.compartment == k, found, 0.5) for k, name in enumerate(("medial", "lateral"))]
    whole = summarise("all", np.ones(len(medial), bool), found, 0.5)
    words = _texts(draw_thickness(replace(known, map=found, compartments=(*sides, whole)), scan, placed))
    share = round(100 * whole.measured_share)
    assert f"mm³ on {share} % of {whole.area_mm2:.2f} mm²" in words and share < 50
    assert _cut(known) < 0 < _cut(replace(known, map=found, compartments=(*sides, whole)))


def _cut(measurement):
    """Where the second slice lies: below 0 it is medial."""
    return _cuts(measurement, Frame.of(measurement))[1][1][0]


def test_a_map_without_a_thickness_has_no_scale_of_colours():
    pytest.importorskip("matplotlib")
    from matplotlib.text import Text

    placed, known = _placed(), made_measurement()
    nothing = np.full(len(known.map.points), np.nan)
    row = replace(known.compartments[-1], mean_thickness_um=np.nan)
    empty = replace(known, map=replace(known.map, thickness_um=nothing), compartments=(row, row, row))
    scan = _grid(np.full(3, 0.04), placed)
    for measurement, drawn in ((known, True), (empty, False)):
        figure = draw_thickness(measurement, scan, placed)
        assert ("cartilage thickness (µm)" in _texts(figure)) == drawn
        assert ("Cartilage: not measured" in _texts(figure)) != drawn
    # The name of a slice hangs below a large map: it does not stand on the colours.
    figure = draw_thickness(replace(known, map=replace(known.map, points=5 * known.map.points)), scan, placed)
    figure.canvas.draw()
    bar = next(axes for axes in figure.axes if "thickness" in axes.get_xlabel()).get_window_extent()
    name = next(text for text in figure.findobj(Text) if text.get_text() == "B ").get_window_extent()
    assert name.y0 > bar.y1


def _no_word_on_another(figure):
    from matplotlib.text import Text

    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in figure.findobj(Text) if text.get_text().strip()]
    warnings = next(box for text, box in boxes if text.startswith("Agent"))
    heading = next(box for text, box in boxes if text.startswith("medial"))
    slice_ = next(box for text, box in boxes if text == "A   ")
    assert max(heading.y1, slice_.y1) < warnings.y0


def _texts(figure):
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("contrast", ["moving", "fixed"])
def test_the_map_lies_on_the_fixed_grid_whichever_scan_has_agent(tmp_path, contrast):
    placed = _placed()
    spacing = np.full(3, 0.04)
    # The dome lies in the world of the scan without agent.
    here, there = (np.eye(4), placed) if contrast == "moving" else (placed, np.eye(4))
    matrix = there @ np.linalg.inv(here)
    fixed, moving = _grid(spacing, here), _grid(spacing, there)
    measurement = made_measurement(here if contrast == "moving" else there)
    for scan in (fixed, moving):
        scan.voxels[10:20, 10:20, 10:20] = 1000
    names = dict(
        thickness_volume="t.nrrd", segmentation="s.seg.nrrd", report="r.json", cartilage="c.csv", thickness="t.ply"
    )
    paths = OutputPaths(**{name: tmp_path / file for name, file in names.items()})
    write_outputs(made_alignment(matrix), fixed, moving, paths, contrast=contrast, measurement=measurement)
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "t.nrrd")))
    expected = thickness_volume(made_measurement(here).map, fixed).voxels
    assert (expected > 0).sum() > 200
    # The same to rounding, which may move a voxel's centre across the surface.
    assert (voxels != expected).sum() <= 2
    segments = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "s.seg.nrrd")))
    np.testing.assert_array_equal(segments[..., 2] > 0, voxels > 0)
    assert sitk.ReadImage(str(tmp_path / "s.seg.nrrd")).GetMetaData("Segment2_Name") == "Cartilage"
    assert json.loads((tmp_path / "r.json").read_text())["cartilage"]["compartments"][0]["name"] == "medial"


def test_the_same_measurement_gives_the_same_files(tmp_path):
    scan = _grid(np.full(3, 0.05), np.eye(4))
    scan.voxels[10:20, 10:20, 10:20] = 1000
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files = dict(zip(CARTILAGE, ("c.json", "t.vtp", "v.nrrd", "p.svg"), strict=True))
        files = {name: tmp_path / folder / file for name, file in files.items()}
        write_outputs(made_alignment(), scan, scan, **files, measurement=made_measurement())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert len(list((tmp_path / "b").iterdir())) == 4


def test_nothing_is_written_of_cartilage_that_was_not_measured(tmp_path):
    scan = _grid(np.full(3, 0.1), np.eye(4))
    with pytest.raises(OptionError, match="thickness volume cannot be written, cartilage was not measured"):
        write_outputs(made_alignment(), scan, scan, thickness_volume=tmp_path / "t.nrrd", transform=tmp_path / "a.tfm")
    with pytest.raises(OptionError, match="one bone of several"):
        write_outputs([made_alignment()] * 2, scan, scan, measurement=made_measurement(), transform=tmp_path / "a.tfm")
    with pytest.raises(FileError, match=r"thickness cannot be written to this kind of file; use \.vtp or \.ply"):
        check_outputs(OutputPaths(thickness=tmp_path / "t.stl"))
    assert not list(tmp_path.iterdir())


def test_every_reason_is_told_in_the_table_by_its_share():
    shares = made_measurement().to_dict()["shares"]
    assert set(shares) == {reason.name.lower() for reason in Reason}
    assert sum(shares.values()) == pytest.approx(1)
