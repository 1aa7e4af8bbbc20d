"""The panel's list of alignments, where there are several of the two volumes: one of each bone, say."""

from slicer.i18n import tr as _

from .panel_choices import signalsBlocked
from .panel_result import names_of
from .scene import alignment_of, lay, left_behind, outputs_of
from .standing import choosable


class AlignmentList:
    """By which alignment the moving volume lies.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui) -> None:
        self._ui, self._moving, self._nodes = ui, None, []
        ui.alignmentSelector.connect("currentIndexChanged(int)", self._chosen)

    def update(self, parameters, found) -> None:
        """Brings the list up to date with the scene; `found` is of `current_alignment`, None while one runs."""
        self._moving, self._nodes = None, []
        if found is not None:
            self._moving = parameters.movingVolume
            self._nodes = choosable(parameters.fixedVolume, parameters.movingVolume)
        selector, current = self._ui.alignmentSelector, found[0] if found else None
        selector.visible = self._ui.alignmentLabel.visible = self._nodes not in ([], [current])
        with signalsBlocked(selector):
            selector.clear()
            for node, name in zip(self._nodes, names_of(self._nodes), strict=True):
                text = _("{name}: accepted") if alignment_of(node).accepted else _("{name}: not accepted")
                selector.addItem(text.format(name=name), node.GetID())
            selector.currentIndex = self._nodes.index(current) if current in self._nodes else -1

    def forget(self) -> None:
        """Lets go of a scene that is about to be closed."""
        self._moving, self._nodes = None, []

    def _chosen(self, index: int) -> None:
        if not 0 <= index < len(self._nodes):
            return
        from .scene_outputs import show_bones

        transform = self._nodes[index]
        lay(self._moving, transform)
        if outputs_of(transform).get("segmentation") not in left_behind(transform):
            show_bones(transform)
