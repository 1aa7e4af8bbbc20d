"""The stand-in for Slicer, and the panel in it, for all tests of the Slicer module."""

import pytest
from scene_nodes import MODULE
from slicer_host.fixtures import host  # noqa: F401


@pytest.fixture
def panel(host, monkeypatch):  # noqa: F811
    """The panel, for which no process is started ahead: see `waiting` in test_panel."""
    host.load(MODULE)
    from DNetRegistrationLib.slicer_module.logic import DNetRegistrationLogic

    monkeypatch.setattr(DNetRegistrationLogic, "prepare", lambda self: None)
    opened = host.open("DNetRegistration")
    opened.parent.show()  # what is not shown is not visible
    return opened
