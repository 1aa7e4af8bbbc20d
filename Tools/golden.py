"""Records the golden set, or measures how far its answers move when something changes that should not matter.

    python Tools/golden.py record                        anew, with the machine it was recorded on
    python Tools/golden.py compare [--exact]             this code, torch and machine against the record
    python Tools/golden.py compare --change "last bits"  the same with changed scans; --threads N of torch

`compare` prints the largest and the 95th percentile of the differences, and each pair whose verdict differs.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

# Before NumPy is imported: the number of threads decides the last bits of its products, too.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "Testing" / "support"), str(ROOT / "DNetRegistration")]

import golden_cases
import numpy as np
import scipy
import SimpleITK as sitk
import torch
from tqdm import tqdm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record")
    compare = commands.add_parser("compare")
    compare.add_argument("--exact", action="store_true", help="exit with 1 where a bit differs")
    compare.add_argument("--change", choices=golden_cases.CHANGES, help="something done to both scans first")
    for command in commands.choices.values():
        command.add_argument("--threads", type=int, default=1, help="of torch (1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = golden_cases.synthetic() + golden_cases.real(ROOT.parent / "shared" / "data")
    if options.command == "record":
        answers = [(case.name, case.aligned()) for case in tqdm(cases)]
        golden_cases.write_record(answers, machine())
        return
    change = golden_cases.CHANGES.get(options.change)
    sys.exit(report([(case.name, case.aligned(change)) for case in tqdm(cases)], options.exact))


def machine() -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "SimpleITK": sitk.Version_VersionString(),
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "BLAS threads": os.environ["OMP_NUM_THREADS"],
    }


def report(answers, exact: bool) -> int:
    """Prints the differences from the record; 1 where `exact` was asked for and a bit differs, else 0."""
    recorded = golden_cases.recorded()
    print(machine())
    numbers = ("confidence", "expected_error_um", "dice_before", "dice")
    same = 0
    table = {name: [] for name in ("apart_um", "apart_um, accepted", *numbers)}
    for name, answer in answers:
        old, new = recorded[name], answer.to_dict()
        same += old == new
        table["apart_um"].append(answer.apart_um(old))
        if old["accepted"] and new["accepted"]:
            table["apart_um, accepted"].append(answer.apart_um(old))
        for number in numbers:
            table[number].append(abs(old[number] - new[number]))
        for word in ("accepted", "hypothesis", "mirrored"):
            if old[word] != new[word]:
                print(
                    f"{name}: {word} {old[word]} -> {new[word]}, confidence {old['confidence']:.3f} -> "
                    f"{new['confidence']:.3f}, {answer.apart_um(old):.2f} um apart"
                )
        if exact and old != new:
            print(
                f"{name}: {answer.apart_um(old):.3g} um apart, confidence by {new['confidence'] - old['confidence']:g}"
            )
    for name, values in table.items():
        print(f"{name:20} largest {max(values):.6g}, 95th percentile {np.quantile(values, 0.95):.6g}")
    print(f"{same} of {len(answers)} the same to the last bit")
    return int(exact and same < len(answers))


if __name__ == "__main__":
    main()
