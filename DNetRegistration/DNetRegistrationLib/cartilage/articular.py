"""Where cartilage can be: the articular surface of a long bone, found from the bone alone. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, spatial

from ..bone.cortex import CorticalBone
from ..imaging.morphology import box_around, dilate, large_components
from ..imaging.resample import averaged, interpolate
from ..imaging.volume import Volume
from .mesh import Mesh, level_surface

# Lengths in mm, of a mouse's knee. The triangles' edges; the scan's own voxels where these are larger.
EDGE = 0.02
# The joint's end of the bone, from its outermost point along the axis.
_DEEP = 1.2
# The articular surface faces the joint: its normals lie within 65 degrees of the axis.
_FACING = 0.42
# Beside it bone is looked at within this of it, mm, down to normals at this cosine to the axis.
_BESIDE, _TURNED = 0.35, -0.2
# Nearer to each other than this, as a share of the bone's spread, a piece of shaft's middle and its cuts' give no
# direction.
_AS_ONE = 0.1
# Bone on so many of six sides makes a space one within the bone. Where the view cuts it along, one side is open.
_WALLS = 5
# A space counts by this power of its width: the shaft is hollow, and trabeculae fill the end.
_HOLLOW = 4
# Pieces apart below this share of the largest are no part of the bone, as fragments that float beyond the joint.
_PIECE = 0.1
# So much of a bone must be marrow, as a share, for it to count in full: a pore in solid bone tells nothing.
_MARROW = 0.1
# Normals that lead farther than this from where the search began, cosine, lead to a flank that the view cuts.
_LED = 0.77
# Bone farther below the periosteal surface is a trabecula.
_BELOW = 0.09


@dataclass(frozen=True)
class JointEnd:
    """The end of a bone that bears a joint.

    Attributes:
        axis: ``(3,)`` unit vector, out of the bone through the joint.
        top: ``(3,)`` the outermost point along the axis, LPS mm.
        middle: ``(3,)`` in the middle of the end, as high as the top.
    """

    axis: np.ndarray
    top: np.ndarray
    middle: np.ndarray


@dataclass(frozen=True, eq=False)
class JointSurface:
    """The surface of a bone that may bear cartilage, and what lies beside it.

    Attributes:
        mesh: LPS mm.
        facing: ``(n,)`` bool, what faces the joint; the rest bears no cartilage.
    """

    mesh: Mesh
    facing: np.ndarray

    @classmethod
    def whole(cls, mesh: Mesh) -> JointSurface:
        """All of it may bear cartilage."""
        return cls(mesh, np.ones(len(mesh.points), bool))


def joint_end(bone: CorticalBone, threshold: float) -> JointEnd | None:
    """Finds the end of a long bone whose shaft the field of view cuts: away from the cut, and from the widest marrow.

    A view that cuts the end itself on several sides has cuts all around, and the marrow tells; one in which a long
    shaft is seen has its widest marrow close to the end, and the cut tells.

    Args:
        bone: its segmentation.
        threshold: bone is above.

    Returns:
        None where the field of view cuts no bone, or cuts it alike on all sides.
    """
    whole = large_components(bone.whole, _PIECE)
    bone = replace(bone, whole=whole)
    known = np.pad(np.isfinite(bone.grey), 1)
    border = dilate(~known, 1)[1:-1, 1:-1, 1:-1]
    cut = np.argwhere(whole & border)[:, ::-1]
    if not len(cut):
        return None
    index = np.argwhere(whole)[:, ::-1]
    linear = bone.affine[:3, :3]
    middle = index.mean(0)
    axis = linear @ (2 * middle - cut.mean(0) - _hollow(bone, threshold, middle))
    length = float(np.linalg.norm(axis))
    points = index @ linear.T + bone.affine[:3, 3]
    if not length > _AS_ONE * float(np.sqrt(points.var(0).sum())):
        return None
    axis = away = axis / length
    # The plateau is wide, and its normals tell the axis better than centroids do: the normals of all that can be seen
    # from the joint, weighted towards the end.
    for _ in range(6):
        height = points @ axis
        top = np.percentile(height, 99.9)
        near = height > top - _DEEP
        axis = _facing(bone, axis, index[near])
    if axis @ away < _LED:
        axis = away
    height = points @ axis
    top = points[height.argmax()]
    center = points[height > height.max() - _DEEP].mean(0)
    return JointEnd(axis, top, center + ((top - center) @ axis) * axis)


def _hollow(bone: CorticalBone, threshold: float, middle: np.ndarray) -> np.ndarray:
    """``(3,)`` index (x, y, z) in the middle of the widest marrow; nearer to that of the bone where it has little."""
    box = box_around(bone.whole)
    if box is None:
        return middle
    grey = bone.grey[box]
    with np.errstate(invalid="ignore"):
        dense = bone.whole[box] & (grey > threshold)
    walls = np.zeros(dense.shape, np.uint8)
    for side in range(3):
        for turned in (slice(None), slice(None, None, -1)):
            along = (slice(None),) * side + (turned,)
            walls[along] += np.logical_or.accumulate(dense[along], side)
    space = (walls >= _WALLS) & ~dense & np.isfinite(grey)
    if not space.any():
        return middle
    width = ndimage.distance_transform_edt(~dense, bone.spacing[::-1])[space]
    index = (np.argwhere(space) + [side.start for side in box])[:, ::-1]
    widest = np.average(index, axis=0, weights=(width / width.max()) ** _HOLLOW)
    counts = min(1.0, len(index) / (_MARROW * np.count_nonzero(bone.whole)))
    return middle + counts * (widest - middle)


def _facing(bone: CorticalBone, axis: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Mean normal of the surface at the joint's end, of what faces the joint."""
    low, high = np.maximum(index.min(0) - 3, 0), index.max(0) + 4
    box = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
    soft = ndimage.gaussian_filter(bone.whole[box].astype(np.float32), 1.5)
    slopes = np.stack(np.gradient(soft)[::-1], -1)[bone.whole[box] & (soft < 0.9)]
    # Gradients are covectors: by the inverse transpose into the world.
    normals = -slopes @ np.linalg.inv(bone.affine[:3, :3])
    length = np.linalg.norm(normals, axis=1)
    facing = normals @ axis > 0.7 * length
    found = normals[facing].sum(0)
    size = np.linalg.norm(found)
    return found / size if size > 0 else axis


