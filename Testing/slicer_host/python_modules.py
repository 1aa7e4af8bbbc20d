"""The rest of Slicer's Python that modules use: `slicer.i18n`, `slicer.packaging` and the Sample Data module."""

from __future__ import annotations

import types
from pathlib import Path

import slicer
from packaging.requirements import Requirement

# slicer.i18n: no translations are installed.

i18n = types.ModuleType("slicer.i18n", "Translation of a module's texts; the host returns them as they are.")
i18n.tr = lambda text: _text(text)
i18n.translate = lambda context, text: _text(text)


def _text(text):
    if not isinstance(text, str):
        raise TypeError(f"only a string can be translated, not {text!r}")
    return text


# slicer.packaging: nothing is ever installed.

packaging = types.ModuleType("slicer.packaging", "Python packages of Slicer; the host records and installs nothing.")
installations: list[tuple] = []
"""What a module asked to install since the host was reset: (requirements, requester)."""


def load_requirements(path):
    """The requirements of a requirements.txt."""
    lines = (line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def pip_ensure(requirements, requester=None, **options):
    """Record what would be installed if it is missing or too old."""
    from importlib import metadata

    wanted = [requirements] if isinstance(requirements, (str, Requirement)) else requirements
    for requirement in (Requirement(str(entry)) for entry in wanted):
        try:
            met = requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
        except metadata.PackageNotFoundError:
            met = False
        if not met:
            installations.append((str(requirement), requester))


def pip_install(requirements, **options):
    """Record what would be installed."""
    installations.append((requirements, options.get("requester")))


packaging.load_requirements = load_requirements
packaging.pip_ensure = pip_ensure
packaging.pip_install = pip_install

# SampleData

sample_data = types.ModuleType("SampleData", "Slicer's Sample Data module, without its panel and without downloads.")


class SampleDataSource:
    """One sample data set as registered."""

    def __init__(
        self,
        sampleName=None,
        sampleDescription=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        loadFiles=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFileProperties=None,
        loadFileType=None,
    ):
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        if isinstance(uris, (list, tuple)):
            count = len(uris)
            if loadFileTypes is None or isinstance(loadFileTypes, str):
                loadFileTypes = [loadFileTypes or loadFileType] * count
            nodeNames, loadFiles, checksums = (entry or [None] * count for entry in (nodeNames, loadFiles, checksums))
        elif isinstance(uris, str):
            uris, fileNames, nodeNames, checksums = [uris], [fileNames], [nodeNames], [checksums]
            loadFiles, loadFileTypes = [loadFiles], [loadFileTypes or loadFileType]
        self.uris, self.fileNames, self.nodeNames, self.checksums = uris, fileNames, nodeNames, checksums
        self.loadFiles, self.loadFileTypes = loadFiles, loadFileTypes
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        self.loadFileProperties = loadFileProperties or {}
        lengths = {len(entry) for entry in (uris, fileNames, nodeNames, loadFiles, loadFileTypes, checksums)}
        if len(lengths) != 1:
            raise ValueError("All fields of sample data source must have the same length")

    def __eq__(self, other):
        return isinstance(other, SampleDataSource) and vars(self) == vars(other)

    __hash__ = None


class SampleDataLogic:
    """Registers sample data and makes it with the source's own downloader."""

    def __init__(self, logMessage=None):
        self.logMessage = logMessage or print

    @staticmethod
    def registerCustomSampleDataCategory(category, title):
        titles = slicer.modules.__dict__.setdefault("sampleDataSourceCategories", {})
        titles.setdefault(category, {})["title"] = title

    @staticmethod
    def registerCustomSampleDataSource(category="Custom", **arguments):
        source = SampleDataSource(**arguments)
        sources = slicer.modules.__dict__.setdefault("sampleDataSources", {}).setdefault(category, [])
        if source not in sources:
            sources.append(source)

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        sources = slicer.modules.__dict__.setdefault("sampleDataSources", {})
        return sources if category is None else sources.get(category, [])

    @staticmethod
    def isSampleDataSourceRegistered(category, sampleDataSource):
        return sampleDataSource in SampleDataLogic.sampleDataSourcesByCategory(category)

    def sourceForSampleName(self, sampleName):
        for sources in self.sampleDataSourcesByCategory().values():
            for source in sources:
                if source.sampleName == sampleName:
                    return source
        return None

    def downloadFromSource(self, source, maximumAttemptsCount=3):
        if source.customDownloader is None:
            raise AssertionError(f"the host downloads nothing, and {source.sampleName} has no downloader of its own")
        return source.customDownloader(source)

    def downloadSamples(self, sampleName):
        source = self.sourceForSampleName(sampleName)
        if source is None:
            raise ValueError(f"Sample data not found: {sampleName}")
        return self.downloadFromSource(source)


def downloadSample(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)[0]


def downloadSamples(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)


for _value in (SampleDataSource, SampleDataLogic, downloadSample, downloadSamples):
    setattr(sample_data, _value.__name__, _value)
