"""The page in a real browser: what a person does to it, and what it keeps. Skipped where there is no Chromium."""

from __future__ import annotations

import base64
import csv
import io
import time
from dataclasses import replace

import numpy as np
import pytest
from cohort_results import AFTER, BEFORE, MAP, failed_pair, made_cohort, made_pair, refused_pair, varied_cohort
from DNetRegistrationLib.cohort.page import allowance, picture_address, render, write_page
from DNetRegistrationLib.cohort.result import Pictures

Image = pytest.importorskip("PIL.Image")

HOSTILE = "=cmd|' /C calc'!A0 </script><script>hacked = 1</script><img src=x onerror='hacked = 2'>, \"q\"\n\u202e"

#: Names of the pairs that are shown, from above.
SHOWN = (
    "[...document.querySelectorAll('.card')].filter(c => c.checkVisibility())"
    ".map(c => c.querySelector('h3').textContent)"
)
#: Name of the pair at hand.
CURRENT = "document.querySelector('[aria-current] h3')?.textContent ?? null"
#: The ratings that the page shows, by pair.
RATED = (
    "Object.fromEntries([...document.querySelectorAll('.card')].map(c => [c.querySelector('h3').textContent,"
    "c.querySelector('.choices [aria-pressed=true]')?.dataset.rating]).filter(([, rating]) => rating))"
)


@pytest.fixture(scope="module")
def browser(open_browser, tmp_path_factory):
    return open_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def opened(browser, tmp_path):
    """A function that writes the page of a cohort and opens it; nothing may go wrong in it."""
    browser.forget()
    browser.complaints.clear()
    browser.requests.clear()

    def write_and_open(cohort):
        write_page(tmp_path / "cohort.html", cohort)
        browser.open((tmp_path / "cohort.html").as_uri())
        return browser

    yield write_and_open
    assert browser.complaints == []
    # Nothing but the page itself and the pictures in it is asked for.
    assert [one for one in browser.requests if not one.startswith(("file://", "data:image/webp;base64,"))] == []
    assert {one for one in browser.requests if one.startswith("file:")} <= {(tmp_path / "cohort.html").as_uri()}


