"""Which layers are cartilage."""

import numpy as np
from DNetRegistrationLib.cartilage.layer import Layers
from DNetRegistrationLib.cartilage.mesh import Mesh
from DNetRegistrationLib.cartilage.tissue import _thick, _unlike


def test_what_is_faint_or_thick_and_rough_is_not_cartilage():
    """A plane of cartilage of 40 um, level 100, with four patches that differ from it."""
    side = 30
    x, y = (one.ravel() * 0.02 for one in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    corner = np.arange(side * side).reshape(side, side)
    a, b, c, d = (one.ravel() for one in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    mesh = Mesh(np.stack((x, y, 0 * x), 1), np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1))))
    thickness, level = np.full(side * side, 0.04), np.full(side * side, 100.0)
    faint, thin, rough = (np.hypot(x - u, y - v) < 0.09 for u, v in ((0.12, 0.12), (0.45, 0.12), (0.3, 0.45)))
    level[faint | thin] = 60
    thickness[thin] = 0.02
    thickness[rough] = np.random.default_rng(1).choice((0.03, 0.13), rough.sum())
    even = np.hypot(x - 0.5, y - 0.5) < 0.07
    thickness[even] = 0.08
    other = np.zeros(side * side)
    layers = Layers(thickness, other, level, other, other, other, other)
    sight = type("Sight", (), {"mesh": mesh, "agent_blur": 0.01})
    seen = np.ones(side * side, bool)
    thick = _thick(thickness, seen, seen)
    found = _unlike(layers, sight, seen, 100.0, thick, thickness < 0.025)
    # What is too thin to be resolved may be cartilage that is seen faintly.
    assert found[faint].all() and not found[thin].any()
    assert found[rough & (thickness > 0.1)].all()
    assert not found[~faint & (thickness < 0.05)].any()
    # What is thick and even may be cartilage that goes on from thinner.
    inside = np.hypot(x - 0.5, y - 0.5) < 0.02
    assert not found[inside].any() and (thick == (thickness > 0.06)).all()


def test_what_is_thick_is_so_in_its_own_compartment():
    thickness, first = np.array((20, 20, 29, 60, 60, 85.0)), np.arange(6) < 3
    seen = np.ones(6, bool)
    assert (_thick(thickness, seen, first) == (0, 0, 1, 0, 0, 1)).all()
    # Where nothing of one is seen, the other tells.
    assert (_thick(thickness, first, first) == (0, 0, 1, 1, 1, 1)).all()
