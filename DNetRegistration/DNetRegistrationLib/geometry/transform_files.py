"""Files of rigid transforms: those of ITK, of elastix, and a 4x4 matrix as text.

A matrix maps fixed to moving points, in world coordinates (LPS, mm), as all of these files do. ITK's reader trusts a
file: wrong counts of parameters are accepted or end the process. Files are checked here before ITK sees them; HDF5,
which cannot be checked, is read in a process of its own.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import FileError, OptionError, one_line
from ..core.files import atomic_write, is_unicode, temporary_folder, writing
from ..core.provenance import MARKED
from ..core.quiet import quietly
from .transforms import affine_matrix, from_sitk, is_sitk, matrix_of, require_rigid, to_sitk

if TYPE_CHECKING:
    import SimpleITK as sitk

_KINDS = "give .tfm, .h5 or .mat of ITK, a transform file of elastix, or a 4x4 matrix as text"
#: Files of rigid transforms are small; those of deformations are not.
_LARGEST = 1 << 22
_DEEPEST = 16
_TEXT = (".tfm", ".txt")
_WRITABLE = (*_TEXT, ".h5", ".hdf5", ".mat")
#: Into a MATLAB file ITK writes the parameters of a composite transform, but not what they are of.
_WITH_PARTS = "write it as .tfm or .h5"
#: Seconds of the processor's time that reading HDF5 may take; where they cannot be limited, the clock's. It takes one.
_LONGEST, _LONGEST_BY_CLOCK = 10, 60

#: Numbers of parameters and of fixed parameters, by ITK's name of the kind of transform.
_COUNTS = {
    "AffineTransform": (12, (3,)), "MatrixOffsetTransformBase": (12, (3,)), "Euler3DTransform": (6, (3, 4)),
    "VersorRigid3DTransform": (6, (3,)), "VersorTransform": (3, (3,)), "QuaternionRigidTransform": (7, (3,)),
    "Similarity3DTransform": (7, (3,)), "ScaleTransform": (3, (3,)), "ScaleVersor3DTransform": (9, (3,)),
    "ScaleSkewVersor3DTransform": (15, (3,)), "TranslationTransform": (3, (0,)), "IdentityTransform": (0, (0,)),
    "CompositeTransform": (0, (0,)),
}  # fmt: skip


def read_transform(path: str | os.PathLike) -> np.ndarray:
    """The ``(4, 4)`` matrix of a transform file, fixed to moving points, LPS mm.

    Args:
        path: ITK's .tfm or .txt, .mat or .h5; a transform parameter file of elastix, with those that it starts from; or
            text of the 16 numbers of a matrix, row by row.

    Raises:
        FileError: it cannot be read, is damaged, or is not rigid.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: there is no such transform file", "check the path")
    if not is_unicode(path):
        raise FileError(f"{path}: its name is not UTF-8", "rename the file")
    try:
        if path.stat().st_size > _LARGEST:
            raise FileError(f"{path}: is too large for a rigid transform", _KINDS)
        content = path.read_bytes()
        if content.startswith(b"\x89HDF"):
            return require_rigid(_in_another_process(path), "the transform")
        text = content.decode("utf-8", "replace")
        if "\0" not in text and "\ufffd" not in text:
            if content.startswith(b"#Insight Transform File"):
                _require_ending(path, ".tfm", ".txt")
                _check_text(text)
            elif re.search(r"^\s*\(Transform\s", text, re.MULTILINE):
                return require_rigid(_elastix(path, text, 0), "the transform")
            else:
                return require_rigid(_matrix(path, text), "the matrix")
        else:
            _require_ending(path, ".mat")
            _check_matlab(content)
        return from_sitk(_read_itk(path, content))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({one_line(error)})", "check the file and its permissions") from error
    except (_Damaged, RuntimeError) as error:
        raise FileError(f"{path}: is no transform file ({one_line(error)})", _KINDS) from error
    except OptionError as error:
        raise FileError(f"{path}: {error.problem}", error.remedy) from error


def _read_itk(path: Path, content: bytes) -> sitk.Transform:
    import SimpleITK as sitk

    with quietly():
        if path.suffix.islower():
            return sitk.ReadTransform(os.fspath(path))
        with temporary_folder() as folder:  # ITK knows endings in small letters alone
            copy = folder / f"transform{path.suffix.lower()}"
            copy.write_bytes(content)
            return sitk.ReadTransform(os.fspath(copy))


