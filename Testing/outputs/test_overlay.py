"""The picture: what it shows stands where it lies, and the words on it are the alignment's."""

import builtins

import numpy as np
import pytest
from alignments import made_alignment
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.outputs.overlay import draw_overlay, write_overlay
from DNetRegistrationLib.outputs.slices import VIEWS, length_text, round_length
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
            "97 %",
            "3.4 µm",
            "0.11 → 0.93",
            "0.00°",
            "search",
            "Before",
            "After",
        ),
        *("Dice 0.11", "Dice 0.93", "mouse_7$pre$.nrrd", "50 × 50 × 50 voxels of 50 µm"),
        *("axial", "coronal", "sagittal"),
    ):
        assert expected in text
    assert "NOT ACCEPTED" not in text and "x" * 60 not in text
    refused = drawn(tube(), tube(), accepted=False, dice=float("nan"), expected_error_um=float("nan"))
    assert "NOT ACCEPTED" in words(refused) and "unknown" in words(refused) and "Dice unknown" in words(refused)


def test_the_picture_of_one_bone_says_which():
    bone = Bone(1, 2, 0.6, np.array((1.0, 2.0, -3.5)))
    assert "Bone 1 of 2, 60 % of the bone in view, about (1, 2, -3.5) mm" in words(drawn(tube(), tube(), bone=bone))


def test_no_words_leave_the_page_or_run_into_each_other():
    figure = drawn(
        tube(name="n" * 90), tube(name="m" * 90), accepted=False, expected_error_um=12345.0, dice_before=0.0,
        verdict="Not accepted: " + "a long explanation of what does not fit and why, " * 9,
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
    """The moving scan is 0.3 mm off along x: seen before, gone after; edges are named by what lies there."""
    matrix = np.eye(4)
    matrix[0, 3] = 0.3
    figure = drawn(tube(), tube((0.3, 0, 0)), matrix)
    for view, axes in zip(VIEWS, figure.axes[3 * row : 3 * row + 3], strict=True):
        outlines = [np.concatenate([p.vertices for p in c.get_paths()]) for c in axes.collections]
        assert len(outlines) == 2
        # Millimetres per pixel from the scale bar.
        scale = figure.axes[3 * row].patches[0].get_width()
        step = 0.5 / scale
        # By the left and upper edge; on the right the moving scan's field of view ends.
        apart = (outlines[1].min(0) - outlines[0].min(0)) * step
        np.testing.assert_allclose(apart, (expected if view.right == 0 else 0.0, 0.0), atol=0.05)
        # The mark is on the left, posterior and superior side of the patient.
        image = axes.images[0].get_array().filled(0)
        middle = outlines[0].min(0) + 0.7 / step
        size = image.shape[0]
        x, y = np.meshgrid(np.arange(size) + 0.5 - middle[0], np.arange(size) + 0.5 - middle[1])
        if row == 1 and view.name == "axial":
            ring = (np.hypot(x, y) * step > 0.78) & (np.hypot(x, y) * step < 0.92)
            marked = image[ring & (x > 0.1 / step) & (y > 0.1 / step)].mean()
            assert marked > 0.5 > image[ring & (x < 0)].mean() + 0.3
            assert view.ends == ("R", "L", "A", "P")
        if view.name == "coronal":
            assert view.ends == ("R", "L", "S", "I") and view.down_sign == -1


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
