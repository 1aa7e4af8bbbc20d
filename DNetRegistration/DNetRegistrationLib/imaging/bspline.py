"""Cubic B-splines through all voxels of a scan, on another grid of any size. Needs no torch.

Values are those of SciPy's, to the precision of float32. At 112^3 voxels the coefficients took a quarter of its
processor time, and so did the values by VTK, which is used where it is installed; at 256^3 these took a third.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from ..core.threads import in_threads

# The pole of the recursive filter; its powers from here on are below what float32 tells.
_POLE, _HORIZON = np.sqrt(3) - 2, 24
# As many numbers are filtered at a time: they stay in the processor's cache.
_BLOCK = 1 << 13
# Coefficients beyond the border that a point half a voxel off the outermost voxel needs.
_BEYOND = 2


def coefficients(voxels: np.ndarray, overwrite: bool = False) -> np.ndarray:
    """The coefficients ``(z, y, x)`` float32 of the cubic B-spline through finite voxels, mirrored at the outermost.

    They are found by recursion along each axis (Unser, Aldroubi & Eden, IEEE Trans Signal Process 41:834, 1993).

    Args:
        voxels: ``(z, y, x)``.
        overwrite: they may take the place of voxels in float32.
    """
    out = voxels.astype(np.float32, copy=not overwrite)
    depth, height, width = out.shape
    rows = max(1, _BLOCK // width)
    for first in range(0, height, rows):
        _filter(out[:, first : first + rows])
    planes = max(1, _BLOCK // max(height, width))
    # Along the rows of memory a recursion over single numbers would be slow. Each plane is turned by itself: across
    # several, lines that lie a power of two apart would take each other's place in the processor's cache.
    across = np.empty((width, planes, height), np.float32)
    for first in range(0, depth, planes):
        part = out[first : first + planes]
        _filter(np.moveaxis(part, 1, 0))
        turned = across[:, : len(part)]
        for number, plane in enumerate(part):
            turned[:, number] = plane.T
        _filter(turned)
        for number, plane in enumerate(part):
            plane[...] = turned[:, number].T
    return out


def _filter(lines: np.ndarray) -> None:
    """Turns values into coefficients along the first axis, in place."""
    size = len(lines)
    if size == 1:
        return
    lines *= 6
    powers = _POLE ** np.arange(2 * size - 1.0)
    start = lines[0] + powers[size - 1] * lines[-1]
    for k in range(1, size - 1):
        if k < _HORIZON or 2 * size - 2 - k < _HORIZON:
            start += np.float32(powers[k] + powers[2 * size - 2 - k]) * lines[k]
    lines[0] = start / (1 - powers[-1])
    pole = np.float32(_POLE)
    for k in range(1, size):
        lines[k] += pole * lines[k - 1]
    lines[-1] = (lines[-1] + pole * lines[-2]) * np.float32(_POLE / (_POLE**2 - 1))
    for k in range(size - 2, -1, -1):
        np.subtract(lines[k + 1], lines[k], out=lines[k])
        lines[k] *= pole


def evaluate(spline: np.ndarray, to_index: np.ndarray, out: np.ndarray, threads: int) -> None:
    """Fills a grid with the values of a spline.

    Args:
        spline: ``(z, y, x)`` float32, its coefficients.
        to_index: ``(4, 4)``, index (x, y, z) of the grid to that of the spline.
        out: ``(z, y, x)`` float32, the grid. Values more than half a voxel off the spline's own grid mean nothing.
        threads: to use.
    """
    part = _by_vtk(spline, to_index, threads) or _by_scipy(spline, to_index, threads)
    # Some slices at a time: beside two scans there is no room for another, and the processor's cache is small.
    step = max(threads, (1 << 22) // max(out[0].size, 1))
    for first in range(0, len(out), step):
        part(first, out[first : first + step])


def _by_scipy(spline: np.ndarray, to_index: np.ndarray, threads: int) -> Callable[[int, np.ndarray], Any]:
    # Arrays are indexed (z, y, x): the axes of the map are reversed.
    linear, shift = to_index[:3, :3][::-1, ::-1], to_index[:3, 3][::-1]

    def fill(first: int, out: np.ndarray) -> None:
        def plane(z: int) -> None:
            # SciPy wants as many axes out as in.
            target, offset = out[z : z + 1], shift + linear[:, 0] * (first + z)
            ndimage.affine_transform(spline, linear, offset, target.shape, target, 3, "mirror", prefilter=False)

        in_threads(plane, range(len(out)), threads)

    return fill


def _by_vtk(spline: np.ndarray, to_index: np.ndarray, threads: int) -> Callable[[int, np.ndarray], Any] | None:
    """None where VTK is not installed."""
    try:
        from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
        from vtkmodules.vtkCommonDataModel import vtkImageData
        from vtkmodules.vtkImagingCore import vtkImageBSplineInterpolator, vtkImageReslice
    except ImportError:
        return None
    # VTK mirrors only points; what a point at the border needs beyond it is put there.
    padded = np.pad(spline, _BEYOND, "reflect")
    image = vtkImageData()
    image.SetDimensions(*padded.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel()))
    interpolator = vtkImageBSplineInterpolator()
    interpolator.SetSplineDegree(3)
    shifted = to_index.copy()
    shifted[:3, 3] += _BEYOND

    def fill(first: int, out: np.ndarray) -> None:
        reslice = vtkImageReslice()
        reslice.SetInputData(image)
        reslice.SetInterpolator(interpolator)
        reslice.SetNumberOfThreads(threads)
        reslice.SetResliceAxes(_matrix(shifted))
        reslice.SetOutputOrigin(0, 0, 0)
        reslice.SetOutputSpacing(1, 1, 1)
        reslice.SetOutputExtent(0, out.shape[2] - 1, 0, out.shape[1] - 1, first, first + len(out) - 1)
        reslice.Update()
        out[...] = vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars()).reshape(out.shape)

    return fill


def _matrix(values: np.ndarray) -> Any:
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    matrix.DeepCopy(values.ravel().tolist())
    return matrix
