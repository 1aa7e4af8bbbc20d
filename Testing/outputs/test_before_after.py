"""The two pictures to flicker between: the outline stays, the moving scan goes where the transform puts it."""

from dataclasses import replace

import numpy as np
import pytest
from alignments import made_alignment
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.outputs import paths
from DNetRegistrationLib.outputs.before_after import GAP, PIXELS, before_and_after, write_slices
from DNetRegistrationLib.outputs.paths import OutputPaths, check_outputs
from DNetRegistrationLib.outputs.slices import window
from DNetRegistrationLib.outputs.write import write_outputs
from scipy.spatial.transform import Rotation

Image = pytest.importorskip("PIL.Image")

#: A turn about no axis of a grid, and a shift: fixed to moving points.
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_rotvec((0.3, -0.5, 0.7)).as_matrix()
OBLIQUE[:3, 3] = 0.35, -0.2, 0.15


def marked_tube(affine: np.ndarray, shape: tuple[int, int, int], placed: np.ndarray, name: str = "scan") -> Volume:
    """A hollow cylinder along z with a bulge at its upper, left, posterior end, moved by `placed`."""
    z, y, x = np.indices(shape)
    world = np.stack((x, y, z), -1) @ affine[:3, :3].T + affine[:3, 3]
    x, y, z = np.moveaxis((world - placed[:3, 3]) @ placed[:3, :3], -1, 0)
    radius = np.hypot(x, y)
    wall = (radius < 0.7) & (radius > 0.4) & (np.abs(z) < 1.0)
    bulge = (x > 0) & (y > 0) & (z > 0) & (radius < 1.0) & (radius > 0.4) & (np.abs(z) < 1.0)
    return Volume((1000.0 * (wall | bulge)).astype(np.float32), affine, name)


def grid(spacing: tuple[float, float, float], shape: tuple[int, int, int], axes: np.ndarray) -> np.ndarray:
    """An affine about the origin."""
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return affine


@pytest.fixture(scope="module")
def scans() -> tuple[Volume, Volume]:
    """On unequal grids, the moving one anisotropic, oblique and left-handed."""
    shape = (60, 60, 60)
    fixed = marked_tube(grid((0.05, 0.05, 0.05), shape, np.eye(3)), shape, np.eye(4))
    shape = (90, 70, 60)
    axes = Rotation.from_euler("xyz", (0.2, 0.1, -0.4)).as_matrix() @ np.diag((-1, 1, 1))
    return fixed, marked_tube(grid((0.06, 0.05, 0.04), shape, axes), shape, OBLIQUE)


def pictures(fixed, moving, matrix):
    bones = cortical_bone(fixed, 500.0, 0.08), cortical_bone(moving, 500.0, 0.08)
    slices = before_and_after(fixed, moving, bones, matrix)
    assert [one.note for one in slices] == ["", ""]
    return [one.pixels for one in slices], window(bones, matrix)


def blue(picture: np.ndarray) -> np.ndarray:
    red, _, blue = np.moveaxis(picture.astype(int), -1, 0)
    return blue - red > 60


def cross_section(shown, rows, columns):
    """World positions of pixels of the first slice, which lies across the bone through the middle of its cortex."""
    wide, narrow, long = shown.axes.T
    start = shown.center + long * ((shown.middle - shown.center) @ long)
    right, down = ((place[..., None] + 0.5) / PIXELS * shown.width - shown.width / 2 for place in (columns, rows))
    return start + right * wide + down * narrow


def test_after_shows_what_the_fixed_scan_shows_and_before_shows_the_world(scans):
    fixed, moving = scans
    (before, after), shown = pictures(fixed, moving, OBLIQUE)
    assert before.shape == after.shape == (PIXELS, 3 * PIXELS + 2 * GAP, 3)
    # What each pixel of the cross-section shows, from the shape itself.
    world = cross_section(shown, *np.mgrid[:PIXELS, :PIXELS])
    for picture, placed in ((after, np.eye(4)), (before, OBLIQUE)):
        x, y, z = np.moveaxis((world - placed[:3, 3]) @ placed[:3, :3], -1, 0)
        radius = np.hypot(x, y)
        outer = np.where((x > 0) & (y > 0) & (z > 0), 1.0, 0.7)
        # By more than a voxel within the bone, or outside it.
        inside = (radius > 0.47) & (radius < outer - 0.07) & (np.abs(z) < 0.93)
        outside = ((radius < 0.33) | (radius > 1.07)) & (np.abs(z) < 0.93)
        shown, line = picture[:, :PIXELS], blue(picture[:, :PIXELS])
        assert inside.sum() > 2000 and outside.sum() > 2000
        assert np.mean(shown[inside & ~line, 0] > 120) > 0.98
        assert np.mean(shown[outside & ~line, 0] < 60) > 0.98