class _Damaged(Exception):
    """What is wrong with a transform file."""


def _require_ending(path: Path, *endings: str) -> None:
    # ITK chooses its reader by the ending.
    if path.suffix.lower() not in endings:
        raise _Damaged(f"what it holds belongs into a file that ends in {endings[0]}")


def _several() -> OptionError:
    """SimpleITK would take the first of them."""
    return OptionError("holds several transforms that are not one", "write each to a file, or a composite one as .tfm")


def _check_kind(name: str, parameters: int, fixed: int) -> None:
    """Checks that a transform of ITK is linear, three-dimensional, and has all its parameters and no more."""
    found = re.fullmatch(r"(\w+?)_(?:double|float)_(\d+)_(\d+)", name)
    kind, dimensions = (found[1], found[2]) if found else (name, "3")
    if kind in ("Euler2DTransform", "Rigid2DTransform", "Similarity2DTransform"):
        dimensions = "2"
    if kind not in _COUNTS and kind.startswith(("BSpline", "Displacement", "ThinPlate", "Elastic", "Gaussian")):
        raise OptionError(f"{kind} is not a linear transform", "give a rigid one")
    if dimensions != "3":
        raise OptionError(f"{kind} has {dimensions} dimensions", "give a 3D rigid transform")
    if kind not in _COUNTS:
        raise _Damaged(f"the transform {kind[:40]!r} is not known")
    wanted, wanted_fixed = _COUNTS[kind]
    if parameters != wanted or fixed not in wanted_fixed:
        raise _Damaged(f"{kind} has {parameters} parameters and {fixed} fixed ones, not {wanted} and {wanted_fixed[0]}")


def _numbers(text: str) -> list[float]:
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise _Damaged("a parameter is not a number") from None
    if not all(math.isfinite(value) and abs(value) < 1e100 for value in values):
        raise _Damaged("a parameter is not finite")
    return values


def _check_text(text: str) -> None:
    blocks = re.split(r"^Transform:", text, flags=re.MULTILINE)[1:]
    if not blocks:
        raise _Damaged("it holds no transform")
    # ITK numbers the transforms, and ends each line.
    if not text.endswith("\n") or len(blocks) != len(re.findall(r"^#Transform \d+", text, re.MULTILINE) or blocks):
        raise _Damaged("it ends early")
    composite = blocks[0].lstrip().startswith("CompositeTransform")
    if composite and len(blocks) == 1:
        raise _Damaged("the parts of its transform are missing")
    if not composite and len(blocks) > 1:
        raise _several()
    for block in blocks:
        name, *lines = block.strip("\n").split("\n")
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        composite = name.strip().startswith("CompositeTransform")  # its parameters are those of its parts
        if not composite and not {"Parameters", "FixedParameters"} <= fields.keys():
            raise _Damaged("its parameters are missing")
        counts = [len(_numbers(fields.get(field, ""))) for field in ("Parameters", "FixedParameters")]
        _check_kind(name.strip(), *counts)


def _check_matlab(content: bytes) -> None:
    """Checks a MATLAB file of version 4 as ITK writes it: parameters by the transform's name, then the fixed ones."""
    position, found = 0, []
    while position < len(content):
        if position + 20 > len(content):
            raise _Damaged("the file ends early")
        order = "<" if content[position + 1 : position + 4] == b"\0\0\0" else ">"
        kind, rows, columns, imaginary, length = struct.unpack_from(order + "5i", content, position)
        size = {0: 8, 10: 4, 1000: 8, 1010: 4}.get(kind)
        if size is None or imaginary or not 0 < length <= 200 or not 0 <= rows <= 1000 or columns not in (0, 1):
            raise _Damaged("it is no MATLAB file of version 4")
        start = position + 20 + length
        end = start + rows * columns * size
        if end > len(content):
            raise _Damaged("the file ends early")
        values = np.frombuffer(content[start:end], np.dtype(f"{order}f{size}"))
        if not (np.abs(values) < 1e100).all():
            raise _Damaged("a parameter is not finite")
        found.append((content[position + 20 : start].rstrip(b"\0").decode("latin-1"), len(values)))
        position = end
    if not found or len(found) % 2:
        raise _Damaged("it holds no transform")
    if len(found) > 2:
        raise _several()
    (name, count), (fixed, fixed_count) = found
    if fixed != "fixed":
        raise _Damaged("its fixed parameters are missing")
    if name.startswith("CompositeTransform"):
        raise OptionError("a MATLAB file lacks the parts of a composite transform", _WITH_PARTS)
    _check_kind(name, count, fixed_count)


