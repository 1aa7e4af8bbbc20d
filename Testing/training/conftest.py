"""What several tests of training share."""

from __future__ import annotations

import pytest
from DNetRegistrationLib.training.bank import build_bank


@pytest.fixture(scope="session")
def tibiae():
    """Two tibiae to draw pairs from."""
    return build_bank(2, 3, kinds={"tibia": 1.0})
