"""A scan: its voxels, and where they lie in the world.

World coordinates are LPS millimetres, as in ITK. Voxel arrays are indexed ``[z, y, x]``, as SimpleITK's arrays are.
Vectors and matrices order their coordinates ``(x, y, z)``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import FileError, OptionError, ScanError, Setting
from ..core.files import atomic_write, writing

if TYPE_CHECKING:
    import SimpleITK as sitk
    from numpy.typing import ArrayLike
    from typing_extensions import TypeIs

#: Fewest voxels along an axis that a scan can be aligned with.
MINIMUM_SIZE = 8

#: Two scans of one object whose lengths differ by more than this factor do not both have their true spacing. A field of
#: view that shows only a piece of it stays far below. A spacing of 0.1 mm or less that was read as 1 mm lies above, and
#: so do inches and centimetres.
_PLAUSIBLE_RATIO = 8.0
# No scanner makes voxels of a bone that are so large along all axes, mm. Voxels of micro-CT in um are from 3 to 100.
_TOO_LARGE = 3.0

#: A grid counts as sheared from this share of a voxel on at its far end. Rounded headers stay below.
_SKEW = 0.1

#: Larger numbers (mm) in a geometry are damage, and would overflow when squared.
_FAR = 1e30

_WRITABLE = (".nrrd", ".nii", ".nii.gz", ".mha", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan on a regular, possibly oblique, anisotropic or left-handed grid.

    Attributes:
        voxels: ``(z, y, x)`` real-valued intensities of any dtype. NaN is outside the field of view.
        affine: ``(4, 4)`` float64, index ``(x, y, z)`` to world LPS mm.
        name: what messages call this scan: its file, or "fixed scan".
        spacing_given: the spacing was set explicitly, as with `read_volume`; plausibility checks are skipped.
        stated_affine: ``(4, 4)``, as the file states it, where another one was set explicitly: masks drawn on the file
            lie there.
        flipped_axes: the index axes, of "xyz", along which the voxels were put in reverse order.
        anatomical: its file says how the world lies in the body, so that L, P and S mean left, posterior and superior.

    Raises:
        ScanError: the affine is not a 4x4 matrix. What takes it checks everything else: see `check_image`.

    Example:
        >>> scan = Volume.from_geometry(np.zeros((4, 3, 2)), spacing=(0.01, 0.01, 0.02), origin=(5, 0, 0))
        >>> scan.size
        array([2, 3, 4])
        >>> scan.to_world((1, 0, 2))
        array([5.01, 0.  , 0.04])
        >>> scan.to_index((5.01, 0, 0.04))
        array([1., 0., 2.])
    """

    voxels: np.ndarray
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    name: str = "scan"
    spacing_given: bool = False
    stated_affine: np.ndarray | None = None
    flipped_axes: str = ""
    anatomical: bool = False

    def __post_init__(self) -> None:
        affine = _numbers(self.affine)
        if affine.shape != (4, 4):
            raise ScanError(f"{self.name}: the index-to-world affine has the shape {affine.shape}", "give a 4x4 matrix")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "voxels", np.asarray(self.voxels))

    @classmethod
    def from_geometry(
        cls,
        voxels: np.ndarray,
        spacing: float | Sequence[float] | np.ndarray = 1.0,
        direction: ArrayLike | None = None,
        origin: ArrayLike = (0.0, 0.0, 0.0),
        name: str = "scan",
    ) -> Volume:
        """Makes a volume from its geometry as ITK describes it.

        Args:
            voxels: ``(z, y, x)``.
            spacing: voxel size along the index axes x, y, z in mm, or one number for all.
            direction: ``(3, 3)`` direction cosines; columns are the index axes.
            origin: ``(3,)`` world position of the first voxel's centre in mm.
            name: what messages call the scan.

        Raises:
            OptionError: a spacing is zero, negative or not finite, or there are not one or three.
            ScanError: the direction is no 3x3 matrix, or the origin not three numbers.
        """
        affine = np.eye(4)
        axes, place = np.eye(3) if direction is None else _numbers(direction), _numbers(origin)
        if axes.size != 9 or place.shape != (3,):
            what, remedy = ("direction", "a 3x3 matrix") if axes.size != 9 else ("origin", "three numbers in mm")
            raise ScanError(f"{name}: its {what} is not {remedy}", f"give {remedy}")
        affine[:3, :3] = axes.reshape(3, 3) * _checked_spacing(spacing, name)
        affine[:3, 3] = place
        return cls(voxels, affine, name)

    @classmethod
    def from_sitk(cls, image: sitk.Image, name: str = "scan") -> Volume:
        """Makes a volume that shares the memory of a SimpleITK image, read-only, and keeps it alive.

        Raises:
            ScanError: the image is not three-dimensional with one real number a voxel.
        """
        from .itk_reader import image_affine, scalar_3d, shared_voxels

        image = scalar_3d(image, name)
        return cls(shared_voxels(image), image_affine(image), name)

    def to_sitk(self) -> sitk.Image:
        """Copies the scan to a SimpleITK image.

        Raises:
            ScanError: `check_image` refuses it.
        """
        import SimpleITK as sitk

        check_image(self)
        # ITK has no booleans, and neither half nor extended precision.
        converted = {"?": np.uint8, "e": np.float32, "g": np.float64}.get(self.voxels.dtype.char)
        voxels = self.voxels if converted is None else self.voxels.astype(converted)
        image = sitk.GetImageFromArray(voxels.astype(voxels.dtype.newbyteorder("="), copy=False))
        image.SetSpacing(self.spacing.tolist())
        image.SetDirection(self.direction.ravel().tolist())
        image.SetOrigin(self.origin.tolist())
        return image

    def flipped(self, axis: str) -> Volume:
        """The scan with its voxels in reverse order along an index axis; it shares their memory.

        The grid stays where it is. So a stack whose slices were put in reverse order, which shows the mirror image of
        what was scanned, becomes what it should be.

        Args:
            axis: "x", "y" or "z"; of slices in reverse order it is "z".

        Raises:
            OptionError: it is another.

        Example:
            >>> Volume(np.array([[[1, 2]], [[3, 4]]])).flipped("z").voxels.tolist()
            [[[3, 4]], [[1, 2]]]
        """
        voxels = reversed_along(self.voxels, _checked_axis(axis, self.name))
        return replace(self, voxels=voxels, flipped_axes=self.flipped_axes + axis)

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` voxel size along the index axes x, y, z, in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def direction(self) -> np.ndarray:
        """``(3, 3)`` unit columns: the world directions of the index axes."""
        return self.affine[:3, :3] / self.spacing

    @property
    def origin(self) -> np.ndarray:
        """``(3,)`` world position of the first voxel's centre, in mm."""
        return self.affine[:3, 3].copy()

    @property
    def size(self) -> np.ndarray:
        """``(3,)`` number of voxels along the index axes x, y, z."""
        return np.array(self.voxels.shape[::-1])

    @property
    def extent(self) -> np.ndarray:
        """``(3,)`` length of the field of view along the index axes x, y, z, in mm."""
        return self.size * self.spacing

    @property
    def center(self) -> np.ndarray:
        """``(3,)`` world position of the middle of the grid, in mm."""
        return self.to_world((self.size - 1) / 2)

    def to_world(self, index: ArrayLike) -> np.ndarray:
        """World positions (mm) of ``(..., 3)`` continuous indices (x, y, z)."""
        return np.asarray(index, float) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, point: ArrayLike) -> np.ndarray:
        """Continuous indices (x, y, z) of ``(..., 3)`` world positions in mm."""
        return (np.asarray(point, float) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def points_above(self, threshold: float, mask: np.ndarray | None = None, most: int = 20_000) -> np.ndarray:
        """World positions ``(n, 3)`` in mm of voxels above a threshold, evenly thinned to about as many as `most`.

        Args:
            threshold: in the scan's units.
            mask: ``(z, y, x)`` bool; only voxels in it count.
            most: how many are enough.
        """
        above = self.voxels > threshold
        found = np.flatnonzero(above if mask is None else above & mask)
        index = np.unravel_index(found[:: max(1, len(found) // most)], above.shape)
        return self.to_world(np.stack(index[::-1], -1))


def is_image(given: object) -> TypeIs[Volume | sitk.Image]:
    """Whether it is a `Volume` or a SimpleITK image."""
    if isinstance(given, Volume):
        return True
    import SimpleITK as sitk

    return isinstance(given, sitk.Image)


def as_volume(image: Volume | sitk.Image, name: str = "image") -> Volume:
    """The Volume, or one that shares the memory of a SimpleITK image: the door of all functions that take scans.

    Args:
        image: what a caller gave.
        name: what messages call it where it has no name of its own.

    Raises:
        ScanError: it is another thing, or `check_image` refuses it.
    """
    if isinstance(image, str | os.PathLike):
        raise ScanError(f"the {name} is a path: {os.fspath(image)!r}", "read it first, with read_volume")
    if not is_image(image):
        raise ScanError(f"the {name} is of the type {type(image).__name__}", "give a Volume or a SimpleITK image")
    if not isinstance(image, Volume):
        volume = Volume.from_sitk(image, name)
    else:
        volume = replace(image, name=name) if image.name == Volume.name else image
    check_image(volume)
    return volume


def as_scan(scan: Volume | sitk.Image, name: str = "scan") -> Volume:
    """`as_volume`, with its voxels checked by `check_volume`.

    Raises:
        ScanError: see there.
    """
    return check_volume(as_volume(scan, name))


def read_volume(
    path: str | os.PathLike,
    spacing: float | Sequence[float] | np.ndarray | None = None,
    series: str | int | None = None,
    name: str | None = None,
    role: str | None = None,
    flip: str | None = None,
) -> Volume:
    """Reads a scan: NRRD, NIfTI, MHA/MHD, TIFF, DICOM, ISQ/AIM, or a folder of slices (numbered, or DICOM).

    Infinities become NaN, which is outside the field of view. The voxels share the memory they were read into.

    Args:
        path: the file or folder.
        spacing: the true voxel size in mm, one number or three (x, y, z), in place of what the file says. PNG, BMP
            and most TIFF do not store it: there it must be given, but for slices beside the log of SkyScan's NRecon.
        series: which scan of a folder or file that holds several: its number in the list of the error message (from
            1), its UID, its description, the pattern of its slices' names, or the channel or time point.
        name: what messages call the scan; the file's name by default.
        role: "fixed" or "moving" where the scan is one of a pair; errors then say whose setting is the remedy.
        flip: "x", "y" or "z": the voxels lie in reverse order along this index axis (see `Volume.flipped`).

    Raises:
        ScanError: the scan cannot be read, cannot be aligned (`check_volume`), or its spacing looks lost.
        OptionError: the spacing is not one or three positive numbers, or the axis to flip is none.

    Example:
        >>> scan = read_volume("slices/", spacing=0.01)  # doctest: +SKIP
    """
    path = _given(path)
    if flip is not None:
        _checked_axis(flip, str(path), role)
    volume = _read(path, spacing, series, role, header_only=False)
    volume = replace(check_volume(volume), name=(path.name or str(path)) if name is None else name)
    return volume if flip is None else volume.flipped(flip)


def read_labels(
    path: str | os.PathLike,
    spacing: float | Sequence[float] | np.ndarray | None = None,
    series: str | int | None = None,
    role: str | None = None,
) -> Volume:
    """Reads an image that need not be a scan: labels, or a mask, of any size and even of one value.

    Args:
        path, spacing, series, role: as `read_volume` takes them.

    Raises:
        ScanError, OptionError: it cannot be read, or its spacing is lost; see `read_volume`.
    """
    return _read(_given(path), spacing, series, role, header_only=False)


def read_header(
    path: str | os.PathLike,
    spacing: float | Sequence[float] | np.ndarray | None = None,
    series: str | int | None = None,
    name: str | None = None,
    role: str | None = None,
) -> Volume:
    """Reads what headers say of a scan: its size, its geometry, and what is wrong with it that they show.

    This takes milliseconds, but for DICOM, where each slice has a header.

    Args:
        path, spacing, series, name, role: as `read_volume` takes them.

    Returns:
        Volume: its voxels are zeros that take no memory, of a type that is as wide as theirs, or wider.

    Raises:
        ScanError, OptionError: what `read_volume` raises, as far as headers and lengths of files tell.
    """
    path = _given(path)
    volume = _read(path, spacing, series, role, header_only=True)
    check_shape(volume)
    return replace(volume, name=(path.name or str(path)) if name is None else name)


def _given(path: str | os.PathLike) -> Path:
    # An empty path, as of a variable of a script that is not set, would be the current folder.
    if not os.fspath(path):
        raise ScanError("the path of a scan is empty", "give the path of a file or folder")
    return Path(path)


def _read(
    path: Path,
    spacing: float | Sequence[float] | np.ndarray | None,
    series: str | int | None,
    role: str | None,
    header_only: bool,
) -> Volume:
    from .reading import read_image

    if spacing is not None:
        spacing = _checked_spacing(spacing, str(path), role)
    found = read_image(path, series, role, header_only)
    volume = Volume(found.voxels, found.affine, str(path), anatomical=found.anatomical)
    check_affine(volume.affine, str(path))
    if spacing is not None:
        stated = None if found.lacks else volume.affine
        volume = Volume.from_geometry(volume.voxels, spacing, volume.direction, volume.origin, volume.name)
        volume = replace(volume, spacing_given=True, stated_affine=stated, anatomical=found.anatomical)
    elif found.lacks:
        raise ScanError(f"{path}: {found.lacks}", "give the true voxel size in mm", Setting("spacing", role))
    elif doubt := spacing_doubt(volume):
        raise ScanError(f"{path}: {doubt}", "correct or confirm the voxel size in mm", Setting("spacing", role))
    return volume


def write_volume(volume: Volume | sitk.Image, path: str | os.PathLike, compress: bool = False) -> None:
    """Writes NRRD, NIfTI, MHA or TIFF for ImageJ. The file appears whole or not at all.

    Args:
        volume: a Volume or a SimpleITK image.
        path: ends in .nrrd, .nii, .nii.gz, .mha, .tif or .tiff; other kinds cannot hold the geometry in one file. Of
            TIFF see `tiff_writer`.
        compress: smaller but slower.

    Raises:
        FileError: unknown kind of file, one that cannot hold the grid, or it cannot be written.
        ScanError: the volume is another thing, or `check_image` refuses it.
    """
    volume, path = as_volume(volume), Path(path)
    require_holdable(volume, path)
    if not path.name.lower().endswith(_WRITABLE):
        raise FileError(f"{path}: cannot write this kind of file", f"end its name in one of {', '.join(_WRITABLE)}")
    with atomic_write() as staging:
        if path.suffix.lower() in (".tif", ".tiff"):
            from .tiff_writer import write_tiff

            temporary = staging.path(path)
            with writing(path):
                write_tiff(volume.voxels, volume.affine, temporary, path)
        else:
            write_image(volume.to_sitk(), staging.path(path), path, compress)


def require_holdable(volume: Volume, path: str | os.PathLike) -> None:
    """Checks that a kind of file can hold the grid of a scan. NIfTI as ITK writes it holds no sheared one.

    Raises:
        FileError: it cannot.
    """
    direction, name = volume.direction, os.fspath(path)
    skew = np.abs(direction.T @ direction - np.eye(3)).max()
    if name.lower().endswith((".nii", ".nii.gz")) and skew * volume.extent.max() > _SKEW * volume.spacing.min():
        raise FileError(f"{name}: NIfTI cannot hold a sheared grid as that of {volume.name}", "write .nrrd or .mha")


def write_image(
    image: sitk.Image, temporary: str | os.PathLike, target: str | os.PathLike, compress: bool = False
) -> None:
    """Writes a SimpleITK image to a temporary path; errors name `target`.

    Raises:
        FileError: it cannot be written, or was cut short by a full disk.
    """
    import SimpleITK as sitk

    from ..core.quiet import quietly

    with writing(target):
        with quietly():
            sitk.WriteImage(image, os.fspath(temporary), compress)
        if not _holds(Path(temporary), image):
            raise OSError("the disk is full")


def _holds(path: Path, image: sitk.Image) -> bool:
    """Tells whether a file holds all voxels of an image. The writer of NIfTI does not notice a full disk."""
    from .truncation import unpacked_length

    size = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
    if path.name.endswith(".nii"):
        return path.stat().st_size >= size
    try:
        return not path.name.endswith(".nii.gz") or unpacked_length(path, 0, size) >= size
    except (EOFError, zlib.error):
        return False


def check_volume(volume: Volume) -> Volume:
    """Checks that a scan can be aligned, and makes its infinities NaN.

    Returns:
        Volume: shares the voxels of `volume` where these hold no infinities.

    Raises:
        ScanError: not three-dimensional, not real numbers, too few voxels, a geometry that is singular or not finite,
            a lost slice spacing, or no contrast at all (all NaN or constant).
    """
    check_shape(volume)
    return replace(volume, voxels=_checked_values(volume.voxels, volume.name))


def check_shape(volume: Volume) -> None:
    """The part of `check_volume` that needs no grey values.

    Raises:
        ScanError: see there.
    """
    check_image(volume, MINIMUM_SIZE)
    if not volume.spacing_given and _lost_slice_spacing(volume.spacing):
        raise ScanError(f"{volume.name}: {spacing_doubt(volume)}", "correct the voxel size", Setting("spacing"))


def check_image(volume: Volume, least: int = 1) -> None:
    """Checks what any image must be, a mask too: three-dimensional, of real numbers, and with a place in the world.

    Args:
        volume: the image.
        least: voxels along each axis.

    Raises:
        ScanError: it is not.
    """
    name, voxels = volume.name, volume.voxels
    if voxels.ndim != 3:
        raise ScanError(f"{name}: has {voxels.ndim} dimensions {voxels.shape}", "give one 3D scan of grey values")
    if voxels.dtype.kind not in "biuf":
        raise ScanError(f"{name}: holds {voxels.dtype} voxels", "give a scan with one real number a voxel")
    if min(voxels.shape) < least:
        axis = int(np.argmin(volume.size))
        problem = f"{name}: has only {volume.size[axis]} voxels along {'xyz'[axis]}"
        raise ScanError(problem, f"give a scan with at least {least}")
    check_affine(volume.affine, name)


def spacing_doubt(volume: Volume) -> str | None:
    """Says why the spacing of a scan looks lost rather than measured; None where it does not.

    Only values that readers and exporters fill in are doubted: a real scan with 1 mm voxels also has a position. A
    doubted spacing may still be right, which only the owner of the scan knows.
    """
    x, y, _ = volume.spacing
    if _lost_slice_spacing(volume.spacing):
        return f"its voxels are {x:.4g} x {y:.4g} mm but 1 mm from slice to slice, as if the slice distance were lost"
    longest = volume.extent.max()
    untouched = np.allclose(volume.spacing, 1, atol=1e-9) and not volume.origin.any()
    if untouched and np.array_equal(np.abs(volume.direction), np.eye(3)):
        return f"its voxels are 1 mm and the scan {longest:.0f} mm long, as if the voxel size were lost"
    if not 0.1 <= longest <= 2500:
        return f"its voxels are {times(volume)} mm and the scan {longest:.4g} mm long, as if in another unit"
    return None


def overruled_spacing(volume: Volume) -> str | None:
    """The voxel size in mm, for a person, that a file states where another one was given; None where it states none.

    None too where both agree, and where the stated one looks lost, so that the given one mends it.
    """
    if volume.stated_affine is None:
        return None
    stated = _as_stated(volume)
    ratio = volume.spacing / stated.spacing
    change = max(ratio.max(), 1 / ratio.min())
    lost = spacing_doubt(stated) or too_large(stated)
    # Exporters that know a position may fill in 1 mm all the same.
    lost = lost or (change > _PLAUSIBLE_RATIO and np.allclose(stated.spacing, 1, atol=1e-9))
    # Sizes that were rounded to three digits agree.
    return times(stated) if change > 1.005 and not lost else None


def _as_stated(volume: Volume) -> Volume:
    """The scan with the voxel size that its file states."""
    return volume if volume.stated_affine is None else Volume(volume.voxels, volume.stated_affine)


def _fits_as_stated(volume: Volume, other: float) -> bool:
    """Whether a scan whose voxel size was given has, by its file, about the length of the other scan, in mm."""
    stated = _as_stated(volume)
    ratio = stated.extent.max() / other
    return stated is not volume and not spacing_doubt(stated) and 1 / _PLAUSIBLE_RATIO <= ratio <= _PLAUSIBLE_RATIO


def check_pair_spacing(fixed: Volume, moving: Volume) -> None:
    """Checks that two scans of one object have about one size.

    Raises:
        ScanError: their lengths differ by so much that a spacing must be wrong, and not both were set explicitly, or
            one is as large as micrometres are.
    """
    scans = {"fixed": fixed, "moving": moving}
    lengths = {role: float(scan.extent.max()) for role, scan in scans.items()}
    if max(lengths.values()) <= _PLAUSIBLE_RATIO * min(lengths.values()):
        return
    large = [role for role in scans if too_large(scans[role])]
    if len(large) == 1:
        raise _micrometres(scans[large[0]], large[0])
    doubted = [role for role in scans if not scans[role].spacing_given]
    if not doubted:
        return
    # Where it is the file itself that a given size contradicts, the file may be right.
    others = {"fixed": "moving", "moving": "fixed"}
    given = [one for one in scans if one not in doubted and _fits_as_stated(scans[one], lengths[others[one]])]
    # Where one spacing is 1 mm and the other was measured, the 1 mm is at fault.
    defaults = [role for role in doubted if np.isclose(scans[role].spacing, 1).any()]
    suspects = given or (defaults if len(defaults) == 1 else doubted)
    suspect = suspects[0] if len(suspects) == 1 else None
    stated = "" if not given else f" (the file of the {given[0]} scan states {times(_as_stated(scans[given[0]]))} mm)"
    raise ScanError(
        f"{fixed.name} and {moving.name}: the fixed scan is {lengths['fixed']:.4g} mm long (voxels of {times(fixed)} "
        f"mm), the moving scan {lengths['moving']:.4g} mm (voxels of {times(moving)} mm), too different for one "
        f"object, as if a voxel size were {'wrong' if given else 'lost'}{stated}",
        f"give the true voxel size of the {f'{suspect} scan' if suspect else 'wrong one'} in mm",
        Setting("spacing", suspect),
    )


def check_micrometres(volume: Volume, role: str) -> None:
    """Checks that the voxel size of a scan is not one in micrometres.

    Raises:
        ScanError: it is too large for a scan of a bone.
    """
    if too_large(volume):
        raise _micrometres(volume, role)


def too_large(volume: Volume) -> bool:
    """Whether no scanner makes voxels of a bone that are so large along all axes."""
    return bool(volume.spacing.min() >= _TOO_LARGE)


def _micrometres(volume: Volume, role: str) -> ScanError:
    return ScanError(
        f"{volume.name}: the voxels of the {role} scan are {times(volume)} mm, too large for a scan of a bone, as "
        "if these were micrometres",
        f"give the true voxel size of the {role} scan in mm: 10 um are 0.01 mm",
        Setting("spacing", role),
    )


def reversed_along(voxels: np.ndarray, axes: str) -> np.ndarray:
    """``(z, y, x)`` voxels in reverse order along index axes, given by their letters; a view of the same memory."""
    for axis in axes:
        voxels = np.flip(voxels, "zyx".index(axis))
    return voxels


def _checked_axis(axis: str, name: str, role: str | None = None) -> str:
    if axis not in ("x", "y", "z"):
        raise OptionError(f"{name}: cannot be flipped along {axis!r}", "give x, y or z", Setting("flip", role))
    return axis


def times(volume: Volume) -> str:
    """The voxel size in mm, for a person, as ``0.01 x 0.01 x 0.02``."""
    return " x ".join(f"{s:.4g}" for s in volume.spacing)


def _numbers(values: ArrayLike) -> np.ndarray:
    """A float64 copy; of what holds no numbers, an empty array."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty(0)


def _checked_spacing(spacing: float | Sequence[float] | np.ndarray, name: str, role: str | None = None) -> np.ndarray:
    setting = Setting("spacing", role)
    values = _numbers(spacing)
    if values.shape not in ((), (1,), (3,)):
        remedy = "give the true voxel size in mm"
        raise OptionError(f"{name}: the spacing {spacing} is not one number or three (x, y, z)", remedy, setting)
    if not (np.isfinite(values) & (values > 0)).all():
        text = ", ".join(f"{v:g}" for v in values.ravel())
        remedy = "give a positive, finite voxel size in mm"
        raise OptionError(f"{name}: the spacing is {text}", remedy, setting)
    return np.broadcast_to(values, 3)


def check_affine(affine: np.ndarray, name: str) -> None:
    """Checks an index-to-world affine ``(4, 4)``; `name` is what messages call its image.

    Raises:
        ScanError: it is singular or not finite.
    """
    if not (np.abs(affine) < _FAR).all():
        raise ScanError(f"{name}: its spacing, direction or origin is not finite", "correct the geometry")
    if not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise ScanError(f"{name}: the last row of its affine is not 0, 0, 0, 1", "correct the geometry")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not (spacing > 0).all():
        raise ScanError(f"{name}: the spacing along {'xyz'[int(np.argmin(spacing))]} is zero", "correct the voxel size")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise ScanError(f"{name}: the directions of its axes are singular", "correct the geometry")


def _lost_slice_spacing(spacing: np.ndarray) -> bool:
    """Tells whether slices are exactly 1 mm apart and their pixels a tenth of that or less.

    That is how ITK reads micro-CT stacks of TIFF and PNG, which store no slice distance.
    """
    return bool(spacing[2] == 1 and spacing[:2].max() <= 0.1)


def _checked_values(voxels: np.ndarray, name: str) -> np.ndarray:
    """Makes infinities NaN and checks for contrast, slab by slab, since a scan may fill most of the memory."""
    slabs = [voxels[start : start + 16] for start in range(0, len(voxels), 16)]
    real = voxels.dtype.kind == "f"
    if real and any(np.isinf(slab).any() for slab in slabs):
        voxels = np.where(np.isinf(voxels), voxels.dtype.type(np.nan), voxels)
        slabs = [voxels]
    low, high = np.inf, -np.inf
    for slab in slabs:
        finite = slab[~np.isnan(slab)] if real else slab
        if finite.size:
            low, high = min(low, finite.min()), max(high, finite.max())
        if low < high:
            return voxels
    if low > high:
        raise ScanError(f"{name}: has no finite voxel (all NaN or infinite)", "export the scan again")
    raise ScanError(f"{name}: is constant (every voxel is {low:g})", "export the scan again")
