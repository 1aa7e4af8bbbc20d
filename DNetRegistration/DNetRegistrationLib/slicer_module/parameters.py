"""The parameter node of the panel, which is saved with the scene."""

import enum
from typing import Annotated

from slicer import (
    vtkMRMLLinearTransformNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLModelNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
    vtkMRMLTransformableNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from .scene import OUTPUT_ROLES

#: Of the volumes.
ROLES = ("fixed", "moving")

#: What masks are of: the volumes, and the joint on the one without agent.
MASKS = (*ROLES, "region")


def plain_role(parameters) -> str:
    """The role of the volume without contrast agent."""
    return "fixed" if parameters.contrast is Contrast.moving else "moving"


#: The parameters that are output nodes.
OUTPUTS = ("transform", *OUTPUT_ROLES)

#: What a path of a weights file begins with, and the name of shipped weights does not.
FILE = "file:"


class Contrast(enum.Enum):
    """The scan with contrast agent."""

    moving = "moving"
    fixed = "fixed"

    def label(self) -> str:
        return {"moving": _("Moving volume"), "fixed": _("Fixed volume")}[self.value]


class Hypotheses(enum.Enum):
    """Which hypotheses are tried."""

    auto = "auto"
    dnet = "dnet"
    search = "search"

    def label(self) -> str:
        return {"auto": _("Network, then search"), "dnet": _("Network only"), "search": _("Search only")}[self.value]


class Refine(enum.Enum):
    """The resolution to which a pose is refined."""

    native = "native"
    working = "working"
    none = "none"

    def label(self) -> str:
        return {"native": _("To native voxels"), "working": _("To the working spacing"), "none": _("Not at all")}[
            self.value
        ]


class BoneChoice(enum.Enum):
    """Which bone is aligned."""

    all = "all"
    largest = "largest"
    each = "each"

    def label(self) -> str:
        return {
            "all": _("All in view, as one"),
            "largest": _("The largest that moved by itself"),
            "each": _("Each that moved by itself"),
        }[self.value]


@parameterNodeWrapper
class DNetRegistrationParameterNode:
    """What the user has set in the panel.

    Thresholds are in the grey values of each volume; `automaticThreshold` overrides them. `workingSpacing` is in mm, 0
    for automatic. Masks are nodes of the classes of `scene_masks.MASK_CLASSES`; a segment is the ID of one, empty for
    all. `regionMask` says where the joint is, and `medialPoint` holds a point on the medial side; both are of the scan
    without agent. With `startAsSeen` the pose in which the volumes lie is tried first. `weights` is the name of shipped
    weights, empty for the default, or `FILE` and a path.
    """

    fixedVolume: vtkMRMLScalarVolumeNode
    movingVolume: vtkMRMLScalarVolumeNode
    fixedMask: vtkMRMLTransformableNode
    fixedSegment: str = ""
    movingMask: vtkMRMLTransformableNode
    movingSegment: str = ""
    transform: vtkMRMLLinearTransformNode
    segmentation: vtkMRMLSegmentationNode
    table: vtkMRMLTableNode
    resampled: vtkMRMLScalarVolumeNode
    subtraction: vtkMRMLScalarVolumeNode
    cartilage: vtkMRMLTableNode
    thickness: vtkMRMLModelNode
    cartilageSegment: bool = False
    regionMask: vtkMRMLTransformableNode
    regionSegment: str = ""
    medialPoint: vtkMRMLMarkupsFiducialNode
    contrast: Contrast = Contrast.moving
    automaticThreshold: bool = True
    fixedThreshold: float = 0.0
    movingThreshold: float = 0.0
    hypotheses: Hypotheses = Hypotheses.auto
    refine: Refine = Refine.native
    bone: BoneChoice = BoneChoice.all
    startAsSeen: bool = False
    workingSpacing: Annotated[float, WithinRange(0, 10)] = 0.0
    weights: str = ""
    device: str = "auto"
