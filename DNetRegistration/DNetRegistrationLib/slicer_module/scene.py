"""MRML volume nodes as `Volume`s, and an alignment as a transform node between them.

Slicer's coordinates are RAS. This file, `scene_outputs` and `scene_preview` convert them to the library's, LPS, and
back; no other does. Everything here runs without a GUI.

An alignment lives in the scene as a ``vtkMRMLLinearTransformNode`` that stands between the moving volume and whatever
transform that volume already stood under, so that the volume's siblings do not move:

    former parent (if any)  >  transform of the alignment  >  moving volume

The node refers to both volumes by Slicer's own roles ``spatialRegistrationFixed`` and ``spatialRegistrationMoving``,
and to the other outputs by the roles of `OUTPUT_ROLES`. Its attributes ``DNetRegistration.<name>`` hold the alignment
in JSON: ``json.loads(node.GetAttribute("DNetRegistration.dice"))``. All of it is saved with the scene.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.util import arrayFromVolume, arrayFromVTKMatrix, vtkMatrixFromArray

from ..core.errors import OptionError, ScanError
from ..imaging.volume import Volume
from ..registration.result import Alignment
from ..version import __version__
from .bond import Bond

ATTRIBUTE = "DNetRegistration."
FIXED_ROLE = slicer.vtkMRMLTransformNode.GetFixedNodeReferenceRole()
MOVING_ROLE = slicer.vtkMRMLTransformNode.GetMovingNodeReferenceRole()
_OUTPUTS = ("segmentation", "table", "resampled", "subtraction", "cartilage", "thickness")
OUTPUT_ROLES = {name: f"{ATTRIBUTE}{name}" for name in _OUTPUTS}

#: The attribute with the `Bond` of the alignment.
BOND = f"{ATTRIBUTE}bond"

#: The attribute with the grid of the fixed volume, beside which the outputs were written; in its parent's RAS.
GRID = f"{ATTRIBUTE}grid"

#: RAS to LPS, and LPS to RAS.
FLIP = np.diag((-1.0, -1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Placed:
    """A volume node and where it stands. For a moving one, the transform of an earlier alignment does not count.

    Attributes:
        node: a ``vtkMRMLScalarVolumeNode``.
        role: "fixed" or "moving".
        parent: the transform node it stands under, or None.
        to_world: ``(4, 4)`` rigid, the parent's RAS to the world's RAS.
        ijk_to_ras: ``(4, 4)``, the node's own geometry.
        changed: when VTK last saw its voxels change; times of VTK count up.
    """

    node: slicer.vtkMRMLScalarVolumeNode
    role: str
    parent: slicer.vtkMRMLTransformNode | None
    to_world: np.ndarray
    ijk_to_ras: np.ndarray
    changed: int

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.GetName() or "unnamed volume"

    @property
    def affine(self) -> np.ndarray:
        """``(4, 4)``, index (x, y, z) to world, LPS mm."""
        return FLIP @ self.to_world @ self.ijk_to_ras

    def volume(self) -> Volume:
        """The scan in world coordinates, LPS mm. Its voxels are a read-only view of the node's."""
        voxels = arrayFromVolume(self.node).view()
        voxels.flags.writeable = False
        return Volume(voxels, self.affine, self.name)

    def to_local(self, affine: np.ndarray) -> np.ndarray:
        """Converts an index-to-world affine (LPS) to this volume's own RAS, for nodes under the same parent."""
        return np.linalg.solve(self.to_world, FLIP @ affine)


def place(node, role: str) -> Placed:
    """A volume node as it stands, in the role "fixed" or "moving".

    Raises:
        OptionError: `node` is None.
        ScanError: the volume is empty, has not one grey value a voxel, or stands under a transform that is not rigid.
    """
    if node is None:
        raise OptionError("no volume is selected", "select a fixed and a moving volume")
    name = node.GetName() or "unnamed volume"
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise ScanError(f"{name}: is a label map, not a scan", "select the grey values it was made from")
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLTensorVolumeNode"):
        raise ScanError(
            f"{name}: is a {node.GetNodeTagName()} node, not a scalar volume", "select a scan of grey values"
        )
    image = node.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetPointData().GetScalars() is None:
        raise ScanError(f"{name}: holds no image", "load the scan again, or select another volume")
    if image.GetNumberOfScalarComponents() != 1:
        raise ScanError(
            f"{name}: has {image.GetNumberOfScalarComponents()} values a voxel",
            "select a volume with one (convert it with the module Vector to Scalar Volume)",
        )
    parent = node.GetParentTransformNode()
    # A volume that is aligned again is aligned as it stood before the first time. A fixed volume may itself be aligned
    # to another one: there it stays.
    own = transform_above(node) if role == "moving" else None
    if own is not None:
        parent = own.GetParentTransformNode()
    to_world = _rigid_to_world(parent, name)
    return Placed(node, role, parent, to_world, matrix_of(node.GetIJKToRASMatrix), image.GetMTime())


