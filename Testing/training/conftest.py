"""What several tests of training share."""

from __future__ import annotations

import pytest
from DNetRegistrationLib.training.dataset import synthetic_dataset


@pytest.fixture(scope="session")
def tibiae():
    """Two tibiae to draw pairs from."""
    return synthetic_dataset(2, 5, kinds={"tibia": 1.0})
