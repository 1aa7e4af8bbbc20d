"""Pictures are drawn whatever a caller has set for its own."""

from __future__ import annotations

import command
import places
import pytest

PROGRAM = """
import os
from DNetRegistrationLib.core.pictures import new_figure, require_matplotlib
require_matplotlib("this")
new_figure(1, 1).savefig("a.png")
print(os.environ["MPLBACKEND"])
"""


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no such backend"])
def test_a_backend_that_is_not_installed_does_not_matter(tmp_path, backend):
    """A notebook sets it for all processes that are started from it."""
    done = command.run(code=PROGRAM, env=places.environment(MPLBACKEND=backend), cwd=tmp_path)
    assert done.stdout.strip() == backend, done.stderr
    assert (tmp_path / "a.png").stat().st_size > 0
