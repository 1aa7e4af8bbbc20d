"""Runs a command of the README as a reader would: `python .ci/readme.py demo` or `test`; `--print` only shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def command(name: str, windows: bool = sys.platform == "win32") -> str:
    """The README's block that holds the demo, or the one behind the mark of the tests; on Windows with its paths."""
    text = README.read_text(encoding="utf-8")
    if name == "test":
        _, _, text = text.partition("<!-- test command -->")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    try:
        (found, *_) = [block for block in blocks if name == "test" or f"dnet-registration {name}" in block]
    except ValueError:
        sys.exit(f"README.md holds no command of the name {name}")
    if windows:
        found = found.replace("python3 -m", "python -m").replace(".venv/bin/", ".venv/Scripts/")
    return found.rstrip("\n")


if __name__ == "__main__":
    names = [word for word in sys.argv[1:] if word != "--print"]
    if len(names) != 1:
        sys.exit(__doc__)
    found = command(*names)
    print(f"+ {found}", flush=True)
    if "--print" not in sys.argv:
        # On GitHub's Windows machines bash comes with git; cmd and PowerShell read && and .venv/Scripts/ otherwise.
        sys.exit(subprocess.run(["bash", "-euo", "pipefail", "-c", found], cwd=README.parent).returncode)
