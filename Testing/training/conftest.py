"""What several tests of training share."""

from __future__ import annotations

import pytest
from DNetRegistrationLib.training.dataset import synthetic_dataset
from training_stand_ins import write_blobs


@pytest.fixture(scope="session")
def tibiae():
    """Two tibiae to draw pairs from."""
    return synthetic_dataset(2, 3, kinds={"tibia": 1.0})


@pytest.fixture(scope="session")
def blobs(tmp_path_factory):
    """A file with blobs for bones."""
    return write_blobs(tmp_path_factory.mktemp("bones") / "blobs.pt")
