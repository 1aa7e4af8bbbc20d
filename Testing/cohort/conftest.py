"""The browser that tests of the page look through."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def open_browser(tmp_path_factory) -> Iterator[Callable[[Path], object]]:
    """Opens a browser for a profile's folder. All are closed at the end."""
    if sys.platform == "win32":
        pytest.skip("a browser is driven through pipes, which Windows does not hand on")
    from browser import Browser, BrowserError, find_browser

    command = find_browser()
    if command is None:
        pytest.skip("no Chromium or Chrome is installed")
    opened = []

    def start(profile: Path) -> Browser:
        try:
            opened.append(Browser(command, profile))
        except BrowserError as error:
            pytest.skip(f"{command}: {error}")
        return opened[-1]

    yield start
    for one in opened:
        one.close()
