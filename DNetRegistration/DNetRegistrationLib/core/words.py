"""Numbers in words, the same in the terminal, in pictures, in tables and in the panel."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

# A word as a sentence begins with it: no path, nothing with digits, and not the subject of a message, before a colon.
_WORD = re.compile(r"[^\W\d_]+(['’-][^\W\d_]+)*[,;.?!]?(\s|$)")


def percent(share: float) -> str:
    """A share of 0 to 1 in percent. What is not known to be all or none is not rounded to all or none.

    Example:
        >>> percent(0.9731), percent(0.99997), percent(0.0), percent(math.nan)
        ('97.3 %', 'above 99.9 %', 'below 0.1 %', 'unknown')
    """
    if not math.isfinite(share):
        return "unknown"
    if share > 0.9995 - 1e-12:
        return "above 99.9 %"
    return "below 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things.

    Example:
        >>> counted(1, "bone"), counted(0, "bone"), counted(2, "study", "studies")
        ('1 bone', '0 bones', '2 studies')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def choice(words: Iterable[str]) -> str:
    """Words of which one is to be taken.

    Example:
        >>> choice([".json"]), choice([".tfm", ".h5"]), choice([".png", ".pdf", ".svg"])
        ('.json', '.tfm or .h5', '.png, .pdf or .svg')
    """
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def ascii_line(text: str) -> str:
    """A text as one line of plain letters, as any header takes it; others are question marks."""
    return " ".join(text.encode("ascii", "replace").decode().split())


def capital(text: str) -> str:
    """A text that begins with a capital letter; the others stay as they are, and so does the name of a file.

    Example:
        >>> capital("is it MR?"), capital("fine/m1.nrrd is cut off"), capital("m1: is cut off"), capital("")
        ('Is it MR?', 'fine/m1.nrrd is cut off', 'm1: is cut off', '')
    """
    return text[:1].upper() + text[1:] if _WORD.match(text) else text


def sentence(text: str) -> str:
    """A remark as a sentence, so that several can stand in one line.

    Example:
        >>> sentence("layers below 3 um cannot be told from none"), sentence("Not accepted.")
        ('Layers below 3 um cannot be told from none.', 'Not accepted.')
    """
    return capital(text.rstrip(".") + ".")


def plain(value: float, digits: int = 4) -> str:
    """A number to so many digits without an exponent; whole digits are never cut.

    Example:
        >>> plain(32991.4), plain(0.012346), plain(-2.5), plain(1234.5, 3)
        ('32991', '0.01235', '-2.5', '1234')
    """
    if not math.isfinite(value):
        return "unknown"
    digits = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def micrometres(text: str) -> str:
    """A text of the library with the unit as Slicer writes it. The library's own goes to terminals that lack the sign.

    Example:
        >>> micrometres("to within about 2.0 um")
        'to within about 2.0 µm'
    """
    return re.sub(r"(?<=\d) um\b", " µm", text)
