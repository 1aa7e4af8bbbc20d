"""Numbers in words: no share is rounded to all or none, one thing is no plural, and no digit is lost."""

import math

import pytest
from DNetRegistrationLib.core.words import choice, counted, percent, plain, sentence


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1.0, "above 99.9 %"),
        (0.99951, "above 99.9 %"),
        (0.99949, "99.9 %"),
        (0.5, "50.0 %"),
        (0.0006, "0.1 %"),
        (0.0004, "below 0.1 %"),
        (0.0, "below 0.1 %"),
        (math.nan, "unknown"),
    ],
)
def test_percent(share, words):
    assert percent(share) == words


def test_no_share_below_one_reads_as_all_of_it():
    assert not any(percent(1 - 10.0**-digits).startswith("100") for digits in range(1, 17))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (32991.4, "32991"), (3.299e4, "32990"), (1234567.0, "1234567"), (120.44, "120.4"), (101.0, "101"),
        (0.0001234567, "0.0001235"), (-512.6, "-512.6"), (0.0, "0"), (math.inf, "unknown"), (99999.6, "100000"),
    ],
)  # fmt: skip
def test_plain(value, words):
    assert plain(value) == words


def test_counted():
    assert [counted(n, "bone") for n in (0, 1, 2)] == ["0 bones", "1 bone", "2 bones"]
    assert counted(2, "study", "studies") == "2 studies"


def test_choice():
    assert [choice(words) for words in (["a"], ("a", "b"), {"a": 1, "b": 2, "c": 3})] == ["a", "a or b", "a, b or c"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("on 26 % of it", "On 26 % of it."),
        ("It is. So.", "It is. So."),
        ("agent, if any", "Agent, if any."),
        *[(f"{name}, which is", f"{name}, which is.") for name in ("fine/3.nrrd", "a.tif", "c:\\a", "m1", "a_b")],
        ("plain: is cut", "plain: is cut."),
    ],
)
def test_sentence(text, words):
    assert sentence(text) == words
