"""The page: what comes from outside is text on it, it needs nothing else, and what needs a look comes first."""

import base64
import hashlib
import io
import json
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from cohort_results import failed_pair, made_cohort, made_pair, refused_pair, varied_cohort, with_pictures
from DNetRegistrationLib.cohort import page
from DNetRegistrationLib.cohort.methods import CITATION
from DNetRegistrationLib.cohort.page import allowance, picture_address, render, write_page
from DNetRegistrationLib.cohort.result import Pictures, Problem, split_verdict
from DNetRegistrationLib.core.errors import FileError

Image = pytest.importorskip("PIL.Image")

MARKUP = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)>"
HOSTILE = MARKUP + " \" ' {{ 7 * 7 }} & \u2028 \u202e \n \udcff =1+1"


class Reader(HTMLParser):
    """The start tags of a page with the names of their attributes, its text, and the content of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.scripts, self.styles = [], [], [], [], []
        self._in = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._in = tag if tag in ("script", "style") else ""
        if self._in == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1][1] += data
        elif self._in == "style":
            self.styles.append(data)
        else:
            self.text.append(data)

    def content(self, name):
        (script,) = [text for attributes, text in self.scripts if attributes.get("id") == name]
        return json.loads(script)


def cohort_of(text: str):
    """A cohort of which every word is `text`."""
    outside = dict(
        fixed=text, moving=text, columns={text: text}, verdict=text, warnings=(text,), folder=text, remedy=text,
        surroundings=text,
    )  # fmt: skip
    row = {"compartment": text, "mean_thickness_um": 60.0, "standard_error_um": None, "volume_mm3": 0.01}
    return made_cohort(
        made_pair(text, **outside, hypothesis=text, compartments=(row,), doubts=(text,)),
        failed_pair(text + "2", **outside),
        scans=text,
        problems=(Problem(kind=text, pair=text, files=(text,), problem=text, remedy=text),),
        options={text: text},
        versions={text: text},
        machine=text,
        date=text,
        command=text,
    )


def test_words_from_outside_are_text(tmp_path):
    hostile, plain = (Reader(render(cohort_of(text), tmp_path)) for text in (HOSTILE, "word"))
    # No tag and no attribute more than with a word, and the scripts are the page's own.
    assert hostile.tags == plain.tags
    assert hostile.scripts[-1] == plain.scripts[-1]
    assert {name for _, name, _ in hostile.attributes if name.startswith("on")} == set()
    shown = "".join(hostile.text)
    assert shown.count(MARKUP) > 15
    # What cannot be seen is spelled out, and templates in a name are not.
    assert "\\u202e" in shown and "\u202e" not in shown and "{{ 7 * 7 }}" in shown
    # The script has the very words, since the CSV must name the pairs as the table does.
    assert {pair["name"] for pair in hostile.content("data")["pairs"]} == {HOSTILE, HOSTILE + "2"}


def test_links_stay_below_the_folder_whatever_a_name_is(tmp_path):
    names = ("javascript:alert(1)", "//elsewhere.example/x", "a b#c?d", "\udcff")
    cohort = made_cohort(*(made_pair(str(i), folder=name) for i, name in enumerate(names)))
    found = [value for tag, name, value in Reader(render(cohort, tmp_path)).attributes if name == "href"]
    links = [link for link in found if not link.startswith("#pair-")]
    assert links == ["./javascript%3Aalert%281%29", ".///elsewhere.example/x", "./a%20b%23c%3Fd", "./%FF"]


def test_the_page_needs_nothing_else_and_runs_only_its_own_script(tmp_path):
    reader = Reader(render(varied_cohort(tmp_path), tmp_path))
    (policy,) = [value for _, name, value in reader.attributes if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind, text in (("script", reader.scripts[-1][1]), ("style", "".join(reader.styles))):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert {tag for tag, name, _ in reader.attributes if name in ("src", "srcset", "style", "action")} == set()
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in reader.tags}
    assert [attributes for attributes, _ in reader.scripts if "type" not in attributes] == [{}]


def test_what_needs_a_look_comes_first(tmp_path):
    reader = Reader(render(varied_cohort(tmp_path), tmp_path))
    cards = [value for tag, name, value in reader.attributes if tag == "article" and name == "id"]
    # Failed, refused, with reservations; then the accepted ones, the least sure first. Numbers are places in the table.
    assert cards == ["pair-1", "pair-2", "pair-3", "pair-4", "pair-0", "pair-5"]
    assert [pair["look"] for pair in reader.content("data")["pairs"]] == [True] * 3 + [False] * 3
    text = " ".join(" ".join(reader.text).split())
    assert "3 need a look" in text
    assert "3 accepted 1 accepted with reservations 1 not accepted 1 failed" in text
    assert CITATION in text and "61.2 ± 1.5" in text and "50 %" in text


def test_scans_are_called_by_their_place_in_the_folder(tmp_path):
    fixed = os.path.join("study", "scans", "a", "pre.nrrd")
    pair = made_pair("a", fixed=fixed, moving=os.path.join("study", "scans2", "post.nrrd"))
    for scans, expected in (
        (os.path.join("study", "scans"), (os.path.join("a", "pre.nrrd"), os.path.join("scans2", "post.nrrd"))),
        (
            os.path.join("study", "list.csv"),
            (os.path.join("scans", "a", "pre.nrrd"), os.path.join("scans2", "post.nrrd")),
        ),
        ("elsewhere", (pair.fixed, pair.moving)),
    ):
        lost = failed_pair("b", verdict=f"Failed: {fixed}: is cut short (not {pair.moving}).")
        problem = Problem(
            kind="unreadable",
            pair="b",
            files=(fixed, pair.moving),
            problem=f"{fixed}: is cut short",
            remedy="copy it",
        )
        reader = Reader(render(made_cohort(pair, lost, scans=scans, problems=(problem,)), tmp_path))
        shown = "".join(reader.text)
        assert " ← ".join(expected) in shown
        assert f"Failed: {expected[0]}: is cut short (not {expected[1]})." in shown
        assert f"{expected[0]}: is cut short{expected[1]}Copy it" in shown
        # Another folder whose name ends alike is not that of the scans.
        assert "/mnt/study/scans/a" in "".join(
            Reader(render(made_cohort(made_pair("a", fixed="/mnt/study/scans/a"), scans=scans), tmp_path)).text
        )
        assert {pair["name"]: pair["fixed"] for pair in reader.content("data")["pairs"]}["a"] == fixed


def test_cartilage_that_is_not_to_be_trusted_says_so(tmp_path):
    rows = tuple(
        {
            "compartment": name,
            "mean_thickness_um": 60.0,
            "standard_error_um": 1.0,
            "volume_mm3": 0.1,
            "measured_share": 1.0,
        }
        for name in ("medial", "all")
    )
    doubted = tuple(row | {"sides_known": False, "agent": False} for row in rows)
    said = ("do not trust these numbers", "No contrast agent", "medial (?)", "sides may be swapped")
    for pair, expected in (
        (made_pair("a", compartments=rows), ()),
        (refused_pair("a", compartments=rows), said[:1]),
        (made_pair("a", compartments=doubted), said[1:]),
    ):
        text = " ".join(Reader(render(made_cohort(pair), tmp_path)).text)
        assert tuple(words for words in said if words in text) == expected
        assert "all (?)" not in text


def test_columns_that_repeat_the_name_are_left_out(tmp_path):
    text = " ".join(Reader(render(made_cohort(made_pair("a7", columns={"id": "a7", "time": "w4"})), tmp_path)).text)
    assert "w4" in text and " id " not in text


def test_numbers_that_are_not_known_say_so(tmp_path):
    unknown = made_pair("a", confidence=math.nan, expected_error_um=math.nan, dice=math.nan, check_error_um=math.nan)
    row = {"compartment": "all", "mean_thickness_um": None, "standard_error_um": None, "volume_mm3": None}
    text = " ".join(Reader(render(made_cohort(replace(unknown, compartments=(row,))), tmp_path)).text)
    assert text.count("unknown") >= 4 and not re.search(r"\bnan\b|\bNone\b", text)
    assert "not measured" in text and "unknown ±" not in text


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (refused_pair("a"), ("Not accepted: no pose makes the two bones agree.", "Check both scans.")),
        (failed_pair("a"), ("a_post.nrrd: is cut short.", "Copy it again")),
        (made_pair("a", verdict="Accepted: to within about 3.4 um."), ("Accepted: to within about 3.4 um.", "")),
        (failed_pair("a", verdict="Failed: a. B", remedy=""), ("Failed: a. B", "")),
    ],
)  # fmt: skip
def test_the_verdict_and_what_to_do_are_told_apart(pair, expected):
    assert split_verdict(pair) == expected


def test_a_result_is_known_by_what_a_rating_is_of(tmp_path):
    def result_of(pair):
        (row,) = Reader(render(made_cohort(pair), tmp_path)).content("data")["pairs"]
        return row["result"]

    pair = made_pair("a")
    # A study that was moved, and a group that was named otherwise, keep their ratings.
    same = dict(seconds=9.0, folder="b", fixed="c", identities=("c", "d"), columns={"group": "x"})
    assert result_of(replace(pair, **same)) == result_of(pair)
    moved = (*pair.matrix[:3], pair.matrix[3] + 1e-9, *pair.matrix[4:])
    changes = ({"matrix": moved}, {"status": "refused"}, {"verdict": "d"}, {"dice": math.nan})
    others = {result_of(replace(pair, **change)) for change in changes}
    assert len(others) == 4 and result_of(pair) not in others


def test_the_same_result_gives_the_same_page(tmp_path):
    cohort = varied_cohort(tmp_path)
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, cohort)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert type(cohort).from_dict(json.loads(json.dumps(cohort.to_dict()))).pairs[0].name == "m1"


def test_pictures_are_kept_as_they_are_where_they_are_small(tmp_path):
    pair = with_pictures(made_pair("a"), tmp_path)
    html = render(made_cohort(pair), tmp_path)
    for name in ("before", "after"):
        content = (tmp_path / getattr(pair.pictures, name)).read_bytes()
        assert f"data:image/webp;base64,{base64.b64encode(content).decode()}" in html


def test_large_pictures_are_made_smaller_and_show_the_same(tmp_path):
    rng = np.random.default_rng(3)
    ramp = np.linspace(0, 200, 2000)[None, :, None] + rng.normal(0, 25, (1040, 2000, 1))
    Image.fromarray(np.repeat(np.clip(ramp, 0, 255).astype(np.uint8), 3, 2)).save(tmp_path / "large.png")
    address = picture_address(tmp_path / "large.png", 30_000)
    content = base64.b64decode(address.removeprefix("data:image/webp;base64,"))
    assert len(content) <= 30_000
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("L"), float)
    assert shown.shape[1] <= 1220 and shown.shape[0] == round(shown.shape[1] * 1040 / 2000)
    # The first of eight columns is near black, where the noise is cut off.
    np.testing.assert_allclose(shown[:, :: shown.shape[1] // 8].mean(0)[1:8], np.arange(1, 8) * 25, atol=6)


def test_pictures_that_cannot_be_read_are_left_out_and_it_is_said(tmp_path):
    (tmp_path / "cut.webp").write_bytes(b"RIFF\x10\x00\x00\x00WEBPVP8 ")
    (tmp_path / "words.png").write_text("no picture")
    pictures = Pictures(before="cut.webp", after="words.png", cartilage="missing.png")
    html = render(made_cohort(made_pair("a", pictures=pictures)), tmp_path)
    assert "missing or cannot be read" in html and "data:image" not in html
    assert "pictures are missing." in render(made_cohort(made_pair("a")), tmp_path)


def test_pictures_of_many_pairs_get_less_room_each():
    # Base64 takes four bytes for three, and the text of a pair some thousand.
    assert 200 * (3 * allowance(200) * 4 / 3 + 15_000) < 40e6
    assert allowance(10_000) == 20_000 and allowance(1) == allowance(0) == 150_000


def test_a_cohort_without_pairs_is_a_page(tmp_path):
    reader = Reader(render(made_cohort(), tmp_path))
    assert "article" not in {tag for tag, _ in reader.tags} and reader.content("data")["pairs"] == []


def test_what_is_in_the_way_is_said(tmp_path):
    with pytest.raises(FileError, match="its folder does not exist"):
        write_page(tmp_path / "none" / "page.html", made_cohort())


def test_without_pillow_it_is_a_page_without_pictures(tmp_path, monkeypatch):
    cohort = varied_cohort(tmp_path)
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    html = render(cohort, tmp_path)
    assert "data:image" not in html and html.count("cannot be read") == 4


def test_what_was_aligned_to_close_loops_is_shown_where_it_needs_a_look(tmp_path):
    closing = made_pair("fine"), made_pair("m1 to m2", warnings=("Some slices are lost.",)), refused_pair("m1 to m3")
    text = " ".join(Reader(render(made_cohort(made_pair("m1"), closing=closing), tmp_path)).text)
    assert "2 of 3 alignments made to close loops are not accepted or warned of" in text
    assert "m1 to m2" in text and "Some slices are lost." in text and "no pose makes the two bones agree" in text
    assert "to close loops" not in render(made_cohort(made_pair("m1"), closing=closing[:1]), tmp_path)
