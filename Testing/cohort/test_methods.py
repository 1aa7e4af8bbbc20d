"""The paragraph on methods: its numbers are those of the run, and what was not done is not claimed."""

import math
from dataclasses import replace

import pytest
from cohort_results import failed_pair, made_cohort, made_pair, refused_pair
from DNetRegistrationLib.cohort.methods import methods_paragraph

PAIRS = (
    made_pair("a", expected_error_um=2.0, dice_before=0.1, dice=0.8, warnings=("The cartilage is cut off.",)),
    made_pair("b", expected_error_um=3.0, dice_before=0.2, dice=0.9, doubts=("strain",)),
    made_pair("c", expected_error_um=10.0, dice_before=0.3, dice=0.95),
    refused_pair("d"),
    failed_pair("e"),
)


def test_counts_and_numbers_are_those_of_the_pairs():
    text = methods_paragraph(made_cohort(*PAIRS))
    assert "Of 5 pairs, 3 (60 %) were accepted, 1 of them with reservations, 1 was refused, and 1 could not be" in text
    # By hand: medians of 2, 3, 10; of 0.1, 0.2, 0.3; of 0.8, 0.9, 0.95. The refused pair has no part in them.
    assert "median of 3.0 um (range 2.0 to 10.0 um)" in text
    assert "from a median of 0.20 to 0.90 (range 0.80 to 0.95)" in text
    assert "the working voxel size was 80 um" in text
    assert "DNetRegistration 9.8.7 (code abc123; Python 3.11.7)" in text
    assert "was at least 0.7" in text


def test_options_of_the_run_are_told():
    assert "by a search over all rotations" in methods_paragraph(made_cohort(*PAIRS))
    plain = made_cohort(*PAIRS, options={})
    assert "[1], proposed transforms; where none" in methods_paragraph(plain)
    assert "Other options" not in methods_paragraph(plain) and "found automatically" in methods_paragraph(plain)
    other = replace(
        plain,
        options={
            "refine": "none",
            "scans": {"fixed_threshold": 300.0, "fixed_spacing": (0.02,), "moving_mask": "/study/bone.nrrd"},
            "bone": "largest",
            "check": True,
            "weights": "dnet",
            "outputs": ["report"],
        },
    )
    text = methods_paragraph(other)
    assert (
        "They were not refined." in text
        and "Thresholds of bone were given;" in text
        and "with the weights dnet [1]" in text
    )
    assert "Other options: --bone largest, --check, --fixed-threshold 300." in text


def test_three_scans_of_a_bone_and_their_loops_are_told():
    pairs = (
        made_pair("a", identities=("1", "2"), loop_error_um=2.0),
        made_pair("b", identities=("1", "3"), loop_error_um=4.0),
        refused_pair("c", identities=("4", "5"), loop_error_um=900.0),
    )
    assert "Two scans of each bone were aligned rigidly with" in methods_paragraph(made_cohort(*PAIRS))
    text = methods_paragraph(made_cohort(*pairs, closing=(made_pair("d", identities=("2", "3")),)))
    assert text.startswith("Up to 3 scans of each bone were aligned rigidly, in pairs, with DNet")
    assert "were closed (1 alignment made besides)" in text
    assert "a median of 3.0 um (range 2.0 to 4.0 um) over 2 accepted pairs." in text
    assert "Loops" not in methods_paragraph(made_cohort(*PAIRS))


def test_what_the_user_gave_is_told():
    pairs = (
        made_pair("a", given=("fixed_spacing", "moving_spacing", "region")),
        made_pair("b", given=("moving_spacing", "medial")),
    )
    text = methods_paragraph(made_cohort(*pairs))
    assert "The user gave voxel sizes (2 pairs), regions of the joint surface (1 pair)," in text
    assert "The user gave" not in methods_paragraph(made_cohort(*PAIRS))


def test_a_pair_of_one_scan_given_twice_is_in_no_figure():
    rows = ({"mean_thickness_um": 40.0},)
    copy = made_pair("z", marks=("x", "x"), expected_error_um=0.0, dice=1.0, compartments=rows)
    text = methods_paragraph(made_cohort(*PAIRS, copy))
    assert "Of 5 pairs, 3 (60 %)" in text and "(range 2.0 to 10.0 um)" in text and "cartilage" not in text
    assert "1 further pair, whose two scans hold the same voxels, was left out of all figures." in text
    assert "further" not in methods_paragraph(made_cohort(*PAIRS, made_pair("z", marks=("x", "y"))))


