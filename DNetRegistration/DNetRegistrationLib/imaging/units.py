"""Units of length as files spell them."""

from __future__ import annotations

_MILLIMETRES = {
    1e-6: ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    1e-3: ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"),
    1.0: ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    10.0: ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    25.4: ("in", "inch", "inches", '"'),
    1000.0: ("m", "meter", "meters", "metre", "metres"),
}  # fmt: skip


def millimetres(unit: str) -> float | None:
    """The length of a unit in mm, or None where it is not known.

    Example:
        >>> millimetres("Micron"), millimetres("pixel")
        (0.001, None)
    """
    word = unit.strip().lower().replace("\\u00b5", "µ")
    return next((length for length, words in _MILLIMETRES.items() if word in words), None)
