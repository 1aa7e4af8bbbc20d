"""Results of a comparison, made up."""

from __future__ import annotations

import math

import numpy as np
from DNetRegistrationLib.experiments.peers.results import MethodResult, PeerResults


def result(method="full", number=0, angle_bin=0, **values):
    usual = dict(
        version="1", pair=f"64-{number}", size=64, keep=1.0, contrast=True, angle_deg=15.0, threads=1,
        machine="m", error_um=4.0, rotation_error_deg=0.1, trusted="", seconds=1.0, peak_gb=0.5, before_gb=0.4,
        failure="", late=False, limit_s=600.0, matrix=tuple(np.eye(4).ravel()),
    )  # fmt: skip
    return MethodResult(method=method, angle_bin=angle_bin, **{**usual, **values})


def failed(method, number=0, angle_bin=0, **values):
    nothing = dict(error_um=math.inf, rotation_error_deg=math.inf, matrix=(), failure="RuntimeError: no overlap")
    return result(method, number, angle_bin, **{**nothing, **values})


def four_methods():
    """Two bins; this project aligns all, elastix one of four but more closely, ANTs half of its two, slowly."""
    turns = [
        result("full", n, n % 2, error_um=e, seconds=s) for n, (e, s) in enumerate([(2, 1), (4, 1), (6, 2), (8, 2)])
    ]
    turns += [result("elastix", 0, 0, error_um=1.0, seconds=0.5, peak_gb=0.9)]
    turns += [result("elastix", n, n % 2, error_um=900.0, seconds=0.5, peak_gb=1.1) for n in (1, 2, 3)]
    turns += [result("ants", 0, 0, error_um=50.0, seconds=90.0), failed("ants", 1, 1, seconds=110.0)]
    growth = [result("full", 9, size=64, seconds=1.0), result("full", 9, size=128, seconds=3.0, peak_gb=2.0)]
    growth += [result("elastix", 9, size=64, seconds=0.5, error_um=700.0), result("elastix", 9, size=128, peak_gb=1.0)]
    growth += [failed("ants", 9, size=64, late=True, seconds=math.inf, failure="over the limit of 600 s")]
    return PeerResults(turns, growth, skipped={"dnet": "no weights"})
