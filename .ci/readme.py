"""Runs a command of the README as a reader would: `python .ci/readme.py demo` or `test`; `--print` only shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
WINDOWS = sys.platform == "win32"


def command(name: str, windows: bool = WINDOWS) -> str:
    """The README's block that holds the demo, or the one behind the mark of the tests; with Windows' paths there."""
    text = README.read_text(encoding="utf-8")
    if name == "test":
        _, _, text = text.partition("<!-- test command -->")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found = next((block for block in blocks if name == "test" or f"dnet-registration {name}" in block), None)
    if found is None:
        sys.exit(f"README.md holds no command of the name {name}")
    if windows:
        found = found.replace("python3 -m", "python -m").replace(".venv/bin/", ".venv\\Scripts\\")
    return found.rstrip("\n")


def main() -> int:
    names = [word for word in sys.argv[1:] if word != "--print"]
    if len(names) != 1:
        sys.exit(__doc__)
    line = command(*names)
    print(f"+ {line}", flush=True)
    if "--print" in sys.argv:
        return 0
    # On Windows by cmd: the bash that a process finds there first may be that of an empty Linux subsystem.
    shell = line if WINDOWS else ["bash", "-euo", "pipefail", "-c", line]
    return subprocess.run(shell, cwd=README.parent, shell=WINDOWS).returncode


if __name__ == "__main__":
    sys.exit(main())
