"""Damages files of every kind that is read, and sees what comes of reading them: voxels, or an error in words.

    python Testing/support/damaged_files.py --scans 10000 --transforms 2000 --seed 1

A worker process reads the files one by one, so that a death or a hang is seen and the rest goes on. The damage to a
file follows from the seed and its number alone: `--first` and `--scans 1` make one of them again, `--keep` leaves it.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dicom_files
import imagecodecs
import numpy as np
import places
import pydicom
import SimpleITK as sitk
import tiff_files
from DNetRegistrationLib.core.errors import DNetError
from grids import noise
from pydicom import uid
from pydicom.encaps import encapsulate

#: A file is read in some milliseconds; what takes longer than this hangs. Seconds.
PATIENCE = 30
_MEMORY = 6 << 30
_VOXELS = noise(9, 20, 30)


@dataclass(frozen=True)
class Original:
    """A sound file or folder.

    Attributes:
        path: what is read.
        files: what is damaged, one of them at a time.
        packed: which bytes of a file a checksum covers: all, none or those between two places.
    """

    path: Path
    files: list[Path]
    packed: Callable[[bytes], tuple[int, int]] = lambda content: (0, 0)


@dataclass(frozen=True)
class Outcome:
    """What came of a file: "same", "part" or "other" (voxels), "refused", "traceback", "died" or "hung"; the damage."""

    number: int
    result: str
    damage: str
    must_notice: bool = False

    @property
    def is_fault(self) -> bool:
        return self.result in ("traceback", "died", "hung") or (self.result == "other" and self.must_notice)


# --- sound files ------------------------------------------------------------------------------------------------------


def scans(folder: Path) -> list[Original]:
    """Writes one of each kind of scan: volumes, TIFF, DICOM, and folders of slices."""
    return [*_volumes(folder), *_tiffs(folder), *_folders(folder)]


def _volumes(folder: Path) -> Iterator[Original]:
    image = sitk.GetImageFromArray(_VOXELS)
    image.SetSpacing((0.01, 0.01, 0.02))
    for name, compress in (
        ("a.nrrd", False), ("b.nrrd", True), ("c.nhdr", False), ("d.nhdr", True), ("e.mha", False), ("f.mha", True),
        ("g.mhd", False), ("h.mhd", True), ("i.nii", False), ("j.nii.gz", True), ("k.hdr", False), ("l.h5", False),
    ):  # fmt: skip
        before = set(folder.iterdir())
        sitk.WriteImage(image, str(folder / name), compress)
        written = sorted(set(folder.iterdir()) - before)
        yield Original(folder / name, written, _everything if name == "j.nii.gz" else _after_header)


def _everything(content: bytes) -> tuple[int, int]:
    return 0, len(content)


def _after_header(content: bytes) -> tuple[int, int]:
    """The packed voxels of NRRD and MetaImage: gzip's checksum covers them, zlib's as well."""
    marks = (b"encoding: gzip\n\n", b"ElementDataFile = LOCAL\n")
    ends = [content.find(mark) + len(mark) for mark in marks if mark in content]
    packed = b"gzip" in content[:1000] or b"CompressedData = True" in content[:1000]
    separate = content[:2] in (b"\x1f\x8b", b"\x78\x9c", b"\x78\x5e", b"\x78\xda", b"\x78\x01")
    return (ends[0] if ends else 0, len(content)) if (packed and ends) or separate else (0, 0)


def _tiffs(folder: Path) -> Iterator[Original]:
    j = "ImageJ=1.53t\nimages=9\nslices=9\nunit=micron\nspacing=20\n"
    ome = '<OME><Image><Pixels DimensionOrder="XYZCT" SizeC="1" SizeT="1" SizeZ="9" PhysicalSizeX="1"/></Image></OME>'
    for index, (layout, packed) in enumerate(
        (
            ({}, False), ({"order": ">", "rows": 7}, False), ({"big": True, "tile": 16}, False),
            ({"deflate": True}, True), ({"deflate": True, "tile": 16, "predictor": 2}, True),
            ({"description": j, "directories": 1}, False), ({"description": j, "deflate": True, "rows": 7}, True),
            ({"description": ome}, False),
        )
    ):  # fmt: skip
        path = tiff_files.write(folder / f"m{index}.tif", _VOXELS, **layout)
        yield Original(path, [path], _strips if packed else lambda content: (0, 0))
    for compressor in ("LZW", "PackBits"):
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(folder / f"n{compressor}.tif"))
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(_VOXELS))
        yield Original(folder / f"n{compressor}.tif", [folder / f"n{compressor}.tif"])


def _strips(content: bytes) -> tuple[int, int]:
    """`tiff_files` writes the strips of all pages before the first directory."""
    return 8, struct.unpack_from("<I", content, 4)[0] if content[:4] == b"II*\0" else 8


def _folders(folder: Path) -> Iterator[Original]:
    for suffix in ("png", "bmp", "jpg", "tif"):
        slices = folder / f"slices_{suffix}"
        slices.mkdir()
        for index, plane in enumerate(_VOXELS.astype(np.uint8)):
            sitk.WriteImage(sitk.GetImageFromArray(plane), str(slices / f"{index}.{suffix}"))
        (slices / "scan.log").write_text("[Reconstruction]\nPixel Size (um)=10\nFirst Section=0\nLast Section=8\n")
        files = sorted(slices.iterdir())
        yield Original(slices, files, _everything if suffix == "png" else lambda content: (0, 0))
    slices = dicom_files.write_series(folder / "dicom", _VOXELS.astype(np.int16), (1, 2, 3))
    yield Original(slices, sorted(slices.iterdir()))
    yield from _packed_dicom(folder)
    places_of_frames = [(0, 0, 0.05 * k) for k in range(9)]
    frames = dicom_files.write_enhanced(folder / "o.dcm", _VOXELS.astype(np.int16), places_of_frames)
    yield Original(frames, [frames])


def _packed_dicom(folder: Path) -> Iterator[Original]:
    """DICOM in the lossless codes that clinics use."""
    for name, syntax, encode in (
        ("rle", uid.RLELossless, None),
        ("jpegls", uid.JPEGLSLossless, imagecodecs.jpegls_encode),
        ("ljpeg", uid.JPEGLosslessSV1, imagecodecs.ljpeg_encode),
        ("jpeg2k", uid.JPEG2000Lossless, lambda v: imagecodecs.jpeg2k_encode(v, reversible=True, codecformat="j2k")),
    ):
        slices = dicom_files.write_series(folder / f"dicom_{name}", _VOXELS, (1, 2, 3))
        for file in slices.iterdir():
            header = pydicom.dcmread(file)
            if encode is None:
                header.compress(syntax)
            else:
                header.PixelData = encapsulate([encode(header.pixel_array)])
                header["PixelData"].is_undefined_length = True
                header.file_meta.TransferSyntaxUID = syntax
            header.save_as(file)
        yield Original(slices, sorted(slices.iterdir()))


def transforms(folder: Path) -> list[Original]:
    """Writes one of each kind of transform file."""
    euler = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.3, -0.2, 0.1, (4.0, 5.0, 6.0))
    for name in ("a.tfm", "b.txt", "c.mat"):
        sitk.WriteTransform(euler, str(folder / name))
    both = sitk.CompositeTransform([euler, sitk.TranslationTransform(3, (7.0, 8.0, 9.0))])
    sitk.WriteTransform(both, str(folder / "d.tfm"))
    np.savetxt(folder / "e.txt", np.eye(4))
    (folder / "f.txt").write_text(
        '(Transform "EulerTransform")\n(NumberOfParameters 6)\n(TransformParameters 0.1 0.2 0.3 1 2 3)\n'
        '(CenterOfRotationPoint 1 2 3)\n(ComputeZYX "false")\n'
    )
    sitk.WriteTransform(euler, str(folder / "g.h5"))
    return [Original(path, [path]) for path in sorted(folder.iterdir())]


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged(content: bytes, random: np.random.Generator) -> tuple[bytes, int, int, str]:
    """Damages the content of a file in one place.

    Returns:
        tuple: the new content, where the damage starts and ends in the old one, and what it is, for a person.
    """
    size = len(content)
    # Headers lie at the start, directories of TIFF at the end.
    reach = [size, min(size, 100), min(size, 600)][int(random.integers(3))]
    at = int(random.integers(reach))
    at = size - 1 - at if random.random() < 0.15 else at
    kind = str(random.choice(["bit", "byte", "number", "digit", "run", "cut", "insert", "delete", "swap"]))
    length = min(int(random.choice([1, 2, 4, 8, 50, 500])), size - at)
    new = bytearray(content)
    end = at + length
    if kind == "bit":
        new[at] ^= 1 << int(random.integers(8))
        end = at + 1
    elif kind == "byte":
        new[at], end = int(random.integers(256)), at + 1
    elif kind == "number":
        width = min(int(random.choice([1, 2, 4, 8])), size - at)
        value = [0, -1, 1 << (8 * width - 1), (1 << (8 * width - 1)) - 1, 1 << (4 * width)][int(random.integers(5))]
        order = "little" if random.random() < 0.5 else "big"
        new[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, order)
        end = at + width
    elif kind == "digit":
        digits = [index for index in range(min(size, 2000)) if chr(content[index]) in "0123456789.-"]
        at = int(random.choice(digits)) if digits else at
        word = str(random.choice(["-", "9", "0", "1e308", "nan", "99999999", "%n", " ", "\n"])).encode()
        new[at : at + 1], end = word, at + 1
    elif kind == "run":
        new[at:end] = [bytes(length), b"\xff" * length, random.bytes(length)][int(random.integers(3))]
    elif kind == "cut":
        del new[at:]
        end = size
    elif kind == "insert":
        new[at:at], end = random.bytes(length), at
    elif kind == "delete":
        del new[at:end]
    else:
        other = int(random.integers(size - length + 1))
        new[at:end], new[other : other + length] = content[other : other + length], content[at:end]
        at, end = min(at, other), max(end, other + length)
    return bytes(new), at, end, f"{kind} at {at} of {size}"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_scan(path: Path) -> np.ndarray:
    from DNetRegistrationLib.imaging.volume import read_volume

    return read_volume(path, spacing=0.01).voxels


def read_transform(path: Path) -> np.ndarray:
    from DNetRegistrationLib.geometry.transform_files import read_transform

    return read_transform(path)


def stand_ins(folder: Path) -> list[Original]:
    """Files that make `misread` go wrong in every way, so that a test sees that it is seen."""
    (folder / "a").write_bytes(bytes(200))
    return [Original(folder / "a", [folder / "a"])]


def misread(path: Path) -> np.ndarray:
    content = path.read_bytes()
    kind = sum(content) % 5
    if kind == 1:
        os.abort()
    elif kind == 2:
        threading.Event().wait()
    elif kind == 3:
        raise IndexError("out of range")
    elif kind == 4:
        raise DNetError("is damaged")
    return np.array([len(content)])


#: What makes the sound files, and what reads them.
KINDS = {"scans": (scans, read_scan), "transforms": (transforms, read_transform), "stand-ins": (stand_ins, misread)}


def _work(kind: str, seed: int, first: int, end: int, folder: Path) -> None:
    """Damages and reads files; a line is written before each and one after it."""
    make, read = KINDS[kind]
    # Libraries write to the standard output as well.
    told = open(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    originals = make(folder)
    sound = [read(original.path) for original in originals]
    _limit_memory()
    for number in range(first, end):
        random = np.random.default_rng((seed, number))
        index = int(random.integers(len(originals)))
        original = originals[index]
        file = original.files[int(random.integers(len(original.files)))]
        content = file.read_bytes()
        new, start, stop, words = damaged(content, random)
        low, high = original.packed(content)
        log = file.suffix == ".log"
        must_notice = (words.startswith("cut") or (low <= start and stop <= high and high > low)) and not log
        print(f"{number}\t{int(must_notice)}\t{original.path.name}: {file.name}, {words}", flush=True, file=told)
        file.write_bytes(new)
        try:
            found = read(original.path)
            result = _compared(found, sound[index], original.path.is_dir())
        except DNetError:
            result = "refused"
        except Exception as error:
            result = f"traceback\t{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(result, flush=True, file=told)
        if end - first > 1:
            file.write_bytes(content)


def _compared(found: np.ndarray, sound: np.ndarray, slices: bool) -> str:
    if np.array_equal(found, sound):
        return "same"
    # The first or last slice of a folder may be damaged so much that it is no slice any more: what is left is right.
    starts = range(len(sound) - len(found) + 1) if slices else ()
    return "part" if any(np.array_equal(found, sound[k : k + len(found)]) for k in starts) else "other"


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def outcomes(
    kind: str, number: int, seed: int, first: int = 0, keep: Path | None = None, patience: float = PATIENCE
) -> Iterator[Outcome]:
    """Damages and reads so many files, in processes that may die. What takes longer than `patience` (s) hangs."""
    end = first + number
    while first < end:
        folder = Path(tempfile.mkdtemp()) if keep is None else keep
        command = [sys.executable, __file__, "--work", kind, str(seed), str(first), str(end), str(folder)]
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=places.environment()
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_pump, args=(worker, lines), daemon=True).start()
        try:
            while first < end:
                line = lines.get(timeout=10 * PATIENCE)
                if not line:
                    raise RuntimeError(f"the worker ended with {worker.wait()} before file {first}")
                count, must_notice, words = line.rstrip("\n").split("\t")
                try:
                    result, _, error = (lines.get(timeout=patience) or "died").rstrip("\n").partition("\t")
                except queue.Empty:
                    result, error = "hung", ""
                first = int(count) + 1
                yield Outcome(int(count), result, f"{words}{error and ': '}{error}", must_notice == "1")
                if result in ("died", "hung"):
                    break
        finally:
            worker.kill()
            worker.wait()
            if keep is None:
                shutil.rmtree(folder, ignore_errors=True)


def _pump(worker: subprocess.Popen, lines: queue.Queue) -> None:
    for line in worker.stdout:
        lines.put(line)
    lines.put("")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=0, metavar="N", help="how many scans to damage")
    parser.add_argument("--transforms", type=int, default=0, metavar="N", help="how many files of transforms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first one")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty folder to leave the files in")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        kind, seed, first, end, folder = options.work
        _work(kind, int(seed), int(first), int(end), Path(folder))
        return 0
    faults = 0
    for kind, number in (("scans", options.scans), ("transforms", options.transforms)):
        counts: Counter[str] = Counter()
        for outcome in outcomes(kind, number, options.seed, options.first, options.keep):
            counts["damage read as data" if outcome.is_fault and outcome.result == "other" else outcome.result] += 1
            if outcome.is_fault:
                faults += 1
                print(f"{kind} {outcome.number}: {outcome.result}: {outcome.damage}", flush=True)
        if number:
            print(f"{number} {kind}: " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
