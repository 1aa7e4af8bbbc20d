"""What the panel says of an alignment: the verdict in colour, and the figures below it."""

import math

from slicer.i18n import tr as _

from .scene import FIXED_ROLE, MOVING_ROLE, alignment_of, lies_as_aligned, transform_above

# Colours of their own for text and ground, so that they can be read in light and dark themes.
_STYLES = {
    "plain": "",
    "good": "background-color: #d7f0dd; color: #0f3d1f; padding: 6px; border-radius: 4px;",
    "doubt": "background-color: #ffeec2; color: #4a3600; padding: 6px; border-radius: 4px;",
    "bad": "background-color: #f8d7da; color: #58151c; padding: 6px; border-radius: 4px;",
}


class ResultView:
    """The section Result of the panel.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._message = None  # of what has just happened; it goes before what the scene says

    def tell(self, kind: str, text: str, details: str = "") -> None:
        """Says something that has just happened, until `forget`. It shows with the next `update`.

        Args:
            kind: "plain", "good", "doubt" or "bad".
            text: the verdict.
            details: what stands below it.
        """
        self._message = kind, text, details

    def forget(self) -> None:
        """From now on, what the scene says is shown."""
        self._message = None

    def update(self, parameters, running: bool) -> None:
        """Shows what was told last or, where nothing was, what the scene says of the selected volumes."""
        kind, text, details = self._message or self._ofScene(parameters, running)
        self._ui.verdictLabel.text = text
        self._ui.verdictLabel.styleSheet = _STYLES[kind]
        self._ui.detailsLabel.text = details
        self._ui.detailsLabel.visible = bool(details)

    def _ofScene(self, parameters, running: bool) -> tuple[str, str, str]:
        if running:
            return "plain", _("Aligning…"), ""
        transform = parameters.transform if parameters else None
        alignment = alignment_of(transform)
        if alignment is None or any(
            volume is None or transform.GetNodeReferenceID(role) != volume.GetID()
            for role, volume in ((FIXED_ROLE, parameters.fixedVolume), (MOVING_ROLE, parameters.movingVolume))
        ):
            return "plain", _("Not aligned yet."), ""
        if transform_above(parameters.movingVolume) is not transform:
            text = _("Aligned, but not applied: click Align, or put the moving volume under {name}.")
            return "plain", text.format(name=transform.GetName()), ""
        if not lies_as_aligned(transform):
            return "doubt", _("Moved by hand since it was aligned: nothing vouches for this. Undo, or align again."), ""
        return "good" if alignment.accepted else "doubt", alignment.verdict, figures(alignment)


def figures(alignment) -> str:
    """An alignment in a few lines: overlap, confidence, motion, origin, time."""

    def number(value, form: str) -> str:
        return _("unknown") if math.isnan(value) else format(value, form)

    x, y, z = alignment.translation_mm
    bone = [] if alignment.bone is None else [alignment.bone.name.capitalize()]
    lines = [
        *bone,
        _("Dice of the cortices: {before} before, {after} after").format(
            before=number(alignment.dice_before, ".3f"), after=number(alignment.dice, ".3f")
        ),
        _("Confidence: {percent} % that the mean error is below {voxel} µm").format(
            percent=number(100 * alignment.confidence, ".1f"), voxel=f"{1000 * alignment.working_spacing:.3g}"
        ),
        _("Expected error: {error} µm, mean over the bone").format(error=number(alignment.expected_error_um, ".1f")),
        _("Rotation: {angle}°; translation of the bone: {length} mm").format(
            angle=number(alignment.rotation_deg, ".2f"), length=f"{(x * x + y * y + z * z) ** 0.5:.3f}"
        ),
        _("Found by {path} on {device}, in {seconds} s").format(
            path={
                "dnet": _("the network {name}").format(name=alignment.network),
                "search": _("the search over all rotations"),
            }.get(alignment.hypothesis, alignment.hypothesis),
            device={"cpu": _("the CPU")}.get(alignment.device, alignment.device),
            seconds=number(alignment.seconds.get("total", math.nan), ".1f"),
        ),
        *(_("Note: {warning}").format(warning=warning) for warning in alignment.warnings),
    ]
    return "\n".join(lines)