def seen_pose(moving: Placed) -> np.ndarray:
    """``(4, 4)`` fixed to moving, LPS mm: how a moving volume lies now, beside where it was placed.

    It is the identity, unless the volume stands under the transform of an earlier alignment, which may have been
    changed by hand since.
    """
    seen = linear_to_world(moving.node.GetParentTransformNode(), moving.name)
    return FLIP @ moving.to_world @ np.linalg.inv(seen) @ FLIP


def transform_above(moving) -> slicer.vtkMRMLLinearTransformNode | None:
    """The transform node of an alignment that the moving volume stands under now; None where there is none."""
    parent = moving.GetParentTransformNode()
    return parent if parent is not None and _is_of(parent, MOVING_ROLE, moving) else None


def is_applied(node) -> bool:
    """Whether a node is the transform of an alignment under which the moving volume stands."""
    moving = node.GetNodeReference(MOVING_ROLE)
    return moving is not None and transform_above(moving) is node


def find_transforms(fixed, moving) -> list[slicer.vtkMRMLLinearTransformNode]:
    """The transform nodes of all alignments of two volumes, applied or not; the one above the moving volume first.

    Where `fixed` is None, those of the moving volume to any.
    """
    above = transform_above(moving)
    nodes = slicer.util.getNodesByClass("vtkMRMLLinearTransformNode", moving.GetScene())
    found = [node for node in nodes if _is_of(node, MOVING_ROLE, moving)]
    if fixed is not None:
        found = [node for node in found if _is_of(node, FIXED_ROLE, fixed)]
    return sorted(found, key=lambda node: node is not above)


def is_under(node, transform) -> bool:
    """Whether a transform node is above another node, somewhere."""
    above = node.GetParentTransformNode()
    while above is not None and above is not transform:
        above = above.GetParentTransformNode()
    return above is not None


def check_transform(transform, fixed: Placed, moving: Placed) -> None:
    """Checks that a transform node can take the result.

    Raises:
        OptionError: the fixed volume or the moving volume's parent stands under the transform, or the transform is the
            alignment of another volume.
    """
    for placed in (fixed, moving):
        node = placed.parent
        while node is not None:
            if node.GetID() == transform.GetID():
                raise OptionError(
                    f"{transform.GetName()}: cannot take the result, the {placed.role} volume ({placed.name}) "
                    "stands under it",
                    "create a new transform for the output",
                )
            node = node.GetParentTransformNode()
    if transform.GetAttribute(f"{ATTRIBUTE}version") is not None and not _is_of(transform, MOVING_ROLE, moving.node):
        other = transform.GetNodeReference(MOVING_ROLE)
        if other is not None:
            raise OptionError(
                f"{transform.GetName()}: cannot take the result, it is the alignment of another volume "
                f"({other.GetName()})",
                "create a new transform for the output",
            )