_READ_HDF5 = """
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2])))
except (ImportError, ValueError, OSError):
    pass
import SimpleITK as sitk
transform = sitk.ReadTransform(sys.argv[1])
zero = (0.0, 0.0, 0.0)
linear = transform.GetDimension() == 3 and transform.IsLinear()
columns = [transform.TransformVector([float(a == k) for k in range(3)], zero) for a in range(3)] if linear else []
shift = transform.TransformPoint(zero) if linear else ()
print(json.dumps([transform.GetName(), transform.GetDimension(), linear, columns, shift]))
"""


def _in_another_process(path: Path) -> np.ndarray:
    """The matrix of an HDF5 file. A damaged one may end the process that reads it."""
    command = [sys.executable, "-c", _READ_HDF5, os.fspath(path.resolve()), str(_LONGEST)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_BY_CLOCK, errors="replace")
    except subprocess.TimeoutExpired:
        raise _Damaged("the HDF5 file is damaged") from None
    if done.returncode:
        raise _Damaged("the HDF5 file is damaged, or holds no transform")
    if "more than one transform" in done.stderr:  # as SimpleITK warns
        raise _several()
    name, dimension, linear, columns, shift = json.loads(done.stdout)
    if dimension != 3:
        raise OptionError(f"{name} has {dimension} dimensions", "give a 3D rigid transform")
    if not linear:
        raise OptionError(f"{name} is not a linear transform", "give a rigid one")
    return affine_matrix(np.transpose(columns), shift)


def _matrix(path: Path, text: str) -> np.ndarray:
    """The matrix of a text of 16 numbers; what follows # on a line is a comment."""
    lines = [line.split("#")[0].split("%")[0].strip(" \t\r,;[]") for line in text.splitlines()]
    rows = [_numbers(line.replace(";", " ")) for line in lines if line]
    values = [value for row in rows for value in row]
    if len(values) != 16:
        raise _Damaged("it is none of ITK or elastix, and does not hold the 16 numbers of a matrix")
    if path.suffix.lower() == ".mat":
        remedy = "write it as .txt if it maps fixed to moving points in LPS mm; a matrix of FSL does not"
        raise OptionError("a text matrix in a .mat file is as FSL writes it, in coordinates of its own", remedy)
    return np.reshape(values, (4, 4))


def _elastix(path: Path, text: str, depth: int) -> np.ndarray:
    """The matrix of a transform parameter file of elastix: the transform after the one that it starts from."""
    fields = {name: value.strip() for name, value in re.findall(r"^\s*\((\w+)\s+([^)]*)\)", text, re.MULTILINE)}
    if re.search(r"^\s*\([^)\n]*\n*\Z", text, re.MULTILINE):
        raise _Damaged("it ends early")

    def word(name: str, otherwise: str) -> str:
        return fields.get(name, otherwise).strip('"')

    kind = word("Transform", "")
    parameters = _numbers(fields.get("TransformParameters", ""))
    wanted = {"EulerTransform": 6, "AffineTransform": 12, "TranslationTransform": 3}.get(kind)
    if wanted is None:
        raise OptionError(f"{kind} of elastix is not a rigid transform", "give one of EulerTransform")
    if word("FixedImageDimension", "3") != "3" or word("MovingImageDimension", "3") != "3":
        raise OptionError(f"{kind} is not three-dimensional", "give a 3D rigid transform")
    told = word("NumberOfParameters", str(wanted))
    if len(parameters) != wanted or told != str(wanted):
        raise _Damaged(f"{kind} has {len(parameters)} parameters, not {wanted}")
    if word("UseDirectionCosines", "true") != "true":
        raise OptionError("it was made without the directions of the axes", "run elastix with UseDirectionCosines true")
    centre = np.array(_numbers(fields.get("CenterOfRotationPoint", "0 0 0" if kind == "TranslationTransform" else "")))
    if len(centre) != 3:
        raise _Damaged("CenterOfRotationPoint has no three numbers")
    linear = np.eye(3)
    if kind == "EulerTransform":
        linear = _euler(parameters[:3], word("ComputeZYX", "false") == "true")
    elif kind == "AffineTransform":
        linear = np.reshape(parameters[:9], (3, 3))
    matrix = affine_matrix(linear, np.array(parameters[-3:]) + centre - linear @ centre)
    first = word("InitialTransformParametersFileName", word("InitialTransformParameterFileName", "NoInitialTransform"))
    if first == "NoInitialTransform":
        return matrix
    if word("HowToCombineTransforms", "Compose") != "Compose":
        raise OptionError("it adds its transforms", "run elastix with HowToCombineTransforms Compose")
    start = path.parent / first
    if depth >= _DEEPEST or not start.is_file() or start.stat().st_size > _LARGEST:
        raise _Damaged(f"the transform that it starts from cannot be read: {first[:80]}")
    return matrix @ _elastix(start, start.read_text("utf-8", "replace"), depth + 1)