def color(browser, tmp_path, selector):
    """The colour in the middle of what a selector finds, as a person sees it."""
    x, y = browser.run(
        f"(() => {{ const one = document.querySelector({selector!r}); one.scrollIntoView({{block: 'center'}});"
        "const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    browser.wait(f"document.querySelector({selector!r}).querySelectorAll('img:not([src])').length === 0")
    browser.wait("[...document.images].every(one => !one.src || one.complete)")
    browser.look(tmp_path / "seen.png")
    return np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"), float)[round(y), round(x)]


def saved(browser, tmp_path):
    """The rows of the CSV that a click saves."""
    file = tmp_path / "ratings.csv"
    browser.save_to(tmp_path)
    browser.click("#save")
    end = time.monotonic() + 20
    while not (file.is_file() and file.stat().st_size) and time.monotonic() < end:
        browser.run("new Promise(done => setTimeout(done, 50))")
    text = file.read_bytes().decode("utf-8")
    file.unlink()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_filters_and_search_show_what_they_say(opened, tmp_path):
    browser = opened(varied_cohort(tmp_path))
    assert browser.run(SHOWN) == ["m2", "m3", "m4", "m5", "m1", "m6"]
    expected = {
        "look": ["m2", "m3", "m4"],
        "accepted": ["m4", "m5", "m1", "m6"],
        "refused": ["m3"],
        "failed": ["m2"],
        "unrated": ["m2", "m3", "m4", "m5", "m1", "m6"],
    }
    for name, names in expected.items():
        browser.click(f"[data-filter={name}]")
        assert browser.run(SHOWN) == names
        assert browser.run(f"document.querySelector('[data-filter={name}] span').textContent") == str(len(names))
        assert browser.run("document.querySelector('#filters [aria-pressed=true]').dataset.filter") == name
    browser.click("[data-filter=all]")
    for words, names in (("dmm", ["m3"]), ("LIE reservations", []), ("m1_post", ["m1"])):
        browser.press("/")
        browser.write(words)
        assert browser.run(SHOWN) == names
        assert browser.run("document.getElementById('empty').hidden") == bool(names)
        browser.press("Enter")
        assert browser.run(CURRENT) == (names[0] if names else None)
        browser.press("/")
        browser.press("Escape")
        assert browser.run(SHOWN) == expected["unrated"]


def test_pictures_flicker_at_a_click_and_at_a_key(opened, tmp_path):
    browser = opened(varied_cohort(tmp_path))
    card = "#pair-0 .flicker"
    for act, expected, word in (
        (lambda: None, AFTER, "after"),
        (lambda: browser.click(card), BEFORE, "before"),
        (lambda: browser.press("f"), AFTER, "after"),
        (lambda: browser.press("f"), BEFORE, "before"),
    ):
        act()
        np.testing.assert_allclose(color(browser, tmp_path, card), expected, atol=12)
        seen = "[...document.querySelectorAll('#pair-0 .which')].find(o => getComputedStyle(o).visibility !== 'hidden')"
        assert browser.run(f"{seen}.textContent") == word
    browser.run("document.querySelector('#pair-5 .map').scrollIntoView({block: 'center'})")
    browser.wait("document.querySelector('#pair-5 .map').naturalWidth === 1000")
    np.testing.assert_allclose(color(browser, tmp_path, "#pair-5 .map"), MAP, atol=12)


def test_pictures_flicker_by_themselves(opened, tmp_path):
    browser = opened(varied_cohort(tmp_path))
    browser.click("#pair-0 .flicker")
    first = "document.querySelector('#pair-0 .flicker').classList.contains('first')"
    assert browser.run(first)
    browser.press("p")
    browser.wait(f"!{first}")
    browser.wait(first)
    browser.press("p")
    assert browser.run(
        f"new Promise(done => {{ const was = {first}; setTimeout(() => done(was === {first}), 1500); }})"
    )


def test_keys_walk_through_what_is_shown_and_rate(opened, tmp_path):
    browser = opened(varied_cohort(tmp_path))
    browser.click("[data-filter=accepted]")
    for key, name in (("j", "m4"), ("j", "m5"), ("j", "m1"), ("k", "m5"), ("k", "m4"), ("k", "m4")):
        browser.press(key)
        assert browser.run(CURRENT) == name
        assert browser.run("document.activeElement.querySelector('h3').textContent") == name
        bar, card = browser.run(
            "[document.getElementById('bar').getBoundingClientRect().bottom,"
            "document.querySelector('[aria-current]').getBoundingClientRect().top]"
        )
        assert bar <= card < 900
    browser.press("1")
    browser.press("j")
    browser.press("2")
    browser.press("j")
    browser.press("3")
    assert browser.run(RATED) == {"m4": "good", "m5": "doubtful", "m1": "bad"}
    assert browser.run("document.getElementById('done').textContent") == "3 of 6 rated"
    browser.press("3")  # again: taken back
    assert browser.run(RATED) == {"m4": "good", "m5": "doubtful"}
    # Keys that are written into a note rate nothing.
    browser.press("n")
    browser.write("1 of 2, jk3")
    browser.press("Escape")
    assert browser.run(RATED) == {"m4": "good", "m5": "doubtful"}
    browser.click("[data-filter=unrated]")
    assert browser.run(SHOWN) == ["m2", "m3", "m1", "m6"]


def test_ratings_survive_reload_and_restart_and_are_saved(open_browser, tmp_path):
    cohort = varied_cohort(tmp_path)
    address = (tmp_path / "cohort.html").as_uri()
    write_page(tmp_path / "cohort.html", cohort)
    for again in range(3):  # the third time in a browser started anew
        if again != 1:
            browser = open_browser(tmp_path / "profile")
        browser.open(address)
        if again == 0:
            browser.click("#pair-2 [data-rating=bad]")
            browser.click("#pair-0 [data-rating=good]")
            browser.click("#pair-0 textarea")
            browser.write('=1+1, he said "no"\nand left')
        assert browser.run(RATED) == {"m3": "bad", "m1": "good"}
        assert browser.run("document.querySelector('#pair-0 textarea').value") == '=1+1, he said "no"\nand left'
        if again == 1:
            browser.close()
    rows = saved(browser, tmp_path)
    assert [row["pair"] for row in rows] == [pair.name for pair in cohort.pairs]
    assert [row["rating"] for row in rows] == ["good", "", "bad", "", "", ""]
    # A spreadsheet would compute what begins with =.
    assert rows[0]["note"] == '\'=1+1, he said "no"\nand left'
    assert rows[0]["rated_at"] > "2026" and rows[1]["rated_at"] == ""
    assert (rows[2]["status"], rows[2]["fixed"], rows[2]["moving"]) == ("refused", "m3_pre.nrrd", "m3_post.nrrd")


@pytest.mark.parametrize("spreadsheet", [False, True])
def test_ratings_that_were_saved_are_loaded_elsewhere(opened, tmp_path, spreadsheet):
    note = '\'=1+1, he said "no"\nand left; \u00e9'
    browser = opened(made_cohort(made_pair("a"), made_pair("=b", dice=0.7), made_pair("'=b", dice=0.8), made_pair("d")))
    for number, rating in enumerate(("good", "doubtful", "bad")):
        browser.click(f"#pair-{number} [data-rating={rating}]")
    browser.click("#pair-1 textarea")
    browser.write(note)
    rows = saved(browser, tmp_path)
    gone = {**rows[0], "pair": "gone"}
    changed = {**rows[3], "result": "0123", "rating": "bad", "rated_at": "2026-01-01T00:00:00.000Z"}
    with open(tmp_path / "mine.csv", "w", newline="", encoding="cp1252" if spreadsheet else "utf-8-sig") as stream:
        writer = csv.DictWriter(stream, rows[0], delimiter=";" if spreadsheet else ",")
        writer.writeheader()
        writer.writerows([*rows[:3], gone, changed])
    browser.forget()
    browser.open((tmp_path / "cohort.html").as_uri())
    # What is said here later stays.
    browser.click("#pair-2 [data-rating=good]")
    assert browser.run(RATED) == {"'=b": "good"}
    load(browser, tmp_path / "mine.csv")
    assert browser.run("document.getElementById('loaded').textContent") == (
        "2 ratings loaded; 1 older; 1 of other results; 1 of pairs that are not here."
    )
    expected = {"a": "good", "=b": "doubtful", "'=b": "good"}
    assert browser.run(RATED) == expected
    assert browser.run("document.querySelector('#pair-1 textarea').value") == note
    assert "rated bad" in browser.run("document.querySelector('#pair-3 .earlier').textContent")
    browser.open((tmp_path / "cohort.html").as_uri())
    assert browser.run(RATED) == expected and len(saved(browser, tmp_path)) == 4
    (tmp_path / "other.csv").write_text("id,fixed\n")
    load(browser, tmp_path / "other.csv")
    assert "other.csv holds no ratings" in browser.run("document.getElementById('loaded').textContent")
    assert browser.run(RATED) == expected


def load(browser, file):
    """Chooses a file as a person does, and waits until it is read."""
    browser.run("document.getElementById('loaded').textContent = ''")
    node = browser.call("DOM.getDocument")["root"]["nodeId"]
    field = browser.call("DOM.querySelector", nodeId=node, selector="#load")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(file)])
    browser.wait("document.getElementById('loaded').textContent !== ''")