def apply_alignment(
    fixed: Placed, moving: Placed, alignment, transform=None, *, another: bool = False
) -> slicer.vtkMRMLLinearTransformNode:
    """Lays the moving volume on the fixed one, by a transform node above it. Nothing is hardened.

    The matrix relates the volumes as they stood when they were placed. Where the fixed one has moved since, the moving
    one is laid on it where it stands now.

    Args:
        fixed, moving: where the volumes stood when they were aligned.
        alignment: of the two.
        transform: the node to write to; None is the one of an earlier alignment of the moving volume, or a new one.
        another: None is a new one in any case: the earlier alignment is of another bone.

    Returns:
        The transform node.

    Raises:
        ScanError: a volume was removed from the scene, or its geometry or its voxels have changed.
        OptionError: see `check_transform`.
    """
    now = [_as_before(placed) for placed in (fixed, moving)]
    if transform is None and not another:
        transform = transform_above(moving.node)
    if transform is not None:
        check_transform(transform, *now)
    # From volume to volume, each in its own coordinates: transforms above them may change.
    moving_to_fixed = np.linalg.solve(fixed.to_world, np.linalg.solve(FLIP @ alignment.matrix @ FLIP, moving.to_world))
    to_parent = np.linalg.solve(now[1].to_world, now[0].to_world @ moving_to_fixed)
    to_parent[3] = 0, 0, 0, 1
    bond = Bond.of((fixed.node, moving.node), (fixed.affine, moving.affine), alignment.matrix)
    scene = moving.node.GetScene()
    if transform is None:
        name = scene.GenerateUniqueName(f"{moving.name}{of_bone(alignment)} to {fixed.name}")
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    name_bone(transform, moving.node, alignment)
    _name_fixed(transform, fixed)
    with slicer.util.NodeModify(transform):
        transform.SetMatrixTransformToParent(vtkMatrixFromArray(to_parent))
        transform.SetAndObserveTransformNodeID(node_id(now[1].parent))
        transform.SetNodeReferenceID(FIXED_ROLE, fixed.node.GetID())
        transform.SetNodeReferenceID(MOVING_ROLE, moving.node.GetID())
        for name, value in alignment.to_dict().items():
            transform.SetAttribute(ATTRIBUTE + name, json.dumps(value))
        transform.SetAttribute(BOND, bond.to_json())
        transform.SetAttribute(f"{ATTRIBUTE}version", json.dumps(__version__))
    moving.node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def of_bone(alignment) -> str:
    """What names of nodes say of the bone that an alignment is of, where it is one of several."""
    return "" if alignment.bone is None or alignment.bone.count == 1 else f" bone {alignment.bone.number}"


def name_bone(node, moving, alignment) -> None:
    """Lets a name that was made for a node of one bone tell the bone that an alignment is of; other names stay."""
    start, name = moving.GetName() or "unnamed volume", node.GetName() or ""
    true = re.sub(rf"^{re.escape(start)} bone \d+(?= )", lambda _: f"{start}{of_bone(alignment)}", name)
    _rename(node, true)


def _name_fixed(transform, fixed: Placed) -> None:
    """Lets a name that was made for an alignment to another fixed volume tell the one that it now is to."""
    former, name = transform.GetNodeReference(FIXED_ROLE), transform.GetName() or ""
    if former is not None and former is not fixed.node:
        end = re.escape(former.GetName() or "")
        _rename(transform, re.sub(rf" to {end}(_\d+)?$", lambda _: f" to {fixed.name}", name))


def _rename(node, name: str) -> None:
    if name != (node.GetName() or ""):
        node.SetName(node.GetScene().GenerateUniqueName(name))


def lay(moving, transform) -> None:
    """Puts a moving volume under the transform node of its alignment, as it was before `undo`."""
    moving.SetAndObserveTransformNodeID(transform.GetID())


def undo(moving) -> bool:
    """Puts a moving volume back under its former parent; returns false where it is not aligned.

    The transform node stays in the scene, with its attributes.
    """
    transform = transform_above(moving)
    if transform is None:
        return False
    moving.SetAndObserveTransformNodeID(node_id(transform.GetParentTransformNode()))
    return True


def outputs_of(transform) -> dict[str, slicer.vtkMRMLNode]:
    """The output nodes in the scene that an alignment's transform node refers to, by kind."""
    if transform is None:
        return {}
    nodes = {kind: transform.GetNodeReference(role) for kind, role in OUTPUT_ROLES.items()}
    return {kind: node for kind, node in nodes.items() if node is not None}


def lies_beside(output, transform) -> bool:
    """Whether an output of an alignment lies on the fixed volume as it was written, wherever both were moved to."""
    fixed, grid = transform.GetNodeReference(FIXED_ROLE), json.loads(transform.GetAttribute(GRID) or "null")
    if fixed is None or grid is None:  # of an earlier version
        return True
    if fixed.GetImageData() is None:
        return False
    size = np.array(fixed.GetImageData().GetDimensions())
    corners = np.array([(*(end * size - 0.5), 1.0) for end in np.ndindex(2, 2, 2)]).T
    grids = [np.array(grid), matrix_of(fixed.GetIJKToRASMatrix)]
    image = output.GetImageData() if output.IsA("vtkMRMLVolumeNode") else None
    if image is not None and image.GetDimensions() == fixed.GetImageData().GetDimensions():  # else it was cropped
        grids[0] = matrix_of(output.GetIJKToRASMatrix)
    parents = output.GetParentTransformNode(), fixed.GetParentTransformNode()
    if not all(parent is None or parent.IsTransformToWorldLinear() for parent in parents):
        return False
    was, now = (linear_to_world(parent, "") @ one @ corners for parent, one in zip(parents, grids, strict=True))
    # Slicer turns the slices of a left-handed grid round when it reads it.
    turned = now.reshape(4, 4, 2)[..., ::-1].reshape(4, 8)
    return bool(min(np.abs(was - one).max() for one in (now, turned)) < 1e-3)


