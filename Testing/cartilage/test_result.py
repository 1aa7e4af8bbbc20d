"""The table of compartments, against numbers worked by hand."""

import math

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.result import CartilageMeasurement, Reason, ThicknessMap, summarise


def _map(thickness, areas, reason=None, uptake=1000.0, error=2.0, filled=None):
    thickness, areas = np.array(thickness, float), np.array(areas, float)
    count = len(areas)
    reason = np.where(np.isnan(thickness), Reason.SOFT_TISSUE, Reason.MEASURED) if reason is None else reason
    return ThicknessMap(
        points=np.zeros((count, 3)),
        normals=np.tile((0.0, 0.0, 1.0), (count, 1)),
        triangles=np.zeros((0, 3), int),
        areas_mm2=areas,
        compartment=np.zeros(count, int),
        thickness_um=thickness,
        standard_error_um=np.where(np.isnan(thickness), np.nan, error),
        uptake=np.where(thickness > 8, uptake, np.nan),
        reason=np.asarray(reason),
        filled_um=thickness if filled is None else np.array(filled, float),
    )


def test_means_are_weighted_by_area_and_count_worn_places():
    found = _map([0, 40, 60, np.nan], [1.0, 2.0, 1.0, 1.0])
    row = summarise("medial", np.ones(4, bool), found, 0.0)
    assert row.area_mm2 == 5 and row.measured_share == pytest.approx(0.8)
    assert row.covered_share == pytest.approx(0.75)
    assert row.mean_thickness_um == pytest.approx((80 + 60) / 4)
    assert row.volume_mm3 == pytest.approx(2 * 0.040 + 1 * 0.060)
    # 35 um is the mean; squares of the distances 35, 5, 5 and 25.
    assert row.sd_thickness_um == pytest.approx(math.sqrt((35**2 + 2 * 5**2 + 25**2) / 4))
    assert row.median_thickness_um == pytest.approx(40)
    # Three values of weights 1, 2 and 1 with the same error of 2 um.
    assert row.standard_error_um == pytest.approx(2 * math.sqrt(1 + 4 + 1) / 4)
    assert row.uptake == pytest.approx(1000)


def test_what_is_hidden_counts_as_what_lies_around_it():
    found = _map([0, 40, 60, np.nan, np.nan], [1.0, 2.0, 1.0, 1.0, 1.0], filled=[0, 40, 60, 50, np.nan])
    row = summarise("all", np.ones(5, bool), found, 0.0)
    assert row.measured_share == pytest.approx(4 / 6) and row.filled_share == pytest.approx(1 / 6)
    # The last point is of a part that was not measured.
    assert row.volume_mm3 == pytest.approx((2 * 40 + 60 + 50) / 1000)
    assert row.mean_thickness_um == pytest.approx((2 * 40 + 60 + 50) / 5)
    assert row.sd_thickness_um == pytest.approx(math.sqrt((38**2 + 2 * 2**2 + 22**2 + 12**2) / 5))
    # Of what was measured.
    assert row.covered_share == pytest.approx(0.75) and row.uptake == pytest.approx(1000)


def test_an_error_that_points_share_does_not_average_out():
    found = _map([50] * 10000, [0.001] * 10000)
    row = summarise("all", np.ones(10000, bool), found, 1.5)
    assert row.standard_error_um == pytest.approx(math.hypot(2 / 100, 1.5))


def test_what_is_not_measured_has_neither_area_nor_thickness():
    row = summarise("lateral", np.ones(2, bool), _map([np.nan, np.nan], [0.5, 0.25]), 0.0)
    assert np.isnan(row.area_mm2) and row.measured_share == 0
    assert math.isnan(row.mean_thickness_um) and math.isnan(row.volume_mm3)


def test_reasons_share_the_area_in_the_report():
    found = _map(
        [10, 10, np.nan, np.nan], [1, 1, 1, 1], [Reason.MEASURED, Reason.MEASURED, Reason.FRAGMENT, Reason.SOFT_TISSUE]
    )
    row = summarise("all", np.ones(4, bool), found, 0.0)
    measurement = CartilageMeasurement(
        map=found, compartments=(row,), least_thickness_um=5.0, blur_um=6.0, shift_um=np.zeros(3), slope=1.0,
        offset=0.0, agent=True, accepted=True, sides_known=False,
    )  # fmt: skip
    values = measurement.to_dict()
    assert values["shares"] == {
        "measured": 0.5, "soft_tissue": 0.25, "fragment": 0.25, "edge_of_view": 0.0, "uncertain": 0.0
    }  # fmt: skip
    assert values["compartments"][0]["mean_thickness_um"] == pytest.approx(10)
    assert measurement.compartment("all") is row
    with pytest.raises(KeyError):
        measurement.compartment("medial")


def test_a_layer_too_thin_to_show_its_uptake_counts_for_the_thickness_alone():
    row = summarise("all", np.ones(2, bool), _map(np.array([5.0, 45.0]), np.ones(2)), 0.0)
    assert row.mean_thickness_um == pytest.approx(25) and row.uptake == pytest.approx(1000)
