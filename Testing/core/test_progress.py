"""How far the work is, on a terminal and elsewhere."""

import sys

import pytest
from DNetRegistrationLib.core.progress import Progress, part


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("tqdm", [False, True])
def test_progress(terminal, verbose, tqdm, monkeypatch, capsys):
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with Progress(verbose) as progress:
        second_half = part(progress, 0.5, 1.0)
        second_half(0.0, "searching")
        second_half(0.5, "searching")
        second_half(0.5, "refining")
        progress.tell("found")
    said = capsys.readouterr()
    assert said.out == "found\n"
    shown = said.err
    if verbose or (terminal and not tqdm):
        assert shown == " 50% searching\n 75% refining\n"
    elif terminal:
        assert "searching" in shown
        assert "75%" in shown
    else:
        assert shown == ""
