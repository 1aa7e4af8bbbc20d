"""The command line's words for an error: one line, with the option that mends it."""

from __future__ import annotations

from collections.abc import Collection

from ..core.errors import DNetError, Setting, known_error, one_line
from .arguments import option_name

#: The options that set a quantity, where they are not called like it. Of several, those count that the command has.
OPTIONS = {
    "spacing": ("scan_spacing", "fixed_spacing", "moving_spacing"),
    "threshold": ("fixed_threshold", "moving_threshold"),
    "series": ("fixed_series", "moving_series"),
    "mask": ("fixed_mask", "moving_mask"),
    "flip": ("scan_flip", "fixed_flip", "moving_flip"),
    "segment": ("fixed_segment", "moving_segment"),
    "kind": ("kinds",),
}


def explain(error: BaseException, options: Collection[str] = ()) -> str:
    """An error in one line.

    Args:
        error: any exception.
        options: the names of the command's options, with underscores and without the leading dashes.

    Example:
        >>> from DNetRegistrationLib.core.errors import ScanError
        >>> error = ScanError("a.tif: has no voxel size", "give it in mm", Setting("spacing", "fixed"))
        >>> explain(error, ["fixed_spacing", "moving_spacing"])
        'a.tif: has no voxel size; give it in mm (--fixed-spacing)'
    """
    known = error if isinstance(error, DNetError) else known_error(error)
    if known is None:
        return f"unexpected {type(error).__name__}: {one_line(error)}; add --debug to see where it arose, and report it"
    option = None if known.setting is None else option_of(known.setting, options)
    text = " ".join(str(known).split())
    return text if option is None else f"{text} ({option})"


def option_of(setting: Setting, options: Collection[str]) -> str | None:
    """What sets a quantity on the command line, with the value where it is known; None where the command cannot.

    Example:
        >>> option_of(Setting("hypotheses", value="auto"), ["hypotheses"])
        '--hypotheses auto'
    """
    if setting.scan is not None:
        names = (f"{setting.scan}_{setting.quantity}",)
    else:
        names = tuple(name for name in OPTIONS.get(setting.quantity, ()) if name in options) or (setting.quantity,)
    found = [option_name(name) for name in names if name in options]
    if not found:
        return None
    return " or ".join(found) + ("" if setting.value is None else f" {setting.value}")