def left_behind(transform) -> list[slicer.vtkMRMLNode]:
    """The outputs of an alignment that do not lie on the fixed volume as they were written; see `lies_beside`."""
    nodes = (node for node in outputs_of(transform).values() if node.IsA("vtkMRMLTransformableNode"))
    return [node for node in nodes if not lies_beside(node, transform)]


def last_scans(scene) -> list[slicer.vtkMRMLScalarVolumeNode]:
    """The two volume nodes that were loaded last, the older first; fewer where there are fewer. Outputs are none."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene)
    transforms = slicer.util.getNodesByClass("vtkMRMLLinearTransformNode", scene)
    made = [node for transform in transforms for node in outputs_of(transform).values()]
    return [
        node
        for node in nodes
        if node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and node.GetImageData() is not None
        and not node.GetHideFromEditors()
        and node not in made
    ][-2:]


def put_beside(node, scan) -> None:
    """Puts a node that lies at the top of the subject hierarchy into the folder, study or patient of a scan."""
    hierarchy = scan.GetScene().GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    item, beside = (0 if hierarchy is None else hierarchy.GetItemByDataNode(one) for one in (node, scan))
    if item and beside and hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))


def alignment_of(transform) -> Alignment | None:
    """The alignment that a transform node is the result of; None where it is not, or its attributes cannot be read."""
    if transform is None or transform.GetAttribute(f"{ATTRIBUTE}version") is None:
        return None
    values = {}
    for name in transform.GetAttributeNames():
        if name.startswith(ATTRIBUTE):
            try:
                values[name[len(ATTRIBUTE) :]] = json.loads(transform.GetAttribute(name))
            except ValueError:
                return None
    try:
        return Alignment.from_dict(values)
    except (KeyError, TypeError, ValueError):
        return None


_OUT_OF_IT = "harden it (Data module, right click) or take the volume out of it"


def linear_to_world(transform, name: str) -> np.ndarray:
    """``(4, 4)`` from the RAS of a transform node, or None, to the world's; `name` is of the node under it.

    Raises:
        ScanError: the transform is not linear.
    """
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise ScanError(f"{name}: its parent transform {transform.GetName()} is not linear", _OUT_OF_IT)
    return matrix_of(transform.GetMatrixTransformToWorld)


def _rigid_to_world(transform, name: str) -> np.ndarray:
    matrix = linear_to_world(transform, name)
    if transform is None:
        return matrix
    above, remedy = f"{name}: its parent transform {transform.GetName()}", _OUT_OF_IT
    rotation = matrix[:3, :3]
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > 1e-4:
        raise ScanError(f"{above} scales or shears", remedy)
    if np.linalg.det(rotation) < 0:
        raise ScanError(f"{above} mirrors", remedy)
    return matrix


def _as_before(placed: Placed) -> Placed:
    """The volume as it stands now. It must be in the scene, with the geometry that it had."""
    scene = placed.node.GetScene()
    if scene is None or not scene.IsNodePresent(placed.node):
        raise ScanError("a volume was removed from the scene while it was being aligned", "load it and align again")
    now = place(placed.node, placed.role)
    if not np.allclose(now.ijk_to_ras, placed.ijk_to_ras, rtol=1e-12, atol=0):
        raise ScanError(f"{placed.name}: its geometry was changed while it was being aligned", "align again")
    if now.changed != placed.changed:
        raise ScanError(f"{placed.name}: its voxels were changed while it was being aligned", "align again")
    return now


def _is_of(transform, role: str, volume) -> bool:
    """Whether a transform node is the result of an alignment of this volume in this role."""
    if transform.GetAttribute(f"{ATTRIBUTE}version") is None or not transform.IsA("vtkMRMLLinearTransformNode"):
        return False
    return transform.GetNodeReferenceID(role) == volume.GetID()


def matrix_of(get) -> np.ndarray:
    """The 4x4 matrix that a method of VTK writes, as an array."""
    matrix = vtk.vtkMatrix4x4()
    get(matrix)
    return arrayFromVTKMatrix(matrix)


def node_id(node) -> str | None:
    """The ID of a node; None for None."""
    return None if node is None else node.GetID()
