"""The files an alignment leaves behind: read back by SimpleITK and by hand, all of them or none."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from alignments import made_alignment
from command import run
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.core.errors import DNetError, FileError, OptionError, Setting
from DNetRegistrationLib.geometry.transform_files import read_transform, stated_mark
from DNetRegistrationLib.imaging.equal_blur import blurred_slices, interpolation_blur
from DNetRegistrationLib.imaging.resample import resample
from DNetRegistrationLib.imaging.volume import Volume, read_volume
from DNetRegistrationLib.outputs.paths import CARTILAGE, ENDINGS, OutputPaths, check_outputs
from DNetRegistrationLib.outputs.report import read_report, report
from DNetRegistrationLib.outputs.segmentation import segment
from DNetRegistrationLib.outputs.write import write_outputs
from DNetRegistrationLib.registration.result import Bone
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()


def ellipsoid(points):
    """Depth in mm below the surface of a hollow, lopsided body."""
    x, y, z = np.moveaxis(points, -1, 0)
    radius = np.sqrt((x / 0.8) ** 2 + y**2 + (z / 1.2) ** 2) + 0.1 * x
    return np.minimum(1.0 - radius, radius - 0.7)


def scan(size, spacing, direction, middle, placed, peak, dtype, name):
    """The body seen on a grid; `placed` maps the grid's world to the body's."""
    volume = Volume.from_geometry(np.zeros(size[::-1]), spacing, direction)
    affine = volume.affine.copy()
    affine[:3, 3] = middle - affine[:3, :3] @ (np.array(size) - 1) / 2
    volume = Volume(volume.voxels, affine)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    points = volume.to_world(index).transpose(2, 1, 0, 3) @ placed[:3, :3].T + placed[:3, 3]
    values = 0.2 * peak + 0.8 * peak * np.clip(ellipsoid(points) / 0.1 + 0.5, 0, 1)
    return Volume(values.astype(dtype), affine, name)


def checked(contrast="moving", inputs=(), **outputs):
    check_outputs(OutputPaths(**outputs), contrast=contrast, inputs=inputs)


@pytest.fixture(scope="module")
def pair():
    """Two scans of one body on unlike grids (oblique, left-handed, anisotropic, far off), and their true alignment."""
    place = np.eye(4)
    place[:3, :3], place[:3, 3] = Rotation.from_rotvec((0.3, 0.5, -0.4)).as_matrix(), (130.0, -75.0, 2040.0)
    fixed = scan((36, 40, 44), (0.07, 0.06, 0.065), OBLIQUE, np.zeros(3), np.eye(4), 1000, np.int16, "in/fixed.nrrd")
    middle = place[:3, 3] + (0.1, 0.1, 0.0)
    left = OBLIQUE.T @ np.diag((1, -1, 1))
    moving = scan((46, 38, 34), (0.06, 0.07, 0.09), left, middle, np.linalg.inv(place), 1400, np.uint16, "in/µ$CT$.tif")
    return fixed, moving, made_alignment(place)


@pytest.fixture(scope="module")
def written(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    paths = {name: folder / f"{name}{endings[0]}" for name, endings in ENDINGS.items() if name not in CARTILAGE}
    fractions = []
    fixed, moving, result = pair
    write_outputs(
        result, fixed, moving, OutputPaths(**paths), progress=lambda fraction, message: fractions.append(fraction)
    )
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in paths.values())
    return paths


QUARTER = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], float)


@pytest.mark.parametrize("ending", ENDINGS["transform"])
@pytest.mark.parametrize("rotation", [OBLIQUE, QUARTER, QUARTER[[1, 2, 0]], np.diag((-1.0, -1, 1))])
def test_transform_files_give_the_same_map(pair, tmp_path, ending, rotation):
    fixed, moving, _ = pair
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, (130.123456789012, -75.0, 1e-7)
    write_outputs(made_alignment(matrix), fixed, moving, transform=tmp_path / f"out{ending}")
    back = sitk.ReadTransform(str(tmp_path / f"out{ending}"))
    for point in np.random.default_rng(0).normal(size=(20, 3)) * 50:
        expected = [sum(rotation[i][j] * point[j] for j in range(3)) + matrix[i][3] for i in range(3)]
        np.testing.assert_allclose(back.TransformPoint(point.tolist()), expected, atol=1e-11)


def test_files_of_a_refused_alignment_say_so_and_those_of_an_accepted_one_do_not(pair, written, tmp_path):
    fixed, moving, alignment = pair
    refused = replace(alignment, accepted=False, doubts=["symmetry", "cortices"])
    mark = "not accepted (symmetry, cortices)"
    names = ("r.nrrd", "r.mha", "r.nii.gz", "r.tif")
    for name in names:
        write_outputs(refused, fixed, moving, resampled=tmp_path / name)
    outputs = dict(transform=tmp_path / "t.tfm", segmentation=tmp_path / "s.seg.nrrd", subtraction=tmp_path / "d.nrrd")
    write_outputs(refused, fixed, moving, **outputs)
    for name in ("r.nrrd", "r.mha", "r.nii.gz", "d.nrrd", "s.seg.nrrd"):
        image = sitk.ReadImage(str(tmp_path / name))
        assert mark in [image.GetMetaData(key) for key in image.GetMetaDataKeys()], name
    with tifffile.TiffFile(tmp_path / "r.tif") as stack:
        assert mark in stack.imagej_metadata["Info"]
    same = [read_volume(tmp_path / name) for name in names]
    for one in same[1:]:
        assert np.allclose(one.affine, same[0].affine, atol=1e-6) and np.array_equal(one.voxels, same[0].voxels)
    for name, one in (("refused.png", refused), ("accepted.png", alignment)):
        write_outputs(one, fixed, moving, after=tmp_path / name)
    assert (tmp_path / "refused.png").read_bytes() != (tmp_path / "accepted.png").read_bytes()
    path = tmp_path / "t.tfm"
    assert stated_mark(path) == mark and f"# DNetRegistration: {mark}\n" in path.read_text()
    assert np.allclose(read_transform(path), alignment.matrix, atol=1e-12)
    moved = [one.TransformPoint((1.0, 2, 3)) for one in (sitk.ReadTransform(str(path)), refused.transform)]
    assert moved[0] == pytest.approx(moved[1], abs=1e-9)
    assert stated_mark(written["transform"]) == ""
    assert b"DNetRegistration" not in written["resampled"].read_bytes()


def test_many_doubts_and_odd_ones_of_an_edited_report_are_written_too(pair, tmp_path):
    fixed, moving, alignment = pair
    doubts = ["little in common", "voxel size", "metal", "clipped", "dark rim", "wrapped", "other bone", "a\nµ", 1]
    refused = replace(alignment, accepted=False, doubts=doubts)
    assert refused.mark.endswith("other bone, a ?, 1)")
    for name in ("r.nii.gz", "r.mha", "r.nrrd"):
        write_outputs(refused, fixed, moving, resampled=tmp_path / name, transform=tmp_path / "t.tfm")
        assert read_volume(tmp_path / name).voxels.shape == fixed.voxels.shape
    assert stated_mark(tmp_path / "t.tfm") == refused.mark
    assert sitk.ReadImage(str(tmp_path / "r.nii.gz")).GetMetaData("descrip") == refused.mark[:79]


def test_report_has_the_agreed_keys_and_no_nan(pair, written):
    fixed, moving, result = pair
    read = json.loads(written["report"].read_text("utf-8"))
    keys = """matrix accepted confidence expected_error_um dice_before dice hypothesis rotation_deg translation_mm
    seconds device network weights_sha256 fixed moving version verdict reason warnings doubts working_spacing bone
    check contrast grey_value_fit units made network_spread_um surroundings""".split()
    assert set(keys) == set(read)
    assert list(read).index("rotation_deg") + 1 == list(read).index("translation_mm")
    np.testing.assert_array_equal(read["matrix"], result.matrix)
    assert read["accepted"] is True and read["network"] is None and read["seconds"]["search"] == 0.5
    assert read["fixed"] == {
        "name": "in/fixed.nrrd", "size": [36, 40, 44], "spacing": pytest.approx([0.07, 0.06, 0.065]),
        "threshold": 500.0, "dtype": "int16", "flip": None,
    }  # fmt: skip
    assert read["moving"]["name"] == "in/µ$CT$.tif"
    unknown = replace(result, dice=np.float64("nan"), expected_error_um=np.inf, accepted=np.bool_(False))
    odd = json.loads(json.dumps(report(unknown, fixed, moving.flipped("z")), allow_nan=False))
    assert odd["moving"]["flip"] == "z"
    assert odd["dice"] is None and odd["expected_error_um"] is None and odd["accepted"] is False


def test_a_report_is_read_as_the_alignment_that_it_is_of(pair, tmp_path):
    fixed, moving, result = pair
    unknown = replace(result, dice=math.nan, warnings=["one", "two"], seconds={"search": np.float32(0.5)})
    write_outputs(unknown, fixed, moving, report=tmp_path / "a.json")
    read = read_report(tmp_path / "a.json")
    assert read.to_dict() == unknown.to_dict() and type(read) is type(result)
    assert math.isnan(read.dice) and read.matrix.shape == (4, 4) and read.rotation_deg == result.rotation_deg
    assert read.transform.TransformPoint((1.0, 2.0, 3.0)) == result.transform.TransformPoint((1.0, 2.0, 3.0))
    for lacking in ("{}", "[]", "words", '{"fixed": {"threshold": 1}, "moving": {"threshold": 1}}'):
        (tmp_path / "b.json").write_text(lacking)
        with pytest.raises(FileError, match=r"b\.json: is no report of an alignment"):
            read_report(tmp_path / "b.json")
    with pytest.raises(FileError, match="No such file"):
        read_report(tmp_path / "c.json")


def test_the_report_of_one_bone_says_which_and_is_read_back(pair, tmp_path):
    fixed, moving, result = pair
    masks = np.ones(fixed.voxels.shape, bool), np.ones(moving.voxels.shape, bool)
    one = replace(result, bone=Bone(2, 3, 0.4, np.array((1.5, -2.0, 3.25)), masks))
    write_outputs(one, fixed, moving, report=tmp_path / "r.json")
    said = json.loads((tmp_path / "r.json").read_text())["bone"]
    assert said == {"number": 2, "count": 3, "share": 0.4, "center": [1.5, -2.0, 3.25]}
    read = read_report(tmp_path / "r.json").bone
    assert (read.number, read.count, read.share, read.masks) == (2, 3, 0.4, None)
    np.testing.assert_array_equal(read.center, (1.5, -2.0, 3.25))


def test_the_outputs_of_several_bones_are_numbered_each_of_its_own_bone(pair, tmp_path):
    """The one half of the body, and the other: each segmentation shows the half that the alignment is of."""
    fixed, moving, result = pair
    half = np.zeros(fixed.voxels.shape, bool)
    half[: len(half) // 2] = True
    all_moving = np.ones(moving.voxels.shape, bool)
    several = [
        replace(result, bone=Bone(number, 2, 0.5, np.zeros(3), (mask, all_moving)))
        for number, mask in ((1, half), (2, ~half))
    ]
    write_outputs(several, fixed, moving, transform=tmp_path / "t.tfm", segmentation=tmp_path / "s.seg.nrrd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s_1.seg.nrrd", "s_2.seg.nrrd", "t_1.tfm", "t_2.tfm"]
    for number, mask in ((1, half), (2, ~half)):
        bones = segment(fixed, moving, several[number - 1])
        assert bones[0].cortex.any()
        at = np.argwhere(bones[0].cortex)[:, ::-1] @ bones[0].affine[:3, :3].T + bones[0].affine[:3, 3]
        index = np.rint(fixed.to_index(at)).astype(int)[:, ::-1]
        assert mask[tuple(index.T)].mean() > 0.95


def test_when_one_bone_cannot_be_written_none_is(pair, tmp_path):
    fixed, moving, result = pair
    (tmp_path / "t_2.tfm").mkdir()
    with pytest.raises(FileError, match=r"t_2\.tfm"):
        write_outputs([result, result], fixed, moving, transform=tmp_path / "t.tfm")
    assert [path.name for path in tmp_path.iterdir()] == ["t_2.tfm"]


@pytest.mark.parametrize(
    ("name", "numbered"),
    [("a.nii.gz", "a_3.nii.gz"), ("b.nrrd", "b_3.nrrd"), ("x.y/c.d.MHA", "x.y/c.d_3.MHA")],
)
def test_the_number_stands_before_the_whole_ending(name, numbered):
    assert OutputPaths(resampled=name).numbered(3) == OutputPaths(resampled=Path(numbered))


def test_resampled_scan_is_on_the_fixed_grid_in_its_own_type(pair, written):
    fixed, moving, result = pair
    read = read_volume(written["resampled"])
    np.testing.assert_allclose(read.affine, fixed.affine, atol=1e-12)
    assert read.voxels.dtype == np.uint16 and read.voxels.shape == fixed.voxels.shape
    expected = sitk.Resample(
        moving.to_sitk(),
        fixed.to_sitk(),
        result.transform,
        sitk.sitkBSpline3,
        float(moving.voxels.min()),
        sitk.sitkFloat32,
    )
    difference = np.abs(read.voxels - sitk.GetArrayFromImage(expected))
    # At the last half voxel the two extrapolate differently.
    assert np.percentile(difference, 99) <= 1.0


def test_subtraction_is_near_zero_where_nothing_changed_and_empty_where_nothing_is_known(pair, written):
    fixed, _, _ = pair
    read = read_volume(written["subtraction"])
    np.testing.assert_allclose(read.affine, fixed.affine, atol=1e-12)
    assert read.voxels.dtype == np.float32
    seen = np.isfinite(read.voxels)
    assert 0.5 < seen.mean() < 1
    # The body's edge of 0.1 mm is about one voxel: that is where what is left lies.
    assert np.sqrt(np.mean(read.voxels[seen] ** 2)) < 0.03 * 1400
    assert abs(np.median(read.voxels[seen])) < 0.005 * 1400


def test_segmentation_holds_both_cortices_whole_where_they_overlap(pair, written):
    fixed, moving, result = pair
    image = sitk.ReadImage(str(written["segmentation"]))
    np.testing.assert_allclose(
        Volume.from_sitk(sitk.VectorIndexSelectionCast(image, 0)).affine, fixed.affine, atol=1e-12
    )
    layers = sitk.GetArrayFromImage(image)
    assert layers.shape == (*fixed.voxels.shape, 2) and layers.dtype == np.uint8 and layers.max() == 1
    for key, value in {
        "Segment0_Name": "Fixed cortical bone", "Segment1_Name": "Moving cortical bone",
        "Segment0_Color": "0.0 0.65 1.0", "Segment1_Color": "1.0 0.0 0.0", "Segment0_Layer": "0", "Segment1_Layer": "1",
        "Segment0_LabelValue": "1", "Segment1_LabelValue": "1", "Segment0_Extent": "0 35 0 39 0 43",
    }.items():  # fmt: skip
        assert image.GetMetaData(key) == value
    assert image.GetMetaData("Segment0_ID") != image.GetMetaData("Segment1_ID")
    own = cortical_bone(fixed, 500.0, 0.08, resolution=0.03).cortex
    np.testing.assert_array_equal(layers[..., 0] > 0, own)
    both = np.count_nonzero(layers.min(-1))
    assert 2 * both / layers.sum() > 0.85
    # The moving layer, point by point: the nearest voxel of the moving segmentation, but for the surface.
    moving_bone = cortical_bone(moving, 700.0, 0.08, resolution=0.03)
    wrong = checked = 0
    for z, y, x in np.random.default_rng(4).integers(0, layers.shape[:3], (3000, 3)):
        point = fixed.to_world((x, y, z)) @ result.matrix[:3, :3].T + result.matrix[:3, 3]
        index = np.rint(moving.to_index(point)).astype(int)
        if ((index >= 0) & (index < moving.size)).all():
            checked += 1
            wrong += layers[z, y, x, 1] != moving_bone.cortex[tuple(index[::-1])]
    assert checked > 1000 and wrong < 0.12 * checked


def test_the_same_alignment_gives_the_same_files(pair, written, tmp_path):
    fixed, moving, result = pair
    again = {name: tmp_path / path.name for name, path in written.items()}
    write_outputs(result, fixed, moving, **again)
    for name, path in again.items():
        # A report tells when it was made.
        one, other = (
            re.sub(rb'"date": "[^"]+"', b"", file.read_bytes()) if name == "report" else file.read_bytes()
            for file in (path, written[name])
        )
        assert one == other, name


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"transform": "a.txt"}, "a.txt.*transform.*\\.tfm, \\.h5 or \\.mat"),
        ({"report": "a.txt"}, "a.txt.*report.*json"),
        ({"overlay": "a.jpeg"}, "a.jpeg.*overlay.*png"),
        ({"segmentation": "a.nrrd"}, "a.nrrd.*seg.nrrd"),
        (
            {"resampled": "a.seg.nrrd"},
            "a.seg.nrrd: the resampled scan cannot.*use .nrrd, .nii, .nii.gz, .mha, .tif or .tiff",
        ),
        ({"subtraction": "a.png"}, "a.png.*subtraction"),
        ({"resampled": "a.nrrd", "subtraction": "./a.nrrd"}, "subtraction would replace the resampled scan"),
        ({"resampled": "scan.nrrd"}, "scan.nrrd.*would replace one of the scans"),
        ({"report": "missing/a.json"}, "missing.*does not exist"),
        ({"report": "folder.json"}, "folder.json.*is a folder"),
        ({"contrast": "both"}, "both.*fixed or moving"),
    ],
)
def test_what_cannot_be_written_is_said_beforehand(tmp_path, monkeypatch, outputs, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "scan.nrrd").write_bytes(b"scan")
    with pytest.raises(DNetError, match=message) as caught:
        checked(**outputs, inputs=[tmp_path / "scan.nrrd"])
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.json", "scan.nrrd"]


def test_an_output_that_is_unknown_is_said():
    with pytest.raises(TypeError, match="picture"):
        write_outputs(None, None, None, picture="a.png")


@pytest.mark.parametrize(
    ("outputs", "setting"),
    [({"contrast": "both"}, Setting("contrast")), ({"report": "a.txt"}, Setting("report"))],
)
def test_what_to_set_is_said(outputs, setting):
    with pytest.raises(DNetError) as caught:
        checked(**outputs)
    assert caught.value.setting == setting


def test_checking_leaves_nothing_behind(tmp_path):
    checked(**{name: tmp_path / f"x{name}{endings[-1]}" for name, endings in ENDINGS.items()})
    assert list(tmp_path.iterdir()) == []


def test_when_one_output_fails_none_appears_and_none_is_replaced(pair, tmp_path, monkeypatch):
    fixed, moving, result = pair
    (tmp_path / "a.json").write_text("old")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("DNetRegistrationLib.outputs.write.write_nrrd", full)
    with pytest.raises(FileError, match=r"b\.nrrd.*No space left"):
        write_outputs(result, fixed, moving, report=tmp_path / "a.json", resampled=tmp_path / "b.nrrd")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are POSIX")
def test_a_file_cut_short_by_the_system_leaves_nothing(tmp_path):
    """A limit on file size stands in for a full disk: writing stops in the middle."""
    names = ["subtraction.nrrd", "subtraction.nii.gz", "subtraction.mha", "overlay.png"]
    program = f"""
        import os, resource, signal
        import numpy as np
        from alignments import made_alignment
        from DNetRegistrationLib import Volume, write_outputs
        from DNetRegistrationLib.core.errors import DNetError
        from DNetRegistrationLib.core import files
        files.Staging.room = 1
        import matplotlib.figure, matplotlib.font_manager  # whose cache is no concern of this test
        voxels = np.random.default_rng(0).integers(0, 1000, (60, 60, 60)).astype(np.int16)
        volume = Volume(voxels, np.diag((0.04, 0.04, 0.04, 1)))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        for name in {names}:
            try:
                write_outputs(made_alignment(np.eye(4)), volume, volume, **{{name.split(".")[0]: name}})
            except DNetError as error:
                print("refused", error, "left", os.listdir())
    """
    done = run(code=program, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == len(names), done.stdout + done.stderr
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"refused {name}") and line.endswith("left []")
    assert list(tmp_path.iterdir()) == []


def test_outputs_keep_to_the_threads_that_they_may_use(small_pair, tmp_path, monkeypatch):
    """Resampling took as many as there are processors, whatever the limit, in each process of a cohort."""
    started = []

    def counted(spline, to_index, out, threads):
        started.append(threads)
        out[...] = 0

    monkeypatch.setattr("DNetRegistrationLib.imaging.resample.evaluate", counted)
    monkeypatch.setattr("DNetRegistrationLib.core.threads.available_processors", lambda: 7)
    fixed, moving = small_pair.fixed, small_pair.moving
    alignment = made_alignment(small_pair.matrix)
    for threads, used in ((1, 1), (3, 3), (None, 7)):
        write_outputs(alignment, fixed, moving, resampled=tmp_path / "resampled.nrrd", threads=threads)
        assert started.pop() == used and not started
    with pytest.raises(OptionError, match="0 is no number of threads"):
        write_outputs(alignment, fixed, moving, resampled=tmp_path / "resampled.nrrd", threads=0)


def test_a_report_says_what_made_it(pair, tmp_path, monkeypatch):
    from datetime import datetime, timezone

    fixed, moving, result = pair
    monkeypatch.setattr(sys, "argv", ["dnet-registration", "align", "a b.nrrd"])
    write_outputs(result, fixed, moving, report=tmp_path / "r.json", subtraction=tmp_path / "s.nrrd", contrast="fixed")
    read = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert read["contrast"] == "fixed"
    # The line is the one of the subtraction: contrast - (slope * plain + offset).
    slope, offset = read["grey_value_fit"]["slope"], read["grey_value_fit"]["offset"]
    carried, difference = resample(moving, fixed, result.matrix).voxels, read_volume(tmp_path / "s.nrrd").voxels
    # The fixed scan is blurred as interpolation blurs the moving one.
    blurred = np.stack(list(blurred_slices(fixed, interpolation_blur(moving, fixed, result.matrix))))
    expected = blurred.astype(np.float64) - (slope * carried.astype(np.float64) + offset)
    np.testing.assert_allclose(difference, expected, rtol=1e-4, atol=abs(expected[np.isfinite(expected)]).max() * 1e-5)
    assert read["made"]["command"] == "dnet-registration align 'a b.nrrd'"
    assert abs((datetime.now(timezone.utc) - datetime.fromisoformat(read["made"]["date"])).total_seconds()) < 3600
    assert read["made"]["versions"]["NumPy"] == np.__version__ and "torch" in read["made"]["versions"]
    assert read["units"]["expected_error_um"] == "um"
    # Of a bone, and of a check.
    assert read["units"]["center"] == "mm, LPS, in the fixed scan" and read["units"]["error_um"] == "um"


@pytest.mark.parametrize("contrast", ("moving", "fixed"))
def test_images_in_memory_are_those_of_the_files(pair, tmp_path, contrast):
    from DNetRegistrationLib import subtract

    fixed, moving, result = pair
    write_outputs(result, fixed, moving, subtraction=tmp_path / "s.nrrd", contrast=contrast)
    before = moving.voxels.copy()
    found = subtract(result, fixed, moving, contrast)
    np.testing.assert_array_equal(found.voxels, read_volume(tmp_path / "s.nrrd").voxels)
    np.testing.assert_array_equal(moving.voxels, before)
    with pytest.raises(OptionError, match="contrast 'both' is unknown"):
        subtract(result, fixed, moving, "both")


def test_alignments_can_be_compared():
    one, same = made_alignment(np.eye(4), dice=math.nan), made_alignment(np.eye(4), dice=math.nan)
    other = made_alignment(np.diag((-1.0, -1, 1, 1)), dice=math.nan)
    assert one == same and one != other and one != "words" and one != replace(one, dice=0.5)
    assert len({one, same, other}) == 2
    assert type(one).from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_a_cortex_in_memory_is_the_segmentation_of_the_scan(pair):
    from DNetRegistrationLib import segment_cortex

    scan = pair[0]
    found = segment_cortex(scan, 500.0)
    expected = cortical_bone(scan, 500.0, 0.08, resolution=0.06)
    assert found.voxels.dtype == np.uint8 and expected.cortex.any()
    np.testing.assert_array_equal(found.voxels > 0, expected.cortex)
    np.testing.assert_array_equal(found.affine, scan.affine)
    half = np.zeros(scan.voxels.shape, bool)
    half[:20] = True
    assert not segment_cortex(scan, 500.0, half).voxels[~half].any()
