"""How a result reads in the panel."""

import math

from slicer.i18n import tr as _

# Colours of their own for text and ground, so that they can be read in light and dark themes.
STYLES = {
    "plain": "",
    "good": "background-color: #d7f0dd; color: #0f3d1f; padding: 6px; border-radius: 4px;",
    "doubt": "background-color: #ffeec2; color: #4a3600; padding: 6px; border-radius: 4px;",
    "bad": "background-color: #f8d7da; color: #58151c; padding: 6px; border-radius: 4px;",
}


def resultText(alignment) -> str:
    """An alignment in a few lines: overlap, confidence, motion, origin, time."""

    def number(value, form: str) -> str:
        return _("unknown") if math.isnan(value) else format(value, form)

    x, y, z = alignment.translation_mm
    lines = [
        _("Dice of the cortices: {before} before, {after} after").format(
            before=number(alignment.dice_before, ".3f"), after=number(alignment.dice, ".3f")
        ),
        _("Confidence: {percent} % that the mean error is below {voxel} µm").format(
            percent=number(100 * alignment.confidence, ".1f"),
            voxel=f"{1000 * alignment.working_spacing:.3g}",
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
