"""A synthetic pair of scans with the true transform, for the module Sample Data. Nothing is downloaded."""

import os

import slicer

from ..core.files import make_folder
from ..version import __version__

CATEGORY = "D-net registration"
NAME = "DNetRegistrationMouseTibia"
# A mouse tibia, 128^3 voxels of 40 um, turned by 125 degrees between the scans.
PAIR = {"seed": 0, "size": 128, "spacing": 0.04}
FILES = {"PreContrast": "0001_fixed.nrrd", "PostContrast": "0001_moving.nrrd", "TrueTransform": "0001_truth.tfm"}


def registerSampleData() -> None:
    """Offers the pair in the module Sample Data."""
    import SampleData

    icons = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "Resources", "Icons")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        thumbnailFileName=os.path.join(icons, f"{NAME}.png"),
        uris=[""] * len(FILES),
        fileNames=list(FILES.values()),
        nodeNames=list(FILES),
        customDownloader=loadSampleData,
    )


def loadSampleData(source=None) -> list:
    """Loads the pair; it is made on first use and kept in Slicer's cache folder.

    Returns:
        The nodes PreContrast, PostContrast and TrueTransform. The transform lays the second scan on the first.
    """
    from ..synthesis.dataset import synthesize

    folder = make_folder(os.path.join(slicer.app.cachePath, f"{NAME}-{__version__}"), parents=True)
    nodes = []
    with slicer.util.WaitCursor():
        if not all((folder / file).is_file() for file in FILES.values()):
            synthesize(folder, 1, **PAIR)
        for name, file in FILES.items():
            load = slicer.util.loadTransform if file.endswith(".tfm") else slicer.util.loadVolume
            node = load(str(folder / file))
            node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
            nodes.append(node)
    return nodes
