"""The panel's masks: which segment of a segmentation, and the outline of what a mask marks in the slice views."""

from contextlib import suppress

import qt
import slicer
from slicer.i18n import tr as _

from ..core.errors import DNetError
from .panel_choices import signalsBlocked
from .parameters import MASKS, ROLES, plain_role
from .scene import place

#: Yellow, orange and green: bone's own outlines are blue and red.
_COLORS = {"fixed": (1.0, 1.0, 0.3), "moving": (1.0, 0.6, 0.0), "region": (0.3, 1.0, 0.4)}


class MaskControls:
    """The lists of masks and of their segments, and the outlines of masks.

    Args:
        ui: the panel's widgets.
        changed: called when the user chooses, with the name of the parameter and its value.
    """

    def __init__(self, ui, changed) -> None:
        self._ui, self._changed = ui, changed
        self._parameters = None
        self._shown = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(60)
        self._timer.connect("timeout()", self._showOutlines)
        # Not bound to the parameter node by Slicer, which would offer all nodes of the parameter's class.
        ui.fixedMaskSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._fixedMaskChanged)
        ui.movingMaskSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._movingMaskChanged)
        ui.regionMaskSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._regionMaskChanged)
        ui.fixedSegmentSelector.connect("currentIndexChanged(int)", self._fixedChanged)
        ui.movingSegmentSelector.connect("currentIndexChanged(int)", self._movingChanged)
        ui.regionSegmentSelector.connect("currentIndexChanged(int)", self._regionChanged)

    def update(self, parameters, shown: bool) -> None:
        """Brings lists and outlines up to date with the parameter node; outlines are drawn only where `shown`."""
        self._parameters = parameters
        for role in MASKS:
            self._updateSegments(role)
        if shown:
            self._timer.start()
        else:
            self.hide()

    def hide(self) -> None:
        """Removes the outlines."""
        self._timer.stop()
        if self._shown:
            self._shown = False
            from .scene_preview import hide_outlines

            hide_outlines(slicer.mrmlScene, [f"{role} mask" for role in MASKS])

    def forget(self) -> None:
        """Lets go of a scene that is about to be closed."""
        self.hide()
        self._parameters = None

    def _updateSegments(self, role: str) -> None:
        node = getattr(self._parameters, f"{role}Mask")
        with signalsBlocked(getattr(self._ui, f"{role}MaskSelector")):
            getattr(self._ui, f"{role}MaskSelector").setCurrentNode(node)
        layered = bool(node) and node.IsA("vtkMRMLSegmentationNode")
        selector, label = getattr(self._ui, f"{role}SegmentSelector"), getattr(self._ui, f"{role}SegmentLabel")
        selector.visible = label.visible = layered
        if not layered:
            return
        chosen, segmentation = getattr(self._parameters, f"{role}Segment"), node.GetSegmentation()
        with signalsBlocked(selector):
            selector.clear()
            selector.addItem(_("All segments"), "")
            for one in segmentation.GetSegmentIDs():
                selector.addItem(segmentation.GetSegment(one).GetName(), one)
            if selector.findData(chosen) < 0:  # not all instead: it was one that was wanted
                selector.addItem(_("{segment} (gone)").format(segment=chosen), chosen)
            selector.currentIndex = selector.findData(chosen)

    def _showOutlines(self) -> None:
        from .scene_masks import mask_of, outline
        from .scene_preview import draw, hide_outlines

        if self._parameters is None:
            return
        for role in MASKS:
            of = role if role in ROLES else plain_role(self._parameters)
            node, volume = getattr(self._parameters, f"{role}Mask"), getattr(self._parameters, f"{of}Volume")
            lines = None
            if node and volume:
                with suppress(DNetError):  # Align tells of it
                    placed = place(volume, of)
                    lines = outline(mask_of(node, placed, getattr(self._parameters, f"{role}Segment")), placed)
            if lines is None:
                hide_outlines(slicer.mrmlScene, [f"{role} mask"])
                continue
            self._shown = True
            draw(lines, volume, f"{role} mask", f"Mask outline, {role} (preview)", _COLORS[role])

    def _fixedMaskChanged(self, node) -> None:
        self._chooseMask("fixed", node)

    def _movingMaskChanged(self, node) -> None:
        self._chooseMask("moving", node)

    def _regionMaskChanged(self, node) -> None:
        self._chooseMask("region", node)

    def _fixedChanged(self, index: int) -> None:
        self._choose("fixed", index)

    def _movingChanged(self, index: int) -> None:
        self._choose("moving", index)

    def _regionChanged(self, index: int) -> None:
        self._choose("region", index)

    def _chooseMask(self, role: str, node) -> None:
        self._changed(f"{role}Mask", node)
        self._changed(f"{role}Segment", "")  # the one that was chosen is of another node

    def _choose(self, role: str, index: int) -> None:
        if index >= 0:
            self._changed(f"{role}Segment", getattr(self._ui, f"{role}SegmentSelector").itemData(index))
