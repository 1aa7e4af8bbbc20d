"""A synthetic pair of scans with the true transform, for the module Sample Data. Nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from ..core.files import make_folder
from ..version import __version__

CATEGORY = "D-net registration"
NAME = "DNetRegistrationMouseTibia"
# A mouse tibia, 128^3 voxels of 40 um, turned by 125 degrees between the scans.
PAIR = {"seed": 0, "size": 128, "spacing": 0.04}
FILES = {"PreContrast": "0001_fixed.nrrd", "PostContrast": "0001_moving.nrrd", "TrueTransform": "0001_truth.tfm"}


def registerSampleData() -> None:
    """Offers the pair in the module Sample Data, and to scripts: ``SampleData.downloadSamples(NAME)``."""
    import SampleData

    class MadeSource(SampleData.SampleDataSource):
        """Files that are made when their addresses are first asked for: scripts go by the addresses alone."""

        @property
        def uris(self) -> list[str]:
            folder = makeFiles()
            return [(folder / file).as_uri() for file in FILES.values()]

        @uris.setter
        def uris(self, addresses) -> None:
            pass  # the constructor has none yet

        def __str__(self) -> str:
            return f"{NAME} {__version__}"  # Slicer compares sources by it, addresses included

    icons = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "Resources", "Icons")
    source = MadeSource(
        sampleName=NAME,
        sampleDescription=_("Mouse tibia, two scans"),
        thumbnailFileName=os.path.join(icons, f"{NAME}.png"),
        uris=[""] * len(FILES),
        # Slicer's cache takes a file of the same name for the same file; a transform node is named after its file.
        fileNames=[f"{name}-{NAME}-{__version__}{os.path.splitext(file)[1]}" for name, file in FILES.items()],
        nodeNames=list(FILES),
        loadFileTypes=["VolumeFile", "VolumeFile", "TransformFile"],
        customDownloader=loadSampleData,
    )
    sources = SampleData.SampleDataLogic.sampleDataSourcesByCategory().setdefault(CATEGORY, [])
    sources[:] = [one for one in sources if one.sampleName != NAME] + [source]


def makeFiles() -> Path:
    """The folder with the files of the pair. They are made on first use and kept in Slicer's cache folder."""
    from ..synthesis.dataset import synthesize

    folder = make_folder(os.path.join(slicer.app.cachePath, f"{NAME}-{__version__}"), parents=True)
    if not all((folder / file).is_file() for file in FILES.values()):
        with slicer.util.WaitCursor():
            synthesize(folder, 1, **PAIR)
    return folder


def loadSampleData(source=None) -> list:
    """Loads the pair.

    Returns:
        The nodes PreContrast, PostContrast and TrueTransform. The transform lays the second scan on the first.
    """
    folder, nodes = makeFiles(), []
    with slicer.util.WaitCursor():
        for name, file in FILES.items():
            load = slicer.util.loadTransform if file.endswith(".tfm") else slicer.util.loadVolume
            node = load(str(folder / file))
            node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
            nodes.append(node)
    return nodes
