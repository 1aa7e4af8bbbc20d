"""Where things lie, for tests that read the project's files or start processes."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What must be on the path to import the library, and the tests' own modules.
SOURCE, SUPPORT = ROOT / "DNetRegistration", ROOT / "Testing" / "support"
LIBRARY = SOURCE / "DNetRegistrationLib"
#: Real scans beside the checkout.
DATA = ROOT.parent / "shared" / "data"


def environment(**variables: str) -> dict[str, str]:
    """Of a child process that finds the library and the tests' own modules."""
    paths = os.pathsep.join((str(SOURCE), str(SUPPORT)))
    return {**os.environ, "PYTHONPATH": paths, **variables}