def test_a_rating_is_not_that_of_another_result(opened, tmp_path):
    cohort = made_cohort(made_pair("a"), made_pair("b"))
    browser = opened(cohort)
    browser.click("#pair-0 [data-rating=good]")
    browser.click("#pair-1 [data-rating=good]")
    assert browser.run(RATED) == {"a": "good", "b": "good"}
    matrix = (*cohort.pairs[0].matrix[:3], 0.5, *cohort.pairs[0].matrix[4:])
    redone = replace(cohort, pairs=(replace(cohort.pairs[0], matrix=matrix), replace(cohort.pairs[1], seconds=99.0)))
    opened(redone)
    assert browser.run(RATED) == {"b": "good"}
    assert browser.run("[...document.querySelectorAll('.earlier')].map(o => o.checkVisibility() && o.textContent)") == [
        "An earlier result of this pair was rated good.",
        False,
    ]
    assert [row["rating"] for row in saved(browser, tmp_path)] == ["", "good"]
    # Nor that of a pair of the same name in another cohort.
    opened(replace(cohort, scans="/another/study"))
    assert browser.run(RATED) == {}


def test_names_from_outside_are_text_and_no_formulas(opened, tmp_path):
    outside = dict(fixed=HOSTILE, moving=HOSTILE, columns={HOSTILE: HOSTILE}, verdict=HOSTILE, warnings=(HOSTILE,))
    pairs = made_pair(HOSTILE, **outside), failed_pair("\t" + HOSTILE, **outside), refused_pair("-1", fixed="@SUM(A1)")
    browser = opened(made_cohort(*pairs, scans=HOSTILE, command=HOSTILE, options={HOSTILE: HOSTILE}))
    assert browser.run("typeof hacked") == "undefined"
    assert browser.run("document.querySelectorAll('img[src=x]').length + document.scripts.length") == 2
    shown = HOSTILE.replace("\n", "\\n").replace("\u202e", "\\u202e")
    assert browser.run("document.querySelector('#pair-0 h3').textContent") == shown
    browser.press("j")
    browser.press("2")
    browser.click("#pair-0 [data-rating=good]")
    assert browser.run("document.getElementById('said').textContent") == f"{HOSTILE} rated good"
    rows = saved(browser, tmp_path)
    assert [row["pair"] for row in rows] == ["'" + HOSTILE, "'\t" + HOSTILE, "'-1"]
    assert [row["rating"] for row in rows] == ["good", "doubtful", ""]
    assert rows[2]["fixed"] == "'@SUM(A1)"


