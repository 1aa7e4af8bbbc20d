"""How far the work is, on a terminal and elsewhere."""

import sys

import pytest
from DNetRegistrationLib.core.progress import Progress


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("tqdm", [False, True])
def test_progress(terminal, verbose, tqdm, monkeypatch, capsys):
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with Progress(verbose) as progress:
        part = progress.part(0.5, 1.0)
        part(0.0, "searching")
        part(0.5, "searching")
        part(0.5, "refining")
    shown = capsys.readouterr().err
    if verbose or (terminal and not tqdm):
        assert shown == " 50% searching\n 75% refining\n"
    elif terminal:
        assert "searching" in shown
        assert "75%" in shown
    else:
        assert shown == ""
