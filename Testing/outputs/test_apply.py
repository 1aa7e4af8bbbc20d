"""Transforms on other files: which way things go, what is kept, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
from alignments import made_alignment
from DNetRegistrationLib import (
    DNetError,
    Volume,
    apply_transform,
    read_mask,
    read_transform,
    read_volume,
    write_transform,
    write_volume,
)
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.imaging.masks import read_layers
from DNetRegistrationLib.imaging.nrrd import write_nrrd
from DNetRegistrationLib.outputs.apply import apply_to_file
from DNetRegistrationLib.outputs.write import scan_mark, write_scan

#: A quarter turn about z, then 5 mm along x: the fixed point (2, 0, 1) is the moving point (5, 2, 1).
QUARTER = np.array([[0, -1, 0, 5], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)
FIXED, MOVING = (2.0, 0.0, 1.0), (5.0, 2.0, 1.0)
ALONG = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 10], [0, 0, 0, 1]], float)


def oblique(angle=0.7, shift=(3.0, -1.0, 2.0)) -> np.ndarray:
    x, y, z = np.array((1.0, 2.0, -2.0)) / 3
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    matrix[:3, 3] = shift
    return matrix


#: Anisotropic, sheared, left-handed and off the origin; and another.
SKEWED = np.array([[0.3, 0.05, 0.02, 40], [0.1, -0.2, 0.0, -30], [0.0, 0.04, 0.5, 70], [0, 0, 0, 1]])
SLANTED = oblique(0.4, (41.0, -31.0, 71.0)) @ np.diag((0.25, 0.2, 0.4, 1))


def labels_of(shape=(9, 10, 11), seed=3):
    return np.random.default_rng(seed).integers(0, 5, shape).astype(np.int16)


def nearest_by_hand(voxels, own, grid, shape, matrix):
    """Each voxel of the grid by itself."""
    out, inverse = np.zeros(shape, voxels.dtype), np.linalg.inv(own)
    for z, y, x in np.ndindex(*shape):
        point = inverse @ matrix @ grid @ (x, y, z, 1.0)
        i, j, k = (math.floor(value + 0.5) for value in point[:3])
        if 0 <= k < voxels.shape[0] and 0 <= j < voxels.shape[1] and 0 <= i < voxels.shape[2]:
            out[z, y, x] = voxels[k, j, i]
    return out


def test_points_go_from_moving_to_fixed_and_back():
    assert apply_transform(np.array(MOVING), QUARTER) == pytest.approx(FIXED)
    assert apply_transform(np.array([FIXED]), QUARTER, inverse=True)[0] == pytest.approx(MOVING)


def test_the_first_transform_is_applied_first():
    # QUARTER carries (5, 2, 1) to (2, 0, 1); ALONG carries that to (2, 0, -9). The other way round: (5, 2, -9) first.
    assert apply_transform(np.array(MOVING), QUARTER, ALONG) == pytest.approx((2, 0, -9))
    tilt = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)  # fixed (2, 1, 0) is (2, 0, 1)
    assert apply_transform(np.array(MOVING), QUARTER, tilt) == pytest.approx((2, 1, 0))
    assert apply_transform(np.array((2.0, 1, 0)), QUARTER, tilt, inverse=True) == pytest.approx(MOVING)


@pytest.mark.parametrize("kind", (made_alignment, sitk.AffineTransform), ids=("alignment", "sitk"))
def test_transforms_of_any_kind(kind):
    if kind is made_alignment:
        transform = made_alignment(QUARTER)
    else:
        transform = sitk.AffineTransform(QUARTER[:3, :3].ravel().tolist(), QUARTER[:3, 3].tolist())
    assert apply_transform(np.array(MOVING), transform) == pytest.approx(FIXED)


@pytest.mark.parametrize("inverse", (False, True))
def test_labels_are_those_of_the_nearest_voxel(inverse):
    labels, matrix = labels_of(), oblique(0.3, (0.4, 0.2, -0.3))
    if inverse:
        matrix = np.linalg.inv(matrix)
    # The grids are about 40 mm off the origin: turn about a point in the image.
    middle = np.eye(4)
    middle[:3, 3] = (SKEWED @ (5, 5, 4, 1))[:3]
    about = middle @ matrix @ np.linalg.inv(middle)
    grid = Volume(np.zeros((8, 12, 10), np.float32), SLANTED)
    found = apply_transform(Volume(labels, SKEWED), about, grid=grid)
    expected = nearest_by_hand(labels, SKEWED, SLANTED, (8, 12, 10), about)
    assert (expected > 0).mean() > 0.1
    np.testing.assert_array_equal(found.voxels, expected)
    assert found.voxels.dtype == np.int16
    back = apply_transform(Volume(labels, SKEWED), np.linalg.inv(about), grid=grid, inverse=True)
    np.testing.assert_array_equal(back.voxels, expected)


def test_grey_values_are_interpolated():
    """A ramp in the moving world is a ramp in the fixed one."""
    index = np.indices((20, 21, 22))[::-1]
    own = oblique(0.5, (10.0, 20.0, -30.0)) @ np.diag((0.1, 0.12, 0.15, 1))
    world = np.einsum("ij,j...->i...", own[:3, :3], index.astype(float)) + own[:3, 3, None, None, None]
    slope = np.array((3.0, -2.0, 5.0))
    scan = Volume(np.einsum("i,i...->...", slope, world), own)
    grid = Volume(
        np.zeros((9, 8, 7), np.float32), QUARTER @ own @ [[1, 0, 0, 8], [0, 1, 0, 7], [0, 0, 1, 6], [0, 0, 0, 1]]
    )
    found = apply_transform(scan, np.linalg.inv(QUARTER), grid=grid)
    for x, y, z in ((0, 0, 0), (3, 4, 5), (6, 7, 8)):
        point = np.linalg.inv(QUARTER) @ grid.affine @ (x, y, z, 1)
        assert found.voxels[z, y, x] == pytest.approx(slope @ point[:3], abs=0.02)


def test_without_a_grid_voxels_stay_and_axes_turn():
    scan = Volume(labels_of(), SKEWED)
    found = apply_transform(scan, QUARTER)
    assert found.voxels is scan.voxels
    moving, fixed = scan.to_world((1, 2, 3)), found.to_world((1, 2, 3))
    assert (QUARTER @ (*fixed, 1))[:3] == pytest.approx(moving)


@pytest.mark.parametrize(
    ("what", "options", "words"),
    (
        (np.zeros((4, 2)), {}, "not three-dimensional"),
        (np.zeros((4, 3)), {"interpolation": "linear"}, "interpolation 'linear' is unknown"),
        (np.zeros((4, 3)), {"grid": Volume(np.zeros((2, 2, 2)))}, "points have no grid"),
    ),
)
def test_what_cannot_be_applied(what, options, words):
    with pytest.raises(DNetError, match=words):
        apply_transform(what, np.eye(4), **options)
    with pytest.raises(DNetError, match="no transform is given"):
        apply_transform(np.zeros((1, 3)))
    with pytest.raises(DNetError, match="scales or shears"):
        apply_transform(np.zeros((1, 3)), np.diag((2.0, 1, 1, 1)))


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def quarter(tmp_path):
    write_transform(QUARTER, tmp_path / "quarter.tfm")
    return str(tmp_path / "quarter.tfm")


def csv_rows(path):
    return [line.split(",") for line in path.read_text().splitlines()]


def test_command_on_points(tmp_path, quarter, capsys):
    (tmp_path / "in.csv").write_text("name,z,y,x\nA,1,2,5\n")
    status = main(["apply", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--transform", quarter])
    assert status == 0, capsys.readouterr().err
    header, row = csv_rows(tmp_path / "out.csv")
    assert header == ["name", "z", "y", "x"] and row[0] == "A"
    assert [float(v) for v in row[1:]] == pytest.approx((1, 0, 2))
    assert "1 point\n" in capsys.readouterr().out


def test_points_of_spreadsheets(tmp_path, quarter):
    # QUARTER carries (5, 2, 1) to (2, 0, 1), as in the tests beside this one; here with a half more along z.
    found = {
        "x,y,z\n5,2,1.5\n": "x,y,z\n2.0,0.0,1.5\n",
        "x;y;z\n5,0;2;1,5\n": "x;y;z\n2,0;0,0;1,5\n",
        "x;y;z;note\n5;2;1.5;a,b\n": "x;y;z;note\n2.0;0.0;1.5;a,b\n",
        "sep=;\nx;y;z\n5;2;1,5\n": "sep=;\nx;y;z\n2,0;0,0;1,5\n",
        "note\tx\ty\tz\na,b,c,d\t5\t2\t1,5\n": "note\tx\ty\tz\na,b,c,d\t2,0\t0,0\t1,5\n",
        "5\t2\t1,5\tP\n": "2,0\t0,0\t1,5\tP\n",
        "x,y,z\n5,2,1.5,,\n": "x,y,z\n2.0,0.0,1.5,,\n",
    }
    for text, carried in found.items():
        for encoding in ("utf-8-sig", "utf-16"):
            (tmp_path / "in.csv").write_text(text, encoding)
            apply_to_file(tmp_path / "in.csv", tmp_path / "out.csv", [(quarter, False)])
            assert (tmp_path / "out.csv").read_text().replace("-0", "0") == carried


def test_command_goes_there_and_back_in_order(tmp_path, quarter):
    write_transform(oblique(), tmp_path / "oblique.tfm")
    (tmp_path / "in.csv").write_text("1,2,3\n")
    there, back = str(tmp_path / "there.csv"), str(tmp_path / "back.csv")
    tilted = str(tmp_path / "oblique.tfm")
    assert main(["apply", str(tmp_path / "in.csv"), there, "--transform", quarter, "--inverse", tilted]) == 0
    expected = oblique() @ np.linalg.inv(QUARTER) @ (1, 2, 3, 1)
    assert [float(v) for v in csv_rows(tmp_path / "there.csv")[0]] == pytest.approx(expected[:3])
    assert main(["apply", there, back, "--transform", tilted, "--inverse", quarter]) == 0
    assert [float(v) for v in csv_rows(tmp_path / "back.csv")[0]] == pytest.approx((1, 2, 3))


def test_points_of_slicer_in_ras(tmp_path, quarter):
    # RAS (-5, -2, 1) is LPS (5, 2, 1), which is carried to LPS (2, 0, 1): RAS (-2, 0, 1).
    text = "# Markups fiducial file version = 4.10\n# CoordinateSystem = 0\n# columns = id,x,y,z\n"
    text += "1,-5,-2,1,0,0,0,1,1,1,0,F,,\n"
    (tmp_path / "in.fcsv").write_text(text)
    apply_to_file(tmp_path / "in.fcsv", tmp_path / "out.fcsv", [(quarter, False)])
    *comments, row = (tmp_path / "out.fcsv").read_text().splitlines()
    assert comments == text.splitlines()[:3]
    assert [float(v) for v in row.split(",")[1:4]] == pytest.approx((-2, 0, 1))
    assert row.split(",")[4:] == "0,0,0,1,1,1,0,F,,".split(",")
    markups = {
        "markups": [
            {
                "type": "Curve",
                "coordinateSystem": system,
                "controlPoints": [{"label": "a", "position": position, "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1]}],
            }
            for system, position in (("LPS", [5, 2, 1]), ("RAS", [-5, -2, 1]))
        ]
    }
    (tmp_path / "in.mrk.json").write_text(json.dumps(markups))
    apply_to_file(tmp_path / "in.mrk.json", tmp_path / "out.mrk.json", [(quarter, False)])
    lps, ras = (one["controlPoints"][0] for one in json.loads((tmp_path / "out.mrk.json").read_text())["markups"])
    assert lps["position"] == pytest.approx((2, 0, 1)) and ras["position"] == pytest.approx((-2, 0, 1))
    # The moving x axis lies along the fixed -y axis.
    assert lps["orientation"] == pytest.approx((0, 1, 0, -1, 0, 0, 0, 0, 1))
    assert lps["label"] == "a"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    (
        ("a.csv", "name,a,b\nF,1,2\n", "does not name one column each x, y and z"),
        ("a.csv", "1,2,words\n", "a position is not three numbers"),
        ("a.csv", "1,2\n", "too few columns"),
        ("a.csv", "x,y,z\n", "holds no points"),
        ("a.csv", "1,2,nan\n", "a position is not three numbers"),
        # 1.5, 2.0 and 3.0 as a spreadsheet with decimal commas shows them.
        ("a.csv", "x,y,z\n1,5,2,0,3,0\n", "more cells than the header"),
        ("a.csv", "1,5,2,0,3,0\n", "more than three numbers, and no header"),
        ("a.fcsv", "# CoordinateSystem = 2\n1,1,2,3\n", "coordinate system is 'IJK'"),
        ("a.mrk.json", "{}", "lacks what Slicer's markups have"),
        ("a.mrk.json", "[" * 100_000, "lacks what Slicer's markups have"),
        (
            "a.mrk.json",
            '{"markups": [{"type": "Plane", "controlPoints": []}]}',
            "a markup of the kind 'Plane' is more than its points",
        ),
    ),
)
def test_damaged_points_are_refused(tmp_path, quarter, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DNetError, match=words):
        apply_to_file(tmp_path / name, tmp_path / f"out_{name}", [(quarter, False)])
    assert not (tmp_path / f"out_{name}").exists()


def test_command_on_labels_and_scans(tmp_path, capsys):
    middle = np.eye(4)
    middle[:3, 3] = (SKEWED @ (5, 5, 4, 1))[:3]
    about = middle @ oblique(0.3, (0.4, 0.2, -0.3)) @ np.linalg.inv(middle)
    write_transform(about, tmp_path / "t.h5")
    labels = labels_of()
    write_volume(Volume(labels, SKEWED), tmp_path / "labels.nrrd")
    write_volume(Volume(np.random.default_rng(0).normal(size=(8, 12, 10)), SLANTED), tmp_path / "grid.nrrd")
    words = ["--transform", str(tmp_path / "t.h5"), "--grid", str(tmp_path / "grid.nrrd")]
    assert main(["apply", str(tmp_path / "labels.nrrd"), str(tmp_path / "out.nrrd"), *words]) == 0
    assert "labels, by nearest neighbour" in capsys.readouterr().out
    out = read_volume(tmp_path / "out.nrrd")
    np.testing.assert_array_equal(out.voxels, nearest_by_hand(labels, SKEWED, SLANTED, (8, 12, 10), about))
    np.testing.assert_allclose(out.affine, SLANTED, atol=1e-9)
    # Values that no label has come of splines.
    words += ["--interpolation", "spline"]
    assert main(["apply", str(tmp_path / "labels.nrrd"), str(tmp_path / "grey.nrrd"), *words]) == 0
    assert "grey values" in capsys.readouterr().out
    assert set(np.unique(read_volume(tmp_path / "grey.nrrd").voxels)) - set(range(5))


def test_a_mask_that_is_full_is_carried(tmp_path, quarter):
    """As the field of view of a scan is; a scan of one value is none."""
    write_volume(Volume(np.ones((4, 5, 6), np.uint8), np.diag((1.5, 1, 1, 1))), tmp_path / "mask.nrrd")
    apply_to_file(tmp_path / "mask.nrrd", tmp_path / "out.mha", [(quarter, False)])
    out = sitk.ReadImage(str(tmp_path / "out.mha"))
    assert sitk.GetArrayFromImage(out).all()
    # Its first voxel, at the moving origin, lies at the fixed point (0, 5, 0): the transform maps that to (0, 0, 0).
    assert out.GetOrigin() == pytest.approx((0, 5, 0))


@pytest.mark.parametrize("kind", ("labels", "grey values"))
def test_a_stack_that_was_aligned_with_a_flip_is_carried_with_it(tmp_path, kind):
    voxels = labels_of()
    if kind == "grey values":
        voxels = np.random.default_rng(1).normal(size=(9, 10, 11)).astype(np.float32)
    write_volume(Volume(voxels[::-1], SKEWED), tmp_path / "reversed.nrrd")
    write_volume(Volume(voxels, SKEWED), tmp_path / "right.nrrd")
    write_transform(np.eye(4), tmp_path / "t.tfm")
    words = ["--transform", str(tmp_path / "t.tfm"), "--grid", str(tmp_path / "right.nrrd")]
    arguments = [str(tmp_path / "reversed.nrrd"), str(tmp_path / "out.nrrd"), *words, "--scan-flip", "z"]
    assert main(["apply", *arguments]) == 0
    np.testing.assert_allclose(read_volume(tmp_path / "out.nrrd").voxels, voxels, atol=1e-5)


def test_points_are_not_flipped(tmp_path, quarter, capsys):
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n")
    paths = [str(tmp_path / "points.csv"), str(tmp_path / "out.csv"), "--transform", str(quarter)]
    assert main(["apply", *paths, "--scan-flip", "z"]) == 2
    assert "leave the flip out (--scan-flip)" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_segments_stay_segments(tmp_path):
    layers = np.zeros((6, 7, 8, 2), np.uint8)
    layers[1:3, 2:4, 3:6, 0] = 1
    layers[2:5, 3:6, 1:4, 1] = 3
    keys = {
        "Segment0_ID": "a", "Segment0_Name": "tibia", "Segment0_Layer": "0", "Segment0_LabelValue": "1",
        "Segment0_Extent": "3 5 2 3 1 2",
        "Segment1_ID": "b", "Segment1_Name": "femur", "Segment1_Layer": "1", "Segment1_LabelValue": "3",
        "Segment1_Extent": "1 3 3 5 2 4", "Segmentation_MasterRepresentation": "Binary labelmap",
    }  # fmt: skip
    own = np.diag((0.5, 0.4, 0.3, 1.0))
    write_nrrd(tmp_path / "in.seg.nrrd", layers, layers.shape, np.uint8, own, keys)
    shift = np.eye(4)
    shift[:3, 3] = (0.5, 0.8, -0.3)  # one voxel along x, two along y, one back along z
    write_transform(shift, tmp_path / "shift.tfm")
    grid = Volume(np.random.default_rng(0).normal(size=(8, 8, 8)), own)
    write_volume(grid, tmp_path / "grid.nrrd")
    done = apply_to_file(
        tmp_path / "in.seg.nrrd",
        tmp_path / "out.seg.nrrd",
        [(tmp_path / "shift.tfm", False)],
        grid=tmp_path / "grid.nrrd",
    )
    assert "2 segments" in done.what
    for name, layer in (("tibia", layers[..., 0] == 1), ("femur", layers[..., 1] == 3)):
        expected = np.zeros((8, 8, 8), bool)
        for z, y, x in np.argwhere(layer):
            expected[z + 1, y - 2, x - 1] = True
        np.testing.assert_array_equal(read_mask(tmp_path / "out.seg.nrrd", grid, name), expected)


@pytest.mark.parametrize("space", ("LPS", "RAS"))
@pytest.mark.parametrize("ending", (".ply", ".stl", ".vtp"))
def test_meshes(tmp_path, quarter, ending, space):
    vtk = pytest.importorskip("vtk", reason="vtk is not installed")
    sign = 1 if space == "LPS" else -1
    points = np.array([MOVING, (6, 2, 1), (5, 4, 1)]) * (sign, sign, 1)
    if ending == ".ply":
        lines = ["ply", "format ascii 1.0", f"comment SPACE={space}", "element vertex 3"]
        lines += [f"property float {axis}" for axis in "xyz"]
        lines += ["element face 1", "property list uchar int vertex_indices", "end_header"]
        text = "\n".join([*lines, *(" ".join(map(str, point)) for point in points), "3 0 1 2", ""])
        (tmp_path / "in.ply").write_text(text)
    else:
        mesh, at, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
        for point in points:
            at.InsertNextPoint(*point)
        cells.InsertNextCell(3, [0, 1, 2])
        mesh.SetPoints(at)
        mesh.SetPolys(cells)
        note = vtk.vtkStringArray()
        note.SetName("SPACE")
        note.InsertNextValue(space)
        mesh.GetFieldData().AddArray(note)
        writer = vtk.vtkSTLWriter() if ending == ".stl" else vtk.vtkXMLPolyDataWriter()
        if ending == ".stl":
            writer.SetHeader(f"a mesh SPACE={space}".ljust(79))
            writer.SetFileTypeToBinary()
        writer.SetFileName(str(tmp_path / f"in{ending}"))
        writer.SetInputData(mesh)
        writer.Write()
    apply_to_file(tmp_path / f"in{ending}", tmp_path / "out.vtp", [(quarter, False)])
    apply_to_file(tmp_path / f"in{ending}", tmp_path / f"again{ending}", [(quarter, False)])
    apply_to_file(tmp_path / f"again{ending}", tmp_path / "back.vtp", [(quarter, True)])
    # By hand, of x' = y_moving, y' = 5 - x_moving.
    for name, wanted in (("out", [FIXED, (2, -1, 1), (4, 0, 1)]), ("back", [MOVING, (6, 2, 1), (5, 4, 1)])):
        reader = vtk.vtkXMLPolyDataReader()
        reader.SetFileName(str(tmp_path / f"{name}.vtp"))
        reader.Update()
        found = [reader.GetOutput().GetPoint(i) for i in range(3)]
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_damaged_mesh_is_refused(tmp_path, quarter, capfd):
    pytest.importorskip("vtk", reason="vtk is not installed")
    for name in ("a.vtp", "b.ply", "c.stl"):
        (tmp_path / name).write_bytes(b"no mesh at all\n")
        with pytest.raises(DNetError, match="is no mesh that can be read"):
            apply_to_file(tmp_path / name, tmp_path / f"out_{name}", [(quarter, False)])
        assert not (tmp_path / f"out_{name}").exists()
    assert capfd.readouterr() == ("", "")


def test_what_a_refused_alignment_carried_says_so(tmp_path, capsys):
    refused = made_alignment(np.eye(4), accepted=False, doubts=["symmetry"])
    write_transform(refused, tmp_path / "t.tfm")
    write_volume(Volume(labels_of(), SKEWED), tmp_path / "labels.nrrd")
    carried = [str(tmp_path / name) for name in ("labels.nrrd", "out.nrrd")]
    assert main(["apply", *carried, "--transform", str(tmp_path / "t.tfm")]) == 0
    told = capsys.readouterr().out
    assert f"warning           {tmp_path / 't.tfm'}: the alignment that it is of is not accepted (symmetry)" in told
    assert b"DNetRegistration:=not accepted (symmetry)\n" in (tmp_path / "out.nrrd").read_bytes()


def test_what_is_carried_again_still_says_that_it_is_of_a_refused_alignment(tmp_path):
    mark = "not accepted (symmetry)"
    write_transform(made_alignment(np.eye(4), accepted=False, doubts=["symmetry"]), tmp_path / "refused.tfm")
    write_transform(np.eye(4), tmp_path / "true.tfm")

    def carried(source, target, transform):
        apply_to_file(tmp_path / source, tmp_path / target, [(tmp_path / f"{transform}.tfm", False)])
        return tmp_path / target

    write_volume(Volume(labels_of(), np.diag((0.1, 0.1, 0.1, 1))), tmp_path / "labels.nrrd")
    assert scan_mark(carried("labels.nrrd", "fine.nrrd", "true")) == "" == scan_mark(tmp_path)
    before = carried("labels.nrrd", "first.nrrd", "refused").name
    for name in ("again.mha", "again.nii.gz", "again.tif", "AGAIN.MHA", "again.nrrd"):
        assert scan_mark(carried(before, name, "true")) == mark
        before = name
    layers = (labels_of() > 2).astype(np.uint8)
    keys = {"Segment0_ID": "bone", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    write_nrrd(tmp_path / "in.seg.nrrd", layers, layers.shape, np.uint8, np.diag((0.1, 0.1, 0.1, 1)), keys)
    for source, target, transform in (("in", "first", "refused"), ("first", "again", "true")):
        header = read_layers(carried(f"{source}.seg.nrrd", f"{target}.seg.nrrd", transform))[2]
        assert header["DNetRegistration"] == mark


def test_a_mark_that_nifti_cut_short_is_no_second_mark(tmp_path):
    refused = made_alignment(np.eye(4), accepted=False, doubts=["symmetry", "extreme strain of the moving scan" * 3])
    assert len(refused.mark) > 79
    write_transform(refused, tmp_path / "refused.tfm")
    written = Volume(labels_of(), np.diag((0.1, 0.1, 0.1, 1)))
    write_scan(written, tmp_path / "cut.nii", tmp_path / "cut.nii", refused.mark)
    apply_to_file(tmp_path / "cut.nii", tmp_path / "again.nrrd", [(tmp_path / "refused.tfm", False)])
    assert scan_mark(tmp_path / "again.nrrd") == refused.mark


def test_a_mark_is_read_where_the_header_is_a_file_of_its_own(tmp_path):
    image = Volume(labels_of(), np.diag((0.1, 0.1, 0.1, 1))).to_sitk()
    image.SetMetaData("DNetRegistration", "not accepted (symmetry)")
    for name in ("a.mhd", "b.nhdr"):
        sitk.WriteImage(image, str(tmp_path / name))
        assert scan_mark(tmp_path / name) == "not accepted (symmetry)"


def test_what_is_refused(tmp_path, quarter, capsys):
    (tmp_path / "a.csv").write_text("1,2,3\n")
    write_volume(Volume(labels_of(), SKEWED), tmp_path / "labels.nrrd")
    far = np.eye(4)
    far[:3, 3] = 500
    write_transform(far, tmp_path / "far.tfm")

    def refused(source, target, *words):
        assert main(["apply", str(tmp_path / source), str(tmp_path / target), *map(str, words)]) == 2
        return capsys.readouterr().err

    there = ("--transform", quarter)
    assert "by read_volume and write_volume); give one (--transform)" in refused("a.csv", "b.csv")
    assert "would replace" in refused("a.csv", "a.csv", *there)
    assert "would replace" in refused("a.csv", "quarter.tfm", *there)
    assert "points cannot be written to this kind of file; use .csv" in refused("a.csv", "b.fcsv", *there)
    assert "points has no grid; leave the grid out (--grid)" in refused(
        "a.csv", "b.csv", *there, "--grid", tmp_path / "labels.nrrd"
    )
    assert "lies wholly outside the grid" in refused(
        "labels.nrrd", "b.nrrd", "--transform", tmp_path / "far.tfm", "--grid", tmp_path / "labels.nrrd"
    )
    assert "NIfTI cannot hold a sheared grid" in refused("labels.nrrd", "b.nii", *there)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "far.tfm", "labels.nrrd", "quarter.tfm"]
    assert read_transform(quarter) == pytest.approx(QUARTER)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.mha"])
def test_a_mark_in_letters_of_another_program_is_no_error(tmp_path, name):
    """Bytes that are no text, where the mark stands."""
    refused = made_alignment(np.eye(4), accepted=False, doubts=["symmetry"])
    write_scan(Volume(labels_of(), np.diag((0.1, 0.1, 0.1, 1))), tmp_path / name, tmp_path / name, refused.mark)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data.replace(b"symmetry", b"symm\xfctry"[:8]))
    write_transform(np.eye(4), tmp_path / "t.tfm")
    apply_to_file(tmp_path / name, tmp_path / "b.nrrd", [(tmp_path / "t.tfm", False)])
    assert scan_mark(tmp_path / "b.nrrd").startswith("not accepted (symm?")
    (tmp_path / "stack.tif").mkdir()
    assert scan_mark(tmp_path / "stack.tif") == ""