def test_pairs_that_share_a_copy_are_counted_and_told():
    pairs = (made_pair("a", marks=("x", "1"), fixed="a"), made_pair("b", marks=("x", "2"), fixed="b"))
    text = methods_paragraph(made_cohort(*pairs, made_pair("c", marks=("3", "4"))))
    assert "2 pairs with a scan that holds the same voxels as one of another pair were counted." in text
    assert "Of 3 pairs" in text
    one = methods_paragraph(made_cohort(pairs[0], replace(pairs[1], fixed="a")))
    assert "same voxels" not in one  # one file, in two pairs


def test_what_was_filled_of_the_cartilage_is_told():
    def rows(filled: float | None, measured: float = 0.9):
        whole = {"compartment": "all", "mean_thickness_um": 40.0, "measured_share": measured, "filled_share": filled}
        return ({**whole, "compartment": "medial", "filled_share": 0.5}, whole)

    pairs = [made_pair(name, compartments=rows(share)) for name, share in (("a", 0.02), ("b", 0.04), ("c", 0.11))]
    text = methods_paragraph(made_cohort(*pairs, made_pair("d", compartments=rows(0.0, 0.0))))
    assert "filled by a smooth surface" in text and "4 % of the articular surface in the median, 11 % at most." in text
    assert "filled" not in methods_paragraph(made_cohort(made_pair("e", compartments=rows(0.0))))


def test_compartments_that_were_not_measured_are_counted():
    def rows(**means: float | None):
        return tuple({"compartment": name, "mean_thickness_um": mean} for name, mean in means.items())

    both, one = rows(medial=40.0, lateral=30.0, all=36.0), rows(medial=40.0, lateral=None, all=40.0)
    other, none = rows(medial=None, lateral=30.0, all=30.0), rows(medial=None, lateral=None, all=None)
    pairs = [made_pair(str(number), compartments=found) for number, found in enumerate((both, one, one, other, none))]
    text = methods_paragraph(made_cohort(*pairs))
    assert "measured in 4 pairs, and could not be in 1 more" in text
    assert "filled were the lateral compartment in 2 pairs and the medial compartment in 1 pair: mean and" in text
    assert "Neither" not in methods_paragraph(made_cohort(pairs[0], pairs[4]))


def test_working_voxels_of_several_sizes_are_a_range():
    pairs = made_pair("a", working_spacing_um=80.0), made_pair("b", working_spacing_um=120.0)
    assert "80 to 120 um" in methods_paragraph(made_cohort(*pairs))


def test_what_there_is_none_of_is_not_told():
    nothing = methods_paragraph(made_cohort())
    assert "There were no pairs." in nothing and "median" not in nothing and "nan" not in nothing
    failed = methods_paragraph(made_cohort(failed_pair("e"), versions={}))
    assert "Of 1 pair, 0 (0 %) were accepted, 0 were refused, and 1 could not" in failed
    assert "median" not in failed and "nan" not in failed and "()" not in failed
    assert "cartilage" not in methods_paragraph(made_cohort(*PAIRS))


def test_cartilage_of_pairs_that_are_not_accepted_is_not_passed_off():
    rows = ({"mean_thickness_um": 40.0}, {"mean_thickness_um": None})
    measured = [make("m", compartments=rows) for make in (made_pair, refused_pair)]
    assert "cartilage was measured in 1 pair: along" in methods_paragraph(made_cohort(measured[0], failed_pair("f")))
    text = methods_paragraph(made_cohort(*measured, made_pair("n")))
    assert "cartilage was measured in 2 pairs (1 of them not accepted): along" in text


@pytest.mark.parametrize("unknown", (None, math.nan))
def test_cartilage_that_could_not_be_measured_is_not_counted(unknown):
    empty = made_pair("e", compartments=({"mean_thickness_um": unknown},))
    text = methods_paragraph(made_cohort(made_pair("m", compartments=({"mean_thickness_um": 40.0},)), empty))
    assert "cartilage was measured in 1 pair, and could not be in 1 more: along" in text
    assert "cartilage could not be measured (1 pair tried)." in methods_paragraph(made_cohort(empty))
    asked = made_cohort(made_pair("a"), refused_pair("b"), options={"outputs": ["cartilage_picture"]})
    assert "cartilage could not be measured (1 pair tried)." in methods_paragraph(asked)
