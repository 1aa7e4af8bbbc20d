"""Results of cohorts that no scans were needed for, with pictures of one colour each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from DNetRegistrationLib.cohort.result import CohortResult, PairResult, Pictures, Problem

#: Colours of the pictures: red, green and blue.
BEFORE, AFTER, MAP = (200, 40, 40), (40, 160, 60), (60, 60, 200)


def made_pair(name: str, **changes) -> PairResult:
    """An accepted pair without pictures, with other attributes where they are given."""
    values = dict(
        name=name,
        fixed=f"{name}_pre.nrrd",
        moving=f"{name}_post.nrrd",
        status="accepted",
        verdict="Accepted: the bones lie on each other, to within about 3.4 um.",
        confidence=0.98,
        expected_error_um=3.4,
        dice_before=0.1,
        dice=0.9,
        rotation_deg=40.0,
        moved_um=250.0,
        matrix=(1.0, 0.0, 0.0, 0.1, 0.0, 1.0, 0.0, 0.2, 0.0, 0.0, 1.0, 0.3, 0.0, 0.0, 0.0, 1.0),
        hypothesis="dnet",
        working_spacing_um=80.0,
        seconds=1.5,
        folder=name,
    )
    return PairResult(**{**values, **changes})


def failed_pair(name: str, **changes) -> PairResult:
    """A pair of which one scan cannot be read."""
    values = dict(status="failed", verdict=f"{name}_post.nrrd: is cut short.", remedy="copy it again")
    scans = dict(name=name, fixed=f"{name}_pre.nrrd", moving=f"{name}_post.nrrd")
    return PairResult(**{**scans, **values, **changes})


def refused_pair(name: str, **changes) -> PairResult:
    """A pair that is not accepted."""
    values = dict(
        status="refused",
        verdict="Not accepted: no pose makes the two bones agree. Check both scans.",
        doubts=("no agreement",),
        confidence=0.01,
        expected_error_um=900.0,
        dice=0.3,
    )
    return made_pair(name, **{**values, **changes})


def made_cohort(*pairs: PairResult, **changes) -> CohortResult:
    """A cohort of these pairs, with other attributes where they are given."""
    values = dict(
        scans="/study/scans",
        options={"hypotheses": "search"},
        versions={"DNetRegistration": "9.8.7", "code": "abc123", "Python": "3.11.7"},
        machine="a machine",
        date="2026-11-28T18:00:00+00:00",
        command="dnet-registration cohort scans --output results",
    )
    return CohortResult(pairs=pairs, **{**values, **changes})


def varied_cohort(folder: Path) -> CohortResult:
    """Six pairs, of each state one or more, whose pictures lie in `folder`; the order is not that of a look."""
    cartilage = {"compartment": "all", "mean_thickness_um": 61.25, "standard_error_um": 1.5, "volume_mm3": 0.0123}
    return made_cohort(
        with_pictures(made_pair("m1", columns={"group": "sham"}), folder),
        failed_pair("m2"),
        with_pictures(refused_pair("m3", columns={"group": "DMM"}), folder),
        with_pictures(made_pair("m4", doubts=("strain",), confidence=0.9, dice=0.7), folder),
        made_pair("m5", confidence=0.95),
        with_pictures(made_pair("m6", compartments=(cartilage | {"measured_share": 0.5},)), folder, cartilage=True),
        problems=(Problem(kind="unreadable", pair="m2", files=("m2_post.nrrd",), problem="is cut short"),),
    )


def with_pictures(pair: PairResult, folder: Path, cartilage: bool = False) -> PairResult:
    """The pair with pictures in `folder`."""
    from PIL import Image

    paths = {}
    place = folder / pair.name
    place.mkdir(parents=True, exist_ok=True)
    for name, color, size in (
        ("before", BEFORE, (1212, 400)),
        ("after", AFTER, (1212, 400)),
        ("cartilage", MAP, (1000, 520)),
    ):
        if name != "cartilage" or cartilage:
            paths[name] = f"{pair.name}/{name}.webp"
            Image.new("RGB", size, color).save(folder / paths[name])
    return replace(pair, pictures=Pictures(**paths))
