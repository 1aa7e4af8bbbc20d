"""Nodes in the scene of the stand-in for Slicer, and where their voxels lie."""

from __future__ import annotations

import numpy as np
import places
from DNetRegistrationLib import Volume
from DNetRegistrationLib.registration.result import Alignment
from scipy.spatial.transform import Rotation

MODULE = places.SOURCE / "DNetRegistration.py"
FLIP = np.diag((-1.0, -1.0, 1.0, 1.0))  # LPS to RAS, and back

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()


LEFT = OBLIQUE.T @ np.diag((1.0, -1.0, 1.0))


# Spacing, directions (RAS), origin (RAS) and size of unlike grids: oblique, left-handed, anisotropic, far away.
GRIDS = {
    "plain": ((0.1, 0.1, 0.1), np.eye(3), (0.0, 0.0, 0.0), (10, 11, 12)),
    "oblique": ((0.07, 0.06, 0.065), OBLIQUE, (1.0, -2.0, 0.5), (12, 13, 14)),
    "left": ((0.01, 0.02, 0.037), LEFT, (130.0, -75.0, 2040.0), (14, 9, 10)),
    # Slicer turns left-handed grids round when it reads them from a file.
    "far": ((0.01, 0.02, 0.037), OBLIQUE.T, (130.0, -75.0, 2040.0), (14, 9, 10)),
}


def rigid(seed: int, reach: float = 5.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = generator.uniform(-reach, reach, 3)
    return matrix


def add_volume(name: str, grid: str, dtype=np.int16):
    import slicer

    spacing, direction, origin, size = GRIDS[grid]
    voxels = np.random.default_rng(len(name)).integers(0, 200, size[::-1]).astype(dtype)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    return slicer.util.addVolumeFromArray(voxels, ijkToRAS=affine, name=name)


def add_transform(name: str, matrix, parent=None):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.asarray(matrix, float)))
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def number_of_transforms() -> int:
    """Of the whole scene; slice views have some too."""
    import slicer

    return slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode")


def put_under(node, *matrices):
    """Puts a node under a chain of transforms, the outermost first; returns the innermost."""
    parent = None
    for number, matrix in enumerate(matrices):
        parent = add_transform(f"{node.GetName()} parent {number}", matrix, parent)
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return parent


def aligned(matrix, **changes) -> Alignment:
    values = dict(
        matrix=np.asarray(matrix, float), accepted=True, verdict='Accepted: "to within" 2; a: b <i> µ', confidence=0.97,
        expected_error_um=3.4, dice_before=float("nan"), dice=0.93,
        translation_mm=np.array((0.1, -0.2, 0.3)), hypothesis="dnet", working_spacing=0.08, device="cpu",
        warnings=["one; two: three"], seconds={"total": 1.5}, network="equivariant", weights_sha256="00",
        fixed_threshold=500.0, moving_threshold=700.0,
    )  # fmt: skip
    return Alignment(**{**values, **changes})


def world_lps(node, index) -> np.ndarray:
    """Where a voxel (x, y, z) of a volume node is now, by MRML's own methods, LPS mm."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    local = matrix.MultiplyPoint((*(float(i) for i in index), 1.0))[:3]
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld(local, world)
    return np.array((-world[0], -world[1], world[2]))


INDICES = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (5, 3, 7), (-2, 8.5, 1.25)]


def positions(node) -> np.ndarray:
    return np.array([world_lps(node, index) for index in INDICES])


def volume_node(volume: Volume, name: str, to_world=None):
    """A node that shows a scan, under a parent where one is given: the scan lies where it lay."""
    import slicer

    to_world = np.eye(4) if to_world is None else to_world
    node = slicer.util.addVolumeFromArray(
        volume.voxels, ijkToRAS=np.linalg.solve(to_world, FLIP @ volume.affine), name=name
    )
    if not np.array_equal(to_world, np.eye(4)):
        put_under(node, to_world)
    return node
