"""The plot: a point stands where its number is, and none leaves its panel."""

import math

import pytest
from cohort_results import failed_pair, made_pair, refused_pair
from DNetRegistrationLib.cohort.plot import HEIGHT, LEFT, WIDTH, panels, size


def test_points_stand_where_their_numbers_are():
    pairs = (
        made_pair("a", dice=0.75, dice_before=0.25, expected_error_um=10.0, confidence=0.9),
        made_pair("b", dice=0.5, dice_before=0.0, expected_error_um=1.0, confidence=1.0),
    )
    dice, error, confidence = panels(pairs)
    assert [point.x for point in dice.points] == [LEFT + WIDTH / 4, LEFT + 3 * WIDTH / 4]
    assert [dice.bottom - point.y for point in dice.points] == pytest.approx([0.75 * HEIGHT, 0.5 * HEIGHT], abs=0.1)
    assert dice.bottom - dice.points[0].start == pytest.approx(0.25 * HEIGHT, abs=0.1)
    # Decades from 1 to 100 um, since the working voxel of 80 um is shown too.
    assert [error.bottom - point.y for point in error.points] == pytest.approx([HEIGHT / 2, 0], abs=0.1)
    (voxel,) = [tick for tick in error.ticks if tick.limit]
    assert error.bottom - voxel.y == pytest.approx(math.log10(80) / 2 * HEIGHT, abs=0.1)
    assert [tick.text for tick in error.ticks if not tick.limit] == ["1", "10", "100"]
    (limit,) = [tick for tick in confidence.ticks if tick.limit]
    assert confidence.bottom - limit.y == pytest.approx(0.7 * HEIGHT, abs=0.1)
    assert confidence.points[1].text == "Confidence 1.000"


def test_decades_begin_at_the_smallest_error():
    pairs = [made_pair(str(error), expected_error_um=error, working_spacing_um=1.0) for error in (0.02, 1.0, 10.0)]
    _, panel, _ = panels(pairs)
    assert [tick.text for tick in panel.ticks if not tick.limit] == ["0.01", "0.1", "1", "10"]
    heights = [math.log10(2) / 3 * HEIGHT, 2 / 3 * HEIGHT, HEIGHT]
    assert [panel.bottom - point.y for point in panel.points] == pytest.approx(heights, abs=0.1)


def test_what_is_not_known_stands_at_the_foot():
    for panel in panels((failed_pair("a"), made_pair("b", dice=math.nan, confidence=math.inf))):
        assert (panel.points[0].known, panel.points[0].y, panel.points[0].start) == (False, panel.bottom, None)
        assert panel.points[0].text.endswith("unknown")


@pytest.mark.parametrize("error", [0.0, 1e-9, 0.3, 80.0, 1e6])
def test_no_point_leaves_its_panel(error):
    pairs = [made_pair(str(i), expected_error_um=error, dice=2.0 if i else -1.0) for i in range(200)]
    drawn = panels((*pairs, refused_pair("r")))
    width, height = size()
    for before, panel in zip((None, *drawn), drawn, strict=False):
        assert before is None or before.bottom < panel.top
        assert panel.bottom < height
        for point in panel.points:
            assert panel.top <= point.y <= panel.bottom and LEFT < point.x < LEFT + WIDTH < width


def test_no_pairs_are_no_points():
    assert [panel.points for panel in panels(())] == [(), (), ()]
