"""Reads images with ITK, and says in words what keeps one from being read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import ScanError, one_line
from ..core.files import is_unicode
from ..core.quiet import quietly
from ..geometry.transforms import affine_matrix
from .foreign import unknown_kind
from .text_headers import CORRECT_SPACING, check_text_header
from .truncation import ends_early, is_truncated

if TYPE_CHECKING:
    import SimpleITK as sitk
    from numpy.typing import DTypeLike

DICOM_READER, _JPEG = "GDCMImageIO", "JPEGImageIO"
#: The library of JPEG says what is wrong on the terminal alone.
_JPEG_DAMAGE = re.compile(r".*(Corrupt JPEG|Premature end of JPEG|Unsupported marker|was not defined).*")
#: ITK's readers of the kinds of file that are told by their endings. Its others are not used: GIPL, VTK, MRC and more
#: take any damage for voxels.
READERS = {
    ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".h5": "HDF5ImageIO",
    ".hdf5": "HDF5ImageIO", ".png": "PNGImageIO", ".bmp": "BMPImageIO", ".jpg": _JPEG, ".jpeg": _JPEG,
}  # fmt: skip
_NOT_THAT_KIND = (
    "of any recognized format|cannot be read: .* for reading|not png type|Magic Number Fails|could not open file|"
    "H5Fopen failed|Cannot read requested file"
)


@dataclass(frozen=True, eq=False)
class FoundImage:
    """An image read from a path.

    Attributes:
        voxels: ``(z, y, x)`` real numbers; those of `blank` where the headers alone were read.
        affine: ``(4, 4)`` index (x, y, z) to world LPS mm.
        lacks: what the file does not say of the voxel size, for a person; "" where it says all of it.
        anatomical: the file says how the world lies in the body.
        placed: the file says where the image lies.
    """

    voxels: np.ndarray
    affine: np.ndarray
    lacks: str = ""
    anatomical: bool = False
    placed: bool = True


def blank(shape: Sequence[int], kind: DTypeLike) -> np.ndarray:
    """Zeros of a shape ``(z, y, x)`` and a type that take no memory, for an image of which the header is read alone."""
    return np.broadcast_to(np.zeros((), kind), tuple(shape))


def reader_of(path: Path) -> str | None:
    """ITK's reader for a kind of file, by the ending of its name; None where it is none of those that are read."""
    name = path.name.lower()
    return next((reader for ending, reader in READERS.items() if name.endswith(ending)), None)


def read_file(file: Path, path: Path, reader: str = DICOM_READER) -> np.ndarray:
    """The voxels of one file; errors name `path`.

    Raises:
        ScanError: it cannot be read, or holds no one real number a voxel.
    """
    image = read_itk([file], path, reader)
    if image.GetDimension() == 2:
        import SimpleITK as sitk

        image = sitk.JoinSeries([image])
    return shared_voxels(scalar_3d(image, path, grey_as_colours=True))


def read_series(files: list[Path], path: Path) -> np.ndarray:
    """The voxels ``(z, y, x)`` of slices in DICOM, one file each in their order.

    All must store their values alike: ITK takes the kind of the first file for all.

    Raises:
        ScanError: one cannot be read, or has another size.
    """
    return shared_voxels(scalar_3d(read_itk(files, path, DICOM_READER), path, grey_as_colours=True))