def test_a_point_of_the_plot_leads_to_its_pair(opened, tmp_path):
    browser = opened(varied_cohort(tmp_path))
    browser.click("[data-filter=failed]")
    # The point of m5 in the first panel. The pair is shown again.
    browser.click(".plot a[data-place='4'] .near")
    assert browser.run(CURRENT) == "m5" and len(browser.run(SHOWN)) == 6
    assert browser.run("document.querySelectorAll('.point.on').length") == 3
    assert 0 < browser.run("document.querySelector('#pair-4').getBoundingClientRect().top") < 400


def test_pairs_are_put_in_order(opened, tmp_path):
    browser = opened(varied_cohort(tmp_path))
    for order, names in (
        ("place", ["m1", "m2", "m3", "m4", "m5", "m6"]),
        ("dice", ["m2", "m3", "m4", "m5", "m1", "m6"]),
        ("expected_error_um", ["m2", "m3", "m4", "m5", "m1", "m6"]),
        ("look", ["m2", "m3", "m4", "m5", "m1", "m6"]),
    ):
        browser.run(
            f"(() => {{ const one = document.getElementById('order'); one.value = {order!r};"
            "one.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )
        assert browser.run(SHOWN) == names


def test_without_a_store_the_page_says_so_and_still_saves(browser, tmp_path):
    """A page without an address of its own has no store."""
    html = render(made_cohort(made_pair("a")), tmp_path)
    browser.open(f"data:text/html;base64,{base64.b64encode(html.encode()).decode()}")
    assert browser.run("document.getElementById('unkept').checkVisibility()")
    browser.press("j")
    browser.press("3")
    assert browser.run(RATED) == {"a": "bad"}
    assert [row["rating"] for row in saved(browser, tmp_path)] == ["bad"]


def test_everything_that_acts_has_a_name_and_words_stand_out(opened, tmp_path):
    browser = opened(varied_cohort(tmp_path))
    # What is far from the window is named only once it is laid out.
    browser.run("for (const one of document.querySelectorAll('.card')) one.style.contentVisibility = 'visible'")
    browser.wait("[...document.querySelectorAll('.card')].every(one => one.offsetHeight > 100)")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "searchbox", "combobox", "link", "image", "article"}
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    acting = [(role, name) for role, name in named if role in roles]
    assert len(acting) > 40 and [role for role, name in acting if not name.strip()] == []
    for dark in (False, True):
        browser.look(tmp_path / "seen.png", dark=dark)
        assert browser.run(CONTRASTS) == []


#: Words whose contrast with what lies behind them is below 4.5 (WCAG 2.1, success criterion 1.4.3), by its formula.
CONTRASTS = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !one.checkVisibility() || one.closest("svg, script, .unseen")) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${one.className} ${one.textContent.slice(0, 20)}`);
  }
  return poor;
})()"""


@pytest.mark.slow
def test_two_hundred_pairs_open_quickly_and_stay_small(open_browser, tmp_path):
    """Each picture as large as it may be; processor time of the browser, since machines are shared."""
    noise = np.random.default_rng(11).normal(110, 30, (520, 1212, 1)).clip(0, 255).astype(np.uint8)
    Image.fromarray(np.repeat(noise, 3, 2)).save(tmp_path / "noise.png")
    content = base64.b64decode(picture_address(tmp_path / "noise.png", allowance(200)).partition(",")[2])
    assert len(content) > 0.7 * allowance(200)
    (tmp_path / "noise.webp").write_bytes(content)
    pictures = Pictures(**dict.fromkeys(("before", "after", "cartilage"), "noise.webp"))
    row = {
        "compartment": "all",
        "mean_thickness_um": 60.0,
        "standard_error_um": 1.0,
        "volume_mm3": 0.01,
        "measured_share": 1.0,
    }
    pairs = [made_pair(f"m{i:03d}", pictures=pictures, compartments=(row,) * 3) for i in range(200)]
    write_page(tmp_path / "cohort.html", made_cohort(*pairs))
    assert 20e6 < (tmp_path / "cohort.html").stat().st_size < 40e6
    browser = open_browser(tmp_path / "profile")
    browser.open((tmp_path / "cohort.html").as_uri())
    metrics = {one["name"]: one["value"] for one in browser.call("Performance.getMetrics")["metrics"]}
    assert browser.run("document.querySelectorAll('.card').length") == 200
    assert metrics["ProcessTime"] < 2.0
