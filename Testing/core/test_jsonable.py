"""Values as JSON's own types."""

import json
from pathlib import PurePosixPath

import numpy as np
from DNetRegistrationLib.core.jsonable import jsonable


def test_everything_becomes_plain_and_what_is_no_number_none():
    values = {
        "array": np.arange(4.0).reshape(2, 2),
        "scalars": (np.float32(0.5), np.int16(3), np.bool_(True), True, None, "text"),
        "no numbers": [np.nan, float("inf"), np.float64("-inf")],
        PurePosixPath("a/b"): PurePosixPath("c/d"),
    }
    plain = jsonable(values)
    assert plain == {
        "array": [[0.0, 1.0], [2.0, 3.0]],
        "scalars": [0.5, 3, True, True, None, "text"],
        "no numbers": [None, None, None],
        "a/b": "c/d",
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain and type(plain["scalars"][2]) is bool