def stack_slices(files: list[Path], path: Path, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    """The voxels ``(z, y, x)`` of slices, each read by itself, in the type that holds those of all.

    Args:
        files: in the order of the slices.
        path: the folder that messages name.
        read: gives the voxels ``(y, x)`` of a file.

    Raises:
        ScanError: one cannot be read, or has another size.
    """
    stack = np.empty((len(files), 0, 0), np.uint8)
    for index, file in enumerate(files):
        plane = read(file)
        if index == 0:
            stack = np.empty((len(files), *plane.shape), plane.dtype)
        elif plane.shape != stack.shape[1:]:
            raise mixed_sizes(path, stack.shape[1:], plane.shape, file)
        stack = stack.astype(np.result_type(stack, plane), copy=False)
        stack[index] = plane
    return stack


def mixed_sizes(path: Path, one: tuple[int, ...], other: tuple[int, ...], file: Path) -> ScanError:
    """The error that slices of two sizes ``(y, x)`` lie in one folder."""
    return ScanError(
        f"{path}: mixes images of {one[1]} x {one[0]} and {other[1]} x {other[0]} pixels (first at {file.name})",
        "keep only the slices of one scan in the folder",
    )


def image_affine(image: sitk.Image) -> np.ndarray:
    """The ``(4, 4)`` index-to-world affine (LPS mm) of a three-dimensional image."""
    axes = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    return affine_matrix(axes, image.GetOrigin())


class _SharedVoxels:
    """Lends NumPy the memory of an image.

    SimpleITK's own array views do not keep the image alive. The image kept here is a second owner of the same memory:
    when the first image is written to, SimpleITK gives that one a copy, and this memory stays as it is.
    """

    def __init__(self, image: sitk.Image) -> None:
        import SimpleITK as sitk

        self.__array_interface__ = sitk.GetArrayViewFromImage(image).__array_interface__
        self._owner = sitk.Image(image)


def shared_voxels(image: sitk.Image) -> np.ndarray:
    """The voxels of an image, read-only, in its own memory, which they keep alive."""
    voxels = np.asarray(_SharedVoxels(image))
    voxels.flags.writeable = False
    return voxels


def scalar_3d(image: sitk.Image, name: object, grey_as_colours: bool = False) -> sitk.Image:
    """Checks that an image is three-dimensional with one real number a voxel, or plainly stands for one.

    Args:
        image: a fourth axis of length one is dropped.
        name: what messages call it.
        grey_as_colours: whether three equal colours are one grey value. Readers of pictures make them out of a palette,
            as every 8-bit BMP has.

    Returns:
        SimpleITK.Image: `image` itself where nothing had to be dropped.

    Raises:
        ScanError: two or four dimensions, colours or other vectors, complex numbers.
    """
    import SimpleITK as sitk

    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    channels = image.GetNumberOfComponentsPerPixel()
    if channels == 1 and "vector" in image.GetPixelIDTypeAsString():
        image = sitk.VectorIndexSelectionCast(image, 0)
    kind = image.GetPixelIDTypeAsString()
    if channels > 1 and grey_as_colours and image.GetDimension() == 3:
        grey = _grey(image)
        if grey is not None:
            return grey
    require_scalar_3d(name, image.GetSize(), channels, "complex" in kind)
    # NumPy is given no label map: SimpleITK ends the process.
    if "label" in kind or not re.search(r"(integer|float)$", kind):
        raise ScanError(f"{name}: holds {kind} voxels", "export it with one grey value a voxel")
    return image


def require_scalar_3d(name: object, size: Sequence[int], channels: int = 1, is_complex: bool = False) -> None:
    """Checks that an image is three-dimensional with one real number a voxel.

    Args:
        name: what messages call it.
        size: along each axis.
        channels: values a voxel.
        is_complex: the values are complex numbers.

    Raises:
        ScanError: it is not.
    """
    text = " x ".join(str(n) for n in size)
    if len(size) == 2:
        raise ScanError(f"{name}: is a single 2D image ({text})", "give a 3D scan, or the folder of all its slices")
    if len(size) != 3:
        raise ScanError(f"{name}: has {len(size)} dimensions ({text})", "give one 3D scan, as of one time point")
    if is_complex:
        raise ScanError(f"{name}: holds complex numbers", "give one real value a voxel, such as the magnitude")
    if channels > 1:
        raise too_many_values(name, channels)


def _grey(image: sitk.Image) -> sitk.Image | None:
    """Takes one channel of an image whose colours are all equal and whose opacity is constant; else None."""
    import SimpleITK as sitk

    return sitk.VectorIndexSelectionCast(image, 0) if colours_are_equal(sitk.GetArrayViewFromImage(image)) else None


def colours_are_equal(values: np.ndarray) -> bool:
    """Whether pixels ``(..., channel)`` are grey: their colours are all equal, and their opacity is constant."""
    colours = 3 if values.shape[-1] >= 3 else 1
    return all(
        (values[..., channel] == (values[..., 0] if channel < colours else values.flat[channel])).all()
        for channel in range(1, values.shape[-1])
    )


def too_many_values(name: object, number: int) -> ScanError:
    """The error that a scan holds several values a voxel."""
    remedy = "export it with one grey value a voxel"
    return ScanError(f"{name}: holds {number} values a voxel (colour or vectors)", remedy)


def read_itk(files: list[Path], path: Path, reader: str) -> sitk.Image:
    """Reads one file, or several slices as one image.

    Args:
        files: one file, or slices in their order.
        path: the file or folder that messages name.
        reader: which of ITK's readers reads them.

    Raises:
        ScanError: it cannot be read, ends early or is damaged.
    """
    import SimpleITK as sitk

    for file in files:
        _check_file(file)
    try:
        with quietly(output=reader == _JPEG) as noise:
            names = [str(file) for file in files]
            image = sitk.ReadImage(names if len(names) > 1 else names[0], imageIO=reader)
    except RuntimeError as error:
        _check_slices(files, path, reader)
        raise _explained(path, error) from error
    if reader == _JPEG and (damage := _JPEG_DAMAGE.search(noise.text)):
        raise ScanError(f"{path}: is damaged ({damage[0].strip()})", "copy or export it again")
    return image


def read_itk_header(file: Path, reader: str) -> FoundImage:
    """The header of one file that holds a whole image, as `read_itk` would read it.

    Raises:
        ScanError: it cannot be read, ends early, or holds no one real number a voxel.
    """
    import SimpleITK as sitk

    found = opened_header(file, reader)
    size, channels = found.GetSize(), found.GetNumberOfComponents()
    while len(size) > 2 and size[-1] == 1:
        size = size[:-1]
    kind = sitk.GetPixelIDValueAsString(found.GetPixelID())
    require_scalar_3d(file, size, channels, "complex" in kind)
    bits = {"8": "u1", "16": "u2", "32": "f4", "64": "f8"}
    width = re.search(r"\d+", kind)
    return FoundImage(blank(size[::-1], bits[width[0]] if width else "f4"), header_affine(found))


def opened_header(file: Path, reader: str) -> sitk.ImageFileReader:
    """What the header of a file says, of images of vectors too.

    Raises:
        ScanError: it cannot be read, or the file ends early.
    """
    import SimpleITK as sitk

    _check_file(file, header=True)
    found = sitk.ImageFileReader()
    found.SetFileName(str(file))
    found.SetImageIO(reader)
    try:
        with quietly():
            found.ReadImageInformation()
    except RuntimeError as error:
        raise _explained(file, error) from error
    return found


def header_affine(found: sitk.ImageFileReader) -> np.ndarray:
    """``(4, 4)`` index (x, y, z) to world LPS mm. Where there is a fourth axis of length one, the first three count."""
    axes = np.reshape(found.GetDirection(), (found.GetDimension(),) * 2)[:3, :3]
    return affine_matrix(axes * np.array(found.GetSpacing()[:3]), found.GetOrigin()[:3])


def _check_file(file: Path, header: bool = False) -> None:
    require_unicode(file)
    check_text_header(file, header)
    try:
        truncated = is_truncated(file)
    except ValueError as error:
        raise ScanError(f"{file}: cannot be read ({error})", "copy or export the scan again") from error
    if truncated:
        raise ends_early(file)


def require_unicode(path: Path) -> None:
    """Checks that a name is UTF-8, which ITK takes for granted.

    Raises:
        ScanError: it is not.
    """
    if not is_unicode(path):
        raise ScanError(f"{path}: its name is not UTF-8", "rename the file or folder")


def _explained(path: Path, error: RuntimeError) -> ScanError:
    """Words an error of ITK's readers, which raise one kind of error for every cause."""
    text = str(error)
    if re.search(_NOT_THAT_KIND, text):
        return unknown_kind(path)
    if "spacing" in text and "ero" in text:
        return ScanError(f"{path}: its spacing is zero or not a number", CORRECT_SPACING)
    if "rthonormal" in text or "determinant is 0" in text:
        return ScanError(f"{path}: the directions of its axes are singular", "correct the header")
    if "ot only" in text or "not read completely" in text or "end of file" in text.lower():
        return ends_early(path)
    if path.suffix.lower() in (".mha", ".mhd") and "No such file" in text:
        remedy = "copy the scan again, with the data file beside the header"
        return ScanError(f"{path}: its voxels are missing or cut short", remedy)
    return ScanError(f"{path}: cannot be read ({one_line(error)})", "copy or export the scan again")


def _check_slices(files: list[Path], path: Path, reader: str) -> None:
    """Finds the slice that keeps a stack from being read."""
    import SimpleITK as sitk

    if len(files) == 1:
        return
    expected = None
    for file in files:
        header = sitk.ImageFileReader()
        header.SetFileName(str(file))
        header.SetImageIO(reader)
        try:
            with quietly():
                header.ReadImageInformation()
                size = header.GetSize()[:2]
                if expected in (None, size):
                    header.Execute()
        except RuntimeError as error:
            raise _explained(file, error) from error
        if expected is None:
            expected = size
        elif size != expected:
            raise mixed_sizes(path, expected[::-1], size[::-1], file)
