"""Splits and quantiles of ascending grey values, against loops and NumPy."""

import numpy as np
import pytest
from DNetRegistrationLib.bone.scenes import HISTOGRAM_BINS, ordered, otsu, parted, quantile

GENERATOR = np.random.default_rng(11)
TWO_CLASSES = np.concatenate((GENERATOR.normal(-300, 40, 700), GENERATOR.normal(900, 90, 300))).astype(np.float32)


def otsu_by_a_loop(values: np.ndarray) -> float:
    """The edge of 256 bins at which the variance between both classes is largest, from the values' own bins."""
    low, high = np.percentile(values.astype(float), (0.05, 99.95))
    width = (high - low) / HISTOGRAM_BINS
    within = [value for value in values.astype(float) if low <= value <= high]
    bins = np.array([min(int((value - low) / width), HISTOGRAM_BINS - 1) for value in within])
    best, edge = -1.0, low
    for split in range(1, HISTOGRAM_BINS):
        lower, upper = bins[bins < split], bins[bins >= split]
        if len(lower) and len(upper):
            between = len(lower) * len(upper) * (lower.mean() - upper.mean()) ** 2
            if between > best * (1 + 1e-9):
                best, edge = between, low + split * width
    return edge


@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (1e-3, 7.0), (12.0, -30000.0)])
def test_otsu_is_that_of_a_loop_over_all_splits(scale, offset):
    values = np.sort((TWO_CLASSES * scale + offset).astype(np.float32))
    split = otsu(values)
    assert split == pytest.approx(otsu_by_a_loop(values), rel=1e-5)
    assert [len(part) for part in parted(values, split)] == [700, 300]


def test_otsu_of_one_value_is_that_value_and_of_none_is_infinite():
    assert otsu(np.full(50, 3.5, np.float32)) == 3.5
    assert otsu(np.empty(0, np.float32)) == np.inf


def test_floats_that_lie_closer_than_bins_have_a_split():
    values = np.sort(np.float32(1e8) + np.float32(8) * (np.arange(100) % 2).astype(np.float32))
    assert 1e8 <= otsu(values) <= 1e8 + 8


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_a_quantile_is_that_of_numpy(share, count):
    values = np.sort(TWO_CLASSES[:count])
    assert quantile(values, share) == pytest.approx(np.quantile(values.astype(float), share), rel=1e-12)


def test_values_outside_the_field_of_view_are_left_out_and_a_split_belongs_to_the_lower_part():
    values = ordered(np.array([[[3.0, np.nan], [1.0, 2.0]]], np.float32))
    assert values.tolist() == [1, 2, 3]
    lower, upper = parted(values, 2.0)
    assert lower.tolist() == [1, 2] and upper.tolist() == [3]
