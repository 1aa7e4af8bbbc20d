"""Aligns all pairs of scans in a folder with volume nodes, in Slicer without a window.

    Slicer --no-splash --no-main-window --python-script align_folder.py SCANS RESULTS

SCANS holds NAME_pre.nrrd and NAME_post.nrrd for each animal (or .nii.gz, .mha, ...). For each pair RESULTS gets

    NAME_transform.h5       the transform to put the post-contrast scan under (File, Add Data)
    NAME_subtraction.nrrd   post minus pre contrast, on the grid of the pre-contrast scan
    NAME_cortices.seg.nrrd  both cortices, to look at

and summary.csv a line. The exit status is 0 when all results are accepted, 1 when some are not, 2 when a pair could not
be aligned. PyTorch must be installed: click Align once in the module, or use the PyTorch extension.

The same without nodes, with the library's own command line, in Slicer's Python or any other (in MODULE lies the folder
DNetRegistrationLib; Slicer shows it under Edit, Application Settings, Modules, Additional module paths):

    cd MODULE
    PythonSlicer -m DNetRegistrationLib align NAME_pre.nrrd NAME_post.nrrd --transform NAME.h5 --report NAME.json
"""

import sys
from pathlib import Path

import slicer


def find_pairs(folder: Path) -> list:
    """The pairs of scans in a folder; says which scans are left out."""
    from DNetRegistrationLib.imaging.scan_folders import find_scans

    scans = find_scans(folder, slices=False)
    for problem in scans.problems:
        print(problem)
    for path, partner in scans.unpaired.items():
        print(f"{path.name}: left out, {partner}.* is missing")
    return scans.pairs


def align_pair(logic, pair, results: Path):
    """Aligns one pair, and saves what came out; returns the alignment."""
    name = pair.name
    fixed, moving = (slicer.util.loadVolume(str(path), {"show": False}) for path in (pair.pre, pair.post))
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} cortices")
    subtraction = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"{name} subtraction")
    transform, alignment = logic.align(
        fixed, moving, segmentationNode=segmentation, subtractionNode=subtraction, contrast="moving"
    )
    for node, file in (
        (transform, f"{name}_transform.h5"),
        (subtraction, f"{name}_subtraction.nrrd"),
        (segmentation, f"{name}_cortices.seg.nrrd"),
    ):
        if not slicer.util.saveNode(node, str(results / file)):
            raise OSError(f"{results / file}: cannot be written")
    return alignment


def main(arguments: list[str]) -> int:
    """Aligns the pairs of the first folder into the second; returns the exit status."""
    from DNetRegistrationLib.core.csv_table import CsvTable

    if len(arguments) != 2:
        print(__doc__)
        return 2
    scans, results = (Path(argument) for argument in arguments)
    if not (pairs := find_pairs(scans)):
        print(f"{scans}: holds no pair NAME_pre.nrrd, NAME_post.nrrd; give the folder of the scans")
        return 2
    results.mkdir(parents=True, exist_ok=True)
    logic, summary, status = slicer.util.getModuleLogic("DNetRegistration"), CsvTable(results / "summary.csv", []), 0
    for pair in pairs:
        slicer.mrmlScene.Clear()
        line = dict.fromkeys(("pair", "accepted", "confidence", "expected_error_um", "dice", "verdict"), "")
        try:
            alignment = align_pair(logic, pair, results)
        except Exception as problem:  # the other pairs are not its fault
            line |= {"pair": pair.name, "accepted": False, "verdict": str(problem)}
            status = 2
        else:
            line |= {key: getattr(alignment, key) for key in line if key != "pair"} | {"pair": pair.name}
            status = max(status, 0 if alignment.accepted else 1)
        summary.add(line)
        print(f"{pair.name}: {line['verdict']}")
    print(f"{len(summary.rows)} pairs, {results / 'summary.csv'}")
    return status


if __name__ == "__main__":
    status = 2  # without a window, a Slicer that is not told to exit would stay for ever
    try:
        status = main(sys.argv[1:])
    except Exception as problem:
        print(f"error: {problem}", file=sys.stderr)
    finally:
        slicer.util.exit(status)
