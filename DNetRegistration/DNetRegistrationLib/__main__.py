"""``python -m DNetRegistrationLib`` is the command ``dnet-registration``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
