"""The panel's row Compare: both volumes in the slice views, as aligned or not, and the bones in 3D."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from .panel_choices import signalsBlocked
from .scene import lay, lies_beside, matrix_of, node_id, outputs_of, undo
from .standing import AS_ALIGNED, Standing

MIXED, FLICKER, CHECKERBOARD, DIFFERENCE = "mixed", "flicker", "checkerboard", "difference"
#: Of a flicker, each volume for so long, in ms.
_TURN = 400
_HALF = 0.5


class CompareControls:
    """How the two volumes are seen beside each other. What is chosen here is of the views, and in no parameter.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._volumes, self._found = (None, None), None
        self._contrast, self._subtracted = "moving", None
        self._mode, self._stamp = MIXED, None
        self._onTop = False  # the moving volume, while it flickers
        for mode, text in (
            (MIXED, _("Mixed")),
            (FLICKER, _("Flicker")),
            (CHECKERBOARD, _("Checkerboard")),
            (DIFFERENCE, _("Difference")),
        ):
            ui.compareSelector.addItem(text, mode)
        ui.opacitySlider.value = _HALF
        self._timer = qt.QTimer()
        self._timer.setInterval(_TURN)
        self._timer.connect("timeout()", self._turn)
        ui.compareSelector.connect("currentIndexChanged(int)", self._modeChosen)
        ui.opacitySlider.connect("valueChanged(double)", self._opacityChosen)
        ui.appliedCheckBox.connect("clicked(bool)", self._appliedChosen)
        ui.solidSelector.connect("currentIndexChanged(int)", self._solidChosen)

    def update(self, parameters, found) -> None:
        """Brings the row up to date with the scene; `found` is of `current_alignment`, None while one runs."""
        fixed, moving = (parameters.fixedVolume, parameters.movingVolume) if parameters else (None, None)
        usable = fixed and moving and fixed is not moving and fixed.GetImageData() and moving.GetImageData()
        volumes = (fixed, moving) if usable else (None, None)
        # Squares and differences of voxels that were changed, of other volumes, or where the fixed volume no longer is,
        # are not those of what is there.
        stamp = tuple((node_id(node), node.GetImageData().GetMTime()) for node in volumes if node)
        if usable:
            stamp += node_id(fixed.GetParentTransformNode()), matrix_of(fixed.GetIJKToRASMatrix).tobytes()
        before, self._stamp = self._stamp, stamp
        self._volumes = volumes
        self._contrast = parameters.contrast.value if parameters else self._contrast
        if before and stamp != before:
            self.reset()
        elif not before and usable:
            self._mend()
        self._found = found if usable else None
        if self._mode == DIFFERENCE and self._difference() != self._subtracted:
            self._show()
        self._ui.compareSelector.enabled = bool(usable)
        self._ui.opacitySlider.enabled = bool(usable) and self._mode == MIXED
        if usable and self._mode == MIXED:
            self._followOpacity()
        self._updateApplied()
        self._updateSolids()

    def reset(self) -> None:
        """Mixes the volumes again, if something else is seen: nothing is left that is not to be saved."""
        if self._mode == MIXED:
            return
        self._mode = MIXED
        with signalsBlocked(self._ui.compareSelector):
            self._ui.compareSelector.currentIndex = self._ui.compareSelector.findData(MIXED)
        self._show()

    def _followOpacity(self) -> None:
        """The views have a slider of their own."""
        from .scene_compare import opacity_of

        opacity = opacity_of(self._volumes[1])
        if opacity is not None:
            with signalsBlocked(self._ui.opacitySlider):
                self._ui.opacitySlider.value = opacity

    def _mend(self) -> None:
        """A scene may have been saved while squares or a difference were seen."""
        from .scene_compare import is_left_over

        if is_left_over(self._volumes[1]):
            self._show()

    def pause(self) -> None:
        """The user goes to another module: nothing flickers there."""
        if self._mode == FLICKER:
            self.reset()

    def forget(self) -> None:
        """Lets go of a scene that is about to be closed."""
        self._timer.stop()
        self._mode, self._stamp, self._volumes, self._found = MIXED, None, (None, None), None
        with signalsBlocked(self._ui.compareSelector):
            self._ui.compareSelector.currentIndex = self._ui.compareSelector.findData(MIXED)

    def _updateApplied(self) -> None:
        box = self._ui.appliedCheckBox
        transform, standing = self._found or (None, None)
        moving = self._volumes[1]
        parent = moving.GetParentTransformNode() if transform is not None else None
        laid = standing is Standing.LAID and parent is transform
        left = standing is Standing.APART and parent is transform.GetParentTransformNode()
        with signalsBlocked(box):
            box.checked = standing in AS_ALIGNED
        box.enabled = laid or left

    def _updateSolids(self) -> None:
        from .scene_compare import Solid, solid_of, solids

        selector = self._ui.solidSelector
        transform, standing = self._found or (None, None)
        there = solids(transform) if standing in AS_ALIGNED else []
        texts = {
            Solid.CORTICES: _("Both cortices"),
            Solid.DISTANCE: _("Moving cortex, by distance"),
            Solid.THICKNESS: _("Cartilage, by thickness"),
        }
        with signalsBlocked(selector):
            selector.clear()
            for solid in there:
                selector.addItem(texts[solid], solid.value)
            if there:
                selector.currentIndex = selector.findData(solid_of(transform).value)
        selector.enabled = bool(there)

    def _modeChosen(self, index: int) -> None:
        if index >= 0 and all(self._volumes):
            self._mode = self._ui.compareSelector.itemData(index)
            self._ui.opacitySlider.enabled = self._mode == MIXED
            self._show()

    def _opacityChosen(self, value: float) -> None:
        if all(self._volumes) and self._mode == MIXED:
            self._show()

    def _appliedChosen(self, applied: bool) -> None:
        if self._found is not None:
            moving = self._volumes[1]
            if applied:
                lay(moving, self._found[0])
            else:
                undo(moving)

    def _solidChosen(self, index: int) -> None:
        if index >= 0 and self._found is not None:
            from .scene_compare import Solid, show_solid

            with slicer.util.WaitCursor():
                show_solid(self._found[0], Solid(self._ui.solidSelector.itemData(index)))
            self._updateSolids()  # a node that was made has brought the list up to date, but too early

    def _show(self) -> None:
        from .scene_compare import remove_checkerboard, show_checkerboard, show_difference, show_mixed, show_plain

        self._timer.stop()
        if not all(self._volumes):
            show_plain(slicer.mrmlScene)
            return
        with slicer.util.WaitCursor():
            if self._mode == CHECKERBOARD:
                show_checkerboard(*self._volumes)
                return
            if self._mode == DIFFERENCE:
                self._subtracted = self._difference()
                show_difference(*self._volumes, *self._subtracted)
            else:
                show_mixed(*self._volumes, self._ui.opacitySlider.value)
            remove_checkerboard(slicer.mrmlScene)
        if self._mode == FLICKER:
            self._timer.start()

    def _difference(self) -> tuple:
        """Which scan has the agent, and the subtraction volume, which is of the volumes as aligned."""
        transform, standing = self._found or (None, None)
        subtraction = outputs_of(transform).get("subtraction") if standing in AS_ALIGNED else None
        there = subtraction is not None and lies_beside(subtraction, transform)
        return self._contrast, subtraction if there else None

    def _turn(self) -> None:
        from .scene_compare import show_mixed

        if all(self._volumes):
            self._onTop = not self._onTop
            show_mixed(*self._volumes, float(self._onTop))
