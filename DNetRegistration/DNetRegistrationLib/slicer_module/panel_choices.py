"""The panel's lists of weights and devices, which offer what is there."""

import contextlib

import ctk
from slicer.i18n import tr as _

from ..networks.weights import available_weights
from .parameters import FILE, Hypotheses


@contextlib.contextmanager
def signalsBlocked(*widgets):
    """Changes made to the widgets in the block are not taken for the user's."""
    before = [widget.blockSignals(True) for widget in widgets]
    try:
        yield
    finally:
        for widget, blocked in zip(widgets, before, strict=True):
            widget.blockSignals(blocked)


class Choices:
    """The lists of weights and devices.

    Args:
        ui: the panel's widgets.
        changed: called when the user chooses, with the name of the parameter and its value.
        findDevices: see `DNetRegistrationLogic.findDevices`.
    """

    def __init__(self, ui, changed, findDevices) -> None:
        self._ui, self._changed, self._findDevices = ui, changed, findDevices
        self._search = None  # the process that looks for devices
        for name in available_weights():
            ui.weightsSelector.addItem(_("{name} (ships with the module)").format(name=name), name)
        ui.weightsSelector.addItem(_("From a file"), FILE)
        for role, volume in (("moving", _("Moving volume")), ("fixed", _("Fixed volume"))):
            for axis, name in (("z", _("slices")), ("y", _("rows")), ("x", _("columns"))):
                text = _("{volume}, {axis} ({name})").format(volume=volume, axis=axis, name=name)
                ui.flipSelector.addItem(text, f"{role} {axis}")
        ui.weightsPath.filters = ctk.ctkPathLineEdit.Files
        ui.deviceSelector.addItem(_("Automatic"), "auto")
        ui.deviceSelector.addItem(_("CPU"), "cpu")
        ui.weightsSelector.connect("currentIndexChanged(int)", self._weightsChanged)
        ui.weightsPath.connect("currentPathChanged(QString)", self._weightsChanged)
        ui.deviceSelector.connect("currentIndexChanged(int)", self._deviceChanged)
        ui.advancedCollapsibleButton.connect("contentsCollapsed(bool)", self._advancedCollapsed)

    def update(self, parameters) -> None:
        """Shows what the parameter node holds."""
        selector, path, name = self._ui.weightsSelector, self._ui.weightsPath, parameters.weights
        file = name.removeprefix(FILE) if name.startswith(FILE) else None
        with signalsBlocked(selector, path):
            selector.currentIndex = selector.findData(FILE) if file is not None else max(0, selector.findData(name))
            if file is not None and file != path.currentPath:
                path.currentPath = file
        network = parameters.hypotheses is not Hypotheses.search
        selector.enabled, path.enabled = network, network and file is not None
        selector = self._ui.deviceSelector
        with signalsBlocked(selector):
            if selector.findData(parameters.device) < 0:
                selector.addItem(_("{name} (not found here)").format(name=parameters.device), parameters.device)
            selector.currentIndex = selector.findData(parameters.device)
        measured = parameters.cartilageSegment or parameters.cartilage or parameters.thickness
        self._ui.contrastSelector.enabled = bool(measured or parameters.subtraction)
        for name in ("regionMask", "regionSegment", "medialPoint"):
            getattr(self._ui, f"{name}Selector").enabled = bool(measured)

    def close(self) -> None:
        """Ends the search for devices."""
        if self._search is not None:
            self._search.kill()

    def _weightsChanged(self, value=None) -> None:
        name = self._ui.weightsSelector.itemData(self._ui.weightsSelector.currentIndex)
        # `FILE` alone stands for a file that has not been chosen yet.
        self._changed("weights", name + (self._ui.weightsPath.currentPath if name == FILE else ""))

    def _deviceChanged(self, index: int) -> None:
        if index >= 0:
            self._changed("device", self._ui.deviceSelector.itemData(index))

    def _advancedCollapsed(self, collapsed: bool) -> None:
        # Devices are looked for when the list comes into view, in a process: torch is slow to import.
        if not collapsed and self._search is None:
            self._search = self._findDevices(self._addDevices)

    def _addDevices(self, devices) -> None:
        if not devices:  # torch is missing: next time they may be found
            self._search = None
        selector = self._ui.deviceSelector
        with signalsBlocked(selector):
            for name, label in devices:
                index = selector.findData(name)
                if index < 0:
                    selector.addItem(label, name)
                else:
                    selector.setItemText(index, label)
