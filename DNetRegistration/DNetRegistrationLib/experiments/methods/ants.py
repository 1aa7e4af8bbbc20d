"""ANTs as its makers advise: for large rotations a search over the full circle, then Rigid; or from a near start."""

from __future__ import annotations

from pathlib import Path

import ants
import numpy as np

from ...core.files import temporary_folder
from ...geometry.transforms import affine_matrix
from ...imaging.volume import Volume
from .answer import Answer, centered, float_voxels
from .near import NearScans

# Degrees from one start to the next (the default), and the share of the circle that is searched.
STEP, ARC = 20, 1.0
# The search runs on coarse images, as its makers run it, of at most this many voxels along an axis.
COARSE = 64
# Of Mattes' mutual information the bins, of the local correlation the radius in voxels.
METRICS = {"information": ("mattes", 32), "correlation": ("CC", 4)}


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
    with temporary_folder() as folder:
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
        return Answer(_composed(found["fwdtransforms"]))


def refine_start(fixed: Volume, moving: Volume, threads: int, start: np.ndarray, metric: str, where: str) -> Answer:
    """``registration`` from a ``(4, 4)`` start, by one of `METRICS`, within a mask (one of `near.MASKS`).

    Mutual information runs as the type "DenseRigid", which looks at four voxels in five. The local correlation has no
    type of its own, and takes the place of the metric in "Rigid". Levels and steps are ANTsPy's. Computed in doubles.

    Source: the documentation of ``ants.registration``.
    """
    near = NearScans.of(fixed, moving, start, where)
    name, sampling = METRICS[metric]
    mask = near.mask(near.fixed)
    region = None if mask is None else _with_geometry(mask.T.astype(np.float32), near.fixed)
    with temporary_folder() as folder:
        found = ants.registration(
            ants_image(near.fixed),
            ants_image(near.moving),
            "DenseRigid" if metric == "information" else "Rigid",
            initial_transform="Identity",
            outprefix=str(Path(folder, "rigid")),
            mask=region,
            mask_all_stages=True,
            aff_metric=name,
            aff_sampling=sampling,
            singleprecision=False,
        )
        return Answer(near.answer(_composed(found["fwdtransforms"])))


def _composed(paths) -> np.ndarray:
    """``(4, 4)``, fixed to moving points, of transform files that are applied one after the other."""
    matrix = np.eye(4)
    for path in paths:
        matrix = matrix_of(ants.read_transform(path)) @ matrix
    return matrix


def ants_image(scan: Volume):
    """The scan as an ANTs image of float32, whose arrays are indexed ``[x, y, z]``."""
    return _with_geometry(float_voxels(scan).T, scan)


def _with_geometry(voxels: np.ndarray, scan: Volume):
    return ants.from_numpy(np.ascontiguousarray(voxels), scan.origin.tolist(), scan.spacing.tolist(), scan.direction)


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
