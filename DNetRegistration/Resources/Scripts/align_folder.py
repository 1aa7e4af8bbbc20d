"""Aligns all pairs of scans of a folder or a list, in Slicer without a window.

    Slicer --no-splash --no-main-window --python-script align_folder.py SCANS RESULTS [OPTION ...]

This is the command `cohort` of the library, in Slicer's Python: SCANS holds NAME_pre and NAME_post for each pair, or is
a CSV file. RESULTS gets cohort.html to look at, cohort.csv with a row for each pair, and in pairs/NAME

    transform.h5            the transform to put the post-contrast scan under (File, Add Data)
    subtraction.nrrd        post minus pre contrast, on the grid of the pre-contrast scan
    segmentation.seg.nrrd   both cortices, to look at
    report.json             the alignment

Options are those of the command, as --dry-run or --cartilage. The exit status is its own too: 0 when all results are
accepted, 1 when some are not, 2 for bad input. The same again does what is missing or has changed. PyTorch must be
installed: click Align once in the module, or use the PyTorch extension.
"""

import os
import subprocess
import sys

import slicer

#: What is written of each pair beside the command's own choice.
OUTPUTS = ("--transform", ".h5", "--subtraction", "--segmentation")


def run_command(python: str, arguments: list[str]) -> int:
    """Runs a command of the library in a process, prints what it says, and returns its exit status."""
    from DNetRegistrationLib.slicer_module.worker_process import ENVIRONMENT, HOME

    environment = {**os.environ, **ENVIRONMENT, "PYTHONIOENCODING": "utf-8"}
    # Slicer's own folders must stay on the path.
    environment["PYTHONPATH"] = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [python, "-m", "DNetRegistrationLib", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    with subprocess.Popen(command, env=environment, **streams) as process:
        for line in process.stdout:  # Slicer need not have a console that the process could write to
            print(line, end="", flush=True)
    return process.returncode


def main(arguments: list[str]) -> int:
    """Aligns the pairs of the first folder into the second; returns the exit status."""
    if len(arguments) < 2:
        print(__doc__)
        return 2
    scans, results, *options = arguments
    python = slicer.util.getModuleLogic("DNetRegistration").python()
    return run_command(python, ["cohort", scans, "--output", results, *OUTPUTS, *options])


if __name__ == "__main__":
    status = 2  # without a window, a Slicer that is not told to exit would stay for ever
    try:
        status = main(sys.argv[1:])
    except Exception as problem:
        print(f"error: {problem}", file=sys.stderr)
    finally:
        slicer.util.exit(status)
