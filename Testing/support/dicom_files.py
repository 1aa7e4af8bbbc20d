"""Writes DICOM files in plain Python, with whatever their headers say."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"

#: Tag and value representation by keyword.
TAGS = {
    "ImageType": (0x00080008, "CS"), "SOPClassUID": (0x00080016, "UI"), "SOPInstanceUID": (0x00080018, "UI"),
    "AcquisitionDateTime": (0x0008002A, "DT"), "AcquisitionTime": (0x00080032, "TM"), "Modality": (0x00080060, "CS"),
    "SeriesDescription": (0x0008103E, "LO"), "PatientID": (0x00100020, "LO"),
    "ContrastBolusAgent": (0x00180010, "LO"), "SliceThickness": (0x00180050, "DS"),
    "SpacingBetweenSlices": (0x00180088, "DS"), "StudyInstanceUID": (0x0020000D, "UI"),
    "SeriesInstanceUID": (0x0020000E, "UI"), "SeriesNumber": (0x00200011, "IS"),
    "AcquisitionNumber": (0x00200012, "IS"),
    "InstanceNumber": (0x00200013, "IS"), "ImagePositionPatient": (0x00200032, "DS"),
    "ImageOrientationPatient": (0x00200037, "DS"), "FrameContentSequence": (0x00209111, "SQ"),
    "FrameAcquisitionNumber": (0x00209156, "US"), "PlanePositionSequence": (0x00209113, "SQ"),
    "PlaneOrientationSequence": (0x00209116, "SQ"), "SamplesPerPixel": (0x00280002, "US"),
    "PhotometricInterpretation": (0x00280004, "CS"), "NumberOfFrames": (0x00280008, "IS"), "Rows": (0x00280010, "US"),
    "Columns": (0x00280011, "US"), "PixelSpacing": (0x00280030, "DS"), "BitsAllocated": (0x00280100, "US"),
    "BitsStored": (0x00280101, "US"), "HighBit": (0x00280102, "US"), "PixelRepresentation": (0x00280103, "US"),
    "RescaleIntercept": (0x00281052, "DS"), "RescaleSlope": (0x00281053, "DS"), "RescaleType": (0x00281054, "LO"),
    "PixelMeasuresSequence": (0x00289110, "SQ"), "PixelValueTransformationSequence": (0x00289145, "SQ"),
    "SharedFunctionalGroupsSequence": (0x52009229, "SQ"), "PerFrameFunctionalGroupsSequence": (0x52009230, "SQ"),
}  # fmt: skip


def write(path: Path, pixels: np.ndarray, **header) -> Path:
    """Writes a file: pixels ``(y, x)``, or frames ``(z, y, x)``, and elements by keyword.

    A value is a text, numbers (or texts) in a list, or a dictionary, which becomes a sequence of one item; a list of
    dictionaries is a sequence. None leaves out an element that all files have.
    """
    bits = pixels.dtype.itemsize * 8
    elements = {
        "SOPClassUID": CT, "SOPInstanceUID": f"1.2.3.{abs(hash(path.name))}", "Modality": "CT", "PatientID": "1",
        "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "Rows": pixels.shape[-2], "Columns": pixels.shape[-1],
        "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"), "RescaleIntercept": "0", "RescaleSlope": "1",
        **header,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = b"".join(
        _element(tag, "UI", value)
        for tag, value in (
            (0x00020002, elements["SOPClassUID"]), (0x00020003, elements["SOPInstanceUID"]),
            (0x00020010, "1.2.840.10008.1.2.1"), (0x00020012, "1.2.3.4.5"),
        )
    )  # fmt: skip
    body = _dataset({name: value for name, value in elements.items() if value is not None})
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    data += b"\0" * (len(data) % 2)
    pixel_data = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, len(data)) + data
    length = _element(0x00020000, "UL", len(meta))
    path.write_bytes(bytes(128) + b"DICM" + length + meta + body + pixel_data)
    return path


def write_series(folder: Path, voxels: np.ndarray, position, step=(0, 0, 0.05), start=0, digits=None, **header) -> Path:
    """Writes slices, each with its position: that of the first one and the step, written with so many digits."""

    def number(value: float) -> str:
        return f"{value:.10g}" if digits is None else f"{value:.{digits}f}"

    for k, pixels in enumerate(voxels, start):
        place = [number(p + s * (k - start)) for p, s in zip(position, step, strict=True)]
        own = {name: value(k) if callable(value) else value for name, value in header.items()}
        defaults = {"ImagePositionPatient": place, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        values = {**defaults, "PixelSpacing": [0.03, 0.02], "InstanceNumber": k + 1, **own}
        write(folder / f"IM{k:04d}.dcm", pixels, **values)
    return folder


def write_enhanced(path: Path, voxels: np.ndarray, positions, each=None, **header) -> Path:
    """Writes frames into one enhanced file, each with its position and what `each` gives for its number."""
    shared = {
        "PixelMeasuresSequence": {"PixelSpacing": [0.03, 0.02], "SliceThickness": 0.05},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PixelValueTransformationSequence": {"RescaleIntercept": 0, "RescaleSlope": 1},
    }
    if each is not None and "PixelValueTransformationSequence" in each(0):
        del shared["PixelValueTransformationSequence"]
    frames = [
        {"PlanePositionSequence": {"ImagePositionPatient": list(position)}, **(each(k) if each else {})}
        for k, position in enumerate(positions)
    ]
    return write(
        path, voxels, SOPClassUID=ENHANCED_CT, NumberOfFrames=len(voxels), RescaleIntercept=None, RescaleSlope=None,
        SharedFunctionalGroupsSequence=shared, PerFrameFunctionalGroupsSequence=frames, **header,
    )  # fmt: skip


def _dataset(elements: dict) -> bytes:
    return b"".join(_element(*TAGS[name], value) for name, value in sorted(elements.items(), key=lambda e: TAGS[e[0]]))


def _element(tag: int, kind: str, value) -> bytes:
    start = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, kind.encode())
    if kind == "SQ":
        items = b""
        for item in value if isinstance(value, list) else [value]:
            content = _dataset(item)
            items += struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
        return start + struct.pack("<HI", 0, len(items)) + items
    if kind == "US":
        content = struct.pack("<H", value)
    elif kind == "UL":
        content = struct.pack("<I", value)
    else:
        parts = value if isinstance(value, list | tuple) else [value]
        content = "\\".join(p if isinstance(p, str) else f"{p:.10g}" for p in parts).encode()
        content += (b"\0" if kind == "UI" else b" ") * (len(content) % 2)
    return start + struct.pack("<H", len(content)) + content
