"""Fits the confidence and the expected error of `verification` anew and writes calibration.json into the library.

python Tools/calibrate.py [--pairs 1000] [--jobs 2] [--samples calibration.csv]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "DNetRegistration"))

from DNetRegistrationLib.core.files import atomic_write
from DNetRegistrationLib.core.progress import Progress
from DNetRegistrationLib.experiments.calibrate import calibrate
from DNetRegistrationLib.registration.verification import CALIBRATION


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--samples", type=Path, default=Path("calibration.csv"), help="samples there are kept")
    options = parser.parse_args()
    with Progress(verbose=True) as progress:
        model = calibrate(options.pairs, options.jobs, options.samples, progress)
    text = json.dumps(model, indent=1)
    with atomic_write() as staging:
        staging.path(CALIBRATION).write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
