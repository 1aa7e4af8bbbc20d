"""What the panel says of an alignment: the verdict in colour, and the figures below it."""

import math

from slicer.i18n import tr as _

from ..core.words import micrometres, percent, plain
from .events import error_of
from .scene import alignment_of, find_transforms, left_behind, transform_above
from .scene_cartilage import told_of
from .standing import AS_ALIGNED, Standing, choosable
from .wording import explain

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
        self._drawn = {}  # whether the bones were last where a node draws them, by its ID
        self._hid = {}  # what was shown of a node when they ceased to be

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

    def replaced(self) -> None:
        """Another alignment is written: what was hidden of the one before stays hidden."""
        self._drawn, self._hid = {}, {}

    def update(self, parameters, running: bool, found) -> None:
        """Shows what was told last or, where nothing was, what the scene says of the selected volumes.

        Args:
            parameters: the parameter node.
            running: whether an alignment runs.
            found: of `current_alignment`.
        """
        said = self._ofScene(parameters, running, found)  # and follows it, whatever is told
        kind, text, details = self._message or said
        self._ui.verdictLabel.text = text
        self._ui.verdictLabel.styleSheet = _STYLES[kind]
        self._ui.detailsLabel.text = details
        self._ui.detailsLabel.visible = bool(details)

    def _ofScene(self, parameters, running: bool, found) -> tuple[str, str, str]:
        if running:
            return "plain", _("Aligning…"), ""
        alignment = alignment_of(found[0]) if found else None
        if alignment is None:
            self._drawn, self._hid = {}, {}
            return "plain", _("Not aligned yet."), ""
        (transform, standing), moving = found, parameters.movingVolume
        name = transform.GetName()
        holds = standing in AS_ALIGNED
        behind = left_behind(transform)
        self._followBones(moving, transform if holds else None, behind)
        notes = other_lines(parameters, transform)
        if behind:
            text = _("Left where the fixed volume was before it was moved: {names}. Align again.")
            notes.append(text.format(names=", ".join(node.GetName() for node in behind)))
        if holds:
            details = "\n".join((figures(alignment), *cartilage_lines(told_of(transform)), *notes))
            if standing is Standing.HARDENED:
                note = _("{moving} lies so without {name}, as after hardening: Undo cannot take it back.")
                details += "\n" + note.format(moving=moving.GetName(), name=name)
            return "good" if alignment.accepted else "doubt", micrometres(alignment.verdict), details
        if standing is Standing.APART:
            text = _("Aligned, but not applied: choose As aligned, or put the moving volume under {name}.")
            said = _("As aligned: {verdict}").format(verdict=micrometres(alignment.verdict))
            return "plain", text.format(name=name), "\n".join((said, figures(alignment), *notes))
        cause = {
            Standing.MOVED: _("Moved since it was aligned"),
            Standing.EDITED: _("Voxels were changed since it was aligned"),
            Standing.UNKNOWN: _("What was aligned is not on record"),
        }[standing]
        remedy = _("Undo, or align again.") if transform_above(moving) is transform else _("Align again.")
        return (
            "doubt",
            _("{cause}: the verdict does not apply to this. {remedy}").format(cause=cause, remedy=remedy),
            "",
        )

    def _followBones(self, moving, current, behind) -> None:
        """Hides what is drawn of the bones when they come to lie elsewhere, and shows it when they are back.

        Args:
            moving: the moving volume; what is drawn of it by alignments to any fixed one is followed.
            current: the transform node of the alignment by which the volumes lie, or None.
            behind: of `left_behind`.
        """
        from .scene_outputs import drawn, hide

        for transform in find_transforms(None, moving):
            for node in drawn(transform):
                name, there = node.GetID(), transform is current and node not in behind
                if self._drawn.get(name) is there:  # what the user shows or hides meanwhile stays
                    continue
                self._drawn[name] = there
                if not there:
                    self._hid[name] = hide(node)
                    continue
                for display in self._hid.pop(name, ()):
                    if display.GetScene() is not None:
                        display.SetVisibility(True)


def other_lines(parameters, transform) -> list[str]:
    """What is said of the other alignments by which the volumes could lie."""
    nodes = choosable(parameters.fixedVolume, parameters.movingVolume)
    text = _("Another choice, {name}: {verdict}")
    return [
        text.format(name=name, verdict=micrometres(alignment_of(node).verdict))
        for node, name in zip(nodes, names_of(nodes), strict=True)
        if node is not transform
    ]


def names_of(transforms) -> list[str]:
    """What tells alignments apart: the bone that each is of, where it is one of several, or the transform's name."""
    bones = [alignment_of(transform).bone for transform in transforms]
    numbers = [bone and bone.number for bone in bones]
    names = []
    for transform, bone in zip(transforms, bones, strict=True):
        name = transform.GetName()
        alone = bone is not None and numbers.count(bone.number) == 1
        names.append(name if bone is None else bone.name if alone else f"{bone.name} ({name})")
    return names


def cartilage_lines(told: dict | None) -> list[str]:
    """What was measured of the cartilage, or why nothing was; see `MeasuredCartilage.told`."""
    if told is None:
        return []
    if "problem" in told:
        error = error_of(told["problem"])
        reason = explain(error) if error is not None else told["problem"]["problem"]
        return [_("Cartilage was not measured: {reason}").format(reason=reason)]
    lines = []
    for one in told["compartments"]:
        name = {"medial": _("medial"), "lateral": _("lateral"), "all": _("all")}[one["name"]]
        if one["mean_thickness_um"] is None:
            lines.append(_("Cartilage, {name}: not measured").format(name=name))
            continue
        text = _("Cartilage, {name}: {mean} ± {error} µm, {volume} mm³; {share} of {area} mm² measured")
        lines.append(
            text.format(
                name=name,
                mean=f"{one['mean_thickness_um']:.1f}",
                error=f"{one['standard_error_um']:.1f}",
                volume=f"{one['volume_mm3']:.4f}",
                share=percent(one["measured_share"]),
                area=f"{one['area_mm2']:.2f}",
            )
        )
    notes = [_("Note on the cartilage: {warning}").format(warning=micrometres(text)) for text in told["warnings"]]
    return lines + notes


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
        _("Confidence: {percent} that the mean error is below {voxel} µm").format(
            percent=percent(alignment.confidence), voxel=plain(1000 * alignment.working_spacing, 3)
        ),
        _("Expected error: {error} µm, mean over the bone").format(error=number(alignment.expected_error_um, ".1f")),
        _("Rotation: {angle}°; translation of the bone: {length} mm").format(
            angle=number(alignment.rotation_deg, ".2f"), length=f"{(x * x + y * y + z * z) ** 0.5:.3f}"
        ),
        _("Found by {path} on {device}, in {seconds} s").format(
            path={
                "dnet": _("the network {name}").format(name=alignment.network),
                "search": _("the search over all rotations"),
                "initial": _("the initial pose"),
            }.get(alignment.hypothesis, alignment.hypothesis),
            device={"cpu": _("the CPU")}.get(alignment.device, alignment.device),
            seconds=number(alignment.seconds.get("total", math.nan), ".1f"),
        ),
        *(_("Note: {warning}").format(warning=micrometres(warning)) for warning in alignment.remarks),
    ]
    return "\n".join(lines)
