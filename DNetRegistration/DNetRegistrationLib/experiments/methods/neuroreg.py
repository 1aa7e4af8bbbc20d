"""neuroreg's robust registration: iteratively reweighted least squares by Tukey's biweight, in the mid-space."""

from __future__ import annotations

import neuroreg
import numpy as np
import torch

from ...geometry.transforms import affine_matrix
from ...imaging.volume import Volume
from .answer import Answer, float_voxels
from .near import NearScans


def refine_start(fixed: Volume, moving: Volume, threads: int, start: np.ndarray, where: str) -> Answer:
    """Rigid registration by ``robreg`` with its defaults, from a ``(4, 4)`` start, within one of `near.MASKS`.

    The defaults are a pyramid down to the voxels of the scans, the saturation 6 of Tukey's biweight, and a symmetric
    halfway space. It is made for heads, of which little but the brain is left: outside of the masks of both scans, the
    images are 0. Its own masks, which leave voxels out of the sums, ended up farther from the truth.

    Source: M. Reuter, H. D. Rosas, B. Fischl, "Highly accurate inverse consistent registration: a robust approach",
    NeuroImage 53:1181 (2010); the documentation of ``neuroreg.robreg``.
    """
    torch.set_num_threads(threads)
    near = NearScans.of(fixed, moving, start, where)
    scans = near.fixed, near.moving
    # Its worlds are RAS. The sense of the axes does not matter, as long as it is the same in both scans. Its source is
    # the fixed scan: it maps points of the source to the target.
    affines = [torch.from_numpy(scan.affine) for scan in scans]
    found = neuroreg.robreg(
        *(_image(scan, near.mask(scan)) for scan in scans),
        src_affine=affines[0],
        trg_affine=affines[1],
        init_transform=np.eye(4),
    )
    return Answer(near.answer(_rigid(found.double().numpy())))


def _image(scan: Volume, mask: np.ndarray | None) -> torch.Tensor:
    voxels = float_voxels(scan)
    return torch.from_numpy(np.ascontiguousarray((voxels if mask is None else voxels * mask).T))


def _rigid(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to that of a matrix in single precision."""
    u, _, vh = np.linalg.svd(matrix[:3, :3])
    return affine_matrix(u @ vh, matrix[:3, 3])