def test_the_outline_of_the_fixed_cortex_is_the_same_in_both(scans):
    (before, after), shown = pictures(*scans, OBLIQUE)
    line = blue(before)
    assert 500 < line.sum() < 0.06 * line.size
    # In the cross-section it runs along the tube's wall: half a turn of it, opposite to the bulge.
    rows, columns = np.nonzero(line[:, :PIXELS])
    x, y, _ = cross_section(shown, rows, columns).T
    radius = np.hypot(x, y)[x + y < -0.1]
    for wall in (0.7, 0.4):
        near = radius[np.abs(radius - wall) < 0.1]
        assert len(near) > 200 and near.mean() == pytest.approx(wall, abs=0.015)
    # A pixel that it covers by half is blue enough or not by what lies below.
    assert np.count_nonzero(line ^ blue(after)) < 0.01 * line.sum()


@pytest.mark.parametrize("ending", [".webp", ".png"])
def test_files_show_it_and_are_small(scans, tmp_path, ending):
    fixed, moving = scans
    result = made_alignment(OBLIQUE, fixed_threshold=500.0, moving_threshold=500.0)
    files = {name: tmp_path / f"{name}{ending}" for name in ("before", "after")}
    write_outputs(result, fixed, moving, **files)
    written = {name: np.asarray(Image.open(file).convert("RGB"), float) for name, file in files.items()}
    for pixels, file in zip(pictures(fixed, moving, OBLIQUE)[0], files.values(), strict=True):
        assert np.abs(written[file.stem] - pixels).mean() < 4
        assert file.stat().st_size < (75_000 if ending == ".webp" else 400_000)
    # Only names and the scale bar are white.
    bar = (written["before"][-20:, :PIXELS].min(-1) > 235).sum(1).max()
    assert abs(bar - 0.5 / pictures(fixed, moving, OBLIQUE)[1].width * PIXELS) < 4


def test_a_bone_that_lies_elsewhere_is_said_to(scans, tmp_path):
    fixed, moving = scans
    away = np.eye(4)
    away[:3, 3] = 400, 300, 0
    moved = Volume(moving.voxels, away @ moving.affine)
    bones = cortical_bone(fixed, 500.0, 0.08), cortical_bone(moved, 500.0, 0.08)
    before, after = before_and_after(fixed, moved, bones, away @ OBLIQUE)
    assert before.note == "the moving bone lies 500 mm away" and after.note == ""
    assert (
        before_and_after(fixed, moved, bones, OBLIQUE, "not accepted (symmetry)")[1].note == "not accepted (symmetry)"
    )
    for name, slices in (("a.png", before), ("b.png", replace(before, note=""))):
        write_slices(tmp_path / name, slices)
    told, untold = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    # Words in white in the lower middle, and nowhere else.
    rows, columns = np.nonzero((told != untold).any(-1))
    assert rows.min() > 0.9 * PIXELS and abs(columns.mean() - told.shape[1] / 2) < 5
    assert (told[rows, columns].min(-1) > 200).sum() > 100


def test_words_have_letters_that_the_font_has(scans, tmp_path):
    from PIL import ImageFont

    font = ImageFont.load_default(13)
    box = font.getmask("\uffff").getbbox(), bytes(font.getmask("\uffff"))
    shown = pictures(*scans, OBLIQUE)[1]
    views = (*shown.views(anatomical=True), *shown.views(anatomical=False))
    words = "".join(view.name + "".join(view.ends) for view in views)
    for letter in set(words + "the moving bone lies 0.5 mm um away"):
        if letter != " ":
            assert (font.getmask(letter).getbbox(), bytes(font.getmask(letter))) != box


def test_one_of_the_two_is_enough(scans, tmp_path):
    write_outputs(made_alignment(OBLIQUE), *scans, after=tmp_path / "after.webp")
    assert [file.name for file in tmp_path.iterdir()] == ["after.webp"]


def test_without_pillow_it_is_said_before_the_work(tmp_path, monkeypatch):
    def missing(what):
        raise PackageError(f"{what} needs pillow")

    monkeypatch.setattr(paths, "require_pillow", missing)
    with pytest.raises(PackageError, match=r"before\.webp: a picture needs pillow"):
        check_outputs(OutputPaths(before=tmp_path / "before.webp"))