def articular_surface(plain: Volume, bone: CorticalBone, end: JointEnd, threshold: float) -> JointSurface:
    """The outer surface of a bone that faces the joint, and of the bone beside that.

    Args:
        plain: the scan without contrast agent.
        bone: its segmentation.
        end: of the bone.
        threshold: bone is above.

    Returns:
        JointSurface: its largest connected piece; without points where there is none.
    """
    mesh = level_surface(*_cropped(plain, bone, end), threshold)
    height = (end.top - mesh.points) @ end.axis
    depth = interpolate(bone.depth, bone.affine, mesh.points)
    cosine = mesh.normals @ end.axis
    mesh, left = mesh.part((height < _DEEP) & (depth < _BELOW))
    cosine = cosine[left]
    joint, left = _largest(mesh, cosine > _FACING)
    if not len(joint.points):
        return JointSurface.whole(joint)
    facing = np.zeros(len(mesh.points), bool)
    facing[left] = True
    apart, _ = spatial.cKDTree(joint.points).query(mesh.points)
    around, left = _largest(mesh, facing | ((apart < _BESIDE) & (cosine > _TURNED)))
    return JointSurface(around, facing[left])


def _largest(mesh: Mesh, chosen: np.ndarray) -> tuple[Mesh, np.ndarray]:
    """The largest connected piece of the chosen points; see `Mesh.part`."""
    part, left = mesh.part(chosen)
    if not len(left):
        return part, left
    pieces = part.pieces()
    largest, kept = part.part(pieces == np.bincount(pieces, part.areas).argmax())
    return largest, left[kept]


def outer_surface(plain: Volume, bone: CorticalBone, threshold: float) -> Mesh:
    """All of the outer surface of a bone, for where no joint's end is found."""
    mesh = level_surface(*averaged(plain, EDGE), threshold)
    depth = interpolate(bone.depth, bone.affine, mesh.points)
    # Trabeculae lie deeper, and the inner side of thin bone looks inwards.
    above = interpolate(bone.depth, bone.affine, mesh.points + 2 * EDGE * mesh.normals)
    return mesh.part((depth < _BELOW) & (np.nan_to_num(above) <= depth))[0]


def _cropped(plain: Volume, bone: CorticalBone, end: JointEnd) -> tuple[np.ndarray, np.ndarray]:
    """The scan about the joint's end, averaged to the triangles' size, and its affine."""
    index = np.argwhere(bone.whole)[:, ::-1]
    points = index @ bone.affine[:3, :3].T + bone.affine[:3, 3]
    points = points[(end.top - points) @ end.axis < _DEEP]
    # By the corners of a box in the scan's own index coordinates.
    own = plain.to_index(points)
    margin = 3 * max(EDGE, float(bone.spacing.max())) / plain.spacing + 2
    low = np.maximum(np.floor(own.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(own.max(0) + margin) + 1, plain.size).astype(int)
    affine = plain.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    part = Volume(plain.voxels[low[2] : high[2], low[1] : high[1], low[0] : high[0]], affine)
    return averaged(part, EDGE)
