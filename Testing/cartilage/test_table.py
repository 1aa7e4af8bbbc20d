"""The table of compartments."""

import numpy as np
from cartilages import made_measurement
from DNetRegistrationLib.cartilage.result import Reason
from DNetRegistrationLib.cartilage.table import _why


def test_why_a_compartment_is_not_measured_is_told_by_the_reasons_of_its_points():
    found = made_measurement().map
    medial = found.compartment == 0
    found.reason[np.flatnonzero(medial)[:100]] = Reason.UNCERTAIN
    shares = [100 * np.average(found.reason[medial] == one, weights=found.areas_mm2[medial]) for one in Reason]
    told = _why(found, medial, "medial")
    assert f"the medial compartment is not measured, since only {int(shares[0])} % of it could be: noise or" in told
    assert f"open ({shares[4]:.0f} %); soft tissue or" in told and told.endswith(f"layer ({shares[1]:.0f} %)")
