"""Files of surface meshes carried by a transform: .vtp, .ply and .stl, read and written by VTK.

Needs no torch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import FileError
from ..core.packages import needed
from ..core.quiet import quietly
from .point_files import RAS

MESH_ENDINGS = (".vtp", ".ply", ".stl")

_READERS = {".vtp": "vtkXMLPolyDataReader", ".ply": "vtkPLYReader", ".stl": "vtkSTLReader"}
_WRITERS = {".vtp": "vtkXMLPolyDataWriter", ".ply": "vtkPLYWriter", ".stl": "vtkSTLWriter"}
#: How Slicer states the coordinate system of a mesh.
_SPACE = "SPACE"


def carry_mesh(path: Path, temporary: Path, matrix: np.ndarray) -> int:
    """Writes a mesh with its points, and the normals and vectors at them, carried; returns the number of points.

    Coordinates are LPS, mm, unless the file says ``SPACE=RAS`` as Slicer does. What is written is LPS, and says so.
    ``.stl`` holds points alone, ``.ply`` points, normals and colours; ``.vtp`` keeps all that is stored at points.

    Args:
        path: ``.vtp``, ``.ply`` or ``.stl``.
        temporary: where to write; its ending says which kind.
        matrix: ``(4, 4)``, rigid, where the points lie to where they go, LPS mm.

    Raises:
        PackageError: VTK is not installed.
        FileError: it cannot be read, or holds no points.
        OSError: it could not be written.
    """
    vtk = needed("vtk", f"{path}: a mesh")
    mesh, space = _read(vtk, path)
    if space not in ("LPS", "RAS"):
        raise FileError(f"{path}: its coordinate system is {space[:20]!r}", "save the mesh in LPS or RAS")
    if space == "RAS":
        matrix = matrix @ RAS
    transform, mover = vtk.vtkTransform(), vtk.vtkTransformPolyDataFilter()
    transform.SetMatrix(np.asarray(matrix, np.float64).ravel().tolist())
    mover.SetTransform(transform)
    mover.SetInputData(mesh)
    mover.SetOutputPointsPrecision(1)  # double
    mover.Update()
    _write(vtk, mover.GetOutput(), temporary)
    return int(mesh.GetNumberOfPoints())


def _read(vtk: Any, path: Path) -> tuple[Any, str]:
    """A mesh, and the coordinate system that its file states."""
    ending = path.suffix.lower()
    reader = getattr(vtk, _READERS[ending])()
    reader.SetFileName(str(path))
    with quietly(output=True):
        reader.Update()
    mesh, notes = reader.GetOutput(), ""
    if reader.GetErrorCode() or not mesh.GetNumberOfPoints():
        raise FileError(f"{path}: is no mesh that can be read", "give .vtp, .ply or .stl with at least one point")
    if ending == ".stl":
        notes = reader.GetHeader() or ""
    elif ending == ".ply":
        comments = reader.GetComments()
        notes = "\n".join(comments.GetValue(i) for i in range(comments.GetNumberOfValues()))
    elif (stated := mesh.GetFieldData().GetAbstractArray(_SPACE)) is not None and stated.GetNumberOfValues():
        notes = f"{_SPACE}={stated.GetVariantValue(0).ToString()}"
    found = re.search(rf"\b{_SPACE}=(\w+)", notes)
    return mesh, found[1] if found else "LPS"


def _write(vtk: Any, mesh: Any, temporary: Path) -> None:
    ending = temporary.suffix.lower()
    writer = getattr(vtk, _WRITERS[ending])()
    if ending == ".stl":
        writer.SetHeader(f"3D surface {_SPACE}=LPS".ljust(79))
    elif ending == ".ply":
        writer.AddComment(f"{_SPACE}=LPS")
        colours = mesh.GetPointData().GetScalars()
        if colours is not None and colours.GetNumberOfComponents() >= 3 and colours.GetName():
            writer.SetArrayName(colours.GetName())
    else:
        stated = vtk.vtkStringArray()
        stated.SetName(_SPACE)
        stated.InsertNextValue("LPS")
        mesh.GetFieldData().AddArray(stated)
    if ending != ".vtp":
        writer.SetFileTypeToBinary()
    writer.SetFileName(str(temporary))
    writer.SetInputData(mesh)
    with quietly(output=True):
        done = writer.Write()
    if not done or writer.GetErrorCode():
        raise OSError("the disk is full")
