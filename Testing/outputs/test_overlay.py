"""The picture: what it shows stands where it lies, and the words on it are the alignment's."""

import builtins
from dataclasses import replace

import numpy as np
import pytest
from alignments import made_alignment
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.outputs.overlay import _note, draw_overlay, write_overlay
from DNetRegistrationLib.outputs.slices import length_text, round_length, window
from DNetRegistrationLib.registration.result import Bone

pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def tube(shift=(0.0, 0.0, 0.0), name="scan"):
    """A hollow cylinder along z with a mark on its +x, +y, upper side."""
    z, y, x = np.meshgrid(*[np.arange(50) * 0.05 - 1.225] * 3, indexing="ij")
    x, y, z = x - shift[0], y - shift[1], z - shift[2]
    radius = np.hypot(x, y)
    wall = (radius < 0.7) & (radius > 0.4) & (np.abs(z) < 1.0)
    mark = (x > 0) & (y > 0) & (z > 0) & (radius < 1.0) & (radius > 0.4) & (np.abs(z) < 1.0)
    return Volume.from_geometry(1000.0 * (wall | mark), 0.05, None, [-1.225] * 3, name)


def drawn(fixed, moving, matrix=None, **changes):
    bones = tuple(cortical_bone(v, 500.0, 0.08) for v in (fixed, moving))
    return draw_overlay(made_alignment(matrix, **changes), fixed, moving, bones)


def words(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_words_and_numbers_are_the_alignments():
    figure = drawn(tube(name="mouse_7$pre$.nrrd"), tube(name="x" * 100), dice_before=0.11, dice=0.934)
    text = "\n".join(words(figure))
    for expected in (
        *(
            "ACCEPTED",
            "The bones lie on each other.",
            "97.0 %",
            "3.4 µm",
            "0.11 → 0.93",
            "0.00°",
            "search",
            "Before",
            "After",
        ),
        *("Dice 0.11", "Dice 0.93", "mouse_7$pre$.nrrd", "50 × 50 × 50 voxels of 50 µm"),
        *("cross-section", "lengthwise, wide", "lengthwise, narrow"),
    ):
        assert expected in text
    assert "NOT ACCEPTED" not in text and "x" * 60 not in text
    refused = drawn(tube(), tube(), accepted=False, dice=float("nan"), expected_error_um=float("nan"))
    assert "NOT ACCEPTED" in words(refused) and "unknown" in words(refused) and "Dice unknown" in words(refused)


def test_the_picture_of_one_bone_says_which():
    bone = Bone(1, 2, 0.6, np.array((1.0, 2.0, -3.5)))
    assert "Bone 1 of 2, 60 % of the bone in view, centred at (1, 2, -3.5) mm" in words(
        drawn(tube(), tube(), bone=bone)
    )


def test_no_words_leave_the_page_or_run_into_each_other():
    figure = drawn(
        tube(name="n" * 90), tube(name="m" * 90), accepted=False, expected_error_um=12345.0, dice_before=0.0,
        reason="a long explanation of what does not fit and why, " * 9,
        translation_mm=np.full(3, 123.456),
    )  # fmt: skip
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [t.get_window_extent(renderer) for t in figure.texts]
    page = figure.bbox
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
    overlaps = [
        (a, b)
        for i, a in enumerate(boxes)
        for b in boxes[i + 1 :]
        if min(a.x1, b.x1) > max(a.x0, b.x0) and min(a.y1, b.y1) > max(a.y0, b.y0)
    ]
    assert not overlaps


@pytest.mark.parametrize(("row", "expected"), [(0, 0.3), (1, 0.0)])
def test_outlines_and_greys_lie_where_the_bone_is(row, expected):
    """The moving scan is 0.3 mm off along x: seen before, gone after; the mark of the bone lies where it is."""
    matrix = np.eye(4)
    matrix[0, 3] = 0.3
    figure = drawn(tube(), tube((0.3, 0, 0)), matrix)
    bones = tuple(cortical_bone(scan, 500.0, 0.08) for scan in (tube(), tube((0.3, 0, 0))))
    views, marked = window(bones, matrix).views(anatomical=False), 0
    for view, axes in zip(views, figure.axes[3 * row : 3 * row + 3], strict=True):
        outlines = [np.concatenate([p.vertices for p in c.get_paths()]) for c in axes.collections]
        assert len(outlines) == 2
        # Millimetres per pixel from the scale bar.
        step = 0.5 / figure.axes[3 * row].patches[0].get_width()
        # By the edge that lies away from the motion; on the other side the moving scan's field of view ends.
        for pixels, along in enumerate((view.right[0], view.down[0])):
            end = np.min if along >= 0 else np.max
            apart = (end(outlines[1][:, pixels]) - end(outlines[0][:, pixels])) * step
            assert apart == pytest.approx(expected * along, abs=0.1)
        # What each pixel shows, from the shape itself, by more than a voxel within the bone or outside it.
        if row == 1:
            image = axes.images[0].get_array().filled(np.nan)
            x, y, z = np.moveaxis(view.points(len(image)), -1, 0)
            radius, high = np.hypot(x, y), np.abs(z) < 0.93
            mark = (x > 0.07) & (y > 0.07) & (z > 0.07) & (radius < 0.93)
            within = (radius > 0.47) & ((radius < 0.63) | mark) & high
            outside = ((radius < 0.33) | (radius > 1.07)) & high & np.isfinite(image)
            assert np.mean(image[within] > 0.5) > 0.99 and np.mean(image[outside] < 0.2) > 0.99
            marked += (mark & within & (radius > 0.77)).sum()
    assert row == 0 or marked > 500


def test_edges_are_named_by_the_body_only_where_the_file_tells_of_it():
    stated = replace(tube(), anatomical=True)
    of_body, of_grid = (
        [view.ends for view in window((cortical_bone(tube(), 500.0, 0.08),) * 2, np.eye(4)).views(anatomical)]
        for anatomical in (True, False)
    )
    for fixed, moving, there, missing in ((stated, tube(), of_body, of_grid), (tube(), stated, of_grid, of_body)):
        said = words(drawn(fixed, moving))
        assert {end for ends in there for end in ends} <= set(said)
        assert not {end for ends in missing for end in ends} & set(said)


def test_a_verdict_of_any_length_stands_there_in_full():
    for sentence in ("Short.", "What was found and what to do about it, at some length. " * 12, "/a/folder" * 30):
        said = words(drawn(tube(), tube(), accepted=False, reason=sentence, moving_threshold=32991.4))
        told = next(text for text in said if text.startswith(sentence[:6]))
        # A line ends where a blank was, or within a word that is too long for one.
        assert told.replace("\n", "").replace(" ", "") == sentence.replace(" ", "")
        assert any("32991 of the moving scan" in " ".join(text.split()) for text in said)


def test_the_subtraction_is_drawn_where_it_was_made():
    """One half of it is brighter, one darker than zero; outside of it nothing is known."""
    difference = np.full((50, 50, 50), np.nan, np.float32)
    difference[:, :, 5:25], difference[:, :, 25:45] = -3.0, 3.0
    bones = tuple(cortical_bone(scan, 500.0, 0.08) for scan in (tube(), tube()))
    made = Volume(difference, tube().affine)
    figure = draw_overlay(made_alignment(), tube(), tube(), bones, made)
    assert len(figure.axes) == 9 and "Subtraction" in words(figure) and "±3" in words(figure)
    view, image = window(bones, np.eye(4)).views(anatomical=False)[0], figure.axes[6].images[0].get_array()
    for x, grey in ((-0.5, 0.0), (0.5, 1.0), (-1.15, None), (1.15, None)):
        away = np.array((x, 0.0, view.center[2])) - view.center
        column, line = (int((away @ axis / view.width + 0.5) * image.shape[0]) for axis in (view.right, view.down))
        assert np.ma.is_masked(image[line, column]) if grey is None else image[line, column] == grey


@pytest.mark.parametrize(
    ("surroundings", "drawn", "told"), (("Brighter.", True, True), ("", True, False), ("Brighter.", False, False))
)
def test_a_subtraction_that_shows_the_medium_says_so(surroundings, drawn, told):
    note = _note(made_alignment(surroundings=surroundings), tube() if drawn else None)
    assert ("which it shows too" in note) == told


def test_a_bone_that_lies_elsewhere_is_said_to():
    away = tube()
    away = Volume(away.voxels, away.affine + np.outer((40.0, 30.0, 0, 0), (0, 0, 0, 1)))
    matrix = np.eye(4)
    matrix[:2, 3] = 40, 30
    assert "the moving bone lies 50 mm away" in words(drawn(tube(), away, matrix))
    assert not any("away" in w for w in words(drawn(tube(), tube())))


def test_no_bone_is_still_a_picture():
    empty = Volume.from_geometry(np.random.default_rng(0).random((20, 20, 20)), 0.1)
    figure = drawn(empty, empty, accepted=False)
    assert len(figure.axes) == 6
    figure.canvas.draw()


def test_numbers_are_round_and_have_units():
    assert [round_length(x) for x in (1.3, 0.7, 0.2, 49.0, 1.0)] == [1.0, 0.5, 0.2, 20.0, 1.0]
    assert [length_text(x) for x in (0.0034, 0.05, 0.5, 1.0, 12.345)] == [
        "3.4 µm",
        "50 µm",
        "500 µm",
        "1 mm",
        "12.3 mm",
    ]


def test_pyplot_is_left_alone_and_files_are_written(tmp_path):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    bones = tuple(cortical_bone(tube(), 500.0, 0.08) for _ in range(2))
    for ending, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        write_overlay(tmp_path / f"a{ending}", made_alignment(), tube(), tube(), bones)
        assert (tmp_path / f"a{ending}").read_bytes().startswith(start)
    assert plt.get_fignums() == before


def test_without_matplotlib_the_message_names_what_to_install(monkeypatch):
    load = builtins.__import__

    def missing(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(PackageError, match=r'pip install "dnet-registration\[pictures\]"'):
        drawn(tube(), tube())
