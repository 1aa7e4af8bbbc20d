"""The page on which a person checks a cohort: one HTML file that needs neither a network nor another file."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..core.files import atomic_write, writing
from ..core.words import capital, percent
from ..outputs.slices import length_text
from ..outputs.summary import number
from ..version import __version__
from . import plot
from .methods import CITATION, methods_paragraph
from .result import KINDS, CohortResult, PairResult, looked_at, needs_look, split_verdict, told_once

#: Bytes of all pictures, and the least and the most that each may take; larger ones are made smaller. With their text,
#: and in base64, 200 pairs of three pictures take less than 40 MB.
_ALL, _LEAST, _MOST = 27_000_000, 20_000, 150_000
_WIDEST = 1220  # pixels
_TYPES = {".webp": "image/webp", ".png": "image/png"}
_FOUND_BY = {"dnet": "network", "search": "search", "initial": "given start"}
_HERE = Path(__file__).parent


def write_page(path: str | os.PathLike, result: CohortResult) -> None:
    """Writes the page.

    It holds a summary, a paragraph on methods, a plot over all pairs, and the pairs, those first that need a look, with
    pictures that flicker between before and after. A person's ratings stay in the browser and are saved as CSV. What
    comes from outside (names, notes, columns) is shown as text.

    Args:
        path: of the page, in the folder of results, below which the pictures lie. One that is missing or damaged is
            left out, and the page says so; all are where Pillow is missing.
        result: what the cohort gave.

    Raises:
        FileError: the page cannot be written.
    """
    path = Path(path)
    text = render(result, path.parent)
    with atomic_write() as staging, writing(path):
        # Names of files need not be UTF-8.
        staging.path(path).write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


def render(result: CohortResult, folder: Path) -> str:
    """The page as HTML.

    Args:
        result: what the cohort gave.
        folder: of its results.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters.update(number=_number, size=_length, percent=percent, sentence=capital, link=_link)
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    order = {pair.name: place for place, pair in enumerate(result.pairs)}
    shown = [(order[pair.name], pair) for pair in needs_look(result.pairs)]
    return environment.get_template("page.html.jinja").render(
        result=result,
        style=style,
        script=script,
        policy="default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        title=Path(result.scans).name or result.scans,
        counts=result.counts,
        reserved=sum(pair.reserved for pair in result.pairs),
        look=sum(looked_at(pair) for pair in result.pairs),
        methods=methods_paragraph(result),
        citation=CITATION,
        panels=plot.panels(result.pairs),
        plot_size=plot.size(),
        plot=plot,
        pairs=shown,
        closing=[pair for pair in needs_look(result.closing) if looked_at(pair)],
        looked_at=looked_at,
        state=_state,
        split=split_verdict,
        below=partial(_below, scans=result.scans),
        found_by=_FOUND_BY,
        pictures=partial(_pictures, folder=folder, largest=allowance(len(shown))),
        problems=list(zip(result.problems, told_once(result.problems), strict=True)),
        kinds=KINDS,
        version=__version__,
        data={
            "cohort": _digest(result.scans),
            "pairs": [_row(place, pair) for place, pair in shown],
        },
    )


def visible(text: str) -> str:
    """A text with escapes for what cannot be seen: line breaks, bytes that are no UTF-8, changes of direction.

    Example:
        >>> print(visible("m07\\n\\u202e.nrrd"))
        m07\\n\\u202e.nrrd
    """
    return "".join(c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in text)


# Some scripts do not read without them.
_JOINERS = "\u200c\u200d"


def _state(pair: PairResult) -> str:
    return "reserved" if pair.reserved else pair.status


def _below(text: str, scans: str) -> str:
    """A text with its paths from the folder of the scans, or of their list, on; those that lie elsewhere as they are.

    A page is sent to others, whom the folders of this machine do not concern.
    """
    folders = [re.escape(os.path.join(folder, "")) for folder in (scans, os.path.dirname(scans)) if len(folder) > 1]
    return re.sub(rf"(?<![^\s(])(?:{'|'.join(folders)})", "", text) if folders else text


def _row(place: int, pair: PairResult) -> dict[str, Any]:
    """What the script of the page knows of a pair."""
    # What does not say how the pair lies may change without making a rating worthless.
    values = pair.to_dict()
    for name in (
        "fixed",
        "moving",
        "identities",
        "marks",
        "surroundings",
        "columns",
        "reference",
        "seconds",
        "folder",
        "outputs",
        "pictures",
    ):
        del values[name]
    said = pair.verdict, pair.remedy, *pair.warnings, pair.surroundings
    words = (pair.name, pair.fixed, pair.moving, *pair.columns.values(), *said)
    return {
        "place": place,
        "name": pair.name,
        "fixed": pair.fixed,
        "moving": pair.moving,
        "status": pair.status,
        "look": looked_at(pair),
        "words": "\n".join(words).lower(),
        "dice": values["dice"],
        "expected_error_um": values["expected_error_um"],
        "confidence": values["confidence"],
        "result": _digest(values),
    }


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _number(value: float | None, style: str) -> str:
    return "unknown" if value is None else number(value, style)


def _length(um: float) -> str:
    return length_text(um / 1000)


def _link(path: str) -> str:
    """The address of a file below the folder of results, whatever its name is."""
    return "./" + quote(os.fsencode(path))


def allowance(pairs: int) -> int:
    """How many bytes a picture may take in a page of so many pairs."""
    return min(max(_ALL // (3 * max(pairs, 1)), _LEAST), _MOST)


def _pictures(pair: PairResult, folder: Path, largest: int) -> dict[str, str]:
    """The pictures of a pair as addresses that hold them, by their names."""
    found: dict[str, str] = {}
    if find_spec("PIL") is None:
        return found
    for name in ("before", "after", "cartilage"):
        path = getattr(pair.pictures, name)
        address = None if path is None else picture_address(folder / path, largest)
        if address is not None:
            found[name] = address
    return found


def picture_address(path: Path, largest: int) -> str | None:
    """A picture as a ``data:`` address, smaller where it has more bytes than `largest`; None if it is unreadable."""
    from PIL import Image

    try:
        content, kind = path.read_bytes(), _TYPES.get(path.suffix.lower())
        with Image.open(io.BytesIO(content)) as image:
            image.load()  # damage shows
            if kind is None or len(content) > largest:
                content, kind = _smaller(image, largest), "image/webp"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _smaller(image: Any, largest: int) -> bytes:
    image, width = image.convert("RGB"), min(image.width, _WIDEST)
    while True:
        stream = io.BytesIO()
        fitted = image.resize((width, max(round(image.height * width / image.width), 1)))
        fitted.save(stream, "webp", quality=65, method=2)
        if stream.tell() <= largest or width < 100:
            return stream.getvalue()
        # Bytes go as pixels do, or faster, since noise is averaged.
        width = round(width * min(max(math.sqrt(largest / stream.tell()), 0.75), 0.9))
