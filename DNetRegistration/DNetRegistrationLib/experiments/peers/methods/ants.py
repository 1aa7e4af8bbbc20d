"""ANTs with the settings that its makers advise for large rotations: a search over the full circle, then Rigid."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ants
import numpy as np

from ....geometry.transforms import affine_matrix
from ....imaging.volume import Volume
from .answer import Answer, centered, float_voxels

# Degrees from one start to the next (the default), and the share of the circle that is searched.
STEP, ARC = 20, 1.0
# The search runs on coarse images, as its makers run it, of at most this many voxels along an axis.
COARSE = 64


def align(fixed: Volume, moving: Volume, threads: int) -> Answer:
    """``affine_initializer`` over the full circle in steps of 20 degrees, then ``registration`` of the type Rigid.

    The initializer starts a local search of mutual information at some 400 rotations about two axes and returns the
    best affine map. Rigid starts from the nearest rotation to it that takes the centre of the fixed image to the same
    place. Started with shears, it would not end rigid.

    Args:
        fixed, moving: the scans.
        threads: not used. ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS in the environment sets them.

    Source: ANTsX/ANTsPy issues 250 (initializer, then registration, for rotations of 90 degrees and more) and 253
    (a full circle: radian_fraction=1, on coarse images); ANTsX/ANTs issue 1529 (coarse images for speed).
    """
    first, second = (ants_image(scan) for scan in (fixed, moving))
    with tempfile.TemporaryDirectory(prefix="dnet-comparison-") as folder:
        start = Path(folder, "start.mat")
        ants.affine_initializer(coarse(first), coarse(second), STEP, radian_fraction=ARC, txfn=str(start))
        nearest = nearest_rigid(matrix_of(ants.read_transform(str(start))), fixed.center)
        turn = nearest[:3, :3]
        # Rigid turns about the centre of its start. About a far origin it would go astray.
        shift = turn @ fixed.center + nearest[:3, 3] - fixed.center
        rigid = ants.create_ants_transform(
            "AffineTransform", dimension=3, matrix=turn, translation=shift, center=fixed.center
        )
        ants.write_transform(rigid, str(start))
        found = ants.registration(
            first, second, "Rigid", initial_transform=[str(start)], outprefix=str(Path(folder, "rigid"))
        )
        matrix = np.eye(4)
        for path in found["fwdtransforms"]:
            matrix = matrix_of(ants.read_transform(path)) @ matrix
    return Answer(matrix)


def ants_image(scan: Volume):
    """The scan as an ANTs image of float32, whose arrays are indexed ``[x, y, z]``."""
    return ants.from_numpy(
        np.ascontiguousarray(float_voxels(scan).T), scan.origin.tolist(), scan.spacing.tolist(), scan.direction
    )


def coarse(image):
    """The image with at most `COARSE` voxels along each axis."""
    size = [min(n, COARSE) for n in image.shape]
    return image if size == list(image.shape) else ants.resample_image(image, size, use_voxels=True, interp_type=0)


def matrix_of(transform) -> np.ndarray:
    """``(4, 4)`` of an affine ANTs transform, fixed to moving points: nine numbers by rows, a translation, a centre."""
    parameters = np.asarray(transform.parameters, float)
    return centered(parameters[:9], parameters[9:], transform.fixed_parameters)


def nearest_rigid(matrix: np.ndarray, center: np.ndarray) -> np.ndarray:
    """The rotation nearest to an affine ``(4, 4)`` map (Frobenius), which takes `center` to where the map takes it."""
    u, _, vh = np.linalg.svd(matrix[:3, :3])
    rotation = u @ np.diag((1, 1, np.linalg.det(u @ vh))) @ vh
    return affine_matrix(rotation, matrix[:3, :3] @ center + matrix[:3, 3] - rotation @ center)
