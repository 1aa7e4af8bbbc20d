"""Turns a real ankle any way, seen twice each time, and aligns the two by a network alone and by the default path.

    python Tools/real_ankle.py [--turns 100] [--weights dnet] [--network-alone]

Prints how often the network alone (neither refined nor searched) comes within 5 and 15 degrees, and how far off in
working voxels both are. The scan is beside the checkout, as for the tests.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "Testing" / "support"), str(ROOT / "DNetRegistration")]

import numpy as np
from DNetRegistrationLib.registration.align import align
from real_pairs import ANKLE, ankle_views, error_in_working_voxels, rotation_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--weights", help="a weights file, or the name of weights that ship")
    parser.add_argument("--network-alone", action="store_true", help="without the default path")
    options = parser.parse_args()
    ankles = ROOT.parent / "shared" / "data" / ANKLE

    angles, alone, default, accepted = [], [], [], 0
    for turn in range(options.turns):
        first, second = ankle_views(ankles, 500 + turn, 1600 + turn)
        found = align(first.image, second.image, hypotheses="dnet", refine="none", weights=options.weights)
        angles.append(rotation_error(first, second, found))
        alone.append(error_in_working_voxels(first, second, found))
        if not options.network_alone:
            found = align(first.image, second.image, weights=options.weights)
            default.append(error_in_working_voxels(first, second, found))
            accepted += found.accepted

    angles = np.array(angles)
    print(
        f"network alone: {(angles < 5).sum()} of {options.turns} within 5 degrees, {(angles < 15).sum()} within 15; "
        f"median {np.median(angles):.2f}, worst {angles.max():.2f} degrees; "
        f"median {np.median(alone):.2f} working voxels off"
    )
    if default:
        print(f"default path: at most {max(default):.3f} working voxels off, {accepted} of {options.turns} accepted")


if __name__ == "__main__":
    main()
