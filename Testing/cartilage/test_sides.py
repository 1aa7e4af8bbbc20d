"""The medial side of a joint, by a point that is given."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.sides import _CHECK, doubtful_medial
from DNetRegistrationLib.imaging.volume import Volume


def _placed(origin):
    """A scan of 2 mm of another world."""
    affine = np.diag((0.05, 0.05, 0.05, 1.0))
    affine[:3, 3] = origin
    return Volume(np.zeros((40, 40, 40), np.float32), affine, "fixed scan")


@pytest.mark.parametrize(
    ("origin", "point", "apart"),
    [
        ((-1, -1, -1), (0.5, 0.2, 0.1), None),  # within
        ((-1, -1, -1), (1.2, 0.2, 0.1), None),  # beyond a cut view, whose middle is the world's
        ((-1, -1, -1), (0.1, 0.2, 2.0), None),  # other signs leave it outside
        ((-1, -1, -1), (0.1, 0.2, 3.1), "2.1"),  # farther than the scan is long
        ((-1.6, -1, -1), (0.6, 0.1, 0.1), None),  # cut on one side: with other signs it would lie within
        ((4, 5, 6), (-5, -6, 7), "14.2"),  # of RAS
        ((4, 5, 6), (5, 6, 7), None),
    ],
)
def test_a_point_on_the_medial_side_is_warned_of_where_its_signs_may_be_wrong(origin, point, apart):
    """Right points just beyond a cut view were told to have wrong signs."""
    found = doubtful_medial(point, _placed(origin))
    assert found == (
        [] if apart is None else [f"the point on the medial side lies {apart} mm outside fixed scan: {_CHECK}"]
    )
