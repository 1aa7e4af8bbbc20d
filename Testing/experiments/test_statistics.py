"""Summaries and analyses of variance, against examples whose results are known."""

from __future__ import annotations

import math

import pytest
from DNetRegistrationLib.experiments.statistics import (
    TooFewValues,
    largest,
    median,
    one_way_anova,
    rate,
    summarize,
    two_way_anova,
)

# Dobson (1983), table 2.1, "PlantGrowth" of R: dried weight of plants; R prints F(2, 27) = 4.846, p = 0.0159.
PLANTS = {
    "control": (4.17, 5.58, 5.18, 6.11, 4.50, 4.61, 5.17, 4.53, 5.33, 5.14),
    "first": (4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69),
    "second": (6.31, 5.12, 5.54, 5.50, 5.37, 5.29, 4.92, 6.15, 5.80, 5.26),
}
# Crampton (1947), "ToothGrowth" of R: length of teeth by supplement and dose of vitamin C.
TEETH = {
    ("VC", 0.5): (4.2, 11.5, 7.3, 5.8, 6.4, 10.0, 11.2, 11.2, 5.2, 7.0),
    ("VC", 1.0): (16.5, 16.5, 15.2, 17.3, 22.5, 17.3, 13.6, 14.5, 18.8, 15.5),
    ("VC", 2.0): (23.6, 18.5, 33.9, 25.5, 26.4, 32.5, 26.7, 21.5, 23.3, 29.5),
    ("OJ", 0.5): (15.2, 21.5, 17.6, 9.7, 14.5, 10.0, 8.2, 9.4, 16.5, 9.7),
    ("OJ", 1.0): (19.7, 23.3, 23.6, 26.4, 20.0, 25.2, 25.8, 21.2, 14.5, 27.3),
    ("OJ", 2.0): (25.5, 26.4, 22.4, 24.5, 24.8, 30.9, 26.4, 27.3, 29.4, 23.0),
}

statsmodels = pytest.importorskip("statsmodels")


def columns(groups):
    return zip(*((value, group) for group, values in groups.items() for value in values), strict=True)


def test_one_way_by_hand():
    # Means 2, 3, 6 about 11/3: 3 (25 + 4 + 49) / 9 = 26 between with 2 degrees of freedom, 6 within with 6.
    effect, residual = one_way_anova((1, 2, 3, 2, 3, 4, 5, 6, 7), [*"aaabbbccc"], "method")
    assert (effect.source, residual.source) == ("method", "residual")
    assert (effect.squares, effect.freedom, effect.f) == pytest.approx((26, 2, 13))
    assert (residual.squares, residual.freedom) == pytest.approx((6, 6))
    # P(F(2, 6) > 13) = (1 + 13 * 2 / 6)^-3
    assert effect.p == pytest.approx((1 + 13 * 2 / 6) ** -3)


def test_one_way_of_plants():
    values, groups = columns(PLANTS)
    effect, residual = one_way_anova(values, groups)
    assert effect.squares == pytest.approx(3.76634, abs=1e-5)
    assert residual.squares == pytest.approx(10.49209, abs=1e-5)
    assert (effect.freedom, residual.freedom) == (2, 27)
    assert effect.f == pytest.approx(4.846, abs=5e-4)
    assert effect.p == pytest.approx(0.01591, abs=5e-6)


def test_two_way_of_teeth():
    values, cells = columns(TEETH)
    effects = two_way_anova(values, [s for s, _ in cells], [d for _, d in cells], ("supplement", "dose"))
    assert [e.source for e in effects] == ["supplement", "dose", "interaction", "residual"]
    assert [e.freedom for e in effects] == [1, 2, 2, 54]
    assert [e.squares for e in effects] == pytest.approx([205.35, 2426.43, 108.32, 712.11], abs=5e-3)
    assert [e.f for e in effects[:3]] == pytest.approx([15.572, 92.000, 4.107], abs=5e-4)
    assert [e.p for e in effects[::2][:2]] == pytest.approx([0.000231, 0.021860], abs=5e-7)
    assert effects[1].p < 2e-16


def test_with_one_value_a_cell_there_is_no_interaction():
    # Rows differ by 1, columns by 10, and one cell is off: the residual has (2 - 1) (3 - 1) degrees of freedom.
    effects = two_way_anova((0, 10, 20, 1, 11, 24), [*"aaabbb"], (0, 1, 2, 0, 1, 2))
    assert [(e.source, e.freedom) for e in effects] == [("first", 1), ("second", 2), ("residual", 2)]
    assert effects[0].squares == pytest.approx(6 * 1**2)  # means 10 and 12
    assert effects[1].squares == pytest.approx(2 * ((0.5 - 11) ** 2 + (10.5 - 11) ** 2 + (22 - 11) ** 2))


def test_what_cannot_be_analysed():
    with pytest.raises(TooFewValues, match="one level"):
        one_way_anova((1, 2, 3), [*"aaa"])
    with pytest.raises(TooFewValues, match="scatter"):
        one_way_anova((1, 1, 2, 2), [*"aabb"])
    with pytest.raises(TooFewValues, match="two levels"):
        two_way_anova((1, 2, 3, 5), [*"aabb"], (1, 1, 1, 1))
    with pytest.raises(ValueError, match="finite"):
        one_way_anova((1, math.nan, 2, 3), [*"aabb"])


def test_summary():
    found = summarize((2.0, 4.0, math.nan, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0))
    assert (found.count, found.mean, found.median) == (8, 5.0, 4.5)
    assert found.sd == pytest.approx(math.sqrt(32 / 7))
    assert math.isnan(summarize(()).mean) and math.isnan(summarize([1.0]).sd)


def test_medians_and_largest_values():
    assert median([1.0, math.nan, 3.0]) == 2.0
    assert median([1.0, math.inf, math.inf]) == math.inf
    assert largest(value for value in (1.0, math.nan, 3.0)) == 3.0
    assert math.isnan(median([])) and math.isnan(largest([math.nan]))


@pytest.mark.parametrize(("count", "total"), [(8, 10), (38, 40), (0, 7), (7, 7)])
def test_rates_have_wilsons_interval(count, total):
    found = rate([True] * count + [False] * (total - count))
    # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    z, p = 1.959963984540054, count / total
    middle, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    low, high = ((middle + sign * half) / (1 + z * z / total) for sign in (-1, 1))
    assert (found.share, found.low, found.high) == pytest.approx((p, low, high), abs=1e-9)


def test_rates_as_text():
    assert str(rate([True] * 8 + [False] * 2)) == "80.0 % [49.0, 94.3]"
    assert rate([True] * 199 + [False]).counted == "199 of 200, 99.50 % [97.22, 99.91]"
    assert str(rate([])) == rate([]).counted == "-"
