"""The Sample Data module, without its panel, and without downloads from elsewhere than this machine."""

from __future__ import annotations

import os
import types
import urllib.request

import slicer
import vtk

module = types.ModuleType("SampleData", __doc__)


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
        return str(self) == str(other)

    def __str__(self):
        names = ("sampleName", "sampleDescription", "thumbnailFileName", "loadFileProperties", "customDownloader")
        lists = ("fileNames", "uris", "checksums", "nodeNames", "loadFiles", "loadFileTypes")
        return "\n".join(f"{name}: {getattr(self, name)}" for name in names + lists)

    __hash__ = None


class SampleDataLogic:
    """Registers sample data and makes it with the source's own downloader."""

    def __init__(self, logMessage=None):
        self.logMessage = logMessage or print

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
        loadFileType=None,
    ):
        source = SampleDataSource(
            sampleName=sampleName,
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            customDownloader=customDownloader,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=loadFileTypes,
            loadFiles=loadFiles,
            loadFileProperties=loadFileProperties,
            checksums=checksums,
            loadFileType=loadFileType,
        )
        sources = slicer.modules.__dict__.setdefault("sampleDataSources", {}).setdefault(category, [])
        if source not in sources:
            sources.append(source)

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        sources = slicer.modules.__dict__.setdefault("sampleDataSources", {})
        return sources if category is None else sources.get(category, [])

    def sourceForSampleName(self, sampleName):
        for sources in self.sampleDataSourcesByCategory().values():
            for source in sources:
                if source.sampleName == sampleName:
                    return source
        return None

    @staticmethod
    def isSampleDataSourceRegistered(category, sampleDataSource):
        return sampleDataSource in SampleDataLogic.sampleDataSourcesByCategory(category)

    def downloadFromSource(self, source, maximumAttemptsCount=3, forceDownload=False):
        """Loads each address by way of the cache. A custom downloader is not asked: only the panel's button does."""
        nodes = []
        for uri, file, name, kind in zip(
            source.uris, source.fileNames, source.nodeNames, source.loadFileTypes, strict=True
        ):
            for _attempt in range(maximumAttemptsCount):
                try:
                    path = self.downloadFileIntoCache(uri, file)
                except ValueError:
                    self.logMessage("Download failed")
                    continue
                properties = {"fileName": path, "name": name}
                loaded = vtk.vtkCollection()
                manager = slicer.app.coreIOManager()
                if manager.loadNodes(kind or manager.fileType(path), properties, loaded):
                    nodes.append(loaded.GetItemAsObject(0))
                break
        return nodes

    def downloadFileIntoCache(self, uri, name, checksum=None):
        """A file that the cache holds under its name is not fetched again."""
        folder = slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, name)
        if not os.path.exists(path) or os.stat(path).st_size == 0:
            if uri.startswith(("http", "ftp")):
                raise AssertionError(f"Slicer would download {uri}")
            try:
                urllib.request.urlretrieve(uri, path)
            except (OSError, ValueError) as problem:
                raise ValueError(f"Failed to download {uri} to {path}") from problem
        return path

    def downloadSamples(self, sampleName):
        source = self.sourceForSampleName(sampleName)
        return self.downloadFromSource(source) if source is not None else []


def downloadSample(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)[0]


def downloadSamples(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)


def click(sample_name: str) -> None:
    """What a click on a sample's button in the Sample Data panel does."""
    source = SampleDataLogic().sourceForSampleName(sample_name)
    if source is None:
        raise ValueError(f"there is no sample {sample_name!r}")
    (source.customDownloader or SampleDataLogic().downloadFromSource)(source)


for _value in (SampleDataSource, SampleDataLogic, downloadSample, downloadSamples):
    setattr(module, _value.__name__, _value)
