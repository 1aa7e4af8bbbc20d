"""Aligns two micro-CT scans of the same bone in any orientation, and says whether to trust the result.

Names are loaded when first used: importing this package is cheap and needs no torch.

Example:
    >>> from DNetRegistrationLib import align, read_volume  # doctest: +SKIP
    >>> alignment = align(read_volume("before.nrrd"), read_volume("after.nrrd"))  # doctest: +SKIP
    >>> alignment.accepted, alignment.expected_error_um  # doctest: +SKIP
    (True, 2.1)
"""

from __future__ import annotations

from importlib import import_module

from .core import forks as _forks  # noqa: F401  (before anything of torch runs)
from .version import __version__ as __version__

_HOME = {
    "Alignment": "registration.result",
    "AlignmentCancelled": "registration.result",
    "CartilageMeasurement": "cartilage.result",
    "CohortOptions": "cohort.options",
    "CohortResult": "cohort.result",
    "DNetError": "core.errors",
    "ScanError": "core.errors",
    "SyntheticPair": "synthesis.pairs",
    "TrainingOptions": "training.session",
    "Volume": "imaging.volume",
    "align": "registration.align",
    "align_cohort": "cohort.run",
    "apply_transform": "outputs.apply",
    "available_weights": "networks.weights",
    "check_alignment": "registration.check",
    "find_bone_scale": "bone.threshold",
    "load_weights": "networks.weights",
    "make_pair": "synthesis.pairs",
    "measure_cartilage": "cartilage.measure",
    "read_mask": "imaging.masks",
    "read_report": "outputs.report",
    "read_transform": "geometry.transform_files",
    "read_volume": "imaging.volume",
    "resample": "imaging.resample",
    "segment_cortex": "outputs.images",
    "subtract": "outputs.images",
    "target_registration_error": "synthesis.pairs",
    "train": "training.session",
    "write_outputs": "outputs.write",
    "write_transform": "geometry.transform_files",
    "write_volume": "imaging.volume",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
