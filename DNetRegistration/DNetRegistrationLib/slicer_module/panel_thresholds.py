"""The panel's bone thresholds: a slider for each volume, in its grey values, and the outline of bone in the views."""

import qt
import slicer

from ..core.errors import ScanError
from .panel_choices import signalsBlocked
from .parameters import ROLES
from .scene import place


class ThresholdControls:
    """The sliders of the panel, for thresholds that the user sets.

    Args:
        ui: the panel's widgets.
        changed: called when the user moves a slider, with the name of the parameter and the threshold.
    """

    def __init__(self, ui, changed) -> None:
        self._sliders = {"fixed": ui.fixedThresholdSlider, "moving": ui.movingThresholdSlider}
        self._parameters = None
        self._previews = {}
        self._changed = changed
        # Outlines are drawn with a delay: a slider that is dragged changes faster than they can be drawn.
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(60)
        self._timer.connect("timeout()", self._showOutlines)
        ui.fixedThresholdSlider.connect("valueChanged(double)", self._fixedChanged)
        ui.movingThresholdSlider.connect("valueChanged(double)", self._movingChanged)

    def update(self, parameters, shown: bool) -> None:
        """Brings sliders and outlines up to date with the parameter node; outlines are drawn only where `shown`."""
        self._parameters = parameters
        manual = not parameters.automaticThreshold
        for role in ROLES:
            self._updateSlider(role, self._preview(role) if manual else None)
        if manual and shown:
            self._timer.start()
        else:
            self.hide()

    def reset(self, parameters) -> None:
        """Sets both thresholds to the automatic ones."""
        self._parameters = parameters
        for role in ROLES:
            self._reset(role)

    def hide(self) -> None:
        """Removes the outlines."""
        self._timer.stop()
        if self._previews:
            from .scene_preview import hide_outlines

            hide_outlines(slicer.mrmlScene)

    def forget(self) -> None:
        """Lets go of a scene that is about to be closed."""
        self.hide()
        self._parameters = None
        self._previews.clear()

    def _updateSlider(self, role: str, preview) -> None:
        slider = self._sliders[role]
        slider.enabled = preview is not None
        if preview is None:
            return
        value = getattr(self._parameters, f"{role}Threshold")
        reach = max(preview.high - preview.low, 1e-9)
        digits = next((n for n in range(6) if 10**-n <= reach / 500), 6)
        with signalsBlocked(slider):
            slider.decimals = digits
            slider.singleStep = 10.0**-digits
            slider.minimum, slider.maximum = min(preview.low, value), max(preview.high, value)
            slider.value = value

    def _preview(self, role: str):
        """The averaged scan of a role; None where it cannot be used. Made anew for another volume or changed voxels."""
        from .scene_preview import ThresholdPreview

        volume = getattr(self._parameters, f"{role}Volume")
        if not volume or not volume.GetImageData():
            return None
        stamp = volume.GetID(), volume.GetImageData().GetMTime()
        before = self._previews.get(role)
        if before is None or before[0] != stamp:
            try:
                with slicer.util.WaitCursor():
                    self._previews[role] = stamp, ThresholdPreview.of(place(volume, role))
            except ScanError:
                self._previews[role] = stamp, None
            # Another volume gets its own threshold. 0 is a threshold that was never set.
            if before is not None or not getattr(self._parameters, f"{role}Threshold"):
                self._reset(role)
        return self._previews[role][1]

    def _reset(self, role: str) -> None:
        preview = self._preview(role)
        if preview is not None:
            value = preview.automatic if preview.automatic is not None else (preview.low + preview.high) / 2
            setattr(self._parameters, f"{role}Threshold", value)

    def _showOutlines(self) -> None:
        from .scene_preview import show_outline

        if self._parameters is not None:
            for role in ROLES:
                preview = self._preview(role)
                if preview is not None:
                    show_outline(preview, getattr(self._parameters, f"{role}Threshold"), role)

    def _fixedChanged(self, value: float) -> None:
        self._changed("fixedThreshold", value)

    def _movingChanged(self, value: float) -> None:
        self._changed("movingThreshold", value)
