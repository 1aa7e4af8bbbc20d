"""The panel's words: for an error the problem, the remedy and the control where it is set."""

from slicer.i18n import tr as _

from ..core.errors import DNetError, Setting
from ..core.words import micrometres
from .parameters import BoneChoice, Hypotheses, Refine


def explain(error: DNetError) -> str:
    """An error in one line, with the control that mends it."""
    control = None if error.setting is None else controlOf(error.setting)
    text = micrometres(str(error))
    return text if control is None else _("{error} ({control})").format(error=text, control=control)


def controlOf(setting: Setting) -> str | None:
    """Where a quantity is set in Slicer; None where it cannot be.

    Example:
        >>> controlOf(Setting("hypotheses", value="auto"))
        'under Advanced, Hypotheses: Network, then search'
    """
    controls = {
        "mask": {"fixed": _("under Inputs, Fixed mask"), "moving": _("under Inputs, Moving mask")}.get(setting.scan),
        "flip": _("under Advanced, Flip"),
        "bone": _("under Advanced, Bone"),
        "initial": _("under Advanced, Initial pose"),
        "spacing": _("in the module Volumes, under Volume Information, Image Spacing (mm)"),
        "threshold": _("under Advanced, Bone threshold"),
        "working_spacing": _("under Advanced, Working spacing"),
        "hypotheses": _("under Advanced, Hypotheses"),
        "weights": _("under Advanced, Weights"),
        "refine": _("under Advanced, Refine"),
        "device": _("under Advanced, Device"),
        "contrast": _("under Outputs, Contrast agent in"),
        "anyway": _("in the Python console, with anyway=True"),
        "region": _("under Outputs, Joint region"),
        "medial": _("under Outputs, Medial point"),
        "temporary_folder": _("under Edit, Application Settings, Modules"),
        "torch": _(
            "in the module PyTorch Utils click Uninstall PyTorch, restart Slicer, then click Align again to install it"
        ),
    }
    control = controls.get(setting.quantity)
    if control is None or setting.value is None:
        return control
    choices = {"hypotheses": Hypotheses, "refine": Refine, "bone": BoneChoice}.get(setting.quantity)
    return f"{control}: {setting.value if choices is None else choices(setting.value).label()}"
