"""A pose in the scene that is refined but not yet checked. It can be taken back, and says itself that it is unchecked.

It is written as an alignment that is not accepted: a scene that is saved in between does not claim more.
"""

from __future__ import annotations

import math

import numpy as np
import vtk
from slicer.i18n import tr as _
from slicer.util import NodeModify

from ..registration.result import Alignment
from .scene import ATTRIBUTE, FIXED_ROLE, MOVING_ROLE, OUTPUT_ROLES, Placed, apply_alignment, node_id, transform_above

_ROLES = FIXED_ROLE, MOVING_ROLE, *OUTPUT_ROLES.values()


class UncheckedPose:
    """Lays the moving volume on the fixed one, until it is taken back or an alignment is applied.

    Args:
        fixed, moving: where the volumes stood when they were placed.
        matrix: ``(4, 4)``, fixed to moving, LPS mm.
        transform: the node to write to; None is the one of an earlier alignment of the moving volume, or a new one.

    Attributes:
        transform: the node that was written to.

    Raises:
        ScanError, OptionError: see `scene.apply_alignment`; nothing is changed.
    """

    def __init__(self, fixed: Placed, moving: Placed, matrix: np.ndarray, transform=None) -> None:
        from .scene_outputs import let_go

        self._moving, self._parent = moving.node, moving.node.GetParentTransformNode()
        earlier = transform or transform_above(moving.node)
        self._before = None if earlier is None else _state(earlier)
        self.transform = apply_alignment(fixed, moving, _unchecked(matrix), transform)
        self._shown = let_go(self.transform)

    def take_back(self) -> None:
        """Makes transform and volume what they were, where they are still in the scene."""
        scene = self.transform.GetScene()
        if scene is None:
            return
        if self._moving.GetScene() is scene and self._moving.GetParentTransformNode() is self.transform:
            parent = self._parent if self._parent is not None and self._parent.GetScene() is scene else None
            self._moving.SetAndObserveTransformNodeID(node_id(parent))
        if self._before is None:
            scene.RemoveNode(self.transform)
        else:
            _restore(self.transform, self._before)
            for display in self._shown:
                if display.GetScene() is scene:
                    display.SetVisibility(True)


def _unchecked(matrix: np.ndarray) -> Alignment:
    return Alignment(
        accepted=False,
        verdict=_("Not checked: whether this pose is right is not known. Align again."),
        doubts=["unchecked"],
        confidence=math.nan,
        expected_error_um=math.nan,
        dice_before=math.nan,
        dice=math.nan,
        translation_mm=np.full(3, math.nan),
        matrix=matrix,
        hypothesis="unchecked",
        working_spacing=math.nan,
        device="",
    )


def _state(transform) -> tuple:
    """What `apply_alignment` and `let_go` change of a transform node."""
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToParent(matrix)
    attributes = {name: transform.GetAttribute(name) for name in transform.GetAttributeNames() or ()}
    references = {role: transform.GetNodeReferenceID(role) for role in _ROLES}
    return matrix, transform.GetTransformNodeID(), references, attributes, transform.GetName()


def _restore(transform, state: tuple) -> None:
    matrix, parent, references, attributes, name = state
    with NodeModify(transform):
        transform.SetName(name)
        transform.SetMatrixTransformToParent(matrix)
        transform.SetAndObserveTransformNodeID(parent)
        for role, identifier in references.items():
            transform.SetNodeReferenceID(role, identifier)
        for name in {*(transform.GetAttributeNames() or ()), *attributes}:
            if name.startswith(ATTRIBUTE):
                transform.SetAttribute(name, attributes.get(name))