def _euler(angles: list[float], zyx: bool) -> np.ndarray:
    """The rotation of ITK's Euler angles about x, y and z, in radians."""
    turns = []
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[j, i] = math.sin(angle)
        turn[i, j] = -turn[j, i]
        turns.append(turn)
    x, y, z = turns
    return z @ y @ x if zyx else z @ x @ y


def stated_mark(path: str | os.PathLike) -> str:
    """What `write_transform` wrote into a file of text of an alignment that is not accepted; empty of any other.

    Raises:
        OSError: the file cannot be read.
    """
    if Path(path).suffix.lower() not in _TEXT:
        return ""
    text = Path(path).read_text("utf-8", "replace")
    found = re.search(rf"^# {MARKED}: (.+)$", text, re.MULTILINE)
    return found[1] if found else ""


def read_truth(path: str | os.PathLike) -> np.ndarray:
    """Reads a transform that is taken for true, as `read_transform` does.

    Raises:
        FileError: it cannot be read, or says that it is of an alignment which is not accepted.
    """
    matrix = read_transform(path)
    if mark := stated_mark(path):
        remedy = "give the true transform; once you have seen that this one is true, take its last line out"
        raise FileError(f"{path}: is no truth, as the alignment that it is of is {mark}", remedy)
    return matrix


def write_transform(transform: Any, path: str | os.PathLike) -> None:
    """Writes a transform file. It appears whole or not at all.

    Args:
        transform: a ``(4, 4)`` matrix, an `Alignment` or a SimpleITK transform, fixed to moving points, LPS mm.
        path: ends in .tfm, .txt, .h5, .hdf5 or .mat.

    A transform of SimpleITK is written as it is, also one that is not rigid. Of an alignment that is not accepted,
    .tfm and .txt say so in a comment.

    Raises:
        OptionError: it is none of them, or a matrix that is not rigid.
        FileError: an unknown kind of file, a composite transform as .mat, or it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITABLE:
        raise FileError(f"{path}: cannot write this kind of file", f"end its name in one of {', '.join(_WRITABLE)}")
    with atomic_write() as staging:
        write_transform_at(transform, staging.path(path), path)


def write_transform_at(transform: Any, temporary: str | os.PathLike, target: str | os.PathLike) -> None:
    """Writes a transform, as `write_transform` takes it, to a temporary path; errors name `target`.

    Raises:
        OptionError: it is no transform, or a matrix that is not rigid.
        FileError: it cannot be written.
    """
    import SimpleITK as sitk

    mark = getattr(transform, "mark", "")
    if not is_sitk(transform):
        matrix_of(transform)  # refuses what is none; the matrix itself is written to the last bit
        transform = to_sitk(getattr(transform, "matrix", transform))
    elif transform.GetTransformEnum() == sitk.sitkComposite:
        if Path(target).suffix.lower() == ".mat":
            raise FileError(f"{target}: a MATLAB file lacks the parts of a composite transform", _WITH_PARTS)
        transform = sitk.CompositeTransform(transform)
        transform.FlattenTransform()  # files hold no composites of composites
        if not transform.GetNumberOfTransforms():
            raise OptionError("the composite transform has no parts", "write the transform that is meant")
    with writing(target):
        sitk.WriteTransform(transform, os.fspath(temporary))
        if mark and Path(temporary).suffix.lower() in _TEXT:
            # Last: readers other than ITK's count the lines before it.
            with open(temporary, "a", encoding="ascii", newline="\n") as stream:
                stream.write(f"# {MARKED}: {mark}\n")
