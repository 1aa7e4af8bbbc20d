"""Figure 5 of the paper: surfaces of the fixed bone, and of the moving one where a method puts it.

VTK renders them off screen, in a process of its own: where VTK has no way to draw, it ends the process that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ...bone.cortex import CorticalBone
from ...core.errors import PackageError, RunError, one_line
from ...core.pictures import new_figure
from ...core.processes import completed_calls

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIXED_COLOR, MOVING_COLOR = (0.84, 0.83, 0.79), (0.78, 0.16, 0.13)
PIXELS = 560


@dataclass(frozen=True)
class PlacedSurface:
    """The moving bone where a method puts it.

    Attributes:
        label: of the method.
        matrix: its ``(4, 4)`` estimate, fixed to moving points, LPS mm.
        dice: of the cortices, 0 to 1.
    """

    label: str
    matrix: np.ndarray
    dice: float


class CannotDrawError(RunError):
    """VTK cannot draw the figure."""


def draw_surfaces(title: str, bones: tuple[CorticalBone, CorticalBone], placed: Sequence[PlacedSurface]) -> Figure:
    """Draws a row of renderings, a panel for each method.

    Args:
        title: above the panels.
        bones: cortices of the fixed and of the moving scan.
        placed: by method.

    Raises:
        PackageError: a package is missing.
        CannotDrawError: VTK cannot draw here.
    """
    if find_spec("vtkmodules") is None:
        raise PackageError("vtk is not installed", 'install it: pip install "dnet-registration[evaluation]"')
    try:
        (panels,) = completed_calls(render, [(bones, [one.matrix for one in placed])], 1, threads=None)
    except RunError as error:
        raise CannotDrawError("VTK found no way to draw off screen here", "install OSMesa or EGL") from error
    except Exception as error:
        raise CannotDrawError(f"VTK could not draw ({type(error).__name__}: {one_line(error)})") from error
    return _composed(title, panels, placed)


def render(bones: tuple[CorticalBone, CorticalBone], matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Renders the fixed bone, and the moving one carried over by each estimate.

    Args:
        bones: cortices of the fixed and of the moving scan.
        matrices: ``(4, 4)`` each, fixed to moving points, LPS mm.

    Returns:
        ``(PIXELS, PIXELS, 3)`` uint8, a picture for each estimate.
    """
    from vtkmodules import vtkRenderingOpenGL2  # noqa: F401  (what renders)
    from vtkmodules.vtkCommonCore import vtkLogger
    from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow

    surfaces = [_surface(bone) for bone in bones]
    # VTK would warn that there is no screen.
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    window = vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(PIXELS, PIXELS)
    window.SetMultiSamples(8)
    pictures = []
    for matrix in matrices:
        renderer = vtkRenderer()
        renderer.SetBackground(1, 1, 1)
        renderer.AddActor(_actor(surfaces[0], FIXED_COLOR, np.eye(4)))
        renderer.AddActor(_actor(surfaces[1], MOVING_COLOR, np.linalg.inv(matrix)))
        _look(renderer, bones[0])
        window.AddRenderer(renderer)
        pictures.append(_rendered(window))
        window.RemoveRenderer(renderer)
    return pictures


def _actor(surface, color: tuple[float, float, float], pose: np.ndarray):
    """A surface in a colour, moved by a ``(4, 4)`` pose."""
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    mapper = vtkPolyDataMapper()
    mapper.SetInputData(surface)
    mapper.ScalarVisibilityOff()
    actor = vtkActor()
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(*color)
    # Their sum is below 1, so that white bone stays visible on a white background.
    actor.GetProperty().SetAmbient(0.12)
    actor.GetProperty().SetDiffuse(0.82)
    actor.GetProperty().SetSpecular(0.05)
    actor.SetUserTransform(_transform(pose))
    return actor


def _rendered(window) -> np.ndarray:
    """The picture ``(PIXELS, PIXELS, 3)`` of what is in the window."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkRenderingCore import vtkWindowToImageFilter

    window.Render()
    grabber = vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    shape = image.GetDimensions()[1::-1]
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(*shape, -1)[::-1, :, :3].copy()


def _transform(matrix: np.ndarray):
    from vtkmodules.vtkCommonMath import vtkMatrix4x4
    from vtkmodules.vtkCommonTransforms import vtkTransform

    content = vtkMatrix4x4()
    content.DeepCopy(matrix.ravel().tolist())
    transform = vtkTransform()
    transform.SetMatrix(content)
    return transform


def _surface(bone: CorticalBone):
    """The surface of a cortex in world coordinates, closed where the field of view cuts it."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D, vtkPolyDataNormals
    from vtkmodules.vtkFiltersGeneral import vtkTransformPolyDataFilter

    soft = ndimage.gaussian_filter(np.pad(bone.cortex, 2).astype(np.float32), 0.7)
    image = vtkImageData()
    image.SetDimensions(*soft.shape[::-1])
    image.SetOrigin(-2, -2, -2)
    image.GetPointData().SetScalars(numpy_to_vtk(soft.ravel(), deep=True))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 0.45)
    edges.ComputeNormalsOff()
    carried = vtkTransformPolyDataFilter()
    carried.SetTransform(_transform(bone.affine))
    carried.SetInputConnection(edges.GetOutputPort())
    normals = vtkPolyDataNormals()
    normals.SetInputConnection(carried.GetOutputPort())
    normals.SplittingOff()
    normals.AutoOrientNormalsOn()
    normals.Update()
    return normals.GetOutput()


def _look(renderer, bone: CorticalBone) -> None:
    """Points the camera along the bone's thinnest axis, with its longest axis upright."""
    points = np.argwhere(bone.cortex)[:, ::-1] @ bone.affine[:3, :3].T + bone.affine[:3, 3]
    center = points.mean(0) if len(points) else bone.center
    axes = np.linalg.svd((points - center)[:: max(1, len(points) // 5000)], full_matrices=False)[2]
    reach = float(np.percentile(np.linalg.norm(points - center, axis=1), 99)) if len(points) else 1.0
    camera = renderer.GetActiveCamera()
    camera.ParallelProjectionOn()
    camera.SetFocalPoint(*center)
    camera.SetPosition(*(center + 10 * reach * axes[2]))
    camera.SetViewUp(*axes[0])
    camera.SetParallelScale(1.15 * reach)
    renderer.ResetCameraClippingRange()


def _composed(title: str, panels: Sequence[np.ndarray], placed: Sequence[PlacedSurface]) -> Figure:
    columns = min(5, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(2.6 * columns, 3.1 * rows + 0.45)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, picture, one in zip(axes, panels, placed, strict=False):
        axis.imshow(picture)
        axis.set_title(f"{one.label}\nDSC {100 * one.dice:.1f} %", fontsize=9)
        red, green = picture[..., 0].astype(int), picture[..., 1].astype(int)
        if not (red - green > 60).any():
            axis.text(0.5, 0.01, "the moving bone is out of view", transform=axis.transAxes, ha="center", fontsize=8)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure
